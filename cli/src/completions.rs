//! `starlift completions`: what a shell needs to complete commands and flags, made from the flags themselves.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::end::{End, Outcome};
use crate::output;

pub(crate) fn print(shell: Shell) -> Outcome {
    output::text(&script(shell));
    Ok(End::Done)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "starlift", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{} for {shell}", command.get_name());
            }
            assert!(script.contains("datasources"), "flags for {shell}");
        }
    }
}

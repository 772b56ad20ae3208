//! Command lines to be pasted: the one that goes on with a job, the one that follows it. With the flags that were
//! given, by flag or variable, since the next shell may have neither. Pure text-making but for the program's own name.

use std::path::Path;

use crate::args::{ClientArgs, CoordinatorUrls, RunArgs};

/// Goes on with the job of an interrupted `starlift run`.
pub(crate) fn run(args: &RunArgs) -> String {
    run_by(&program(), args)
}

/// Follows a job that goes on elsewhere.
pub(crate) fn watch(job_id: &str, args: &ClientArgs) -> String {
    watch_by(&program(), job_id, args)
}

/// As it was called: `starlift`, or the path to it where no directory of programs was searched.
fn program() -> String {
    let called = std::env::args().next().filter(|called| called.contains('/'));
    called.unwrap_or_else(|| "starlift".into())
}

fn run_by(program: &str, args: &RunArgs) -> String {
    let mut line = Line::of(&[program, "run"]);
    let file = args.job.path.display().to_string();
    // A name that looks like a flag.
    line.word(&if file.starts_with('-') { format!("./{file}") } else { file });
    for (name, value) in &args.job.parameters {
        line.flag("--param", &format!("{name}={value}"));
    }
    line.path("--params-file", args.job.params_file.as_deref());
    // Without them the run goes on with the times it began with; its zone was for the clock alone.
    if let Some(date) = args.job.times.bizdate {
        line.flag("--bizdate", &date.to_string());
    }
    if let Some(time) = args.job.times.scheduled_time {
        line.flag("--scheduled-time", &time.to_string());
    }
    line.switch("--lenient", args.job.lenient);
    line.path("--datasources", Some(&args.datasources.path));
    line.path("--state", Some(&args.state));
    if args.workers != 1 {
        line.flag("--workers", &args.workers.to_string());
    }
    if let Some(slots) = args.slots {
        line.flag("--slots", &slots.to_string());
    }
    line.path("--dirty-dir", args.dirty.dirty_dir.as_deref());
    line.switch("--mask-dirty", args.dirty.mask_dirty);
    line.switch("--json", args.output.json);
    line.0
}

fn watch_by(program: &str, job_id: &str, args: &ClientArgs) -> String {
    let mut line = Line::of(&[program, "watch", job_id]);
    if args.coordinator.urls != [CoordinatorUrls::DEFAULT] {
        line.flag("--coordinator", &args.coordinator.urls.join(","));
    }
    let link = &args.link;
    line.path("--tls-cert", link.tls_cert.as_deref());
    line.path("--tls-key", link.tls_key.as_deref());
    line.path("--tls-ca", link.tls_ca.as_deref());
    if let Some(name) = &link.tls_server_name {
        line.flag("--tls-server-name", name);
    }
    line.path("--token-file", link.token_file.as_deref());
    line.switch("--insecure", link.insecure);
    line.switch("--json", args.output.json);
    line.0
}

/// Words as a shell reads them back.
struct Line(String);

impl Line {
    fn of(words: &[&str]) -> Self {
        Self(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
    }

    fn word(&mut self, word: &str) {
        self.0.push(' ');
        self.0.push_str(&quoted(word));
    }

    fn flag(&mut self, name: &str, value: &str) {
        self.word(name);
        self.word(value);
    }

    fn path(&mut self, name: &str, path: Option<&Path>) {
        if let Some(path) = path {
            self.flag(name, &path.display().to_string());
        }
    }

    fn switch(&mut self, name: &str, is_on: bool) {
        if is_on {
            self.word(name);
        }
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=./:,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(words: &[&str]) -> Command {
        Cli::try_parse_from(words).unwrap().command
    }

    /// The words of a line, by the shell itself.
    fn read_back(line: &str) -> Vec<String> {
        let printed = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("printf '%s\\0' {line}"))
            .output()
            .unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_run_is_repeated_with_all_that_it_was_given() {
        let job = "it's my job $(date).json";
        let given = [
            "starlift",
            "run",
            job,
            "--param",
            "where=a > 'b' && `c`",
            "--param",
            "day=",
            "--params-file",
            "p q",
            "--bizdate",
            "20251101",
            "--lenient",
            "--datasources",
            "my sources.toml",
            "--state",
            "s;t",
            "--workers",
            "3",
            "--slots",
            "5",
            "--dirty-dir",
            "bad rows",
            "--mask-dirty",
            "--json",
            "--new",
        ];
        let Command::Run(args) = parsed(&given) else { panic!("not a run") };
        let line = run_by("starlift", &args);
        let words = read_back(&line);
        // Not anew: it goes on.
        assert!(!words.contains(&"--new".to_owned()));
        let Command::Run(again) = parsed(&words.iter().map(String::as_str).collect::<Vec<_>>()) else {
            panic!("not a run: {line}")
        };
        assert_eq!(format!("{again:?}"), format!("{args:?}").replace("new: true", "new: false"));
        let Command::Run(plain) = parsed(&["starlift", "run", "--", "-job.json"]) else {
            panic!("not a run")
        };
        assert_eq!(
            run_by("a b/starlift", &plain),
            "'a b/starlift' run ./-job.json --datasources datasources.toml --state .starlift"
        );
    }

    #[test]
    fn a_job_is_followed_where_it_is() {
        let Command::Watch(args) = parsed(&["starlift", "watch", "J"]) else { panic!("not a watch") };
        assert_eq!(watch_by("starlift", "J", &args.client), "starlift watch J");
        let given = [
            "starlift",
            "watch",
            "J",
            "--coordinator",
            "https://a:1,https://b:2",
            "--tls-ca",
            "the ca.crt",
            "--token-file",
            "user.token",
        ];
        let Command::Watch(args) = parsed(&given) else { panic!("not a watch") };
        let line = watch_by("starlift", "J", &args.client);
        assert_eq!(read_back(&line), given, "{line}");
    }

    #[test]
    fn a_shell_reads_a_quoted_word_back() {
        assert_eq!(quoted("day=2026-11-21"), "day=2026-11-21");
        assert_eq!(quoted("where=a > 'b'"), r"'where=a > '\''b'\'''");
        assert_eq!(quoted(""), "''");
    }
}

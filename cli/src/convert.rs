//! `starlift convert`: a DataX job becomes a job script and data source entries. Contacts nothing.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use starlift_common::datasource::Entry;
use starlift_common::problem::{Code, Problem};
use starlift_common::script;

use crate::args::ConvertArgs;
use crate::end::{End, Outcome};
use crate::{files, output};

pub(crate) fn convert(args: &ConvertArgs) -> Outcome {
    let text = files::read_text(&args.path, args.lenient)?;
    let converted = script::convert(&text)?;
    let entries: Vec<Entry> =
        converted.datasources.iter().map(|source| source.entry(args.with_passwords)).collect();
    let notes = notes(&converted.warnings, &entries);
    match &args.datasources_out {
        Some(path) => {
            write_entries(path, &entries).map_err(|problem| vec![problem])?;
            eprint!("{notes}");
        }
        // All of it can be put into a data source file as it is.
        None => {
            let comments = notes.lines().map(|note| format!("# {note}\n")).collect::<String>();
            eprint!("{comments}\n{}", joined(&entries));
        }
    }
    output::text(&converted.script);
    Ok(End::Done)
}

fn joined(entries: &[Entry]) -> String {
    entries.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// What is to be known and done, a line each.
fn notes(warnings: &[String], entries: &[Entry]) -> String {
    let mut notes: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let variables: Vec<&str> = entries.iter().filter_map(|entry| entry.variable.as_deref()).collect();
    if !variables.is_empty() {
        let where_needed = "in the environment of run, plan, coordinators and workers";
        notes += &format!("put the passwords into {} {where_needed}\n", variables.join(", "));
    }
    notes
}

/// A new file: an old one may hold what nobody wrote down elsewhere. It may hold passwords, so it is not for others.
fn write_entries(path: &Path, entries: &[Entry]) -> Result<(), Problem> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(joined(entries).as_bytes())).map_err(|error| {
        let message = format!("cannot write the data source entries: {error}");
        Problem::new(Code::InvalidSettings, message)
            .at(path.display().to_string())
            .hint("name a file that does not exist yet, and put its entries into your data source file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_name_each_variable_once_and_nothing_secret() {
        let entry = |variable: Option<&str>| Entry {
            text: "password = 'hidden'".into(),
            variable: variable.map(str::to_owned),
        };
        let notes = notes(&["/core: not used".into()], &[entry(Some("A_PASSWORD")), entry(None)]);
        assert!(
            notes.starts_with("warning: /core: not used\nput the passwords into A_PASSWORD in"),
            "{notes}"
        );
        assert!(!notes.contains("hidden"));
    }
}

//! What `starlift check` shows: every address against everybody who tried it, then what is to be mended. Pure text-making.

use std::collections::BTreeMap;

use starlift_proto as pb;

use crate::output::{count, line, push_problem, seconds, table};

/// Places that a matrix has columns for; more are summed up.
const COLUMNS_MOST: usize = 6;

/// What was tried, in the order in which the product comes to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Tried<'a> {
    rank: usize,
    address: &'a str,
    datasource: &'a str,
    part: &'a str,
}

impl<'a> Tried<'a> {
    fn of(finding: &'a pb::Finding) -> Self {
        const ORDER: [&str; 6] = ["source", "target", "fe", "be", "row", "packed_row"];
        let rank = ORDER.iter().position(|part| *part == finding.part).unwrap_or(ORDER.len());
        Self { rank, address: &finding.address, datasource: &finding.datasource, part: &finding.part }
    }

    fn what(&self) -> String {
        match self.part {
            "source" => format!("query port of source {}", self.datasource),
            "target" => format!("query port of target {}", self.datasource),
            "fe" => "FE, HTTP port".into(),
            "be" => "BE, HTTP port".into(),
            "row" => "one row, rolled back".into(),
            "packed_row" => "packed rows, rolled back".into(),
            other => other.into(),
        }
    }
}

/// The document for people.
pub(crate) fn text(reply: &pb::CheckReply, colours: bool) -> String {
    let mut text = if reply.checkers.len() > COLUMNS_MOST { summed(reply) } else { matrix(reply) };
    if colours {
        text = painted(&text);
    }
    if let [only] = reply.checkers.as_slice() {
        for finding in only.findings.iter().filter(|finding| !finding.told.is_empty()) {
            line(&mut text, format_args!("{}: {}", Tried::of(finding).address, finding.told));
        }
    }
    for checker in reply.checkers.iter().filter(|checker| !checker.answered) {
        line(
            &mut text,
            format_args!(
                "worker {} on {} did not answer (version {}, heard {} ago)",
                checker.id,
                checker.host,
                checker.version,
                seconds(checker.seconds_since_heard)
            ),
        );
    }
    let mut notes: Vec<&String> = reply.checkers.iter().flat_map(|checker| &checker.notes).collect();
    notes.sort();
    notes.dedup();
    for note in notes {
        line(&mut text, format_args!("note: {note}"));
    }
    if let Some(plan) = reply.plan {
        line(
            &mut text,
            format_args!(
                "the job would run in {} tasks, about {} rows",
                plan.tasks,
                count(plan.rows_estimate)
            ),
        );
    }
    for warning in &reply.warnings {
        line(&mut text, format_args!("warning: {warning}"));
    }
    for problem in &reply.problems {
        push_problem(&mut text, problem);
    }
    let end = match reply.problems.len() {
        0 => "all good".to_owned(),
        1 => "1 problem to be mended".into(),
        many => format!("{many} problems to be mended"),
    };
    line(&mut text, format_args!("{end}"));
    text
}

/// One column for everybody who tried.
fn matrix(reply: &pb::CheckReply) -> String {
    let mut cells: BTreeMap<Tried<'_>, Vec<String>> = BTreeMap::new();
    let width = reply.checkers.len();
    for (column, checker) in reply.checkers.iter().enumerate() {
        for finding in &checker.findings {
            let row = cells.entry(Tried::of(finding)).or_insert_with(|| vec!["-".to_owned(); width]);
            row[column] = cell(finding);
        }
    }
    let mut head = vec!["ADDRESS", "WHAT"];
    head.extend(reply.checkers.iter().map(|checker| checker.id.as_str()));
    table(
        &head,
        cells.into_iter().map(|(tried, row)| [vec![shown(tried.address), tried.what()], row].concat()),
    )
}

/// Many places: by how many each address was reached, and what the others met.
fn summed(reply: &pb::CheckReply) -> String {
    let mut rows: BTreeMap<Tried<'_>, (usize, f64, BTreeMap<String, usize>)> = BTreeMap::new();
    for finding in reply.checkers.iter().flat_map(|checker| &checker.findings) {
        let (reached, slowest, others) = rows.entry(Tried::of(finding)).or_default();
        if finding.outcome == "reached" {
            *reached += 1;
            *slowest = slowest.max(finding.milliseconds);
        } else {
            *others.entry(word(&finding.outcome)).or_default() += 1;
        }
    }
    table(
        &["ADDRESS", "WHAT", "REACHED BY", "SLOWEST", "OTHERWISE"],
        rows.into_iter().map(|(tried, (reached, slowest, others))| {
            let others: Vec<String> = others.iter().map(|(word, many)| format!("{many} {word}")).collect();
            vec![
                shown(tried.address),
                tried.what(),
                format!("{reached} of {}", reply.checkers.len()),
                if reached == 0 { "-".into() } else { milliseconds(slowest) },
                others.join(", "),
            ]
        }),
    )
}

/// `reached 3 ms`, `reached 3 ms via 10.1.2.3:18040`, `refused`
fn cell(finding: &pb::Finding) -> String {
    let mut text = word(&finding.outcome);
    if finding.outcome != "not_tried" {
        text.push(' ');
        text.push_str(&milliseconds(finding.milliseconds));
    }
    if !finding.via.is_empty() {
        text.push_str(" via ");
        text.push_str(&finding.via);
    }
    text
}

fn word(outcome: &str) -> String {
    outcome.replace('_', " ")
}

fn milliseconds(number: f64) -> String {
    if number < 10.0 { format!("{number:.1} ms") } else { format!("{number:.0} ms") }
}

fn shown(address: &str) -> String {
    if address.is_empty() { "-".into() } else { address.to_owned() }
}

/// Green where something was reached, red where it was not. Never changes a width: the codes take no place.
fn painted(text: &str) -> String {
    let mut text = text.to_owned();
    for bad in ["refused", "unresolved", "timed out", "login refused", "no grant", "failed"] {
        text = text.replace(&format!("  {bad}"), &format!("  \u{1b}[31m{bad}\u{1b}[0m"));
    }
    text.replace("  reached", "  \u{1b}[32mreached\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(part: &str, address: &str, outcome: &str) -> pb::Finding {
        pb::Finding {
            part: part.into(),
            datasource: "target".into(),
            address: address.into(),
            outcome: outcome.into(),
            milliseconds: 2.345,
            ..Default::default()
        }
    }

    fn checker(id: &str, findings: Vec<pb::Finding>) -> pb::Checker {
        pb::Checker { id: id.into(), answered: true, findings, ..Default::default() }
    }

    #[test]
    fn a_matrix_shows_who_reached_what() {
        let reply = pb::CheckReply {
            checkers: vec![
                checker(
                    "coordinator",
                    vec![finding("be", "be:8040", "reached"), finding("target", "fe:9030", "reached")],
                ),
                checker("w1", vec![finding("be", "be:8040", "timed_out")]),
            ],
            ..Default::default()
        };
        let text = text(&reply, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "ADDRESS  WHAT                         coordinator     w1",
                "fe:9030  query port of target target  reached 2.3 ms  -",
                "be:8040  BE, HTTP port                reached 2.3 ms  timed out 2.3 ms",
            ]
        );
        assert!(text.ends_with("all good\n"), "{text}");
    }

    #[test]
    fn many_workers_are_summed_up() {
        let checkers = (0..40).map(|number| {
            let outcome = if number < 38 { "reached" } else { "refused" };
            checker(&format!("w{number}"), vec![finding("be", "be:8040", outcome)])
        });
        let text = text(&pb::CheckReply { checkers: checkers.collect(), ..Default::default() }, false);
        assert!(text.contains("be:8040  BE, HTTP port  38 of 40    2.3 ms   2 refused\n"), "{text}");
    }

    #[test]
    fn a_worker_that_did_not_answer_is_named_with_its_version() {
        let silent = pb::Checker {
            id: "w2".into(),
            host: "node".into(),
            version: "0.0.9".into(),
            seconds_since_heard: 3.0,
            ..Default::default()
        };
        let text = text(&pb::CheckReply { checkers: vec![silent], ..Default::default() }, false);
        assert!(text.contains("worker w2 on node did not answer (version 0.0.9, heard 3 s ago)\n"), "{text}");
    }

    #[test]
    fn colours_are_put_around_words_and_nothing_else() {
        let text = "a  reached 3 ms  refused 1 ms\n";
        assert_eq!(painted(text), "a  \u{1b}[32mreached\u{1b}[0m 3 ms  \u{1b}[31mrefused\u{1b}[0m 1 ms\n");
    }
}

//! The picture of a running job for a terminal: lines of text, made from one status. Pure; [`crate::screen`] puts them
//! on the screen, [`crate::progress`] says when.
//!
//! Every state has a shape and a colour of its own, so that nobody needs the colours. No line is wider than asked for,
//! whatever names and warnings hold.

use std::cmp::Reverse;

use starlift_proto as pb;
use unicode_width::UnicodeWidthChar as _;

use crate::output::{bytes, count, seconds};
use crate::rates::Rates;

/// Cells of the task strip, at most.
const STRIP_MOST: usize = 60;
/// Workers with a line of their own.
const WORKERS_MOST: usize = 6;
/// Between the parts of a line.
const GAP: &str = "  ";

/// Which shapes the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Unicode,
    /// For locales other than UTF-8.
    Ascii,
}

impl Style {
    fn shapes(self) -> &'static Shapes {
        match self {
            Self::Unicode => &Shapes {
                spinner: &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
                done: "✓",
                stopped: "✗",
                paused: "‖",
                ahead: "·",
                bar: ("━", "─"),
                committed: "█",
                prepared: "▓",
                running: ">",
                waiting: "·",
                failed: "✗",
                cut: "…",
            },
            Self::Ascii => &Shapes {
                spinner: &["|", "/", "-", "\\"],
                done: "ok",
                stopped: "x",
                paused: "=",
                ahead: ".",
                bar: ("=", "-"),
                committed: "#",
                prepared: "+",
                running: ">",
                waiting: ".",
                failed: "x",
                cut: ".",
            },
        }
    }
}

struct Shapes {
    spinner: &'static [&'static str],
    done: &'static str,
    /// A phase in which the job ended badly.
    stopped: &'static str,
    paused: &'static str,
    ahead: &'static str,
    /// What is done, and what is not.
    bar: (&'static str, &'static str),
    committed: &'static str,
    prepared: &'static str,
    running: &'static str,
    waiting: &'static str,
    failed: &'static str,
    cut: &'static str,
}

/// The lines of one picture, none wider than `width` cells. `tick` turns the spinner.
pub(crate) fn frame(
    status: &pb::JobStatus,
    rates: &Rates,
    width: usize,
    style: Style,
    tick: usize,
) -> Vec<String> {
    let mut lines = vec![headline(status).painted(width, style)];
    lines.extend(flow(phases(status, style, tick), width, style));
    lines.extend(flow(progress(status, rates, width, style), width, style));
    let (strip, legend) = strip(status, width, style);
    lines.extend(strip.map(|strip| strip.painted(width, style)));
    lines.extend(flow(legend, width, style));
    lines.extend(workers(status, rates, width).iter().map(|line| line.painted(width, style)));
    lines.extend(notice(status).map(|line| line.painted(width, style)));
    lines.extend(flow(leftovers(status), width, style));
    lines
}

/// What stands under the picture while the coordinator is away.
pub(crate) fn silence(heard_ago: f64, width: usize, style: Style) -> String {
    let text = format!("no word from the coordinator for {}", seconds(heard_ago));
    Text::of(Paint::Bad, text).painted(width, style)
}

/// The cells that a painted line takes.
pub(crate) fn cells(painted: &str) -> usize {
    let mut in_code = false;
    let is_shown = |letter: &char| {
        let was_in_code = in_code;
        in_code = if in_code { *letter != 'm' } else { *letter == '\u{1b}' };
        !was_in_code && !in_code
    };
    painted.chars().filter(is_shown).map(width_of).sum()
}

fn headline(status: &pb::JobStatus) -> Text {
    let paint = match status.state.as_str() {
        "FAILED" | "CANCELLED" => Paint::Bad,
        "PAUSED" => Paint::Wait,
        _ => Paint::Good,
    };
    Text::of(paint, &status.state)
        .and(Paint::Plain, format!("{GAP}{}{GAP}{}", status.name, seconds(status.elapsed_seconds)))
        .and(Paint::Muted, format!("{GAP}{}", status.job_id))
}

/// Name on the wire, name for people, and the job's state while the phase runs.
const PHASES: [(&str, &str, &str); 5] = [
    ("plan", "plan", "PLANNING"),
    ("pre_sql", "preSql", "PRE_SQL"),
    ("transfer", "transfer", "RUNNING"),
    ("commit", "commit", "COMMITTING"),
    ("post_sql", "postSql", "POST_SQL"),
];

fn phases(status: &pb::JobStatus, style: Style, tick: usize) -> Vec<Text> {
    let shapes = style.shapes();
    let is_paused = status.state == "PAUSED";
    let state = if is_paused { &status.paused_in } else { &status.state };
    let is_over = matches!(status.state.as_str(), "FAILED" | "CANCELLED");
    let last = status.phases.last().map(|phase| phase.name.as_str());
    PHASES
        .iter()
        .map(|(name, shown, state_in_it)| {
            let took = status.phases.iter().find(|phase| phase.name == *name).map(|phase| phase.seconds);
            let Some(took) = took else {
                return Text::of(Paint::Muted, format!("{} {shown}", shapes.ahead));
            };
            let (paint, mark) = match () {
                () if state == state_in_it && is_paused => (Paint::Wait, shapes.paused),
                () if state == state_in_it => (Paint::Busy, shapes.spinner[tick % shapes.spinner.len()]),
                () if is_over && last == Some(name) => (Paint::Bad, shapes.stopped),
                () => (Paint::Good, shapes.done),
            };
            Text::of(paint, mark).and(Paint::Plain, format!(" {shown} {}", seconds(took)))
        })
        .collect()
}

/// Bar and percent, rows, speed, tasks, time left: what is not known is left out.
fn progress(status: &pb::JobStatus, rates: &Rates, width: usize, style: Style) -> Vec<Text> {
    let shapes = style.shapes();
    let progress = status.progress.unwrap_or_default();
    let tasks = status.tasks.unwrap_or_default();
    let is_paused = status.state == "PAUSED";
    let mut parts = Vec::new();
    if progress.rows_estimate > 0 {
        let all = progress.rows_estimate.max(progress.rows_loaded);
        let cells = (width / 4).clamp(10, 30);
        let done = share(cells, progress.rows_loaded, all);
        let bar = Text::of(Paint::Good, shapes.bar.0.repeat(done))
            .and(Paint::Muted, shapes.bar.1.repeat(cells - done))
            .and(Paint::Plain, format!(" {:>3}%", share(100, progress.rows_loaded, all)));
        parts.push(bar);
        let rows = format!("{}/{} rows", count(progress.rows_loaded), count(all));
        parts.push(Text::of(Paint::Plain, rows));
    } else {
        parts.push(Text::of(Paint::Plain, format!("{} rows", count(progress.rows_loaded))));
    }
    if let Some(rate) = rates.of_job().filter(|_| !is_paused) {
        parts.push(Text::of(Paint::Plain, format!("{}/s", bytes(rate))));
    }
    if tasks.total > 0 {
        parts.push(Text::of(
            Paint::Plain,
            format!("tasks {}/{}", count(tasks.succeeded.into()), count(tasks.total.into())),
        ));
    }
    if let Some(eta) = progress.eta_seconds.filter(|_| !is_paused) {
        parts.push(Text::of(Paint::Plain, format!("ETA {}", seconds(eta))));
    }
    parts
}

/// How much of `whole` is done, in parts of `all`, rounded down: the end is not shown before it is reached.
fn share(whole: usize, done: u64, all: u64) -> usize {
    let part = done as u128 * whole as u128 / u128::from(all.max(1));
    usize::try_from(part).unwrap_or(whole).min(whole)
}

/// The job's tasks side by side, and what the shapes mean.
fn strip(status: &pb::JobStatus, width: usize, style: Style) -> (Option<Text>, Vec<Text>) {
    let shapes = style.shapes();
    let tasks = status.tasks.unwrap_or_default();
    let kinds = [
        (tasks.succeeded, shapes.committed, Paint::Good, "committed"),
        (tasks.prepared, shapes.prepared, Paint::Ready, "prepared"),
        (tasks.running, shapes.running, Paint::Busy, "running"),
        (tasks.waiting, shapes.waiting, Paint::Muted, "waiting"),
        (tasks.failed, shapes.failed, Paint::Bad, "failed"),
    ];
    let places = spread(kinds.map(|kind| kind.0), width.min(STRIP_MOST));
    let there = || kinds.iter().zip(places).filter(|(kind, _)| kind.0 > 0);
    let strip = there().map(|(kind, places)| (kind.2, kind.1.repeat(places))).collect();
    let legend = there().map(|((number, shape, paint, name), _)| {
        Text::of(*paint, *shape).and(Paint::Plain, format!(" {} {name}", count((*number).into())))
    });
    (there().next().map(|_| Text(strip)), legend.collect())
}

/// Shares `cells` out in proportion to the counts, all of them. A count above zero gets a cell at least: one failed
/// task among a hundred thousand is what somebody looks for.
fn spread<const N: usize>(counts: [u32; N], cells: usize) -> [usize; N] {
    let total: u64 = counts.iter().copied().map(u64::from).sum();
    let mut places = counts.map(|count| share(cells, count.into(), total).max(usize::from(count > 0)));
    if total == 0 {
        return places;
    }
    // Rounding leaves a few cells over, or the small counts took too many: the largest share bears either.
    while places.iter().sum::<usize>() != cells {
        let is_short = places.iter().sum::<usize>() < cells;
        let Some(largest) = places.iter_mut().max() else { break };
        if !is_short && *largest <= 1 {
            break;
        }
        *largest = if is_short { *largest + 1 } else { *largest - 1 };
    }
    places
}

/// One line for each of the most active workers, in columns.
fn workers(status: &pb::JobStatus, rates: &Rates, width: usize) -> Vec<Text> {
    let mut shares: Vec<&pb::WorkerShare> = status.workers.iter().collect();
    shares.sort_by_key(|share| (Reverse(share.running), Reverse(share.rows), share.id.clone()));
    let shown = &shares[..shares.len().min(WORKERS_MOST)];
    let cells = |share: &&pb::WorkerShare| {
        let rate = rates.of_worker(&share.id).map(|rate| format!("{}/s", bytes(rate))).unwrap_or_default();
        [
            cut(&harmless(&share.id), width / 3),
            format!("{} running", share.running),
            format!("{} done", count(share.tasks.into())),
            format!("{} rows", count(share.rows)),
            rate,
        ]
    };
    let rows: Vec<[String; 5]> = shown.iter().map(cells).collect();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| width_of_all(&row[column])).max().unwrap_or(0));
    let mut lines: Vec<Text> = rows
        .iter()
        .map(|row| {
            let padded = |column: usize| " ".repeat(widths[column] - width_of_all(&row[column]));
            let id = format!("{}{}", row[0], padded(0));
            (1..row.len())
                .filter(|column| widths[*column] > 0)
                .fold(Text::of(Paint::Name, id), |line, column| {
                    line.and(Paint::Plain, format!("{GAP}{}{}", padded(column), row[column]))
                })
        })
        .collect();
    if shares.len() > shown.len() {
        lines.push(Text::of(Paint::Muted, format!("+ {} more workers", shares.len() - shown.len())));
    }
    let tasks = status.tasks.unwrap_or_default();
    if lines.is_empty() && status.state == "RUNNING" && tasks.waiting > 0 {
        lines.push(Text::of(Paint::Wait, "no worker has taken a task yet"));
    }
    lines
}

/// Why the job stands still or has failed, else its last warning.
fn notice(status: &pb::JobStatus) -> Option<Text> {
    let reason = status.error.as_ref().map(|error| format!("{}: {}", error.code, error.message));
    match (status.state.as_str(), reason) {
        ("PAUSED", Some(reason)) => Some(Text::of(Paint::Bad, "paused: ").and(Paint::Plain, reason)),
        ("PAUSED", None) => Some(Text::of(Paint::Wait, "paused by request")),
        (_, Some(reason)) => Some(Text::of(Paint::Bad, "error: ").and(Paint::Plain, reason)),
        (_, None) => {
            let last = status.warnings.last()?;
            let which = match status.warnings.len() {
                1 => "warning: ".to_owned(),
                many => format!("{} warnings, the last: ", count(many as u64)),
            };
            Some(Text::of(Paint::Wait, which).and(Paint::Plain, last))
        }
    }
}

/// What will be left behind, if anything.
fn leftovers(status: &pb::JobStatus) -> Vec<Text> {
    [
        (status.dirty_records, "dirty record", "dirty records"),
        (status.labels_to_sweep.into(), "label to sweep", "labels to sweep"),
    ]
    .into_iter()
    .filter(|(number, ..)| *number > 0)
    .map(|(number, one, many)| {
        Text::of(Paint::Wait, format!("{} {}", count(number), if number == 1 { one } else { many }))
    })
    .collect()
}

/// As many parts on each line as there is room for.
fn flow(parts: Vec<Text>, width: usize, style: Style) -> Vec<String> {
    let mut lines: Vec<Text> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.width() + GAP.len() + part.width() <= width => {
                line.0.push((Paint::Plain, GAP.to_owned()));
                line.0.extend(part.0);
            }
            _ => lines.push(part),
        }
    }
    lines.iter().map(|line| line.painted(width, style)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Muted,
    Name,
    Good,
    Ready,
    Busy,
    Wait,
    Bad,
}

impl Paint {
    /// Of the sixteen colours that every terminal and every colour scheme has.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Muted => "\u{1b}[2m",
            Self::Name => "\u{1b}[1m",
            Self::Good => "\u{1b}[32m",
            Self::Ready => "\u{1b}[35m",
            Self::Busy => "\u{1b}[36m",
            Self::Wait => "\u{1b}[33m",
            Self::Bad => "\u{1b}[31m",
        }
    }
}

/// Pieces of one line; nothing in them can move the cursor.
#[derive(Debug, Default)]
struct Text(Vec<(Paint, String)>);

impl Text {
    fn of(paint: Paint, text: impl AsRef<str>) -> Self {
        Self::default().and(paint, text)
    }

    fn and(mut self, paint: Paint, text: impl AsRef<str>) -> Self {
        self.0.push((paint, harmless(text.as_ref())));
        self
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width_of_all(text)).sum()
    }

    /// With its colours, cut where there is no more room.
    fn painted(&self, width: usize, style: Style) -> String {
        let mut line = String::new();
        let is_cut = self.width() > width;
        let mark = if is_cut { style.shapes().cut } else { "" };
        let mut room = width.saturating_sub(width_of_all(mark));
        for (paint, text) in &self.0 {
            let piece = cut(text, room);
            let is_short = piece.len() < text.len();
            room -= width_of_all(&piece);
            if !piece.is_empty() {
                let code = paint.code();
                let end = if code.is_empty() { "" } else { "\u{1b}[0m" };
                line.extend([code, &piece, end]);
            }
            // What comes after may be narrow enough, but would be taken for what was cut off.
            if is_short {
                break;
            }
        }
        if width > 0 {
            line.push_str(mark);
        }
        line
    }
}

/// As much of `text` as fits into `width` cells.
fn cut(text: &str, width: usize) -> String {
    let mut room = width;
    let fits = |letter: &char| {
        let left = room.checked_sub(width_of(*letter));
        room = left.unwrap_or(room);
        left.is_some()
    };
    text.chars().take_while(fits).collect()
}

/// Names, warnings and errors may quote a row, and a row may hold anything: what would move the cursor, begin a code or
/// turn the direction of writing becomes a space, and what joins letters into wider or narrower ones is left out.
fn harmless(text: &str) -> String {
    text.chars()
        .filter_map(|letter| match letter {
            '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' => None,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some(' '),
            _ if letter.is_control() => Some(' '),
            _ => Some(letter),
        })
        .collect()
}

fn width_of(letter: char) -> usize {
    letter.width().unwrap_or(0)
}

fn width_of_all(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// Twenty tasks on two workers, half way.
    fn status() -> pb::JobStatus {
        let phase = |name: &str, seconds| pb::Phase { name: name.into(), seconds };
        let worker = |id: &str, tasks, rows, running| pb::WorkerShare {
            id: id.into(),
            tasks,
            rows,
            bytes: rows * 100,
            running,
        };
        pb::JobStatus {
            job_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            name: "orders".into(),
            state: "RUNNING".into(),
            elapsed_seconds: 14.0,
            progress: Some(pb::Progress {
                rows_estimate: 1_000_000,
                rows_loaded: 520_000,
                bytes_read: 52_000_000,
                eta_seconds: Some(9.4),
                ..Default::default()
            }),
            tasks: Some(pb::TaskCounts {
                total: 20,
                succeeded: 10,
                failed: 1,
                running: 3,
                waiting: 4,
                prepared: 2,
            }),
            phases: vec![phase("plan", 0.42), phase("pre_sql", 0.1), phase("transfer", 12.0)],
            workers: vec![worker("node1-a", 4, 200_000, 1), worker("node2-b", 6, 320_000, 2)],
            ..Default::default()
        }
    }

    /// As [`status`] is second after second, each worker ten megabytes a second.
    fn rates() -> Rates {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for second in 0..5 {
            let mut status = status();
            let moved = second * (10 << 20);
            status.workers.iter_mut().for_each(|share| share.bytes += moved);
            if let Some(progress) = &mut status.progress {
                progress.bytes_read += 2 * moved;
            }
            rates.note(&status, start + Duration::from_secs(second));
        }
        rates
    }

    /// Without codes.
    fn plain(line: &str) -> String {
        let mut pieces = line.split('\u{1b}');
        let first = pieces.next().unwrap_or_default().to_owned();
        pieces.fold(first, |text, piece| text + piece.split_once('m').map_or("", |(_, rest)| rest))
    }

    fn drawn(status: &pb::JobStatus, width: usize, style: Style) -> Vec<String> {
        let lines = frame(status, &rates(), width, style, 1);
        for line in &lines {
            let text = plain(line);
            assert!(width_of_all(&text) <= width && cells(line) == width_of_all(&text), "{width}: {text}");
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        lines.iter().map(|line| plain(line)).collect()
    }

    #[test]
    fn a_running_job_shows_all_of_it() {
        assert_eq!(
            drawn(&status(), 120, Style::Unicode),
            [
                "RUNNING  orders  14 s  01ARZ3NDEKTSV4RRFFQ69G5FAV",
                "✓ plan 0.42 s  ✓ preSql 0.10 s  ⠙ transfer 12 s  · commit  · postSql",
                "━━━━━━━━━━━━━━━───────────────  52%  520,000/1,000,000 rows  20.0 MB/s  tasks 10/20  ETA 9 s",
                "██████████████████████████████▓▓▓▓▓▓>>>>>>>>>············✗✗✗",
                "█ 10 committed  ▓ 2 prepared  > 3 running  · 4 waiting  ✗ 1 failed",
                "node2-b  2 running  6 done  320,000 rows  10.0 MB/s",
                "node1-a  1 running  4 done  200,000 rows  10.0 MB/s",
            ]
        );
        assert_eq!(
            drawn(&status(), 40, Style::Ascii),
            [
                "RUNNING  orders  14 s  01ARZ3NDEKTSV4RR.",
                "ok plan 0.42 s  ok preSql 0.10 s",
                "/ transfer 12 s  . commit  . postSql",
                "=====-----  52%  520,000/1,000,000 rows",
                "20.0 MB/s  tasks 10/20  ETA 9 s",
                "####################++++>>>>>>........xx",
                "# 10 committed  + 2 prepared",
                "> 3 running  . 4 waiting  x 1 failed",
                "node2-b  2 running  6 done  320,000 row.",
                "node1-a  1 running  4 done  200,000 row.",
            ]
        );
        for style in [Style::Ascii, Style::Unicode] {
            for width in 0..130 {
                drawn(&status(), width, style);
            }
        }
        assert!(drawn(&status(), 80, Style::Ascii).concat().is_ascii());
    }

    #[test]
    fn colours_are_never_the_only_carrier() {
        let lines = frame(&status(), &rates(), 60, Style::Unicode, 0);
        let line = lines.iter().find(|line| line.contains("▓▓")).expect("the strip");
        let pieces: Vec<&str> = line.split("\u{1b}[0m").filter(|piece| !piece.is_empty()).collect();
        let codes: std::collections::BTreeSet<_> = pieces.iter().map(|piece| piece.split_once('m')).collect();
        let shapes: std::collections::BTreeSet<_> =
            pieces.iter().filter_map(|piece| plain(piece).chars().next()).collect();
        assert_eq!((codes.len(), shapes.len()), (5, 5), "{line:?}");
    }

    #[test]
    fn a_job_that_has_just_begun_claims_nothing() {
        let status = pb::JobStatus { state: "PENDING".into(), name: "orders".into(), ..Default::default() };
        let lines = frame(&status, &Rates::default(), 80, Style::Unicode, 0);
        assert_eq!(
            lines.iter().map(|line| plain(line)).collect::<Vec<_>>(),
            ["PENDING  orders  0.00 s  ", "· plan  · preSql  · transfer  · commit  · postSql", "0 rows"]
        );
        let mut unknown = super::tests::status();
        unknown.progress = Some(pb::Progress { rows_loaded: 7, ..Default::default() });
        let text = drawn(&unknown, 80, Style::Unicode).join("\n");
        assert!(text.contains("\n7 rows  20.0 MB/s  tasks 10/20\n") && !text.contains('%'), "{text}");
    }

    #[test]
    fn a_hundred_percent_is_not_shown_before_it_is_reached() {
        let loaded = |rows_loaded, rows_estimate| {
            let progress = pb::Progress { rows_estimate, rows_loaded, ..Default::default() };
            let status = pb::JobStatus { progress: Some(progress), ..status() };
            drawn(&status, 120, Style::Ascii)[2].clone()
        };
        assert!(loaded(999_999_999, 1_000_000_000).contains("-  99%"));
        assert!(loaded(7, 7).contains("= 100%"));
        assert!(loaded(9, 7).contains("= 100%  9/9 rows"), "an estimate may be too low: {}", loaded(9, 7));
    }

    #[test]
    fn a_paused_job_says_where_and_why() {
        let mut paused = pb::JobStatus { state: "PAUSED".into(), paused_in: "RUNNING".into(), ..status() };
        let text = drawn(&paused, 80, Style::Unicode).join("\n");
        assert!(text.contains("‖ transfer 12 s") && text.ends_with("paused by request"), "{text}");
        assert!(!text.contains("ETA") && !text.contains("tasks 10/20  "), "nothing moves: {text}");
        let message = "still runs\nat the server".to_owned();
        paused.error = Some(pb::Problem { code: "INVALID_SQL".into(), message, ..Default::default() });
        paused.warnings = vec!["old news".into()];
        let lines = drawn(&paused, 80, Style::Unicode);
        assert_eq!(lines.last().unwrap(), "paused: INVALID_SQL: still runs at the server");
    }

    #[test]
    fn a_failed_job_shows_the_phase_and_the_error() {
        let error = pb::Problem { code: "ROWS_REFUSED".into(), message: "bad".into(), ..Default::default() };
        let failed = pb::JobStatus { state: "FAILED".into(), error: Some(error), ..status() };
        let lines = drawn(&failed, 80, Style::Unicode);
        assert!(lines[1].contains("✓ preSql 0.10 s  ✗ transfer 12 s"), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "error: ROWS_REFUSED: bad");
    }

    #[test]
    fn one_failed_task_among_a_hundred_thousand_is_seen() {
        let counts = pb::TaskCounts {
            total: 100_000,
            succeeded: 60_000,
            failed: 1,
            running: 64,
            waiting: 39_934,
            prepared: 1,
        };
        let status = pb::JobStatus { tasks: Some(counts), ..status() };
        let lines = drawn(&status, 80, Style::Ascii);
        let strip = "##################################+>.......................x";
        assert_eq!(strip.len(), 60);
        let text = lines.join("\n");
        assert!(text.contains(&format!("\n{strip}\n")) && text.contains("tasks 60,000/100,000"), "{text}");
    }

    #[test]
    fn a_strip_has_as_many_cells_as_it_is_given() {
        for counts in [[1, 1, 1, 1, 1], [3, 0, 0, 0, 0], [1, 2, 4, 8, 16], [u32::MAX; 5], [0, 7, 0, 9, 1]] {
            for cells in 5..=60 {
                let places = spread(counts, cells);
                assert_eq!(places.iter().sum::<usize>(), cells, "{counts:?}");
                assert!(counts.iter().zip(places).all(|(count, places)| (*count > 0) == (places > 0)));
            }
        }
        assert_eq!(spread([0; 5], 60), [0; 5]);
    }

    #[test]
    fn forty_workers_take_seven_lines() {
        let worker = |number: u32| pb::WorkerShare {
            id: format!("node{number}-with-a-rather-long-name"),
            tasks: 1,
            rows: u64::from(number) * 1_000,
            bytes: 5,
            running: u32::from(number == 3 || number == 40),
        };
        let status = pb::JobStatus { workers: (1..=40).map(worker).collect(), ..status() };
        let lines = drawn(&status, 80, Style::Unicode);
        let workers = &lines[lines.len() - 7..];
        let names: Vec<&str> = workers.iter().map(|line| line.split('-').next().unwrap()).collect();
        assert_eq!(names, ["node40", "node3", "node39", "node38", "node37", "node36", "+ 34 more workers"]);
        assert_eq!(workers[1], "node3-with-a-rather-long-n  1 running  1 done   3,000 rows");
        let none = pb::JobStatus { workers: vec![], ..status };
        assert_eq!(drawn(&none, 80, Style::Unicode).last().unwrap(), "no worker has taken a task yet");
    }

    #[test]
    fn whatever_a_warning_holds_stays_on_its_line() {
        let hostile = [
            "a\nb\r\tc\u{1b}[2J\u{1b}]0;title\u{7}d\u{9b}31me\0",
            "東京都の注文テーブルに索引がありません。全件を一つのタスクで読みます。時間がかかることがあります。",
            "turned \u{202e}around\u{2067} and\u{2028}broken",
            "family 👩\u{200d}👩\u{200d}👧, warning ⚠\u{fe0f}, flag 🇨🇭, accent e\u{301}",
        ];
        for warning in hostile {
            let status = pb::JobStatus {
                name: warning.into(),
                warnings: vec!["first".into(), warning.into()],
                ..status()
            };
            for width in 1..100 {
                let lines = drawn(&status, width, Style::Unicode);
                assert!(!lines.concat().contains(['\u{202e}', '\u{2067}', '\u{2028}', '\u{200d}']));
            }
            let last = drawn(&status, 60, Style::Unicode).pop().unwrap();
            assert!(last.starts_with("2 warnings, the last: "), "{last}");
        }
        let status = pb::JobStatus { warnings: vec![hostile[1].into()], ..status() };
        assert_eq!(
            drawn(&status, 40, Style::Unicode).last().unwrap(),
            "warning: 東京都の注文テーブルに索引があ…"
        );
    }

    #[test]
    fn what_is_left_behind_is_told_only_when_there_is_something() {
        let clean = drawn(&status(), 80, Style::Unicode).join("\n");
        assert!(!clean.contains("dirty") && !clean.contains("sweep"));
        let status = pb::JobStatus { dirty_records: 1_234, labels_to_sweep: 1, ..status() };
        let lines = drawn(&status, 80, Style::Unicode);
        assert_eq!(lines.last().unwrap(), "1,234 dirty records  1 label to sweep");
    }

    #[test]
    fn a_silent_coordinator_is_told() {
        assert_eq!(plain(&silence(12.0, 80, Style::Ascii)), "no word from the coordinator for 12 s");
        assert_eq!(cells(&silence(12.0, 20, Style::Ascii)), 20);
    }
}

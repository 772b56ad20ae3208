//! Finds the bad rows of a batch by trying parts of it out. Pure: says which rows to try next and takes the server's
//! verdict; never talks to a server, never decides what a text of the server means. `trial.rs` does the trying.
//!
//! A trial of many rows tolerates any number of bad ones (`max_filter_ratio: 1`), so that its answer *counts* them, and
//! that is what makes this cheap: half a span needs no trial when the counts of the span and of its other half are known,
//! a span without bad rows is done at once, and so is a span that is bad altogether. Bisecting by yes and no alone would
//! ask for every second row where bad rows are many. For k bad rows among n it takes at most 1 + k·⌈log2 n⌉ trials to
//! find them and k more, of one row each, for the server's words about each. Where a server gives no counts, both
//! halves of a refused span are tried, which at most doubles the first part.
//!
//! Sound because a row is called bad only when the server refused it alone, or (past the number of rows that are to be
//! explained) when it counted a span as bad from end to end; and because verdicts that do not fit each other end the
//! search. That needs rows to be judged one by one, as StarRocks' conversion and partition checks do. The caller
//! has the remaining rows tried once more, together.

use std::ops::Range;

/// What the server says of the rows of one trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exactly so many of them are bad.
    Counted(usize),
    /// At least one of them is bad.
    Refused,
    /// Nothing was written, and it does not say why: any number of them is bad. Never said of one row.
    Unclear,
}

/// The server's words about one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reason {
    /// Empty when they name none.
    pub column: String,
    pub text: String,
}

/// A row that must be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    /// Place in the batch.
    pub row: usize,
    /// `None`: known to be bad by the count of its span only.
    pub reason: Option<Reason>,
}

/// Two verdicts exclude each other: the rows are not judged one by one, or something changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction;

/// What is known of a span's bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    Some,
    Exactly(usize),
    /// It was tried in vain; its halves may tell.
    TriedInVain,
}

#[derive(Debug, Clone)]
struct Span {
    rows: Range<usize>,
    known: Known,
}

/// What is out for trial, and what hangs on the answer.
#[derive(Debug)]
struct Trying {
    span: Span,
    /// The right half, and what is known of both halves together.
    sibling: Option<(Range<usize>, Known)>,
}

/// The search through one batch.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// The next one last.
    spans: Vec<Span>,
    trying: Option<Trying>,
    bad: Vec<Bad>,
    /// Rows that may still be tried alone just to learn the reason.
    explain: usize,
}

impl Isolation {
    /// `explain`: how many bad rows are to be tried alone.
    pub(crate) fn new(rows: usize, explain: usize) -> Self {
        Self {
            spans: vec![Span { rows: 0..rows, known: Known::Nothing }],
            trying: None,
            bad: Vec::new(),
            explain,
        }
    }

    /// The rows to be tried next; `None` when every row is known. Asked again before the verdict: the same rows.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        while self.trying.is_none() {
            let span = self.spans.pop()?;
            self.look_at(span);
        }
        self.trying.as_ref().map(|trying| trying.span.rows.clone())
    }

    fn look_at(&mut self, span: Span) {
        let length = span.rows.len();
        match span.known {
            Known::Nothing if length == 0 => {}
            Known::Nothing => self.trying = Some(Trying { span, sibling: None }),
            Known::Exactly(0) => {}
            Known::Exactly(bad) if bad == length => self.condemn(span),
            Known::Some if length == 1 => self.condemn(span),
            known => self.halve(&span.rows, known),
        }
    }

    /// Every row of it is bad; what is left to learn is why.
    fn condemn(&mut self, span: Span) {
        if self.explain == 0 {
            self.bad.extend(span.rows.map(|row| Bad { row, reason: None }));
        } else if span.rows.len() == 1 {
            self.explain -= 1;
            self.trying = Some(Trying { span, sibling: None });
        } else {
            let alone = |row| Span { rows: row..row + 1, known: Known::Exactly(1) };
            self.spans.extend(span.rows.rev().map(alone));
        }
    }

    fn halve(&mut self, rows: &Range<usize>, known: Known) {
        let middle = rows.start + rows.len() / 2;
        let left = Span { rows: rows.start..middle, known: Known::Nothing };
        self.trying = Some(Trying { span: left, sibling: Some((middle..rows.end, known)) });
    }

    /// Takes the verdict on the rows that [`Isolation::next`] gave; `reason` counts when it was one row and is bad.
    pub(crate) fn answer(&mut self, verdict: Verdict, reason: Reason) -> Result<(), Contradiction> {
        let Some(Trying { span: Span { rows, known }, sibling }) = self.trying.take() else {
            return Err(Contradiction);
        };
        let length = rows.len();
        let learned = match verdict {
            Verdict::Counted(bad) if bad <= length => Known::Exactly(bad),
            Verdict::Counted(_) => return Err(Contradiction),
            Verdict::Refused if length == 1 => Known::Exactly(1),
            Verdict::Refused => Known::Some,
            Verdict::Unclear if length > 1 => Known::TriedInVain,
            Verdict::Unclear => return Err(Contradiction),
        };
        if known != Known::Nothing && learned != Known::Exactly(1) {
            return Err(Contradiction); // known to be bad, tried for its reason, and accepted
        }
        if let Some((rows, both)) = sibling {
            let known = rest(both, learned)?;
            if matches!(known, Known::Exactly(bad) if bad > rows.len()) {
                return Err(Contradiction);
            }
            self.spans.push(Span { rows, known });
        }
        match learned {
            Known::Exactly(1) if length == 1 => {
                self.bad.push(Bad { row: rows.start, reason: Some(reason) });
            }
            known => self.spans.push(Span { rows, known }),
        }
        Ok(())
    }

    /// How many bad rows are found so far.
    pub(crate) fn found(&self) -> usize {
        self.bad.len()
    }

    /// All bad rows in order, once [`Isolation::next`] has none to try.
    pub(crate) fn into_bad(self) -> Vec<Bad> {
        self.bad
    }
}

/// What is left of what is known of a span when one half is known.
fn rest(both: Known, half: Known) -> Result<Known, Contradiction> {
    Ok(match (both, half) {
        (Known::Exactly(both), Known::Exactly(half)) => {
            Known::Exactly(both.checked_sub(half).ok_or(Contradiction)?)
        }
        (Known::Some, Known::Exactly(0)) => Known::Some,
        _ => Known::Nothing,
    })
}

/// The first entry of a log of refused rows, `Error: WORDS. Row: VALUES` (StarRocks, ErrorURL), less the row.
pub(crate) fn reason_of(log: &str, columns: &[String]) -> Reason {
    let entry = log.split_once("Error: ").map_or(log, |(_, entry)| entry);
    let text = entry.split_once(". Row: ").map_or(entry, |(words, _)| words);
    let text = text.trim().replace(char::is_control, " ");
    Reason { column: column_in(&text, columns), text }
}

/// The column that the words name. Values may hold anything, so only a column of the load counts; and where the value
/// stands in front, the last match does.
fn column_in(text: &str, columns: &[String]) -> String {
    let parsed = text.strip_prefix("The field (name = ").and_then(|rest| rest.split_once(", pos"));
    let quoted = ["column '", "type of '", "max length of '"];
    let last = quoted.into_iter().filter_map(|words| Some(text.rfind(words)? + words.len())).max();
    let quoted = last.and_then(|start| text[start..].split_once('\''));
    let Some((name, _)) = parsed.or(quoted) else { return String::new() };
    columns.iter().find(|column| column.eq_ignore_ascii_case(name)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// How a server answers.
    #[derive(Debug, Clone, Copy)]
    enum Server {
        Counts,
        SaysNo,
        /// Counts, but says nothing of spans of which it wrote no row.
        CountsWhatItWrites,
    }

    impl Server {
        fn try_out(self, rows: &Range<usize>, bad: &BTreeSet<usize>) -> Verdict {
            let count = bad.range(rows.clone()).count();
            match self {
                Self::Counts => Verdict::Counted(count),
                Self::CountsWhatItWrites if count == rows.len() && count > 1 => Verdict::Unclear,
                Self::CountsWhatItWrites => Verdict::Counted(count),
                Self::SaysNo if count == 0 => Verdict::Counted(0),
                Self::SaysNo => Verdict::Refused,
            }
        }
    }

    /// The bad rows found, and the trials it took.
    fn search(server: Server, rows: usize, bad: &BTreeSet<usize>, explain: usize) -> (Vec<Bad>, usize) {
        let mut isolation = Isolation::new(rows, explain);
        let mut trials = 0;
        while let Some(span) = isolation.next() {
            assert!(!span.is_empty() && span.end <= rows);
            let verdict = server.try_out(&span, bad);
            let reason = Reason { column: String::new(), text: span.start.to_string() };
            isolation.answer(verdict, reason).expect("a server that does not contradict itself");
            trials += 1;
            assert!(trials <= 4 * rows + 4, "it does not end");
        }
        (isolation.into_bad(), trials)
    }

    fn log2_up(rows: usize) -> usize {
        rows.next_power_of_two().trailing_zeros() as usize
    }

    fn any_rows() -> impl Strategy<Value = (usize, BTreeSet<usize>)> {
        (1usize..400).prop_flat_map(|rows| {
            let few = proptest::collection::btree_set(0..rows, 0..=rows.min(8));
            let runs = (0..rows, 0..rows).prop_map(|(from, to)| (from..to).collect());
            (Just(rows), prop_oneof![few, runs])
        })
    }

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_found((rows, bad) in any_rows(), kind in 0usize..3, explain in prop_oneof![Just(usize::MAX), 0usize..5]) {
            let server = [Server::Counts, Server::SaysNo, Server::CountsWhatItWrites][kind];
            let (found, trials) = search(server, rows, &bad, explain);
            let places: Vec<usize> = found.iter().map(|bad| bad.row).collect();
            prop_assert_eq!(&places, &bad.iter().copied().collect::<Vec<_>>());
            for bad in &found {
                if let Some(reason) = &bad.reason {
                    prop_assert_eq!(&reason.text, &bad.row.to_string(), "another row's reason");
                } else {
                    prop_assert!(explain < rows);
                }
            }
            let (bad, depth) = (bad.len(), log2_up(rows));
            let most = match server {
                Server::Counts => 1 + bad * depth + bad,
                Server::SaysNo | Server::CountsWhatItWrites => 1 + 2 * bad * depth + bad,
            };
            prop_assert!(trials <= most, "{} trials for {} of {} rows", trials, bad, rows);
        }
    }

    #[test]
    fn good_rows_take_one_trial_and_a_bad_span_no_bisecting() {
        assert_eq!(search(Server::Counts, 10_000, &BTreeSet::new(), 10).1, 1);
        let all: BTreeSet<usize> = (0..10_000).collect();
        let (found, trials) = search(Server::Counts, 10_000, &all, 10);
        assert_eq!((found.len(), trials), (10_000, 11));
        assert_eq!(found.iter().filter(|bad| bad.reason.is_some()).count(), 10);
    }

    #[test]
    fn verdicts_that_exclude_each_other_end_the_search() {
        let mut isolation = Isolation::new(4, 10);
        let say = |isolation: &mut Isolation, verdict| {
            isolation.next().expect("something to try");
            isolation.answer(verdict, Reason::default())
        };
        assert_eq!(say(&mut isolation, Verdict::Counted(1)), Ok(()));
        assert_eq!(say(&mut isolation, Verdict::Counted(2)), Err(Contradiction));

        let mut isolation = Isolation::new(2, 10);
        assert_eq!(say(&mut isolation, Verdict::Counted(2)), Ok(()));
        assert_eq!(
            say(&mut isolation, Verdict::Counted(0)),
            Err(Contradiction),
            "bad in company, good alone"
        );
    }

    #[test]
    fn the_reason_is_told_without_the_row_and_its_column_is_found() {
        let columns = ["id".to_owned(), "name".to_owned()];
        let cases = [
            ("Error: NULL value in non-nullable column 'ID'. Row: [NULL, a]\n", "id"),
            (
                "Error: The field (name = name, pos = 2) is out of range. Type: INT, Value length: 3, Value: abc. Row: 1\u{1}abc",
                "name",
            ),
            (
                "Error: String 'the type of 'id' is'(length=12) is too long. The max length of 'name' is 10. Row: x",
                "name",
            ),
            ("Error: Value count does not match column count: expected = 3, actual = 2. Row: 7,foo", ""),
            ("no log at all", ""),
        ];
        for (log, column) in cases {
            let reason = reason_of(log, &columns);
            assert_eq!(reason.column, column, "{log}");
            assert!(!reason.text.is_empty() && !reason.text.contains("Row:"), "{}", reason.text);
        }
    }
}

//! Cutting a large indexed table without reading it: a key's span is halved again and again where the index says that many
//! rows lie. Pure: [`Dives::ask`] asks, the source answers with keys of its own and with estimates of its index, and every
//! boundary is a key that the source has put strictly above another one.

use starlift_common::job::SourceKind;

use crate::keys::KeyType;
use crate::ranges::{Piece, evenly_spread};

/// A guess that leaves less than this share of a span on one side was a bad one.
const BAD_SHARE: u64 = 16;
/// After so many bad guesses in a row, keys are counted off instead.
const BAD_GUESSES_MOST: u32 = 3;
/// Counting off is paid for key by key.
const STEP_ROWS_MOST: u64 = 20_000;
/// Pieces of integer keys that are asked for; within one, keys are taken to be spread evenly.
const INTEGER_PIECES_MOST: u64 = 1_000;

/// Keys `min..=max`, both of which exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub min: String,
    pub max: String,
    /// By the index's estimate.
    pub rows: u64,
}

/// Where a span might be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub span: Span,
    pub at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The first key from this value on.
    Value(String),
    /// The first key that comes at least so many rows after the span's beginning and is another one.
    Rows(u64),
}

/// A span in two. `right.min` is above `left.max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halves {
    pub left: Span,
    pub right: Span,
}

/// The spans of one key, from left to right.
#[derive(Debug)]
pub struct Dives {
    key: KeyType,
    kind: SourceKind,
    /// Pieces wanted in the end.
    count: u64,
    /// A span of many more rows is cut.
    rows_most: u64,
    questions_left: u64,
    /// Still to be looked at, the leftmost last, and how many guesses in a row were bad there.
    waiting: Vec<(Span, u32)>,
    done: Vec<Span>,
}

impl Dives {
    /// For about `count` pieces.
    pub fn new(key: KeyType, kind: SourceKind, whole: Span, count: u64) -> Self {
        let count = count.max(1);
        let asked = if key == KeyType::Integer { count.min(INTEGER_PIECES_MOST) } else { count };
        let rows_most = whole.rows.div_ceil(asked).max(1);
        Self {
            count,
            key,
            kind,
            rows_most,
            questions_left: asked * 8 + 64,
            waiting: vec![(whole, 0)],
            done: Vec::new(),
        }
    }

    /// What to ask next; `None` when every span is small enough or cannot be cut.
    pub fn ask(&mut self) -> Option<Question> {
        while let Some((span, bad_guesses)) = self.waiting.last() {
            // A little more is no reason to ask again.
            let is_small = span.rows <= self.rows_most.saturating_add(self.rows_most / 4);
            if is_small || span.min == span.max || self.questions_left == 0 {
                let (span, _) = self.waiting.pop()?;
                self.done.push(span);
                continue;
            }
            self.questions_left -= 1;
            let rows = self.rows_most.min(STEP_ROWS_MOST);
            let at = if *bad_guesses < BAD_GUESSES_MOST { self.guess(span) } else { None };
            return Some(Question { span: span.clone(), at: at.unwrap_or(At::Rows(rows)) });
        }
        None
    }

    /// So that both sides hold whole pieces, should the keys be spread evenly.
    fn guess(&self, span: &Span) -> Option<At> {
        let pieces = (span.rows.saturating_add(self.rows_most / 2) / self.rows_most).max(2);
        let value = self.key.between(&span.min, &span.max, pieces / 2, pieces)?;
        // The server must be able to read it.
        self.key.literal(self.kind, &value)?;
        Some(At::Value(value))
    }

    /// The answer to the question asked last; `None`: there is no such key.
    pub fn answer(&mut self, question: &Question, halves: Option<Halves>) {
        let Some((span, bad_guesses)) = self.waiting.pop() else { return };
        match halves {
            Some(Halves { left, right }) => {
                let least = span.rows / BAD_SHARE;
                let was_bad = matches!(question.at, At::Value(_)) && left.rows.min(right.rows) < least;
                let bad_guesses = if was_bad { bad_guesses + 1 } else { 0 };
                self.waiting.extend([(right, bad_guesses), (left, bad_guesses)]);
            }
            // The next question is another one.
            None if matches!(question.at, At::Value(_)) => self.waiting.push((span, BAD_GUESSES_MOST)),
            None => self.done.push(span),
        }
    }

    /// The pieces; rows are scaled so that they come to `rows`.
    pub fn finish(mut self, rows: u64) -> Vec<Piece> {
        self.done.extend(std::mem::take(&mut self.waiting).into_iter().rev().map(|(span, _)| span));
        let total: u128 = self.done.iter().map(|span| u128::from(span.rows)).sum();
        let mut pieces: Vec<Piece> = Vec::new();
        for span in &self.done {
            let share = u128::from(span.rows) * u128::from(rows) / total.max(1);
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            let parts =
                self.count.saturating_mul(span.rows) / u64::try_from(total.max(1)).unwrap_or(u64::MAX);
            if let Some((min, max)) = self.integers(span).filter(|_| parts > 1) {
                pieces.extend(evenly_spread(min, max, share, parts));
                continue;
            }
            match (self.key.literal(self.kind, &span.min), pieces.last_mut()) {
                (Some(from), _) => pieces.push(Piece { from, rows: share }),
                // No boundary can be written here.
                (None, Some(before)) => before.rows += share,
                (None, None) => {}
            }
        }
        pieces
    }

    fn integers(&self, span: &Span) -> Option<(i128, i128)> {
        let ends = (span.min.trim().parse().ok()?, span.max.trim().parse().ok()?);
        (self.key == KeyType::Integer).then_some(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table as a server sees it: keys in the order of a collation, doubled ones as often as they are there.
    struct Server {
        keys: Vec<String>,
        order: fn(&str) -> Vec<u8>,
    }

    impl Server {
        fn new(mut keys: Vec<String>, order: fn(&str) -> Vec<u8>) -> Self {
            keys.sort_by_key(|key| order(key));
            Self { keys, order }
        }

        fn below(&self, key: &str) -> usize {
            self.keys.partition_point(|one| (self.order)(one) < (self.order)(key))
        }

        fn through(&self, key: &str) -> usize {
            self.keys.partition_point(|one| (self.order)(one) <= (self.order)(key))
        }

        fn span(&self, from: usize, to: usize) -> Span {
            Span { min: self.keys[from].clone(), max: self.keys[to - 1].clone(), rows: (to - from) as u64 }
        }

        fn halves(&self, question: &Question) -> Option<Halves> {
            let (from, to) = (self.below(&question.span.min), self.through(&question.span.max));
            let at = match &question.at {
                At::Value(value) => self.below(value).max(self.through(&question.span.min)),
                At::Rows(rows) => {
                    let reached = self.keys.get(from + usize::try_from(*rows).unwrap())?;
                    self.below(reached).max(self.through(&question.span.min))
                }
            };
            (at < to).then(|| Halves { left: self.span(from, at), right: self.span(at, to) })
        }

        /// Boundaries and weights, and how many questions they took.
        fn dive(&self, key: KeyType, count: u64) -> (Vec<Piece>, u32) {
            let whole = self.span(0, self.keys.len());
            let mut dives = Dives::new(key, SourceKind::Mysql, whole, count);
            let mut questions = 0;
            while let Some(question) = dives.ask() {
                questions += 1;
                let halves = self.halves(&question);
                dives.answer(&question, halves);
            }
            (dives.finish(self.keys.len() as u64), questions)
        }
    }

    fn numeric(key: &str) -> Vec<u8> {
        (key.parse::<i128>().unwrap().cast_unsigned() ^ (1 << 127)).to_be_bytes().to_vec()
    }

    fn bytewise(key: &str) -> Vec<u8> {
        key.as_bytes().to_vec()
    }

    /// As `general_ci` has it.
    fn caseless(key: &str) -> Vec<u8> {
        key.to_uppercase().into_bytes()
    }

    fn integers(keys: impl IntoIterator<Item = i128>) -> Server {
        Server::new(keys.into_iter().map(|key| key.to_string()).collect(), numeric)
    }

    /// Largest piece that is not a single value, against the mean.
    fn skew(server: &Server, pieces: &[Piece]) -> f64 {
        let most = pieces
            .iter()
            .filter(|piece| {
                let value = piece.from.as_sql().trim_matches('\'');
                server.through(value) - server.below(value) < usize::try_from(piece.rows).unwrap()
            })
            .map(|piece| piece.rows)
            .max();
        most.unwrap_or(0) as f64 * pieces.len() as f64 / server.keys.len() as f64
    }

    #[test]
    fn evenly_spread_keys_become_even_pieces() {
        let (pieces, questions) = integers(1..=100_000).dive(KeyType::Integer, 20);
        assert_eq!(pieces.len(), 20);
        assert!(pieces.iter().all(|piece| (4_950..5_050).contains(&piece.rows)), "{pieces:?}");
        assert_eq!(questions, 19);
    }

    #[test]
    fn a_great_many_pieces_of_integers_are_not_all_asked_for() {
        let (pieces, questions) =
            integers((0..40_000).chain((1 << 40)..(1 << 40) + 40_000)).dive(KeyType::Integer, 8_000);
        assert!((7_500..=8_500).contains(&pieces.len()), "{}", pieces.len());
        assert!(questions < 1_500, "{questions}");
        assert!(
            pieces.iter().all(|piece| piece.rows <= 30),
            "{:?}",
            pieces.iter().max_by_key(|piece| piece.rows)
        );
    }

    #[test]
    fn skewed_keys_become_even_pieces_too() {
        let crowded = (0..90_000).chain((90_000..9_000_000).step_by(891));
        let outlier = (1..50_000).chain([1 << 63]);
        let snowflakes = (0..50_000).map(|n| ((1_700_000_000_000 + n / 7 * 50) << 22) | (n % 7));
        for (name, server) in [
            ("90 % of the rows in 1 % of the span", integers(crowded)),
            ("one outlier", integers(outlier)),
            ("snowflake ids", integers(snowflakes)),
        ] {
            let (pieces, questions) = server.dive(KeyType::Integer, 40);
            assert!(skew(&server, &pieces) <= 3.0, "{name}: {pieces:?}");
            assert!(questions < 300, "{name}: {questions} questions");
        }
    }

    #[test]
    fn a_heavy_value_is_left_alone() {
        let server = integers((0..1_000).chain(std::iter::repeat_n(500, 20_000)));
        let (pieces, _) = server.dive(KeyType::Integer, 20);
        let heavy = pieces.iter().find(|piece| piece.from.as_sql() == "500").expect("a piece of its own");
        assert_eq!(heavy.rows, 20_001);
    }

    #[test]
    fn texts_in_any_order_become_even_pieces() {
        let hex =
            (0..40_000_u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        let mixed = (0..40_000_u64)
            .map(|n| {
                let letter = b"aBcDeFgHiJ"[usize::try_from(n % 10).unwrap()] as char;
                format!("{letter}{n:x}{}", if n % 3 == 0 { "ä" } else { "" })
            })
            .collect();
        let numbered = (0..40_000).map(|n| format!("ORDER-2024-{n:08}")).collect();
        for (name, server, folds_case) in [
            ("hexadecimal", Server::new(hex, bytewise), false),
            ("mixed case", Server::new(mixed, caseless), true),
            ("numbered", Server::new(numbered, bytewise), false),
        ] {
            let (pieces, questions) = server.dive(KeyType::Text { folds_case }, 40);
            assert!(
                skew(&server, &pieces) <= 3.0,
                "{name}: {} pieces, {}",
                pieces.len(),
                skew(&server, &pieces)
            );
            assert!(questions < 300, "{name}: {questions} questions");
        }
    }

    proptest! {
        #[test]
        fn boundaries_rise_strictly_as_the_server_orders_them(
            keys in proptest::collection::vec("[a-cA-C0-1ä_ ]{0,3}", 1..400), count in 1u64..60,
        ) {
            let server = Server::new(keys, caseless);
            let (pieces, _) = server.dive(KeyType::Text { folds_case: true }, count);
            let values: Vec<Vec<u8>> = pieces
                .iter()
                .map(|piece| caseless(piece.from.as_sql().trim_matches('\'')))
                .collect();
            prop_assert!(values.is_sorted_by(|a, b| a < b), "{pieces:?}");
        }

        #[test]
        fn no_spread_of_integers_takes_many_questions(
            keys in proptest::collection::vec(any::<i64>(), 1..500), shift in 0u32..60, count in 1u64..60,
        ) {
            let server = integers(keys.into_iter().map(|key| i128::from(key >> shift)));
            let (pieces, questions) = server.dive(KeyType::Integer, count);
            prop_assert!(u64::from(questions) <= count * 8 + 64);
            let values: Vec<i128> = pieces.iter().map(|piece| piece.from.as_sql().parse().unwrap()).collect();
            prop_assert!(values.is_sorted_by(|a, b| a < b));
            prop_assert!(pieces.iter().map(|piece| piece.rows).sum::<u64>() <= server.keys.len() as u64);
        }
    }
}

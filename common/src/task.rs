//! A task, one key range of one source table: what is leased, retried and counted; and what a worker says of it.
//! Ranges are made by the coordinator's plan; their SQL is made by [`crate::query`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, TaskKey};
use crate::problem::Problem;
use crate::retry::FailureClass;

/// A value of the split key as an SQL literal, ready to paste: the digits of a number, or a value of the data in quotes.
/// Keys are never compared here: whether a row lies below one is the server's to say, under the column's own collation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "StoredKey")]
pub struct Key(Box<str>);

/// Integers were once stored as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredKey {
    Literal(Box<str>),
    Signed(i64),
    Unsigned(u64),
}

impl From<StoredKey> for Key {
    fn from(stored: StoredKey) -> Self {
        match stored {
            StoredKey::Literal(sql) => Self(sql),
            StoredKey::Signed(value) => Self::integer(value.into()),
            StoredKey::Unsigned(value) => Self::integer(value.into()),
        }
    }
}

impl Key {
    pub fn integer(value: i128) -> Self {
        Self(value.to_string().into())
    }

    /// [`crate::query::key_literal`] makes them.
    pub fn literal(sql: impl Into<Box<str>>) -> Self {
        Self(sql.into())
    }

    pub fn as_sql(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Half-open, `lower <= key < upper`; an absent end is open. The outer ends of a plan stay open, because the probed
/// minimum and maximum are estimates and a row beyond them still needs exactly one task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    pub lower: Option<Key>,
    pub upper: Option<Key>,
}

/// The rows of a table that one task reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskRange {
    /// Every row, NULL keys included: the table is not split.
    Whole,
    Keys(KeyRange),
    /// The rows whose key is NULL, which no comparison finds.
    NullKeys,
    /// The rows of these tablets of a StarRocks table.
    Tablets(Box<[u64]>),
}

impl fmt::Display for TaskRange {
    /// For people: `all rows`, `key is NULL`, `[10, 20)`, `(-inf, 'b')`, `3 tablets 10123..10127`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => out.write_str("all rows"),
            Self::NullKeys => out.write_str("key is NULL"),
            Self::Tablets(tablets) => match &**tablets {
                [] => out.write_str("no tablet"),
                [tablet] => write!(out, "tablet {tablet}"),
                [first, .., last] => write!(out, "{} tablets {first}..{last}", tablets.len()),
            },
            Self::Keys(KeyRange { lower, upper }) => {
                match lower {
                    Some(lower) => write!(out, "[{lower}, ")?,
                    None => out.write_str("(-inf, ")?,
                }
                match upper {
                    Some(upper) => write!(out, "{upper})"),
                    None => out.write_str("+inf)"),
                }
            }
        }
    }
}

/// One task as the plan makes it and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskPlan {
    /// Index into the plan's list of source tables.
    pub shard: u32,
    pub range: TaskRange,
    /// Rows, by estimate.
    pub rows_estimate: u64,
}

/// One attempt's right to speak: the task and the epoch it was granted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    pub task: TaskKey,
    pub epoch: Epoch,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} epoch {}", self.task, self.epoch)
    }
}

/// What a running attempt has done so far. Kept for comfort, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub rows_read: u64,
    /// Cell bytes.
    pub bytes_read: u64,
    /// Rows in loads that were answered OK.
    pub rows_sent: u64,
    /// Body bytes of those loads.
    pub bytes_sent: u64,
    pub begun: LabelsBegun,
}

/// Labels of one attempt that may exist at the server: parts `0..parts` and trials `0..trials`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LabelsBegun {
    /// Transactions that carry rows to be committed.
    pub parts: u32,
    /// Transactions that only try rows out and are always rolled back.
    #[serde(default)]
    pub trials: u32,
}

impl LabelsBegun {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What either side has heard of.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { parts: self.parts.max(other.parts), trials: self.trials.max(other.trials) }
    }
}

/// One prepared transaction of an attempt: durable at the server, undecided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreparedPart {
    /// As used. Part numbers rise from one part to the next, with gaps where a pass over the range was given up.
    pub label: String,
    pub txn_id: i64,
    /// Rows the worker wrote into the bodies.
    pub rows_sent: u64,
    /// As StarRocks counted at prepare.
    pub rows_loaded: u64,
    pub rows_filtered: u64,
    pub rows_unselected: u64,
    /// Body bytes.
    pub bytes_sent: u64,
    /// Load requests.
    pub loads: u32,
}

/// Everything a finished attempt hands over for commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Prepared {
    /// Empty when the range held no good row: the task is then done without a transaction.
    pub parts: Vec<PreparedPart>,
    /// Sent, dirty or apart.
    pub rows_read: u64,
    /// Cell bytes.
    pub bytes_read: u64,
    /// Requests repeated inside the attempt.
    pub retries: u64,
    /// Rows left out as bad.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dirty_records: u64,
    /// `host:path` where they are kept; empty: nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dirty_file: String,
    #[serde(default, skip_serializing_if = "RowsApart::is_none")]
    pub apart: RowsApart,
}

/// Rows of transactions in which StarRocks found nothing to write, by its own count. It aborts such a transaction, so
/// they come to no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RowsApart {
    pub filtered: u64,
    pub unselected: u64,
}

impl RowsApart {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub fn total(self) -> u64 {
        self.filtered.saturating_add(self.unselected)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A row that the server refuses. Holds values of the row, so it goes into reports and never into logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct BadRow {
    /// The split key's value; empty when it was not selected.
    pub key: String,
    /// Empty when the server did not name it.
    pub column: String,
    /// In the server's words.
    pub reason: String,
}

impl BadRow {
    /// Bytes it takes up in a report.
    pub fn size(&self) -> usize {
        self.key.len() + self.column.len() + self.reason.len()
    }
}

/// Most bad rows, and bytes of them, that are kept with a job.
pub const BAD_ROWS_MAX: usize = 1000;
pub const BAD_ROW_BYTES_MAX: usize = 1 << 20;
/// Most bytes of bad rows in one report of an attempt.
pub const BAD_ROW_BYTES_PER_REPORT: usize = 256 << 10;

/// How an attempt ended, as the worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All trial transactions are closed.
    Prepared {
        prepared: Prepared,
        /// The first bad rows.
        bad_rows: Vec<BadRow>,
    },
    /// Plain mode: the rows are in the target already.
    Loaded {
        prepared: Prepared,
        /// False: an earlier attempt's load was found finished; its counts are unknown and stand here as zero.
        counted: bool,
    },
    Failed {
        class: FailureClass,
        problem: Problem,
        begun: LabelsBegun,
        all_rolled_back: bool,
    },
    /// Drained before it was done; costs no attempt.
    GivenBack {
        begun: LabelsBegun,
        all_rolled_back: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_shown_as_the_server_reads_it() {
        let range = |lower: Option<Key>, upper: Option<Key>| TaskRange::Keys(KeyRange { lower, upper });
        assert_eq!(range(Some(Key::integer(-2)), Some(Key::integer(3))).to_string(), "[-2, 3)");
        assert_eq!(range(None, Some(Key::literal("'b'"))).to_string(), "(-inf, 'b')");
        assert_eq!(TaskRange::Tablets([7].into()).to_string(), "tablet 7");
        assert_eq!(TaskRange::Tablets([7, 9, 11].into()).to_string(), "3 tablets 7..11");
    }

    #[test]
    fn a_range_is_read_as_it_was_stored_now_and_earlier() {
        let range = KeyRange { lower: Some(Key::integer(i128::MIN)), upper: Some(Key::literal("'b'")) };
        let stored = serde_json::to_string(&range).expect("plain data");
        assert_eq!(serde_json::from_str::<KeyRange>(&stored).expect("the same form"), range);
        let earlier: KeyRange =
            serde_json::from_str(r#"{"lower":-5,"upper":18446744073709551615}"#).expect("numbers");
        assert_eq!(earlier.lower, Some(Key::integer(-5)));
        assert_eq!(earlier.upper, Some(Key::integer(u64::MAX.into())));
    }
}

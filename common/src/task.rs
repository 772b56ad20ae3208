//! A task, one key range of one source table: what is leased, retried and counted; and what a worker says of it.
//! Ranges are made by the coordinator's plan; their SQL is made by [`crate::query`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, TaskKey};
use crate::problem::Problem;
use crate::retry::FailureClass;

/// A split key's value. Integers cover every width, unsigned bigint and LARGEINT.
pub type Key = i128;

/// Half-open, `lower <= key < upper`; an absent end is open. The outer ends of a plan stay open, because the probed
/// minimum and maximum are estimates and a row beyond them still needs exactly one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    pub lower: Option<Key>,
    pub upper: Option<Key>,
}

impl KeyRange {
    pub fn contains(&self, key: Key) -> bool {
        self.lower.is_none_or(|lower| lower <= key) && self.upper.is_none_or(|upper| key < upper)
    }
}

/// The rows of a table that one task reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskRange {
    /// Every row, NULL keys included: the table is not split.
    Whole,
    Keys(KeyRange),
    /// The rows whose key is NULL, which no comparison finds.
    NullKeys,
}

impl fmt::Display for TaskRange {
    /// For people: `all rows`, `key is NULL`, `[10, 20)`, `(-inf, 10)`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => out.write_str("all rows"),
            Self::NullKeys => out.write_str("key is NULL"),
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
    /// Transactions begun by this attempt.
    pub parts_begun: u32,
}

/// One prepared transaction of an attempt: durable at the server, undecided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreparedPart {
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
    /// Empty when the range held no row: the task is then done without a transaction.
    pub parts: Vec<PreparedPart>,
    pub rows_read: u64,
    /// Cell bytes.
    pub bytes_read: u64,
    /// Requests repeated inside the attempt.
    pub retries: u64,
}

/// How an attempt ended, as the worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Prepared(Prepared),
    Failed {
        class: FailureClass,
        problem: Problem,
        parts_begun: u32,
        all_rolled_back: bool,
    },
    /// Drained before it was done; costs no attempt.
    GivenBack {
        parts_begun: u32,
        all_rolled_back: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_lower_end_and_not_its_upper_one() {
        let range = KeyRange { lower: Some(-2), upper: Some(3) };
        assert!(range.contains(-2) && range.contains(2));
        assert!(!range.contains(3) && !range.contains(-3));
    }

    #[test]
    fn an_absent_end_is_open() {
        assert!(KeyRange { lower: None, upper: Some(0) }.contains(Key::MIN));
        assert!(KeyRange { lower: Some(0), upper: None }.contains(Key::MAX));
    }
}

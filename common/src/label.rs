//! The name of a load at StarRocks, derivable again after a crash from what the journal holds.
//!
//! The epoch is part of the name because the server's only key for load, prepare, commit and rollback is the label:
//! a late request of a dead attempt then meets its own transaction and never a newer one's
//! (StarRocks, "zombie hazard" of the transaction interface).

use std::fmt;

use crate::ids::{Epoch, JobId};
use crate::task::AttemptKey;

/// Longest prefix a job may choose: 128 (the server's limit) less job id, task, epoch and part.
pub const MAX_PREFIX_BYTES: usize = 48;

/// The prefix where the job names none.
pub const DEFAULT_PREFIX: &str = "sl";

/// `{prefix}_{job}_{task}_{epoch}_{part}`; always matches the server's `^[-\w]{1,128}$` when the prefix was validated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label(String);

impl Label {
    /// The label of one transaction ("part", counted from 0) of one attempt.
    pub fn part(prefix: &str, attempt: AttemptKey, part: u32) -> Self {
        let AttemptKey { task, epoch } = attempt;
        Self(format!("{prefix}_{}_{}_{epoch}_{part}", task.job, task.task))
    }

    /// The label of the transaction by which a check proves that loading is possible; always rolled back.
    pub fn probe(prefix: &str, job: JobId, number: u32) -> Self {
        Self(format!("{prefix}_{job}_check_{}_{number}", Epoch(0)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Whether a prefix yields legal labels: letters, digits, `_`, `-`, at most [`MAX_PREFIX_BYTES`].
pub fn is_valid_prefix(prefix: &str) -> bool {
    !prefix.is_empty()
        && prefix.len() <= MAX_PREFIX_BYTES
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{TaskId, TaskKey};

    #[test]
    fn the_longest_label_is_within_the_servers_limit() {
        let task =
            TaskKey { job: JobId::from_parts(u64::MAX >> 16, u128::MAX >> 48), task: TaskId(u32::MAX) };
        let label =
            Label::part(&"p".repeat(MAX_PREFIX_BYTES), AttemptKey { task, epoch: Epoch(u64::MAX) }, u32::MAX);
        assert!(label.as_str().len() <= 128, "{} bytes", label.as_str().len());
    }

    #[test]
    fn attempts_of_one_task_never_share_a_label() {
        let task = TaskKey { job: JobId::from_parts(1, 1), task: TaskId(7) };
        let first = Label::part("sl", AttemptKey { task, epoch: Epoch(1) }, 0);
        let second = Label::part("sl", AttemptKey { task, epoch: Epoch(2) }, 0);
        assert_ne!(first, second);
    }
}

//! The name of a load at StarRocks, derivable again after a crash from what the journal holds.
//!
//! The epoch is part of the name because the server's only key for load, prepare, commit and rollback is the label:
//! a late request of a dead attempt then meets its own transaction and never a newer one's
//! (StarRocks, "zombie hazard" of the transaction interface).

use std::fmt;

use crate::ids::{Epoch, JobId, TaskKey};
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

    /// The number of the part that goes by this label, if it is one of the attempt's.
    pub fn part_number(prefix: &str, attempt: AttemptKey, label: &str) -> Option<u32> {
        let number = label.rsplit_once('_')?.1.parse().ok()?;
        (Self::part(prefix, attempt, number).as_str() == label).then_some(number)
    }

    /// The label of a transaction that only tries rows out, counted from 0; always rolled back.
    pub fn trial(prefix: &str, attempt: AttemptKey, number: u32) -> Self {
        let AttemptKey { task, epoch } = attempt;
        Self(format!("{prefix}_{}_{}_{epoch}_t{number}", task.job, task.task))
    }

    /// The label of a task's only load on a server without transactions: the same for all attempts, so that the server
    /// takes it once.
    pub fn plain(prefix: &str, task: TaskKey) -> Self {
        Self(format!("{prefix}_{}_{}", task.job, task.task))
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
    use crate::ids::TaskId;

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

    #[test]
    fn a_part_is_known_by_its_own_attempts_labels_only() {
        let task = TaskKey { job: JobId::from_parts(1, 1), task: TaskId(7) };
        let (first, second) = (AttemptKey { task, epoch: Epoch(1) }, AttemptKey { task, epoch: Epoch(2) });
        let label = Label::part("sl", first, 12);
        assert_eq!(Label::part_number("sl", first, label.as_str()), Some(12));
        assert_eq!(Label::part_number("sl", second, label.as_str()), None);
        assert_eq!(Label::part_number("sl", first, Label::trial("sl", first, 12).as_str()), None);
        assert_eq!(Label::part_number("sl", first, &label.as_str().replace("_12", "_012")), None);
    }
}

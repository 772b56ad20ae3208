//! Live leases: who may speak for a task, and until when. Pure. An epoch that has no lease here is stale, whatever a
//! worker believes. Which task is granted is chosen in [`crate::queue`]; what follows from an expiry in [`crate::state`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey, WorkerId};
use starlift_common::task::{AttemptKey, LabelsBegun};

use crate::clock::Millis;

/// The right to run one task until a moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    pub epoch: Epoch,
    pub worker: WorkerId,
    pub granted: Millis,
    pub expires: Millis,
    /// Whether a heartbeat has come under this epoch, or may have come before a restart.
    pub heard: bool,
    /// What the attempt was heard to have begun.
    pub begun: LabelsBegun,
}

/// The epoch is not the one that holds the task now, if any does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("epoch {shown} is stale; the task is held under {held:?}")]
pub struct StaleEpoch {
    pub held: Option<Epoch>,
    pub shown: Epoch,
}

/// All live leases, at most one per task, found by task and by the moment they end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Leases {
    by_task: BTreeMap<TaskKey, Lease>,
    by_expiry: BTreeSet<(Millis, TaskKey)>,
}

impl Leases {
    /// Leases a task. The caller has chosen an epoch above every earlier one of the task.
    ///
    /// # Panics
    /// When the task is leased already: two holders would both believe they may load.
    pub fn grant(&mut self, attempt: AttemptKey, worker: WorkerId, now: Millis, term: Duration) {
        let expires = now.plus(term);
        let lease = Lease {
            epoch: attempt.epoch,
            worker,
            granted: now,
            expires,
            heard: false,
            begun: LabelsBegun::default(),
        };
        let before = self.by_task.insert(attempt.task, lease);
        assert!(before.is_none(), "task {} was granted twice", attempt.task);
        self.by_expiry.insert((expires, attempt.task));
    }

    /// Takes a lease up again that was granted before a restart, for a full term.
    pub fn resume(&mut self, attempt: AttemptKey, worker: WorkerId, now: Millis, term: Duration) {
        self.grant(attempt, worker, now, term);
        if let Some(lease) = self.by_task.get_mut(&attempt.task) {
            lease.heard = true;
        }
    }

    /// Extends a lease by a full term from `now`, also one whose time has run out but which nobody has ended yet.
    pub fn renew(
        &mut self,
        attempt: AttemptKey,
        begun: LabelsBegun,
        now: Millis,
        term: Duration,
    ) -> Result<(), StaleEpoch> {
        self.check(attempt)?;
        let lease = self.by_task.get_mut(&attempt.task).expect("checked above");
        self.by_expiry.remove(&(lease.expires, attempt.task));
        lease.expires = now.plus(term);
        lease.heard = true;
        lease.begun = lease.begun.max(begun);
        self.by_expiry.insert((lease.expires, attempt.task));
        Ok(())
    }

    /// Ends a lease; from now on its epoch is stale.
    pub fn end(&mut self, attempt: AttemptKey) -> Result<Lease, StaleEpoch> {
        self.check(attempt)?;
        let lease = self.by_task.remove(&attempt.task).expect("checked above");
        self.by_expiry.remove(&(lease.expires, attempt.task));
        Ok(lease)
    }

    /// Whether `attempt` may speak.
    pub fn check(&self, attempt: AttemptKey) -> Result<&Lease, StaleEpoch> {
        match self.by_task.get(&attempt.task) {
            Some(lease) if lease.epoch == attempt.epoch => Ok(lease),
            other => Err(StaleEpoch { held: other.map(|lease| lease.epoch), shown: attempt.epoch }),
        }
    }

    /// Attempts whose time has run out, oldest first. They stay until [`Leases::end`].
    pub fn expired(&self, now: Millis) -> Vec<AttemptKey> {
        self.by_expiry
            .iter()
            .take_while(|(expires, _)| *expires <= now)
            .map(|(_, task)| AttemptKey { task: *task, epoch: self.by_task[task].epoch })
            .collect()
    }

    pub fn get(&self, task: TaskKey) -> Option<&Lease> {
        self.by_task.get(&task)
    }

    /// The live attempts of one job.
    pub fn of_job(&self, job: JobId) -> impl Iterator<Item = AttemptKey> {
        let of = |task| TaskKey { job, task: TaskId(task) };
        self.by_task
            .range(of(0)..=of(u32::MAX))
            .map(|(task, lease)| AttemptKey { task: *task, epoch: lease.epoch })
    }

    pub fn iter(&self) -> impl Iterator<Item = (TaskKey, &Lease)> {
        self.by_task.iter().map(|(task, lease)| (*task, lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(15);

    fn attempt(task: u32, epoch: u64) -> AttemptKey {
        AttemptKey { task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(task) }, epoch: Epoch(epoch) }
    }

    fn worker() -> WorkerId {
        WorkerId("w1".into())
    }

    fn begun(parts: u32) -> LabelsBegun {
        LabelsBegun { parts, trials: 0 }
    }

    #[test]
    fn a_renewed_lease_lives_a_full_term_longer() {
        let mut leases = Leases::default();
        leases.grant(attempt(0, 1), worker(), Millis(0), TERM);
        leases.renew(attempt(0, 1), begun(1), Millis(14_000), TERM).unwrap();
        assert_eq!(leases.expired(Millis(28_999)), []);
        assert_eq!(leases.expired(Millis(29_000)), [attempt(0, 1)]);
    }

    #[test]
    fn an_old_epoch_changes_nothing() {
        let mut leases = Leases::default();
        leases.grant(attempt(0, 2), worker(), Millis(0), TERM);
        let before = leases.clone();
        let stale = StaleEpoch { held: Some(Epoch(2)), shown: Epoch(1) };
        assert_eq!(leases.renew(attempt(0, 1), begun(0), Millis(1), TERM), Err(stale));
        assert_eq!(leases.end(attempt(0, 1)), Err(stale));
        assert_eq!(leases, before);
    }

    #[test]
    fn an_ended_lease_is_stale_and_no_longer_expires() {
        let mut leases = Leases::default();
        leases.grant(attempt(0, 1), worker(), Millis(0), TERM);
        leases.renew(attempt(0, 1), begun(3), Millis(1), TERM).unwrap();
        assert_eq!(leases.end(attempt(0, 1)).unwrap().begun, begun(3));
        assert!(leases.check(attempt(0, 1)).is_err());
        assert_eq!(leases.expired(Millis(u64::MAX)), []);
    }

    #[test]
    fn leases_expire_in_the_order_of_their_ends() {
        let mut leases = Leases::default();
        leases.grant(attempt(0, 1), worker(), Millis(5), TERM);
        leases.grant(attempt(1, 1), worker(), Millis(0), TERM);
        assert_eq!(leases.expired(Millis(15_000)), [attempt(1, 1)]);
        assert_eq!(leases.expired(Millis(16_000)), [attempt(1, 1), attempt(0, 1)]);
    }
}

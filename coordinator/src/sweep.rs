//! Dead labels: epochs that ended without commit may have left transactions open at the server, which count against its
//! limits and hold back later ones. They stand on a durable list until the server says that they are closed. Nothing
//! waits for that: a newer attempt works under labels of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey, WorkerId};
use starlift_common::job::LoadSpec;
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::Backoff;
use starlift_common::task::AttemptKey;
use starlift_remote::starrocks::client::Client;
use starlift_remote::starrocks::outcome::TxnState;
use tracing::{debug, warn};

use crate::clock::{Millis, Now};
use crate::commit::Facts;
use crate::record::SweepRecord;

const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// What was found out about one label of a dead epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// ABORTED: nothing of it will ever be seen.
    Closed,
    /// The server knows no such label: never begun, or not yet, or lost with its leader.
    Unknown,
    /// Still open, or nobody could be asked.
    Open,
    /// Somebody committed it, and it was not us.
    Committed,
}

impl Fate {
    fn of(state: TxnState) -> Self {
        match state {
            TxnState::Aborted => Self::Closed,
            TxnState::Unknown => Self::Unknown,
            TxnState::Prepare | TxnState::Prepared => Self::Open,
            TxnState::Committed | TxnState::Visible => Self::Committed,
        }
    }
}

/// All dead epochs that are not known to be closed, and when each is looked at next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Sweeps {
    entries: BTreeMap<AttemptKey, Entry>,
    due: BTreeSet<(Millis, AttemptKey)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    record: SweepRecord,
    /// `None` while somebody is at it.
    due: Option<Millis>,
    tries: u32,
    /// Labels that are not known to be closed.
    open: u32,
}

impl Sweeps {
    pub fn restore(records: BTreeMap<AttemptKey, SweepRecord>, now: Millis) -> Self {
        let mut sweeps = Self::default();
        for (attempt, record) in records {
            sweeps.add(attempt, record, now);
        }
        sweeps
    }

    pub fn add(&mut self, attempt: AttemptKey, record: SweepRecord, now: Millis) {
        self.due.insert((now, attempt));
        let open = record.parts + u32::from(!record.stopped);
        self.entries.insert(attempt, Entry { record, due: Some(now), tries: 0, open });
    }

    pub fn get(&self, attempt: AttemptKey) -> Option<&SweepRecord> {
        self.entries.get(&attempt).map(|entry| &entry.record)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Labels of a job that are not known to be closed. An epoch whose worker was lost counts one more than was heard of.
    pub fn labels_of(&self, job: JobId) -> u32 {
        let attempt =
            |task, epoch| AttemptKey { task: TaskKey { job, task: TaskId(task) }, epoch: Epoch(epoch) };
        let of_job = self.entries.range(attempt(0, 0)..=attempt(u32::MAX, u64::MAX));
        of_job.map(|(_, entry)| entry.open).sum()
    }

    /// The epochs to look at now, with the number of parts heard of. Each is given out once until it is settled.
    pub fn due(&mut self, now: Millis) -> Vec<(AttemptKey, u32)> {
        let mut taken = Vec::new();
        while let Some(&(due, attempt)) = self.due.first() {
            if due > now {
                break;
            }
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&attempt) {
                entry.due = None;
                taken.push((attempt, entry.record.parts));
            }
        }
        taken
    }

    /// The worker speaks of the dead epoch as running; remembers how far it has come. Says whether anything changed.
    pub fn heard(&mut self, attempt: AttemptKey, parts: u32) -> bool {
        match self.entries.get_mut(&attempt) {
            Some(entry) if entry.record.parts < parts => {
                entry.record.parts = parts;
                true
            }
            _ => false,
        }
    }

    /// The worker has ended the dead epoch by itself. Says whether anything changed.
    pub fn stopped(&mut self, attempt: AttemptKey, parts: u32, all_rolled_back: bool) -> bool {
        let Some(entry) = self.entries.get_mut(&attempt) else { return false };
        if all_rolled_back || parts == 0 {
            self.remove(attempt);
        } else {
            entry.record.parts = entry.record.parts.max(parts);
            entry.record.stopped = true;
        }
        true
    }

    /// Dead epochs of this worker that its heartbeat does not name any more: it has stopped them.
    pub fn stopped_by_silence(&mut self, worker: &WorkerId, held: &BTreeSet<AttemptKey>) -> Vec<AttemptKey> {
        let mut stopped = Vec::new();
        for (attempt, entry) in &mut self.entries {
            if entry.record.worker == *worker && !entry.record.stopped && !held.contains(attempt) {
                entry.record.stopped = true;
                stopped.push(*attempt);
            }
        }
        stopped
    }

    /// Takes in what was found out: the epoch leaves the list, or is looked at again later. Returns a part that somebody
    /// else has committed, if there is one. `lifetime`: how long a transaction of the epoch may live at the most.
    pub fn settle(
        &mut self,
        attempt: AttemptKey,
        fates: &[Fate],
        lifetime: Duration,
        now: Now,
    ) -> Option<u32> {
        let entry = self.entries.get_mut(&attempt)?;
        let silent_for = now.unix.since(entry.record.closed_at);
        let nothing_comes = entry.record.stopped || silent_for >= lifetime;
        let foreign = fates.iter().position(|fate| *fate == Fate::Committed);
        let is_over = |fate: &Fate| match fate {
            Fate::Closed | Fate::Committed => true,
            Fate::Unknown => nothing_comes,
            Fate::Open => false,
        };
        entry.record.parts = entry.record.parts.max(u32::try_from(fates.len()).unwrap_or(u32::MAX));
        if nothing_comes && fates.iter().all(is_over) {
            self.remove(attempt);
        } else {
            let open = fates.iter().filter(|fate| !is_over(fate)).count() + usize::from(!nothing_comes);
            entry.open = u32::try_from(open).unwrap_or(u32::MAX);
            let delay = RETRY.delay(entry.tries, 1.0);
            entry.tries += 1;
            let due = now.monotonic.plus(delay);
            entry.due = Some(due);
            self.due.insert((due, attempt));
        }
        foreign.and_then(|part| u32::try_from(part).ok())
    }

    fn remove(&mut self, attempt: AttemptKey) {
        if let Some(due) = self.entries.remove(&attempt).and_then(|entry| entry.due) {
            self.due.remove(&(due, attempt));
        }
    }
}

/// A dead epoch's transaction was committed by somebody else: its rows may be in the target twice.
pub fn foreign_commit(facts: Facts<'_>, part: u32) -> Problem {
    let label = Label::part(&facts.load.label_prefix, facts.attempt, part);
    Problem::new(
        Code::ForeignLabel,
        format!("transaction {label} was committed by somebody else after its attempt had been given up"),
    )
    .at(facts.range.to_string())
    .hint(
        "rows of this range may be in the target twice; nobody but this coordinator may commit these labels",
    )
}

/// Closes what it can of a dead epoch and tells what became of every label: the `parts` heard of, and further ones
/// until the server knows no more.
pub async fn carry_out(client: &Client, load: &LoadSpec, attempt: AttemptKey, parts: u32) -> Vec<Fate> {
    let mut fates = Vec::new();
    loop {
        let part = u32::try_from(fates.len()).unwrap_or(u32::MAX);
        let fate = close(client, load, &Label::part(&load.label_prefix, attempt, part)).await;
        let beyond = part >= parts;
        // Past the parts heard of, a label unknown is the end: parts are begun in their order.
        if beyond && fate == Fate::Unknown {
            return fates;
        }
        fates.push(fate);
        if beyond && fate == Fate::Open {
            return fates;
        }
    }
}

/// Rolls one label back as far as the server lets us.
async fn close(client: &Client, load: &LoadSpec, label: &Label) -> Fate {
    if let Err(error) = client.rollback(&load.database, &load.table, label).await {
        debug!(%label, %error, "rollback is not confirmed");
        // The BE that held it may be gone: the FE can abort it alone.
        if let Err(error) = client.cancel(&load.database, label).await {
            debug!(%label, %error, "cancel is not confirmed");
        }
    }
    match client.load_state(&load.database, label).await {
        Ok(state) => Fate::of(state),
        Err(error) => {
            warn!(%label, %error, "the state of a dead label cannot be asked");
            Fate::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn attempt(epoch: u64) -> AttemptKey {
        AttemptKey { task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(0) }, epoch: Epoch(epoch) }
    }

    fn job() -> JobId {
        attempt(1).task.job
    }

    fn record(parts: u32, stopped: bool) -> SweepRecord {
        SweepRecord { worker: WorkerId("w1".into()), parts, stopped, closed_at: UnixMillis(0) }
    }

    fn at(seconds: u64) -> Now {
        Now { monotonic: Millis(seconds * 1000), unix: UnixMillis(seconds * 1000) }
    }

    const LIFETIME: Duration = Duration::from_secs(600);

    fn listed(parts: u32, stopped: bool) -> Sweeps {
        let mut sweeps = Sweeps::default();
        sweeps.add(attempt(1), record(parts, stopped), Millis(0));
        sweeps
    }

    #[test]
    fn closed_labels_of_a_stopped_worker_leave_the_list() {
        let mut sweeps = listed(2, true);
        assert_eq!(sweeps.due(Millis(0)), [(attempt(1), 2)]);
        assert_eq!(sweeps.due(Millis(0)), []);
        sweeps.settle(attempt(1), &[Fate::Closed, Fate::Open], LIFETIME, at(0));
        assert_eq!(sweeps.labels_of(job()), 1);
        assert_eq!(sweeps.due(Millis(999)), []);
        assert_eq!(sweeps.due(Millis(1000)), [(attempt(1), 2)]);
        sweeps.settle(attempt(1), &[Fate::Closed, Fate::Unknown], LIFETIME, at(1));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_lost_worker_keeps_its_epoch_on_the_list_until_nothing_of_it_can_come() {
        let mut sweeps = listed(1, false);
        assert_eq!(sweeps.labels_of(job()), 2);
        sweeps.due(Millis(0));
        sweeps.settle(attempt(1), &[Fate::Closed], LIFETIME, at(0));
        assert_eq!(sweeps.labels_of(job()), 1);
        sweeps.due(Millis(600_000));
        sweeps.settle(attempt(1), &[Fate::Closed], LIFETIME, at(600));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_heartbeat_without_the_dead_epoch_confirms_the_stop() {
        let mut sweeps = listed(0, false);
        let held = BTreeSet::from([attempt(1)]);
        assert_eq!(sweeps.stopped_by_silence(&WorkerId("w1".into()), &held), []);
        assert_eq!(sweeps.stopped_by_silence(&WorkerId("w2".into()), &BTreeSet::new()), []);
        assert_eq!(sweeps.stopped_by_silence(&WorkerId("w1".into()), &BTreeSet::new()), [attempt(1)]);
        sweeps.settle(attempt(1), &[], LIFETIME, at(0));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_late_word_of_the_worker_that_all_is_rolled_back_ends_it() {
        let mut sweeps = listed(1, false);
        assert!(sweeps.stopped(attempt(1), 3, false));
        assert_eq!(sweeps.get(attempt(1)).map(|record| (record.parts, record.stopped)), Some((3, true)));
        assert!(sweeps.stopped(attempt(1), 3, true));
        assert!(sweeps.is_empty() && sweeps.due(Millis(u64::MAX)).is_empty());
    }

    #[test]
    fn a_foreign_commit_is_told() {
        let mut sweeps = listed(1, true);
        sweeps.due(Millis(0));
        assert_eq!(sweeps.settle(attempt(1), &[Fate::Committed], LIFETIME, at(0)), Some(0));
        assert!(sweeps.is_empty());
    }
}

//! Dead labels: epochs that ended without commit may have left transactions open at the server, which count against its
//! limits and hold back later ones. They stand on a durable list until the server says that they are closed. Nothing
//! waits for that: a newer attempt works under labels of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey, WorkerId};
use starlift_common::job::{LoadMode, LoadSpec};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::Backoff;
use starlift_common::task::{AttemptKey, LabelsBegun};
use starlift_remote::starrocks::client::Client;
use starlift_remote::starrocks::outcome::TxnState;
use tracing::{debug, warn};

use crate::clock::{Millis, Now};
use crate::commit::Facts;
use crate::record::SweepRecord;

/// Short enough that a late begin of a worker that was thought dead does not stay open for long.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(20) };

/// What is to be looked at of one dead epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Parts before this one are committed: the sweep never touches them.
    pub first_part: u32,
    /// What was heard of; there may be more.
    pub begun: LabelsBegun,
}

/// What became of a dead epoch's labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Fates {
    /// From the target's first part on.
    pub parts: Vec<Fate>,
    pub trials: Vec<Fate>,
}

impl Fates {
    fn iter(&self) -> impl Iterator<Item = Fate> {
        self.parts.iter().chain(&self.trials).copied()
    }
}

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
    /// Epochs whose worker has not stopped, as far as is known.
    unstopped: BTreeMap<WorkerId, BTreeSet<AttemptKey>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    record: SweepRecord,
    /// `None` while somebody is at it.
    due: Option<Millis>,
    quiet: Quiet,
    /// When the last look began, and what was known then: what became true while it was under way proves nothing.
    looked_at: Now,
    quiet_at_look: Quiet,
    tries: u32,
    /// Labels that are not known to be closed.
    open: u32,
}

/// What is known of the worker's end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Quiet {
    /// Since when it does nothing more under the epoch.
    since: Option<Millis>,
    /// It said itself what it had begun, and did not just fall silent.
    has_told: bool,
}

impl Sweeps {
    pub fn restore(records: BTreeMap<AttemptKey, SweepRecord>, now: Millis) -> Self {
        let mut sweeps = Self::default();
        for (attempt, record) in records {
            // Whether the worker had said what it had begun, or had only fallen silent, is not stored.
            sweeps.insert(attempt, record, false, now);
        }
        sweeps
    }

    /// Puts an epoch onto the list that has just died; a worker that had stopped by then has said what it had begun.
    pub fn add(&mut self, attempt: AttemptKey, record: SweepRecord, now: Millis) {
        let has_told = record.stopped;
        self.insert(attempt, record, has_told, now);
    }

    fn insert(&mut self, attempt: AttemptKey, record: SweepRecord, has_told: bool, now: Millis) {
        self.remove(attempt);
        self.due.insert((now, attempt));
        let parts = record.begun.parts.saturating_sub(record.first_part);
        let open = parts + record.begun.trials + u32::from(!record.stopped);
        let quiet = Quiet { since: record.stopped.then_some(now), has_told };
        let (looked_at, quiet_at_look) = (Now::default(), Quiet::default());
        if !record.stopped {
            self.unstopped.entry(record.worker.clone()).or_default().insert(attempt);
        }
        let entry = Entry { record, due: Some(now), quiet, looked_at, quiet_at_look, tries: 0, open };
        self.entries.insert(attempt, entry);
    }

    pub fn get(&self, attempt: AttemptKey) -> Option<&SweepRecord> {
        self.entries.get(&attempt).map(|entry| &entry.record)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Labels of a job that are not known to be closed. An epoch whose worker was lost counts one more than was heard of.
    pub fn labels_of(&self, job: JobId) -> u32 {
        let of_job = self.entries.range(of_job(job));
        of_job.map(|(_, entry)| entry.open).sum()
    }

    /// The epochs to look at now. Each is given out once until it is settled.
    pub fn due(&mut self, now: Now) -> Vec<(AttemptKey, Target)> {
        let mut taken = Vec::new();
        while let Some(&(due, attempt)) = self.due.first() {
            if due > now.monotonic {
                break;
            }
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&attempt) {
                entry.due = None;
                (entry.looked_at, entry.quiet_at_look) = (now, entry.quiet);
                let SweepRecord { first_part, begun, .. } = entry.record;
                taken.push((attempt, Target { first_part, begun }));
            }
        }
        taken
    }

    /// The worker speaks of the dead epoch as running; remembers how far it has come. Says whether anything changed.
    pub fn heard(&mut self, attempt: AttemptKey, begun: LabelsBegun) -> bool {
        let Some(entry) = self.entries.get_mut(&attempt) else { return false };
        let before = entry.record.begun;
        entry.record.begun = before.max(begun);
        entry.record.begun != before
    }

    /// The worker has ended the dead epoch by itself. Says whether anything changed.
    pub fn stopped(
        &mut self,
        attempt: AttemptKey,
        begun: LabelsBegun,
        all_rolled_back: bool,
        now: Millis,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&attempt) else { return false };
        if all_rolled_back || begun.is_none() {
            self.remove(attempt);
        } else {
            entry.record.begun = entry.record.begun.max(begun);
            entry.record.stopped = true;
            forget(&mut self.unstopped, &entry.record.worker, attempt);
            entry.quiet = Quiet { since: entry.quiet.since.or(Some(now)), has_told: true };
        }
        true
    }

    /// Dead epochs of this worker that its heartbeat does not name any more: it has stopped them.
    pub fn stopped_by_silence(
        &mut self,
        worker: &WorkerId,
        held: &BTreeSet<AttemptKey>,
        now: Millis,
    ) -> Vec<AttemptKey> {
        let Some(unstopped) = self.unstopped.get(worker) else { return Vec::new() };
        let stopped: Vec<AttemptKey> = unstopped.difference(held).copied().collect();
        for attempt in &stopped {
            forget(&mut self.unstopped, worker, *attempt);
            if let Some(entry) = self.entries.get_mut(attempt) {
                entry.record.stopped = true;
                entry.quiet.since = Some(now);
            }
        }
        stopped
    }

    /// Takes in what was found out: the epoch leaves the list, or is looked at again later. Returns a label that
    /// somebody else has committed, if there is one. `lifetime`: how long a transaction of the epoch may live at the most;
    /// `late_begin`: how long a begin may be on its way after its worker has stopped.
    pub fn settle(
        &mut self,
        attempt: AttemptKey,
        fates: &Fates,
        lifetime: Duration,
        late_begin: Duration,
        now: Now,
    ) -> Option<Foreign> {
        let entry = self.entries.get_mut(&attempt)?;
        let looked_at = std::mem::take(&mut entry.looked_at);
        let quiet = std::mem::take(&mut entry.quiet_at_look);
        let nothing_comes = looked_at.unix.since(entry.record.closed_at) >= lifetime
            || quiet.since.is_some_and(|since| looked_at.monotonic.since(since) >= late_begin);
        let all_is_known = nothing_comes || quiet.has_told;
        let is_committed = |fates: &[Fate]| fates.iter().position(|fate| *fate == Fate::Committed);
        let foreign =
            is_committed(&fates.parts).map(|part| Foreign::Part(count(part) + entry.record.first_part));
        let foreign =
            foreign.or_else(|| is_committed(&fates.trials).map(|trial| Foreign::Trial(count(trial))));
        let is_over = |fate: Fate| match fate {
            Fate::Closed | Fate::Committed => true,
            Fate::Unknown => nothing_comes,
            Fate::Open => false,
        };
        let seen = LabelsBegun {
            parts: if fates.parts.is_empty() {
                0
            } else {
                entry.record.first_part + count(fates.parts.len())
            },
            trials: count(fates.trials.len()),
        };
        entry.record.begun = entry.record.begun.max(seen);
        if all_is_known && fates.iter().all(is_over) {
            self.remove(attempt);
        } else {
            entry.open =
                count(fates.iter().filter(|fate| !is_over(*fate)).count() + usize::from(!all_is_known));
            let delay = RETRY.delay(entry.tries, 1.0);
            entry.tries += 1;
            let due = now.monotonic.plus(delay);
            entry.due = Some(due);
            self.due.insert((due, attempt));
        }
        foreign
    }

    /// Takes a job's epochs off the list, for where the next attempt itself asks for the label.
    pub fn drop_job(&mut self, job: JobId) -> Vec<AttemptKey> {
        let dropped: Vec<AttemptKey> = self.entries.range(of_job(job)).map(|(attempt, _)| *attempt).collect();
        for attempt in &dropped {
            self.remove(*attempt);
        }
        dropped
    }

    fn remove(&mut self, attempt: AttemptKey) {
        let Some(entry) = self.entries.remove(&attempt) else { return };
        forget(&mut self.unstopped, &entry.record.worker, attempt);
        if let Some(due) = entry.due {
            self.due.remove(&(due, attempt));
        }
    }
}

fn forget(unstopped: &mut BTreeMap<WorkerId, BTreeSet<AttemptKey>>, worker: &WorkerId, attempt: AttemptKey) {
    if let Some(attempts) = unstopped.get_mut(worker) {
        attempts.remove(&attempt);
        if attempts.is_empty() {
            unstopped.remove(worker);
        }
    }
}

/// All attempts of a job, in their order.
fn of_job(job: JobId) -> RangeInclusive<AttemptKey> {
    let attempt = |task, epoch| AttemptKey { task: TaskKey { job, task: TaskId(task) }, epoch: Epoch(epoch) };
    attempt(0, 0)..=attempt(u32::MAX, u64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A label of a dead epoch that somebody else has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    Part(u32),
    Trial(u32),
}

/// A dead epoch's transaction was committed by somebody else: its rows may be in the target twice.
pub fn foreign_commit(facts: Facts<'_>, foreign: Foreign) -> Problem {
    let label = match foreign {
        Foreign::Part(part) => Label::part(&facts.load.label_prefix, facts.attempt, part),
        Foreign::Trial(trial) => Label::trial(&facts.load.label_prefix, facts.attempt, trial),
    };
    Problem::new(
        Code::ForeignLabel,
        format!("transaction {label} was committed by somebody else after its attempt had been given up"),
    )
    .at(facts.range.to_string())
    .hint(
        "rows of this range may be in the target twice; nobody but this coordinator may commit these labels",
    )
}

/// Closes what it can of a dead epoch and tells what became of every label: those heard of, and further ones until the
/// server knows no more.
pub async fn carry_out(client: &Client, load: &LoadSpec, attempt: AttemptKey, target: Target) -> Fates {
    let prefix = load.label_prefix.as_str();
    if load.mode == LoadMode::Plain {
        let fate = close(client, load, &Label::plain(prefix, attempt.task)).await;
        return Fates { parts: vec![fate], trials: Vec::new() };
    }
    let Target { first_part, begun } = target;
    let parts = begun.parts.saturating_sub(first_part);
    let part = |number| Label::part(prefix, attempt, first_part + number);
    let trial = |number| Label::trial(prefix, attempt, number);
    Fates {
        parts: close_all(client, load, parts, part).await,
        trials: close_all(client, load, begun.trials, trial).await,
    }
}

/// The first `heard` labels and those after them that the server knows: labels are begun in their order.
async fn close_all(client: &Client, load: &LoadSpec, heard: u32, label: impl Fn(u32) -> Label) -> Vec<Fate> {
    let mut fates = Vec::new();
    loop {
        let number = count(fates.len());
        let fate = close(client, load, &label(number)).await;
        let beyond = number >= heard;
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

    fn begun(parts: u32) -> LabelsBegun {
        LabelsBegun { parts, trials: 0 }
    }

    fn record(parts: u32, stopped: bool) -> SweepRecord {
        SweepRecord {
            worker: WorkerId("w1".into()),
            begun: begun(parts),
            first_part: 0,
            stopped,
            closed_at: UnixMillis(0),
        }
    }

    fn target(parts: u32) -> Target {
        Target { first_part: 0, begun: begun(parts) }
    }

    fn parts(fates: &[Fate]) -> Fates {
        Fates { parts: fates.to_vec(), trials: Vec::new() }
    }

    fn at(seconds: u64) -> Now {
        Now { monotonic: Millis(seconds * 1000), unix: UnixMillis(seconds * 1000) }
    }

    const LIFETIME: Duration = Duration::from_secs(600);
    const LATE: Duration = Duration::from_secs(60);

    fn listed(parts: u32, stopped: bool) -> Sweeps {
        let mut sweeps = Sweeps::default();
        sweeps.add(attempt(1), record(parts, stopped), Millis(0));
        sweeps
    }

    #[test]
    fn closed_labels_of_a_stopped_worker_leave_the_list() {
        let mut sweeps = listed(2, true);
        assert_eq!(sweeps.due(at(0)), [(attempt(1), target(2))]);
        assert_eq!(sweeps.due(at(0)), []);
        sweeps.settle(attempt(1), &parts(&[Fate::Closed, Fate::Open]), LIFETIME, LATE, at(0));
        assert_eq!(sweeps.labels_of(job()), 1);
        assert_eq!(sweeps.due(Now { monotonic: Millis(999), ..at(0) }), []);
        assert_eq!(sweeps.due(at(1)), [(attempt(1), target(2))]);
        sweeps.settle(attempt(1), &parts(&[Fate::Closed, Fate::Closed]), LIFETIME, LATE, at(1));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_label_unknown_so_far_may_come_into_being_until_its_begin_has_been_given_up_for_long() {
        let mut sweeps = listed(1, true);
        for seconds in [0, 59] {
            sweeps.due(at(seconds));
            sweeps.settle(attempt(1), &parts(&[Fate::Unknown]), LIFETIME, LATE, at(seconds));
            assert_eq!(sweeps.labels_of(job()), 1, "{seconds} s");
        }
        sweeps.due(at(80));
        sweeps.settle(attempt(1), &parts(&[Fate::Unknown]), LIFETIME, LATE, at(80));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_lost_worker_keeps_its_epoch_on_the_list_until_nothing_of_it_can_come() {
        let mut sweeps = listed(1, false);
        assert_eq!(sweeps.labels_of(job()), 2);
        sweeps.due(at(0));
        sweeps.settle(attempt(1), &parts(&[Fate::Closed]), LIFETIME, LATE, at(0));
        assert_eq!(sweeps.labels_of(job()), 1);
        sweeps.due(at(600));
        sweeps.settle(attempt(1), &parts(&[Fate::Closed]), LIFETIME, LATE, at(600));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn an_answer_that_comes_late_tells_what_was_when_the_look_began() {
        let mut sweeps = listed(1, false);
        sweeps.due(at(0));
        sweeps.settle(attempt(1), &parts(&[Fate::Closed]), LIFETIME, LATE, at(600));
        assert_eq!(sweeps.due(at(601)), [(attempt(1), target(1))]);
        sweeps.settle(attempt(1), &parts(&[Fate::Closed]), LIFETIME, LATE, at(601));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_heartbeat_without_the_dead_epoch_confirms_the_stop() {
        let mut sweeps = listed(0, false);
        let held = BTreeSet::from([attempt(1)]);
        let silence = |sweeps: &mut Sweeps, worker: &str, held: &BTreeSet<AttemptKey>| {
            sweeps.stopped_by_silence(&WorkerId(worker.into()), held, Millis(0))
        };
        assert_eq!(silence(&mut sweeps, "w1", &held), []);
        assert_eq!(silence(&mut sweeps, "w2", &BTreeSet::new()), []);
        assert_eq!(silence(&mut sweeps, "w1", &BTreeSet::new()), [attempt(1)]);
        // It did not say what it had begun: one of its requests may still be on its way.
        sweeps.due(at(0));
        sweeps.settle(attempt(1), &parts(&[]), LIFETIME, LATE, at(0));
        assert!(!sweeps.is_empty());
        sweeps.due(at(60));
        sweeps.settle(attempt(1), &parts(&[]), LIFETIME, LATE, at(60));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn after_a_restart_a_stop_counts_as_silence() {
        let mut sweeps = Sweeps::restore(BTreeMap::from([(attempt(1), record(1, true))]), Millis(0));
        for (seconds, is_over) in [(0, false), (60, true)] {
            sweeps.due(at(seconds));
            sweeps.settle(attempt(1), &parts(&[Fate::Closed]), LIFETIME, LATE, at(seconds));
            assert_eq!(sweeps.is_empty(), is_over, "{seconds} s");
        }
    }

    #[test]
    fn a_look_that_began_before_the_worker_stopped_is_not_the_last_one() {
        let mut sweeps = listed(0, false);
        sweeps.due(at(0));
        // Here the late worker begins a transaction, fails, and says so.
        sweeps.stopped(attempt(1), begun(1), false, Millis(0));
        sweeps.settle(attempt(1), &parts(&[]), LIFETIME, LATE, at(0));
        assert_eq!(sweeps.due(at(1)), [(attempt(1), target(1))]);
        sweeps.settle(attempt(1), &parts(&[Fate::Closed]), LIFETIME, LATE, at(1));
        assert!(sweeps.is_empty());
    }

    #[test]
    fn a_late_word_of_the_worker_that_all_is_rolled_back_ends_it() {
        let mut sweeps = listed(1, false);
        assert!(sweeps.stopped(attempt(1), begun(3), false, Millis(0)));
        assert_eq!(
            sweeps.get(attempt(1)).map(|record| (record.begun.parts, record.stopped)),
            Some((3, true))
        );
        assert!(sweeps.stopped(attempt(1), begun(3), true, Millis(0)));
        assert!(sweeps.is_empty() && sweeps.due(at(u64::MAX / 1000)).is_empty());
    }

    #[test]
    fn trials_are_swept_as_parts_are_and_committed_parts_are_left_alone() {
        let mut sweeps = Sweeps::default();
        let begun = LabelsBegun { parts: 3, trials: 2 };
        sweeps.add(attempt(1), SweepRecord { begun, first_part: 2, ..record(0, true) }, Millis(0));
        assert_eq!(sweeps.labels_of(job()), 3);
        assert_eq!(sweeps.due(at(0)), [(attempt(1), Target { first_part: 2, begun })]);
        let fates = Fates { parts: vec![Fate::Closed], trials: vec![Fate::Closed, Fate::Open] };
        assert_eq!(sweeps.settle(attempt(1), &fates, LIFETIME, LATE, at(0)), None);
        assert_eq!(sweeps.labels_of(job()), 1);
        let fates = Fates { parts: vec![Fate::Committed], trials: vec![Fate::Closed; 2] };
        assert_eq!(sweeps.settle(attempt(1), &fates, LIFETIME, LATE, at(0)), Some(Foreign::Part(2)));
    }

    #[test]
    fn a_foreign_commit_is_told() {
        let mut sweeps = listed(1, true);
        sweeps.due(at(0));
        assert_eq!(
            sweeps.settle(attempt(1), &parts(&[Fate::Committed]), LIFETIME, LATE, at(0)),
            Some(Foreign::Part(0))
        );
        assert!(sweeps.is_empty());
    }
}

//! The protocol of exactly once as a model that is searched in full: every order of messages, calls and faults within
//! the bounds of a [`Setting`]. The coordinator in it is the real [`State`]; workers, StarRocks and the network are
//! reduced to what the protocol asks of them.
//!
//! What stands for what:
//! * Delay and pause: nobody ever has to take a step, so everything comes as late as can be. A cut-off or dead worker is
//!   one that is late for ever; one that comes back is one that was late.
//! * Loss and repetition: a report is in the network until it is answered, arrives at any time or never, and again when
//!   its answer is lost. A request for work whose answer is lost leaves a lease that nobody holds.
//! * A change of leader: the successor reads the journal. Its predecessor does not know yet: it answers what changes
//!   nothing, cannot save any more, and the calls it had begun may still reach StarRocks.
//! * Time: decisions are taken at moment zero; an expiry is a turn one term later, after which those who spoke in time
//!   speak once more at zero. Only differences of time mean anything to the state, so the futures are the same.
//!   The wall clock stands still: a dead label is never forgotten merely for its age, which is the harder case.
//! * StarRocks follows the tables of the transaction interface: what commit and rollback do in every state of a label.
//!   Rows are counted by the attempts that loaded them.
//!
//! The bounds: two workers of one slot, up to two coordinators at once, two failed attempts a task, and per search one
//! task under two accidents of any kind or three of silence, or two tasks under one. Two tasks under two accidents are
//! beyond twenty million steps and not searched.
//!
//! Not in it: a heartbeat that is overtaken by a later one of the same worker, a begin that lands after its worker has
//! stopped the attempt (what `Rules::late_begin` is for, which is nothing here), several jobs, trials.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};
use starlift_common::job::{CommitMode, JobState};
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::task::{AttemptKey, LabelsBegun, Outcome, Progress};
use starlift_coordinator::clock::{Millis, Now, UnixMillis};
use starlift_coordinator::commit::Verdict;
use starlift_coordinator::record::Standing;
use starlift_coordinator::state::{
    Action, Answer, Change, Event, Journal, Rules, State, StoredJob, Ticket, Turn,
};
use starlift_coordinator::sweep::{Fate, Fates, Target};
use stateright::{Checker, HasDiscoveries, Model, Property};
use tokio::time::Instant;

use common::{info, plan, prepared};

/// The bounds of a search, and what is broken on purpose.
#[derive(Debug, Clone, Copy)]
struct Setting {
    tasks: u32,
    /// Transactions of every attempt.
    parts: u32,
    commit: CommitMode,
    /// How many things go wrong, all in all.
    faults: u8,
    kinds: Kinds,
    labels: Labels,
    committer: Committer,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    /// Leases expire, leaders change and are spoken to afterwards, answers are lost, attempts fail, StarRocks aborts or
    /// forgets transactions, people cancel.
    All,
    /// Leases expire, leaders change and are spoken to afterwards.
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    WithEpoch,
    /// Broken: all attempts of a task load under the same labels.
    WithoutEpoch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committer {
    Coordinator,
    /// Broken: workers commit what they have prepared.
    Worker,
}

const WORKERS: usize = 2;
const NAMES: [&str; WORKERS] = ["w1", "w2"];

/// Longer than every delay of a retry, so that time can pass for those without a lease being lost.
const LEASE: Duration = Duration::from_secs(1000);
const RULES: Rules = Rules { late_begin: Duration::ZERO, ..Rules::new(LEASE, 2) };

const TICKET: Ticket = Ticket(1);

/// When decisions are taken.
const ZERO: Now = at(0);
/// Every delay of a retry is over, no lease is.
const LATER: Now = at(100);
/// Every lease has expired that was not renewed at that very moment.
const EXPIRED: Now = at(1200);
/// What the expiry put back waits no longer.
const EXPIRED_LATER: Now = at(1300);

const fn at(seconds: u64) -> Now {
    Now { monotonic: Millis(seconds * 1000), unix: UnixMillis(1) }
}

/// One moment of the whole system.
#[derive(Debug, Clone)]
struct World {
    leader: State,
    /// What is saved. The leader's memory holds the same, so it tells no two worlds apart.
    journal: Arc<Journal>,
    /// A leader that does not know yet that it was replaced.
    deposed: Option<State>,
    calls: BTreeSet<Call>,
    workers: [Slot; WORKERS],
    reports: BTreeMap<AttemptKey, Word>,
    server: BTreeMap<Key, Txn>,
    faults_left: u8,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.leader, &self.deposed, &self.calls, &self.workers).hash(hasher);
        (&self.reports, &self.server, self.faults_left).hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let fingerprint = |state: &State| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        (&self.calls, &self.workers, &self.reports) == (&other.calls, &other.workers, &other.reports)
            && (&self.server, self.faults_left) == (&other.server, other.faults_left)
            && self.deposed.as_ref().map(fingerprint) == other.deposed.as_ref().map(fingerprint)
            && fingerprint(&self.leader) == fingerprint(&other.leader)
    }
}

/// A label at the server: task, epoch (0 where labels have none), part.
type Key = (u32, u64, u32);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Txn {
    state: LabelState,
    /// The epochs whose rows are in it.
    rows: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum LabelState {
    Prepare,
    Prepared,
    Committed,
    Aborted,
    /// Its rows are in the target, and the server does not know it any more.
    Forgotten,
}

impl LabelState {
    fn is_open(self) -> bool {
        matches!(self, Self::Prepare | Self::Prepared)
    }

    fn is_in_target(self) -> bool {
        matches!(self, Self::Committed | Self::Forgotten)
    }
}

/// A call to the server, from the action that asks for it until its answer is taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Call {
    /// Its caller was replaced: the call may be carried out, and its answer reaches nobody.
    deposed: bool,
    attempt: AttemptKey,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    Commit {
        part: u32,
    },
    /// `is_last`: the worker had stopped when it began; nothing can come in between any more.
    Sweep {
        first_part: u32,
        heard: u32,
        is_last: bool,
    },
    /// Carried out; what was found out is on its way.
    Swept {
        fates: Vec<Seen>,
    },
}

/// [`Fate`] with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Seen {
    Closed,
    Committed,
}

/// What a worker does; each has one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Slot {
    Free,
    Held(Held),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    attempt: AttemptKey,
    /// The first heartbeat was answered.
    confirmed: bool,
    begun: u32,
    prepared: u32,
    work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    Loading,
    /// Repeats its report until it is answered.
    Reporting,
    /// Told to stop: rolls back and names the attempt no more.
    Stopping,
}

/// An attempt's report, as it is in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    Prepared,
    Failed { begun: u32, all_rolled_back: bool },
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Acquire(usize),
    AcquireUnanswered(usize),
    Heartbeat(usize),
    HeartbeatToDeposed(usize),
    Begin(usize),
    Prepare(usize),
    /// A worker that was told to stop, or that a failure ended.
    RollBack(usize),
    Fail {
        worker: usize,
        rolls_back: bool,
    },
    Report(AttemptKey),
    ReportUnanswered(AttemptKey),
    ReportToDeposed(AttemptKey),
    CarryOut(Call),
    Answer(Call),
    LookAtDeadLabels,
    /// A term passes in which only this worker speaks, or none.
    Expire {
        spared: Option<usize>,
    },
    ChangeLeader,
    ServerAborts(Key),
    ServerForgets(Key),
    Cancel,
}

impl Setting {
    fn key(&self, attempt: AttemptKey, part: u32) -> Key {
        let epoch = if self.labels == Labels::WithEpoch { attempt.epoch.0 } else { 0 };
        (attempt.task.task.0, epoch, part)
    }
}

impl Model for Setting {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            leader: State::new(RULES),
            journal: Arc::default(),
            deposed: None,
            calls: BTreeSet::new(),
            workers: std::array::from_fn(|_| Slot::Free),
            reports: BTreeMap::new(),
            server: BTreeMap::new(),
            faults_left: self.faults,
        };
        let submit = Event::Submit { ticket: TICKET, job: job(), name: "orders".into(), script: "{}".into() };
        world.tell(submit, ZERO);
        let plan = Box::new(plan(self.tasks, self.commit));
        world.tell(Event::Planned { job: job(), result: Ok(plan) }, ZERO);
        assert_eq!(world.job_state(), JobState::Running);
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let faulty = world.faults_left > 0;
        let all_kinds = faulty && self.kinds == Kinds::All;
        for worker in 0..WORKERS {
            world.steps_of(worker, self, faulty, steps);
        }
        for attempt in world.reports.keys() {
            steps.push(Step::Report(*attempt));
            if faulty && world.deposed.is_some() {
                steps.push(Step::ReportToDeposed(*attempt));
            }
            if all_kinds {
                steps.push(Step::ReportUnanswered(*attempt));
            }
        }
        for call in &world.calls {
            match call.what {
                What::Sweep { .. } | What::Commit { .. } if call.deposed => {
                    steps.push(Step::CarryOut(call.clone()));
                }
                What::Sweep { is_last: false, .. } => steps.push(Step::CarryOut(call.clone())),
                // What was found before the worker has stopped settles nothing: it may as well come later.
                What::Swept { .. } if !world.is_stopped(call.attempt) => {}
                What::Sweep { .. } | What::Swept { .. } => steps.push(Step::Answer(call.clone())),
                What::Commit { .. } => {
                    steps.push(Step::Answer(call.clone()));
                    if all_kinds {
                        steps.push(Step::CarryOut(call.clone()));
                    }
                }
            }
        }
        if world.has_stopped_labels() {
            steps.push(Step::LookAtDeadLabels);
        }
        for spared in [None, Some(0), Some(1)] {
            if world.can_expire(spared) {
                steps.push(Step::Expire { spared });
            }
        }
        if faulty && world.deposed.is_none() {
            steps.push(Step::ChangeLeader);
        }
        if all_kinds {
            if world.leader.job(job()).is_some_and(|job| job.ending().is_none() && !job.state().is_final()) {
                steps.push(Step::Cancel);
            }
            for (key, txn) in &world.server {
                match txn.state {
                    LabelState::Prepare | LabelState::Prepared => steps.push(Step::ServerAborts(*key)),
                    LabelState::Committed => steps.push(Step::ServerForgets(*key)),
                    LabelState::Aborted | LabelState::Forgotten => {}
                }
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        world.take(self, step);
        if world.job_state().is_final() {
            world.faults_left = 0;
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no range is in the target twice", |setting: &Self, world: &World| {
                (0..setting.tasks).all(|task| world.times_in_target(task) <= 1)
            }),
            Property::always("what is in the target was decided", |setting: &Self, world: &World| {
                world.server.iter().filter(|(_, txn)| txn.state.is_in_target()).all(|(key, txn)| {
                    txn.rows.iter().all(|epoch| world.is_decided(setting, attempt(key.0, *epoch), key.2))
                })
            }),
            Property::always("a job that succeeded has every range once", |setting: &Self, world: &World| {
                world.job_state() != JobState::Succeeded
                    || (0..setting.tasks).all(|task| world.parts_in_target(task) == setting.parts)
            }),
            Property::always("a task that is done is in the target", |setting: &Self, world: &World| {
                (0..setting.tasks).all(|number| {
                    !matches!(world.standing(number), Standing::Done { .. })
                        || world.parts_in_target(number) == setting.parts
                })
            }),
            Property::always(
                "somebody answers for every open transaction",
                |setting: &Self, world: &World| {
                    setting.labels == Labels::WithoutEpoch
                        || world
                            .server
                            .iter()
                            .all(|(key, txn)| !txn.state.is_open() || world.is_answered_for(*key))
                },
            ),
            Property::always("a task has one holder", |_: &Self, world: &World| world.holders_differ()),
            Property::eventually("the job ends and leaves nothing open", |_: &Self, world: &World| {
                let waits_for_people =
                    |key: &Key| matches!(world.standing(key.0), Standing::Undecided { .. });
                world.job_state().is_final()
                    && world.server.iter().all(|(key, txn)| !txn.state.is_open() || waits_for_people(key))
            }),
            Property::sometimes("a job succeeds", |_: &Self, world: &World| {
                world.job_state() == JobState::Succeeded
            }),
            Property::sometimes("a job succeeds by a second attempt", |_: &Self, world: &World| {
                world.job_state() == JobState::Succeeded && world.server.keys().any(|key| key.1 > 1)
            }),
            Property::sometimes("a dead transaction is found closed", |_: &Self, world: &World| {
                world.leader.sweeps().is_empty()
                    && world.server.values().any(|txn| txn.state == LabelState::Aborted)
            }),
            Property::sometimes(
                "two coordinators believe that they lead at the end",
                |_: &Self, world: &World| world.deposed.is_some() && world.job_state() == JobState::Succeeded,
            ),
        ]
    }
}

impl World {
    fn job_state(&self) -> JobState {
        self.leader.job(job()).expect("submitted at first").state()
    }

    fn standing(&self, number: u32) -> &Standing {
        &self.leader.job(job()).expect("submitted at first").task(task(number).task).standing
    }

    fn epoch(&self, number: u32) -> u64 {
        self.leader.job(job()).expect("submitted at first").task(task(number).task).epoch.0
    }

    // The steps.

    fn steps_of(&self, worker: usize, setting: &Setting, faulty: bool, steps: &mut Vec<Step>) {
        let all_kinds = faulty && setting.kinds == Kinds::All;
        match &self.workers[worker] {
            Slot::Free => {
                let job = self.leader.job(job()).expect("submitted at first");
                let has_work = job.grants_tasks() && job.counts().waiting > 0;
                // The workers are alike: the first one is the one that asks first.
                let may_ask = worker == 0 || self.leader.workers().count() > 0;
                if may_ask && has_work || self.silence_means_something(worker) {
                    steps.push(Step::Acquire(worker));
                    if all_kinds {
                        steps.push(Step::AcquireUnanswered(worker));
                    }
                }
            }
            Slot::Held(held) if held.work == Work::Stopping => steps.push(Step::RollBack(worker)),
            Slot::Held(held) => {
                if !held.confirmed || self.leader.leases().check(held.attempt).is_err() {
                    steps.push(Step::Heartbeat(worker));
                }
                if faulty && self.deposed.is_some() {
                    steps.push(Step::HeartbeatToDeposed(worker));
                }
                if held.work == Work::Loading && held.confirmed {
                    if held.begun == held.prepared && held.begun < setting.parts {
                        steps.push(Step::Begin(worker));
                    }
                    if held.begun > held.prepared {
                        steps.push(Step::Prepare(worker));
                    }
                    if all_kinds {
                        steps.push(Step::Fail { worker, rolls_back: true });
                        if held.begun > 0 {
                            steps.push(Step::Fail { worker, rolls_back: false });
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, setting: &Setting, step: Step) {
        match step {
            Step::Acquire(worker) => self.acquire(worker),
            Step::AcquireUnanswered(worker) => {
                self.faults_left -= 1;
                self.acquire(worker);
                self.workers[worker] = Slot::Free;
            }
            Step::Heartbeat(worker) => self.heartbeat(worker, ZERO),
            Step::HeartbeatToDeposed(worker) => {
                self.faults_left -= 1;
                let event = self.heartbeat_of(worker);
                if let Some(Answer::Orders { orders, .. }) = self.ask_deposed(event) {
                    self.obey(worker, orders[0].go_on);
                }
            }
            Step::Begin(worker) => self.begin(setting, worker),
            Step::Prepare(worker) => self.prepare(setting, worker),
            Step::RollBack(worker) => {
                if let Slot::Held(held) = self.workers[worker].clone() {
                    self.close_labels(setting, &held);
                    self.workers[worker] = Slot::Free;
                }
            }
            Step::Fail { worker, rolls_back } => {
                self.faults_left -= 1;
                if rolls_back && let Slot::Held(held) = self.workers[worker].clone() {
                    self.close_labels(setting, &held);
                }
                self.fail(worker, rolls_back);
            }
            Step::Report(attempt) => {
                let event = self.report_of(setting, attempt);
                self.ask(event, ZERO);
                self.reports.remove(&attempt);
                self.report_is_answered(attempt);
            }
            Step::ReportUnanswered(attempt) => {
                self.faults_left -= 1;
                let event = self.report_of(setting, attempt);
                self.ask(event, ZERO);
            }
            Step::ReportToDeposed(attempt) => {
                self.faults_left -= 1;
                let event = self.report_of(setting, attempt);
                if self.ask_deposed(event).is_some() {
                    self.report_is_answered(attempt);
                }
            }
            Step::CarryOut(call) => {
                // The answer to a commit is lost.
                self.faults_left -= u8::from(!call.deposed && matches!(call.what, What::Commit { .. }));
                self.carry_out(setting, call);
            }
            Step::Answer(call) => {
                let call = self.carry_out(setting, call);
                self.answer_call(setting, &call);
            }
            Step::LookAtDeadLabels => self.pass(LATER),
            Step::Expire { spared } => self.expire(spared),
            Step::ChangeLeader => {
                self.faults_left -= 1;
                let (state, turn) = State::restore(RULES, Journal::clone(&self.journal), ZERO);
                self.deposed = Some(std::mem::replace(&mut self.leader, state));
                let calls = std::mem::take(&mut self.calls);
                let under_way = calls.into_iter().filter(|call| !matches!(call.what, What::Swept { .. }));
                self.calls = under_way.map(|call| Call { deposed: true, ..call }).collect();
                self.follow(turn);
            }
            Step::ServerAborts(key) => {
                self.faults_left -= 1;
                self.roll_back(key);
            }
            Step::ServerForgets(key) => {
                self.faults_left -= 1;
                if let Some(txn) = self.server.get_mut(&key) {
                    txn.state = LabelState::Forgotten;
                }
            }
            Step::Cancel => {
                self.faults_left -= 1;
                self.tell(Event::Cancel { ticket: TICKET, job: job() }, ZERO);
            }
        }
    }

    // The coordinator: decide, save, act.

    fn tell(&mut self, event: Event, now: Now) {
        self.ask(event, now);
    }

    fn ask(&mut self, event: Event, now: Now) -> Option<Answer> {
        let turn = self.leader.apply(vec![event], now);
        self.follow(turn)
    }

    fn pass(&mut self, now: Now) {
        let turn = self.leader.apply(Vec::new(), now);
        self.follow(turn);
    }

    /// Saves, then begins what is asked for; returns the answer, if there is one.
    fn follow(&mut self, turn: Turn) -> Option<Answer> {
        let journal = Arc::make_mut(&mut self.journal);
        for change in turn.changes {
            keep(journal, change);
        }
        let mut answered = None;
        for action in turn.actions {
            let (attempt, what) = match action {
                Action::Answer { answer, .. } => {
                    answered = Some(answer);
                    continue;
                }
                Action::Commit { attempt, part, .. } => (attempt, What::Commit { part }),
                Action::Sweep { attempt, target: Target { first_part, begun }, .. } => {
                    let is_last = self.is_stopped(attempt);
                    (attempt, What::Sweep { first_part, heard: begun.parts, is_last })
                }
                Action::Plan { .. } => continue, // told by the setting
                other => panic!("the job has no statements: {other:?}"),
            };
            self.calls.insert(Call { deposed: false, attempt, what });
        }
        answered
    }

    /// The deposed leader cannot save: when it has to, it learns the truth and falls silent.
    fn ask_deposed(&mut self, event: Event) -> Option<Answer> {
        let deposed = self.deposed.as_mut()?;
        let turn = deposed.apply(vec![event], ZERO);
        if !turn.changes.is_empty() {
            self.deposed = None;
            return None;
        }
        turn.actions.into_iter().find_map(|action| match action {
            Action::Answer { answer, .. } => Some(answer),
            _ => None,
        })
    }

    /// Without a lease of somebody who might still speak, an expiry is no fault but what must come.
    fn can_expire(&self, spared: Option<usize>) -> bool {
        let is_spared = |name: &str| spared.is_some_and(|worker| NAMES[worker] == name);
        let mut expiring =
            self.leader.leases().iter().filter(|(_, lease)| !is_spared(&lease.worker.0)).peekable();
        let speaks =
            |worker| matches!(&self.workers[worker], Slot::Held(held) if held.work != Work::Stopping);
        expiring.peek().is_some()
            && spared.is_none_or(speaks)
            && (self.faults_left > 0
                || expiring.all(|(task, lease)| !self.is_held(AttemptKey { task, epoch: lease.epoch })))
    }

    fn is_held(&self, attempt: AttemptKey) -> bool {
        self.workers.iter().any(|slot| match slot {
            Slot::Free => false,
            Slot::Held(held) => held.attempt == attempt && held.work != Work::Stopping,
        })
    }

    fn expire(&mut self, spared: Option<usize>) {
        let is_spared = |name: &str| spared.is_some_and(|worker| NAMES[worker] == name);
        let leases = self.leader.leases().iter().filter(|(_, lease)| !is_spared(&lease.worker.0));
        let attempts: Vec<AttemptKey> =
            leases.map(|(task, lease)| AttemptKey { task, epoch: lease.epoch }).collect();
        if attempts.into_iter().any(|attempt| self.is_held(attempt)) {
            self.faults_left -= 1;
        }
        for now in [EXPIRED, EXPIRED_LATER, ZERO] {
            match spared {
                Some(worker) => self.heartbeat(worker, now),
                None if now == ZERO => {}
                None => self.pass(now),
            }
        }
    }

    // Workers.

    fn acquire(&mut self, worker: usize) {
        let event = Event::Acquire {
            ticket: TICKET,
            worker: info(NAMES[worker], 1),
            free_slots: 1,
            until: Millis(0), // does not wait
        };
        if let Some(Answer::Granted { grants, .. }) = self.ask(event, LATER)
            && let Some(grant) = grants.first()
        {
            let attempt = grant.attempt;
            let held = Held { attempt, confirmed: false, begun: 0, prepared: 0, work: Work::Loading };
            self.workers[worker] = Slot::Held(held);
        }
    }

    fn heartbeat_of(&self, worker: usize) -> Event {
        let tasks = match &self.workers[worker] {
            Slot::Held(held) if held.work != Work::Stopping => {
                let begun = LabelsBegun { parts: held.begun, trials: 0 };
                vec![(held.attempt, Progress { begun, ..Progress::default() })]
            }
            _ => Vec::new(),
        };
        Event::Heartbeat { ticket: TICKET, worker: info(NAMES[worker], 1), tasks }
    }

    fn heartbeat(&mut self, worker: usize, now: Now) {
        let event = self.heartbeat_of(worker);
        if let Some(Answer::Orders { orders, .. }) = self.ask(event, now)
            && let Some(order) = orders.first()
        {
            self.obey(worker, order.go_on);
        }
    }

    fn obey(&mut self, worker: usize, go_on: bool) {
        let Slot::Held(held) = &mut self.workers[worker] else { return };
        if go_on {
            held.confirmed = true;
        } else if held.work == Work::Loading && held.begun > 0 {
            held.work = Work::Stopping;
        } else {
            self.workers[worker] = Slot::Free;
        }
    }

    fn begin(&mut self, setting: &Setting, worker: usize) {
        let Slot::Held(held) = &mut self.workers[worker] else { return };
        let key = setting.key(held.attempt, held.begun);
        if self.server.get(&key).is_some_and(|txn| txn.state != LabelState::Aborted) {
            // `LABEL_ALREADY_EXISTS`: not ours, and left alone.
            self.fail(worker, false);
            return;
        }
        held.begun += 1;
        self.server.insert(key, Txn { state: LabelState::Prepare, rows: Vec::new() });
    }

    /// Loads and prepares. `TXN_NOT_EXISTS` in every state but PREPARE.
    fn prepare(&mut self, setting: &Setting, worker: usize) {
        let Slot::Held(held) = &mut self.workers[worker] else { return };
        let key = setting.key(held.attempt, held.begun - 1);
        match self.server.get_mut(&key).filter(|txn| txn.state == LabelState::Prepare) {
            Some(txn) => {
                txn.rows.push(held.attempt.epoch.0);
                let commits = setting.committer == Committer::Worker;
                txn.state = if commits { LabelState::Committed } else { LabelState::Prepared };
                held.prepared += 1;
                if held.prepared == setting.parts {
                    held.work = Work::Reporting;
                    self.reports.insert(held.attempt, Word::Prepared);
                }
            }
            None => self.fail(worker, false),
        }
    }

    fn fail(&mut self, worker: usize, all_rolled_back: bool) {
        let Slot::Held(held) = &mut self.workers[worker] else { return };
        held.work = Work::Reporting;
        self.reports.insert(held.attempt, Word::Failed { begun: held.begun, all_rolled_back });
    }

    fn close_labels(&mut self, setting: &Setting, held: &Held) {
        for part in 0..held.begun {
            self.roll_back(setting.key(held.attempt, part));
        }
    }

    fn report_of(&self, setting: &Setting, attempt: AttemptKey) -> Event {
        let outcome = match self.reports[&attempt] {
            Word::Prepared => {
                Outcome::Prepared { prepared: prepared(attempt, 0..setting.parts), bad_rows: Vec::new() }
            }
            Word::Failed { begun, all_rolled_back } => Outcome::Failed {
                class: FailureClass::Transient,
                problem: Problem::new(Code::LoadFailed, "the BE went away"),
                begun: LabelsBegun { parts: begun, trials: 0 },
                all_rolled_back,
            },
        };
        Event::Report { ticket: TICKET, attempt, outcome }
    }

    /// Accepted or not, the worker has nothing more to do with the attempt.
    fn report_is_answered(&mut self, attempt: AttemptKey) {
        for slot in &mut self.workers {
            if matches!(slot, Slot::Held(held) if held.attempt == attempt && held.work == Work::Reporting) {
                *slot = Slot::Free;
            }
        }
    }

    // StarRocks, and the calls to it.

    fn roll_back(&mut self, key: Key) {
        if let Some(txn) = self.server.get_mut(&key).filter(|txn| txn.state.is_open()) {
            *txn = Txn { state: LabelState::Aborted, rows: Vec::new() };
        }
    }

    /// Returns what is left of the call: its answer.
    fn carry_out(&mut self, setting: &Setting, mut call: Call) -> Call {
        match call.what {
            What::Commit { part } => {
                let key = setting.key(call.attempt, part);
                if let Some(txn) = self.server.get_mut(&key).filter(|txn| txn.state == LabelState::Prepared) {
                    txn.state = LabelState::Committed;
                }
            }
            What::Sweep { first_part, heard, .. } => {
                self.calls.remove(&call);
                let mut fates = Vec::new();
                for part in first_part.. {
                    let key = setting.key(call.attempt, part);
                    self.roll_back(key);
                    let seen = match self.server.get(&key).map(|txn| txn.state) {
                        Some(LabelState::Committed) => Seen::Committed,
                        Some(LabelState::Forgotten) | None if part >= heard => break,
                        _ => Seen::Closed,
                    };
                    fates.push(seen);
                }
                if !call.deposed {
                    call.what = What::Swept { fates };
                    self.calls.insert(call.clone());
                }
            }
            What::Swept { .. } => {}
        }
        call
    }

    fn answer_call(&mut self, setting: &Setting, call: &Call) {
        let event = match &call.what {
            What::Commit { part } => {
                let key = setting.key(call.attempt, *part);
                let verdict = match self.server.get(&key).map(|txn| txn.state) {
                    Some(LabelState::Prepare | LabelState::Prepared) => return, // tries again
                    Some(LabelState::Committed) => Verdict::Committed,
                    Some(LabelState::Aborted) => Verdict::Aborted { reason: String::new() },
                    Some(LabelState::Forgotten) | None => Verdict::Unknown,
                };
                Event::Committed { attempt: call.attempt, part: *part, verdict }
            }
            What::Swept { fates } => {
                let fate = |seen: &Seen| match seen {
                    Seen::Closed => Fate::Closed,
                    Seen::Committed => Fate::Committed,
                };
                let fates = Fates { parts: fates.iter().map(fate).collect(), trials: Vec::new() };
                Event::Swept { attempt: call.attempt, fates }
            }
            What::Sweep { .. } => return,
        };
        self.calls.remove(call);
        self.tell(event, ZERO);
    }

    // What holds.

    fn times_in_target(&self, number: u32) -> usize {
        let of_task = self.server.iter().filter(|(key, txn)| key.0 == number && txn.state.is_in_target());
        let mut parts: BTreeMap<u32, usize> = BTreeMap::new();
        for (key, txn) in of_task {
            *parts.entry(key.2).or_default() += txn.rows.len();
        }
        parts.values().copied().max().unwrap_or(0)
    }

    fn parts_in_target(&self, number: u32) -> u32 {
        let of_task = self.server.iter().filter(|(key, txn)| key.0 == number && txn.state.is_in_target());
        u32::try_from(of_task.map(|(_, txn)| txn.rows.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn is_decided(&self, setting: &Setting, attempt: AttemptKey, part: u32) -> bool {
        let number = attempt.task.task.0;
        let in_effect = setting.commit == CommitMode::Task || self.job_state() != JobState::Running;
        self.epoch(number) == attempt.epoch.0
            && in_effect
            && match self.standing(number) {
                Standing::Committing { committed, .. } | Standing::Undecided { committed, .. } => {
                    part <= *committed
                }
                Standing::Done { .. } => true,
                Standing::Waiting | Standing::Running | Standing::Failed => false,
            }
    }

    /// By its live lease, by a decision, or by the list of dead labels.
    fn is_answered_for(&self, key: Key) -> bool {
        let attempt = attempt(key.0, key.1);
        let is_decided = self.epoch(key.0) == key.1
            && matches!(self.standing(key.0), Standing::Committing { .. } | Standing::Undecided { .. });
        is_decided
            || self.leader.leases().check(attempt).is_ok()
            || self.leader.sweeps().get(attempt).is_some()
    }

    fn holders_differ(&self) -> bool {
        let mut accepted = BTreeSet::new();
        self.workers.iter().all(|slot| match slot {
            Slot::Held(held) if self.leader.leases().check(held.attempt).is_ok() => {
                accepted.insert(held.attempt.task)
            }
            _ => true,
        })
    }

    /// Dead epochs of which there are labels to close and nobody is at it.
    fn has_stopped_labels(&self) -> bool {
        self.dead_epochs().any(|(attempt, stopped)| {
            stopped && !self.calls.iter().any(|call| call.attempt == attempt && !call.deposed)
        })
    }

    /// Whether the coordinator knows that nothing more is done under a dead epoch.
    fn is_stopped(&self, attempt: AttemptKey) -> bool {
        self.leader.sweeps().get(attempt).is_none_or(|record| record.stopped)
    }

    /// Whether this worker's empty hands tell that it has stopped a dead epoch.
    fn silence_means_something(&self, worker: usize) -> bool {
        self.dead_epochs().any(|(attempt, stopped)| {
            let record = self.leader.sweeps().get(attempt);
            !stopped && record.is_some_and(|record| *record.worker.0 == *NAMES[worker])
        })
    }

    fn dead_epochs(&self) -> impl Iterator<Item = (AttemptKey, bool)> {
        let tasks = (0u32..).zip(self.leader.job(job()).expect("submitted at first").tasks());
        let attempts =
            tasks.flat_map(|(number, record)| (1..=record.epoch.0).map(move |epoch| attempt(number, epoch)));
        attempts.filter_map(|attempt| Some((attempt, self.leader.sweeps().get(attempt)?.stopped)))
    }
}

fn job() -> JobId {
    JobId::from_parts(7, 7)
}

fn task(number: u32) -> TaskKey {
    TaskKey { job: job(), task: TaskId(number) }
}

fn attempt(number: u32, epoch: u64) -> AttemptKey {
    AttemptKey { task: task(number), epoch: Epoch(epoch) }
}

/// What a store does with a change.
fn keep(journal: &mut Journal, change: Change) {
    let stored = |job| {
        let is_stored: Option<&mut StoredJob> = job;
        is_stored.expect("a job's record is saved with its script")
    };
    match change {
        Change::Script(..) | Change::BadRows(..) => {}
        Change::Plan(id, plan) => stored(journal.jobs.get_mut(&id)).plan = Some(plan),
        Change::Job(id, record) => {
            let entry = journal.jobs.entry(id).or_insert_with(|| StoredJob {
                record: record.clone(),
                script: "{}".into(),
                plan: None,
                tasks: BTreeMap::new(),
                report: None,
                bad_rows: BTreeMap::new(),
            });
            entry.record = record;
        }
        Change::Task(key, record) => {
            stored(journal.jobs.get_mut(&key.job)).tasks.insert(key.task.0, record);
        }
        Change::Sweep(attempt, record) => {
            journal.sweeps.insert(attempt, record);
        }
        Change::Swept(attempt) => {
            journal.sweeps.remove(&attempt);
        }
        Change::Report(id, report) => stored(journal.jobs.get_mut(&id)).report = Some(report),
        Change::Forgotten(id, _) => {
            journal.jobs.remove(&id);
        }
        Change::NoReport(id) => stored(journal.jobs.get_mut(&id)).report = None,
    }
}

const SOUND: Setting = Setting {
    tasks: 1,
    parts: 1,
    commit: CommitMode::Task,
    faults: 2,
    kinds: Kinds::All,
    labels: Labels::WithEpoch,
    committer: Committer::Coordinator,
};

/// Far more than any of these searches comes to: a search that reaches it was not exhaustive.
const MOST_STATES: usize = 20_000_000;

fn search(setting: Setting, finish_when: HasDiscoveries) -> impl Checker<Setting> {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let builder = setting.checker().threads(threads).target_state_count(MOST_STATES).finish_when(finish_when);
    let checker = builder.spawn_dfs().join();
    println!(
        "{} unique states of {}, depth {}, {:.1} s: {setting:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker
}

/// Searches everything within the setting's bounds.
fn prove(setting: Setting) {
    let checker = search(setting, HasDiscoveries::AnyFailures);
    checker.assert_properties();
    assert!(checker.state_count() < MOST_STATES, "the search was broken off");
}

#[test]
fn a_task_is_committed_once_whatever_two_things_break() {
    prove(SOUND);
}

#[test]
fn a_task_is_committed_once_under_three_lost_leases_and_leaders() {
    prove(Setting { faults: 3, kinds: Kinds::Silence, ..SOUND });
}

#[test]
fn a_task_of_two_transactions_is_committed_once() {
    prove(Setting { parts: 2, ..SOUND });
}

#[test]
fn two_tasks_are_committed_once_whatever_breaks() {
    prove(Setting { tasks: 2, faults: 1, ..SOUND });
}

#[test]
fn tasks_that_are_committed_together_are_committed_once() {
    prove(Setting { tasks: 2, faults: 1, commit: CommitMode::Job, ..SOUND });
}

/// A late call of a dead attempt, or of a leader that was replaced, then acts upon another attempt's transaction.
#[test]
fn labels_without_epochs_are_found_out() {
    let broken = Setting { labels: Labels::WithoutEpoch, ..SOUND };
    search(broken, HasDiscoveries::All).assert_any_discovery("what is in the target was decided");
}

#[test]
fn workers_that_commit_are_found_out() {
    let checker = search(Setting { committer: Committer::Worker, ..SOUND }, HasDiscoveries::All);
    checker.assert_any_discovery("no range is in the target twice");
    checker.assert_any_discovery("a job that succeeded has every range once");
}

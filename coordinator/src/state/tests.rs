use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use starlift_common::ids::{Epoch, TaskId, TaskKey};
use starlift_common::job::{
    CellKind, CommitMode, Delimiter, ErrorLimit, Format, LoadMode, LoadSpec, OnError, ReadSpec, SourceKind,
};
use starlift_common::label::Label;
use starlift_common::retry::FailureClass;
use starlift_common::task::{
    BadRow, Key, KeyRange, LabelsBegun, Outcome, Prepared, PreparedPart, TaskPlan, TaskRange,
};
use starlift_common::wire::Grant;

use super::*;
use crate::clock::UnixMillis;
use crate::commit::Verdict;
use crate::plan::PREPARED_LIFETIME_DEFAULT_S;
use crate::record::{Stage, Standing, TaskRecord};
use crate::store::{self, Write};
use crate::sweep::{Fate, Fates};

const LEASE: Duration = Duration::from_secs(15);

/// Rows that every task of these tests holds.
const ROWS: u64 = 10;

fn rules() -> Rules {
    Rules { late_begin: Duration::ZERO, ..Rules::new(LEASE, 3) }
}

fn job() -> JobId {
    JobId::from_parts(7, 7)
}

pub(crate) fn plan(tasks: u32, statements: usize) -> Plan {
    let sql = |stage: &str| (0..statements).map(|number| format!("{stage} {number}")).collect();
    let range = |number: u32| {
        let lower = (number > 0).then(|| Key::integer(i128::from(number) * 100));
        let upper = (number + 1 < tasks).then(|| Key::integer((i128::from(number) + 1) * 100));
        TaskPlan { shard: 0, range: TaskRange::Keys(KeyRange { lower, upper }), rows_estimate: ROWS }
    };
    Plan {
        shards: vec![ReadSpec {
            datasource: "src".into(),
            kind: SourceKind::Mysql,
            database: "shop".into(),
            table: "orders".into(),
            hint: None,
            select: vec!["`id`".into()],
            names: vec!["id".into()],
            filter: None,
            key: Some("id".into()),
            time_zone: None,
            query: None,
        }],
        load: LoadSpec {
            datasource: "dw".into(),
            database: "dw".into(),
            table: "orders".into(),
            columns: vec!["id".into()],
            cell_kinds: vec![CellKind::Number],
            checks: Vec::new(),
            load_urls: vec!["http://fe1:8030".into()],
            format: Format::Csv,
            column_separator: Delimiter::new(vec![1]).unwrap(),
            row_delimiter: Delimiter::new(vec![2]).unwrap(),
            named_delimiters: false,
            headers: BTreeMap::new(),
            max_batch_rows: 1000,
            max_batch_bytes: 1 << 20,
            label_prefix: "sl".into(),
            timeout_s: None,
            max_part_bytes: 1 << 30,
            on_error: OnError::Exit,
            mode: LoadMode::Transaction,
            prepared_timeout_s: None,
            compression: None,
        },
        tasks: (0..tasks).map(range).collect(),
        pre_sql: sql("pre"),
        post_sql: sql("post"),
        concurrent: 4,
        bytes_per_second: Some(1_000_000_000),
        commit: CommitMode::Task,
        error_limit: ErrorLimit::default(),
        prepared_lifetime_s: PREPARED_LIFETIME_DEFAULT_S,
        warnings: Vec::new(),
    }
}

fn prepared(attempt: AttemptKey, parts: u32) -> Prepared {
    let part = |number: u32| PreparedPart {
        label: Label::part("sl", attempt, number).to_string(),
        txn_id: 1000 + i64::from(number),
        rows_sent: ROWS,
        rows_loaded: ROWS - 1,
        rows_filtered: 1,
        rows_unselected: 0,
        bytes_sent: 100,
        loads: 2,
    };
    Prepared {
        parts: (0..parts).map(part).collect(),
        rows_read: ROWS * u64::from(parts),
        bytes_read: 50 * u64::from(parts),
        ..Prepared::default()
    }
}

pub(crate) fn done_record() -> TaskRecord {
    let attempt = AttemptKey { task: TaskKey { job: job(), task: TaskId(99_999) }, epoch: Epoch(2) };
    TaskRecord {
        epoch: Epoch(2),
        worker: Some(WorkerId("worker-1.starlift.svc-01HZX3".into())),
        took_ms: 12_345,
        standing: Standing::Done { prepared: prepared(attempt, 1) },
        ..TaskRecord::default()
    }
}

/// A coordinator without its edges: the state, the journal as saved, and the actions not carried out yet.
struct Bench {
    state: State,
    saved: BTreeMap<String, Vec<u8>>,
    now: Now,
    actions: Vec<Action>,
    answers: BTreeMap<Ticket, Answer>,
    tickets: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            state: State::new(rules()),
            saved: BTreeMap::new(),
            now: Now { monotonic: Millis(0), unix: UnixMillis(1_000_000) },
            actions: Vec::new(),
            answers: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// A job that is ready to hand out its tasks.
    fn running(tasks: u32) -> Self {
        let mut bench = Self::new();
        bench.submit();
        bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(tasks, 0))) });
        assert_eq!(bench.job_state(), JobState::Running);
        bench
    }

    fn submit(&mut self) -> Answer {
        self.ask(|ticket| Event::Submit { ticket, job: job(), name: "orders".into(), script: "{}".into() })
    }

    fn job_state(&self) -> JobState {
        self.state.job(job()).unwrap().state()
    }

    fn job(&self) -> &Job {
        self.state.job(job()).unwrap()
    }

    fn tell(&mut self, event: Event) {
        self.turn(vec![event]);
    }

    fn turn(&mut self, events: Vec<Event>) {
        let turn = self.state.apply(events, self.now);
        self.take(turn);
    }

    fn take(&mut self, turn: Turn) {
        self.save(&turn.changes);
        for action in turn.actions {
            match action {
                Action::Answer { ticket, answer } => {
                    self.answers.insert(ticket, answer);
                }
                other => self.actions.push(other),
            }
        }
    }

    fn save(&mut self, changes: &[Change]) {
        for Write { key, value } in store::encode(changes) {
            match value {
                Some(value) => self.saved.insert(key, value),
                None => self.saved.remove(&key),
            };
        }
    }

    /// Dies and comes back from what was saved; nothing that was under way is known any more.
    fn restart(&mut self) {
        let journal = store::decode(self.saved.clone().into_iter().collect()).unwrap();
        self.actions.clear();
        self.answers.clear();
        let (state, turn) = State::restore(rules(), journal, self.now);
        self.state = state;
        self.take(turn);
    }

    fn ask(&mut self, event: impl FnOnce(Ticket) -> Event) -> Answer {
        let ticket = self.park(event);
        self.answers.remove(&ticket).expect("an answer in the same turn")
    }

    fn park(&mut self, event: impl FnOnce(Ticket) -> Event) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.tell(event(ticket));
        ticket
    }

    fn acquire(&mut self, worker: &str, slots: u32) -> Vec<Grant> {
        let until = self.now.monotonic; // does not wait
        let info = info(worker);
        match self.ask(|ticket| Event::Acquire { ticket, worker: info, free_slots: slots, until }) {
            Answer::Granted { grants, .. } => grants,
            other => panic!("{other:?}"),
        }
    }

    fn one(&mut self, worker: &str) -> AttemptKey {
        self.acquire(worker, 1).pop().expect("a task").attempt
    }

    fn report(&mut self, attempt: AttemptKey, outcome: Outcome) -> bool {
        match self.ask(|ticket| Event::Report { ticket, attempt, outcome }) {
            Answer::Reported(accepted) => accepted,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, worker: &str, held: &[AttemptKey], parts: u32) -> Vec<TaskOrder> {
        let info = info(worker);
        let progress = Progress { begun: begun(parts), ..Progress::default() };
        let tasks = held.iter().map(|attempt| (*attempt, progress)).collect();
        match self.ask(|ticket| Event::Heartbeat { ticket, worker: info, tasks }) {
            Answer::Orders { orders, .. } => orders,
            other => panic!("{other:?}"),
        }
    }

    fn wait(&mut self, duration: Duration) {
        let passed = crate::clock::whole_millis(duration);
        self.now.monotonic.0 += passed;
        self.now.unix.0 += passed;
        self.turn(Vec::new());
    }

    fn commits(&self) -> Vec<(AttemptKey, u32)> {
        let commit = |action: &Action| match action {
            Action::Commit { attempt, part, .. } => Some((*attempt, *part)),
            _ => None,
        };
        self.actions.iter().filter_map(commit).collect()
    }

    fn sweeps(&self) -> Vec<AttemptKey> {
        let sweep = |action: &Action| match action {
            Action::Sweep { attempt, .. } => Some(*attempt),
            _ => None,
        };
        self.actions.iter().filter_map(sweep).collect()
    }

    fn commit_all(&mut self) {
        while let Some((attempt, part)) = self.commits().pop() {
            self.actions.retain(
                |action| !matches!(action, Action::Commit { attempt: other, .. } if *other == attempt),
            );
            self.tell(Event::Committed { attempt, part, verdict: Verdict::Committed });
        }
    }
}

pub(crate) fn info(worker: &str) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId(worker.into()),
        host: "host".into(),
        version: "1".into(),
        slots: 4,
        http: String::new(),
        draining: false,
    }
}

fn begun(parts: u32) -> LabelsBegun {
    LabelsBegun { parts, trials: 0 }
}

fn fates(fate: Fate) -> Fates {
    Fates { parts: vec![fate], trials: Vec::new() }
}

fn as_prepared(prepared: Prepared) -> Outcome {
    Outcome::Prepared { prepared, bad_rows: Vec::new() }
}

fn failed(class: FailureClass, parts: u32, all_rolled_back: bool) -> Outcome {
    let problem = Problem::new(Code::LoadFailed, "the BE went away");
    Outcome::Failed { class, problem, begun: begun(parts), all_rolled_back }
}

#[test]
fn a_job_goes_from_submit_to_a_balanced_report() {
    let mut bench = Bench::running(2);
    for _ in 0..2 {
        let attempt = bench.one("w1");
        assert!(bench.report(attempt, as_prepared(prepared(attempt, 2))));
    }
    assert_eq!(bench.job_state(), JobState::Committing);
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
    let report = bench.job().report().unwrap();
    assert_eq!((report.rows_read, report.rows_loaded, report.rows_filtered), (40, 36, 4));
    assert_eq!((report.transactions, report.loads, report.tasks_succeeded), (4, 8, 2));
    assert_eq!(report.workers[0].tasks, 2);
    assert!(report.warnings[0].contains("left out 4 rows"), "{:?}", report.warnings);
    assert_eq!(report.error, None);
}

#[test]
fn the_same_job_may_be_submitted_again_and_another_under_its_id_may_not() {
    let mut bench = Bench::running(1);
    assert_eq!(bench.submit(), Answer::Accepted);
    let other =
        bench.ask(|ticket| Event::Submit { ticket, job: job(), name: "x".into(), script: "{ }".into() });
    assert!(matches!(other, Answer::Refused(problem) if problem.code == Code::JobChanged));
    assert_eq!(bench.job_state(), JobState::Running);
}

#[test]
fn nothing_is_committed_before_the_decision_is_saved() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    let event = Event::Report { ticket: Ticket(99), attempt, outcome: as_prepared(prepared(attempt, 1)) };
    let turn = bench.state.apply(vec![event], bench.now);
    let decided = turn.changes.iter().any(|change| {
        matches!(change, Change::Task(_, TaskRecord { standing: Standing::Committing { .. }, .. }))
    });
    assert!(decided && turn.actions.iter().any(|action| matches!(action, Action::Commit { .. })));
}

#[test]
fn a_decision_is_carried_out_after_a_restart() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 2)));
    bench.tell(Event::Committed { attempt, part: 0, verdict: Verdict::Committed });
    bench.restart();
    assert_eq!(bench.commits(), [(attempt, 1)]);
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
}

#[test]
fn a_range_without_rows_is_done_without_a_transaction() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(Prepared::default()));
    assert_eq!(bench.commits(), []);
    assert_eq!(bench.job_state(), JobState::Succeeded);
}

#[test]
fn a_report_that_does_not_add_up_is_swept_and_done_again() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    let mut short = prepared(attempt, 1);
    short.parts[0].rows_loaded -= 1;
    assert!(bench.report(attempt, as_prepared(short)));
    assert_eq!((bench.commits(), bench.sweeps()), (vec![], vec![attempt]));
    bench.wait(Duration::from_secs(30));
    assert_eq!(bench.one("w1").epoch, Epoch(2));
}

#[test]
fn an_expired_epoch_is_stale_and_its_labels_are_swept() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.heartbeat("w1", &[attempt], 1);
    bench.wait(LEASE);
    assert_eq!(bench.sweeps(), [attempt]);
    assert!(!bench.report(attempt, as_prepared(prepared(attempt, 1))));
    assert_eq!(bench.commits(), []);
    bench.wait(Duration::from_secs(30));
    let second = bench.one("w2");
    assert_eq!(second.epoch, Epoch(2));
    assert!(!bench.heartbeat("w1", &[attempt], 1)[0].go_on);
    assert!(bench.heartbeat("w2", &[second], 0)[0].go_on);
}

#[test]
fn a_grant_that_never_arrived_costs_no_attempt() {
    let mut bench = Bench::running(1);
    bench.one("w1");
    bench.wait(LEASE);
    assert_eq!((bench.sweeps(), bench.job().task(TaskId(0)).failures), (vec![], 0));
    assert_eq!(bench.one("w2").epoch, Epoch(2));
}

#[test]
fn a_repeated_report_is_accepted_again_and_changes_nothing() {
    let mut bench = Bench::running(2);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 1)));
    let before = bench.saved.clone();
    assert!(bench.report(attempt, as_prepared(prepared(attempt, 1))));
    bench.commit_all();
    assert!(bench.report(attempt, as_prepared(prepared(attempt, 1))));
    assert!(!bench.report(attempt, as_prepared(prepared(attempt, 2))));
    assert_eq!((bench.commits(), bench.sweeps()), (vec![], vec![]));
    assert_eq!(before.len(), bench.saved.len());
}

#[test]
fn a_late_report_of_an_unlisted_epoch_puts_its_labels_onto_the_list() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.wait(LEASE);
    let second = bench.one("w2");
    assert!(!bench.report(attempt, as_prepared(prepared(attempt, 1))));
    assert_eq!(bench.sweeps(), [attempt]);
    let unknown = AttemptKey { epoch: Epoch(9), ..second };
    let beyond = AttemptKey { task: TaskKey { task: TaskId(77), ..second.task }, ..second };
    for stranger in [unknown, beyond] {
        assert!(!bench.report(stranger, as_prepared(prepared(stranger, 1))));
    }
    assert_eq!(bench.sweeps(), [attempt]);
}

#[test]
fn a_running_task_survives_a_restart_with_a_full_term() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.wait(LEASE.checked_sub(Duration::from_millis(1)).unwrap());
    bench.restart();
    bench.wait(LEASE.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(bench.heartbeat("w1", &[attempt], 1)[0].go_on);
    assert!(bench.report(attempt, as_prepared(prepared(attempt, 1))));
}

#[test]
fn a_spent_retry_budget_fails_the_job_and_stops_its_tasks() {
    let mut bench = Bench::running(2);
    let other = bench.one("w2");
    for _ in 0..3 {
        let attempt = bench.one("w1");
        bench.report(attempt, failed(FailureClass::Transient, 0, true));
        bench.heartbeat("w2", &[other], 1);
        bench.wait(Duration::from_secs(5));
        bench.heartbeat("w2", &[other], 1);
    }
    assert_eq!(bench.job_state(), JobState::Failed);
    assert_eq!(bench.sweeps(), [other]);
    assert!(!bench.heartbeat("w2", &[other], 1)[0].go_on);
    let error = bench.job().report().unwrap().error.clone().unwrap();
    assert!(error.message.contains("failed 3 times: the BE went away"), "{error}");
    assert_eq!(bench.acquire("w1", 4), []);
}

#[test]
fn a_permanent_failure_fails_at_once_and_distress_never_does() {
    let mut bench = Bench::running(1);
    for _ in 0..10 {
        let attempt = bench.one("w1");
        bench.report(attempt, failed(FailureClass::Distress, 0, true));
        bench.wait(Duration::from_secs(60));
    }
    assert_eq!(bench.job_state(), JobState::Running);
    let attempt = bench.one("w1");
    bench.report(attempt, failed(FailureClass::Permanent, 0, true));
    assert_eq!(bench.job_state(), JobState::Failed);
}

#[test]
fn a_task_given_back_costs_no_attempt() {
    let mut bench = Bench::running(1);
    for _ in 0..5 {
        let attempt = bench.one("w1");
        assert!(bench.report(attempt, Outcome::GivenBack { begun: begun(1), all_rolled_back: true }));
    }
    assert_eq!(bench.job().task(TaskId(0)).failures, 0);
    assert_eq!(bench.sweeps(), []);
}

#[test]
fn a_failed_task_goes_to_another_worker_when_one_asks() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.report(attempt, failed(FailureClass::Transient, 0, true));
    let until = bench.now.monotonic.plus(Duration::from_secs(60));
    let first = bench.park(|ticket| Event::Acquire { ticket, worker: info("w1"), free_slots: 1, until });
    let second = bench.park(|ticket| Event::Acquire { ticket, worker: info("w2"), free_slots: 1, until });
    bench.wait(Duration::from_secs(5));
    assert!(!bench.answers.contains_key(&first));
    assert!(matches!(&bench.answers[&second], Answer::Granted { grants, .. } if grants.len() == 1));
}

#[test]
fn waiting_workers_share_the_tasks_and_the_cap_holds() {
    let mut bench = Bench::new();
    let until = Millis(60_000);
    let tickets: Vec<Ticket> = ["w1", "w2"]
        .map(|worker| {
            bench.park(|ticket| Event::Acquire { ticket, worker: info(worker), free_slots: 4, until })
        })
        .into();
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(9, 0))) });
    for ticket in tickets {
        let Answer::Granted { grants, .. } = &bench.answers[&ticket] else { panic!() };
        assert_eq!(grants.len(), 2, "four at once, shared evenly");
        assert_eq!(grants[0].bytes_per_second, Some(250_000_000));
    }
    assert_eq!(bench.acquire("w3", 4), []);
}

#[test]
fn a_second_job_gets_its_share_of_the_workers() {
    let mut bench = Bench::running(50);
    let second = JobId::from_parts(8, 8);
    bench.ask(|ticket| Event::Submit { ticket, job: second, name: "b".into(), script: "{}".into() });
    bench.tell(Event::Planned { job: second, result: Ok(Box::new(plan(50, 0))) });
    let jobs: Vec<JobId> = bench.acquire("w1", 4).iter().map(|grant| grant.attempt.task.job).collect();
    assert_eq!(jobs, [job(), second, job(), second]);
}

#[test]
fn statements_run_one_by_one_and_their_place_is_saved_before_they_are_sent() {
    let mut bench = Bench::new();
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(1, 2))) });
    assert_eq!(bench.job_state(), JobState::PreSql);
    let at = InFlight { host: "fe1".into(), connection_id: 42 };
    let place = at.clone();
    let go = bench.ask(|ticket| Event::StatementReady { ticket, job: job(), at: place });
    assert_eq!(go, Answer::SendStatement(true));
    bench.restart();
    let resumed = bench.actions.iter().any(
        |action| matches!(action, Action::RunStatement { index: 0, in_flight: Some(found), .. } if *found == at),
    );
    assert!(resumed, "{:?}", bench.actions);
    bench.tell(Event::StatementDone { job: job(), result: Ok(()) });
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::RunStatement { index: 1, in_flight: None, .. }))
    );
    bench.tell(Event::StatementDone { job: job(), result: Ok(()) });
    assert_eq!(bench.job_state(), JobState::Running);
}

#[test]
fn a_failed_post_statement_fails_the_job_with_all_rows_in_place() {
    let mut bench = Bench::new();
    bench.submit();
    let mut plan = plan(1, 0);
    plan.post_sql.push("analyze".into());
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan)) });
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 1)));
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::RunStatement { .. })));
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::PostSql);
    let problem = Problem::new(Code::PostSqlFailed, "no");
    bench.tell(Event::StatementDone { job: job(), result: Err(problem.clone()) });
    assert_eq!(bench.job_state(), JobState::Failed);
    let report = bench.job().report().unwrap();
    assert_eq!((report.rows_loaded, report.error.as_ref()), (9, Some(&problem)));
}

#[test]
fn a_cancelled_job_rolls_forward_what_was_decided_and_grants_nothing_more() {
    let mut bench = Bench::running(3);
    let (decided, running) = (bench.one("w1"), bench.one("w1"));
    bench.heartbeat("w1", &[decided, running], 1);
    bench.report(decided, as_prepared(prepared(decided, 1)));
    assert_eq!(bench.ask(|ticket| Event::Cancel { ticket, job: job() }), Answer::Accepted);
    assert_eq!(bench.job_state(), JobState::Running);
    assert_eq!(bench.acquire("w2", 4), []);
    assert_eq!(bench.sweeps(), [running]);
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Cancelled);
    let report = bench.job().report().unwrap();
    assert_eq!((report.tasks_succeeded, report.rows_loaded, report.labels_to_sweep), (1, 9, 2));
    assert_eq!(report.error.as_ref().map(|error| error.code), Some(Code::Cancelled));
}

#[test]
fn a_cancelled_statement_is_waited_for() {
    let mut bench = Bench::new();
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(1, 1))) });
    bench.ask(|ticket| Event::Cancel { ticket, job: job() });
    assert!(bench.actions.contains(&Action::StopStatement { job: job() }));
    assert_eq!(bench.job_state(), JobState::PreSql);
    bench.tell(Event::StatementDone { job: job(), result: Err(Problem::new(Code::PreSqlFailed, "stopped")) });
    assert_eq!(bench.job_state(), JobState::Cancelled);
}

#[test]
fn a_statement_of_a_cancelled_job_is_killed_after_a_restart() {
    let mut bench = Bench::new();
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(1, 1))) });
    let at = InFlight { host: "fe1".into(), connection_id: 42 };
    bench.ask(|ticket| Event::StatementReady { ticket, job: job(), at });
    bench.ask(|ticket| Event::Cancel { ticket, job: job() });
    bench.restart();
    assert!(matches!(&bench.actions[..], [Action::KillStatement { .. }]), "{:?}", bench.actions);
    bench.tell(Event::StatementDone { job: job(), result: Ok(()) });
    assert_eq!(bench.job_state(), JobState::Cancelled);
}

#[test]
fn faults_of_a_plan_are_told_together_and_nothing_is_begun() {
    let mut bench = Bench::new();
    bench.submit();
    let problems =
        vec![Problem::new(Code::UnknownColumn, "no column a"), Problem::new(Code::ColumnMismatch, "b")];
    bench.tell(Event::Planned { job: job(), result: Err(problems) });
    assert_eq!(bench.job_state(), JobState::Failed);
    let error = bench.job().report().unwrap().error.clone().unwrap();
    assert_eq!(error.code, Code::UnknownColumn);
    assert!(error.message.starts_with("2 problems:"), "{error}");
}

#[test]
fn an_aborted_commit_is_loaded_again_under_a_new_epoch() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 2)));
    let verdict = Verdict::Aborted { reason: "timeout by txn manager".into() };
    bench.tell(Event::Committed { attempt, part: 0, verdict });
    assert_eq!(bench.sweeps(), [attempt]);
    bench.wait(Duration::from_secs(5));
    let second = bench.one("w1");
    assert_eq!(second.epoch, Epoch(2));
    bench.actions.clear();
    bench.report(second, as_prepared(prepared(second, 1)));
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
}

#[test]
fn a_half_committed_or_forgotten_task_is_never_loaded_again() {
    for verdict in [Verdict::Aborted { reason: "by hand".into() }, Verdict::Unknown] {
        let mut bench = Bench::running(1);
        let attempt = bench.one("w1");
        bench.report(attempt, as_prepared(prepared(attempt, 2)));
        bench.tell(Event::Committed { attempt, part: 0, verdict: Verdict::Committed });
        bench.tell(Event::Committed { attempt, part: 1, verdict });
        assert_eq!(bench.job_state(), JobState::Failed);
        let report = bench.job().report().unwrap();
        assert_eq!((report.rows_read, report.rows_loaded, report.rows_filtered), (10, 9, 1));
        let error = report.error.as_ref().unwrap();
        assert!(error.hint.contains("SELECT COUNT(*) FROM `dw`.`orders` WHERE `id` IS NOT NULL"), "{error}");
        assert!(error.message.contains(&Label::part("sl", attempt, 1).to_string()), "{error}");
        assert_eq!(bench.acquire("w1", 4), []);
    }
}

#[test]
fn a_foreign_commit_of_a_dead_label_fails_the_job() {
    let mut bench = Bench::running(2);
    let attempt = bench.one("w1");
    bench.report(attempt, failed(FailureClass::Transient, 1, false));
    bench.tell(Event::Swept { attempt, fates: fates(Fate::Committed) });
    assert_eq!(bench.job_state(), JobState::Failed);
    assert_eq!(
        bench.job().report().unwrap().error.as_ref().map(|error| error.code),
        Some(Code::ForeignLabel)
    );
}

/// A job with commit = "job".
fn all_at_once(tasks: u32) -> Bench {
    let mut bench = Bench::new();
    bench.submit();
    let plan = Plan { commit: CommitMode::Job, ..plan(tasks, 0) };
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan)) });
    bench
}

#[test]
fn a_job_committed_at_once_commits_nothing_before_the_last_task_is_prepared() {
    let mut bench = all_at_once(2);
    let first = bench.one("w1");
    bench.report(first, as_prepared(prepared(first, 2)));
    assert_eq!(bench.commits(), []);
    bench.restart();
    assert_eq!(bench.commits(), [], "nor after a restart");
    let second = bench.one("w1");
    bench.report(second, as_prepared(prepared(second, 1)));
    assert_eq!(bench.job_state(), JobState::Committing);
    assert_eq!(bench.commits(), [(first, 0), (second, 0)]);
    bench.restart();
    assert_eq!(bench.commits(), [(first, 0), (second, 0)], "the decision is carried out after a restart");
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
    assert_eq!(bench.job().report().unwrap().transactions, 3);
}

#[test]
fn a_job_that_fails_before_its_one_commit_leaves_nothing_behind() {
    let mut bench = all_at_once(2);
    let first = bench.one("w1");
    bench.report(first, as_prepared(prepared(first, 2)));
    let second = bench.one("w1");
    bench.report(second, failed(FailureClass::Permanent, 0, true));
    assert_eq!(bench.job_state(), JobState::Failed);
    assert_eq!((bench.commits(), bench.sweeps()), (vec![], vec![first]));
    let report = bench.job().report().unwrap();
    assert_eq!((report.rows_loaded, report.tasks_succeeded, report.labels_to_sweep), (0, 0, 2));
}

#[test]
fn a_job_that_would_outlive_its_prepared_transactions_fails_before_anything_is_committed() {
    let mut bench = all_at_once(2);
    let first = bench.one("w1");
    bench.report(first, as_prepared(prepared(first, 1)));
    bench.wait(Duration::from_secs(u64::from(PREPARED_LIFETIME_DEFAULT_S) / 10 * 8 - 1));
    assert_eq!(bench.job_state(), JobState::Running);
    bench.wait(Duration::from_secs(1));
    let error = bench.job().report().unwrap().error.clone().unwrap();
    assert_eq!(error.code, Code::PreparedTooOld, "{error}");
    assert_eq!(bench.commits(), []);
}

#[test]
fn a_paused_job_starts_nothing_and_finishes_what_runs() {
    let mut bench = Bench::running(2);
    let attempt = bench.one("w1");
    assert_eq!(bench.ask(|ticket| Event::Pause { ticket, job: job() }), Answer::Accepted);
    assert_eq!(bench.job().shown_state(), JobState::Paused);
    assert_eq!(bench.acquire("w1", 4), []);
    assert!(bench.report(attempt, as_prepared(prepared(attempt, 1))));
    bench.commit_all();
    assert_eq!(bench.job().counts().done, 1);
    bench.restart();
    assert_eq!(bench.acquire("w1", 4), [], "a pause outlives a restart");
    assert_eq!(bench.ask(|ticket| Event::Resume { ticket, job: job() }), Answer::Accepted);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 1)));
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
}

#[test]
fn a_refused_resume_leaves_the_mark_of_a_pause_as_it_is_saved() {
    let mut bench = Bench::running(1);
    bench.ask(|ticket| Event::Pause { ticket, job: job() });
    bench.ask(|ticket| Event::Cancel { ticket, job: job() });
    let answer = bench.ask(|ticket| Event::Resume { ticket, job: job() });
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    let before = bench.job().record().clone();
    bench.restart();
    assert_eq!(bench.job().record(), &before);
}

#[test]
fn a_failure_while_a_job_is_paused_waits_for_the_resume() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.ask(|ticket| Event::Pause { ticket, job: job() });
    bench.report(attempt, failed(FailureClass::Unknown, 0, true));
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.acquire("w1", 1), []);
    bench.ask(|ticket| Event::Resume { ticket, job: job() });
    assert_eq!(bench.one("w1").epoch, Epoch(2));
}

#[test]
fn a_failed_job_is_resumed_with_its_unfinished_tasks_only() {
    let mut bench = Bench::new();
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(2, 1))) });
    bench.tell(Event::StatementDone { job: job(), result: Ok(()) });
    let done = bench.one("w1");
    bench.report(done, as_prepared(prepared(done, 1)));
    bench.commit_all();
    let attempt = bench.one("w1");
    bench.report(attempt, failed(FailureClass::Permanent, 0, true));
    assert_eq!(bench.job_state(), JobState::Failed);
    bench.actions.clear();
    assert_eq!(bench.ask(|ticket| Event::Resume { ticket, job: job() }), Answer::Accepted);
    assert_eq!((bench.job_state(), bench.job().report()), (JobState::Running, None));
    bench.restart();
    assert_eq!(bench.actions, [], "the statement before the transfer is not run again");
    let again = bench.one("w1");
    assert_eq!((again.task, again.epoch), (attempt.task, Epoch(2)));
    assert_eq!(bench.job().task(again.task.task).failures, 0, "the retry budget is whole again");
    bench.report(again, as_prepared(prepared(again, 1)));
    bench.commit_all();
    bench.tell(Event::StatementDone { job: job(), result: Ok(()) });
    assert_eq!(bench.job_state(), JobState::Succeeded);
    let report = bench.job().report().unwrap();
    assert_eq!((report.tasks_succeeded, report.error.as_ref()), (2, None));
}

#[test]
fn a_job_whose_last_statements_failed_goes_on_with_them() {
    let mut bench = Bench::new();
    bench.submit();
    let post_sql = vec!["one".to_owned(), "two".to_owned()];
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(Plan { post_sql, ..plan(1, 0) })) });
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 1)));
    bench.commit_all();
    bench.tell(Event::StatementDone { job: job(), result: Ok(()) });
    bench.tell(Event::StatementDone { job: job(), result: Err(Problem::new(Code::PostSqlFailed, "no")) });
    assert_eq!(bench.job_state(), JobState::Failed);
    bench.actions.clear();
    bench.ask(|ticket| Event::Resume { ticket, job: job() });
    assert!(matches!(&bench.actions[..], [Action::RunStatement { stage: Stage::Post, index: 1, .. }]));
}

#[test]
fn what_is_over_is_not_resumed_and_what_runs_is_left_alone() {
    let mut bench = Bench::running(1);
    assert_eq!(bench.ask(|ticket| Event::Resume { ticket, job: job() }), Answer::Accepted);
    assert_eq!(bench.job_state(), JobState::Running);
    bench.ask(|ticket| Event::Cancel { ticket, job: job() });
    for event in [|ticket| Event::Resume { ticket, job: job() }, |ticket| Event::Pause { ticket, job: job() }]
    {
        let answer = bench.ask(event);
        assert!(
            matches!(&answer, Answer::Refused(problem) if problem.code == Code::WrongState),
            "{answer:?}"
        );
    }
    let nobody = JobId::from_parts(9, 9);
    let answer = bench.ask(|ticket| Event::Pause { ticket, job: nobody });
    assert!(matches!(answer, Answer::Refused(problem) if problem.code == Code::UnknownJob));
}

#[test]
fn a_statement_that_may_still_run_pauses_the_job_and_is_looked_for_again() {
    let mut bench = Bench::new();
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(1, 1))) });
    let at = InFlight { host: "fe1".into(), connection_id: 42 };
    bench.ask(|ticket| Event::StatementReady { ticket, job: job(), at });
    bench.restart();
    bench.actions.clear();
    let problem = Problem::new(Code::ConnectFailed, "fe1 does not answer");
    bench.tell(Event::StatementStuck { job: job(), problem: problem.clone() });
    let pause = bench.job().record().pause.clone().expect("it stands still");
    assert_eq!((pause.reason, bench.actions.len()), (Some(problem), 0));
    bench.ask(|ticket| Event::Resume { ticket, job: job() });
    assert!(matches!(&bench.actions[..], [Action::RunStatement { in_flight: Some(_), .. }]));
}

/// A task of two parts whose second commit was forgotten by the server.
fn forgotten() -> (Bench, AttemptKey) {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 3)));
    bench.tell(Event::Committed { attempt, part: 0, verdict: Verdict::Committed });
    bench.tell(Event::Committed { attempt, part: 1, verdict: Verdict::Unknown });
    bench.actions.clear();
    (bench, attempt)
}

fn resolve(bench: &mut Bench, task: TaskKey, resolution: Resolution, reason: &str) -> Answer {
    let reason = reason.to_owned();
    bench.ask(|ticket| Event::Resolve { ticket, task, resolution, reason })
}

#[test]
fn a_forgotten_commit_waits_for_a_human_and_goes_on_from_there() {
    let (mut bench, attempt) = forgotten();
    let refused = bench.ask(|ticket| Event::Resume { ticket, job: job() });
    assert!(
        matches!(&refused, Answer::Refused(problem) if problem.message.contains("resolve")),
        "{refused:?}"
    );
    assert!(matches!(resolve(&mut bench, attempt.task, Resolution::Committed, " "), Answer::Refused(_)));
    assert_eq!(resolve(&mut bench, attempt.task, Resolution::Committed, "counted"), Answer::Accepted);
    assert_eq!(bench.commits(), [(attempt, 2)], "the parts after it are still to be committed");
    assert_eq!(resolve(&mut bench, attempt.task, Resolution::Committed, "counted"), Answer::Accepted);
    assert_eq!(bench.commits().len(), 1, "said twice, it counts once");
    bench.restart();
    bench.commit_all();
    assert_eq!(bench.job().report().unwrap().transactions, 3, "the report follows the target");
    assert_eq!(bench.ask(|ticket| Event::Resume { ticket, job: job() }), Answer::Accepted);
    assert_eq!(bench.job_state(), JobState::Succeeded);
    let report = bench.job().report().unwrap();
    assert_eq!((report.transactions, report.rows_read), (3, 30));
    assert!(report.warnings.iter().any(|warning| warning.contains("counted")), "{:?}", report.warnings);
    assert!(matches!(resolve(&mut bench, attempt.task, Resolution::Redo, "again"), Answer::Refused(_)));
}

#[test]
fn a_task_that_is_to_be_redone_leaves_its_committed_parts_alone() {
    let (mut bench, attempt) = forgotten();
    assert_eq!(resolve(&mut bench, attempt.task, Resolution::Redo, "deleted"), Answer::Accepted);
    let sweep = bench.actions.iter().find_map(|action| match action {
        Action::Sweep { target, .. } => Some(*target),
        _ => None,
    });
    let target = sweep.expect("the parts that were never committed are rolled back");
    assert_eq!((target.first_part, target.begun.parts), (1, 3));
    bench.ask(|ticket| Event::Resume { ticket, job: job() });
    let again = bench.one("w1");
    assert_eq!(again.epoch, Epoch(2));
    bench.actions.clear();
    bench.report(again, as_prepared(prepared(again, 1)));
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
}

#[test]
fn a_part_that_was_rolled_back_cannot_be_called_committed() {
    let mut bench = Bench::running(1);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 2)));
    bench.tell(Event::Committed { attempt, part: 0, verdict: Verdict::Committed });
    let verdict = Verdict::Aborted { reason: "by hand".into() };
    bench.tell(Event::Committed { attempt, part: 1, verdict });
    let answer = resolve(&mut bench, attempt.task, Resolution::Committed, "I say so");
    assert!(matches!(&answer, Answer::Refused(problem) if problem.code == Code::WrongState), "{answer:?}");
}

fn dirty(attempt: AttemptKey, records: u64) -> Outcome {
    let prepared = prepared(attempt, 1);
    let rows_read = prepared.rows_read + records;
    let row = |key: u64| BadRow { key: key.to_string(), column: "name".into(), reason: "too long".into() };
    Outcome::Prepared {
        prepared: Prepared { dirty_records: records, rows_read, ..prepared },
        bad_rows: (0..records).map(row).collect(),
    }
}

fn tolerant(tasks: u32, error_limit: ErrorLimit) -> Bench {
    let mut bench = Bench::new();
    bench.submit();
    let plan = Plan { error_limit, ..plan(tasks, 0) };
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan)) });
    bench
}

#[test]
fn dirty_records_within_the_limit_are_counted_once_and_shown() {
    let mut bench = tolerant(2, ErrorLimit::Records(3));
    let first = bench.acquire("w1", 1).remove(0);
    assert_eq!(first.dirty_allowed, 3);
    bench.report(first.attempt, dirty(first.attempt, 2));
    bench.report(first.attempt, dirty(first.attempt, 2));
    let second = bench.acquire("w1", 1).remove(0);
    assert_eq!(second.dirty_allowed, 1);
    bench.restart();
    bench.report(second.attempt, dirty(second.attempt, 1));
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
    let report = crate::report::of(&bench.state, job()).unwrap().unwrap();
    assert_eq!((report.dirty_records, report.rows_read, report.rows_loaded), (3, 23, 18));
    assert_eq!(report.bad_rows.len(), 3);
    assert_eq!(report.bad_rows[0].reason, "too long");
}

#[test]
fn what_would_pass_the_error_limit_is_never_committed() {
    let mut bench = tolerant(2, ErrorLimit::Records(3));
    let (first, second) = (bench.one("w1"), bench.one("w1"));
    bench.report(first, dirty(first, 2));
    bench.commit_all();
    bench.actions.clear();
    bench.report(second, dirty(second, 2));
    assert_eq!(bench.job_state(), JobState::Failed);
    assert_eq!((bench.commits(), bench.sweeps()), (vec![], vec![second]));
    let report = crate::report::of(&bench.state, job()).unwrap().unwrap();
    assert_eq!(report.error.as_ref().map(|error| error.code.as_str()), Some("TOO_MANY_DIRTY_RECORDS"));
    assert_eq!((report.dirty_records, report.rows_read, report.bad_rows.len()), (2, 12, 4));
}

#[test]
fn a_share_of_dirty_records_is_exact_at_the_end() {
    // Ten rows were expected of each task, and a tenth of 22 is two.
    for (records, state) in [(2, JobState::Succeeded), (3, JobState::Failed)] {
        let mut bench = tolerant(2, ErrorLimit::Share(100_000));
        let (first, second) = (bench.one("w1"), bench.one("w1"));
        bench.report(second, as_prepared(prepared(second, 1)));
        bench.report(first, dirty(first, records));
        bench.commit_all();
        assert_eq!(bench.job_state(), state, "{records} records");
    }
}

#[test]
fn distress_lowers_the_tasks_of_a_table_for_all_its_jobs() {
    let mut bench = Bench::running(20);
    let attempts: Vec<AttemptKey> = bench.acquire("w1", 4).iter().map(|grant| grant.attempt).collect();
    for attempt in &attempts {
        bench.report(*attempt, failed(FailureClass::Distress, 0, true));
    }
    let second = JobId::from_parts(8, 8);
    bench.ask(|ticket| Event::Submit { ticket, job: second, name: "b".into(), script: "{}".into() });
    bench.tell(Event::Planned { job: second, result: Ok(Box::new(plan(20, 0))) });
    assert_eq!(bench.acquire("w1", 4).len(), 2, "half of what ran, over both jobs");
    assert_eq!(bench.state.counters().failures_distress, 4);
    assert_eq!(bench.job().tasks().iter().map(|task| task.failures).sum::<u32>(), 0);
}

#[test]
fn a_slow_commit_is_shown_and_asks_for_less_load_when_the_server_says_so() {
    let mut bench = Bench::running(3);
    let attempt = bench.one("w1");
    bench.report(attempt, as_prepared(prepared(attempt, 1)));
    let problem = Problem::new(Code::LoadFailed, "too many versions");
    let event = Event::CommitDelayed { attempt, problem: problem.clone(), in_distress: true };
    bench.tell(event);
    assert_eq!(bench.job().task(attempt.task.task).problem.as_ref(), Some(&problem));
    assert_eq!(bench.acquire("w1", 4).len(), 1);
    bench.commit_all();
    assert_eq!(bench.job().counts().done, 1);
}

#[test]
fn a_worker_told_to_drain_hears_of_it_with_its_next_call() {
    let mut bench = Bench::running(2);
    let attempt = bench.one("w1");
    let unknown = bench.ask(|ticket| Event::Drain { ticket, worker: WorkerId("w9".into()) });
    assert!(matches!(unknown, Answer::Refused(problem) if problem.code == Code::UnknownWorker));
    let until = bench.now.monotonic.plus(Duration::from_secs(60));
    bench.acquire("w2", 1);
    let parked = bench.park(|ticket| Event::Acquire { ticket, worker: info("w1"), free_slots: 1, until });
    assert!(!bench.answers.contains_key(&parked));
    bench.ask(|ticket| Event::Drain { ticket, worker: WorkerId("w1".into()) });
    assert_eq!(bench.answers[&parked], Answer::Granted { grants: Vec::new(), drain: true });
    let tasks = vec![(attempt, Progress::default())];
    let answer = bench.ask(|ticket| Event::Heartbeat { ticket, worker: info("w1"), tasks });
    assert!(matches!(answer, Answer::Orders { drain: true, .. }), "{answer:?}");
}

#[test]
fn a_plain_load_is_done_when_the_worker_says_so_and_its_label_is_left_for_the_next_attempt() {
    let mut bench = Bench::new();
    bench.submit();
    let mut plan = plan(2, 0);
    plan.load.mode = LoadMode::Plain;
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan)) });
    let (first, second) = (bench.one("w1"), bench.one("w1"));
    bench.heartbeat("w1", &[first, second], 1);
    let loaded = Prepared { parts: prepared(first, 1).parts, rows_read: ROWS, ..Prepared::default() };
    assert!(bench.report(first, Outcome::Loaded { prepared: loaded, counted: true }));
    assert_eq!((bench.job().counts().done, bench.commits()), (1, vec![]));
    bench.wait(LEASE);
    assert_eq!(
        bench.sweeps(),
        [],
        "the lost attempt may have loaded its rows: its label is asked, not cancelled"
    );
    bench.wait(Duration::from_secs(5));
    let again = bench.one("w2");
    assert_eq!((again.task, again.epoch), (second.task, Epoch(2)));
    let found = Outcome::Loaded { prepared: Prepared::default(), counted: false };
    assert!(bench.report(again, found));
    assert_eq!(bench.job_state(), JobState::Succeeded);
    let report = bench.job().report().unwrap();
    assert!(
        report.warnings.iter().any(|warning| warning.contains("earlier attempt")),
        "{:?}",
        report.warnings
    );
}

#[test]
fn plain_loads_of_an_ended_job_are_stopped_and_left_alone_when_it_is_resumed() {
    let mut bench = Bench::new();
    bench.submit();
    let mut plan = plan(3, 0);
    plan.load.mode = LoadMode::Plain;
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan)) });
    let (lost, running) = (bench.one("w1"), bench.one("w2"));
    bench.report(lost, failed(FailureClass::Unknown, 1, false));
    bench.heartbeat("w2", &[running], 1);
    bench.ask(|ticket| Event::Cancel { ticket, job: job() });
    assert_eq!(bench.sweeps(), [lost, running]);
    bench.tell(Event::Swept { attempt: lost, fates: fates(Fate::Committed) });
    let report = bench.job().report().unwrap();
    assert_eq!(report.state, JobState::Cancelled);
    assert!(report.warnings.iter().any(|warning| warning.contains("in the target")), "{:?}", report.warnings);
}

#[test]
fn old_ended_jobs_make_room_and_leave_nothing_in_the_store() {
    let mut bench = Bench::running(3);
    let done = bench.one("w1");
    bench.report(done, dirty(done, 0));
    bench.ask(|ticket| Event::Cancel { ticket, job: job() });
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Cancelled);
    for number in 0..u64::try_from(Rules::KEEP_JOBS).unwrap() {
        bench.now.unix.0 += 1;
        let id = JobId::from_parts(100 + number, 1);
        bench.ask(|ticket| Event::Submit { ticket, job: id, name: "x".into(), script: "{}".into() });
        bench.tell(Event::Planned { job: id, result: Err(vec![Problem::new(Code::InvalidScript, "no")]) });
    }
    assert_eq!(bench.state.jobs().count(), Rules::KEEP_JOBS);
    assert!(bench.state.job(job()).is_none());
    let left: Vec<&String> = bench.saved.keys().filter(|key| key.contains(&job().to_string())).collect();
    assert_eq!(left, Vec::<&String>::new());
    bench.restart();
    assert_eq!(bench.state.jobs().count(), Rules::KEEP_JOBS);
}

#[test]
fn a_job_that_wants_more_slots_than_there_are_is_told_so() {
    for (slots, is_warned) in [(0, false), (1, true), (40, false)] {
        let mut bench = Bench::new();
        if slots > 0 {
            let worker = WorkerInfo { slots, ..info("w1") };
            bench.ask(|ticket| Event::Heartbeat { ticket, worker, tasks: Vec::new() });
        }
        bench.submit();
        bench
            .tell(Event::Planned { job: job(), result: Ok(Box::new(Plan { concurrent: 40, ..plan(1, 0) })) });
        let warnings = &bench.job().plan().unwrap().warnings;
        let warned = warnings.iter().any(|warning| warning.contains("have 1 slots now"));
        assert_eq!(warned, is_warned, "{slots} slots: {warnings:?}");
    }
}

#[test]
fn an_ended_job_is_forgotten_when_it_is_old_enough() {
    let mut bench = Bench::running(1);
    let done = bench.one("w1");
    bench.report(done, as_prepared(prepared(done, 1)));
    bench.commit_all();
    assert_eq!(bench.job_state(), JobState::Succeeded);
    let day = Duration::from_secs(24 * 3600);
    for (days, is_there) in [(Rules::KEEP_FOR - day, true), (day * 2, false)] {
        bench.now.unix.0 += u64::try_from(days.as_millis()).unwrap();
        bench.wait(Duration::from_secs(61));
        assert_eq!(bench.state.job(job()).is_some(), is_there, "{days:?}");
    }
    let left: Vec<&String> = bench.saved.keys().filter(|key| key.contains(&job().to_string())).collect();
    assert_eq!(left, Vec::<&String>::new());
}

#[test]
fn a_job_that_does_not_get_on_is_told_from_one_that_does() {
    let mut bench = Bench::running(2);
    let first = bench.one("w1");
    let seconds = |bench: &Bench| bench.state.stalled(bench.now).as_secs();
    bench.wait(Duration::from_secs(5));
    assert_eq!(seconds(&bench), 5, "a grant alone brings nobody further");
    let read = |rows_read| Progress { rows_read, ..Progress::default() };
    for (rows, stalled) in [(10, 0), (10, 5), (11, 0)] {
        bench.ask(|ticket| Event::Heartbeat { ticket, worker: info("w1"), tasks: vec![(first, read(rows))] });
        assert_eq!(seconds(&bench), stalled, "{rows} rows");
        bench.wait(Duration::from_secs(5));
    }
    bench.ask(|ticket| Event::Pause { ticket, job: job() });
    bench.wait(Duration::from_secs(60));
    assert_eq!(seconds(&bench), 0, "a paused job need not get on");
}

#[test]
fn a_draining_worker_gets_nothing() {
    let mut bench = Bench::running(1);
    let worker = WorkerInfo { draining: true, ..info("w1") };
    let until = Millis(60_000);
    let answer = bench.ask(|ticket| Event::Acquire { ticket, worker, free_slots: 4, until });
    assert_eq!(answer, Answer::Granted { grants: Vec::new(), drain: true });
}

#[test]
fn who_was_leaving_is_forgotten_soon_and_who_fell_silent_late() {
    let mut bench = Bench::running(1);
    let leaving = WorkerInfo { draining: true, ..info("w1") };
    let until = Millis(0);
    bench.ask(|ticket| Event::Acquire { ticket, worker: leaving, free_slots: 0, until });
    bench.ask(|ticket| Event::Acquire { ticket, worker: info("w2"), free_slots: 0, until });
    let known = |bench: &Bench| bench.state.workers().map(|one| one.info.id.to_string()).collect::<Vec<_>>();
    bench.wait(LEASE);
    assert_eq!(known(&bench), ["w1", "w2"]);
    bench.wait(LEASE);
    assert_eq!(known(&bench), ["w2"]);
    bench.wait(LEASE * FORGET_WORKER_AFTER);
    assert_eq!(known(&bench), Vec::<String>::new());
}

#[test]
fn a_caller_that_has_gone_is_granted_nothing() {
    let mut bench = Bench::new();
    let until = Millis(60_000);
    let ticket = bench.park(|ticket| Event::Acquire { ticket, worker: info("w1"), free_slots: 4, until });
    bench.tell(Event::Gone { ticket });
    bench.submit();
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan(1, 0))) });
    assert_eq!(bench.job().counts().running, 0);
}

#[test]
fn a_hundred_thousand_tasks_are_handed_out_without_a_scan() {
    let mut bench = Bench::new();
    bench.submit();
    let mut plan = plan(100_000, 0);
    plan.concurrent = 2000;
    bench.tell(Event::Planned { job: job(), result: Ok(Box::new(plan)) });
    assert_eq!(bench.acquire("w1", 2000).len(), 2000);
}

/// What the servers around the coordinator hold in a random walk.
#[derive(Default)]
struct World {
    /// What each worker believes to hold.
    held: BTreeMap<&'static str, Vec<AttemptKey>>,
    /// Labels at StarRocks.
    labels: BTreeMap<AttemptKey, Txn>,
    /// Attempts ever granted, for late words.
    granted: BTreeSet<AttemptKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Txn {
    Prepared,
    Aborted,
    Committed,
}

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

impl World {
    fn step(&mut self, bench: &mut Bench, choice: u8, seed: u8) {
        let worker = WORKERS[usize::from(seed) % WORKERS.len()];
        match choice % 12 {
            0 | 1 => self.acquire(bench, worker, u32::from(seed % 3) + 1),
            2 | 3 => self.prepare(bench, worker, seed),
            4 => self.fail(bench, worker, seed),
            5 => {
                for worker in WORKERS {
                    self.heartbeat(bench, worker);
                }
            }
            6 => bench.wait(Duration::from_millis(u64::from(seed) * 100)),
            7 | 8 => self.commit(bench, seed),
            9 => self.sweep(bench),
            10 => self.crash(bench, seed),
            _ => self.late_word(bench, seed),
        }
    }

    fn acquire(&mut self, bench: &mut Bench, worker: &'static str, slots: u32) {
        for grant in bench.acquire(worker, slots) {
            let attempt = grant.attempt;
            assert!(self.granted.insert(attempt), "{attempt} was granted twice");
            let committed = self.committed_epochs(attempt.task);
            assert_eq!(committed, 0, "{attempt} was granted although the task is committed");
            self.held.entry(worker).or_default().push(attempt);
        }
    }

    fn take(&mut self, worker: &'static str, seed: u8) -> Option<AttemptKey> {
        let held = self.held.entry(worker).or_default();
        (!held.is_empty()).then(|| held.swap_remove(usize::from(seed) % held.len()))
    }

    fn prepare(&mut self, bench: &mut Bench, worker: &'static str, seed: u8) {
        let Some(attempt) = self.take(worker, seed) else { return };
        if self.labels.contains_key(&attempt) {
            return; // the sweep was faster: the server refuses this worker
        }
        self.labels.insert(attempt, Txn::Prepared);
        bench.report(attempt, as_prepared(prepared(attempt, 1)));
    }

    fn fail(&mut self, bench: &mut Bench, worker: &'static str, seed: u8) {
        let Some(attempt) = self.take(worker, seed) else { return };
        let outcome = match seed % 4 {
            0 => failed(FailureClass::Distress, 1, false),
            1 => Outcome::GivenBack { begun: begun(0), all_rolled_back: true },
            2 => failed(FailureClass::Transient, 1, false),
            _ => return, // dies without a word
        };
        bench.report(attempt, outcome);
    }

    fn heartbeat(&mut self, bench: &mut Bench, worker: &'static str) {
        let held = self.held.get(worker).cloned().unwrap_or_default();
        let orders = bench.heartbeat(worker, &held, 1);
        let stopped: BTreeSet<AttemptKey> =
            orders.iter().filter(|order| !order.go_on).map(|order| order.attempt).collect();
        self.held.entry(worker).or_default().retain(|attempt| !stopped.contains(attempt));
    }

    fn commit(&mut self, bench: &mut Bench, seed: u8) {
        let commits = bench.commits();
        let Some((attempt, part)) = commits.get(usize::from(seed) % commits.len().max(1)).copied() else {
            return;
        };
        bench
            .actions
            .retain(|action| !matches!(action, Action::Commit { attempt: other, .. } if *other == attempt));
        let verdict = self.commit_at_server(attempt, seed);
        bench.tell(Event::Committed { attempt, part, verdict });
    }

    /// Now and then the server has aborted the transaction by itself.
    fn commit_at_server(&mut self, attempt: AttemptKey, seed: u8) -> Verdict {
        let label = self.labels.get_mut(&attempt).expect("only prepared labels are committed");
        if *label == Txn::Prepared {
            *label = if seed.is_multiple_of(16) { Txn::Aborted } else { Txn::Committed };
        }
        match label {
            Txn::Committed => Verdict::Committed,
            Txn::Aborted => Verdict::Aborted { reason: String::new() },
            Txn::Prepared => unreachable!("decided above"),
        }
    }

    fn sweep(&mut self, bench: &mut Bench) {
        let Some(attempt) = bench.sweeps().pop() else { return };
        bench
            .actions
            .retain(|action| !matches!(action, Action::Sweep { attempt: other, .. } if *other == attempt));
        let label = self.labels.entry(attempt).or_insert(Txn::Aborted);
        if *label == Txn::Prepared {
            *label = Txn::Aborted;
        }
        let fate = if *label == Txn::Committed { Fate::Committed } else { Fate::Closed };
        bench.tell(Event::Swept { attempt, fates: fates(fate) });
    }

    /// The coordinator dies: half of the time after a commit was carried out and before its answer was taken.
    fn crash(&mut self, bench: &mut Bench, seed: u8) {
        if seed.is_multiple_of(2)
            && let Some((attempt, _)) = bench.commits().first().copied()
        {
            self.commit_at_server(attempt, seed);
        }
        bench.restart();
    }

    /// Somebody speaks under any old epoch; a repeated word of the live one is what a lost answer leads to.
    fn late_word(&mut self, bench: &mut Bench, seed: u8) {
        let count = self.granted.len().max(1);
        let Some(attempt) = self.granted.iter().nth(usize::from(seed) % count).copied() else { return };
        if self.labels.get(&attempt) == Some(&Txn::Prepared) {
            bench.report(attempt, as_prepared(prepared(attempt, 1)));
        } else if bench.state.leases().check(attempt).is_err() {
            let before = bench.job().tasks().to_vec();
            assert!(!bench.report(attempt, failed(FailureClass::Permanent, 1, false)));
            assert_eq!(bench.job().tasks(), before, "a stale word changed a task");
        }
    }

    fn committed_epochs(&self, task: TaskKey) -> usize {
        self.labels.iter().filter(|(attempt, txn)| attempt.task == task && **txn == Txn::Committed).count()
    }

    fn check(&self, bench: &Bench) {
        let job = bench.job();
        let mut counts = job::Counts::default();
        for (number, record) in (0u32..).zip(job.tasks()) {
            let task = TaskKey { job: super::tests::job(), task: TaskId(number) };
            assert!(self.committed_epochs(task) <= 1, "task {number} is committed twice");
            let lease = bench.state.leases().get(task);
            assert_eq!(lease.is_some(), record.standing == Standing::Running, "task {number}: {record:?}");
            assert!(lease.is_none_or(|lease| lease.epoch == record.epoch));
            match record.standing {
                Standing::Waiting => counts.waiting += 1,
                Standing::Running => counts.running += 1,
                Standing::Committing { .. } => counts.committing += 1,
                Standing::Done { .. } => counts.done += 1,
                Standing::Failed => counts.failed += 1,
                Standing::Undecided { .. } => counts.undecided += 1,
            }
            if matches!(record.standing, Standing::Done { .. }) {
                assert_eq!(self.committed_epochs(task), 1, "task {number} is done and not committed");
            }
            if matches!(record.standing, Standing::Running | Standing::Committing { .. }) {
                let live = AttemptKey { task, epoch: record.epoch };
                assert!(
                    bench.state.sweeps().get(live).is_none() || job.state().is_final(),
                    "{live} is swept alive"
                );
            }
        }
        assert_eq!(job.counts(), counts);
        let mut shares = BTreeMap::<WorkerId, crate::report::Share>::new();
        for record in job.tasks() {
            if let (Standing::Done { prepared }, Some(worker)) = (&record.standing, &record.worker) {
                let share = shares.entry(worker.clone()).or_insert_with(|| crate::report::Share::of(worker));
                share.add(prepared);
            }
        }
        assert_eq!(job.shares(), &shares, "what a worker did is counted once");
        assert_eq!(job.queue().running(), counts.running);
        let saved = store::decode(bench.saved.clone().into_iter().collect()).unwrap();
        let stored = &saved.jobs[&super::tests::job()];
        assert_eq!(&stored.record, job.record());
        for (number, record) in (0u32..).zip(job.tasks()) {
            assert_eq!(
                stored.tasks.get(&number).unwrap_or(&TaskRecord::default()),
                record,
                "what is saved is what is"
            );
        }
    }

    /// Lets the job come to its end without further accidents.
    fn finish(&mut self, bench: &mut Bench) {
        for round in 0..200 {
            if bench.job_state().is_final() {
                return;
            }
            for worker in WORKERS {
                self.acquire(bench, worker, 4);
                while !self.held.entry(worker).or_default().is_empty() {
                    self.prepare(bench, worker, 1);
                }
            }
            while !bench.commits().is_empty() {
                self.commit(bench, 1);
            }
            while !bench.sweeps().is_empty() {
                self.sweep(bench);
            }
            bench.wait(Duration::from_secs(20));
            assert!(round < 199, "the job does not end: {:?}", bench.job().counts());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_happens_no_task_is_committed_twice(
        tasks in 1u32..6,
        steps in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..120),
    ) {
        let mut bench = Bench::running(tasks);
        let mut world = World::default();
        for (choice, seed) in steps {
            world.step(&mut bench, choice, seed);
            world.check(&bench);
        }
        world.finish(&mut bench);
        world.check(&bench);
        let report = bench.job().report().expect("an ended job has a report").clone();
        prop_assert_eq!(report.rows_read, report.rows_loaded + report.rows_filtered + report.rows_unselected);
        let committed = world.labels.values().filter(|txn| **txn == Txn::Committed).count() as u64;
        prop_assert_eq!(report.transactions, committed);
        if report.state == JobState::Succeeded {
            prop_assert_eq!(committed, u64::from(tasks));
        }
    }
}

#[test]
fn equal_histories_give_equal_states() {
    use std::hash::DefaultHasher;
    let hash = |state: &State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let (mut one, mut two) = (Bench::running(3), Bench::running(3));
    assert_eq!(hash(&one.state), hash(&two.state));
    let attempt = one.one("w1");
    assert_ne!(hash(&one.state), hash(&two.state));
    two.one("w1");
    // What is only shown does not tell states apart.
    let progress = Progress { rows_read: 5, ..Progress::default() };
    one.ask(|ticket| Event::Heartbeat { ticket, worker: info("w1"), tasks: vec![(attempt, progress)] });
    two.heartbeat("w1", &[attempt], 0);
    assert_eq!(hash(&one.state), hash(&two.state));
}

//! `starlift check`: everything that a job needs is tried from here, and from every worker when asked for, beside the
//! checks of its plan. Workers are reached through the calls that they make: the order goes out with an answer, what they
//! found comes with a call of its own. Changes nothing, keeps nothing; a change of leader ends it without an answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starlift_common::check::{Backends, Finding, Findings, Scope, Trial};
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::ids::{JobId, WorkerId};
use starlift_common::job::JobSpec;
use starlift_common::problem::{Code, Mend, Problem};
use starlift_common::wire;
use starlift_proto as pb;
use starlift_remote::check;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::clock::Millis;
use crate::driver::{Handle, Stopped};
use crate::plan::Plan;
use crate::state::Event;

mod round;

use round::{Asked, Round};

/// How long one place may take for all that it tries.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the workers are waited for where nothing else is said: one that holds tasks hears of the order with its next
/// heartbeat.
const WORKERS_PATIENCE: Duration = Duration::from_secs(45);

/// Longest wait that may be asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Checks at once. Each makes every worker connect to everything.
const AT_ONCE: usize = 4;

/// How often the clock is looked at while nobody answers.
const TICK: Duration = Duration::from_millis(200);

/// Workers that a message names.
const NAMED: usize = 3;

/// Tries everything from here. `warnings`: those of the script.
pub async fn check_job(spec: &JobSpec, warnings: Vec<String>, datasources: &Datasources) -> pb::CheckReply {
    let here = look(spec, datasources).await;
    here.reply("here", warnings, BTreeMap::new(), Millis::default())
}

/// What was seen from one place that plans as well.
struct Here {
    scope: Scope,
    findings: Findings,
    backends: Backends,
    /// `None`: it is about no job.
    plan: Option<Result<Plan, Vec<Problem>>>,
    trial: Option<Trial>,
}

async fn look_at_datasource(datasource: &Datasource, datasources: &Datasources) -> Here {
    let scope = Scope::of_datasource(datasource, PATIENCE);
    let (findings, backends) = Box::pin(check::addresses(&scope, datasources)).await;
    Here { scope, findings, backends, plan: None, trial: None }
}

async fn look(spec: &JobSpec, datasources: &Datasources) -> Here {
    let job = JobId::from_parts(fastrand::u64(..1 << 48), fastrand::u128(..1 << 80));
    let scope = Scope::of(spec, PATIENCE);
    let planning = Box::pin(crate::plan_as(spec, job, datasources));
    let addresses = Box::pin(check::addresses(&scope, datasources));
    let (plan, (mut findings, backends)) = tokio::join!(planning, addresses);
    // A table that the job is to create takes no row yet.
    let is_missing = plan.as_ref().is_ok_and(|plan| plan.pre_sql.len() > spec.target.pre_sql.len());
    if is_missing {
        findings
            .notes
            .push("the target table is not there yet and the job creates it: no row was tried".into());
    }
    let trial = plan
        .as_ref()
        .ok()
        .filter(|_| !is_missing)
        .and_then(|plan| Some(Trial { read: plan.shards.first()?.clone(), load: plan.load.clone() }));
    if let Some(trial) = &trial {
        let row = Box::pin(check::row(trial, &findings, datasources, job, PATIENCE)).await;
        findings.list.extend(row);
    }
    Here { scope, findings, backends, plan: Some(plan), trial }
}

impl Here {
    fn reply(
        self,
        id: &str,
        mut warnings: Vec<String>,
        workers: BTreeMap<WorkerId, Asked>,
        now: Millis,
    ) -> pb::CheckReply {
        let mut places = vec![(String::new(), &self.findings)];
        if id != "here" {
            places[0].0 = format!("the {id}");
        }
        let answered = workers.iter().filter_map(|(id, asked)| Some((id, asked.findings.as_ref()?)));
        places.extend(answered.map(|(id, findings)| (format!("worker {id}"), findings)));
        let of_plan = self.plan.as_ref().and_then(|plan| plan.as_ref().err());
        let problems = problems(&places, of_plan.map_or(&[], Vec::as_slice));
        warnings.extend(row_to_be_filtered(&places));
        for (id, asked) in workers.iter().filter(|(_, asked)| asked.findings.is_none()) {
            warnings.push(format!(
                "worker {id} did not answer (version {}, last heard {} s ago): it is cut off, busy, or too old to know checks",
                asked.version,
                now.since(asked.heard).as_secs()
            ));
        }
        if let Some(Ok(plan)) = &self.plan {
            warnings.extend(plan.warnings.iter().cloned());
        }
        let mut checkers = vec![pb::Checker {
            id: id.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            answered: true,
            findings: self.findings.list.iter().map(Into::into).collect(),
            notes: self.findings.notes.clone(),
            ..Default::default()
        }];
        checkers.extend(workers.into_iter().map(|(id, asked)| checker(&id, asked, now)));
        let problems: Vec<pb::Problem> = problems.iter().map(Into::into).collect();
        pb::CheckReply {
            checkers,
            warnings,
            error: problems.first().cloned(),
            problems,
            plan: self.plan.and_then(Result::ok).map(|plan| pb::CheckedPlan {
                tasks: u32::try_from(plan.tasks.len()).unwrap_or(u32::MAX),
                rows_estimate: plan.rows_estimate(),
            }),
        }
    }
}

fn checker(id: &WorkerId, asked: Asked, now: Millis) -> pb::Checker {
    let answered = asked.findings.is_some();
    let findings = asked.findings.unwrap_or_default();
    pb::Checker {
        id: id.to_string(),
        host: asked.host,
        version: asked.version,
        answered,
        seconds_since_heard: now.since(asked.heard).as_secs_f64(),
        findings: findings.list.iter().map(Into::into).collect(),
        notes: findings.notes,
    }
}

/// Everything to be mended, outside matters first. What several places found alike is told once; what the plan says of an
/// address that was found closed would be told twice.
fn problems(places: &[(String, &Findings)], of_plan: &[Problem]) -> Vec<Problem> {
    let mut found: Vec<(&Problem, Vec<&str>)> = Vec::new();
    for (index, (place, findings)) in places.iter().enumerate() {
        for problem in findings.list.iter().filter_map(|finding| finding.problem.as_ref()) {
            let told_by_plan = index == 0 && problem.code.mend() == Mend::Input;
            if told_by_plan && of_plan.iter().any(|planned| planned.code == problem.code) {
                continue;
            }
            match found.iter_mut().find(|(known, _)| *known == problem) {
                Some((_, by)) => by.push(place),
                None => found.push((problem, vec![place])),
            }
        }
    }
    let is_closed = !found.is_empty();
    let mut problems: Vec<Problem> = found.into_iter().map(|(problem, by)| told_by(problem, &by)).collect();
    problems
        .extend(of_plan.iter().filter(|problem| !is_closed || problem.code.mend() != Mend::Outside).cloned());
    // What is mended outside hides the rest; the first problem decides the exit code.
    problems.sort_by_key(|problem| problem.code.mend() != Mend::Outside);
    problems
}

/// The problem with the names of those who met it in front.
fn told_by(problem: &Problem, by: &[&str]) -> Problem {
    let mut names: Vec<&str> = by.iter().copied().filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return problem.clone();
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut who = names.join(", ");
    if more > 0 {
        who.push_str(&format!(" and {more} more"));
    }
    let parted = if problem.message.starts_with("cannot ") { " " } else { ": " };
    Problem { message: format!("{who}{parted}{}", problem.message), ..problem.clone() }
}

fn row_to_be_filtered(places: &[(String, &Findings)]) -> Option<String> {
    let is_filtered = |finding: &&Finding| finding.told == check::WOULD_BE_FILTERED;
    let found = places.iter().flat_map(|(_, findings)| &findings.list).find(is_filtered)?;
    Some(format!("{}: the first row of the source was {}", found.address, found.told))
}

/// Why a check gives no document.
#[derive(Debug)]
pub(crate) enum NotChecked {
    Refused(Problem),
    /// Whoever leads now is to be asked.
    Stopped,
}

impl From<Stopped> for NotChecked {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

/// The checks under way. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Checks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    open: Mutex<BTreeMap<String, Open>>,
    answered: Notify,
}

struct Open {
    round: Round,
    order: pb::CheckOrder,
}

/// A round that is closed when nobody waits for it any more.
struct Waiting<'a> {
    checks: &'a Checks,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.checks.open().remove(&self.id);
    }
}

impl Checks {
    /// The orders that go out with the answer to a call of this worker.
    pub(crate) fn orders_for(&self, worker: &WorkerId, now: Millis) -> Vec<pb::CheckOrder> {
        let mut open = self.open();
        let due =
            open.values_mut().filter_map(|open| open.round.tells(worker, now).then(|| open.order.clone()));
        due.collect()
    }

    /// Takes a worker's answer; nothing happens when nobody waits for it any more.
    pub(crate) fn answered(&self, report: pb::ReportCheckRequest) {
        let worker = WorkerId(report.worker_id.as_str().into());
        if let Some(open) = self.open().get_mut(&report.check_id) {
            open.round.answered(&worker, wire::findings(report));
        }
        self.shared.answered.notify_waiters();
    }

    /// Tries everything from here and from every worker; `wait`: for the workers, zero for the usual time.
    pub(crate) async fn run(
        &self,
        script: &str,
        wait: Duration,
        handle: &Handle,
        datasources: &Datasources,
    ) -> Result<pb::CheckReply, NotChecked> {
        let parsed = starlift_common::script::parse(script);
        let parsed = parsed.map_err(|problems| NotChecked::Refused(crate::state::joined(&problems)))?;
        let here = look(&parsed.spec, datasources).await;
        let workers = self.ask_workers(&here, wait, handle).await?;
        Ok(here.reply("coordinator", parsed.warnings, workers, handle.deadline(Duration::ZERO)))
    }

    /// The same for one data source and no job.
    pub(crate) async fn run_datasource(
        &self,
        name: &str,
        wait: Duration,
        handle: &Handle,
        datasources: &Datasources,
    ) -> Result<pb::CheckReply, NotChecked> {
        let datasource = datasources.find(name, "").map_err(NotChecked::Refused)?;
        let here = look_at_datasource(datasource, datasources).await;
        let workers = self.ask_workers(&here, wait, handle).await?;
        Ok(here.reply("coordinator", Vec::new(), workers, handle.deadline(Duration::ZERO)))
    }

    async fn ask_workers(
        &self,
        here: &Here,
        wait: Duration,
        handle: &Handle,
    ) -> Result<BTreeMap<WorkerId, Asked>, NotChecked> {
        let mut scope = here.scope.clone();
        scope.backends = Some(here.backends.clone()).filter(|known| !known.nodes.is_empty());
        let id = format!("{:016x}", fastrand::u64(..));
        let order = wire::check_order(&id, &scope, here.trial.as_ref());
        let workers = handle
            .read(|state, _| {
                let asked = |worker: &crate::state::Worker| {
                    let info = &worker.info;
                    (info.id.clone(), Asked::new(info.host.clone(), info.version.clone(), worker.heard))
                };
                state.workers().map(asked).collect::<Vec<_>>()
            })
            .await?;
        let waiting = {
            let mut open = self.open();
            if open.len() >= AT_ONCE {
                let problem = Problem::new(Code::WrongState, format!("{AT_ONCE} checks run already"));
                return Err(NotChecked::Refused(problem.hint("try again in a minute")));
            }
            let wait = if wait.is_zero() { WORKERS_PATIENCE } else { wait.min(LONGEST_WAIT) };
            let round = Round::begin(workers, handle.deadline(Duration::ZERO), wait);
            open.insert(id.clone(), Open { round, order });
            Waiting { checks: self, id }
        };
        // Those who wait for work are to call again, and get the order with the answer.
        handle.tell(Event::Recall).await?;
        loop {
            let answered = self.shared.answered.notified();
            let now = handle.deadline(Duration::ZERO);
            let is_over = self.open().get(&waiting.id).is_none_or(|open| open.round.is_over(now));
            if is_over {
                break;
            }
            tokio::select! {
                () = answered => {}
                () = sleep(TICK) => {}
            }
        }
        let closed = self.open().remove(&waiting.id);
        Ok(closed.map(|open| open.round.close()).unwrap_or_default())
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        // Whatever a panicking holder left behind ends with its round.
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use starlift_common::check::{Outcome, Part};

    use super::*;

    fn found(problem: Problem) -> Findings {
        let finding = Finding {
            part: Part::Backend,
            datasource: "target".into(),
            address: "be:8040".into(),
            via: String::new(),
            outcome: Outcome::Refused,
            took: Duration::ZERO,
            told: String::new(),
            problem: Some(problem),
        };
        Findings { list: vec![finding], notes: Vec::new() }
    }

    #[test]
    fn what_many_workers_met_is_told_once_with_their_names() {
        let closed =
            found(Problem::new(Code::BackendUnreachable, "cannot reach BE be:8040 (redirect from FE)"));
        let places: Vec<(String, &Findings)> =
            (1..=5).map(|number| (format!("worker w{number}"), &closed)).collect();
        let told = problems(&places, &[]);
        assert_eq!(told.len(), 1);
        assert_eq!(
            told[0].message,
            "worker w1, worker w2, worker w3 and 2 more cannot reach BE be:8040 (redirect from FE)"
        );
        assert_eq!(
            told_by(&told[0], &["worker w9"]).message.split_once(": ").map(|(who, _)| who),
            Some("worker w9")
        );
    }

    #[test]
    fn the_plan_does_not_repeat_what_the_addresses_say() {
        let closed = found(Problem::new(Code::ConnectFailed, "cannot reach FE fe:8030"));
        let places = [(String::new(), &closed)];
        let of_plan = [
            Problem::new(Code::ConnectFailed, "cannot connect to fe:8030"),
            Problem::new(Code::UnknownColumn, "no column \"naem\" in dw.t"),
        ];
        let told: Vec<Code> = problems(&places, &of_plan).iter().map(|problem| problem.code).collect();
        assert_eq!(told, [Code::ConnectFailed, Code::UnknownColumn]);
        let open = Findings::default();
        assert_eq!(problems(&[(String::new(), &open)], &of_plan).len(), 2);
    }

    #[test]
    fn an_order_goes_to_those_asked_and_their_answers_are_kept() {
        let checks = Checks::default();
        let worker = WorkerId("w1".into());
        let asked = Asked::new("node".into(), "0.1.0".into(), Millis(0));
        let round = Round::begin([(worker.clone(), asked)], Millis(0), WORKERS_PATIENCE);
        let order = pb::CheckOrder { check_id: "c".into(), ..Default::default() };
        checks.open().insert("c".into(), Open { round, order });
        assert_eq!(checks.orders_for(&worker, Millis(1)).len(), 1);
        assert!(checks.orders_for(&WorkerId("w2".into()), Millis(1)).is_empty());
        let report = |check: &str| pb::ReportCheckRequest {
            worker_id: "w1".into(),
            check_id: check.into(),
            ..Default::default()
        };
        checks.answered(report("another"));
        assert!(!checks.open()["c"].round.is_over(Millis(2)));
        checks.answered(report("c"));
        assert!(checks.open()["c"].round.is_over(Millis(2)));
    }
}

//! Tries everything that a job has to reach, from here: query ports, FEs, the BEs that they redirect to, and one row all
//! the way. Takes the addresses in the order and through the address map as the product does, changes nothing, and says of
//! every failure which line mends it. The caller, the coordinator and every worker run the same code, each with its own
//! data sources.

use std::time::Duration;

use starlift_common::check::{
    Backends, Finding, Findings, Outcome, Part, Scope, SourceScope, TargetScope, Trial,
};
use starlift_common::datasource::Datasources;
use starlift_common::ids::JobId;
use starlift_common::job::{LoadMode, LoadSpec};
use starlift_common::problem::{Code, Problem};
use tokio::time::{Instant, timeout};

mod load;
mod query;
mod reach;
mod right;

pub use right::Right;

use crate::trial::{self, PACKED_COPIES};

/// How long one step may take: a connection, a login, a question.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told of a row that StarRocks counted and would not have written.
pub const WOULD_BE_FILTERED: &str = "understood and rolled back, but StarRocks would filter it";

/// Addresses tried at once.
const AT_ONCE: usize = 32;

/// Tries every address of the scope. Also says which BEs there are, for others to try.
pub async fn addresses(scope: &Scope, datasources: &Datasources) -> (Findings, Backends) {
    let sources =
        futures_util::future::join_all(scope.sources.iter().map(|source| sources(source, datasources)));
    let target = async {
        match &scope.target {
            Some(named) => target(named, scope.backends.as_ref(), datasources).await,
            None => Default::default(),
        }
    };
    let (sources, (target, backends)) = tokio::join!(sources, target);
    let mut findings = Findings { list: sources.into_iter().flatten().collect(), notes: Vec::new() };
    findings.list.extend(target.list);
    findings.notes.extend(target.notes);
    (findings, backends)
}

async fn sources(scope: &SourceScope, datasources: &Datasources) -> Vec<Finding> {
    match datasources.find(&scope.datasource, "") {
        Ok(datasource) => query::source(scope, datasource).await,
        Err(problem) => vec![unknown(Part::Source, &scope.datasource, problem)],
    }
}

async fn target(
    scope: &TargetScope,
    backends: Option<&Backends>,
    datasources: &Datasources,
) -> (Findings, Backends) {
    let datasource = match datasources.find(&scope.datasource, "") {
        Ok(datasource) => datasource,
        Err(problem) => {
            let list = vec![unknown(Part::Target, &scope.datasource, problem)];
            return (Findings { list, notes: Vec::new() }, Backends::default());
        }
    };
    let wants_list = backends.is_none();
    let ((mut list, listed), (frontends, met)) = tokio::join!(
        query::target(scope, datasource, wants_list),
        load::frontends(scope, datasource, wants_list)
    );
    list.extend(frontends);
    let known = backends.cloned().or(listed).unwrap_or_default();
    let backends = load::joined(known, &met);
    list.extend(load::backends(&backends, datasource).await);
    let mut notes = Vec::new();
    if !backends.complete && !backends.nodes.is_empty() {
        notes.push(format!(
            "user {} may not list the BEs of {}; those shown are the ones that the FE redirected to, and there may be more",
            datasource.username, datasource.name
        ));
    }
    (Findings { list, notes }, backends)
}

/// A data source that the file here does not name.
fn unknown(part: Part, name: &str, mut problem: Problem) -> Finding {
    problem.hint = format!("add [{name}] to the data source file there; {}", problem.hint);
    Finding {
        part,
        datasource: name.to_owned(),
        address: String::new(),
        via: String::new(),
        outcome: Outcome::Failed,
        took: Duration::ZERO,
        told: String::new(),
        problem: Some(problem),
    }
}

/// Loads one row in a transaction that is rolled back, and a few packed ones where the job packs its bodies. `findings` of
/// the addresses say whether there is a way at all.
pub async fn row(
    trial: &Trial,
    findings: &Findings,
    datasources: &Datasources,
    job: JobId,
    patience: Duration,
) -> Vec<Finding> {
    let packed = trial.load.compression.is_some().then_some(Part::PackedRow);
    let parts: Vec<Part> = [Some(Part::Row), packed].into_iter().flatten().collect();
    let not_tried = |why: &str| {
        let mut findings: Vec<Finding> = parts.iter().map(|part| of_row(*part, &trial.load)).collect();
        for finding in &mut findings {
            finding.told = why.to_owned();
        }
        findings
    };
    if trial.load.mode == LoadMode::Plain {
        return not_tried("the server has no transactions that could be rolled back");
    }
    let is_open = |part: Part| {
        findings.list.iter().any(|found| found.part == part && found.outcome == Outcome::Reached)
    };
    if ![Part::Source, Part::Frontend, Part::Backend].into_iter().all(is_open) {
        return not_tried("the way is not open");
    }
    let began = Instant::now();
    let row = timeout(patience, trial::first_row(&trial.read, datasources)).await;
    let row = match row.unwrap_or_else(|_| Err(too_slow(&trial.read.datasource))) {
        Ok(Some(row)) => row,
        Ok(None) => return not_tried("the source holds no row"),
        Err(problem) => {
            return vec![Finding {
                outcome: outcome_of(&problem),
                problem: Some(problem),
                ..of_row(Part::Row, &trial.load)
            }];
        }
    };
    let datasource = match datasources.find(&trial.load.datasource, "") {
        Ok(datasource) => datasource,
        Err(problem) => return vec![unknown(Part::Row, &trial.load.datasource, problem)],
    };
    let mut found = Vec::new();
    for part in parts {
        let (load, copies) = match part {
            Part::PackedRow => (trial.load.clone(), PACKED_COPIES),
            _ => (LoadSpec { compression: None, ..trial.load.clone() }, 1),
        };
        let start = Instant::now();
        let left = patience.saturating_sub(began.elapsed());
        let tried = timeout(left, trial::load_and_roll_back(&load, datasource, job, &row, copies)).await;
        let mut finding = of_row(part, &load);
        finding.took = start.elapsed();
        match tried.unwrap_or_else(|_| Err(too_slow(&load.datasource))) {
            Ok(counted) => {
                finding.outcome = Outcome::Reached;
                finding.via = counted.backend;
                finding.told = match counted.filtered {
                    0 => "loaded and rolled back".into(),
                    _ => WOULD_BE_FILTERED.into(),
                };
            }
            Err(problem) => {
                finding.outcome = outcome_of(&problem);
                finding.problem = Some(problem);
            }
        }
        found.push(finding);
    }
    found
}

fn of_row(part: Part, load: &LoadSpec) -> Finding {
    Finding {
        part,
        datasource: load.datasource.clone(),
        address: format!("{}.{}", load.database, load.table),
        via: String::new(),
        outcome: Outcome::NotTried,
        took: Duration::ZERO,
        told: String::new(),
        problem: None,
    }
}

fn too_slow(datasource: &str) -> Problem {
    Problem::new(Code::ConnectFailed, format!("data source {datasource} did not answer in time"))
        .hint("see whether it is under load, and try again")
}

/// The word for what a problem is about, where nothing nearer is known.
fn outcome_of(problem: &Problem) -> Outcome {
    match problem.code {
        Code::LoginFailed => Outcome::LoginRefused,
        Code::NoPrivilege => Outcome::NoGrant,
        _ => Outcome::Failed,
    }
}

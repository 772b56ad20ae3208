//! Check orders: every address of a job, tried from where this worker runs with its own data sources. Beside all tasks, and
//! without any influence on them.

use std::collections::BTreeSet;
use std::time::Duration;

use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::JobId;
use starlift_common::wire;
use starlift_proto as pb;
use starlift_remote::check;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::coordinators::Coordinators;

/// Orders carried out at once; further ones come again.
const AT_ONCE: usize = 4;
/// How long the answer may wait for its own answer.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);
/// How often the answer is sent when nobody takes it.
const REPORTS_MOST: u32 = 3;
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// The orders under way. Dropped, they end.
pub(crate) struct Checks {
    datasources: LiveDatasources,
    coordinators: Coordinators,
    running: JoinSet<String>,
    ids: BTreeSet<String>,
}

impl Checks {
    pub(crate) fn new(datasources: LiveDatasources, coordinators: Coordinators) -> Self {
        Self { datasources, coordinators, running: JoinSet::new(), ids: BTreeSet::new() }
    }

    /// Starts what is not under way yet: an order comes again as long as it is not answered.
    pub(crate) fn start(&mut self, worker_id: &str, orders: Vec<pb::CheckOrder>) {
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(id) => drop(self.ids.remove(&id)),
                Err(error) => warn!(%error, "a check ended in an unforeseen way"),
            }
        }
        for order in orders {
            if self.running.len() >= AT_ONCE || !self.ids.insert(order.check_id.clone()) {
                continue;
            }
            let (datasources, coordinators) = (self.datasources.clone(), self.coordinators.clone());
            self.running.spawn(carry_out(order, worker_id.to_owned(), datasources, coordinators));
        }
    }
}

async fn carry_out(
    order: pb::CheckOrder,
    worker_id: String,
    datasources: LiveDatasources,
    coordinators: Coordinators,
) -> String {
    let id = order.check_id.clone();
    let (scope, trial) = match wire::check_scope(order) {
        Ok(order) => order,
        Err(error) => {
            warn!(%error, "a check order is unreadable");
            return id;
        }
    };
    let datasources = datasources.now();
    info!(check_id = %id, "checking what a job needs");
    let (mut findings, _) = Box::pin(check::addresses(&scope, &datasources)).await;
    if let Some(trial) = trial {
        let job = JobId::from_parts(fastrand::u64(..1 << 48), fastrand::u128(..1 << 80));
        let row = check::row(&trial, &findings, &datasources, job, scope.patience);
        let row = Box::pin(row).await;
        findings.list.extend(row);
    }
    let report = wire::check_report(&worker_id, &id, &findings);
    for _ in 0..REPORTS_MOST {
        match coordinators.report_check(report.clone(), REPORT_PATIENCE).await {
            Ok(_) => break,
            Err(error) => warn!(check_id = %id, %error, "the check's findings were not taken"),
        }
        sleep(REPORT_PAUSE).await;
    }
    id
}

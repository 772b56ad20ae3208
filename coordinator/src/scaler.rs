//! What KEDA asks to know how many workers there should be: unfinished tasks, over the tasks that one worker is to have.
//! A port of its own, which tells these numbers and nothing else, because KEDA sends no token. Any coordinator answers:
//! one that follows asks the leader.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use starlift_common::job::JobState;
use starlift_proto as pb;
use starlift_proto::admin_service_client::AdminServiceClient;
use starlift_proto::externalscaler::external_scaler_server::ExternalScaler;
use starlift_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use tonic::{Request, Response, Status};

use crate::leader::Desk;
use crate::proxy::Proxy;
use crate::report;

/// The only metric there is.
const METRIC: &str = "starlift_unfinished_tasks";
/// The key in a trigger's metadata that says how many tasks one worker is to have.
const TASKS_PER_WORKER: &str = "tasksPerWorker";
const DEFAULT_TASKS_PER_WORKER: f64 = 10.0;
/// How often a stream looks whether there is anything to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LEADER_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Scaler {
    desk: Desk,
    proxy: Proxy,
}

impl Scaler {
    pub(crate) fn new(desk: Desk, proxy: Proxy) -> Self {
        Self { desk, proxy }
    }

    async fn unfinished(&self) -> Result<u64, Status> {
        let jobs = match self.proxy.link() {
            Some(link) => {
                let mut request = Request::new(pb::ListJobsRequest {});
                request.set_timeout(LEADER_TIMEOUT);
                AdminServiceClient::new(link).list_jobs(request).await?.into_inner().jobs
            }
            None => {
                let handle = self.desk.handle().map_err(|nobody| Status::unavailable(nobody.to_string()))?;
                let jobs = handle.read(report::summaries).await;
                jobs.map_err(|stopped| Status::unavailable(stopped.to_string()))?
            }
        };
        Ok(jobs.iter().map(unfinished_tasks).sum())
    }
}

/// Tasks that workers could take now or later, if nobody does anything about the job. A job that is not planned yet, or
/// runs its preSql, counts as one task: the first worker is there when the tasks are.
fn unfinished_tasks(job: &pb::JobSummary) -> u64 {
    let is = |state: JobState| job.state == state.as_str();
    if is(JobState::Pending) || is(JobState::Planning) || is(JobState::PreSql) {
        return u64::from(job.tasks_total.saturating_sub(job.tasks_done)).max(1);
    }
    if is(JobState::Running) {
        return job.tasks_total.saturating_sub(job.tasks_done).into();
    }
    0
}

/// How many tasks one worker is to have, as the trigger says.
fn tasks_per_worker(scaled: &ScaledObjectRef) -> Result<f64, Status> {
    let Some(text) = scaled.scaler_metadata.get(TASKS_PER_WORKER) else {
        return Ok(DEFAULT_TASKS_PER_WORKER);
    };
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| {
        let message = format!("{TASKS_PER_WORKER} is `{text}`; write a number above 0");
        Status::invalid_argument(message)
    })
}

type Actives = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = Actives;

    async fn is_active(&self, _: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        Ok(Response::new(IsActiveResponse { result: self.unfinished().await? > 0 }))
    }

    /// Tells at once, and then whenever it has changed.
    async fn stream_is_active(&self, _: Request<ScaledObjectRef>) -> Result<Response<Actives>, Status> {
        let told = (self.clone(), None);
        let changes = stream::unfold(told, |(scaler, mut last)| async move {
            loop {
                let result = match scaler.unfinished().await {
                    Ok(unfinished) => unfinished > 0,
                    Err(status) => return Some((Err(status), (scaler, last))),
                };
                if last.replace(result) != Some(result) {
                    return Some((Ok(IsActiveResponse { result }), (scaler, last)));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let target = tasks_per_worker(request.get_ref())?;
        #[expect(clippy::cast_possible_truncation, reason = "rounded, and saturating")]
        let target_size = target.ceil() as i64;
        let spec = MetricSpec { metric_name: METRIC.into(), target_size, target_size_float: target };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let name = request.into_inner().metric_name;
        if !name.is_empty() && !name.ends_with(METRIC) {
            return Err(Status::not_found(format!("there is no metric {name}; it is called {METRIC}")));
        }
        let unfinished = self.unfinished().await?;
        let value = MetricValue {
            metric_name: METRIC.into(),
            metric_value: i64::try_from(unfinished).unwrap_or(i64::MAX),
            #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 tasks")]
            metric_value_float: unfinished as f64,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn job(state: &str, tasks_total: u32, tasks_done: u32) -> pb::JobSummary {
        pb::JobSummary { state: state.into(), tasks_total, tasks_done, ..pb::JobSummary::default() }
    }

    #[test]
    fn what_workers_could_do_is_counted() {
        for (state, total, done, unfinished) in [
            ("PENDING", 0, 0, 1),
            ("PRE_SQL", 40, 0, 40),
            ("RUNNING", 40, 13, 27),
            ("PAUSED", 40, 13, 0),
            ("COMMITTING", 40, 13, 0),
            ("SUCCEEDED", 40, 40, 0),
            ("FAILED", 40, 13, 0),
        ] {
            assert_eq!(unfinished_tasks(&job(state, total, done)), unfinished, "{state}");
        }
    }

    #[test]
    fn a_trigger_says_how_many_tasks_a_worker_has() {
        let of = |text: Option<&str>| {
            let metadata = text.map(|text| (TASKS_PER_WORKER.to_owned(), text.to_owned()));
            let scaler_metadata: HashMap<String, String> = metadata.into_iter().collect();
            tasks_per_worker(&ScaledObjectRef { scaler_metadata, ..ScaledObjectRef::default() })
        };
        assert_eq!(of(None).ok(), Some(10.0));
        assert_eq!(of(Some("2.5")).ok(), Some(2.5));
        for bad in ["0", "-1", "many", "NaN", "inf"] {
            assert!(of(Some(bad)).unwrap_err().message().contains(TASKS_PER_WORKER), "{bad}");
        }
    }
}

//! The coordinators as a worker reaches them: calls go to the one that answered last, and on to the next one when it
//! does not. Keeps no state but that choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use starlift_proto::worker_service_client::WorkerServiceClient;
use starlift_proto::{
    AcquireReply, AcquireRequest, HeartbeatReply, HeartbeatRequest, ReportReply, ReportRequest,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A silent peer is noticed after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Grants carry the specs of wide tables.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// An address that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is no coordinator address; write http://host:port")]
pub struct InvalidAddress {
    address: String,
    #[source]
    source: tonic::transport::Error,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinators {
    clients: Arc<[WorkerServiceClient<Channel>]>,
    current: Arc<AtomicUsize>,
}

impl Coordinators {
    /// Connects to nobody yet.
    pub(crate) fn new(addresses: &[String]) -> Result<Self, InvalidAddress> {
        let client = |address: &String| {
            let invalid = |source| InvalidAddress { address: address.clone(), source };
            let endpoint = Endpoint::from_shared(address.clone()).map_err(invalid)?;
            let channel = endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .connect_lazy();
            Ok(WorkerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
        };
        let clients = addresses.iter().map(client).collect::<Result<_, _>>()?;
        Ok(Self { clients, current: Arc::default() })
    }

    pub(crate) async fn acquire(
        &self,
        request: AcquireRequest,
        patience: Duration,
    ) -> Result<AcquireReply, Status> {
        self.call(patience, request, async |mut client, request| client.acquire(request).await).await
    }

    pub(crate) async fn heartbeat(
        &self,
        request: HeartbeatRequest,
        patience: Duration,
    ) -> Result<HeartbeatReply, Status> {
        self.call(patience, request, async |mut client, request| client.heartbeat(request).await).await
    }

    pub(crate) async fn report(
        &self,
        request: ReportRequest,
        patience: Duration,
    ) -> Result<ReportReply, Status> {
        self.call(patience, request, async |mut client, request| client.report(request).await).await
    }

    async fn call<Q, A, F>(&self, patience: Duration, message: Q, call: F) -> Result<A, Status>
    where
        F: AsyncFnOnce(WorkerServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    {
        let index = self.current.load(Ordering::Relaxed);
        let mut request = Request::new(message);
        request.set_timeout(patience);
        let answer = match tokio::time::timeout(patience, call(self.clients[index].clone(), request)).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the coordinator did not answer in time")),
        };
        if answer.is_err() {
            let next = (index + 1) % self.clients.len();
            // Whoever failed at the same time has moved on already.
            let _moved = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }
}

//! The coordinators as a worker reaches them: calls go to the one that answered last. One that does not lead names the
//! leader, which is followed also where no flag names it; one that does not answer makes room for the next address.
//! Keeps no state but that choice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starlift_link::dial::{Dialer, InvalidAddress, Link};
use starlift_proto::worker_service_client::WorkerServiceClient;
use starlift_proto::{
    AcquireReply, AcquireRequest, HeartbeatReply, HeartbeatRequest, ReportCheckReply, ReportCheckRequest,
    ReportReply, ReportRequest, SpendReply, SpendRequest,
};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Grants carry the specs of wide tables.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Names the leader's URL in an answer of `UNAVAILABLE`; empty when it is not known.
const LEADER: &str = "starlift-leader";
/// How often one call is sent on to a leader that was named.
const REDIRECTS_MOST: u32 = 2;
/// Leaders remembered that no flag names.
const LEARNED_MOST: usize = 16;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinators {
    /// As the flags name them, in their order.
    addresses: Arc<[String]>,
    dialer: Dialer,
    clients: Arc<Mutex<HashMap<String, WorkerServiceClient<Link>>>>,
    /// The address that is asked.
    current: watch::Sender<String>,
}

impl Coordinators {
    /// Connects to nobody yet. `addresses` is not empty.
    pub(crate) fn new(addresses: &[String], dialer: Dialer) -> Result<Self, InvalidAddress> {
        let addresses: Arc<[String]> = addresses.iter().map(|address| with_scheme(address)).collect();
        let mut clients = HashMap::new();
        for address in addresses.iter() {
            clients.insert(address.clone(), connect_lazily(&dialer, address)?);
        }
        let current = watch::Sender::new(addresses.first().cloned().unwrap_or_default());
        Ok(Self { addresses, dialer, clients: Arc::new(Mutex::new(clients)), current })
    }

    pub(crate) async fn acquire(
        &self,
        request: AcquireRequest,
        patience: Duration,
    ) -> Result<AcquireReply, Status> {
        self.call(patience, request, async |mut client, request| client.acquire(request).await).await
    }

    /// With a choice of coordinators half the patience is enough: a silent one is passed over while there is still time
    /// to be heard by its successor.
    pub(crate) async fn heartbeat(
        &self,
        request: HeartbeatRequest,
        patience: Duration,
    ) -> Result<HeartbeatReply, Status> {
        let patience = if self.addresses.len() > 1 { patience / 2 } else { patience };
        self.call(patience, request, async |mut client, request| client.heartbeat(request).await).await
    }

    pub(crate) async fn report(
        &self,
        request: ReportRequest,
        patience: Duration,
    ) -> Result<ReportReply, Status> {
        self.call(patience, request, async |mut client, request| client.report(request).await).await
    }

    pub(crate) async fn spend(
        &self,
        request: SpendRequest,
        patience: Duration,
    ) -> Result<SpendReply, Status> {
        self.call(patience, request, async |mut client, request| client.spend(request).await).await
    }

    pub(crate) async fn report_check(
        &self,
        request: ReportCheckRequest,
        patience: Duration,
    ) -> Result<ReportCheckReply, Status> {
        self.call(patience, request, async |mut client, request| client.report_check(request).await).await
    }

    /// Asks the present coordinator, and the leader that it names instead of an answer.
    async fn call<Q, A, F>(&self, patience: Duration, message: Q, call: F) -> Result<A, Status>
    where
        Q: Clone,
        F: AsyncFn(WorkerServiceClient<Link>, Request<Q>) -> Result<Response<A>, Status>,
    {
        let mut redirects = 0;
        loop {
            let (address, client) = self.present()?;
            let mut request = Request::new(message.clone());
            request.set_timeout(patience);
            let answer = tokio::select! {
                answer = tokio::time::timeout(patience, call(client, request)) => match answer {
                    Ok(answer) => answer.map(Response::into_inner),
                    Err(_) => Err(Status::deadline_exceeded("the coordinator did not answer in time")),
                },
                () = self.moved_from(&address) => Err(Status::unavailable("another coordinator is asked now")),
            };
            let Err(status) = answer else { return answer };
            if matches!(status.code(), Code::Unimplemented | Code::NotFound) {
                // It is there and has said all that it has to say; another one would not know better.
                return Err(status);
            }
            let was_named = self.move_on(&address, leader_named_by(&status));
            if !was_named || redirects == REDIRECTS_MOST {
                return Err(status);
            }
            redirects += 1;
        }
    }

    fn present(&self) -> Result<(String, WorkerServiceClient<Link>), Status> {
        let address = self.current.borrow().clone();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok((address, client.clone()));
        }
        let client = connect_lazily(&self.dialer, &address);
        let client = client.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if clients.len() >= self.addresses.len() + LEARNED_MOST {
            clients.retain(|known, _| self.addresses.contains(known));
        }
        clients.insert(address.clone(), client.clone());
        Ok((address, client))
    }

    /// Ends when another call has found that this coordinator is of no use: what waits there would wait in vain.
    async fn moved_from(&self, address: &str) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let mut current = self.current.subscribe();
        let _moved = current.wait_for(|current| current != address).await;
    }

    /// `address` gave no answer. Chooses whom to ask next; says whether somebody was named.
    fn move_on(&self, address: &str, leader: Option<String>) -> bool {
        let named = leader.filter(|leader| leader != address);
        let was_named = named.is_some();
        let next = named.unwrap_or_else(|| next_after(&self.addresses, address));
        self.current.send_if_modified(|current| {
            // Whoever failed at the same time has moved on already.
            let moves = current == address && *current != next;
            if moves {
                *current = next;
            }
            moves
        });
        was_named
    }
}

fn with_scheme(address: &str) -> String {
    let address = address.trim();
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

fn connect_lazily(dialer: &Dialer, address: &str) -> Result<WorkerServiceClient<Link>, InvalidAddress> {
    let link = dialer.lazily(address, CONNECT_TIMEOUT)?;
    Ok(WorkerServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// The address after this one, from the last on to the first; the first after one that no flag names.
fn next_after(addresses: &[String], address: &str) -> String {
    let position = addresses.iter().position(|known| known == address);
    let next = position.map_or(0, |position| (position + 1) % addresses.len());
    addresses[next].clone()
}

/// The leader, as a coordinator names it that does not lead itself.
fn leader_named_by(status: &Status) -> Option<String> {
    let named = status.metadata().get(LEADER)?.to_str().ok()?;
    (!named.is_empty()).then(|| with_scheme(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinators() -> Coordinators {
        Coordinators::new(&["a:1".into(), "http://b:2".into()], Dialer::default()).unwrap()
    }

    fn following(leader: &str) -> Status {
        let mut status = Status::unavailable("another coordinator leads");
        status.metadata_mut().insert(LEADER, leader.parse().unwrap());
        status
    }

    #[tokio::test]
    async fn silent_coordinators_are_passed_over_in_turn() {
        let coordinators = coordinators();
        for address in ["http://a:1", "http://b:2", "http://a:1"] {
            assert_eq!(coordinators.present().unwrap().0, address);
            assert!(!coordinators.move_on(address, leader_named_by(&Status::unavailable("down"))));
        }
    }

    #[tokio::test]
    async fn a_named_leader_is_followed_wherever_it_is() {
        let coordinators = coordinators();
        assert!(coordinators.move_on("http://a:1", leader_named_by(&following("c:3"))));
        assert_eq!(coordinators.present().unwrap().0, "http://c:3");
        assert!(!coordinators.move_on("http://c:3", leader_named_by(&following(""))));
        assert_eq!(coordinators.present().unwrap().0, "http://a:1");
    }

    #[tokio::test]
    async fn a_coordinator_that_names_itself_is_not_asked_again_at_once() {
        let coordinators = coordinators();
        assert!(!coordinators.move_on("http://a:1", leader_named_by(&following("http://a:1"))));
        assert_eq!(coordinators.present().unwrap().0, "http://b:2");
    }

    #[tokio::test]
    async fn only_the_first_of_several_failures_moves_on() {
        let coordinators = coordinators();
        let waiting = coordinators.clone();
        let moved = tokio::spawn(async move { waiting.moved_from("http://a:1").await });
        coordinators.move_on("http://a:1", None);
        coordinators.move_on("http://a:1", None);
        assert_eq!(coordinators.present().unwrap().0, "http://b:2");
        moved.await.unwrap();
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(Coordinators::new(&["not an address".into()], Dialer::default()).is_err());
    }
}

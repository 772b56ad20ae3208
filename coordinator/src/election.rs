//! Who of several coordinators leads. With a directory: whoever has it open. With etcd: whoever made the key `leader`,
//! which hangs on a lease that its maker keeps alive. Decides nothing about jobs.
//!
//! A leader counts its term from the moment at which it *sent* the last keepalive that was answered, by its own
//! monotonic clock, and stops a fifth of the lease before etcd can give the key to another. A process that slept longer
//! finds its term over when it wakes; whatever it sent before is refused by the compare of every write.

use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, LeaseClient, PutOptions, Txn, TxnOp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::config::EtcdLocation;
use crate::leader::{Election, Leader, Role, Term};
use crate::store::StoreError;
use crate::store::etcd::{EtcdStore, Keys, answered, connect, failed};
use crate::store::file::FileStore;

/// How often a follower looks whether the leader is still there.
const POLL: Duration = Duration::from_millis(400);

/// etcd makes shorter leases as long as this.
const TTL_LEAST: Duration = Duration::from_secs(2);

/// Keepalives of one lease. One may be lost before it ends.
const KEEPALIVES_PER_TTL: u32 = 4;

/// Before a broken keepalive stream is opened again.
const KEEPALIVE_PAUSE: Duration = Duration::from_millis(100);

/// How long a leader that leaves waits for its key to be gone.
const FAREWELL: Duration = Duration::from_secs(1);

const FORMAT: u32 = 1;

/// One coordinator with a directory of its own: it always leads. A term ends only by a failed save; the next one opens
/// the file anew.
pub(crate) struct Alone {
    directory: PathBuf,
    /// Opened before anything else, so that a directory in use is told at once.
    first: Option<FileStore>,
}

impl Alone {
    pub(crate) fn new(directory: PathBuf) -> Result<Self, StoreError> {
        let first = FileStore::open(&directory)?;
        Ok(Self { directory, first: Some(first) })
    }
}

impl Election for Alone {
    type Store = FileStore;

    async fn campaign(&mut self, _seen: impl Fn(Role) + Send) -> Result<Term<FileStore>, StoreError> {
        let store = match self.first.take() {
            Some(first) => first,
            None => FileStore::open(&self.directory)?,
        };
        Ok(Term { store, ends: watch::channel(None).1 })
    }

    async fn resign(&mut self) {}
}

/// The value of the key `leader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// URL of its gRPC side.
    advertise: String,
    /// URL of its HTTP side; empty when it serves none, or is of a version that does not say.
    #[serde(default)]
    advertise_http: String,
}

/// Coordinators that share an etcd cluster.
pub(crate) struct Ballot {
    location: EtcdLocation,
    keys: Keys,
    /// The member that is asked; after an error the next one.
    member: usize,
    client: Option<Client>,
    /// Where this coordinator is reached.
    own: Leader,
    ttl: Duration,
    /// Ours, as long as it is not known to be gone.
    lease: Option<i64>,
    keeper: Option<AbortOnDropHandle<()>>,
}

impl Ballot {
    /// Connects to nobody yet. `own` is where this coordinator is reached. `ttl` counts in whole seconds, at least [`TTL_LEAST`].
    pub(crate) fn new(location: EtcdLocation, own: Leader, ttl: Duration) -> Self {
        let keys = Keys::new(&location);
        let ttl = Duration::from_secs(ttl.as_secs()).max(TTL_LEAST);
        Self { location, keys, member: 0, client: None, own, ttl, lease: None, keeper: None }
    }

    async fn client(&mut self) -> Result<Client, StoreError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = connect(&self.location.endpoints[self.member], &self.location.access).await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Ends the lease of an earlier term, and with it the key.
    async fn revoke(&mut self) -> Result<(), StoreError> {
        self.keeper = None;
        let Some(lease) = self.lease else { return Ok(()) };
        let mut client = self.client().await?;
        match answered("end a term", client.lease_revoke(lease)).await {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => self.lease = None,
        }
        Ok(())
    }

    async fn look_and_try(&mut self, seen: impl Fn(Role) + Send) -> Result<Term<EtcdStore>, StoreError> {
        self.revoke().await?;
        let mut client = self.client().await?;
        loop {
            let answer = answered("tell who leads", client.get(self.keys.leader(), None)).await?;
            let Some(leader) = answer.kvs().first() else {
                seen(Role::Waiting);
                if let Some(term) = self.try_to_lead(&mut client).await? {
                    return Ok(term);
                }
                continue;
            };
            let leader: Record = serde_json::from_slice(leader.value())
                .map_err(|source| StoreError::Corrupt { key: "leader".to_owned(), source })?;
            if leader.format > FORMAT {
                return Err(StoreError::Format { found: leader.format });
            }
            let http = Some(leader.advertise_http).filter(|url| !url.is_empty());
            seen(Role::Following(Leader { grpc: leader.advertise.into(), http: http.map(Into::into) }));
            sleep(POLL).await;
        }
    }

    /// Makes the key, unless another was faster.
    async fn try_to_lead(&mut self, client: &mut Client) -> Result<Option<Term<EtcdStore>>, StoreError> {
        let sent = Instant::now();
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let lease = answered("grant a lease", client.lease_grant(seconds, None)).await?.id();
        self.lease = Some(lease);
        let (prolonged, ends) = watch::channel(Some(sent + validity(self.ttl)));
        let keeper = keep(client.lease_client(), lease, self.ttl, prolonged);
        self.keeper = Some(AbortOnDropHandle::new(tokio::spawn(keeper)));

        let advertise = self.own.grpc.to_string();
        let advertise_http = self.own.http.as_deref().unwrap_or_default().to_owned();
        let leader = Record { format: FORMAT, advertise, advertise_http };
        let value = serde_json::to_vec(&leader).expect("it holds only what JSON can hold");
        let key = self.keys.leader();
        let nobody_leads = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let lead = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let transaction = Txn::new().when([nobody_leads]).and_then([lead]);
        let answer = answered("elect a leader", client.txn(transaction)).await?;
        if !answer.succeeded() {
            self.revoke().await?;
            return Ok(None);
        }
        let term = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let store = EtcdStore::new(client, self.keys.clone(), term);
        Ok(Some(Term { store, ends }))
    }
}

impl Election for Ballot {
    type Store = EtcdStore;

    async fn campaign(&mut self, seen: impl Fn(Role) + Send) -> Result<Term<EtcdStore>, StoreError> {
        let result = self.look_and_try(seen).await;
        if result.is_err() {
            self.client = None;
            self.member = (self.member + 1) % self.location.endpoints.len();
        }
        result
    }

    async fn resign(&mut self) {
        match timeout(FAREWELL, self.revoke()).await {
            Ok(Ok(())) => {}
            // The lease ends by itself.
            Ok(Err(error)) => debug!(error = %error.problem(), "etcd was not told that the term is over"),
            Err(_) => debug!("etcd did not answer that the term is over"),
        }
    }
}

/// How long a term lasts from the moment at which an answered keepalive was sent: etcd counts from later.
fn validity(ttl: Duration) -> Duration {
    ttl - ttl / 5
}

/// Keeps the lease alive until it is gone or this future is dropped.
async fn keep(mut client: LeaseClient, lease: i64, ttl: Duration, term: watch::Sender<Option<Instant>>) {
    loop {
        match keep_by_one_stream(&mut client, lease, ttl, &term).await {
            Ok(()) => {
                term.send_replace(Some(Instant::now()));
                return;
            }
            Err(error) => debug!(error = %error.problem(), "the keepalive stream broke"),
        }
        sleep(KEEPALIVE_PAUSE).await;
    }
}

/// Ends well when etcd says that the lease is gone.
async fn keep_by_one_stream(
    client: &mut LeaseClient,
    lease: i64,
    ttl: Duration,
    term: &watch::Sender<Option<Instant>>,
) -> Result<(), StoreError> {
    const OPERATION: &str = "keep the leader's lease alive";
    let patience = validity(ttl) / 2;
    let late = |elapsed: tokio::time::error::Elapsed| StoreError::Etcd {
        operation: OPERATION,
        source: elapsed.into(),
    };
    let sent = Instant::now();
    let opened = timeout(patience, client.keep_alive(lease)).await.map_err(late)?;
    let (mut keeper, mut answers) = match opened {
        Err(etcd_client::Error::LeaseKeepAliveError(_)) => return Ok(()),
        other => other.map_err(failed(OPERATION))?,
    };
    term.send_replace(Some(sent + validity(ttl)));
    loop {
        sleep(ttl / KEEPALIVES_PER_TTL).await;
        let sent = Instant::now();
        keeper.keep_alive().await.map_err(failed(OPERATION))?;
        let answer = timeout(patience, answers.message()).await.map_err(late)?.map_err(failed(OPERATION))?;
        match answer {
            Some(answer) if answer.ttl() > 0 => {
                term.send_replace(Some(sent + validity(ttl)));
            }
            Some(_) => return Ok(()),
            None => return Err(StoreError::Etcd { operation: OPERATION, source: "the stream ended".into() }),
        }
    }
}

/// The lease is not there any more.
fn is_gone(error: &StoreError) -> bool {
    let StoreError::Etcd { source, .. } = error else { return false };
    matches!(
        source.downcast_ref::<etcd_client::Error>(),
        Some(etcd_client::Error::GRpcStatus(status)) if status.code() == tonic::Code::NotFound
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::leader::lost;
    use crate::store::{Store as _, Write};
    use crate::testing::Etcd;

    const TTL: Duration = Duration::from_secs(2);

    fn ballot(etcd: &Etcd, name: &str) -> Ballot {
        Ballot::new(etcd.location("test"), Leader::at(&format!("http://{name}:1")), TTL)
    }

    fn writes(key: &str) -> Vec<Write> {
        vec![Write { key: key.to_owned(), value: Some(b"1".to_vec()) }]
    }

    #[tokio::test]
    async fn one_leads_and_the_others_know_it_until_it_resigns() {
        let etcd = Etcd::start().await;
        let mut first = ballot(&etcd, "a");
        let term = first.campaign(|_| {}).await.unwrap();
        term.store.save(writes("k")).await.unwrap();

        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let mut second = ballot(&etcd, "b");
        let following = tokio::spawn(async move {
            let note = |role| {
                if let Role::Following(leader) = role {
                    notes.lock().unwrap().push(leader);
                }
            };
            second.campaign(note).await.unwrap()
        });
        while seen.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(&*seen.lock().unwrap()[0].grpc, "http://a:1");
        // Kept alive beyond its first lease, nobody else takes over.
        assert!(timeout(TTL * 2, lost(term.ends.clone())).await.is_err());
        assert!(!following.is_finished());

        let resigned = Instant::now();
        first.resign().await;
        let next = following.await.unwrap();
        assert!(resigned.elapsed() < TTL, "the key was not waited for");
        assert!(matches!(term.store.save(writes("late")).await, Err(StoreError::Deposed)));
        let large = (0..300).map(|number| writes(&format!("late/{number}")).remove(0)).collect();
        assert!(matches!(term.store.save(large).await, Err(StoreError::Deposed)));
        assert_eq!(next.store.load().await.unwrap(), [("k".to_owned(), b"1".to_vec())]);
        next.store.save(writes("k2")).await.unwrap();
    }

    #[tokio::test]
    async fn a_term_without_keepalives_ends_before_another_begins() {
        let etcd = Etcd::start().await;
        let mut first = ballot(&etcd, "a");
        let began = Instant::now();
        let term = first.campaign(|_| {}).await.unwrap();
        first.keeper = None; // as if the process or its network stood still
        let mut second = ballot(&etcd, "b");
        let next = tokio::spawn(async move { second.campaign(|_| {}).await.map(|_| Instant::now()) });
        lost(term.ends).await;
        let over = Instant::now();
        let took_over = next.await.unwrap().unwrap();
        assert!(over < took_over, "two led at a time");
        assert!(took_over - began < TTL + Duration::from_secs(3), "{:?}", took_over - began);
    }

    #[tokio::test]
    async fn a_revoked_lease_ends_the_term_at_once() {
        let etcd = Etcd::start().await;
        let mut first = Ballot::new(etcd.location("test"), Leader::at("http://a:1"), Duration::from_secs(8));
        let term = first.campaign(|_| {}).await.unwrap();
        let began = Instant::now();
        etcd.client().await.lease_revoke(first.lease.unwrap()).await.unwrap();
        lost(term.ends).await;
        assert!(began.elapsed() < Duration::from_secs(6), "by the answer of the next keepalive");
    }

    #[tokio::test]
    async fn a_member_that_does_not_answer_is_passed_over() {
        let etcd = Etcd::start().await;
        let mut location = etcd.location("test");
        location.endpoints.insert(0, "127.0.0.1:1".into());
        let mut ballot = Ballot::new(location, Leader::at("http://a:1"), TTL);
        assert!(matches!(ballot.campaign(|_| {}).await, Err(StoreError::Etcd { .. })));
        ballot.campaign(|_| {}).await.unwrap();
    }

    #[tokio::test]
    async fn a_coordinator_alone_opens_its_file_anew_for_every_term() {
        let directory = tempfile::tempdir().unwrap();
        let mut alone = Alone::new(directory.path().to_owned()).unwrap();
        let term = alone.campaign(|_| {}).await.unwrap();
        term.store.save(writes("k")).await.unwrap();
        drop(term); // a failed save ends a term
        let again = alone.campaign(|_| {}).await.unwrap();
        assert_eq!(again.store.load().await.unwrap().len(), 1);
        let in_use = Alone::new(directory.path().to_owned()).map(|_| ());
        assert!(matches!(in_use, Err(StoreError::Locked { .. })));
    }
}

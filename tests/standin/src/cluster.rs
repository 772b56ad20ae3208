//! What all nodes of the server share: the leader's state behind one mutex, the nodes and whether they are up, the
//! publication of committed transactions. HTTP is in `fe.rs` and `be.rs`, the rules of transactions in `transactions.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::accounts::{Account, Right};
use crate::config::Config;
use crate::context::{Contexts, ErrorLogs};
use crate::faults::{Faults, Op};
use crate::http::Port;
use crate::store::{Store, StoreError};
use crate::transactions::{Begin, BeginError, Transactions, Txn, TxnState};
use crate::view::{BackendView, ClusterView, FrontendView, TxnView};

/// Labels whose backend the leader remembers, and for how long after the last use.
const NODE_CACHE_MAX: usize = 4096;
const NODE_CACHE_TTL: Duration = Duration::from_secs(900);

/// The whole server but its sockets' code.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) requests: Requests,
    pub(crate) frontends: Vec<Frontend>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) mysql_port: OnceLock<u16>,
    leader: Mutex<Leader>,
    /// Told whenever a transaction became visible.
    published: Notify,
    clock: Clock,
    pub(crate) stop: CancellationToken,
}

/// One frontend's port.
pub(crate) struct Frontend {
    pub(crate) port: Port,
    pub(crate) up: AtomicBool,
}

/// One backend: its port, the transactions that run on it, its error logs.
pub(crate) struct Backend {
    /// `host:port` in redirects.
    pub(crate) advertised: String,
    pub(crate) port: Port,
    pub(crate) up: AtomicBool,
    pub(crate) contexts: Contexts,
    pub(crate) error_logs: ErrorLogs,
    pub(crate) streaming_load_max_mb: AtomicU64,
}

/// What only the leading frontend knows.
struct Leader {
    frontend: usize,
    txns: Transactions,
    nodes: HashMap<(String, String), RememberedNode>,
    next_backend: usize,
    /// By backend: as the frontend believes.
    alive: Vec<bool>,
    next_task: u64,
}

struct RememberedNode {
    backend: usize,
    used: Duration,
}

/// Relative and wall time of this server.
struct Clock {
    started: Instant,
    started_epoch_ms: i64,
}

/// Requests answered, by operation.
#[derive(Default)]
pub(crate) struct Requests(Mutex<BTreeMap<&'static str, u64>>);

impl Requests {
    pub(crate) fn count(&self, operation: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A refused begin, as the leader's RPC reports it to a backend.
#[derive(Debug)]
pub(crate) struct BeginRefused {
    /// Name of the internal status code.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) existing_job_status: Option<&'static str>,
}

/// What a backend sends with its begin.
pub(crate) struct BeginRpc<'a> {
    pub(crate) credentials: &'a (String, String),
    pub(crate) client_ip: String,
    pub(crate) begin: Begin<'a>,
}

impl Cluster {
    pub(crate) fn new(config: Config, store: Store, frontends: Vec<Port>, backends: Vec<Port>) -> Arc<Self> {
        let frontends =
            frontends.into_iter().map(|port| Frontend { port, up: AtomicBool::new(true) }).collect();
        let backends: Vec<Backend> = backends
            .into_iter()
            .enumerate()
            .map(|(place, port)| Backend {
                advertised: config.advertised_be.get(place).cloned().unwrap_or_else(|| port.addr.to_string()),
                port,
                up: AtomicBool::new(true),
                contexts: Contexts::default(),
                error_logs: ErrorLogs::default(),
                streaming_load_max_mb: AtomicU64::new(config.streaming_load_max_mb),
            })
            .collect();
        let leader = Leader {
            frontend: 0,
            txns: Transactions::new(config.limits()),
            nodes: HashMap::new(),
            next_backend: 0,
            alive: vec![true; backends.len()],
            next_task: 10_234,
        };
        Arc::new(Self {
            config,
            store,
            faults: Faults::default(),
            requests: Requests::default(),
            frontends,
            backends,
            mysql_port: OnceLock::new(),
            leader: Mutex::new(leader),
            published: Notify::new(),
            clock: Clock {
                started: Instant::now(),
                started_epoch_ms: jiff::Timestamp::now().as_millisecond(),
            },
            stop: CancellationToken::new(),
        })
    }

    /// Time since the start, the `now` of the state machine.
    pub(crate) fn now(&self) -> Duration {
        self.clock.started.elapsed()
    }

    pub(crate) fn is_user(&self, credentials: &(String, String)) -> bool {
        self.password_of(&credentials.0).is_some_and(|password| password == credentials.1)
    }

    fn account(&self, user: &str) -> Option<&Account> {
        self.config.accounts.iter().find(|account| account.name == user)
    }

    /// The frontend that leads.
    pub(crate) fn leader_index(&self) -> usize {
        self.lead().frontend
    }

    /// Next alive backend, round robin.
    pub(crate) fn next_backend(&self) -> Option<usize> {
        let mut leader = self.lead();
        let count = self.backends.len();
        let start = leader.next_backend;
        let found = (start..start + count).map(|place| place % count).find(|place| leader.alive[*place])?;
        leader.next_backend = found + 1;
        Some(found)
    }

    /// The backend of a new transaction, remembered under its label.
    pub(crate) fn assign_backend(&self, db: &str, label: &str) -> Option<usize> {
        let backend = self.next_backend()?;
        let now = self.now();
        let mut leader = self.lead();
        leader.nodes.retain(|_, node| now.saturating_sub(node.used) < NODE_CACHE_TTL);
        if leader.nodes.len() >= NODE_CACHE_MAX
            && let Some(oldest) =
                leader.nodes.iter().min_by_key(|(_, node)| node.used).map(|(key, _)| key.clone())
        {
            leader.nodes.remove(&oldest);
        }
        leader.nodes.insert((db.to_owned(), label.to_owned()), RememberedNode { backend, used: now });
        Some(backend)
    }

    /// The backend a load or prepare of this label goes to: the remembered one, else the transaction's coordinator.
    pub(crate) fn backend_of(&self, db: &str, label: &str) -> Option<usize> {
        let now = self.now();
        let mut leader = self.lead();
        if let Some(node) = leader.nodes.get_mut(&(db.to_owned(), label.to_owned())) {
            node.used = now;
            return Some(node.backend);
        }
        leader.txns.latest(db, label).map(|txn| txn.backend)
    }

    /// The begin RPC of a backend: checks the user, the table, the label and the limits, then registers PREPARE.
    pub(crate) fn begin(&self, rpc: &BeginRpc<'_>) -> Result<i64, BeginRefused> {
        let refused = match self.try_begin(rpc) {
            Ok(id) => return Ok(id),
            Err(refused) => refused,
        };
        if !self.config.wrapped_begin_errors {
            return Err(refused);
        }
        let mut leader = self.lead();
        leader.next_task += 1;
        let message = format!(
            "stream_load_task:{}, label:{}, error_msg:cancel stream task for exception: {}",
            leader.next_task, rpc.begin.label, refused.message
        );
        Err(BeginRefused { code: "ANALYSIS_ERROR", message, existing_job_status: None })
    }

    fn try_begin(&self, rpc: &BeginRpc<'_>) -> Result<i64, BeginRefused> {
        let analysis =
            |message: String| BeginRefused { code: "ANALYSIS_ERROR", message, existing_job_status: None };
        if !self.is_user(rpc.credentials) {
            return Err(analysis(format!("Access denied for {}@{}", rpc.credentials.0, rpc.client_ip)));
        }
        let Begin { db, table, .. } = rpc.begin;
        if !self.may(&rpc.credentials.0, Right::Insert) {
            return Err(analysis(Right::Insert.denied(Some(table))));
        }
        match self.store.table(db, table) {
            Ok(_) => {}
            Err(StoreError::UnknownDatabase(_)) => {
                return Err(analysis(format!("unknown database, database={db}")));
            }
            Err(StoreError::UnknownTable { .. }) => {
                return Err(analysis(format!("unknown table \"{db}.{table}\"")));
            }
            Err(error) => return Err(analysis(error.to_string())),
        }
        self.lead().txns.begin(self.now(), &rpc.begin).map_err(|error| match &error {
            BeginError::LabelUsed { finished, .. } => BeginRefused {
                code: "LABEL_ALREADY_EXISTS",
                message: error.to_string(),
                existing_job_status: Some(if *finished { "FINISHED" } else { "RUNNING" }),
            },
            _ => analysis(error.to_string()),
        })
    }

    /// Runs one step of the state machine.
    pub(crate) fn with_txns<R>(&self, step: impl FnOnce(&mut Transactions, Duration) -> R) -> R {
        let now = self.now();
        step(&mut self.lead().txns, now)
    }

    /// Aborts a transaction, if it can still be aborted, and drops its rows.
    pub(crate) fn abort(&self, id: i64, reason: &str) {
        if self.with_txns(|txns, now| txns.abort(now, id, reason)).is_ok() {
            self.discard(&[id]);
        }
    }

    /// Gives up the rows of transactions that will never be visible; the store removes them in its own time.
    pub(crate) fn discard(&self, ids: &[i64]) {
        for id in ids {
            if let Err(error) = self.store.discard(*id) {
                error!(txn_id = id, %error, "rows of an aborted transaction were not dropped");
            }
        }
    }

    /// Makes a COMMITTED transaction visible after the publish delay; does not wait.
    pub(crate) fn publish(self: &Arc<Self>, id: i64) {
        let cluster = self.clone();
        tokio::spawn(async move {
            let label =
                cluster.with_txns(|txns, _| txns.get(id).map(|txn| txn.label.clone())).unwrap_or_default();
            let _ = cluster.faults.strike(Op::Publish, &label).await;
            if cluster.config.publish_delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(cluster.config.publish_delay_ms)).await;
            }
            let store = cluster.store.clone();
            match tokio::task::spawn_blocking(move || store.make_visible(id)).await {
                Ok(Ok(())) => cluster.with_txns(|txns, now| txns.publish(now, id)),
                Ok(Err(error)) => error!(txn_id = id, %error, "a committed transaction stays invisible"),
                Err(error) => error!(txn_id = id, %error, "publication stopped"),
            }
            cluster.published.notify_waiters();
        });
    }

    /// Waits until the transaction is VISIBLE; false if that takes longer than `patience`.
    pub(crate) async fn wait_visible(&self, id: i64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let mut published = std::pin::pin!(self.published.notified());
            published.as_mut().enable();
            let state = self.with_txns(|txns, _| txns.get(id).map(|txn| txn.state));
            // A forgotten transaction was finished before.
            if matches!(state, None | Some(TxnState::Visible)) {
                return true;
            }
            if tokio::time::timeout_at(deadline, published).await.is_err() {
                return false;
            }
        }
    }

    /// Another frontend leads from now on, or the same one after a restart: PREPARE is lost.
    pub(crate) fn lead_by(&self, frontend: usize) {
        let lost = {
            let mut leader = self.lead();
            leader.frontend = frontend;
            leader.nodes.clear();
            leader.txns.leader_changed()
        };
        info!(frontend, lost = lost.len(), "a frontend takes the lead");
        self.discard(&lost);
    }

    /// The port closes; a leader that goes down hands over to the next frontend that is up.
    pub(crate) async fn frontend_down(&self, frontend: usize) {
        self.frontends[frontend].up.store(false, Ordering::SeqCst);
        self.frontends[frontend].port.close().await;
        let next = self.frontends.iter().position(|frontend| frontend.up.load(Ordering::SeqCst));
        if let Some(next) = next.filter(|_| self.leader_index() == frontend) {
            self.lead_by(next);
        }
    }

    /// The port opens again under its old number.
    pub(crate) async fn frontend_up(self: &Arc<Self>, frontend: usize) -> std::io::Result<()> {
        if self.frontends[frontend].up.load(Ordering::SeqCst) {
            return Ok(());
        }
        let listener = TcpListener::bind(self.frontends[frontend].port.addr).await?;
        if self.leader_index() == frontend {
            self.lead_by(frontend);
        }
        crate::fe::serve(self, frontend, listener);
        self.frontends[frontend].up.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The backend dies: its port closes, its contexts are gone, and after `notice` the frontend aborts its PREPARE
    /// transactions and sends nothing there any more.
    pub(crate) async fn backend_down(self: &Arc<Self>, backend: usize, notice: Duration) {
        self.backends[backend].up.store(false, Ordering::SeqCst);
        self.backends[backend].port.close().await;
        self.backends[backend].contexts.clear();
        if notice.is_zero() {
            self.notice_death(backend);
            return;
        }
        let cluster = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(notice).await;
            cluster.notice_death(backend);
        });
    }

    fn notice_death(&self, backend: usize) {
        if self.backends[backend].up.load(Ordering::SeqCst) {
            return;
        }
        loop {
            let lost = {
                let now = self.now();
                let mut leader = self.lead();
                leader.alive[backend] = false;
                leader.txns.backend_died(now, backend)
            };
            if lost.is_empty() {
                return;
            }
            self.discard(&lost);
        }
    }

    /// The port opens again under its old number; the frontend sees it at once.
    pub(crate) async fn backend_up(self: &Arc<Self>, backend: usize) -> std::io::Result<()> {
        if self.backends[backend].up.load(Ordering::SeqCst) {
            return Ok(());
        }
        let listener = TcpListener::bind(self.backends[backend].port.addr).await?;
        crate::be::serve(self, backend, listener);
        self.backends[backend].up.store(true, Ordering::SeqCst);
        self.lead().alive[backend] = true;
        Ok(())
    }

    /// Passes over timeouts and labels until the server stops.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut timeouts = tokio::time::interval(Duration::from_millis(self.config.timeout_check_ms.max(1)));
        let mut labels =
            tokio::time::interval(Duration::from_secs(self.config.transaction_clean_interval_second.max(1)));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = timeouts.tick() => self.expire(),
                _ = labels.tick() => self.with_txns(|txns, now| txns.evict(now)),
            }
        }
    }

    /// One pass over the timeouts of contexts and transactions.
    pub(crate) fn expire(&self) {
        let now = self.now();
        for backend in &self.backends {
            for (id, reason) in backend.contexts.expire(now) {
                self.abort(id, &reason);
            }
        }
        let overdue = self.with_txns(|txns, now| txns.expire(now));
        self.discard(&overdue);
    }

    /// Every remembered transaction, oldest first.
    pub(crate) fn all_transactions(&self) -> Vec<TxnView> {
        let leader = self.lead();
        leader.txns.all().map(|txn| self.view(txn)).collect()
    }

    fn view(&self, txn: &Txn) -> TxnView {
        let moment = |at: Option<Duration>| at.map_or(0, |at| self.clock.started_epoch_ms + millis(at));
        TxnView {
            txn_id: txn.id,
            label: txn.label.clone(),
            db: txn.db.clone(),
            table: txn.table.clone(),
            state: txn.state.name(),
            reason: txn.reason.clone(),
            coordinator: self.backends[txn.backend].host().to_owned(),
            timeout_ms: u64::try_from(txn.timeout.as_millis()).unwrap_or(u64::MAX),
            prepared_timeout_ms: u64::try_from(txn.prepared_timeout.as_millis()).unwrap_or(u64::MAX),
            prepare_time_ms: moment(Some(txn.begun_at)),
            prepared_time_ms: moment(txn.prepared_at),
            commit_time_ms: moment(txn.committed_at),
            finish_time_ms: moment(txn.finished_at),
            loaded_rows: txn.counts.loaded,
            filtered_rows: txn.counts.filtered,
            unselected_rows: txn.counts.unselected,
            load_bytes: txn.counts.bytes,
        }
    }

    fn lead(&self) -> MutexGuard<'_, Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    fn host(&self) -> &str {
        self.advertised.rsplit_once(':').map_or(self.advertised.as_str(), |(host, _)| host)
    }

    fn http_port(&self) -> u16 {
        self.advertised
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(self.port.addr.port())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl ClusterView for Cluster {
    fn password_of(&self, user: &str) -> Option<String> {
        if user == self.config.user {
            return Some(self.config.password.clone());
        }
        self.account(user).map(|account| account.password.clone())
    }

    fn may(&self, user: &str, right: Right) -> bool {
        self.account(user).is_none_or(|account| account.may(right))
    }

    fn version(&self) -> String {
        self.config.starrocks_version.clone()
    }

    fn frontends(&self) -> Vec<FrontendView> {
        let leader = self.leader_index();
        let views = self.frontends.iter().enumerate().map(|(place, frontend)| FrontendView {
            host: frontend.port.addr.ip().to_string(),
            http_port: frontend.port.addr.port(),
            query_port: self.mysql_port.get().copied().unwrap_or(0),
            leader: place == leader,
            alive: frontend.up.load(Ordering::SeqCst),
        });
        views.collect()
    }

    fn backends(&self) -> Vec<BackendView> {
        let alive = self.lead().alive.clone();
        let views = self.backends.iter().zip(alive).zip(10_001..).map(|((backend, alive), id)| BackendView {
            id,
            host: backend.host().to_owned(),
            http_port: backend.http_port(),
            alive,
        });
        views.collect()
    }

    fn transactions(&self, db: &str) -> Vec<TxnView> {
        let leader = self.lead();
        leader.txns.all().filter(|txn| txn.db == db).map(|txn| self.view(txn)).collect()
    }

    fn transaction(&self, txn_id: i64) -> Option<TxnView> {
        self.lead().txns.get(txn_id).map(|txn| self.view(txn))
    }

    fn database_id(&self, db: &str) -> i64 {
        self.lead().txns.database_id(db)
    }

    fn frontend_config(&self) -> Vec<(&'static str, String)> {
        let limits = self.lead().txns.limits;
        vec![
            ("label_keep_max_num", limits.label_keep_max_num.to_string()),
            ("label_keep_max_second", limits.label_keep_max_second.to_string()),
            ("max_running_txn_num_per_db", limits.max_running_txn_num_per_db.to_string()),
            ("max_stream_load_timeout_second", limits.max_stream_load_timeout_second.to_string()),
            ("min_load_timeout_second", limits.min_load_timeout_second.to_string()),
            (
                "prepared_transaction_default_timeout_second",
                limits.prepared_transaction_default_timeout_second.to_string(),
            ),
            ("stream_load_default_timeout_second", limits.stream_load_default_timeout_second.to_string()),
            ("transaction_clean_interval_second", self.config.transaction_clean_interval_second.to_string()),
        ]
    }

    fn set_frontend_config(&self, name: &str, value: &str) -> Result<(), String> {
        let number: u64 =
            value.trim().parse().map_err(|_| format!("Invalid config value '{value}' of '{name}'"))?;
        let mut leader = self.lead();
        let limits = &mut leader.txns.limits;
        let count = usize::try_from(number).unwrap_or(usize::MAX);
        match name {
            "label_keep_max_num" => limits.label_keep_max_num = count,
            "label_keep_max_second" => limits.label_keep_max_second = number,
            "max_running_txn_num_per_db" => limits.max_running_txn_num_per_db = count,
            "max_stream_load_timeout_second" => limits.max_stream_load_timeout_second = number,
            "min_load_timeout_second" => limits.min_load_timeout_second = number,
            "prepared_transaction_default_timeout_second" => {
                limits.prepared_transaction_default_timeout_second = number;
            }
            "stream_load_default_timeout_second" => limits.stream_load_default_timeout_second = number,
            _ => return Err(format!("Config '{name}' does not exist or is not mutable")),
        }
        Ok(())
    }
}

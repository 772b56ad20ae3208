//! The leader's transaction state machine: labels, states, limits and timers. Pure: time is an argument (time since the
//! server started), rows and sockets are somewhere else. `cluster.rs` performs what is decided here.
//!
//! ```text
//! begin -> PREPARE -> PREPARED -> COMMITTED -> VISIBLE
//!             |  \________|___________^
//!             +-> ABORTED <-+
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a load transaction stands. PREPARE lives in the leader's memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TxnState {
    Prepare,
    Prepared,
    Committed,
    Visible,
    Aborted,
}

impl TxnState {
    /// The name the server prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "PREPARE",
            Self::Prepared => "PREPARED",
            Self::Committed => "COMMITTED",
            Self::Visible => "VISIBLE",
            Self::Aborted => "ABORTED",
        }
    }

    fn is_finished(self) -> bool {
        matches!(self, Self::Visible | Self::Aborted)
    }
}

/// What a load did with its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub loaded: u64,
    pub filtered: u64,
    pub unselected: u64,
    /// Body bytes.
    pub bytes: u64,
}

impl Counts {
    /// Rows seen, whatever became of them.
    pub fn total(&self) -> u64 {
        self.loaded + self.filtered + self.unselected
    }
}

/// One remembered transaction. Moments are times since the server started.
#[derive(Debug, Clone)]
pub struct Txn {
    pub id: i64,
    pub label: String,
    pub db: String,
    pub table: String,
    pub state: TxnState,
    pub reason: String,
    /// Index of the backend that runs it.
    pub backend: usize,
    pub timeout: Duration,
    pub prepared_timeout: Duration,
    pub begun_at: Duration,
    pub prepared_at: Option<Duration>,
    pub committed_at: Option<Duration>,
    pub finished_at: Option<Duration>,
    pub counts: Counts,
}

/// Frontend settings that bound transactions; names and defaults are those of `fe.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub max_running_txn_num_per_db: usize,
    pub label_keep_max_num: usize,
    pub label_keep_max_second: u64,
    pub stream_load_default_timeout_second: u64,
    pub min_load_timeout_second: u64,
    pub max_stream_load_timeout_second: u64,
    pub prepared_transaction_default_timeout_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_running_txn_num_per_db: 1000,
            label_keep_max_num: 1000,
            label_keep_max_second: 259_200,
            stream_load_default_timeout_second: 600,
            min_load_timeout_second: 1,
            max_stream_load_timeout_second: 259_200,
            prepared_transaction_default_timeout_second: 86_400,
        }
    }
}

/// Why a transaction was not begun. The texts are the server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    #[error("Label [{label}] has already been used.")]
    LabelUsed { label: String, finished: bool },
    #[error("Label format error. regex: ^[-\\w]{{1,128}}$, label: {0}")]
    LabelFormat(String),
    #[error("current running txns on db {db_id} is {running}, larger than limit {limit}")]
    TooManyRunning { db_id: i64, running: usize, limit: usize },
    #[error("Invalid timeout. Timeout should between {min} and {max} seconds")]
    Timeout { min: u64, max: u64 },
}

/// Why a known or unknown transaction did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    #[error("transaction not found")]
    NotFound,
    #[error("transaction {id} state is {}, could not {verb}", state.name())]
    State { id: i64, state: TxnState, verb: &'static str },
}

/// What a begin asks for.
#[derive(Debug, Clone)]
pub struct Begin<'a> {
    pub db: &'a str,
    pub table: &'a str,
    pub label: &'a str,
    /// Seconds; `None` takes the default.
    pub timeout_second: Option<u64>,
    pub backend: usize,
}

/// The leader's answer to a commit or rollback that reached a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontendVerdict {
    /// Still PREPARE: only its backend can decide.
    Redirect {
        backend: usize,
    },
    /// The state has just changed.
    Done {
        id: i64,
    },
    /// Nothing to do; the text goes out with `OK`.
    Already {
        id: i64,
        message: String,
    },
    /// The text goes out with `FAILED`.
    Refused {
        message: String,
    },
    NotFound,
}

/// All transactions the leader remembers.
#[derive(Debug)]
pub struct Transactions {
    pub limits: Limits,
    txns: BTreeMap<i64, Txn>,
    databases: HashMap<String, Database>,
    next_id: i64,
    next_db_id: i64,
}

#[derive(Debug, Default)]
struct Database {
    id: i64,
    /// Ids under each label, rising.
    labels: HashMap<String, Vec<i64>>,
    running: usize,
    /// Finished transactions, in the order they finished.
    finished: VecDeque<i64>,
}

impl Transactions {
    pub fn new(limits: Limits) -> Self {
        Self { limits, txns: BTreeMap::new(), databases: HashMap::new(), next_id: 1001, next_db_id: 10_005 }
    }

    /// Registers a transaction in PREPARE and returns its id; on an error nothing is registered.
    pub fn begin(&mut self, now: Duration, request: &Begin<'_>) -> Result<i64, BeginError> {
        check_label(request.label)?;
        let timeout = self.checked_timeout(request.timeout_second)?;
        let db_id = self.database_id(request.db);
        let limit = self.limits.max_running_txn_num_per_db;
        if let Some(holder) = self.holder(request.db, request.label) {
            let finished = matches!(holder.state, TxnState::Committed | TxnState::Visible);
            return Err(BeginError::LabelUsed { label: request.label.to_owned(), finished });
        }
        let database = self.databases.entry(request.db.to_owned()).or_default();
        if database.running >= limit {
            return Err(BeginError::TooManyRunning { db_id, running: database.running, limit });
        }
        let id = self.next_id;
        self.next_id += 1;
        database.running += 1;
        database.labels.entry(request.label.to_owned()).or_default().push(id);
        let txn = Txn {
            id,
            label: request.label.to_owned(),
            db: request.db.to_owned(),
            table: request.table.to_owned(),
            state: TxnState::Prepare,
            reason: String::new(),
            backend: request.backend,
            timeout,
            prepared_timeout: Duration::from_secs(self.limits.prepared_transaction_default_timeout_second),
            begun_at: now,
            prepared_at: None,
            committed_at: None,
            finished_at: None,
            counts: Counts::default(),
        };
        self.txns.insert(id, txn);
        Ok(id)
    }

    /// PREPARE -> PREPARED. `prepared_timeout_second` replaces the frontend's default.
    pub fn prepare(
        &mut self,
        now: Duration,
        id: i64,
        counts: Counts,
        prepared_timeout_second: Option<u64>,
    ) -> Result<(), TxnError> {
        let txn = self.txns.get_mut(&id).ok_or(TxnError::NotFound)?;
        if txn.state != TxnState::Prepare {
            return Err(TxnError::State { id, state: txn.state, verb: "prepare" });
        }
        txn.state = TxnState::Prepared;
        txn.prepared_at = Some(now);
        txn.counts = counts;
        if let Some(seconds) = prepared_timeout_second {
            txn.prepared_timeout = Duration::from_secs(seconds);
        }
        Ok(())
    }

    /// PREPARE -> COMMITTED, the one-phase commit of a backend.
    pub fn commit_from_backend(&mut self, now: Duration, id: i64, counts: Counts) -> Result<(), TxnError> {
        let txn = self.txns.get_mut(&id).ok_or(TxnError::NotFound)?;
        if txn.state != TxnState::Prepare {
            return Err(TxnError::State { id, state: txn.state, verb: "commit" });
        }
        txn.counts = counts;
        txn.state = TxnState::Committed;
        txn.committed_at = Some(now);
        Ok(())
    }

    /// A commit that reached the leader frontend. `Done` means COMMITTED now: the caller publishes.
    pub fn commit_from_frontend(&mut self, now: Duration, db: &str, label: &str) -> FrontendVerdict {
        let Some(txn) = self.latest_mut(db, label) else {
            return FrontendVerdict::NotFound;
        };
        let id = txn.id;
        match txn.state {
            TxnState::Prepare => FrontendVerdict::Redirect { backend: txn.backend },
            TxnState::Prepared => {
                txn.state = TxnState::Committed;
                txn.committed_at = Some(now);
                FrontendVerdict::Done { id }
            }
            TxnState::Committed | TxnState::Visible => FrontendVerdict::Already {
                id,
                message: format!("Transaction {id} has already committed, label is {label}"),
            },
            TxnState::Aborted => FrontendVerdict::Refused {
                message: format!("Can not commit ABORTED transaction {id}, label is {label}"),
            },
        }
    }

    /// A rollback that reached the leader frontend. `Done` means ABORTED now: the caller discards the rows.
    pub fn rollback_from_frontend(&mut self, now: Duration, db: &str, label: &str) -> FrontendVerdict {
        let Some(txn) = self.latest(db, label) else {
            return FrontendVerdict::NotFound;
        };
        let (id, state, backend) = (txn.id, txn.state, txn.backend);
        match state {
            TxnState::Prepare => FrontendVerdict::Redirect { backend },
            TxnState::Prepared => {
                self.finish(now, id, TxnState::Aborted, "User Aborted");
                FrontendVerdict::Done { id }
            }
            TxnState::Committed | TxnState::Visible => FrontendVerdict::Refused {
                message: format!("Can not abort {} transaction {id}, label is {label}", state.name()),
            },
            TxnState::Aborted => FrontendVerdict::Already {
                id,
                message: format!("Transaction {id} has already aborted, label is {label}"),
            },
        }
    }

    /// COMMITTED -> VISIBLE, once the store shows the rows.
    pub fn publish(&mut self, now: Duration, id: i64) {
        if self.txns.get(&id).is_some_and(|txn| txn.state == TxnState::Committed) {
            self.finish(now, id, TxnState::Visible, "");
        }
    }

    /// PREPARE or PREPARED -> ABORTED.
    pub fn abort(&mut self, now: Duration, id: i64, reason: &str) -> Result<(), TxnError> {
        let txn = self.txns.get(&id).ok_or(TxnError::NotFound)?;
        match txn.state {
            TxnState::Prepare | TxnState::Prepared => {
                self.finish(now, id, TxnState::Aborted, reason);
                Ok(())
            }
            state => Err(TxnError::State { id, state, verb: "abort" }),
        }
    }

    /// `_cancel`: aborts a transaction in PREPARE and returns its id; the error is the server's text.
    pub fn cancel(&mut self, now: Duration, db: &str, label: &str) -> Result<i64, String> {
        match self.latest(db, label) {
            Some(txn) if txn.state == TxnState::Prepare => {
                let id = txn.id;
                self.finish(now, id, TxnState::Aborted, "user cancel");
                Ok(id)
            }
            _ => Err(format!("running transaction not found, label={label}")),
        }
    }

    /// Aborts what has outlived its timeout; returns the ids.
    pub fn expire(&mut self, now: Duration) -> Vec<i64> {
        let overdue: Vec<i64> =
            self.txns.values().filter(|txn| is_overdue(txn, now)).map(|txn| txn.id).collect();
        for id in &overdue {
            self.finish(now, *id, TxnState::Aborted, "timeout by txn manager");
        }
        overdue
    }

    /// A backend missed its heartbeats: its PREPARE transactions are aborted, at most 100 per pass; returns the ids.
    pub fn backend_died(&mut self, now: Duration, backend: usize) -> Vec<i64> {
        let lost = |txn: &&Txn| txn.backend == backend && txn.state == TxnState::Prepare;
        let ids: Vec<i64> = self.txns.values().filter(lost).map(|txn| txn.id).take(100).collect();
        for id in &ids {
            self.finish(now, *id, TxnState::Aborted, "coordinate BE is down");
        }
        ids
    }

    /// Another frontend leads, or the leader restarted: PREPARE transactions vanish without a trace; returns the ids.
    pub fn leader_changed(&mut self) -> Vec<i64> {
        let ids: Vec<i64> =
            self.txns.values().filter(|txn| txn.state == TxnState::Prepare).map(|txn| txn.id).collect();
        for id in &ids {
            self.forget(*id);
        }
        ids
    }

    /// Forgets finished transactions, oldest first, that are too old or too many.
    pub fn evict(&mut self, now: Duration) {
        let keep_for = Duration::from_secs(self.limits.label_keep_max_second);
        let keep = self.limits.label_keep_max_num;
        let mut forgotten = Vec::new();
        for database in self.databases.values() {
            let surplus = (database.running + database.finished.len()).saturating_sub(keep);
            for (place, id) in database.finished.iter().enumerate() {
                let age = self.txns.get(id).and_then(|txn| txn.finished_at).map(|at| now.saturating_sub(at));
                if place < surplus || age.is_some_and(|age| age > keep_for) {
                    forgotten.push(*id);
                } else {
                    break;
                }
            }
        }
        for id in forgotten {
            self.forget(id);
        }
    }

    /// Forgets every finished transaction at once.
    pub fn evict_all(&mut self) {
        let finished: Vec<i64> =
            self.txns.values().filter(|txn| txn.state.is_finished()).map(|txn| txn.id).collect();
        for id in finished {
            self.forget(id);
        }
    }

    /// The transaction with the largest id under the label.
    pub fn latest(&self, db: &str, label: &str) -> Option<&Txn> {
        let id = self.databases.get(db)?.labels.get(label)?.last()?;
        self.txns.get(id)
    }

    pub fn get(&self, id: i64) -> Option<&Txn> {
        self.txns.get(&id)
    }

    /// Every remembered transaction, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Txn> {
        self.txns.values()
    }

    /// Numeric id of a database, given out at first use.
    pub fn database_id(&mut self, db: &str) -> i64 {
        let database = self.databases.entry(db.to_owned()).or_default();
        if database.id == 0 {
            database.id = self.next_db_id;
            self.next_db_id += 1;
        }
        database.id
    }

    fn latest_mut(&mut self, db: &str, label: &str) -> Option<&mut Txn> {
        let id = self.databases.get(db)?.labels.get(label)?.last()?;
        self.txns.get_mut(id)
    }

    /// The one transaction of the label that is not aborted.
    fn holder(&self, db: &str, label: &str) -> Option<&Txn> {
        let ids = self.databases.get(db)?.labels.get(label)?;
        ids.iter().filter_map(|id| self.txns.get(id)).find(|txn| txn.state != TxnState::Aborted)
    }

    fn checked_timeout(&self, asked: Option<u64>) -> Result<Duration, BeginError> {
        let Limits { min_load_timeout_second: min, max_stream_load_timeout_second: max, .. } = self.limits;
        let seconds = asked.unwrap_or(self.limits.stream_load_default_timeout_second);
        if seconds < min || seconds > max {
            return Err(BeginError::Timeout { min, max });
        }
        Ok(Duration::from_secs(seconds))
    }

    fn finish(&mut self, now: Duration, id: i64, state: TxnState, reason: &str) {
        let Some(txn) = self.txns.get_mut(&id) else { return };
        txn.state = state;
        reason.clone_into(&mut txn.reason);
        txn.finished_at = Some(now);
        if let Some(database) = self.databases.get_mut(&txn.db) {
            database.running -= 1;
            database.finished.push_back(id);
        }
    }

    fn forget(&mut self, id: i64) {
        let Some(txn) = self.txns.remove(&id) else { return };
        let Some(database) = self.databases.get_mut(&txn.db) else {
            return;
        };
        if txn.state.is_finished() {
            database.finished.retain(|other| *other != id);
        } else {
            database.running -= 1;
        }
        if let Some(ids) = database.labels.get_mut(&txn.label) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                database.labels.remove(&txn.label);
            }
        }
    }
}

fn is_overdue(txn: &Txn, now: Duration) -> bool {
    match (txn.state, txn.prepared_at) {
        (TxnState::Prepare, _) => now.saturating_sub(txn.begun_at) > txn.timeout,
        (TxnState::Prepared, Some(at)) => now.saturating_sub(at) > txn.prepared_timeout,
        _ => false,
    }
}

/// `^[-\w]{1,128}$`, ASCII as in the frontend's regular expression.
fn check_label(label: &str) -> Result<(), BeginError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if label.is_empty() || label.len() > 128 || !label.bytes().all(allowed) {
        return Err(BeginError::LabelFormat(label.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::ZERO;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn request(label: &str) -> Begin<'_> {
        Begin { db: "shop", table: "orders", label, timeout_second: None, backend: 0 }
    }

    fn with_limits(change: impl FnOnce(&mut Limits)) -> Transactions {
        let mut limits = Limits::default();
        change(&mut limits);
        Transactions::new(limits)
    }

    #[test]
    fn a_running_label_is_refused_and_an_aborted_one_is_free() {
        let mut txns = with_limits(|_| ());
        let id = txns.begin(T0, &request("a")).unwrap();
        let refused = txns.begin(T0, &request("a")).unwrap_err();
        assert_eq!(refused, BeginError::LabelUsed { label: "a".into(), finished: false });
        txns.abort(T0, id, "x").unwrap();
        let again = txns.begin(T0, &request("a")).unwrap();
        assert!(again > id);
        assert_eq!(txns.latest("shop", "a").unwrap().id, again);
    }

    #[test]
    fn a_committed_label_counts_as_finished() {
        let mut txns = with_limits(|_| ());
        let id = txns.begin(T0, &request("a")).unwrap();
        txns.commit_from_backend(T0, id, Counts::default()).unwrap();
        let refused = txns.begin(T0, &request("a")).unwrap_err();
        assert_eq!(refused, BeginError::LabelUsed { label: "a".into(), finished: true });
        assert_eq!(refused.to_string(), "Label [a] has already been used.");
    }

    #[test]
    fn labels_are_one_to_128_word_characters() {
        let mut txns = with_limits(|_| ());
        for bad in ["", "a.b", "ä", &"x".repeat(129)] {
            assert!(matches!(txns.begin(T0, &request(bad)), Err(BeginError::LabelFormat(_))), "{bad}");
        }
        txns.begin(T0, &request(&"x".repeat(128))).unwrap();
        txns.begin(T0, &request("-leading_hyphen")).unwrap();
    }

    #[test]
    fn the_running_limit_counts_until_the_end_of_a_transaction() {
        let mut txns = with_limits(|limits| limits.max_running_txn_num_per_db = 1);
        let id = txns.begin(T0, &request("a")).unwrap();
        let refused = txns.begin(T0, &request("b")).unwrap_err();
        assert_eq!(refused.to_string(), "current running txns on db 10005 is 1, larger than limit 1");
        assert!(txns.latest("shop", "b").is_none());
        txns.prepare(T0, id, Counts::default(), None).unwrap();
        assert!(txns.begin(T0, &request("b")).is_err());
        txns.rollback_from_frontend(T0, "shop", "a");
        txns.begin(T0, &request("b")).unwrap();
    }

    #[test]
    fn timeouts_abort_prepare_and_prepared_separately() {
        let mut txns = with_limits(|_| ());
        let short = Begin { timeout_second: Some(5), ..request("a") };
        let a = txns.begin(T0, &short).unwrap();
        let b = txns.begin(T0, &request("b")).unwrap();
        txns.prepare(T0, b, Counts::default(), Some(60)).unwrap();
        assert!(txns.expire(at(5)).is_empty());
        assert_eq!(txns.expire(at(6)), vec![a]);
        assert_eq!(txns.latest("shop", "a").unwrap().reason, "timeout by txn manager");
        assert_eq!(txns.expire(at(61)), vec![b]);
    }

    #[test]
    fn eviction_takes_the_oldest_beyond_the_count_and_never_a_running_one() {
        let mut txns = with_limits(|limits| limits.label_keep_max_num = 2);
        for label in ["a", "b", "c"] {
            let id = txns.begin(T0, &request(label)).unwrap();
            txns.commit_from_backend(T0, id, Counts::default()).unwrap();
            txns.publish(T0, id);
        }
        txns.begin(T0, &request("open")).unwrap();
        txns.evict(T0);
        assert!(txns.latest("shop", "a").is_none());
        assert!(txns.latest("shop", "b").is_none());
        assert!(txns.latest("shop", "c").is_some());
        assert!(txns.latest("shop", "open").is_some());
        txns.begin(T0, &request("a")).unwrap();
    }

    #[test]
    fn eviction_takes_what_finished_too_long_ago() {
        let mut txns = with_limits(|limits| limits.label_keep_max_second = 10);
        let id = txns.begin(T0, &request("a")).unwrap();
        txns.abort(at(5), id, "x").unwrap();
        txns.evict(at(15));
        assert!(txns.latest("shop", "a").is_some());
        txns.evict(at(16));
        assert!(txns.latest("shop", "a").is_none());
    }

    #[test]
    fn a_leader_change_loses_only_prepare() {
        let mut txns = with_limits(|_| ());
        let open = txns.begin(T0, &request("open")).unwrap();
        let prepared = txns.begin(T0, &request("prepared")).unwrap();
        txns.prepare(T0, prepared, Counts::default(), None).unwrap();
        assert_eq!(txns.leader_changed(), vec![open]);
        assert!(txns.latest("shop", "open").is_none());
        assert_eq!(txns.latest("shop", "prepared").unwrap().state, TxnState::Prepared);
    }

    #[test]
    fn a_frontend_answers_commit_and_rollback_by_state() {
        let mut txns = with_limits(|_| ());
        assert_eq!(txns.commit_from_frontend(T0, "shop", "a"), FrontendVerdict::NotFound);
        let id = txns.begin(T0, &request("a")).unwrap();
        assert_eq!(txns.commit_from_frontend(T0, "shop", "a"), FrontendVerdict::Redirect { backend: 0 });
        txns.prepare(T0, id, Counts::default(), None).unwrap();
        assert_eq!(txns.commit_from_frontend(T0, "shop", "a"), FrontendVerdict::Done { id });
        assert!(matches!(txns.commit_from_frontend(T0, "shop", "a"), FrontendVerdict::Already { .. }));
        txns.publish(T0, id);
        assert_eq!(
            txns.rollback_from_frontend(T0, "shop", "a"),
            FrontendVerdict::Refused {
                message: format!("Can not abort VISIBLE transaction {id}, label is a")
            }
        );
    }

    #[test]
    fn a_finished_transaction_cannot_be_aborted() {
        let mut txns = with_limits(|_| ());
        let id = txns.begin(T0, &request("a")).unwrap();
        txns.commit_from_backend(T0, id, Counts::default()).unwrap();
        let refused = txns.abort(T0, id, "x").unwrap_err();
        assert_eq!(refused.to_string(), format!("transaction {id} state is COMMITTED, could not abort"));
    }

    #[test]
    fn cancel_takes_only_prepare() {
        let mut txns = with_limits(|_| ());
        let id = txns.begin(T0, &request("a")).unwrap();
        assert_eq!(txns.cancel(T0, "shop", "a"), Ok(id));
        assert_eq!(txns.cancel(T0, "shop", "a"), Err("running transaction not found, label=a".into()));
    }
}

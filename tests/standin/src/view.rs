//! What the MySQL port may ask of, and change at, the rest of the server. It never carries table data: that is the
//! store's. Implemented by `cluster.rs`.

use crate::accounts::Right;

/// One frontend, as `SHOW FRONTENDS` tells it.
#[derive(Debug, Clone)]
pub struct FrontendView {
    pub host: String,
    pub http_port: u16,
    pub query_port: u16,
    pub leader: bool,
    pub alive: bool,
}

/// One backend, as `SHOW BACKENDS` tells it; host and port are the advertised ones.
#[derive(Debug, Clone)]
pub struct BackendView {
    /// Numeric id, from 10001 on.
    pub id: i64,
    pub host: String,
    pub http_port: u16,
    pub alive: bool,
}

/// One load transaction, as `SHOW TRANSACTION` and `information_schema.loads` tell it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TxnView {
    pub txn_id: i64,
    pub label: String,
    pub db: String,
    pub table: String,
    /// `PREPARE`, `PREPARED`, `COMMITTED`, `VISIBLE` or `ABORTED`.
    pub state: &'static str,
    /// Why it was aborted; empty otherwise.
    pub reason: String,
    /// Advertised host of the backend that runs it.
    pub coordinator: String,
    pub timeout_ms: u64,
    pub prepared_timeout_ms: u64,
    /// Moments in milliseconds since the Unix epoch, 0 where not reached.
    pub prepare_time_ms: i64,
    pub prepared_time_ms: i64,
    pub commit_time_ms: i64,
    pub finish_time_ms: i64,
    /// Rows of the load; 0 until it is prepared or committed.
    pub loaded_rows: u64,
    pub filtered_rows: u64,
    pub unselected_rows: u64,
    pub load_bytes: u64,
}

/// The cluster as SQL sees it.
pub trait ClusterView: Send + Sync + 'static {
    /// `None`: there is no such account.
    fn password_of(&self, user: &str) -> Option<String>;
    /// Whether the account has the right; the administrator has all.
    fn may(&self, user: &str, right: Right) -> bool;
    /// What `current_version()` says.
    fn version(&self) -> String;
    fn frontends(&self) -> Vec<FrontendView>;
    fn backends(&self) -> Vec<BackendView>;
    /// Every remembered transaction of the database, oldest first.
    fn transactions(&self, db: &str) -> Vec<TxnView>;
    /// The transaction of that id, if it is still remembered.
    fn transaction(&self, txn_id: i64) -> Option<TxnView>;
    /// Numeric id of a database (the number in `current running txns on db 10005 …`).
    fn database_id(&self, db: &str) -> i64;
    /// `ADMIN SHOW FRONTEND CONFIG`: names and present values.
    fn frontend_config(&self) -> Vec<(&'static str, String)>;
    /// `ADMIN SET FRONTEND CONFIG`; the error is the text for the client.
    fn set_frontend_config(&self, name: &str, value: &str) -> Result<(), String>;
}

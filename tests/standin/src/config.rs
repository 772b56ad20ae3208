//! Every setting of the stand-in in one struct: flags of `serve`, a JSON document, or code. Names that exist in
//! `fe.conf`/`be.conf` keep them, defaults included; the rest are switches for versions and for tests.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::accounts::Account;
use crate::transactions::Limits;

/// What `current_version()` says where nothing else is set.
pub(crate) const STARROCKS_VERSION: &str = "3.3.5-standin";

/// How to start a server. `Config::default()` is one FE, one BE, free ports on the loopback, user `root` without password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP addresses of the frontends, the first one leads; port 0 takes a free one.
    #[arg(long = "fe-http", value_delimiter = ',', default_value = "127.0.0.1:0")]
    pub fe_http: Vec<String>,
    /// HTTP addresses of the backends.
    #[arg(long = "be-http", value_delimiter = ',', default_value = "127.0.0.1:0")]
    pub be_http: Vec<String>,
    /// Address of the MySQL port.
    #[arg(long = "mysql", default_value = "127.0.0.1:0")]
    pub mysql: String,
    /// Address of the control port.
    #[arg(long = "control", default_value = "127.0.0.1:0")]
    pub control: String,
    #[arg(long, default_value = "root")]
    pub user: String,
    #[arg(long, default_value = "")]
    pub password: String,
    /// Accounts that may do less than the one above: `name:password:RIGHT+RIGHT` of SELECT, INSERT and OPERATE.
    #[arg(long = "account", value_delimiter = ',')]
    pub accounts: Vec<Account>,
    /// What redirects and SHOW BACKENDS say instead of each backend's real `host:port`, in the order of the backends.
    #[arg(long = "advertise-be", value_delimiter = ',')]
    pub advertised_be: Vec<String>,
    /// Where tables are kept; a temporary directory, removed at the end, when absent.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Files with SQL to run before the ports open.
    #[arg(long = "init-sql-file", value_delimiter = ',')]
    pub init_sql_files: Vec<PathBuf>,
    /// SQL to run before the ports open, after the files.
    #[arg(long = "init-sql")]
    pub init_sql: Vec<String>,
    /// Milliseconds between COMMITTED and VISIBLE.
    #[arg(long, default_value_t = 0)]
    pub publish_delay_ms: u64,
    /// How long a backend's own commit waits for publication; 0 derives it from the load timeout as a BE does.
    #[arg(long, default_value_t = 0)]
    pub be_publish_wait_ms: u64,
    /// How long a frontend's commit without `timeout` waits for publication.
    #[arg(long, default_value_t = 20_000)]
    pub fe_commit_wait_ms: u64,
    /// Milliseconds until the frontend notices that a backend is gone.
    #[arg(long, default_value_t = 5_000)]
    pub backend_death_notice_ms: u64,
    /// Milliseconds between two passes over timeouts.
    #[arg(long, default_value_t = 1_000)]
    pub timeout_check_ms: u64,
    /// Seconds between two evictions of labels.
    #[arg(long, default_value_t = 30)]
    pub transaction_clean_interval_second: u64,
    #[arg(long, default_value_t = Limits::default().max_running_txn_num_per_db)]
    pub max_running_txn_num_per_db: usize,
    #[arg(long, default_value_t = Limits::default().label_keep_max_num)]
    pub label_keep_max_num: usize,
    #[arg(long, default_value_t = Limits::default().label_keep_max_second)]
    pub label_keep_max_second: u64,
    #[arg(long, default_value_t = Limits::default().stream_load_default_timeout_second)]
    pub stream_load_default_timeout_second: u64,
    #[arg(long, default_value_t = Limits::default().prepared_transaction_default_timeout_second)]
    pub prepared_transaction_default_timeout_second: u64,
    #[arg(long, default_value_t = 102_400)]
    pub streaming_load_max_mb: u64,
    #[arg(long, default_value_t = 100)]
    pub streaming_load_max_batch_size_mb: u64,
    /// Label conflicts and other errors of a begin come wrapped in `Fail`, as in 3.3 and 3.4.
    #[arg(long)]
    pub wrapped_begin_errors: bool,
    /// What `current_version()` says.
    #[arg(long, default_value = STARROCKS_VERSION)]
    pub starrocks_version: String,
    /// The server is too old for the transaction interface: no such paths, lower-case refusals of the frontend, and
    /// followers that tell the state of a label from their own journal.
    #[arg(long)]
    pub no_transactions: bool,
    /// `get_load_state` tells why a transaction was aborted, as the newest versions do.
    #[arg(long)]
    pub load_state_reason: bool,
    /// A load that writes no row succeeds.
    #[arg(long)]
    pub empty_load_ok: bool,
    /// Bytes per second that one connection to a backend may send; 0 is unlimited.
    #[arg(long, default_value_t = 0)]
    pub be_bytes_per_second: u64,
    /// Loads are read, counted and hashed as ever, but their rows are dropped: for measurements. Queries find the tables
    /// empty, but `SELECT COUNT(*) FROM t` and `digest` tell what was loaded; the types of values are not checked.
    #[arg(long)]
    pub count_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            fe_http: vec![any_port()],
            be_http: vec![any_port()],
            mysql: any_port(),
            control: any_port(),
            user: "root".to_owned(),
            password: String::new(),
            accounts: Vec::new(),
            advertised_be: Vec::new(),
            data_dir: None,
            init_sql_files: Vec::new(),
            init_sql: Vec::new(),
            publish_delay_ms: 0,
            be_publish_wait_ms: 0,
            fe_commit_wait_ms: 20_000,
            backend_death_notice_ms: 5_000,
            timeout_check_ms: 1_000,
            transaction_clean_interval_second: 30,
            max_running_txn_num_per_db: limits.max_running_txn_num_per_db,
            label_keep_max_num: limits.label_keep_max_num,
            label_keep_max_second: limits.label_keep_max_second,
            stream_load_default_timeout_second: limits.stream_load_default_timeout_second,
            prepared_transaction_default_timeout_second: limits.prepared_transaction_default_timeout_second,
            streaming_load_max_mb: 102_400,
            streaming_load_max_batch_size_mb: 100,
            wrapped_begin_errors: false,
            starrocks_version: STARROCKS_VERSION.to_owned(),
            no_transactions: false,
            load_state_reason: false,
            empty_load_ok: false,
            be_bytes_per_second: 0,
            count_only: false,
        }
    }
}

impl Config {
    /// `frontends` and `backends` on free ports of the loopback.
    pub fn nodes(frontends: usize, backends: usize) -> Self {
        Self { fe_http: vec![any_port(); frontends], be_http: vec![any_port(); backends], ..Self::default() }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_running_txn_num_per_db: self.max_running_txn_num_per_db,
            label_keep_max_num: self.label_keep_max_num,
            label_keep_max_second: self.label_keep_max_second,
            stream_load_default_timeout_second: self.stream_load_default_timeout_second,
            prepared_transaction_default_timeout_second: self.prepared_transaction_default_timeout_second,
            ..Limits::default()
        }
    }
}

fn any_port() -> String {
    "127.0.0.1:0".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn flags_and_code_have_the_same_defaults() {
        let flags = <Flags as clap::Parser>::parse_from(["standin"]);
        assert_eq!(flags.config, Config::default());
    }
}

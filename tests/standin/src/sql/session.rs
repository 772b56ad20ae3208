//! One client's state: its database, its variables, and its place in the list of sessions, through which others see
//! and kill it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opensrv_mysql::ErrorKind;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Server, SqlError, Words};
use crate::store::Killer;

/// A client's session. Its place in the list is held until it is dropped.
pub(crate) struct Session {
    pub(crate) database: Option<String>,
    pub(crate) registration: Registration,
    variables: BTreeMap<String, String>,
}

/// Every session of the server.
#[derive(Default)]
pub(crate) struct Sessions {
    last_id: AtomicU32,
    all: Mutex<BTreeMap<u32, Arc<Entry>>>,
}

/// What others may know of a session.
pub(crate) struct Entry {
    pub(crate) id: u32,
    pub(crate) host: String,
    /// Ends the connection.
    pub(crate) cancel: CancellationToken,
    state: Mutex<EntryState>,
}

#[derive(Clone)]
pub(crate) struct EntryState {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) connected: Instant,
    /// The running statement's text, or nothing.
    pub(crate) statement: Option<String>,
    /// Since when it runs or the session is idle.
    pub(crate) since: Instant,
    killer: Option<Killer>,
    /// A kill that came before there was a killer.
    killed: bool,
}

/// A session's place in the list.
pub(crate) struct Registration {
    sessions: Arc<Sessions>,
    pub(crate) entry: Arc<Entry>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.sessions.all).remove(&self.entry.id);
    }
}

impl Sessions {
    /// A new place in the list; ids count from 1.
    pub(crate) fn register(self: &Arc<Self>, user: String, host: String) -> Registration {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let now = Instant::now();
        let state = EntryState {
            user,
            database: String::new(),
            connected: now,
            statement: None,
            since: now,
            killer: None,
            killed: false,
        };
        let entry = Arc::new(Entry { id, host, cancel: CancellationToken::new(), state: Mutex::new(state) });
        lock(&self.all).insert(id, Arc::clone(&entry));
        Registration { sessions: Arc::clone(self), entry }
    }

    /// All sessions, by id.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        lock(&self.all).values().cloned().collect()
    }

    pub(crate) fn find(&self, id: u32) -> Option<Arc<Entry>> {
        lock(&self.all).get(&id).cloned()
    }
}

impl Entry {
    pub(crate) fn state(&self) -> EntryState {
        lock(&self.state).clone()
    }

    /// Notes who logged in.
    pub(crate) fn name(&self, user: String) {
        lock(&self.state).user = user;
    }

    /// Ends the running statement, if there is one.
    pub(crate) fn kill_statement(&self) {
        let mut state = lock(&self.state);
        state.killed = state.statement.is_some();
        if let Some(killer) = &state.killer {
            killer.kill();
        }
    }

    pub(crate) fn begin(&self, statement: &str) {
        let mut state = lock(&self.state);
        state.statement = Some(statement.to_owned());
        state.since = Instant::now();
        state.killed = false;
    }

    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.statement = None;
        state.killer = None;
        state.since = Instant::now();
    }

    /// Names what a kill has to stop.
    pub(crate) fn running_on(&self, killer: Killer) {
        let mut state = lock(&self.state);
        if state.killed {
            killer.kill();
        }
        state.killer = Some(killer);
    }

    /// The connection `running_on` named goes on to other work.
    pub(crate) fn stopped_reading(&self) {
        lock(&self.state).killer = None;
    }
}

impl Session {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { database: None, registration, variables: BTreeMap::new() }
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.registration.entry
    }

    /// `USE db` or `USE catalog.db`.
    pub(super) fn use_database(&mut self, server: &Server, words: &mut Words) -> Result<Outcome, SqlError> {
        words.expect("USE")?;
        let mut name = words.identifier()?;
        while words.eat(".") {
            name = words.identifier()?;
        }
        self.enter(server, &name)?;
        Ok(Outcome::Changed(0))
    }

    /// Makes `db` the database of names without one.
    pub(crate) fn enter(&mut self, server: &Server, db: &str) -> Result<(), SqlError> {
        if !server.store.database_exists(db) && !is_information_schema(db) {
            return Err(SqlError::unknown_database(db));
        }
        self.database = Some(db.to_owned());
        db.clone_into(&mut lock(&self.entry().state).database);
        Ok(())
    }

    /// `SET` of any number of variables; NAMES, CHARACTER SET, PASSWORD and user variables are accepted without effect.
    pub(super) fn set(&mut self, words: &mut Words) -> Result<Outcome, SqlError> {
        words.expect("SET")?;
        if [
            "NAMES",
            "CHARACTER SET",
            "CHARSET",
            "PASSWORD",
            "TRANSACTION",
            "ROLE",
            "CATALOG",
            "PROPERTY",
            "DEFAULT",
        ]
        .iter()
        .any(|form| words.eat(form))
            || (words.is_at(1, "TRANSACTION") && (words.eat("SESSION") || words.eat("GLOBAL")))
        {
            return Ok(Outcome::Changed(0));
        }
        loop {
            let _ = ["GLOBAL", "SESSION", "LOCAL"].iter().any(|scope| words.eat(scope));
            let mut name = words.identifier()?;
            while words.eat(".") {
                name = words.identifier()?;
            }
            if !words.eat("=") {
                words.expect(":=")?;
            }
            let value = if words.is_at(0, "(") { words.parenthesized()? } else { words.value()? };
            self.assign(&name, &value)?;
            if words.is_done() {
                return Ok(Outcome::Changed(0));
            }
            words.expect(",")?;
        }
    }

    /// Sets a variable. User variables (`@x`) are taken and forgotten.
    pub(crate) fn assign(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        if name.starts_with('@') && !name.starts_with("@@") {
            return Ok(());
        }
        let name = name.trim_start_matches('@').to_ascii_lowercase();
        check(&name, value)?;
        if value.eq_ignore_ascii_case("default") {
            self.variables.remove(&name);
        } else {
            self.variables.insert(name, value.to_owned());
        }
        Ok(())
    }

    /// The value of a variable (`name` without `@@` and scope).
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        self.variables.get(&name).cloned().or_else(|| default_of(&name).map(str::to_owned))
    }

    /// Every variable and its value, by name.
    pub(crate) fn all_variables(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            VARIABLES.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.extend(self.variables.clone());
        all
    }

    /// `query_timeout`, or what a `SET_VAR` hint says instead.
    pub(super) fn query_timeout(&self, words: &Words) -> Result<Duration, SqlError> {
        let mut seconds = self.variable("query_timeout").unwrap_or_default();
        for (name, value) in words.hints().flat_map(assignments) {
            check(name, value)?;
            if name.eq_ignore_ascii_case("query_timeout") {
                value.clone_into(&mut seconds);
            }
        }
        Ok(Duration::from_secs(seconds.parse().unwrap_or(300)))
    }
}

/// `name = value` pairs of `SET_VAR(a = 1, b = 2)`.
fn assignments(hint: &str) -> impl Iterator<Item = (&str, &str)> {
    let inner =
        hint.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map_or("", |(inner, _)| inner);
    inner
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim().trim_matches(['\'', '"'])))
}

fn check(name: &str, value: &str) -> Result<(), SqlError> {
    let name = name.to_ascii_lowercase();
    if default_of(&name).is_none() {
        return Err(SqlError::new(
            ErrorKind::ER_UNKNOWN_SYSTEM_VARIABLE,
            format!("Unknown system variable '{name}'"),
        ));
    }
    if name == "query_timeout" && !value.parse::<u32>().is_ok_and(|seconds| (1..=259_200).contains(&seconds))
    {
        return Err(SqlError::analysis("query_timeout should between 1 and 259200 seconds"));
    }
    Ok(())
}

pub(crate) fn is_information_schema(db: &str) -> bool {
    db.eq_ignore_ascii_case("information_schema")
}

fn default_of(name: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// StarRocks' session variables, then those of MySQL that drivers set or read and the server accepts.
const VARIABLES: &[(&str, &str)] = &[
    ("query_timeout", "300"),
    ("insert_timeout", "14400"),
    ("query_mem_limit", "0"),
    ("exec_mem_limit", "2147483648"),
    ("sql_mode", "ONLY_FULL_GROUP_BY"),
    ("sql_select_limit", "9223372036854775807"),
    ("time_zone", "Asia/Shanghai"),
    ("system_time_zone", "Asia/Shanghai"),
    ("pipeline_dop", "0"),
    ("parallel_fragment_exec_instance_num", "1"),
    ("max_allowed_packet", "33554432"),
    ("net_buffer_length", "16384"),
    ("net_read_timeout", "60"),
    ("net_write_timeout", "60"),
    ("wait_timeout", "28800"),
    ("interactive_timeout", "3600"),
    ("enable_profile", "false"),
    ("forward_to_leader", "false"),
    ("forward_to_master", "false"),
    ("enable_insert_strict", "true"),
    ("warehouse", "default_warehouse"),
    ("catalog", "default_catalog"),
    ("resource_group", ""),
    ("version_comment", "StarRocks version 3.3.5-standin"),
    ("version", "8.0.33"),
    ("autocommit", "true"),
    ("auto_increment_increment", "1"),
    ("character_set_client", "utf8"),
    ("character_set_connection", "utf8"),
    ("character_set_database", "utf8"),
    ("character_set_results", "utf8"),
    ("character_set_server", "utf8"),
    ("collation_connection", "utf8_general_ci"),
    ("collation_database", "utf8_general_ci"),
    ("collation_server", "utf8_general_ci"),
    ("foreign_key_checks", "false"),
    ("unique_checks", "false"),
    ("group_concat_max_len", "1024"),
    ("init_connect", ""),
    ("innodb_read_only", "true"),
    ("language", "/starrocks/share/english/"),
    ("license", "Elastic License 2.0"),
    ("lower_case_table_names", "0"),
    ("performance_schema", "false"),
    ("query_cache_size", "1048576"),
    ("query_cache_type", "0"),
    ("socket", ""),
    ("sql_auto_is_null", "false"),
    ("sql_big_selects", "true"),
    ("sql_quote_show_create", "true"),
    ("sql_safe_updates", "0"),
    ("sql_warnings", "true"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("transaction_read_only", "OFF"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("tx_read_only", "false"),
];

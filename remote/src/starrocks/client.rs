//! Stream Load over HTTP: the transaction interface (begin, load, prepare, commit, rollback), the plain load of servers
//! that lack it, and the questions about a label. Redirects are followed here by hand, because a body may go to a BE only and credentials to allowed hosts
//! only. Never decides what an answer means for a task, never repeats a call that may have been done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Method, StatusCode, Url};
use starlift_common::datasource::{AllowedBackend, Datasource, Secret, SslMode};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use tokio::time::Instant;

use super::outcome::{Answer, TxnState};

/// Follower to leader to BE is two; more than this is a loop.
const MAX_HOPS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that is gone is noticed about twice this time after it should have answered.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a call without a body may take, beyond what the server was told to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an FE that could not be reached is asked last.
const PUT_ASIDE: Duration = Duration::from_secs(30);
/// How often a begin is repeated when the FE redirects to a BE that cannot be reached.
const BEGIN_TRIES: usize = 3;
/// Most of an error log that is kept for a message.
const ERROR_LOG_BYTES: usize = 3000;

const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The transaction that a call is about.
#[derive(Debug, Clone, Copy)]
pub struct TxnTarget<'a> {
    pub database: &'a str,
    pub table: &'a str,
    pub label: &'a Label,
}

/// A begun transaction, and the BE that holds it: all loads and the prepare go straight there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Never used again by the server; tells this transaction from a later one of the same label.
    pub txn_id: i64,
    /// Base URL of the BE, after the address map.
    pub backend: Url,
}

/// Where an FE sends a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `host:port` as the BE is registered.
    pub registered: String,
    /// Base URL of the BE, after the address map.
    pub backend: Url,
}

/// Why a call did not end in an OK.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("cannot connect to {host}")]
    Connect { host: String, redirected: bool, source: reqwest::Error },
    /// Sent, at least in part, and not answered: whether it was done is unknown until the label is asked for.
    #[error("no answer from {host}; the outcome of the call is unknown")]
    NoAnswer { host: String, source: Option<reqwest::Error> },
    /// Answered, but not by what we take for StarRocks: as good as no answer.
    #[error("unreadable answer from {host}: HTTP {status}, {body}")]
    Malformed { host: String, status: StatusCode, body: String },
    #[error("{host} refused user {user}: {message}")]
    Unauthorized { host: String, user: String, message: String },
    #[error("the FE redirects to {host}, which `allowed_backends` does not name")]
    NotAllowed { host: String },
    #[error("{host} redirects to nowhere usable ({location})")]
    BadRedirect { host: String, location: String },
    /// Answered and not done.
    #[error("{host} refused: {}", answer.text())]
    Refused { host: String, answer: Box<Answer> },
}

impl CallError {
    /// Whether the call may have been done although it failed here.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Malformed { .. })
    }

    /// The server's answer, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Refused { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// The server's words where it knows the user, who may not do this.
    pub fn missing_right(&self) -> Option<&str> {
        let words = match self {
            Self::Unauthorized { message, .. } => message,
            Self::Refused { answer, .. } => &answer.message,
            _ => return None,
        };
        // "Access denied for u@h" is said of a login, "Access denied; you need ... the INSERT privilege(s)" of a right.
        let lower = words.to_ascii_lowercase();
        (lower.contains("privilege") && !lower.contains("access denied for")).then_some(words)
    }

    pub fn class(&self) -> FailureClass {
        match self {
            Self::Connect { .. } | Self::BadRedirect { .. } => FailureClass::Transient,
            Self::NoAnswer { .. } | Self::Malformed { .. } => FailureClass::Unknown,
            Self::Unauthorized { .. } | Self::NotAllowed { .. } => FailureClass::Permanent,
            Self::Refused { answer, .. } => answer.class(),
        }
    }

    /// The same for people: where it happened and what to do.
    pub fn problem(&self) -> Problem {
        let (code, host, hint) = match self {
            Self::Connect { host, redirected: true, .. } => (
                Code::BackendUnreachable,
                host,
                format!(
                    "open that port to every worker, or map it: address_map = {{ \"{host}\" = \"HOST:PORT\" }}"
                ),
            ),
            Self::Connect { host, .. } => (
                Code::ConnectFailed,
                host,
                "check loadUrl and that the FE is up; its HTTP port is usually 8030".into(),
            ),
            Self::NoAnswer { host, .. } | Self::Malformed { host, .. } | Self::BadRedirect { host, .. } => {
                (Code::LoadFailed, host, String::new())
            }
            Self::Unauthorized { host, user, .. } if self.missing_right().is_some() => {
                (Code::NoPrivilege, host, format!("grant user {user} INSERT on the table"))
            }
            Self::Unauthorized { host, user, .. } => (
                Code::LoginFailed,
                host,
                format!("check the password of {user}, and that it has INSERT on the table"),
            ),
            Self::NotAllowed { host } => (
                Code::BackendRefused,
                host,
                "add the host or its network to allowed_backends of the data source".into(),
            ),
            Self::Refused { host, answer } if answer.says_no_backend() => {
                (Code::NoBackendAlive, host, "SHOW BACKENDS tells which are down".into())
            }
            Self::Refused { host, .. } => (Code::LoadFailed, host, String::new()),
        };
        let mut message = self.to_string();
        if let Some(cause) = self.innermost() {
            message = format!("{message}: {cause}");
        }
        Problem::new(code, message).at(host.clone()).hint(hint)
    }

    fn innermost(&self) -> Option<String> {
        let mut cause = std::error::Error::source(self)?;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Some(cause.to_string())
    }
}

/// Speaks to one StarRocks cluster as one user. Cheap calls, shared by all tasks of a process.
pub struct Client {
    http: reqwest::Client,
    user: String,
    password: Secret,
    frontends: Vec<Url>,
    /// Where the next call starts, so that the FEs share the calls.
    next: AtomicUsize,
    health: Mutex<Health>,
    address_map: BTreeMap<String, String>,
    allowed: Option<Vec<AllowedBackend>>,
}

/// What was learned about the FEs; a hint that is never relied on.
#[derive(Debug, Default)]
struct Health {
    aside_until: BTreeMap<Url, Instant>,
    leader: Option<Url>,
}

impl Client {
    /// `load_urls`: FE addresses `http[s]://host:port`; those of the data source when empty.
    pub fn new(datasource: &Datasource, load_urls: &[String]) -> Result<Self, Problem> {
        let urls = if load_urls.is_empty() { &datasource.load_urls } else { load_urls };
        if urls.is_empty() {
            return Err(Problem::new(
                Code::InvalidSettings,
                format!("no FE HTTP address for {}", datasource.name),
            )
            .hint("set loadUrl in the writer step or load_url in the data source, e.g. fe1:8030"));
        }
        let mut builder = reqwest::Client::builder();
        if let SslMode::VerifyCa { ca } = &datasource.ssl {
            builder = builder.tls_certs_only(authorities(ca)?);
        }
        let http = builder
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE / 3)
            .tcp_keepalive_retries(4)
            .build()
            .map_err(|error| {
                Problem::new(Code::Internal, format!("cannot set up the HTTP client: {error}"))
            })?;
        let mut client = Self {
            http,
            user: datasource.username.clone(),
            password: datasource.password.reveal()?,
            next: AtomicUsize::new(fastrand::usize(..urls.len())),
            frontends: Vec::new(),
            health: Mutex::default(),
            address_map: datasource.address_map.clone(),
            allowed: datasource.allowed_backends.clone(),
        };
        for text in urls {
            let frontend = client.mapped(parse_base(text)?).map_err(|error| error.problem())?;
            client.frontends.push(frontend);
        }
        Ok(client)
    }

    /// Begins the transaction. `headers`: `timeout`, `idle_transaction_timeout`, `warehouse`. A BE that cannot be
    /// reached makes the FE choose another one, a few times; nothing was begun then.
    pub async fn begin(&self, target: TxnTarget<'_>, headers: &HeaderMap) -> Result<Begun, CallError> {
        let mut tries = 1;
        loop {
            match self.call(Method::POST, "/api/transaction/begin", Some(target), headers, CALL_TIMEOUT).await
            {
                Ok(Answered { by, redirected_by, answer }) => {
                    let host = host_of(&by);
                    let Some(txn_id) = answer.txn_id else {
                        return Err(CallError::Refused { host, answer: Box::new(answer) });
                    };
                    // Only the leader redirects a begin to a BE.
                    self.health().leader = redirected_by;
                    return Ok(Begun { txn_id, backend: by });
                }
                Err(CallError::Connect { redirected: true, .. }) if tries < BEGIN_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one body to the transaction's BE. An answer may come before the body has ended: it stands. `patience` is
    /// how long the whole request may take.
    pub async fn load(
        &self,
        target: TxnTarget<'_>,
        backend: &Url,
        headers: &HeaderMap,
        body: Body,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        let url = with_path(backend, "/api/transaction/load");
        let request = self.request(Method::PUT, &url, Some(target)).headers(headers.clone()).body(body);
        self.answered(&url, true, request.timeout(patience)).await?.into_ok(&url)
    }

    /// Asks an FE which BE takes the plain load of `target`; nothing is begun by that. The BE is good for one load.
    pub async fn choose_backend(&self, target: TxnTarget<'_>, headers: &HeaderMap) -> Result<Url, CallError> {
        Ok(self.redirect_of_load(target, headers).await?.backend)
    }

    /// As [`Client::choose_backend`], with the address under which the FE knows the BE. The FE checks login and right to
    /// insert before it tells.
    pub async fn redirect_of_load(
        &self,
        target: TxnTarget<'_>,
        headers: &HeaderMap,
    ) -> Result<Redirect, CallError> {
        let path = stream_load_path(target);
        let mut last = None;
        for frontend in self.frontends_to_try() {
            match self.redirected_away(with_path(&frontend, &path), target, headers).await {
                Err(error @ CallError::Connect { redirected: false, .. }) => {
                    self.put_aside(frontend);
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.expect("a client has at least one FE"))
    }

    /// Follows the redirects of a plain load, without its body, to the first node that is no FE of ours: it would take
    /// the request for an empty load.
    async fn redirected_away(
        &self,
        mut url: Url,
        target: TxnTarget<'_>,
        headers: &HeaderMap,
    ) -> Result<Redirect, CallError> {
        for hop in 0..MAX_HOPS {
            if !self.is_allowed(&url) {
                return Err(CallError::NotAllowed { host: host_of(&url) });
            }
            let request = self.request(Method::PUT, &url, Some(target)).headers(headers.clone());
            // The FE drops the connection after its answer; some versions forget to.
            let request = request.header(EXPECT, "100-continue").header(CONNECTION, "close");
            let request = request.header(CONTENT_LENGTH, 0).timeout(CALL_TIMEOUT);
            match self.answered(&url, hop > 0, request).await? {
                Reply::Answer(answer) => {
                    return Err(CallError::Refused { host: host_of(&url), answer: Box::new(answer) });
                }
                Reply::Redirect(location) => {
                    let named = named_target(&url, &location)?;
                    let registered = host_of(&named);
                    url = self.mapped(named)?;
                    if !self.frontends.iter().any(|frontend| host_of(frontend) == host_of(&url)) {
                        return Ok(Redirect { registered, backend: with_path(&url, "/") });
                    }
                }
            }
        }
        Err(CallError::BadRedirect {
            host: host_of(&url),
            location: format!("more than {MAX_HOPS} redirects"),
        })
    }

    /// Loads one body as a transaction of its own, which the BE commits before it answers. An error says nothing about
    /// the rows, except for [`CallError::Connect`]: ask [`Client::load_state`]. `patience`: for the whole request.
    pub async fn stream_load(
        &self,
        target: TxnTarget<'_>,
        backend: &Url,
        headers: &HeaderMap,
        body: Body,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        let url = with_path(backend, &stream_load_path(target));
        if !self.is_allowed(&url) {
            return Err(CallError::NotAllowed { host: host_of(&url) });
        }
        let request = self.request(Method::PUT, &url, Some(target)).headers(headers.clone()).body(body);
        match self.answered(&url, true, request.timeout(patience)).await? {
            Reply::Answer(answer) if answer.is_loaded() => Ok(answer),
            other => other.into_ok(&url),
        }
    }

    /// Asks the transaction's BE to make everything loaded so far durable. Not idempotent: after a lost answer ask
    /// [`Client::load_state`].
    pub async fn prepare(
        &self,
        target: TxnTarget<'_>,
        backend: &Url,
        headers: &HeaderMap,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        let url = with_path(backend, "/api/transaction/prepare");
        let request = self.request(Method::POST, &url, Some(target)).headers(headers.clone());
        let request = request.header(CONTENT_LENGTH, 0).timeout(patience);
        self.answered(&url, true, request).await?.into_ok(&url)
    }

    /// Commits a prepared transaction through any FE. Only the coordinator calls this. `wait_s`: how long the server
    /// may wait for publication; afterwards it answers FAILED although the transaction is committed.
    pub async fn commit(
        &self,
        database: &str,
        table: &str,
        label: &Label,
        wait_s: u32,
    ) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("timeout"), HeaderValue::from(wait_s));
        let patience = CALL_TIMEOUT + Duration::from_secs(wait_s.into());
        let target = TxnTarget { database, table, label };
        Ok(self.call(Method::POST, "/api/transaction/commit", Some(target), &headers, patience).await?.answer)
    }

    pub async fn rollback(&self, database: &str, table: &str, label: &Label) -> Result<Answer, CallError> {
        let target = TxnTarget { database, table, label };
        let path = "/api/transaction/rollback";
        Ok(self.call(Method::POST, path, Some(target), &HeaderMap::new(), CALL_TIMEOUT).await?.answer)
    }

    /// The state of a label, asked of the leader where it is known: a follower's may lag.
    pub async fn load_state(&self, database: &str, label: &Label) -> Result<TxnState, CallError> {
        let path = format!("/api/{}/get_load_state?label={}", encode(database), encode(label.as_str()));
        let Answered { by, answer, .. } =
            self.call(Method::GET, &path, None, &HeaderMap::new(), CALL_TIMEOUT).await?;
        answer.state.ok_or_else(|| CallError::Refused { host: host_of(&by), answer: Box::new(answer) })
    }

    /// Aborts a running transaction at the FE alone, for when its BE is gone or when it is a plain load.
    pub async fn cancel(&self, database: &str, label: &Label) -> Result<Answer, CallError> {
        let path = format!("/api/{}/{}/_cancel", encode(database), encode(label.as_str()));
        let answered = self.ask(Method::POST, &path, None, &HeaderMap::new(), CALL_TIMEOUT).await?;
        // Only the leader answers a cancel. Servers without transactions never redirect anything else to it.
        self.health().leader = Some(answered.by.clone());
        Ok(answered.into_ok()?.answer)
    }

    /// The first lines of the log a refusal points to, fetched from its BE without credentials; holds row values.
    /// Empty when it cannot be had.
    pub async fn error_log(&self, error_url: &str) -> String {
        let Ok(url) = Url::parse(error_url) else {
            return String::new();
        };
        let Ok(url) = self.mapped(url) else {
            return String::new();
        };
        if !self.is_allowed(&url) {
            return String::new();
        }
        let Ok(mut response) = self.http.get(url).timeout(CONNECT_TIMEOUT).send().await else {
            return String::new();
        };
        if response.status() != StatusCode::OK {
            return String::new();
        }
        let mut text = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() >= ERROR_LOG_BYTES {
                text.truncate(ERROR_LOG_BYTES);
                break;
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A call that must be answered OK.
    async fn call(
        &self,
        method: Method,
        path: &str,
        target: Option<TxnTarget<'_>>,
        headers: &HeaderMap,
        patience: Duration,
    ) -> Result<Answered, CallError> {
        self.ask(method, path, target, headers, patience).await?.into_ok()
    }

    /// A call without a body: tried at each FE until one accepts the connection, then followed to whoever answers it.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        target: Option<TxnTarget<'_>>,
        headers: &HeaderMap,
        patience: Duration,
    ) -> Result<Answered, CallError> {
        let mut last = None;
        for frontend in self.frontends_to_try() {
            let request = |url: &Url| {
                let request = self.request(method.clone(), url, target).headers(headers.clone());
                request.header(CONTENT_LENGTH, 0).timeout(patience)
            };
            match self.follow(with_path(&frontend, path), request).await {
                Err(error @ CallError::Connect { redirected: false, .. }) => {
                    self.put_aside(frontend);
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.expect("a client has at least one FE"))
    }

    async fn follow(
        &self,
        mut url: Url,
        request: impl Fn(&Url) -> reqwest::RequestBuilder,
    ) -> Result<Answered, CallError> {
        let mut redirected_by = None;
        for _hop in 0..MAX_HOPS {
            if !self.is_allowed(&url) {
                return Err(CallError::NotAllowed { host: host_of(&url) });
            }
            match self.answered(&url, redirected_by.is_some(), request(&url)).await? {
                Reply::Answer(answer) => {
                    return Ok(Answered { by: with_path(&url, "/"), redirected_by, answer });
                }
                Reply::Redirect(location) => {
                    let next = self.redirect_target(&url, &location)?;
                    redirected_by = Some(with_path(&url, "/"));
                    url = next;
                }
            }
        }
        Err(CallError::BadRedirect {
            host: host_of(&url),
            location: format!("more than {MAX_HOPS} redirects"),
        })
    }

    fn request(&self, method: Method, url: &Url, target: Option<TxnTarget<'_>>) -> reqwest::RequestBuilder {
        let request =
            self.http.request(method, url.clone()).basic_auth(&self.user, Some(self.password.expose()));
        match target {
            None => request,
            Some(target) => request
                .header("label", target.label.as_str())
                .header("db", target.database.as_bytes())
                .header("table", target.table.as_bytes()),
        }
    }

    async fn answered(
        &self,
        url: &Url,
        redirected: bool,
        request: reqwest::RequestBuilder,
    ) -> Result<Reply, CallError> {
        let host = host_of(url);
        let response = match request.send().await {
            Ok(response) => response,
            Err(source) if source.is_connect() => {
                return Err(CallError::Connect { host, redirected, source });
            }
            Err(source) => {
                return Err(CallError::NoAnswer { host, source: Some(source) });
            }
        };
        let status = response.status();
        if status == StatusCode::TEMPORARY_REDIRECT {
            let location =
                response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            return Ok(Reply::Redirect(location.to_owned()));
        }
        let body = response
            .bytes()
            .await
            .map_err(|source| CallError::NoAnswer { host: host.clone(), source: Some(source) })?;
        let answer = Answer::parse(&body);
        match (status, answer) {
            (StatusCode::UNAUTHORIZED, answer) => Err(CallError::Unauthorized {
                host,
                user: self.user.clone(),
                message: answer.map(|answer| answer.message).unwrap_or_default(),
            }),
            (StatusCode::OK, Some(answer)) => Ok(Reply::Answer(answer)),
            (status, _) => Err(CallError::Malformed { host, status, body: excerpt(&body) }),
        }
    }

    fn redirect_target(&self, from: &Url, location: &str) -> Result<Url, CallError> {
        self.mapped(named_target(from, location)?)
    }

    /// How a node that is registered as `address` (`host:port`) is reached from here, whether it is or not.
    pub fn reachable(&self, address: &str) -> Result<Url, CallError> {
        let unusable = |_| CallError::BadRedirect { host: address.to_owned(), location: address.to_owned() };
        let url = self.mapped(parse_base(address).map_err(unusable)?)?;
        if self.is_allowed(&url) { Ok(url) } else { Err(CallError::NotAllowed { host: host_of(&url) }) }
    }

    /// The FEs, after the address map.
    pub fn frontends(&self) -> &[Url] {
        &self.frontends
    }

    /// Whether the node speaks HTTP; asked without credentials. The path is known to FE and BE alike.
    pub async fn speaks_http(&self, node: &Url) -> Result<(), CallError> {
        let (url, host) = (with_path(node, "/api/health"), host_of(node));
        match self.http.get(url).timeout(CONNECT_TIMEOUT).send().await {
            Ok(_whatever_it_says) => Ok(()),
            Err(source) if source.is_connect() => Err(CallError::Connect { host, redirected: false, source }),
            Err(source) => Err(CallError::NoAnswer { host, source: Some(source) }),
        }
    }

    /// The address as this network reaches it.
    fn mapped(&self, mut url: Url) -> Result<Url, CallError> {
        let registered = host_of(&url);
        let Some(reachable) = self.address_map.get(&registered) else {
            return Ok(url);
        };
        let unusable = || CallError::BadRedirect { host: registered.clone(), location: reachable.clone() };
        let parsed = parse_base(reachable).map_err(|_| unusable())?;
        url.set_host(parsed.host_str()).map_err(|_| unusable())?;
        url.set_port(parsed.port_or_known_default()).map_err(|()| unusable())?;
        Ok(url)
    }

    fn is_allowed(&self, url: &Url) -> bool {
        let Some(allowed) = &self.allowed else { return true };
        let host = url.host_str().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        allowed.iter().any(|entry| match entry {
            AllowedBackend::Network(network) => address.is_some_and(|address| network.contains(&address)),
            AllowedBackend::Host(name) => name.eq_ignore_ascii_case(host),
        })
    }

    /// All FEs, the leader first where it is known, those put aside last.
    fn frontends_to_try(&self) -> Vec<Url> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.frontends.len();
        let health = self.health();
        let mut order: Vec<Url> = health.leader.iter().cloned().collect();
        order.extend((0..count).map(|step| self.frontends[(start + step) % count].clone()));
        let mut seen = BTreeSet::new();
        order.retain(|url| seen.insert(url.clone()));
        let now = Instant::now();
        order.sort_by_key(|url| health.aside_until.get(url).is_some_and(|until| now < *until));
        order
    }

    fn put_aside(&self, frontend: Url) {
        let mut health = self.health();
        if health.leader.as_ref() == Some(&frontend) {
            health.leader = None;
        }
        health.aside_until.insert(frontend, Instant::now() + PUT_ASIDE);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Hints stay usable whatever a panicking holder left behind.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer, and who gave it.
struct Answered {
    /// Base URL, after the address map.
    by: Url,
    /// The node before it, if the call was redirected.
    redirected_by: Option<Url>,
    answer: Answer,
}

impl Answered {
    fn into_ok(self) -> Result<Self, CallError> {
        if self.answer.is_ok() {
            return Ok(self);
        }
        Err(CallError::Refused { host: host_of(&self.by), answer: Box::new(self.answer) })
    }
}

enum Reply {
    Answer(Answer),
    Redirect(String),
}

impl Reply {
    /// The answer of a node that has nobody to redirect to.
    fn into_ok(self, url: &Url) -> Result<Answer, CallError> {
        match self {
            Self::Answer(answer) if answer.is_ok() => Ok(answer),
            Self::Answer(answer) => Err(CallError::Refused { host: host_of(url), answer: Box::new(answer) }),
            Self::Redirect(location) => Err(CallError::BadRedirect { host: host_of(url), location }),
        }
    }
}

/// Where a redirect leads, by the name that the node gave.
fn named_target(from: &Url, location: &str) -> Result<Url, CallError> {
    let unusable = || CallError::BadRedirect { host: host_of(from), location: location.to_owned() };
    let mut url = from.join(location).map_err(|_| unusable())?;
    if location.is_empty() || !matches!(url.scheme(), "http" | "https") {
        return Err(unusable());
    }
    // Some relatives of StarRocks put credentials into the redirect; ours are attached by us alone.
    url.set_username("").map_err(|()| unusable())?;
    url.set_password(None).map_err(|()| unusable())?;
    Ok(url)
}

/// `http[s]://host:port`, or `host:port` for plain HTTP.
fn parse_base(text: &str) -> Result<Url, Problem> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match Url::parse(&with_scheme) {
        Ok(url) if url.has_host() && matches!(url.scheme(), "http" | "https") => Ok(with_path(&url, "/")),
        _ => Err(Problem::new(Code::InvalidSettings, format!("`{text}` is not an address"))
            .hint("write host:port or http://host:port")),
    }
}

/// The same node, another path; `path` may carry a query.
fn with_path(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    url
}

fn stream_load_path(target: TxnTarget<'_>) -> String {
    format!("/api/{}/{}/_stream_load", encode(target.database), encode(target.table))
}

/// `host:port`
pub fn host_of(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, PATH_SEGMENT).to_string()
}

/// The beginning of an unreadable answer, on one line.
fn excerpt(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The certificates that an `https` FE's own must come from.
fn authorities(ca: &Path) -> Result<Vec<reqwest::Certificate>, Problem> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Problem::new(Code::InvalidSettings, format!("cannot read the authority of `ssl_ca`: {why}"))
            .at(ca.display().to_string())
    };
    let text = std::fs::read(ca).map_err(|error| unreadable(&error))?;
    match reqwest::Certificate::from_pem_bundle(&text) {
        Ok(all) if all.is_empty() => Err(unreadable(&"there is no certificate in this file")),
        all => all.map_err(|error| unreadable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::testing::{client, datasource};

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn a_redirect_is_mapped_and_stripped_of_credentials() {
        let client = client(&datasource());
        let target = client.redirect_target(&url("http://fe1:8030/api/x"), "http://u:p@be-0:8040/api/x?a=1");
        assert_eq!(target.expect("usable").as_str(), "http://10.1.2.3:18040/api/x?a=1");
        assert!(client.redirect_target(&url("http://fe1:8030/"), "").is_err());
        assert!(client.redirect_target(&url("http://fe1:8030/"), "file:///etc/passwd").is_err());
    }

    /// Answers every request with the state of a label, under a certificate of the authority that is returned.
    async fn https_frontend() -> (u16, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("an address");
        params.distinguished_name.push(DnType::CommonName, "fe");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).expect("they fit");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _request = stream.read(&mut [0; 4096]).await;
                let body = r#"{"status":"OK","state":"VISIBLE"}"#;
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _gone = stream.write_all((head + body).as_bytes()).await;
            }
        });
        (port, authority)
    }

    #[tokio::test]
    async fn an_https_frontend_is_trusted_by_the_authority_of_its_data_source_alone() {
        use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};
        use starlift_common::task::AttemptKey;

        let (port, authority) = https_frontend().await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), authority).expect("it is writable");
        let mut datasource = datasource();
        datasource.load_urls = vec![format!("https://127.0.0.1:{port}")];
        let attempt =
            AttemptKey { task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(0) }, epoch: Epoch(1) };
        let label = Label::part("sl", attempt, 0);
        assert!(client(&datasource).load_state("dw", &label).await.is_err(), "nobody vouches for it");
        datasource.ssl = SslMode::VerifyCa { ca: file.path().to_owned() };
        let state = client(&datasource).load_state("dw", &label).await;
        assert_eq!(state.expect("it answers"), TxnState::Visible);
        datasource.ssl = SslMode::VerifyCa { ca: "/nowhere".into() };
        let refused = Client::new(&datasource, &[]).map(|_| ()).expect_err("there is no such file");
        assert!(refused.to_string().starts_with("/nowhere: cannot read the authority"), "{refused}");
    }

    #[test]
    fn only_named_backends_get_credentials_when_any_is_named() {
        let mut datasource = datasource();
        datasource.allowed_backends = Some(vec![
            AllowedBackend::Network("10.0.0.0/8".parse().expect("a network")),
            AllowedBackend::Host("be.example".into()),
        ]);
        let client = client(&datasource);
        assert!(client.is_allowed(&url("http://10.9.8.7:8040/")));
        assert!(client.is_allowed(&url("http://BE.example:8040/")));
        assert!(!client.is_allowed(&url("http://192.168.0.1:8040/")));
        assert!(!client.is_allowed(&url("http://fe1:8030/")));
    }

    #[tokio::test]
    async fn the_leader_is_asked_first_and_a_dead_fe_last() {
        let client = client(&datasource());
        client.put_aside(url("http://fe1:8030/"));
        client.health().leader = Some(url("http://fe9:8030/"));
        let order: Vec<String> = client.frontends_to_try().iter().map(host_of).collect();
        assert_eq!(order, ["fe9:8030", "fe2:8030", "fe1:8030"]);
    }

    #[test]
    fn names_are_encoded_in_paths() {
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
    }
}

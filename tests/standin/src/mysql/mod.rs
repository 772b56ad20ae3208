//! The MySQL port: opensrv-mysql speaks the protocol, `wire.rs` makes its greeting StarRocks', a thread per statement
//! runs `sql/`, and a bounded channel carries rows from there to the socket. It decides nothing about SQL.

mod password;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use opensrv_mysql::{
    AsyncMysqlIntermediary, AsyncMysqlShim, Column, ColumnFlags, ErrorKind, InitWriter, IntermediaryOptions,
    OkResponse, ParamParser, QueryResultWriter, RowWriter, StatementMetaWriter, StatusFlags, ToMysqlValue,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::sql::{Entry, Gone, Reply, Server, Session, Sessions, Sink, SqlError};
use crate::store::Store;
use crate::view::ClusterView;
use wire::{Input, Output};

/// Replies between a statement's thread and the socket: with chunks of 128 KiB, about half a megabyte per reader.
const REPLIES_WAITING: usize = 4;

/// How the port presents itself.
#[derive(Clone)]
pub struct MysqlSettings {
    /// The administrator and its password; the cluster knows the others.
    pub credentials: (String, String),
    /// The version of the greeting: `5.1.0` of old servers, `8.0.33` of newer ones.
    pub server_version: String,
    /// Nodes and transactions for SHOW; `None` refuses those statements.
    pub cluster: Option<Arc<dyn ClusterView>>,
}

/// Answers clients until `shutdown`; then every connection is cut.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    settings: MysqlSettings,
    shutdown: CancellationToken,
) {
    let server =
        Arc::new(Server { store, cluster: settings.cluster.clone(), sessions: Arc::<Sessions>::default() });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(Arc::clone(&server), settings.clone(), stream, peer));
                }
                Err(error) => tracing::warn!(error = %error, "a connection was not accepted"),
            },
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn connection(server: Arc<Server>, settings: MysqlSettings, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let registration = server.sessions.register(String::new(), peer.to_string());
    let entry = Arc::clone(&registration.entry);
    let refusal = Arc::<OnceLock<String>>::default();
    let (read, write) = stream.into_split();
    let client = Client {
        server,
        settings,
        session: Some(Session::new(registration)),
        entry: Arc::clone(&entry),
        salt: password::salt(),
        refusal: Arc::clone(&refusal),
    };
    let options = IntermediaryOptions {
        process_use_statement_on_query: true,
        reject_connection_on_dbname_absence: false,
    };
    let conversation = AsyncMysqlIntermediary::run_with_options(
        client,
        Input::new(read),
        Output::new(write, refusal),
        &options,
    );
    tokio::select! {
        biased;
        () = entry.cancel.cancelled() => {}
        result = Box::pin(conversation) => if let Err(error) = result {
            tracing::debug!(error = %error, "a MySQL connection ended");
        },
    }
}

/// One client, as opensrv-mysql calls it.
struct Client {
    server: Arc<Server>,
    settings: MysqlSettings,
    /// Away while a statement runs.
    session: Option<Session>,
    entry: Arc<Entry>,
    salt: [u8; 20],
    /// Why the login is refused: `Output` puts it into the answer.
    refusal: Arc<OnceLock<String>>,
}

#[async_trait]
impl<W: tokio::io::AsyncWrite + Send + Unpin> AsyncMysqlShim<W> for Client {
    type Error = io::Error;

    fn version(&self) -> String {
        self.settings.server_version.clone()
    }

    fn connect_id(&self) -> u32 {
        self.entry.id
    }

    fn salt(&self) -> [u8; 20] {
        self.salt
    }

    async fn authenticate(&self, _plugin: &str, username: &[u8], salt: &[u8], auth_data: &[u8]) -> bool {
        let user = String::from_utf8_lossy(username).into_owned();
        let (administrator, its_password) = &self.settings.credentials;
        let expected = match &self.settings.cluster {
            _ if user == *administrator => Some(its_password.clone()),
            Some(cluster) => cluster.password_of(&user),
            None => None,
        };
        let known = expected.is_some_and(|expected| password::matches(&expected, salt, auth_data));
        if !known {
            let using = if auth_data.is_empty() { "NO" } else { "YES" };
            let _ = self.refusal.set(format!(
                "Access denied for user '{user}'@'{}' (using password: {using})",
                self.entry.host
            ));
        }
        self.entry.name(user);
        known
    }

    async fn on_prepare<'a>(&'a mut self, _: &'a str, info: StatementMetaWriter<'a, W>) -> io::Result<()> {
        let text = "This command is not supported in the prepared statement protocol yet";
        info.error(ErrorKind::ER_UNSUPPORTED_PS, text.as_bytes()).await
    }

    async fn on_execute<'a>(
        &'a mut self,
        _: u32,
        _: ParamParser<'a>,
        results: QueryResultWriter<'a, W>,
    ) -> io::Result<()> {
        results.error(ErrorKind::ER_UNKNOWN_STMT_HANDLER, b"Unknown prepared statement".as_slice()).await
    }

    async fn on_close<'a>(&'a mut self, _: u32)
    where
        W: 'async_trait,
    {
    }

    async fn on_init<'a>(&'a mut self, db: &'a str, writer: InitWriter<'a, W>) -> io::Result<()> {
        let session = self.session.as_mut().ok_or_else(broken)?;
        // `catalog.db` is a database of the only catalogue.
        let name = db.rsplit('.').next().unwrap_or(db);
        match session.enter(&self.server, name) {
            Ok(()) => writer.ok().await,
            Err(SqlError { kind, message }) => writer.error(kind, message.as_bytes()).await,
        }
    }

    async fn on_query<'a>(&'a mut self, text: &'a str, results: QueryResultWriter<'a, W>) -> io::Result<()> {
        let mut session = self.session.take().ok_or_else(broken)?;
        let (replies, mut received) = mpsc::channel(REPLIES_WAITING);
        let server = Arc::clone(&self.server);
        let owned = text.to_owned();
        self.entry.begin(text);
        let mut guard = KillOnDrop(Some(Arc::clone(&self.entry)));
        let statement = tokio::task::spawn_blocking(move || {
            // A client that left is noticed by whoever sends; there is nobody to tell.
            let _ = crate::sql::run(&server, &mut session, &owned, &mut Replies(replies));
            session
        });
        send(results, &mut received, text).await?;
        guard.0 = None;
        self.session = Some(statement.await.map_err(io::Error::other)?);
        self.entry.end();
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::other("the session was lost with an earlier statement")
}

/// Stops the statement of a client that went away.
struct KillOnDrop(Option<Arc<Entry>>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(entry) = &self.0 {
            entry.kill_statement();
        }
    }
}

struct Replies(mpsc::Sender<Reply>);

impl Sink for Replies {
    fn send(&mut self, reply: Reply) -> Result<(), Gone> {
        self.0.blocking_send(reply).map_err(|_| Gone)
    }

    fn offer(&mut self, reply: Reply) -> Result<Option<Reply>, Gone> {
        match self.0.try_send(reply) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(reply)) => Ok(Some(reply)),
            Err(TrySendError::Closed(_)) => Err(Gone),
        }
    }
}

/// Sends replies as packets until the last.
async fn send<W: tokio::io::AsyncWrite + Send + Unpin>(
    results: QueryResultWriter<'_, W>,
    replies: &mut mpsc::Receiver<Reply>,
    text: &str,
) -> io::Result<()> {
    // Column definitions are borrowed until the end, so each result has a place of its own: one per statement.
    let places: Vec<OnceLock<Vec<Column>>> = text.split(';').map(|_| OnceLock::new()).collect();
    let mut places = places.iter();
    let mut results = results;
    while let Some(reply) = replies.recv().await {
        match reply {
            Reply::Done { affected, more } => {
                let status_flags =
                    if more { StatusFlags::SERVER_MORE_RESULTS_EXISTS } else { StatusFlags::empty() };
                results = results
                    .complete_one(OkResponse {
                        affected_rows: affected,
                        status_flags,
                        ..OkResponse::default()
                    })
                    .await?;
            }
            Reply::Failed(SqlError { kind, message }) => {
                return results.error(kind, message.as_bytes()).await;
            }
            Reply::Columns(columns) => {
                let described = columns
                    .into_iter()
                    .map(|column| Column {
                        table: String::new(),
                        column: column.name,
                        coltype: crate::render::wire_type(&column.kind),
                        colflags: ColumnFlags::empty(),
                    })
                    .collect();
                let place = places.next().ok_or_else(broken)?.get_or_init(|| described);
                match rows(results.start(place).await?, place.len(), replies).await? {
                    Some(next) => results = next,
                    None => return Ok(()),
                }
            }
            Reply::Rows(_) | Reply::Finished => return Err(broken()),
        }
    }
    results.no_more_results().await
}

/// Sends the rows of one result; `None` when it ended in an error.
async fn rows<'a, W: tokio::io::AsyncWrite + Send + Unpin>(
    mut writer: RowWriter<'a, W>,
    columns: usize,
    replies: &mut mpsc::Receiver<Reply>,
) -> io::Result<Option<QueryResultWriter<'a, W>>> {
    loop {
        match replies.recv().await {
            Some(Reply::Rows(chunk)) => {
                let mut start = 0;
                for &end in &chunk.ends {
                    writer.write_col(Encoded(&chunk.bytes[start..end]))?;
                    for _ in 1..columns {
                        writer.write_col(Encoded(&[]))?;
                    }
                    writer.end_row().await?;
                    start = end;
                }
            }
            Some(Reply::Finished) => return writer.finish_one().await.map(Some),
            Some(Reply::Failed(SqlError { kind, message })) => {
                writer.finish_error(kind, &message.into_bytes()).await?;
                return Ok(None);
            }
            Some(Reply::Columns(_) | Reply::Done { .. }) | None => return Err(broken()),
        }
    }
}

/// A whole row that is encoded already: given as the value of its first column, the others being empty.
struct Encoded<'a>(&'a [u8]);

impl ToMysqlValue for Encoded<'_> {
    fn to_mysql_text<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.0)
    }

    fn to_mysql_bin<W: io::Write>(&self, _: &mut W, _: &Column) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "rows are encoded as text"))
    }
}

//! A connection for one big SELECT: login, session statements, the statement itself, and its packets in the receive
//! buffer. Statements that answer with little go through `mysql_async`; this one exists so that no row becomes objects.
//! Asks neither for compression nor for `CLIENT_DEPRECATE_EOF`: one form serves MySQL, MariaDB and StarRocks.

use std::io;
use std::ops::Range;

use mysql_async::consts::CapabilityFlags;
use mysql_async::{DriverError, Error, ServerError};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{Column, ErrPacket, HandshakePacket, SslRequest};
use mysql_common::proto::MySerialize;
use socket2::{SockRef, TcpKeepalive};
use starlift_common::datasource::{Datasource, SslMode};
use starlift_remote::mysql::KEEP_ALIVE;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::login::{Account, LoginError, log_in};
use super::packets::{Malformed, PacketBuffer};
use super::tls;
use crate::source::Mark;

/// utf8mb4_general_ci, of every server since MySQL 5.5.3.
const COLLATION: u8 = 45;
/// What a server must be able to do: every one since MySQL 4.1 is.
const NEEDED: CapabilityFlags =
    CapabilityFlags::CLIENT_PROTOCOL_41.union(CapabilityFlags::CLIENT_SECURE_CONNECTION);
/// What we send and understand, as far as the server does too.
pub(super) const CAPABILITIES: CapabilityFlags = NEEDED
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_LONG_PASSWORD)
    .union(CapabilityFlags::CLIENT_LONG_FLAG)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS);
/// Longest packet that we are ready for, as told to the server.
pub(super) const PACKET_BYTES_MAX: u32 = 1 << 30;
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;
/// First byte of an error; no row begins with it.
pub(super) const ERROR: u8 = 0xff;
/// First byte of the packet behind columns and behind rows. A row that begins with it is longer, as its first cell is.
const END: u8 = 0xfe;

/// Logged in.
pub(super) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    packets: PacketBuffer,
    /// As `KILL` takes it.
    pub id: u32,
}

impl Connection {
    /// Connects to one host and logs in.
    pub(super) async fn open(
        datasource: &Datasource,
        host: &str,
        account: &Account<'_>,
    ) -> Result<Self, LoginError> {
        let mut stream = TcpStream::connect((host, datasource.port)).await.map_err(Error::from)?;
        set_options(&stream).map_err(Error::from)?;
        let mut packets = PacketBuffer::new();
        let greeting = receive(&mut stream, &mut packets).await?;
        let greeting = packets.payload(greeting);
        refuse_error(greeting)?;
        let greeting = ParseBuf(greeting).parse::<HandshakePacket<'_>>(()).map_err(malformed)?.into_owned();
        if !greeting.capabilities().contains(NEEDED) {
            return Err(malformed("the server is older than MySQL 4.1").into());
        }
        let mut capabilities = CAPABILITIES & greeting.capabilities();
        let mut stream = if wants_tls(&datasource.ssl, greeting.capabilities())? {
            capabilities |= CapabilityFlags::CLIENT_SSL;
            let request = SslRequest::new(capabilities, PACKET_BYTES_MAX, COLLATION);
            send(&mut stream, &mut packets, &request).await?;
            if packets.holds_bytes() {
                return Err(malformed("bytes came ahead of the encryption").into());
            }
            Either::Right(Box::new(tls::encrypt(&datasource.ssl, host, stream).await?))
        } else {
            Either::Left(stream)
        };
        log_in(&mut stream, &mut packets, &greeting, account, capabilities).await?;
        Ok(Self { stream, packets, id: greeting.connection_id() })
    }

    /// A statement without rows.
    pub(super) async fn execute(&mut self, statement: &str) -> Result<(), Error> {
        match self.ask(statement).await? {
            None => Ok(()),
            Some(_) => Err(malformed("rows came where none were asked for")),
        }
    }

    /// Starts a statement with rows; its columns. The rows' packets come next.
    pub(super) async fn select(&mut self, statement: &str) -> Result<Vec<Column>, Error> {
        let count = self.ask(statement).await?.ok_or_else(|| malformed("no rows came"))?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let column = receive(&mut self.stream, &mut self.packets).await?;
            let column = self.packets.payload(column);
            refuse_error(column)?;
            columns.push(ParseBuf(column).parse::<Column>(()).map_err(malformed)?);
        }
        let end = receive(&mut self.stream, &mut self.packets).await?;
        let end = self.packets.payload(end);
        refuse_error(end)?;
        if is_end(end) { Ok(columns) } else { Err(malformed("the columns have no end")) }
    }

    /// Sends a statement; the number of columns when rows follow.
    async fn ask(&mut self, statement: &str) -> Result<Option<usize>, Error> {
        self.packets.restart();
        let command = [&[COM_QUERY], statement.as_bytes()].concat();
        send(&mut self.stream, &mut self.packets, command.as_slice()).await?;
        let answer = receive(&mut self.stream, &mut self.packets).await?;
        let answer = self.packets.payload(answer);
        refuse_error(answer)?;
        match answer {
            [0, ..] => Ok(None),
            [count @ 1..=250] => Ok(Some(usize::from(*count))),
            [0xfc, low, high] => Ok(Some(usize::from(u16::from_le_bytes([*low, *high])))),
            _ => Err(malformed("an answer to the statement that is none")),
        }
    }

    /// The next packet among those received; `None`: [`Self::receive`] first.
    #[inline]
    pub(super) fn next_packet(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        self.packets.next()
    }

    /// Rows begin. From here on the reader may go back to a [`Self::mark`] as long as it has not called [`Self::receive`].
    pub(super) fn hold_splits(&mut self) {
        self.packets.hold_splits();
    }

    #[inline]
    pub(super) fn mark(&self) -> Mark {
        self.packets.mark()
    }

    pub(super) fn rewind(&mut self, mark: Mark) {
        self.packets.rewind(mark);
    }

    /// Valid until the next call of [`Self::receive`].
    #[inline]
    pub(super) fn packet(&self, range: Range<usize>) -> &[u8] {
        self.packets.payload(range)
    }

    /// Waits for more of the answer, if no whole packet is there. May be dropped and called again: nothing is lost.
    pub(super) async fn receive(&mut self) -> Result<(), Error> {
        if self.packets.holds_packet() {
            self.packets.admit_split();
            return Ok(());
        }
        match self.packets.receive(&mut self.stream).await? {
            0 => Err(closed()),
            _ => Ok(()),
        }
    }

    /// Says goodbye, or the server would count and log an aborted client. Best effort.
    pub(super) async fn quit(&mut self) {
        self.packets.restart();
        let _gone = send(&mut self.stream, &mut self.packets, [COM_QUIT].as_slice()).await;
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// Whether columns or rows end here.
#[inline]
pub(super) fn is_end(packet: &[u8]) -> bool {
    packet.len() < 9 && packet.first() == Some(&END)
}

pub(super) async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    packets: &mut PacketBuffer,
) -> Result<Range<usize>, Error> {
    loop {
        if let Some(packet) = packets.next().map_err(malformed)? {
            return Ok(packet);
        }
        if packets.receive(stream).await? == 0 {
            return Err(closed());
        }
    }
}

pub(super) async fn send<S, P>(stream: &mut S, packets: &mut PacketBuffer, payload: &P) -> Result<(), Error>
where
    S: AsyncWrite + Unpin,
    P: MySerialize + ?Sized,
{
    let mut packet = vec![0; 4];
    payload.serialize(&mut packet);
    let length = u32::try_from(packet.len() - 4).ok().filter(|length| *length < 0xff_ffff);
    let length = length.ok_or_else(|| malformed("a statement is longer than 16 MiB"))?;
    packet[..4].copy_from_slice(&length.to_le_bytes());
    packet[3] = packets.take_sequence();
    stream.write_all(&packet).await?;
    Ok(stream.flush().await?)
}

fn wants_tls(ssl: &SslMode, offered: CapabilityFlags) -> Result<bool, Error> {
    let is_offered = offered.contains(CapabilityFlags::CLIENT_SSL);
    match ssl {
        SslMode::Disable => Ok(false),
        SslMode::VerifyCa { .. } if !is_offered => Err(Error::Driver(DriverError::NoClientSslFlagFromServer)),
        SslMode::Prefer | SslMode::VerifyCa { .. } => Ok(is_offered),
    }
}

/// Takes the server's word for an error; any other packet passes.
pub(super) fn refuse_error(packet: &[u8]) -> Result<(), Error> {
    if packet.first() == Some(&ERROR) { Err(error_of(packet)) } else { Ok(()) }
}

/// What an error packet says. Errors ahead of the login have no SQL state.
pub(super) fn error_of(packet: &[u8]) -> Error {
    let capabilities = match packet.get(3) {
        Some(b'#') => CapabilityFlags::CLIENT_PROTOCOL_41,
        _ => CapabilityFlags::empty(),
    };
    match ParseBuf(packet).parse::<ErrPacket<'_>>(capabilities) {
        Ok(ErrPacket::Error(error)) => Error::Server(ServerError {
            code: error.error_code(),
            message: error.message_str().into_owned(),
            state: error.sql_state_ref().map_or_else(String::new, |state| state.as_str().into_owned()),
        }),
        Ok(ErrPacket::Progress(_)) => malformed("a progress report that was not asked for"),
        Err(error) => malformed(error),
    }
}

pub(super) fn malformed(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    io::Error::new(io::ErrorKind::InvalidData, reason).into()
}

fn closed() -> Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
}

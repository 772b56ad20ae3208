//! Makes the bytes of opensrv-mysql those of a StarRocks frontend: the greeting offers StarRocks' capabilities (no
//! CLIENT_DEPRECATE_EOF, so EOF packets stay), a refused login is error 1045, and packets leave in large writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// LONG_FLAG, CONNECT_WITH_DB, PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_ATTRS, PLUGIN_AUTH_LENENC
/// (`MysqlCapability.java`).
const CAPABILITIES: u32 = 0x4 | 0x8 | 0x200 | 0x8000 | 0x8_0000 | 0x10_0000 | 0x20_0000;

/// Bytes gathered before the socket is written.
const BUFFER_BYTES: usize = 256 << 10;

/// What the client sends; its wish for CLIENT_DEPRECATE_EOF, which nobody offered, is dropped.
pub(super) struct Input<R> {
    inner: R,
    /// Bytes read so far, while they matter.
    seen: usize,
}

/// Where the fourth byte of the client's capabilities lies: after the packet header and three more.
const LAST_CAPABILITY_BYTE: usize = 7;

impl<R> Input<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, seen: 0 }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Input<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if self.seen <= LAST_CAPABILITY_BYTE {
            let read = &mut buf.filled_mut()[before..];
            if let Some(byte) = read.get_mut(LAST_CAPABILITY_BYTE - self.seen) {
                *byte &= !1;
            }
            self.seen += read.len();
        }
        Poll::Ready(Ok(()))
    }
}

/// What the server sends.
pub(super) struct Output<W> {
    inner: W,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are on their way already.
    sent: usize,
    stage: Stage,
    refusal: Arc<OnceLock<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Login,
    Commands,
}

impl<W> Output<W> {
    /// `refusal` is set before a login is refused.
    pub(super) fn new(inner: W, refusal: Arc<OnceLock<String>>) -> Self {
        Self { inner, buffer: Vec::new(), sent: 0, stage: Stage::Greeting, refusal }
    }

    /// Takes one packet: a header of four bytes and its payload.
    fn take(&mut self, header: &[u8], payload: &[u8]) {
        match self.stage {
            Stage::Commands => {
                self.buffer.extend_from_slice(header);
                self.buffer.extend_from_slice(payload);
            }
            Stage::Greeting => {
                self.stage = Stage::Login;
                self.packet(header, &greeting(payload));
            }
            Stage::Login => {
                let is_error = payload.first() == Some(&0xff);
                if is_error || payload.first() == Some(&0) {
                    self.stage = Stage::Commands;
                }
                match self.refusal.get() {
                    Some(text) if is_error => self.packet(header, &access_denied(text)),
                    _ => self.packet(header, payload),
                }
            }
        }
    }

    fn packet(&mut self, header: &[u8], payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.buffer.extend_from_slice(&length[..3]);
        self.buffer.push(header[3]);
        self.buffer.extend_from_slice(payload);
    }
}

impl<W: AsyncWrite + Unpin> Output<W> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.buffer[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Output<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= BUFFER_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        self.buffer.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// opensrv-mysql writes each packet as header and payload.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= BUFFER_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        if let [header, payload] = slices
            && header.len() == 4
        {
            self.take(header, payload);
        } else {
            slices.iter().for_each(|slice| self.buffer.extend_from_slice(slice));
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The greeting with StarRocks' capabilities. Layout: protocol, version and a zero, connection id (4), salt (8), filler,
/// lower capabilities (2), charset, status (2), upper capabilities (2), ..
fn greeting(payload: &[u8]) -> Vec<u8> {
    let mut patched = payload.to_vec();
    let version_end = payload.iter().position(|&byte| byte == 0).unwrap_or(payload.len());
    let lower = version_end + 1 + 4 + 8 + 1;
    let bytes = CAPABILITIES.to_le_bytes();
    if let Some(place) = patched.get_mut(lower..lower + 2) {
        place.copy_from_slice(&bytes[..2]);
    }
    if let Some(place) = patched.get_mut(lower + 5..lower + 7) {
        place.copy_from_slice(&bytes[2..]);
    }
    patched
}

fn access_denied(text: &str) -> Vec<u8> {
    let mut payload = vec![0xff];
    payload.extend_from_slice(&1045_u16.to_le_bytes());
    payload.extend_from_slice(b"#28000");
    payload.extend_from_slice(text.as_bytes());
    payload
}

//! Accepted connections, encrypted or not, for both kinds of server. Handshakes run beside each other, bounded in number
//! and time, so that a silent caller holds up nobody.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected as HttpConnected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected as GrpcConnected;
use tracing::{debug, warn};

use crate::{Wire, causes};

/// Handshakes at once; further callers wait to be accepted.
const HANDSHAKES: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait for the server.
const WAITING: usize = 256;
/// After an error of the system, which is most often that there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A caller whose handshake failed is told of again after this time: one that is refused tries every second.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Callers that are told of within that time.
const TOLD_MOST: usize = 256;

/// Who has called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// He has shown a certificate, and it was good.
    pub has_certificate: bool,
}

/// One connection.
pub struct Accepted {
    wire: Wire,
    peer: Peer,
}

/// The configuration that the next handshake uses; `None`: no encryption.
pub type Tls = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;

/// All connections of one listener. Dropped, it accepts no more.
pub struct Incoming {
    accepted: mpsc::Receiver<Accepted>,
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl Incoming {
    /// Accepts from now on.
    pub fn new(listener: TcpListener, tls: Tls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(WAITING);
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept_all(listener, tls, sender)));
        Ok(Self { accepted, address, _accepting: accepting })
    }
}

async fn accept_all(listener: TcpListener, tls: Tls, accepted: mpsc::Sender<Accepted>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let told = Arc::new(Mutex::new(Told::default()));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(new) => new,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for the acknowledgement of the one before: that costs 40 ms each.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%address, %error, "the caller has left already");
            continue;
        }
        let Some(config) = tls() else {
            let peer = Peer { address, has_certificate: false };
            if accepted.send(Accepted { wire: Box::pin(stream), peer }).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (accepted, told) = (accepted.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            let shaken = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await;
            drop(permit);
            match shaken {
                Ok(Ok(stream)) => {
                    let has_certificate = stream.get_ref().1.peer_certificates().is_some();
                    let peer = Peer { address, has_certificate };
                    // A server that has ended takes nobody.
                    let _ = accepted.send(Accepted { wire: Box::pin(stream), peer }).await;
                }
                Ok(Err(error)) => {
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    // Whoever hangs up without a word has only looked whether somebody listens.
                    if is_about_tls(&error) && told.is_news(address.ip(), Instant::now()) {
                        warn!(%address, error = %causes(&error), "a caller was turned away, the TLS handshake failed");
                    } else {
                        debug!(%address, error = %causes(&error), "no TLS handshake");
                    }
                }
                Err(_) => debug!(%address, "no TLS handshake in time"),
            }
        });
    }
}

/// Whether one side has said why there is no connection, not only left.
pub(crate) fn is_about_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>())
}

/// Whose handshakes have failed lately, and when that was told.
#[derive(Default)]
struct Told {
    lately: HashMap<IpAddr, Instant>,
}

impl Told {
    /// Whether a failure is worth a line of the log.
    fn is_news(&mut self, caller: IpAddr, now: Instant) -> bool {
        self.lately.retain(|_, told| now < *told + TELL_EVERY);
        let is_news = self.lately.len() < TOLD_MOST && !self.lately.contains_key(&caller);
        if is_news {
            self.lately.insert(caller, now);
        }
        is_news
    }
}

impl Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(context).map(|accepted| accepted.map(Ok))
    }
}

impl Listener for Incoming {
    type Io = Accepted;
    type Addr = Peer;

    async fn accept(&mut self) -> (Accepted, Peer) {
        match self.accepted.recv().await {
            Some(accepted) => {
                let peer = accepted.peer;
                (accepted, peer)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address, has_certificate: false })
    }
}

impl GrpcConnected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl HttpConnected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        *stream.remote_addr()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.as_mut().poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.as_mut().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_of_once_a_minute_and_no_flood_of_callers_is() {
        let (mut told, start) = (Told::default(), Instant::now());
        let caller = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!(told.is_news(caller(1), start));
        assert!(!told.is_news(caller(1), start + TELL_EVERY / 2));
        assert!(told.is_news(caller(2), start + TELL_EVERY / 2));
        assert!(told.is_news(caller(1), start + TELL_EVERY));
        let flood = (10..10_000).filter(|number| told.is_news(caller(*number), start + TELL_EVERY)).count();
        assert_eq!(flood, TOLD_MOST - 2);
        assert_eq!(told.lately.len(), TOLD_MOST);
        assert!(told.is_news(caller(9_999), start + TELL_EVERY * 2));
    }

    #[test]
    fn only_what_a_side_has_said_is_about_tls() {
        let refused = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        assert!(is_about_tls(&io::Error::new(io::ErrorKind::InvalidData, refused)));
        assert!(!is_about_tls(&io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
        assert!(!is_about_tls(&io::ErrorKind::ConnectionReset.into()));
    }
}

//! Whether a TCP connection comes about, and if not, why: the one thing that drivers and HTTP clients tell badly.

use std::io;
use std::time::Duration;

use starlift_common::check::Outcome;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::PATIENCE;

/// How long a server is listened to that may speak first.
const GREETING: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreached {
    pub(super) outcome: Outcome,
    pub(super) reason: String,
}

impl Unreached {
    fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into() }
    }
}

/// Connects to the first address of the host that accepts, as the drivers do.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, Unreached> {
    let host = host.trim_matches(['[', ']']);
    let seconds = PATIENCE.as_secs();
    let addresses = match timeout(PATIENCE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            return Err(Unreached::new(
                Outcome::Unresolved,
                format!("the name {host} is not known here: {error}"),
            ));
        }
        Err(_) => {
            let reason = format!("the name {host} was not looked up within {seconds} s");
            return Err(Unreached::new(Outcome::Unresolved, reason));
        }
    };
    let mut last = Unreached::new(Outcome::Unresolved, format!("the name {host} has no address here"));
    for address in addresses {
        last = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => refusal(&error),
            Err(_) => Unreached::new(Outcome::TimedOut, format!("no answer within {seconds} s")),
        };
    }
    Err(last)
}

fn refusal(error: &io::Error) -> Unreached {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreached::new(Outcome::Refused, "connection refused"),
        io::ErrorKind::TimedOut => Unreached::new(Outcome::TimedOut, "the connection timed out"),
        _ => Unreached::new(Outcome::Failed, error.to_string()),
    }
}

/// Whether the server greets as MySQL's protocol has it: it speaks first, an HTTP server waits.
pub(super) async fn greets_as_mysql(host: &str, port: u16) -> bool {
    let Ok(mut stream) = connect(host, port).await else { return false };
    // Length of three bytes, sequence number 0, protocol version 10.
    let mut greeting = [0; 5];
    let read = timeout(GREETING, stream.read_exact(&mut greeting)).await;
    matches!(read, Ok(Ok(_))) && greeting[3..] == [0, 10]
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_keeps_a_connection_from_coming_about_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        assert!(connect("127.0.0.1", port).await.is_ok());
        drop(listener);
        let refused = connect("127.0.0.1", port).await.expect_err("nobody listens");
        assert_eq!(refused.outcome, Outcome::Refused);
        let unresolved = connect("no-such-host.invalid", port).await.expect_err("no such name");
        assert_eq!(unresolved.outcome, Outcome::Unresolved);
    }

    #[tokio::test]
    async fn a_query_port_is_known_by_its_greeting() {
        for (greeting, is_mysql) in [(&b"J\0\0\0\n5.1.0"[..], true), (b"HTTP/1.1 400", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                stream.write_all(greeting).await.expect("he listens");
            });
            assert_eq!(greets_as_mysql("127.0.0.1", port).await, is_mysql);
            serving.await.expect("it was served");
        }
    }
}

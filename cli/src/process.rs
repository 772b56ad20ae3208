//! This process's clock and signals, and ids of this moment.

use std::time::Duration;

use starlift_common::ids::JobId;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::end::INTERRUPTED;

/// Cancelled by SIGINT or SIGTERM. Whoever presses Ctrl-C after that does not want to wait: the process ends at once.
/// What is durable by then is kept; nothing else counts.
pub(crate) fn stopped_by_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => drop(tokio::signal::ctrl_c().await),
        }
        stop.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(INTERRUPTED.into());
        }
    });
    token
}

/// A fresh id: the time of submission and 80 random bits.
pub(crate) fn new_job_id() -> JobId {
    let unix_ms = u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX);
    JobId::from_parts(unix_ms, fastrand::u128(..))
}

/// Time since 1970.
pub(crate) fn unix_time() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the one place where a command reads the clock")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_submission_has_an_id_of_its_own() {
        assert_ne!(new_job_id(), new_job_id());
    }
}

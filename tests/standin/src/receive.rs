//! What both kinds of load share on a backend: the size checks before a body, the way of a body into the ingest, and
//! the verdict over its rows.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::be::Node;
use crate::http::header;
use crate::ingest::{Ingest, Outcome};
use crate::params::{self, Format};

/// Chunks waiting between the socket and the ingest; a chunk is at most about 400 KiB.
const CHUNKS_WAITING_MAX: usize = 4;

/// How the reading of a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Complete,
    /// The client went away, or sent more than the server takes.
    Broken,
    /// A scripted fault says to cut here.
    Cut,
}

/// Length and format limits, checked before a byte of the body is read. `declared_before` is what earlier loads of the
/// transaction have declared. The error is the server's text.
pub(crate) fn check_size(node: &Node, headers: &HeaderMap, declared_before: u64) -> Result<(), String> {
    let length = declared_before + declared_length(headers);
    let max_mb = node.backend().streaming_load_max_mb.load(Ordering::Relaxed);
    let max = max_mb.saturating_mul(1 << 20);
    if length > max {
        return Err(format!(
            "body size {length} exceed limit: {max}, adjust streaming_load_max_mb in be.conf to load more at once"
        ));
    }
    let (format, _) = params::format(headers)?;
    let json_max = node.cluster.config.streaming_load_max_batch_size_mb << 20;
    if format == Format::Json && length > json_max && !params::flag(headers, "ignore_json_size") {
        return Err(format!(
            "The size of this batch exceed the max size [{json_max}]  of json type data  data [ {length} ]. \
             Set ignore_json_size to skip the check, although it may lead huge memory consuming."
        ));
    }
    Ok(())
}

/// `Content-Length`, 0 when absent or chunked.
pub(crate) fn declared_length(headers: &HeaderMap) -> u64 {
    header(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Feeds the body to the ingest and gives it back. Rows that are kept are written on a blocking thread, with a bounded
/// queue between; counting them waits for nothing and is done at once.
pub(crate) async fn receive(
    node: &Node,
    mut body: Incoming,
    mut ingest: Ingest,
    cut_after: Option<u64>,
) -> Result<(Ingest, Received), String> {
    let stopped = |_| "the ingest stopped".to_owned();
    let received;
    if node.cluster.config.count_only {
        received = pump(node, &mut body, &mut Feed::Here(&mut ingest), cut_after).await;
    } else {
        let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_WAITING_MAX);
        let worker = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                ingest.feed(&chunk);
            }
            ingest
        });
        received = pump(node, &mut body, &mut Feed::Queue(&sender), cut_after).await;
        drop(sender);
        ingest = worker.await.map_err(stopped)?;
    }
    if received == Received::Complete {
        let end = move || {
            ingest.end_of_load();
            ingest
        };
        ingest = tokio::task::spawn_blocking(end).await.map_err(stopped)?;
    }
    Ok((ingest, received))
}

/// Where the bytes of a body go.
enum Feed<'a> {
    Queue(&'a mpsc::Sender<Bytes>),
    Here(&'a mut Ingest),
}

impl Feed<'_> {
    /// `false`: nobody takes them any more.
    async fn take(&mut self, data: Bytes) -> bool {
        match self {
            Self::Queue(sender) => sender.send(data).await.is_ok(),
            Self::Here(ingest) => {
                ingest.feed(&data);
                true
            }
        }
    }
}

async fn pump(node: &Node, body: &mut Incoming, feed: &mut Feed<'_>, cut_after: Option<u64>) -> Received {
    let max = node.backend().streaming_load_max_mb.load(Ordering::Relaxed).saturating_mul(1 << 20);
    let started = Instant::now();
    let mut taken = 0_u64;
    loop {
        let mut data = match body.frame().await {
            None => return Received::Complete,
            Some(Err(_)) => return Received::Broken,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => continue,
            },
        };
        if let Some(limit) = cut_after
            && taken + data.len() as u64 >= limit
        {
            data.truncate(usize::try_from(limit - taken).unwrap_or(0));
            // Whether the ingest still listens does not matter any more.
            let _ = feed.take(data).await;
            return Received::Cut;
        }
        taken += data.len() as u64;
        if taken > max || !feed.take(data).await {
            return Received::Broken;
        }
        keep_rate(node.cluster.config.be_bytes_per_second, taken, started).await;
    }
}

/// Sleeps as long as the connection is ahead of its rate.
async fn keep_rate(bytes_per_second: u64, taken: u64, started: Instant) {
    if let Some(micros) = taken.saturating_mul(1_000_000).checked_div(bytes_per_second) {
        tokio::time::sleep_until(started + Duration::from_micros(micros)).await;
    }
}

/// Whether the rows of a load may be committed; the error is the server's text.
pub(crate) fn judge(node: &Node, outcome: &Outcome, max_filter_ratio: f64) -> Result<(), String> {
    if let Some(failed) = &outcome.failed {
        return Err(failed.clone());
    }
    let counts = outcome.counts;
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no exact counts")]
    let ratio = counts.filtered as f64 / (counts.total() - counts.unselected).max(1) as f64;
    if counts.filtered > 0 && ratio > max_filter_ratio {
        return Err("too many filtered rows".to_owned());
    }
    if counts.loaded == 0 && !node.cluster.config.empty_load_ok {
        return Err("all partitions have no load data".to_owned());
    }
    Ok(())
}

/// How long a backend's commit waits for publication: three quarters of its RPC timeout, which follows from the load
/// timeout `t` as max(t/4, min(t/2, 60 s)).
pub(crate) fn publish_patience(node: &Node, timeout: Duration) -> Duration {
    match node.cluster.config.be_publish_wait_ms {
        0 => (timeout / 4).max((timeout / 2).min(Duration::from_secs(60))) * 3 / 4,
        ms => Duration::from_millis(ms),
    }
}

/// Whole milliseconds since `start`.
pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

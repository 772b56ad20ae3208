//! The body buffers of one attempt: a fixed number of them, used again and again. A segment goes from the cutter, through
//! the compressor where there is one, into the HTTP body, and comes back when it was sent.
//!
//! What a worker holds in memory for rows, whatever `maxBatchSize` is:
//!
//! ```text
//! slots x (receive buffer + SEGMENTS x BUFFER_BYTES [+ PACKED_SEGMENTS x BUFFER_BYTES where the job compresses])
//! ```
//!
//! A row that outgrows its buffer makes that one larger, and the larger one is kept only up to `KEPT_BYTES_MAX`. An
//! isolating pass keeps a batch of at most 16 MiB instead (`trial.rs`). No pool is shared between attempts, so slots
//! never wait for each other.
//!
//! Whoever waits for a buffer is the reading side (or the compressor, for one of its own), and whoever gives one back is
//! the connection that sends it, which waits for neither.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes at which a segment is handed on.
pub(crate) const SEGMENT_BYTES: usize = 1 << 20;
/// Room of a buffer: a segment, and the row that passes it.
const BUFFER_BYTES: usize = SEGMENT_BYTES + (64 << 10);
/// A buffer that one huge row has blown up is not kept; one that grew once, as buffers do, by twice its size, is.
const KEPT_BYTES_MAX: usize = 2 * BUFFER_BYTES;

/// Buffers of an attempt's rows: one is filled, two wait, one or two are being sent, one is for the row that opens the
/// next batch.
pub(crate) const SEGMENTS: usize = 6;
/// Buffers of an attempt's compressed rows: one is filled, one waits, one or two are being sent.
pub(crate) const PACKED_SEGMENTS: usize = 4;
/// Buffers that the cutter takes for one row at the most: the row may end one batch and fill a segment of the next.
pub(crate) const SEGMENTS_PER_ROW: usize = 2;

/// Bytes of a body; whole rows only, unless they are compressed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub bytes: Vec<u8>,
    pool: SegmentPool,
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.pool.put_back(mem::take(&mut self.bytes));
    }
}

/// The buffers. One task at a time may wait for room.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPool {
    shared: Arc<Shared>,
    most: usize,
}

#[derive(Debug, Default)]
struct Shared {
    buffers: Mutex<Buffers>,
    came_back: Notify,
}

#[derive(Debug, Default)]
struct Buffers {
    free: Vec<Vec<u8>>,
    /// Segments that exist.
    out: usize,
}

impl SegmentPool {
    /// `most`: how many segments may exist at once.
    pub(crate) fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most }
    }

    /// An empty segment, without waiting: its taker has seen to it that there is [`SegmentPool::room`].
    pub(crate) fn take(&self) -> Segment {
        let reused = {
            let mut buffers = self.buffers();
            buffers.out += 1;
            buffers.free.pop()
        };
        let bytes = reused.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        Segment { bytes, pool: self.clone() }
    }

    /// Waits until so many segments may be taken.
    pub(crate) async fn room(&self, segments: usize) {
        loop {
            // A segment that comes back in between leaves its mark here.
            let came_back = self.shared.came_back.notified();
            if self.buffers().out + segments <= self.most {
                return;
            }
            came_back.await;
        }
    }

    fn put_back(&self, mut bytes: Vec<u8>) {
        let mut buffers = self.buffers();
        buffers.out -= 1;
        if buffers.out + buffers.free.len() < self.most && bytes.capacity() <= KEPT_BYTES_MAX {
            bytes.clear();
            buffers.free.push(bytes);
        }
        drop(buffers);
        self.shared.came_back.notify_one();
    }

    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        // Buffers are empty and counted at every moment, whoever panicked.
        self.shared.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Segments that exist now.
    #[cfg(test)]
    pub(crate) fn out(&self) -> usize {
        self.buffers().out
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_sent_segment_is_used_again_and_comes_back_empty() {
        let pool = SegmentPool::new(1);
        let mut segment = pool.take();
        segment.bytes.extend_from_slice(b"rows");
        let address = segment.bytes.as_ptr();
        drop(bytes::Bytes::from_owner(segment));
        let again = pool.take();
        assert!(again.bytes.is_empty());
        assert_eq!(again.bytes.as_ptr(), address);
    }

    #[test]
    fn a_buffer_blown_up_by_one_row_is_not_kept() {
        let pool = SegmentPool::new(1);
        pool.take().bytes.reserve(2 * KEPT_BYTES_MAX);
        assert!(pool.buffers().free.is_empty());
    }

    #[test]
    fn a_buffer_that_grew_once_is_kept() {
        let pool = SegmentPool::new(1);
        let mut segment = pool.take();
        segment.bytes.resize(BUFFER_BYTES, 0);
        segment.bytes.push(0);
        drop(segment);
        assert_eq!(pool.buffers().free.len(), 1);
    }

    #[tokio::test]
    async fn room_is_waited_for_until_enough_segments_have_come_back() {
        let pool = SegmentPool::new(3);
        let (first, second) = (pool.take(), pool.take());
        pool.room(1).await;
        let third = pool.take();
        let mut room = pin!(pool.room(2));
        assert!(room.as_mut().now_or_never().is_none());
        drop(first);
        assert!(room.as_mut().now_or_never().is_none(), "one is not enough");
        let other = std::thread::spawn(move || drop(second));
        room.await;
        other.join().expect("it only drops");
        drop(third);
        assert_eq!(pool.out(), 0);
        assert_eq!(pool.buffers().free.len(), 3, "no more are kept than may exist");
    }
}

//! Reused buffers of body bytes. A segment goes from the cutter through the HTTP body and comes back when it was sent.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes at which a segment is handed on.
pub(crate) const SEGMENT_BYTES: usize = 1 << 20;
/// Room behind that for the row that passes it.
const HEADROOM_BYTES: usize = 64 << 10;
/// A buffer that one huge row has blown up is not kept.
const KEPT_BYTES_MAX: usize = 4 * SEGMENT_BYTES;

/// Bytes of a body; whole rows only.
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

/// Buffers that wait to be used again; at most as many as were allowed.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    kept_max: usize,
}

impl SegmentPool {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { free: Arc::default(), kept_max }
    }

    /// An empty segment.
    pub(crate) fn take(&self) -> Segment {
        let reused = self.free().pop();
        let bytes = reused.unwrap_or_else(|| Vec::with_capacity(SEGMENT_BYTES + HEADROOM_BYTES));
        Segment { bytes, pool: self.clone() }
    }

    fn put_back(&self, mut bytes: Vec<u8>) {
        let mut free = self.free();
        if free.len() < self.kept_max && bytes.capacity() <= KEPT_BYTES_MAX {
            bytes.clear();
            free.push(bytes);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Buffers are empty and whole at every moment, whoever panicked.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
        assert!(pool.free().is_empty());
    }
}

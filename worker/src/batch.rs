//! Cuts rows into batches by count and bytes, and batches into segments that can be sent while more rows are read.
//! Pure. One batch becomes the body of one load request; its segments put together are that body.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use starlift_common::row::{CellSpan, Row};

use crate::encode::{EncodeError, Encoder, Joined};
use crate::segment::{Segment, SegmentPool};

/// Whichever is met first ends a batch. A single row larger than `bytes` makes a batch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    pub rows: u64,
    /// Body bytes, brackets and delimiters included.
    pub bytes: u64,
    /// Bytes at which a segment is handed on; it ends with a whole row.
    pub segment_bytes: usize,
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchSize {
    pub rows: u64,
    /// Body bytes.
    pub bytes: u64,
}

/// What comes out, in order.
#[derive(Debug)]
pub(crate) enum Piece {
    Segment(Segment),
    /// The batch is complete.
    End(BatchSize),
    /// No batch follows. Without it the rows are not all there.
    Finish,
}

/// Takes rows, gives pieces.
pub(crate) struct Cutter {
    encoder: Encoder,
    limits: BatchLimits,
    pool: SegmentPool,
    segment: Segment,
    /// The batch so far, without its closing bytes; without the rows that are joined only.
    batch: BatchSize,
    /// Rows at the end of the segment that were not verified yet, and where they begin.
    joined: Joined,
    joined_at: usize,
    ready: VecDeque<Piece>,
}

impl Cutter {
    pub(crate) fn new(encoder: Encoder, limits: BatchLimits, pool: SegmentPool) -> Self {
        let segment = pool.take();
        Self {
            encoder,
            limits,
            pool,
            segment,
            batch: BatchSize::default(),
            joined: Joined::default(),
            joined_at: 0,
            ready: VecDeque::new(),
        }
    }

    /// Adds one row that [`Cutter::settle`] looks at later, together with others. False, and nothing is added, where the row
    /// must be [pushed](Cutter::push): after [`Cutter::settle`].
    #[inline]
    pub(crate) fn join(&mut self, row: &Row<'_>) -> bool {
        if !self.encoder.can_join() {
            return false;
        }
        let (bytes, length) = (&mut self.segment.bytes, row.packet().len());
        // As NULL, a cell is a byte longer than in its packet.
        let longest = length + 2 * row.width() + 1;
        let rows = self.batch.rows + self.joined.rows;
        let batch = self.batch.bytes + as_u64(bytes.len() - self.joined_at + longest);
        let is_full = bytes.len() + longest > self.limits.segment_bytes;
        if is_full || rows >= self.limits.rows || batch > self.limits.bytes {
            return false;
        }
        self.encoder.join(row, &mut self.joined, bytes)
    }

    /// Looks at the rows that were joined. Where the server would read one of them otherwise, all are taken out again, and
    /// the error is their number.
    pub(crate) fn settle(&mut self) -> Result<(), u64> {
        let joined = mem::take(&mut self.joined);
        let written = &self.segment.bytes[self.joined_at..];
        let holds = joined.rows == 0 || self.encoder.verify(written, &joined);
        if !holds {
            self.segment.bytes.truncate(self.joined_at);
            return Err(joined.rows);
        }
        self.batch.rows += joined.rows;
        self.batch.bytes += as_u64(written.len());
        self.joined_at = self.segment.bytes.len();
        Ok(())
    }

    /// Adds one row; after an error nothing was added.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        let bytes = &mut self.segment.bytes;
        let before = bytes.len();
        let is_first = self.batch.rows == 0;
        let lead = if is_first { self.encoder.open() } else { self.encoder.between() };
        if !lead.is_empty() {
            bytes.extend_from_slice(lead);
        }
        let row_at = bytes.len();
        if let Err(error) = self.encoder.encode(row, bytes) {
            bytes.truncate(before);
            return Err(error);
        }
        let added = as_u64(bytes.len() - before);
        if !is_first && self.would_pass(added) {
            self.move_to_next_batch(before, row_at);
        } else {
            self.batch.rows += 1;
            self.batch.bytes += added;
        }
        if self.segment.bytes.len() >= self.limits.segment_bytes {
            self.hand_on_segment();
        }
        self.joined_at = self.segment.bytes.len();
        Ok(())
    }

    /// Ends the batch here, if it holds a row. What was joined must be settled.
    pub(crate) fn cut(&mut self) {
        debug_assert_eq!(self.joined, Joined::default(), "rows that nobody looked at");
        if self.batch.rows == 0 {
            return;
        }
        let close = self.encoder.close();
        self.segment.bytes.extend_from_slice(close);
        self.batch.bytes += as_u64(close.len());
        self.hand_on_segment();
        self.ready.push_back(Piece::End(mem::take(&mut self.batch)));
        self.joined_at = self.segment.bytes.len();
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    #[inline]
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        self.ready.pop_front()
    }

    fn would_pass(&self, added: u64) -> bool {
        let closed = self.batch.bytes + added + as_u64(self.encoder.close().len());
        self.batch.rows >= self.limits.rows || closed > self.limits.bytes
    }

    /// The row just written stands behind `row_at`; what led up to it, from `before` on, goes.
    fn move_to_next_batch(&mut self, before: usize, row_at: usize) {
        let mut next = self.pool.take();
        next.bytes.extend_from_slice(self.encoder.open());
        next.bytes.extend_from_slice(&self.segment.bytes[row_at..]);
        self.segment.bytes.truncate(before);
        self.cut();
        self.batch = BatchSize { rows: 1, bytes: as_u64(next.bytes.len()) };
        self.segment = next;
    }

    fn hand_on_segment(&mut self) {
        if !self.segment.bytes.is_empty() {
            let full = mem::replace(&mut self.segment, self.pool.take());
            self.ready.push_back(Piece::Segment(full));
        }
    }
}

/// The rows of one batch kept in memory, so that any of them can be sent again: as cells, and as encoded once.
pub(crate) struct KeptRows {
    encoder: Encoder,
    limits: BatchLimits,
    /// Encoded rows, without what stands between them.
    encoded: Vec<u8>,
    /// Where each encoded row ends.
    ends: Vec<usize>,
    packets: Vec<u8>,
    /// Where each row's packet ends.
    packet_ends: Vec<usize>,
    spans: Vec<CellSpan>,
    /// Cells of a row.
    width: usize,
}

impl KeptRows {
    /// `segment_bytes` of the limits is not looked at.
    pub(crate) fn new(encoder: Encoder, limits: BatchLimits, width: usize) -> Self {
        let (encoded, ends, packets, packet_ends, spans) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { encoder, limits, encoded, ends, packets, packet_ends, spans, width }
    }

    /// Adds the row; false, and nothing is added, when the batch would pass its limits. An empty one takes any row.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<bool, EncodeError> {
        let start = self.encoded.len();
        self.encoder.encode(row, &mut self.encoded)?;
        let bytes = self.body_bytes(self.encoded.len(), self.ends.len() + 1);
        let is_full = as_u64(self.ends.len()) >= self.limits.rows || bytes > self.limits.bytes;
        if is_full && !self.ends.is_empty() {
            self.encoded.truncate(start);
            return Ok(false);
        }
        self.ends.push(self.encoded.len());
        self.packets.extend_from_slice(row.packet());
        self.packet_ends.push(self.packets.len());
        self.spans.extend_from_slice(row.spans());
        Ok(true)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn row(&self, index: usize) -> Row<'_> {
        let packet = &self.packets[start_of(&self.packet_ends, index)..self.packet_ends[index]];
        Row::new(packet, &self.spans[index * self.width..][..self.width])
    }

    /// The body of a load of these rows, in this order, and its size.
    pub(crate) fn body(&self, rows: impl Iterator<Item = usize>) -> (Bytes, BatchSize) {
        let mut body = Vec::with_capacity(self.encoded.len() + self.ends.len() + 2);
        body.extend_from_slice(self.encoder.open());
        let mut count = 0;
        for row in rows {
            if count > 0 {
                body.extend_from_slice(self.encoder.between());
            }
            body.extend_from_slice(&self.encoded[start_of(&self.ends, row)..self.ends[row]]);
            count += 1;
        }
        body.extend_from_slice(self.encoder.close());
        let size = BatchSize { rows: count, bytes: as_u64(body.len()) };
        (body.into(), size)
    }

    fn body_bytes(&self, encoded: usize, rows: usize) -> u64 {
        let ends = self.encoder.open().len() + self.encoder.close().len();
        as_u64(ends + encoded + rows.saturating_sub(1) * self.encoder.between().len())
    }

    pub(crate) fn clear(&mut self) {
        self.encoded.clear();
        self.ends.clear();
        self.packets.clear();
        self.packet_ends.clear();
        self.spans.clear();
    }
}

fn start_of(ends: &[usize], index: usize) -> usize {
    index.checked_sub(1).map_or(0, |before| ends[before])
}

fn as_u64(length: usize) -> u64 {
    length as u64 // no platform has a wider usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starlift_common::job::{CellKind, Delimiter};

    use super::*;
    use crate::encode::ladder::Form;
    use crate::encode::testing::{Cells, buffer, cells};

    fn encoder(json: bool) -> Encoder {
        let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte");
        let form = if json { Form::Json } else { Form::Csv { column: delimiter(1), row: delimiter(2) } };
        Encoder::new(&form, &["a".into(), "b".into()], &[CellKind::Text, CellKind::Number], false)
    }

    fn batches(json: bool, limits: BatchLimits, rows: &[Cells]) -> Vec<(Vec<u8>, BatchSize, usize)> {
        let mut cutter = Cutter::new(encoder(json), limits, SegmentPool::new(4));
        for row in rows {
            cutter.push(&buffer(row).row()).expect("encodable");
        }
        cutter.cut();
        let (mut batches, mut body, mut segments) = (Vec::new(), Vec::new(), 0);
        while let Some(piece) = cutter.next_piece() {
            match piece {
                Piece::Segment(segment) => {
                    segments += 1;
                    body.extend_from_slice(&segment.bytes);
                }
                Piece::End(size) => batches.push((mem::take(&mut body), size, mem::take(&mut segments))),
                Piece::Finish => unreachable!("a cutter does not know the last row"),
            }
        }
        assert!(body.is_empty(), "every segment belongs to a finished batch");
        batches
    }

    fn limits(rows: u64, bytes: u64) -> BatchLimits {
        BatchLimits { rows, bytes, segment_bytes: 16 }
    }

    #[test]
    fn the_row_that_would_pass_the_limit_opens_the_next_batch() {
        let rows = vec![cells(&[Some("aa"), Some("1")]); 3];
        let batches = batches(true, limits(10, 40), &rows);
        let bodies: Vec<_> = batches.iter().map(|(body, ..)| String::from_utf8_lossy(body)).collect();
        assert_eq!(bodies, [r#"[{"a":"aa","b":1},{"a":"aa","b":1}]"#, r#"[{"a":"aa","b":1}]"#]);
    }

    #[test]
    fn no_rows_make_no_batch() {
        assert!(batches(true, limits(1, 1), &[]).is_empty());
    }

    #[test]
    fn the_row_count_cuts_too() {
        let rows = vec![cells(&[Some("x"), None]); 5];
        let sizes: Vec<u64> =
            batches(false, limits(2, 1000), &rows).iter().map(|(_, size, _)| size.rows).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    fn kept(json: bool, limits: BatchLimits) -> KeptRows {
        KeptRows::new(encoder(json), limits, 2)
    }

    fn any_rows() -> impl Strategy<Value = Vec<Cells>> {
        proptest::collection::vec(("[a-zü]{0,30}", proptest::option::of(0u32..1000)), 0..40).prop_map(
            |rows| {
                let row = |(text, number): (String, Option<u32>)| {
                    vec![Some(text.into_bytes()), number.map(|number| number.to_string().into_bytes())]
                };
                rows.into_iter().map(row).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn csv_batches_concatenate_to_the_input(rows in any_rows(), most in 1u64..9, bytes in 1u64..99, segment in 1usize..64) {
            let limits = BatchLimits { rows: most, bytes, segment_bytes: segment };
            let batches = batches(false, limits, &rows);
            let mut whole = Vec::new();
            for row in &rows {
                encoder(false).encode(&buffer(row).row(), &mut whole).expect("encodable");
            }
            prop_assert_eq!(batches.iter().flat_map(|(body, ..)| body.clone()).collect::<Vec<_>>(), whole);
            for (body, size, _) in &batches {
                prop_assert_eq!(body.len() as u64, size.bytes);
                prop_assert!(size.rows <= most && (size.bytes <= bytes || size.rows == 1));
                prop_assert_eq!(body.last(), Some(&2));
            }
        }

        #[test]
        fn kept_rows_come_back_as_they_were(json: bool, rows in any_rows(), most in 1u64..9, bytes in 1u64..199) {
            let limits = limits(most, bytes);
            let mut kept = kept(json, limits);
            let mut whole = Vec::new();
            for row in &rows {
                let buffer = buffer(row);
                if !kept.push(&buffer.row()).expect("encodable") {
                    kept.clear();
                    prop_assert_eq!(kept.push(&buffer.row()), Ok(true));
                    whole.clear();
                }
                whole.push(row.clone());
                prop_assert_eq!(kept.len(), whole.len());
                let (body, size) = kept.body(0..whole.len());
                let (fits, ..) = &batches(json, super::BatchLimits { rows: 1000, bytes: 1 << 20, ..limits }, &whole)[0];
                prop_assert_eq!(body.as_ref(), fits.as_slice());
                prop_assert_eq!((size.rows, size.bytes), (whole.len() as u64, body.len() as u64));
                prop_assert!(size.rows <= most && (size.bytes <= bytes || size.rows == 1));
                for (index, cells) in whole.iter().enumerate() {
                    let row = kept.row(index);
                    prop_assert_eq!(&row.cells().map(|cell| cell.map(<[u8]>::to_vec)).collect::<Vec<_>>(), cells);
                }
                let last = whole.len() - 1;
                let (alone, ..) = &batches(json, limits, &whole[last..])[0];
                let (body, _) = kept.body(std::iter::once(last));
                prop_assert_eq!(body.as_ref(), alone.as_slice());
            }
        }

        #[test]
        fn json_bodies_are_arrays_that_hold_every_row_once(rows in any_rows(), most in 1u64..9, bytes in 1u64..199) {
            let batches = batches(true, limits(most, bytes), &rows);
            let mut objects = Vec::new();
            for (body, size, _) in &batches {
                let array: Vec<serde_json::Value> = serde_json::from_slice(body).expect("an array");
                prop_assert_eq!((body.len() as u64, array.len() as u64), (size.bytes, size.rows));
                prop_assert!(size.rows <= most && (size.bytes <= bytes || size.rows == 1));
                objects.extend(array);
            }
            let texts: Vec<_> = objects.iter().map(|object| object["a"].as_str().map(str::as_bytes)).collect();
            prop_assert_eq!(texts, rows.iter().map(|row| row[0].as_deref()).collect::<Vec<_>>());
        }
    }
}

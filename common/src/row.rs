//! A row as it lies in the receive buffer: borrowed cells, no value object per cell.
//! This is the seam between sources and encoders; a row is valid until the source is asked for the next one.
//!
//! Its bytes are a row packet of the MySQL text protocol: every cell behind its length (one byte up to 250, then `fc`,
//! `fd` or `fe` and 2, 3 or 8 bytes), NULL as the byte `fb` alone. Encoders rely on that: between two short cells lies
//! exactly one byte.

use std::ops::Range;

/// What stands for NULL in place of a length.
const NULL: u8 = 0xfb;
/// The longest cell whose length takes one byte.
const SHORT_MAX: usize = 250;

/// Where a cell lies in the row's packet; [`CellSpan::NULL`] is SQL NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellSpan {
    start: u32,
    end: u32,
}

impl CellSpan {
    /// Starts where no cell can, and has no bytes, so that sums of lengths need not look for it.
    pub const NULL: Self = Self { start: u32::MAX, end: u32::MAX };

    /// `start` and `len` in bytes; `None` when the row is longer than 4 GiB - 3 (no server sends that).
    #[inline]
    pub fn new(start: usize, len: usize) -> Option<Self> {
        let start = u32::try_from(start).ok()?;
        let end = start.checked_add(u32::try_from(len).ok()?)?;
        (end < u32::MAX - 1).then_some(Self { start, end })
    }

    /// Bytes of the packet; `None` is NULL.
    #[inline]
    pub fn range(self) -> Option<Range<usize>> {
        (self.start != u32::MAX).then_some(self.start as usize..self.end as usize)
    }

    /// Where the packet goes on behind it; beyond any packet for NULL.
    #[inline]
    pub fn end(self) -> usize {
        self.end as usize // no platform we build for has a narrower usize
    }

    /// Bytes of the cell; 0 for NULL.
    #[inline]
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether neither is NULL and a single byte lies between the two: the length of `next`, which is a short cell.
    #[inline]
    pub fn is_one_before(self, next: Self) -> bool {
        // A cell ends far enough before NULL's start, see `new`, and one behind NULL is 0, where a length stands.
        self.end.wrapping_add(1) == next.start
    }

    fn of(self, packet: &[u8]) -> Option<&[u8]> {
        self.range().map(|range| &packet[range])
    }
}

/// One row: its packet, and where each cell lies in it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    packet: &'a [u8],
    cells: &'a [CellSpan],
}

impl<'a> Row<'a> {
    /// The spans must be those of all cells of the packet, in order; a source guarantees that when it walks it.
    #[inline]
    pub fn new(packet: &'a [u8], cells: &'a [CellSpan]) -> Self {
        Self { packet, cells }
    }

    /// The row packet, from the first cell's length to the last cell's end.
    #[inline]
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    #[inline]
    pub fn spans(&self) -> &'a [CellSpan] {
        self.cells
    }

    /// Number of cells.
    #[inline]
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// The cell's bytes as the server sent them; `None` is NULL.
    #[inline]
    pub fn cell(&self, index: usize) -> Option<&'a [u8]> {
        self.cells[index].of(self.packet)
    }

    #[inline]
    pub fn cells(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let packet = self.packet;
        self.cells.iter().map(move |span| span.of(packet))
    }

    /// Cell bytes of the row, as progress and reports count them.
    #[inline]
    pub fn bytes_read(&self) -> u64 {
        if self.packet.len() <= SHORT_MAX {
            // No cell is long, so each stands behind one byte, and NULL is one.
            return (self.packet.len() - self.cells.len()) as u64; // no platform has a wider usize
        }
        self.cells.iter().map(|span| u64::from(span.len())).sum()
    }
}

/// An owned row buffer that is filled again and again; for sources that do not hand out their packets, and for tests.
#[derive(Debug, Default)]
pub struct RowBuffer {
    packet: Vec<u8>,
    cells: Vec<CellSpan>,
}

impl RowBuffer {
    pub fn clear(&mut self) {
        self.packet.clear();
        self.cells.clear();
    }

    /// Appends a cell; false when the row has become too long to address.
    #[must_use]
    pub fn push(&mut self, cell: Option<&[u8]>) -> bool {
        let Some(cell) = cell else {
            self.packet.push(NULL);
            self.cells.push(CellSpan::NULL);
            return true;
        };
        let before = self.packet.len();
        self.push_length(cell.len());
        let Some(span) = CellSpan::new(self.packet.len(), cell.len()) else {
            self.packet.truncate(before);
            return false;
        };
        self.packet.extend_from_slice(cell);
        self.cells.push(span);
        true
    }

    fn push_length(&mut self, length: usize) {
        let bytes = (length as u64).to_le_bytes(); // no platform has a wider usize
        let (mark, width) = match length {
            0..=SHORT_MAX => return self.packet.push(bytes[0]),
            251..=0xffff => (0xfc, 2),
            0x1_0000..=0xff_ffff => (0xfd, 3),
            _ => (0xfe, 8),
        };
        self.packet.push(mark);
        self.packet.extend_from_slice(&bytes[..width]);
    }

    pub fn row(&self) -> Row<'_> {
        Row::new(&self.packet, &self.cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_two_things() {
        let mut buffer = RowBuffer::default();
        assert!(buffer.push(None) && buffer.push(Some(b"")) && buffer.push(Some(b"x")));
        let row = buffer.row();
        assert_eq!(row.cells().collect::<Vec<_>>(), [None, Some(&b""[..]), Some(&b"x"[..])]);
        assert_eq!((row.width(), row.bytes_read()), (3, 1));
        assert_eq!(row.packet(), b"\xfb\x00\x01x");
    }

    #[test]
    fn cells_are_counted_alike_in_short_and_long_rows() {
        for lengths in [&[250, 0][..], &[0, 249], &[251], &[1, 70_000, 0, 250, 300], &[250; 3]] {
            let mut buffer = RowBuffer::default();
            assert!(buffer.push(None));
            for length in lengths {
                assert!(buffer.push(Some(&vec![b'x'; *length])) && buffer.push(None));
            }
            assert_eq!(buffer.row().bytes_read(), lengths.iter().sum::<usize>() as u64);
        }
    }

    #[test]
    fn one_byte_lies_before_a_short_cell_only() {
        let mut buffer = RowBuffer::default();
        for cell in [Some(&[b'x'; 250][..]), Some(b""), Some(&[b'x'; 251]), Some(b"x"), None, Some(b"x")] {
            assert!(buffer.push(cell));
        }
        let row = buffer.row();
        let is_one_before: Vec<_> =
            row.spans().windows(2).map(|pair| pair[0].is_one_before(pair[1])).collect();
        assert_eq!(is_one_before, [true, false, true, false, false]);
    }

    #[test]
    fn every_cell_stands_behind_its_length() {
        for (length, lead) in [(250, &b"\xfa"[..]), (251, b"\xfc\xfb\x00"), (0x1_0000, b"\xfd\x00\x00\x01")] {
            let mut buffer = RowBuffer::default();
            assert!(buffer.push(Some(&vec![b'x'; length])));
            let row = buffer.row();
            assert_eq!(row.packet().split_at(lead.len()).0, lead);
            assert_eq!(row.cell(0).map(<[u8]>::len), Some(length));
        }
    }
}

//! A row as it lies in the receive buffer: borrowed cells, no value object per cell.
//! This is the seam between sources and encoders; a row is valid until the source is asked for the next one.
//!
//! Its bytes are a row packet of the MySQL text protocol: every cell behind its length (one byte up to 250, then `fc`,
//! `fd` or `fe` and 2, 3 or 8 bytes), NULL as the byte `fb` alone. Encoders rely on that: between two short cells lies
//! exactly one byte.

/// What stands for NULL in place of a length.
const NULL: u8 = 0xfb;

/// Where a cell lies in the row's packet; [`CellSpan::NULL`] is SQL NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellSpan {
    start: u32,
    len: u32,
}

impl CellSpan {
    pub const NULL: Self = Self { start: u32::MAX, len: u32::MAX };

    /// `start` and `len` in bytes; `None` when the row is longer than 4 GiB - 2 (no server sends that).
    pub fn new(start: usize, len: usize) -> Option<Self> {
        let start = u32::try_from(start).ok().filter(|start| *start != u32::MAX)?;
        Some(Self { start, len: u32::try_from(len).ok()? })
    }

    fn of(self, packet: &[u8]) -> Option<&[u8]> {
        (self != Self::NULL).then(|| &packet[self.start as usize..self.start as usize + self.len as usize])
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
    pub fn new(packet: &'a [u8], cells: &'a [CellSpan]) -> Self {
        Self { packet, cells }
    }

    /// The row packet, from the first cell's length to the last cell's end.
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    pub fn spans(&self) -> &'a [CellSpan] {
        self.cells
    }

    /// Number of cells.
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// The cell's bytes as the server sent them; `None` is NULL.
    pub fn cell(&self, index: usize) -> Option<&'a [u8]> {
        self.cells[index].of(self.packet)
    }

    pub fn cells(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let packet = self.packet;
        self.cells.iter().map(move |span| span.of(packet))
    }

    /// Cell bytes of the row, as progress and reports count them.
    pub fn bytes_read(&self) -> u64 {
        self.cells.iter().filter(|span| **span != CellSpan::NULL).map(|span| u64::from(span.len)).sum()
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
            0..=250 => return self.packet.push(bytes[0]),
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

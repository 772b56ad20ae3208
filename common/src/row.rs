//! A row as it lies in the receive buffer: borrowed cells, no value object per cell.
//! This is the seam between sources and encoders; a row is valid until the source is asked for the next one.

/// Where a cell lies in the row's bytes; [`CellSpan::NULL`] is SQL NULL.
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

    fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        (self != Self::NULL).then(|| &bytes[self.start as usize..self.start as usize + self.len as usize])
    }
}

/// One row: the bytes the server sent, and where each cell lies in them.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    cells: &'a [CellSpan],
}

impl<'a> Row<'a> {
    /// Every span must lie within `bytes`; a source guarantees that when it walks the packet.
    pub fn new(bytes: &'a [u8], cells: &'a [CellSpan]) -> Self {
        Self { bytes, cells }
    }

    /// Number of cells.
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// The cell's bytes as the server sent them; `None` is NULL.
    pub fn cell(&self, index: usize) -> Option<&'a [u8]> {
        self.cells[index].of(self.bytes)
    }

    pub fn cells(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let bytes = self.bytes;
        self.cells.iter().map(move |span| span.of(bytes))
    }

    /// Cell bytes of the row, as progress and reports count them.
    pub fn bytes_read(&self) -> u64 {
        self.cells.iter().filter(|span| **span != CellSpan::NULL).map(|span| u64::from(span.len)).sum()
    }
}

/// An owned row buffer that is filled again and again; for sources that do not hand out their packets, and for tests.
#[derive(Debug, Default)]
pub struct RowBuffer {
    bytes: Vec<u8>,
    cells: Vec<CellSpan>,
}

impl RowBuffer {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.cells.clear();
    }

    /// Appends a cell; false when the row has become too long to address.
    #[must_use]
    pub fn push(&mut self, cell: Option<&[u8]>) -> bool {
        let span = match cell {
            None => CellSpan::NULL,
            Some(cell) => match CellSpan::new(self.bytes.len(), cell.len()) {
                Some(span) => {
                    self.bytes.extend_from_slice(cell);
                    span
                }
                None => return false,
            },
        };
        self.cells.push(span);
        true
    }

    pub fn row(&self) -> Row<'_> {
        Row::new(&self.bytes, &self.cells)
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
    }
}

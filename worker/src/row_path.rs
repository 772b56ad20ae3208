//! The row path as benchmarks and system tests call it. Holds no logic of its own; nothing in the product uses it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::FutureExt;
use starlift_common::datasource::{Datasource, LiveDatasources};
use starlift_common::job::{CellKind, Compression, Delimiter, InvalidDelimiter, ReadSpec};
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::row::{CellSpan, Row, RowBuffer};
use starlift_common::task::TaskRange;
use starlift_remote::starrocks::clients::Clients;
use tokio::sync::{Notify, mpsc};

use crate::batch::{BatchLimits, Cutter, Piece};
use crate::compress;
use crate::control::Control;
use crate::copy::{Reader, SEGMENTS_WAITING, Tools};
use crate::dirty::DirtySettings;
use crate::encode::Encoder;
use crate::encode::ladder::Form;
use crate::http::Status;
use crate::metrics::Metrics;
use crate::mysql::packets::{PacketBuffer, cut_row};
use crate::mysql::source::MysqlSource;
use crate::segment::{SEGMENT_BYTES, SegmentPool};
use crate::source::{Mark, ReadError, RowSource};

/// Rows one behind the other, as they lie in a receive buffer.
#[derive(Debug, Default)]
pub struct Sample {
    packets: Vec<u8>,
    packet_ends: Vec<usize>,
    spans: Vec<CellSpan>,
    width: usize,
}

impl Sample {
    /// All rows have `width` cells.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Adds a row of texts; `None` is NULL.
    pub fn push<'c>(&mut self, cells: impl IntoIterator<Item = Option<&'c str>>) {
        let mut buffer = RowBuffer::default();
        for cell in cells {
            assert!(buffer.push(cell.map(str::as_bytes)), "short enough to address");
        }
        let row = buffer.row();
        assert_eq!(row.width(), self.width);
        self.packets.extend_from_slice(row.packet());
        self.packet_ends.push(self.packets.len());
        self.spans.extend_from_slice(row.spans());
    }

    /// The rows as a server sends them, numbered from 0. They must be shorter than 16 MiB.
    pub fn stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        for (row, sequence) in self.rows().zip((0..=u8::MAX).cycle()) {
            let length = u32::try_from(row.packet().len()).ok().filter(|length| *length < 0xff_ffff);
            stream.extend_from_slice(&length.expect("a short row").to_le_bytes()[..3]);
            stream.push(sequence);
            stream.extend_from_slice(row.packet());
        }
        stream
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut start = 0;
        self.packet_ends.iter().zip(self.spans.chunks(self.width)).map(move |(end, spans)| {
            let packet = &self.packets[start..*end];
            start = *end;
            Row::new(packet, spans)
        })
    }
}

/// Rows into bodies of one form.
pub struct Encoding(Encoder);

impl Encoding {
    pub fn csv(column: &[u8], row: &[u8], is_utf8: bool) -> Result<Self, InvalidDelimiter> {
        let form = Form::Csv { column: Delimiter::new(column.to_vec())?, row: Delimiter::new(row.to_vec())? };
        Ok(Self(Encoder::new(&form, &[], &[], is_utf8)))
    }

    pub fn json(columns: &[String], kinds: &[CellKind], is_utf8: bool) -> Self {
        Self(Encoder::new(&Form::Json, columns, kinds, is_utf8))
    }

    /// Appends all rows that the form can carry; returns how many.
    pub fn encode(&self, sample: &Sample, out: &mut Vec<u8>) -> usize {
        sample.rows().filter(|row| self.0.encode(row, out).is_ok()).count()
    }

    /// Cuts all rows into batches of 64 MiB; returns how many pieces came out.
    pub fn cut(self, sample: &Sample) -> usize {
        let limits = BatchLimits { rows: u64::MAX, bytes: 64 << 20, segment_bytes: SEGMENT_BYTES };
        let mut cutter = Cutter::new(self.0, limits, SegmentPool::new(2));
        let mut pieces = 0;
        for row in sample.rows() {
            if cutter.join(&row) {
                continue;
            }
            assert_eq!(cutter.settle(), Ok(()), "rows that fit");
            if cutter.push(&row).is_ok() {
                while cutter.next_piece().is_some() {
                    pieces += 1;
                }
            }
        }
        assert_eq!(cutter.settle(), Ok(()), "rows that fit");
        pieces
    }
}

/// The rows of one task as they come from a server. Dropped early, it has the server kill the statement.
pub struct RawRows(MysqlSource);

impl RawRows {
    pub async fn open(datasource: &Datasource, read: &ReadSpec, range: &TaskRange) -> Result<Self, Problem> {
        Ok(Self(MysqlSource::open(datasource, read, range).await.map_err(|error| error.problem)?))
    }

    /// Hands out the rows that came with the next read; false after the last one.
    pub async fn next_batch(&mut self, mut take: impl FnMut(Row<'_>)) -> Result<bool, Problem> {
        let is_more = self.0.fill().await.map_err(|error| error.problem)?;
        while let Some(row) = self.0.row().map_err(|error| error.problem)? {
            take(row);
        }
        Ok(is_more)
    }

    pub fn is_utf8(&self) -> bool {
        self.0.is_utf8()
    }
}

/// Walks packets, numbered from 0, as a source walks what it receives; returns the cells' bytes, `None` if they are no
/// rows of `width` cells.
pub fn walk(mut packets: &[u8], width: usize) -> Option<u64> {
    let mut buffer = PacketBuffer::new();
    let mut cells = vec![CellSpan::NULL; width];
    let mut bytes = 0;
    while buffer.receive(&mut packets).now_or_never()?.ok()? > 0 {
        while let Some(range) = buffer.next().ok()? {
            let packet = buffer.payload(range);
            cut_row(packet, &mut cells).ok()?;
            bytes += Row::new(packet, &cells).bytes_read();
        }
    }
    Some(bytes)
}

/// What came through the reading side of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadThrough {
    pub rows: u64,
    pub batches: u64,
    /// Body bytes, packed where they are.
    pub bytes: u64,
}

/// Reads the packets of a sample so many times over, as a task reads its range, and drops the bodies instead of sending
/// them. The rows must be a multiple of 256, as packets are numbered.
pub async fn read_through(
    encoding: Encoding,
    (stream, width): (&[u8], usize),
    times: usize,
    compression: Option<Compression>,
) -> Result<ReadThrough, String> {
    let tools = Tools {
        datasources: LiveDatasources::default(),
        clients: Clients::new(LiveDatasources::default()),
        status: Arc::new(Status { metrics: Metrics::new(1), ready: AtomicBool::new(false) }),
        dirty: DirtySettings::default(),
        clock: crate::agent::now,
    };
    let (control, cut) = (Control::new(None), Notify::new());
    let limits = BatchLimits { rows: u64::MAX, bytes: 5 << 20, segment_bytes: SEGMENT_BYTES };
    let (pieces, received) = mpsc::channel(SEGMENTS_WAITING);
    let reader = Reader::new(&tools, &control, (encoding.0, limits), Some(0), pieces, &cut);
    let (packing, mut packed) = compress::stage(compression, received);
    let mut source = Replay {
        stream,
        unread: &[],
        times,
        packets: PacketBuffer::new(),
        cells: vec![CellSpan::NULL; width],
    };
    let dropping = async {
        let mut through = ReadThrough::default();
        while let Some(piece) = packed.recv().await {
            match piece {
                Piece::Segment(segment) => through.bytes += segment.bytes.len() as u64,
                Piece::End(size) => {
                    through.rows += size.rows;
                    through.batches += 1;
                }
                Piece::Finish => break,
            }
        }
        Ok(through)
    };
    let through = tokio::try_join!(reader.run(&mut source), packing, dropping);
    through.map(|(_, (), through)| through).map_err(|failure| format!("{failure:?}"))
}

/// A sample's stream that comes again and again.
struct Replay<'s> {
    stream: &'s [u8],
    unread: &'s [u8],
    times: usize,
    packets: PacketBuffer,
    cells: Vec<CellSpan>,
}

impl RowSource for Replay<'_> {
    fn row(&mut self) -> Result<Option<Row<'_>>, ReadError> {
        let Some(range) = self.packets.next().map_err(|error| unreadable(&error))? else { return Ok(None) };
        let packet = self.packets.payload(range);
        cut_row(packet, &mut self.cells).map_err(|error| unreadable(&error))?;
        Ok(Some(Row::new(packet, &self.cells)))
    }

    fn mark(&self) -> Mark {
        self.packets.mark()
    }

    fn rewind(&mut self, mark: Mark) {
        self.packets.rewind(mark);
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        if self.unread.is_empty() {
            if self.times == 0 {
                return Ok(false);
            }
            self.times -= 1;
            self.unread = self.stream;
        }
        Ok(self.packets.receive(&mut self.unread).await.map_err(|error| unreadable(&error))? > 0)
    }

    fn is_utf8(&self) -> bool {
        true
    }
}

fn unreadable(error: &impl ToString) -> ReadError {
    ReadError { problem: Problem::new(Code::ReadFailed, error.to_string()), class: FailureClass::Permanent }
}

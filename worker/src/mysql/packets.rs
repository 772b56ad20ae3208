//! Packets of the MySQL protocol in one reused buffer: what was received, cut into packets, and rows cut into cells. Pure
//! but for [`PacketBuffer::receive`], which reads. Copies nothing but the tail of a buffer that ends inside a packet.

use std::io;
use std::ops::Range;

use starlift_common::row::CellSpan;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::source::Mark;

/// Room of a buffer.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
/// A packet that finds no room makes the buffer as large as itself and one [`BUFFER_BYTES`]. So much is kept for good.
const KEPT_BYTES_MAX: usize = 4 * BUFFER_BYTES;
/// More than that is given back after so many reads that did not need it.
const UNNEEDED_READS_MAX: u32 = 64;
/// What stands for NULL in place of a length.
const NULL: u8 = 0xfb;
/// Length of a packet's head: three bytes of length, one of sequence.
const HEAD: usize = 4;
/// A packet of this length goes on in the next one.
const SPLIT: usize = 0xff_ffff;
/// No server sends a longer row: MySQL's and MariaDB's own limit of `max_allowed_packet`.
const PACKET_BYTES_MAX: usize = 1 << 30;

/// What breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("packet {got} came where {expected} was due")]
    Sequence { expected: u8, got: u8 },
    #[error("a packet is longer than 1 GiB")]
    TooLong,
    #[error("a row does not hold as many cells as were selected")]
    Row,
}

/// Received bytes, from which packets are taken in order.
#[derive(Debug)]
pub(crate) struct PacketBuffer {
    bytes: Vec<u8>,
    /// Where the next packet begins.
    start: usize,
    /// Where the received bytes end.
    end: usize,
    /// The sequence number of the next packet.
    sequence: u8,
    /// How often it was read of late without needing all this room.
    unneeded_reads: u32,
    splits: Splits,
}

/// When packets that came in several pieces are put together, after which nobody can go back before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splits {
    /// As soon as they are there.
    Joined,
    /// Not before [`PacketBuffer::admit_split`].
    Held,
    Admitted,
}

impl PacketBuffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            sequence: 0,
            unneeded_reads: 0,
            splits: Splits::Joined,
        }
    }

    /// From here on [`Self::next`] stops ahead of a packet in several pieces.
    pub(crate) fn hold_splits(&mut self) {
        self.splits = Splits::Held;
    }

    /// Lets the next packet pass if it is one of several pieces.
    pub(crate) fn admit_split(&mut self) {
        let is_split = head(&self.bytes[self.start..self.end]).is_some_and(|(length, _)| length == SPLIT);
        if is_split && self.splits == Splits::Held {
            self.splits = Splits::Admitted;
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { at: self.start, sequence: self.sequence }
    }

    /// To a mark of this buffer since the last [`Self::receive`] and the last packet in several pieces.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        (self.start, self.sequence) = (mark.at, mark.sequence);
    }

    /// The next packet, sent or received, is the first of an exchange.
    pub(crate) fn restart(&mut self) {
        self.sequence = 0;
    }

    /// The number of a packet that is about to be sent.
    pub(crate) fn take_sequence(&mut self) -> u8 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    pub(crate) fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Whether anything was received that was not taken.
    pub(crate) fn holds_bytes(&self) -> bool {
        self.start < self.end
    }

    /// Whether [`Self::next`] has something to say without another read.
    pub(crate) fn holds_packet(&self) -> bool {
        self.needed() <= self.end - self.start
    }

    /// Where the next packet's payload stands, once it is all there; valid until the next call of [`Self::receive`].
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let Some((length, sequence)) = head(&self.bytes[self.start..self.end]) else { return Ok(None) };
        if length == SPLIT {
            return self.join();
        }
        let from = self.start + HEAD;
        if self.end - from < length {
            return Ok(None);
        }
        expect(self.sequence, sequence)?;
        self.sequence = sequence.wrapping_add(1);
        self.start = from + length;
        Ok(Some(from..from + length))
    }

    /// A packet in several pieces, put together in place once the last one is there.
    #[cold]
    fn join(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        if self.splits == Splits::Held {
            return Ok(None);
        }
        let (mut at, mut sequence, mut total) = (self.start, self.sequence, 0);
        loop {
            let Some((length, got)) = head(&self.bytes[at..self.end]) else { return Ok(None) };
            expect(sequence, got)?;
            total += length;
            if total > PACKET_BYTES_MAX {
                return Err(Malformed::TooLong);
            }
            at += HEAD + length;
            if at > self.end {
                return Ok(None);
            }
            sequence = sequence.wrapping_add(1);
            if length < SPLIT {
                break;
            }
        }
        let from = self.start + HEAD;
        let (mut piece, mut to) = (self.start, from);
        while let Some((length, _)) = head(&self.bytes[piece..at]) {
            self.bytes.copy_within(piece + HEAD..piece + HEAD + length, to);
            to += length;
            piece += HEAD + length;
        }
        (self.start, self.sequence) = (at, sequence);
        if self.splits == Splits::Admitted {
            self.splits = Splits::Held;
        }
        Ok(Some(from..to))
    }

    /// Reads once, as much as there is room for; 0 at the end of the stream. To be called when [`Self::next`] has no
    /// packet. May be dropped: nothing is lost.
    pub(crate) async fn receive<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        self.make_room();
        let received = stream.read(&mut self.bytes[self.end..]).await?;
        self.end += received;
        Ok(received)
    }

    fn make_room(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let needed = self.needed().max(self.end + 1);
        if needed > self.bytes.len() {
            let room = needed + BUFFER_BYTES;
            self.bytes.reserve_exact(room - self.bytes.len());
            self.bytes.resize(room, 0);
        }
        if needed > KEPT_BYTES_MAX || self.bytes.len() <= KEPT_BYTES_MAX {
            self.unneeded_reads = 0;
            return;
        }
        self.unneeded_reads += 1;
        if self.unneeded_reads > UNNEEDED_READS_MAX && needed <= BUFFER_BYTES {
            self.bytes.truncate(BUFFER_BYTES);
            self.bytes.shrink_to_fit();
        }
    }

    /// Bytes from the start that the first packet takes, as far as its heads are there.
    fn needed(&self) -> usize {
        let mut needed = HEAD;
        let mut at = self.start;
        while let Some((length, _)) = self.bytes[..self.end].get(at..).and_then(head) {
            at += HEAD + length;
            needed = at - self.start;
            if length == SPLIT {
                needed += HEAD;
            } else {
                break;
            }
        }
        needed
    }
}

/// Length and number of the packet that begins here.
#[inline]
fn head(bytes: &[u8]) -> Option<(usize, u8)> {
    let [low, middle, high, sequence] = *bytes.first_chunk()?;
    Some((usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16, sequence))
}

#[inline]
fn expect(expected: u8, got: u8) -> Result<(), Malformed> {
    if expected == got { Ok(()) } else { Err(Malformed::Sequence { expected, got }) }
}

/// Cuts a row packet into as many cells as there are spans.
#[inline]
pub(crate) fn cut_row(packet: &[u8], cells: &mut [CellSpan]) -> Result<(), Malformed> {
    let mut at = 0;
    for cell in cells {
        let Some(&first) = packet.get(at) else { return Err(Malformed::Row) };
        at += 1;
        let length = match first {
            0..=250 => usize::from(first),
            NULL => {
                *cell = CellSpan::NULL;
                continue;
            }
            _ => long_length(packet, &mut at, first)?,
        };
        *cell = CellSpan::new(at, length).ok_or(Malformed::TooLong)?;
        at += length;
    }
    if at == packet.len() { Ok(()) } else { Err(Malformed::Row) }
}

/// A length in more than one byte. Never longer than the packet, so sums stay small.
#[cold]
fn long_length(packet: &[u8], at: &mut usize, first: u8) -> Result<usize, Malformed> {
    let width = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return Err(Malformed::Row),
    };
    let bytes = packet.get(*at..*at + width).ok_or(Malformed::Row)?;
    let mut whole = [0; 8];
    whole[..width].copy_from_slice(bytes);
    *at += width;
    let length = usize::try_from(u64::from_le_bytes(whole)).map_err(|_| Malformed::Row)?;
    if length <= packet.len() { Ok(length) } else { Err(Malformed::Row) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starlift_common::row::{Row, RowBuffer};

    use super::*;

    /// Payloads as they travel: each in pieces of less than 16 MiB, numbered from 0.
    fn framed(payloads: &[Vec<u8>]) -> Vec<u8> {
        let (mut bytes, mut sequence) = (Vec::new(), 0_u8);
        let mut send = |piece: &[u8]| {
            bytes.extend_from_slice(&u32::try_from(piece.len()).expect("short").to_le_bytes()[..3]);
            bytes.push(sequence);
            bytes.extend_from_slice(piece);
            sequence = sequence.wrapping_add(1);
        };
        for payload in payloads {
            let mut pieces = payload.chunks_exact(SPLIT);
            pieces.by_ref().for_each(&mut send);
            send(pieces.remainder());
        }
        bytes
    }

    /// A stream that hands out so many bytes at a time.
    async fn received(bytes: &[u8], steps: &[usize]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut buffer = PacketBuffer::new();
        let (mut payloads, mut rest) = (Vec::new(), bytes);
        let mut steps = steps.iter().copied().cycle();
        loop {
            while let Some(range) = buffer.next()? {
                payloads.push(buffer.payload(range).to_vec());
            }
            let (mut now, later) =
                rest.split_at(steps.next().unwrap_or(1).clamp(1, rest.len().max(1)).min(rest.len()));
            if now.is_empty() {
                return Ok(payloads);
            }
            while !now.is_empty() {
                buffer.receive(&mut now).await.expect("memory can be read");
            }
            rest = later;
        }
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn packets_of_16_mib_and_more_are_put_together() {
        for length in [SPLIT - 1, SPLIT, SPLIT + 1, 2 * SPLIT, 2 * SPLIT + 5] {
            let payloads: Vec<Vec<u8>> = vec![
                b"before".to_vec(),
                (0..length).map(|index| index.to_le_bytes()[1]).collect(),
                b"after".to_vec(),
            ];
            let got = block(received(&framed(&payloads), &[1 << 20, 333_333])).expect("well formed");
            assert!(got == payloads, "a packet of {length} bytes");
        }
    }

    #[test]
    fn a_buffer_blown_up_by_one_row_holds_little_more_and_becomes_small_again() {
        let payloads = vec![vec![b'x'; 3 << 20], vec![b'y'; 100]];
        block(async {
            let bytes = framed(&payloads);
            let mut rest = bytes.as_slice();
            let mut buffer = PacketBuffer::new();
            while buffer.next().expect("well formed").is_none() {
                buffer.receive(&mut rest).await.expect("memory can be read");
            }
            assert!(buffer.bytes.capacity() <= (3 << 20) + BUFFER_BYTES + 100);
            while buffer.next().expect("well formed").is_some() {}
            for _ in 0..=UNNEEDED_READS_MAX {
                let mut byte = &[0][..];
                buffer.receive(&mut byte).await.expect("memory can be read");
            }
            assert_eq!(buffer.bytes.capacity(), BUFFER_BYTES);
        });
    }

    #[test]
    fn a_packet_out_of_order_is_noticed() {
        let mut bytes = framed(&[b"a".to_vec(), b"b".to_vec()]);
        bytes[HEAD + 1 + 3] = 7;
        assert_eq!(block(received(&bytes, &[100])), Err(Malformed::Sequence { expected: 1, got: 7 }));
    }

    fn cells() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
        let length = prop_oneof![5 => 0usize..20, 1 => 248usize..256, 1 => 65_530usize..65_540];
        let cell = length.prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length));
        proptest::collection::vec(proptest::option::of(cell), 1..6)
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_packets_are_the_same(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..40),
            steps in proptest::collection::vec(1usize..300, 1..8),
        ) {
            prop_assert_eq!(block(received(&framed(&payloads), &steps)), Ok(payloads));
        }

        #[test]
        fn any_bytes_are_packets_or_an_error(
            bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()], 0..200),
            steps in proptest::collection::vec(1usize..50, 1..4),
        ) {
            let _whatever = block(received(&bytes, &steps));
        }

        #[test]
        fn a_row_comes_apart_as_it_was_put_together(cells in cells()) {
            let mut buffer = RowBuffer::default();
            for cell in &cells {
                prop_assert!(buffer.push(cell.as_deref()));
            }
            let mut spans = vec![CellSpan::NULL; cells.len()];
            prop_assert_eq!(cut_row(buffer.row().packet(), &mut spans), Ok(()));
            let row = Row::new(buffer.row().packet(), &spans);
            prop_assert_eq!(row.cells().map(|cell| cell.map(<[u8]>::to_vec)).collect::<Vec<_>>(), cells.clone());
            spans.push(CellSpan::NULL);
            prop_assert_eq!(cut_row(buffer.row().packet(), &mut spans), Err(Malformed::Row));
            prop_assert_eq!(cut_row(buffer.row().packet(), &mut spans[..cells.len() - 1]), Err(Malformed::Row));
        }

        #[test]
        fn any_bytes_are_a_row_within_them_or_an_error(
            packet in proptest::collection::vec(prop_oneof![0_u8..5, 250_u8..=255, any::<u8>()], 0..60), width in 0usize..8,
        ) {
            let mut spans = vec![CellSpan::NULL; width];
            if cut_row(&packet, &mut spans).is_ok() {
                let row = Row::new(&packet, &spans);
                prop_assert!(row.cells().flatten().map(<[u8]>::len).sum::<usize>() <= packet.len());
            }
        }
    }

    #[tokio::test]
    async fn a_reader_may_go_back_but_never_before_a_packet_in_pieces() {
        let payloads = [b"a".to_vec(), vec![b'x'; SPLIT + 3], b"b".to_vec()];
        let bytes = framed(&payloads);
        let mut buffer = PacketBuffer::new();
        buffer.hold_splits();
        let mut rest = bytes.as_slice();
        while buffer.receive(&mut rest).await.expect("memory") > 0 {}
        let start = buffer.mark();
        for _ in 0..2 {
            let first = buffer.next().expect("whole").expect("there");
            assert_eq!(buffer.payload(first), b"a");
            assert_eq!(buffer.next(), Ok(None), "held, so that going back stays possible");
            buffer.rewind(start);
        }
        assert!(buffer.next().expect("whole").is_some());
        assert!(buffer.holds_packet());
        buffer.admit_split();
        let split = buffer.next().expect("whole").expect("admitted");
        assert_eq!(buffer.payload(split), payloads[1]);
        let last = buffer.next().expect("whole").expect("there");
        assert_eq!(buffer.payload(last), b"b");
    }
}

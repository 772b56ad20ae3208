//! Packs the bodies of a job that asks for it, between the reading and the loading side: pieces go in as the cutter made
//! them and come out in the same order, each batch one frame. The work is done on blocking threads, one piece of an
//! attempt at a time, so that the reactor never waits for it. Counts of rows and bytes stay those before packing.

use std::future::{Future, ready};
use std::io;

use bytes::Bytes;
use futures_util::future::Either;
use starlift_common::job::Compression;
use starlift_remote::starrocks::packing::{Packer, packed};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use crate::batch::Piece;
use crate::copy::send;
use crate::failure::Failure;
use crate::segment::{PACKED_SEGMENTS, SegmentPool};

/// The packing stage, to be run beside the other two, and what comes out of it. Without compression the pieces are handed
/// through as they are. Dropped at any moment, it leaves nothing running but the piece at work.
pub(crate) fn stage(
    compression: Option<Compression>,
    pieces: mpsc::Receiver<Piece>,
) -> (impl Future<Output = Result<(), Failure>>, mpsc::Receiver<Piece>) {
    let Some(compression) = compression else { return (Either::Left(ready(Ok(()))), pieces) };
    let (sender, received) = mpsc::channel(1);
    (Either::Right(pack_all(compression, pieces, sender)), received)
}

async fn pack_all(
    compression: Compression,
    mut pieces: mpsc::Receiver<Piece>,
    packed: mpsc::Sender<Piece>,
) -> Result<(), Failure> {
    let pool = SegmentPool::new(PACKED_SEGMENTS);
    let mut open: Option<Packer> = None;
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Segment(segment) => {
                pool.room(1).await;
                let (packer, mut out) = (open.take(), pool.take());
                let work = move || {
                    let mut packer = packer.map_or_else(|| Packer::new(compression), Ok)?;
                    packer.pack(&segment.bytes, &mut out.bytes)?;
                    Ok((packer, out))
                };
                let (packer, out) = done(spawn_blocking(work).await)?;
                open = Some(packer);
                if !out.bytes.is_empty() {
                    send(&packed, Piece::Segment(out)).await;
                }
            }
            Piece::End(size) => {
                if let Some(packer) = open.take() {
                    pool.room(1).await;
                    let mut out = pool.take();
                    let work = move || {
                        packer.finish(&mut out.bytes)?;
                        Ok(out)
                    };
                    let out = done(spawn_blocking(work).await)?;
                    send(&packed, Piece::Segment(out)).await;
                }
                send(&packed, Piece::End(size)).await;
            }
            Piece::Finish => send(&packed, Piece::Finish).await,
        }
    }
    Ok(())
}

/// A body that is in memory already.
pub(crate) async fn whole(compression: Option<Compression>, body: Bytes) -> Result<Bytes, Failure> {
    match compression {
        None => Ok(body),
        Some(compression) => done(spawn_blocking(move || packed(compression, &body)).await).map(Bytes::from),
    }
}

fn done<T>(result: Result<io::Result<T>, JoinError>) -> Result<T, Failure> {
    result
        .map_err(io::Error::from)
        .flatten()
        .map_err(|error| Failure::Internal(format!("rows could not be compressed: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::batch::BatchSize;

    fn segment(pool: &SegmentPool, text: &[u8]) -> Piece {
        let mut segment = pool.take();
        segment.bytes.extend_from_slice(text);
        Piece::Segment(segment)
    }

    fn end(rows: u64) -> Piece {
        Piece::End(BatchSize { rows, bytes: 77 })
    }

    fn unpacked(body: &[u8]) -> String {
        let mut text = String::new();
        lz4_flex::frame::FrameDecoder::new(body).read_to_string(&mut text).expect("one whole frame");
        text
    }

    #[tokio::test]
    async fn each_batch_is_one_frame_and_its_counts_are_those_of_its_rows() {
        let (sender, pieces) = mpsc::channel(16);
        let pool = SegmentPool::new(16);
        let first = "a row".repeat(50_000);
        for piece in
            [segment(&pool, first.as_bytes()), segment(&pool, b"b"), end(2), segment(&pool, b"c"), end(1)]
        {
            sender.try_send(piece).expect("room");
        }
        sender.try_send(Piece::Finish).expect("room");
        drop(sender);
        let (packing, mut packed) = stage(Some(Compression::Lz4Frame), pieces);
        let heard = async {
            let (mut heard, mut body) = (Vec::new(), Vec::new());
            while let Some(piece) = packed.recv().await {
                match piece {
                    Piece::Segment(segment) => body.extend_from_slice(&segment.bytes),
                    Piece::End(size) => heard.push((unpacked(&std::mem::take(&mut body)), size)),
                    Piece::Finish => heard.push(("finish".into(), BatchSize::default())),
                }
            }
            heard
        };
        let (packing, heard) = tokio::join!(packing, heard);
        packing.expect("packed");
        let size = |rows| BatchSize { rows, bytes: 77 };
        let expected = [(format!("{first}b"), size(2)), ("c".into(), size(1)), ("finish".into(), size(0))];
        assert!(heard.len() == 3 && heard[..2] == expected[..2] && heard[2].0 == "finish");
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_finishes_no_frame() {
        let (sender, pieces) = mpsc::channel(16);
        sender.try_send(segment(&SegmentPool::new(1), &[b'x'; 200_000])).expect("room");
        drop(sender);
        let (packing, mut packed) = stage(Some(Compression::Lz4Frame), pieces);
        packing.await.expect("no failure of its own");
        assert!(matches!(packed.recv().await, Some(Piece::Segment(_))));
        assert!(packed.recv().await.is_none(), "neither an end nor a finish");
    }

    #[tokio::test]
    async fn without_compression_nothing_is_touched() {
        let (sender, pieces) = mpsc::channel(1);
        let (packing, mut through) = stage(None, pieces);
        packing.await.expect("nothing to do");
        sender.try_send(Piece::Finish).expect("room");
        assert!(matches!(through.recv().await, Some(Piece::Finish)));
        assert_eq!(whole(None, Bytes::from_static(b"x")).await.expect("as it is"), "x");
    }
}

//! What reading costs in allocations and memory, counted by the allocator of this test binary: the packets of 200,000
//! rows go through the source's buffer, the encoder, the cutter, the bounded buffers and the compressor.

#![allow(unsafe_code, reason = "an allocator cannot be written without it; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use starlift_common::job::{CellKind, Compression};
use starlift_worker::row_path::{Encoding, ReadThrough, Sample, read_through};

/// A task that reads, once everything it needs is there: its receive buffer, its six body buffers and, where it
/// compresses, four more and what the compressor keeps. See `worker/src/segment.rs`.
const PLAIN_BYTES_MAX: usize = (1 << 20) + 6 * (1088 << 10);
const PACKED_BYTES_MAX: usize = PLAIN_BYTES_MAX + 4 * (1088 << 10) + (3 << 20);

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated now, and the most there were.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came. `realloc` goes through these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rows of 16 cells, numbers, dates, words and a NULL.
fn lineitem(rows: usize) -> Sample {
    let mut sample = Sample::new(16);
    for row in 0..rows {
        let (key, part, price) =
            (row.to_string(), (row * 7919 % 200_000).to_string(), format!("{}.25", row % 90_000));
        let comment = format!("carefully ironic packages {row} sleep furiously");
        sample.push([
            Some(key.as_str()),
            Some(&part),
            Some("7706"),
            Some("1"),
            Some("17.00"),
            Some(&price),
            Some("0.04"),
            Some("0.02"),
            Some("N"),
            Some("O"),
            Some("1996-03-13"),
            Some("1996-02-12"),
            Some("1996-03-22"),
            (row % 9 > 0).then_some("DELIVER IN PERSON"),
            Some("TRUCK"),
            Some(&comment),
        ]);
    }
    sample
}

/// Rows with a text of 60,000 bytes.
fn texts(rows: usize) -> Sample {
    let mut sample = Sample::new(2);
    for row in 0..rows {
        let text = format!("{row} is the number of this row; ").repeat(2200);
        sample.push([Some(row.to_string().as_str()), Some(&text[..60_000])]);
    }
    sample
}

fn csv() -> Encoding {
    Encoding::csv(&[1], &[2], true).expect("two delimiters")
}

fn json() -> Encoding {
    let columns: Vec<String> = (0..16).map(|column| format!("column_{column}")).collect();
    let kinds: Vec<CellKind> =
        (0..16).map(|column| if column < 5 { CellKind::Number } else { CellKind::Text }).collect();
    Encoding::json(&columns, &kinds, true)
}

/// Allocations, and the most bytes that lived, while the packets are read.
fn measured(
    encoding: Encoding,
    packets: (&[u8], usize),
    times: usize,
    compression: Option<Compression>,
) -> (ReadThrough, usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (allocations, live) = (ALLOCATIONS.load(Ordering::Relaxed), LIVE.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    let through = runtime.block_on(read_through(encoding, packets, times, compression)).expect("read");
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    (through, allocations, PEAK.load(Ordering::Relaxed).saturating_sub(live))
}

/// One test, as the counts are of the whole process.
#[test]
fn a_row_costs_no_allocation_and_memory_does_not_grow_with_rows() {
    let rows = 200 * 1024;
    let (narrow, wide) = (lineitem(1024).stream(), texts(256).stream());
    for (encoding, compression) in [
        (csv(), None),
        (json(), None),
        (csv(), Some(Compression::Lz4Frame)),
        (csv(), Some(Compression::Zstd)),
        (json(), Some(Compression::Gzip)),
    ] {
        let (through, allocations, _) = measured(encoding, (&narrow, 16), 200, compression);
        assert_eq!(through.rows, rows);
        assert!(through.batches > 4, "{through:?}");
        println!("{compression:?}: {allocations} allocations for {rows} rows, {through:?}");
        assert!(allocations < 2000, "{allocations} allocations for {rows} rows, {compression:?}");
    }

    for (compression, most) in [
        (None, PLAIN_BYTES_MAX),
        (Some(Compression::Lz4Frame), PACKED_BYTES_MAX),
        (Some(Compression::Zstd), PACKED_BYTES_MAX),
        (Some(Compression::Gzip), PACKED_BYTES_MAX),
    ] {
        let peaks: Vec<usize> =
            [4, 16].map(|times| measured(csv(), (&wide, 2), times, compression).2).to_vec();
        println!("{compression:?}: {peaks:?} of {most} bytes");
        assert!(peaks.iter().all(|peak| *peak <= most), "{compression:?}: {peaks:?} of {most} bytes");
        assert!(peaks[0] > most / 4, "the buffers are counted: {peaks:?}");
    }
}

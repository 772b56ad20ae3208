//! What compressing costs by itself: a file read in pieces of the size of a segment and packed as bodies are, or only read.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};

const SEGMENT_BYTES: usize = 1 << 20;
/// A body is one frame.
const BODY_BYTES: usize = 64 << 20;

/// Read a file and compress it, or only read it
#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// Read the file and do nothing with it
    #[arg(long)]
    idle: bool,
    file: PathBuf,
}

/// Packs and prints how many bytes came out.
pub(crate) fn run(args: &PackArgs) -> Result<()> {
    let mut file = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let mut segment = vec![0; SEGMENT_BYTES];
    let (mut taken, mut given) = (0, 0);
    // As the worker does it.
    let frame = FrameInfo::new().block_size(BlockSize::Max256KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
    loop {
        let length = file.read(&mut segment)?;
        if length == 0 {
            break;
        }
        taken += length;
        if args.idle {
            continue;
        }
        encoder.write_all(&segment[..length])?;
        if taken.is_multiple_of(BODY_BYTES) {
            encoder.try_finish()?;
        }
        given += encoder.get_ref().len();
        encoder.get_mut().clear();
    }
    given += encoder.finish()?.len();
    println!("{}", serde_json::json!({ "bytes": taken, "packed": given }));
    Ok(())
}

//! Packs bodies as `compression` says: one frame (LZ4, Zstandard) or stream (gzip) per body, made piece by piece. Pure.
//! Levels are the fast ones, and no checksum is made over the content: the connection has its own, and the server counts.

use std::io::{self, Write};
use std::mem;

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use starlift_common::job::Compression;

/// Of Zstandard; gzip has a name for it, LZ4 no other.
const FAST_LEVEL: i32 = 1;
/// By itself the library takes megabytes for blocks as long as the first piece, which pack hardly better.
const LZ4_BLOCK: BlockSize = BlockSize::Max256KB;

/// A body that is being packed.
pub struct Packer(Encoder);

/// Each writes to a vector that is changed for the caller's while it works.
enum Encoder {
    Lz4Frame(Box<FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Packer {
    /// Fails where the library cannot have its memory.
    pub fn new(compression: Compression) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Lz4Frame => {
                let frame = FrameInfo::new().block_size(LZ4_BLOCK);
                Encoder::Lz4Frame(Box::new(FrameEncoder::with_frame_info(frame, Vec::new())))
            }
            Compression::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), FAST_LEVEL)?),
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::fast())),
        }))
    }

    /// Takes the next bytes of the body and appends what is packed to `out`: something of them may stay behind for later.
    pub fn pack(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        mem::swap(self.sink(), out);
        let written = match &mut self.0 {
            Encoder::Lz4Frame(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
        };
        mem::swap(self.sink(), out);
        written
    }

    /// Appends what is left of the body, and the end of its frame.
    pub fn finish(mut self, out: &mut Vec<u8>) -> io::Result<()> {
        mem::swap(self.sink(), out);
        *out = match self.0 {
            Encoder::Lz4Frame(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Gzip(encoder) => encoder.finish()?,
        };
        Ok(())
    }

    fn sink(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Encoder::Lz4Frame(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::Gzip(encoder) => encoder.get_mut(),
        }
    }
}

/// A body that is in memory already.
pub fn packed(compression: Compression, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut packer = Packer::new(compression)?;
    packer.pack(body, &mut out)?;
    packer.finish(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpacked(compression: Compression, body: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let mut reader: Box<dyn Read + '_> = match compression {
            Compression::Lz4Frame => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(body).expect("a decoder")),
            Compression::Gzip => Box::new(flate2::read::GzDecoder::new(body)),
        };
        reader.read_to_end(&mut text).expect("a whole frame");
        text
    }

    /// Rows of words, and between them bytes that cannot be packed.
    fn text(bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut text = Vec::new();
        while text.len() < bytes {
            text.extend_from_slice(b"furiously ironic packages\x01");
            text.extend_from_slice(&random.u64(..).to_be_bytes());
            text.push(2);
        }
        text
    }

    #[test]
    fn a_body_packed_in_pieces_is_one_frame_that_holds_it_all() {
        for compression in Compression::ALL {
            let text = text(300_000);
            let mut packer = Packer::new(compression).expect("a packer");
            let (mut body, mut out) = (Vec::new(), Vec::new());
            for piece in text.chunks(70_000) {
                packer.pack(piece, &mut out).expect("packed");
                body.append(&mut out);
            }
            assert!(!body.is_empty(), "it is sent while it is packed");
            packer.finish(&mut out).expect("finished");
            body.append(&mut out);
            assert!(
                body.len() < text.len() * 3 / 4,
                "{compression:?} packs {} into {}",
                text.len(),
                body.len()
            );
            assert!(unpacked(compression, &body) == text, "{compression:?}");
            assert_eq!(unpacked(compression, &packed(compression, &text).expect("packed")), text);
        }
    }

    #[test]
    fn what_is_appended_leaves_what_was_there() {
        for compression in Compression::ALL {
            let mut packer = Packer::new(compression).expect("a packer");
            let mut out = b"before".to_vec();
            packer.pack(b"a row", &mut out).expect("packed");
            packer.finish(&mut out).expect("finished");
            assert_eq!(&out[..6], b"before");
            assert_eq!(unpacked(compression, &out[6..]), b"a row");
        }
    }
}

//! Compressed bodies. A packed request is held until it ends and then unpacked piece by piece: each request is one
//! complete stream, and small beside what it holds. Pure.

use std::io::{self, Read};

use crate::params::Codec;

/// Unpacked bytes handed on at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The packed bytes of one request.
pub(crate) struct Packed {
    codec: Codec,
    bytes: Vec<u8>,
}

impl Packed {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { codec, bytes: Vec::new() }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// Everything so far; an empty request is left.
    pub(crate) fn take(&mut self) -> Self {
        Self { codec: self.codec, bytes: std::mem::take(&mut self.bytes) }
    }

    /// Hands the unpacked bytes to `sink`; fails where they are damaged or cut short.
    pub(crate) fn unpack(self, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let bytes = self.bytes.as_slice();
        if bytes.is_empty() {
            return Ok(());
        }
        match self.codec {
            Codec::Gzip => drain(flate2::read::MultiGzDecoder::new(bytes), sink),
            Codec::Deflate => drain(flate2::read::ZlibDecoder::new(bytes), sink),
            Codec::Zstd => drain(zstd::stream::read::Decoder::with_buffer(bytes)?, sink),
            Codec::Lz4Frame => drain(lz4_flex::frame::FrameDecoder::new(bytes), sink),
        }
    }
}

fn drain(mut unpacked: impl Read, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match unpacked.read(&mut piece)? {
            0 => return Ok(()),
            length => sink(&piece[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(codec: Codec, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut packed = Packed::new(codec);
        bytes.chunks(7).for_each(|chunk| packed.push(chunk));
        let mut text = Vec::new();
        packed.take().unpack(&mut |piece| text.extend_from_slice(piece))?;
        Ok(text)
    }

    #[test]
    fn each_codec_gives_the_bytes_back_and_refuses_half_of_them() {
        let text = b"1,a\n".repeat(50_000);
        let gzip = |level| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), level);
            packer.write_all(&text).unwrap();
            packer.finish().unwrap()
        };
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&text).unwrap();
        let samples = [
            (Codec::Gzip, gzip(flate2::Compression::fast())),
            (Codec::Deflate, zlib.finish().unwrap()),
            (Codec::Zstd, zstd::encode_all(text.as_slice(), 1).unwrap()),
            (Codec::Lz4Frame, lz4.finish().unwrap()),
        ];
        for (codec, bytes) in samples {
            assert!(unpacked(codec, &bytes).unwrap() == text, "{codec:?}");
            assert!(unpacked(codec, &bytes[..bytes.len() / 2]).is_err(), "{codec:?}");
        }
    }
}

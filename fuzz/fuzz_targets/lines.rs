//! The line codec: the way a stream is cut into reads never shows, nothing over the limit is kept, nothing panics.
//!
//! Input: the first byte is the limit, the second the seed of the cuts, the rest the stream.
#![no_main]

use bytes::BytesMut;
use holdshort::jsonrpc::{Line, LineCodec};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;

fn decode<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Line> {
    let mut codec = LineCodec::new(limit);
    let mut buffer = BytesMut::new();
    let mut lines = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while let Some(line) = codec.decode(&mut buffer).expect("decoding does no I/O") {
            lines.push(line);
        }
        assert!(buffer.len() < limit, "more than the limit is kept");
    }
    while let Some(line) = codec.decode_eof(&mut buffer).expect("decoding does no I/O") {
        lines.push(line);
    }
    lines
}

/// Cuts the stream into pieces of 1 to 8 bytes, by a small linear congruential generator.
fn cut(mut stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, rest) = stream.split_at(stream.len().min((state >> 29) as usize + 1));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

fuzz_target!(|input: &[u8]| {
    let [limit, seed, stream @ ..] = input else { return };
    let limit = usize::from(*limit) + 1;
    let whole = decode(limit, [stream]);
    assert_eq!(decode(limit, cut(stream, *seed)), whole);

    let accounted: u64 = whole
        .iter()
        .map(|line| match line {
            Line::Text(text) => {
                assert!(text.len() <= limit && text.ends_with(b"\n"));
                assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1);
                text.len() as u64
            }
            Line::Oversize { bytes, .. } => {
                assert!(*bytes > limit as u64);
                *bytes
            }
            Line::Unterminated(bytes) => *bytes,
            Line::Blank => 0,
        })
        .sum();
    assert!(accounted <= stream.len() as u64);
});

//! Lines out of a byte stream (MCP's stdio transport: one message a line, ended by LF).
//!
//! Used by the line transports through `tokio_util::codec::FramedRead`. It splits and counts; what a line says is for
//! `frame`. Bounded: a line over the limit is thrown away as it comes, and is reported once. It never gives out a line
//! that lacks its LF, because a peer that dies in mid-line has not said what it meant.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use tokio_util::codec::Decoder;

/// Bytes of a line with its terminator, unless the configuration says otherwise. Official SDKs stop at 10 to 16 MiB.
pub const DEFAULT_MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Lines up to this length, in bytes, get memory of their own. A longer one keeps the buffer that it was read into, and
/// what follows it gets a new one.
///
/// INVARIANT: so no line keeps more than about twice its own length alive. Lines wait for a peer by their length; one that
/// is a few bytes of a buffer of megabytes would let megabytes wait.
const COPIED_BYTES_MAX: usize = 64 * 1024;

/// What is kept of a line that is over the limit, in bytes.
const HEAD_BYTES: usize = 1024;

/// A new read buffer has this capacity, in bytes, as one of `FramedRead` has.
const BUFFER_BYTES: usize = 8 * 1024;

/// What came on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line with its terminator. It shares its memory with no other line.
    Text(Bytes),
    /// A line over the limit has ended; nothing of it was kept but the beginning.
    Oversize {
        /// How long it was, with its terminator.
        bytes: u64,
        /// Its first bytes, 1,024 of them or as many as the limit is, if that is less: whose answer it was may stand there.
        head: Bytes,
    },
    /// The stream ended after so many bytes of a line. They are gone: a line without an end is never a frame.
    Unterminated(u64),
    /// A line of nothing but spaces, tabs and carriage returns.
    Blank,
}

/// Splits a byte stream into [`Line`]s.
#[derive(Debug)]
pub struct LineCodec {
    max_line_bytes: usize,
    /// How much of the buffer is known to hold no LF, so that a slow line is searched once, not once per read.
    scanned: usize,
    /// How much of an oversize line has been thrown away, and how it began; `None` while the line fits.
    discarded: Option<(u64, Bytes)>,
}

impl LineCodec {
    /// A codec for lines of at most `max_line_bytes` bytes, terminator included.
    pub fn new(max_line_bytes: usize) -> Self {
        Self { max_line_bytes, scanned: 0, discarded: None }
    }

    /// Goes on throwing away a line that is over the limit.
    fn discard(&mut self, buffer: &mut BytesMut, (discarded, head): (u64, Bytes)) -> Option<Line> {
        match memchr(b'\n', buffer) {
            Some(at) => {
                buffer.advance(at + 1);
                Some(Line::Oversize { bytes: discarded + count(at + 1), head })
            }
            None => {
                self.discarded = Some((discarded + count(buffer.len()), head));
                // Not cleared: it has grown to the limit, and the next line does not need that.
                *buffer = BytesMut::with_capacity(BUFFER_BYTES);
                None
            }
        }
    }

    /// How a line that is over the limit begins. It is that long in any case, however it was cut into reads.
    fn head(&self, line: &[u8]) -> Bytes {
        Bytes::copy_from_slice(&line[..HEAD_BYTES.min(self.max_line_bytes).min(line.len())])
    }
}

impl Default for LineCodec {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_LINE_BYTES)
    }
}

impl Decoder for LineCodec {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Line>, io::Error> {
        if let Some(discarded) = self.discarded.take() {
            return Ok(self.discard(buffer, discarded));
        }
        let unscanned = buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr(b'\n', unscanned).map(|at| self.scanned + at) else {
            self.scanned = buffer.len();
            // The LF to come would be one byte more than the limit.
            if buffer.len() >= self.max_line_bytes {
                self.scanned = 0;
                let head = self.head(buffer);
                return Ok(self.discard(buffer, (0, head)));
            }
            return Ok(None);
        };
        self.scanned = 0;
        let line = take(buffer, at + 1);
        Ok(Some(if line.len() > self.max_line_bytes {
            Line::Oversize { bytes: count(line.len()), head: self.head(&line) }
        } else if is_blank(&line) {
            Line::Blank
        } else {
            Line::Text(line)
        }))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Line>, io::Error> {
        if let Some(line) = self.decode(buffer)? {
            return Ok(Some(line));
        }
        // White space at the end of a stream says nothing; of a line that was thrown away nobody knows what it was.
        let is_blank = self.discarded.is_none() && is_blank(buffer);
        let rest = self.discarded.take().map_or(0, |(bytes, _)| bytes) + count(buffer.len());
        buffer.clear();
        self.scanned = 0;
        Ok(match rest {
            0 => None,
            _ if is_blank => Some(Line::Blank),
            _ => Some(Line::Unterminated(rest)),
        })
    }
}

/// Takes the first `length` bytes out of `buffer`, so that they and what stays share no memory.
fn take(buffer: &mut BytesMut, length: usize) -> Bytes {
    let rest = buffer.len() - length;
    // The smaller part moves, so that no stream costs more than one copy of its lines.
    if length <= COPIED_BYTES_MAX || rest > length {
        let line = Bytes::copy_from_slice(&buffer[..length]);
        buffer.advance(length);
        return line;
    }
    let mut new = BytesMut::with_capacity(rest.max(BUFFER_BYTES));
    new.extend_from_slice(&buffer[length..]);
    buffer.truncate(length);
    std::mem::replace(buffer, new).freeze()
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

fn count(bytes: usize) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests;

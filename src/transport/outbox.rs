//! What waits to be written to one peer.
//!
//! Used by the session, which stops reading while a peer does not take what it is sent.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    marker::PhantomData,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::gate::Permitted;

/// Bytes waiting for a peer above which nothing more is read that would add to them.
const WAITING_BYTES_HIGH: usize = 256 * 1024;

/// Lines that wait, as one buffer for vectored writes.
#[derive(Default)]
struct Lines {
    lines: VecDeque<Bytes>,
    bytes: usize,
}

impl Buf for Lines {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.lines.front().map_or(&[], |line| line)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, line) in slices.iter_mut().zip(&self.lines) {
            *slice = IoSlice::new(line);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(line) = self.lines.front_mut() else { return };
            if count < line.len() {
                line.advance(count);
                return;
            }
            count -= line.len();
            self.lines.pop_front();
        }
    }
}

/// The way to one peer: lines that wait, and the writer they go to until it is closed.
pub(super) struct Outbox<W, Line> {
    writer: Option<W>,
    lines: Lines,
    takes: PhantomData<fn(Line)>,
}

/// The way to the MCP server. Nothing goes there that the gate has not permitted.
pub(super) type Upstream<W> = Outbox<W, Permitted>;

/// The way to the MCP client.
pub(super) type Downstream<W> = Outbox<W, Bytes>;

impl<W: AsyncWrite + Unpin, Line: Into<Bytes>> Outbox<W, Line> {
    /// A way that ends in `writer`.
    pub(super) fn new(writer: W) -> Self {
        Self { writer: Some(writer), lines: Lines::default(), takes: PhantomData }
    }

    /// Lets `line` wait for the writer. A peer that is gone is sent nothing.
    pub(super) fn send(&mut self, line: Line) {
        let line = line.into();
        if self.writer.is_some() && !line.is_empty() {
            self.lines.bytes += line.len();
            self.lines.lines.push_back(line);
        }
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.lines.bytes > 0
    }

    /// Whether so much waits that whoever adds to it should stop.
    pub(super) fn is_full(&self) -> bool {
        self.lines.bytes >= WAITING_BYTES_HIGH
    }

    /// Whether the peer can still be sent anything.
    pub(super) fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes some of what waits. Cancel-safe: what has not been written still waits.
    pub(super) async fn write_some(&mut self) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if writer.write_buf(&mut self.lines).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Closes the writer, so that the peer sees the end, and forgets what still waits.
    pub(super) fn close(&mut self) {
        self.writer = None;
        self.lines = Lines::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_arrive_whole_and_in_order_however_little_the_peer_takes() {
        let (near, mut far) = tokio::io::duplex(3);
        let mut downstream = Downstream::new(near);
        for line in ["{\"a\":1}\n", "{}\n", "{\"bb\":22}\n"] {
            downstream.send(Bytes::from_static(line.as_bytes()));
        }
        let reading = tokio::spawn(async move {
            let mut all = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut far, &mut all).await.map(|_| all)
        });
        while downstream.is_waiting() {
            downstream.write_some().await.unwrap();
        }
        downstream.close();
        assert!(!downstream.is_open());
        downstream.send(Bytes::from_static(b"too late\n"));
        assert!(!downstream.is_waiting(), "nothing waits for a peer that is gone");
        assert_eq!(reading.await.unwrap().unwrap(), "{\"a\":1}\n{}\n{\"bb\":22}\n");
    }
}

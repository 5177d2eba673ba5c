//! What waits to be written to one peer.
//!
//! Used by the session, which stops reading while a peer does not take what it is sent.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{gate::Permitted, hold::HoldId};

/// Bytes waiting for a peer above which nothing more is read that would add to them.
const WAITING_BYTES_HIGH: usize = 256 * 1024;

/// Lines that are written together.
const LINES_WRITTEN_MAX: usize = 64;

/// One line that waits.
pub(super) struct Waiting {
    line: Bytes,
    /// The hold that it was approved as; such a line can be taken back until its first byte has gone.
    hold: Option<HoldId>,
}

impl From<Bytes> for Waiting {
    fn from(line: Bytes) -> Self {
        Self { line, hold: None }
    }
}

impl From<Permitted> for Waiting {
    fn from(permitted: Permitted) -> Self {
        Self { hold: permitted.hold(), line: permitted.into() }
    }
}

/// Lines that wait.
#[derive(Default)]
struct Lines {
    lines: VecDeque<Waiting>,
    bytes: usize,
    /// Whether a part of the first line has gone.
    has_begun: bool,
}

impl Lines {
    /// So many bytes have gone.
    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(waiting) = self.lines.front_mut() else { return };
            if count < waiting.line.len() {
                waiting.line.advance(count);
                self.has_begun = true;
                return;
            }
            count -= waiting.line.len();
            self.lines.pop_front();
            self.has_begun = false;
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

impl<W: AsyncWrite + Unpin, Line: Into<Waiting>> Outbox<W, Line> {
    /// A way that ends in `writer`.
    pub(super) fn new(writer: W) -> Self {
        Self { writer: Some(writer), lines: Lines::default(), takes: PhantomData }
    }

    /// Lets `line` wait for the writer. A peer that is gone is sent nothing.
    pub(super) fn send(&mut self, line: Line) {
        let waiting = line.into();
        if self.writer.is_some() && !waiting.line.is_empty() {
            self.lines.bytes += waiting.line.len();
            self.lines.lines.push_back(waiting);
        }
    }

    /// Takes back the approved calls that `is_meant` and of which not one byte has gone.
    pub(super) fn take_back(&mut self, is_meant: impl Fn(HoldId) -> bool) -> Vec<HoldId> {
        let mut taken = Vec::new();
        let mut has_begun = self.lines.has_begun;
        let bytes = &mut self.lines.bytes;
        self.lines.lines.retain(|waiting| {
            let is_out = std::mem::take(&mut has_begun);
            let Some(hold) = waiting.hold.filter(|hold| !is_out && is_meant(*hold)) else { return true };
            *bytes -= waiting.line.len();
            taken.push(hold);
            false
        });
        taken
    }

    /// Whether an approved call waits, which may yet be taken back.
    pub(super) fn has_approved(&self) -> bool {
        self.lines.lines.iter().any(|waiting| waiting.hold.is_some())
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

    /// Writes some of what waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writer) = &mut self.writer else { return Poll::Ready(Ok(())) };
        let mut writer = Pin::new(writer);
        let mut lines = self.lines.lines.iter().map(|waiting| &*waiting.line);
        // One line alone is cheaper without a list.
        let written = if lines.len() == 1 || !writer.is_write_vectored() {
            writer.as_mut().poll_write(cx, lines.next().unwrap_or_default())
        } else {
            let mut slices = [IoSlice::new(&[]); LINES_WRITTEN_MAX];
            let count = slices.iter_mut().zip(lines).map(|(slice, line)| *slice = IoSlice::new(line)).count();
            writer.as_mut().poll_write_vectored(cx, &slices[..count])
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => {
                self.lines.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Lets what has been written reach the peer, where the writer keeps some of it.
    pub(super) async fn flush(&mut self) {
        if let Some(writer) = &mut self.writer {
            // A peer that is gone needs nothing any more.
            let _ = writer.flush().await;
        }
    }

    /// Closes the writer, so that the peer sees the end. Gives the lines of which not one byte has gone.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Bytes> + use<W, Line> {
        self.writer = None;
        let Lines { lines, has_begun, .. } = std::mem::take(&mut self.lines);
        lines.into_iter().skip(usize::from(has_begun)).map(|waiting| waiting.line)
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
            std::future::poll_fn(|cx| downstream.poll_write(cx)).await.unwrap();
        }
        assert_eq!(downstream.close().count(), 0, "all has gone");
        assert!(!downstream.is_open());
        downstream.send(Bytes::from_static(b"too late\n"));
        assert!(!downstream.is_waiting(), "nothing waits for a peer that is gone");
        assert_eq!(reading.await.unwrap().unwrap(), "{\"a\":1}\n{}\n{\"bb\":22}\n");
    }

    #[tokio::test]
    async fn an_approved_call_is_known_until_it_has_gone() {
        let (near, _far) = tokio::io::duplex(3);
        let mut upstream: Outbox<_, Waiting> = Outbox::new(near);
        upstream.send(Bytes::from_static(b"{}\n").into());
        assert!(!upstream.has_approved());
        upstream.send(Waiting { line: Bytes::from_static(b"[]\n"), hold: Some(HoldId([7; 16])) });
        std::future::poll_fn(|cx| upstream.poll_write(cx)).await.unwrap();
        assert!(upstream.has_approved());
        assert_eq!(upstream.take_back(|_| true), [HoldId([7; 16])]);
        assert!(!upstream.has_approved());
    }
}

//! One turn of a session over lines: everything that has come is dealt with, and what is due is written, until nothing more can be done.
//!
//! A part of `session`, called whenever something may have happened. What a line or a piece of news means is for the rest of the session.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::{
    codec::FramedRead,
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};

use super::{News, Session, SessionLimits};
use crate::jsonrpc::{Line, LineCodec};

/// How often a client that is not read is looked at.
const LOOK_FOR_CLIENT: Duration = Duration::from_millis(250);

/// Bytes read at once.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Lines that one stream may have before everybody else has a turn: one that never ends to flow must not keep others waiting.
const LINES_MAX: u32 = 1024;

/// Lines of one stream in one pass after which a peer gets what it can begin with, while the rest is judged. Fewer, or more than once,
/// and the writes cost more than is gained (`benches`, 64 in flight).
const LINES_TO_BEGIN_WITH: u32 = 24;

/// Where a session hears of everything: two streams of lines, its own tasks, and whoever stops it.
pub(super) struct Heard<DR, UR> {
    client: FramedRead<DR, LineCodec>,
    server: FramedRead<UR, LineCodec>,
    pub(super) held: mpsc::Receiver<News>,
    /// Made once: a future of a token registers with it, which is too much for every frame.
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When a client that is not read is to be looked at.
    look: Interval,
}

impl<DR: AsyncRead + Unpin, UR: AsyncRead + Unpin> Heard<DR, UR> {
    pub(super) fn new(
        (client, server): (DR, UR),
        held: mpsc::Receiver<News>,
        limits: SessionLimits,
        stop: CancellationToken,
    ) -> Self {
        let mut look = tokio::time::interval(LOOK_FOR_CLIENT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            client: lines(client, limits.client_frame_bytes_max),
            server: lines(server, limits.server_frame_bytes_max),
            held,
            stopped: Box::pin(stop.cancelled_owned()),
            look,
        }
    }
}

/// The lines of `stream`, of at most `bytes_max` bytes each.
fn lines<R: AsyncRead>(stream: R, bytes_max: usize) -> FramedRead<R, LineCodec> {
    FramedRead::with_capacity(stream, LineCodec::new(bytes_max), READ_BUFFER_BYTES)
}

/// What one stream has had in one pass.
#[derive(Default)]
struct Reading {
    lines: u32,
    /// Whether the stream has promised to wake whoever waits for more.
    waits: bool,
}

impl Reading {
    /// The next line that is there, or the end of the stream. `None` where there is none now, or there were enough for one pass.
    fn next<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut FramedRead<R, LineCodec>,
        cx: &mut Context<'_>,
    ) -> Option<Option<io::Result<Line>>> {
        if self.lines == LINES_MAX {
            return None;
        }
        self.lines += 1;
        let polled = stream.poll_next_unpin(cx);
        self.waits = polled.is_pending();
        if let Poll::Ready(line) = polled { Some(line) } else { None }
    }
}

impl<DW: AsyncWrite + Unpin, UW: AsyncWrite + Unpin> Session<DW, UW> {
    /// Does all that can be done now; ready once nothing can happen any more.
    ///
    /// INVARIANT: it waits only for what has promised in the same pass to wake it.
    pub(super) fn poll<DR: AsyncRead + Unpin, UR: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        heard: &mut Heard<DR, UR>,
    ) -> Poll<()> {
        let mut begins = true;
        while !self.is_over() {
            if !self.is_stopping && heard.stopped.as_mut().poll(cx).is_ready() {
                self.stop();
                continue;
            }
            // What was left before comes first: it needs a part of this task's share of time, and the readers may take all of it.
            if std::mem::take(&mut begins) {
                self.write(cx);
            }
            // Readers before writers: the frames of one read are judged first and then written together, or the first of many before
            // the rest. A reader pauses while what it would add to is full, so neither side can make the other wait or memory grow.
            let mut client = Reading::default();
            while self.reads_client()
                && let Some(line) = client.next(&mut heard.client, cx)
            {
                self.client_line(line);
                if client.lines == LINES_TO_BEGIN_WITH && !self.upstream.has_approved() {
                    self.write_upstream(cx);
                }
            }
            // The client before the held calls, and all of it before what was approved is written: what it has taken back by now is
            // not sent.
            if let Poll::Ready(Some(news)) = heard.held.poll_recv(cx) {
                self.held_news(news);
                continue;
            }
            let mut looks = false;
            while self.looks_for_client() && !looks {
                looks = heard.look.poll_tick(cx).is_pending();
                if !looks {
                    self.look_for_client();
                }
            }
            let mut server = Reading::default();
            while self.reads_server()
                && let Some(line) = server.next(&mut heard.server, cx)
            {
                self.server_line(line);
                if server.lines == LINES_TO_BEGIN_WITH {
                    self.write_downstream(cx);
                }
            }
            // The last thing before it waits: who is woken by it may need this processor.
            self.tell();
            self.write(cx);
            let hears_client =
                if self.reads_client() { client.waits } else { looks || !self.looks_for_client() };
            let hears_server = server.waits || !self.reads_server();
            let is_heard = hears_client && hears_server && !self.tells();
            if !is_heard && !self.is_over() {
                // There is more to do, and it may be without end: everybody else in this process has a turn as well.
                let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
            }
            if !self.is_over() {
                self.lifecycle.runs_tasks.store(self.calls.run_tasks(), Relaxed);
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Whether nothing can happen any more: the server, which hears at any end that this is one, has nothing more to say.
    fn is_over(&self) -> bool {
        !self.server_reads && self.calls.held().next().is_none() && !self.downstream.is_waiting()
    }

    /// Whether the client is read: while both sides have room, and there is a server to speak to.
    fn reads_client(&self) -> bool {
        self.client_reads && self.server_reads && !self.upstream.is_full() && !self.downstream.is_full()
    }

    /// Whether the client is not read because what it has sent before cannot go on.
    fn looks_for_client(&self) -> bool {
        self.client_reads && !self.reads_client()
    }

    fn look_for_client(&mut self) {
        if self.lifecycle.client_hung_up.as_ref().is_some_and(|has_hung_up| has_hung_up()) {
            self.client_gone();
        }
    }

    fn reads_server(&self) -> bool {
        self.server_reads && !self.downstream.is_full()
    }

    /// Writes to both what they take.
    fn write(&mut self, cx: &mut Context<'_>) {
        self.write_upstream(cx);
        self.write_downstream(cx);
    }

    fn write_upstream(&mut self, cx: &mut Context<'_>) {
        while self.upstream.is_waiting()
            && let Poll::Ready(result) = self.upstream.poll_write(cx)
        {
            self.server_took(result);
        }
    }

    fn write_downstream(&mut self, cx: &mut Context<'_>) {
        while self.downstream.is_waiting()
            && let Poll::Ready(result) = self.downstream.poll_write(cx)
        {
            self.client_took(result);
        }
    }
}

#[cfg(test)]
mod tests;

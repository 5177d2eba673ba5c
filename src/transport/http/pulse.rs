//! Whether a connection of a client is alive: what it is doing, and since when.
//!
//! Kept by the listener for each connection, without a timer for each: one sweep a second over all of them closes those that send the
//! head of a request too slowly, or nothing at all.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a client may take to send the head of a request, in seconds.
const HEAD_SECONDS_MAX: u32 = 10;

/// How long a connection may be idle, in seconds.
const IDLE_SECONDS_MAX: u32 = 75;

/// Seconds since the process began, as good as the last sweep.
#[derive(Default)]
pub(super) struct Clock(AtomicU32);

impl Clock {
    /// Sets it, once a second.
    pub(super) fn set(&self, seconds: u32) {
        self.0.store(seconds, Relaxed);
    }

    fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// What one connection is doing.
pub(super) struct Pulse {
    clock: Arc<Clock>,
    /// Requests that are being answered.
    calls: AtomicU32,
    /// Streams that end when the server or the client wants it.
    streams: AtomicU32,
    /// When the last answer ended.
    idle_since: AtomicU32,
    /// When the first byte of the head that is being read came, plus one; zero if none is.
    head_since: AtomicU32,
}

impl Pulse {
    pub(super) fn new(clock: Arc<Clock>) -> Arc<Self> {
        let idle_since = AtomicU32::new(clock.now());
        let (calls, streams, head_since) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { clock, calls, streams, idle_since, head_since })
    }

    /// Whether a request is being answered; streams without an end do not count.
    pub(super) fn is_busy(&self) -> bool {
        self.calls.load(Relaxed) > 0
    }

    /// Whether the connection has been slow or silent for too long.
    pub(super) fn is_stale(&self) -> bool {
        if self.calls.load(Relaxed) > 0 || self.streams.load(Relaxed) > 0 {
            return false;
        }
        let now = self.clock.now();
        let head = self.head_since.load(Relaxed);
        (head > 0 && now.saturating_sub(head - 1) > HEAD_SECONDS_MAX)
            || now.saturating_sub(self.idle_since.load(Relaxed)) > IDLE_SECONDS_MAX
    }

    fn has_read(&self) {
        if self.calls.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.clock.now() + 1, Relaxed);
        }
    }

    /// The head of a request has been read.
    pub(super) fn begin_call(self: &Arc<Self>) -> Call {
        self.head_since.store(0, Relaxed);
        self.calls.fetch_add(1, Relaxed);
        Call { pulse: Arc::clone(self), is_stream: false }
    }
}

/// One request that is being answered, until this is dropped.
pub(super) struct Call {
    pulse: Arc<Pulse>,
    is_stream: bool,
}

impl Call {
    /// The call lasts as long as the body of `response`.
    pub(super) fn on_call<B>(self, response: Response<B>) -> Response<Pulsed<B>> {
        response.map(|body| Pulsed { body, _call: self })
    }

    /// The body of `response` ends when somebody wants it to: nobody waits for that.
    pub(super) fn on_stream<B>(mut self, response: Response<B>) -> Response<Pulsed<B>> {
        self.pulse.streams.fetch_add(1, Relaxed);
        self.pulse.calls.fetch_sub(1, Relaxed);
        self.is_stream = true;
        self.on_call(response)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let counted = if self.is_stream { &self.pulse.streams } else { &self.pulse.calls };
        counted.fetch_sub(1, Relaxed);
        self.pulse.idle_since.store(self.pulse.clock.now(), Relaxed);
    }
}

/// A body whose request is being answered as long as it lives, or a stream whose reads are noticed.
pub(super) struct Pulsed<B> {
    body: B,
    _call: Call,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Pulsed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's connection whose reads are noticed.
pub(super) struct Noticed<S> {
    stream: S,
    pulse: Arc<Pulse>,
}

impl<S> Noticed<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noticed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pulse.has_read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noticed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse() -> (Arc<Clock>, Arc<Pulse>) {
        let clock = Arc::<Clock>::default();
        clock.set(100);
        (Arc::clone(&clock), Pulse::new(clock))
    }

    #[test]
    fn a_head_that_comes_too_slowly_is_given_up_however_steadily_it_comes() {
        let (clock, pulse) = pulse();
        for second in 0..=HEAD_SECONDS_MAX {
            clock.set(100 + second);
            pulse.has_read();
            assert!(!pulse.is_stale(), "after {second} s");
        }
        clock.set(100 + HEAD_SECONDS_MAX + 1);
        pulse.has_read();
        assert!(pulse.is_stale());
    }

    #[test]
    fn a_silent_connection_is_closed_but_not_one_whose_answer_is_awaited() {
        let (clock, pulse) = pulse();
        clock.set(100 + IDLE_SECONDS_MAX);
        assert!(!pulse.is_stale());
        clock.set(101 + IDLE_SECONDS_MAX);
        assert!(pulse.is_stale());
        pulse.has_read();
        let call = pulse.begin_call();
        clock.set(10_000);
        assert!(!pulse.is_stale() && pulse.is_busy(), "a call may wait for people as long as it takes");
        let stream = call.on_stream(Response::new(()));
        clock.set(20_000);
        assert!(!pulse.is_stale() && !pulse.is_busy(), "a stream is no reason to wait at the end");
        drop(stream);
        assert!(!pulse.is_stale(), "it has just ended");
        clock.set(20_001 + IDLE_SECONDS_MAX);
        assert!(pulse.is_stale());
    }
}

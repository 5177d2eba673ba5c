//! What a client gets as a body: ready bytes, a server's body as it comes, one that is looked into on the way, or a stream of ours.
//!
//! Made by `post`, `held` and `stream`, read by hyper. Nothing here is buffered beyond one event or one message.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::{traced::Traced, upstream::UpstreamBody, watch::Watched};
use crate::gate::Refusal;

/// The body of a response.
pub(super) enum Body {
    /// These bytes; empty where there is nothing left.
    Ready(Bytes),
    /// What the server sends.
    Upstream(UpstreamBody),
    /// What the server sends, looked into.
    Watched(Box<Watched>),
    /// What a task of ours sends; dropping it tells the task that the client is gone.
    Relay(mpsc::Receiver<Bytes>),
    /// Any of these, at whose end a span ends.
    Traced(Box<Traced>),
}

/// Why a body ends before its end.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let chunk = match self.get_mut() {
            Self::Traced(traced) => return traced.poll_frame(cx),
            Self::Ready(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Ready(bytes) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream(body) => {
                body.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map_err(Into::into)))
            }
            Self::Watched(watched) => watched.poll_chunk(cx),
            Self::Relay(receiver) => receiver.poll_recv(cx).map(|chunk| chunk.map(Ok)),
        };
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready(bytes) => bytes.is_empty(),
            Self::Upstream(body) => body.is_end(),
            Self::Watched(_) | Self::Relay(_) => false,
            Self::Traced(traced) => traced.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.size(),
            Self::Watched(_) | Self::Relay(_) => SizeHint::default(),
            Self::Traced(traced) => traced.size_hint(),
        }
    }
}

/// The type of JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The type of a stream of events.
pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A response of `status` without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Ready(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A response of `status` that says `text` to a person.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Ready(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A response of `status` with one message.
pub(super) fn json(status: StatusCode, message: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Ready(message));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// What a client hears of `refusal`: the message with `status`, or only that its notification has arrived.
pub(super) fn refusal(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    match refusal.to_bytes() {
        Some(message) => json(status, message),
        None => empty(StatusCode::ACCEPTED),
    }
}

/// The head of a stream of events that we send.
pub(super) fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Some proxies would keep events back until a buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

//! An answer whose end is the end of its call's span.
//!
//! Made by `post` where somebody looks at the trace. The bytes pass as they are; of a short answer a copy is looked into once it has
//! passed, to tell whether it is an error.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body as HttpBody, Frame as BodyFrame, SizeHint};

use super::{body::Body, watch::one_line};
use crate::{gate::CallSpan, jsonrpc::Frame};

/// The longest answer that is looked into, in bytes.
const LOOKED_INTO_BYTES_MAX: usize = 64 << 10;

/// A body, and the span that ends with it.
pub(super) struct Traced {
    body: Body,
    span: Box<CallSpan>,
    /// What has passed; empty once it was too much.
    seen: Vec<Bytes>,
    seen_bytes: usize,
}

/// `response`, with which the call of `span` ends.
pub(super) fn traced(response: Response<Body>, span: Option<Box<CallSpan>>) -> Response<Body> {
    let Some(mut span) = span else { return response };
    if !response.status().is_success() {
        span.passed(Some(response.status().as_str()));
    }
    if response.body().is_end_stream() {
        span.passed(None);
        return response;
    }
    response.map(|body| Body::Traced(Box::new(Traced { body, span, seen: Vec::new(), seen_bytes: 0 })))
}

impl Traced {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, <Body as HttpBody>::Error>>> {
        let polled = std::pin::Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.see(data);
                }
                if self.body.is_end_stream() {
                    self.ended();
                }
            }
            Poll::Ready(None) => self.ended(),
            Poll::Ready(Some(Err(_))) => self.span.passed(Some("broken")),
            Poll::Pending => {}
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn see(&mut self, data: &Bytes) {
        self.seen_bytes = self.seen_bytes.saturating_add(data.len());
        if self.seen_bytes <= LOOKED_INTO_BYTES_MAX {
            self.seen.push(data.clone());
        } else {
            self.seen.clear();
        }
    }

    /// All of it has passed.
    fn ended(&mut self) {
        self.span.passed(None);
        let seen = Bytes::from(std::mem::take(&mut self.seen).concat());
        if let Some(answer) = answer_in(&seen) {
            self.span.answered(&answer);
        }
    }
}

/// The answer in a message, or in the last event of a stream.
fn answer_in(seen: &Bytes) -> Option<Frame> {
    if seen.first() == Some(&b'{') {
        return Frame::from_server(one_line(seen.clone())).ok();
    }
    let mut lines = seen.split(|byte| matches!(byte, b'\n' | b'\r')).rev();
    let data = lines.find_map(|line| line.strip_prefix(b"data:"))?;
    Frame::from_server(Bytes::copy_from_slice(data.trim_ascii())).ok()
}

//! The proof that a frame may go upstream.
//!
//! Only the gate can make a [`Permitted`], because its constructor is visible to `gate` alone; an upstream writer takes
//! nothing else. So a way around the gate does not compile.

use bytes::Bytes;

use crate::jsonrpc::Frame;

/// A frame that may go upstream, exactly as it was received.
#[derive(Debug)]
#[must_use = "a permitted frame that is not sent is a call that got lost"]
pub struct Permitted(Frame);

impl Permitted {
    /// The gate's word that `frame` may go upstream.
    pub(super) fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// The frame.
    pub fn frame(&self) -> &Frame {
        &self.0
    }
}

impl From<Permitted> for Bytes {
    /// The bytes to send: those that came in, with their line terminator.
    fn from(permitted: Permitted) -> Self {
        permitted.0.to_line()
    }
}

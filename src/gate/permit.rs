//! The proof that a frame may go upstream.
//!
//! Only the gate can make a [`Permitted`], because its constructor is visible to `gate` alone; an upstream writer takes
//! nothing else. So a way around the gate does not compile.

use bytes::Bytes;

use crate::{
    hold::HoldId,
    jsonrpc::{Frame, FrameBytes},
};

/// A frame that may go upstream, exactly as it was received.
#[derive(Debug)]
#[must_use = "a permitted frame that is not sent is a call that got lost"]
pub struct Permitted {
    bytes: FrameBytes,
    hold: Option<HoldId>,
}

impl Permitted {
    /// The gate's word that `frame` may go upstream.
    pub(super) fn new(frame: Frame) -> Self {
        Self { bytes: frame.into_bytes(), hold: None }
    }

    /// The gate's word that the frame of these `bytes` may go upstream because people have approved it as `hold`.
    pub(super) fn approved(bytes: FrameBytes, hold: HoldId) -> Self {
        Self { bytes, hold: Some(hold) }
    }

    /// What would be sent.
    pub(super) fn bytes(&self) -> &Bytes {
        self.bytes.bytes()
    }

    /// The body to send, exactly as it was received: nothing is added to it.
    pub fn into_body(self) -> Bytes {
        self.bytes.into_body()
    }

    /// The hold that it came out of.
    pub fn hold(&self) -> Option<HoldId> {
        self.hold
    }
}

impl From<Permitted> for Bytes {
    /// The bytes to send: those that came in, with their line terminator.
    fn from(permitted: Permitted) -> Self {
        permitted.bytes.into_line()
    }
}

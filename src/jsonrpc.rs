//! JSON-RPC 2.0 as it travels: lines, frames, and the errors we answer with.
//!
//! Read by every transport and by `mcp`, `policy` and `gate`. The words are ours because the question is: what will the
//! *server's* parser read in these bytes? So a frame is validated by one scanner (`scan`) that accepts only what every
//! parser reads in one way, and is kept as the bytes that came. Nothing here awaits, and nothing here writes JSON that was
//! received: what is forwarded is the `Bytes` of the frame.

// In reading order: a module uses only modules above it.
pub mod fault;
pub mod scan;

pub mod id;

pub mod canonical;

pub mod error;

pub mod frame;

pub mod codec;

pub mod sse;

pub use codec::{Line, LineCodec};
pub use error::error_response;
pub use fault::{ErrorCode, Fault};
pub use frame::{Frame, FrameBytes, FrameError, Kind};
pub use id::RequestId;

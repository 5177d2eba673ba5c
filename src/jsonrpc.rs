//! JSON-RPC 2.0 as it travels: lines, frames, and the errors we answer with.
//!
//! Read by every transport and by `mcp`, `policy` and `gate`. The words are ours because the question is: what will the
//! *server's* parser read in these bytes? So a frame is validated by one scanner (`scan`) that accepts only what every
//! parser reads in one way, and is kept as the bytes that came. Nothing here awaits, and nothing here writes JSON that was
//! received: what is forwarded is the `Bytes` of the frame.

pub mod codec;
pub mod error;
pub mod frame;
pub mod scan;

pub use codec::{Line, LineCodec};
pub use error::{ErrorCode, error_response};
pub use frame::{Fault, Frame, FrameError, Kind, RequestId};

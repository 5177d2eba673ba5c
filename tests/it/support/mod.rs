//! What the tests share: a session in memory that reads transcripts, and real peers as processes.

pub(crate) mod peers;
pub(crate) mod session;

//! What the tests share: a session in memory that reads transcripts, and the program itself in a home of its own.

pub(crate) mod program;
pub(crate) mod session;

//! What the tests share: a session in memory that reads transcripts, the program itself in a home of its own, and real
//! peers as processes.

pub(crate) mod browser;
pub(crate) mod conformance;
pub(crate) mod faults;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod peers;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod serve;
pub(crate) mod session;

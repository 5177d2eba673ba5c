//! How frames travel: the session between a client and a server over lines, the stdio transport that carries it, and HTTP.

mod calls;
pub mod guard;
pub mod http;
mod outbox;
mod output;
pub mod session;
mod socket;
pub mod stdio;
mod tools;
mod waiting;

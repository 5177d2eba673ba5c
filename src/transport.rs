//! How frames travel: the session between a client and a server, and the stdio transport that carries it.

mod calls;
pub mod guard;
mod outbox;
pub mod session;
pub mod stdio;

//! The control socket: how operators see and decide what is held, on this machine and by this user only.
//!
//! `place` says where the sockets are, `api` what can be asked, `server` answers for one gate (to whom, `lineage` helps to tell, and on
//! which `connection` so long), `client` asks all of them, `follow` listens to them, a `board` keeps what waits, and `policies` and `tools` are how those are told of.

pub mod api;
pub mod board;
pub mod client;
pub(crate) mod connection;
pub mod follow;
pub mod lineage;
pub mod place;
pub mod policies;
pub(crate) mod rate;
pub mod server;
pub mod tools;

//! Holdshort: a transparent proxy for the Model Context Protocol (MCP) that holds an agent's risky tool calls until people
//! approve them.
//!
//! The modules are listed in the order of a call's path; a module uses only modules above it (`tests/it/tidy.rs` checks
//! this). `ARCHITECTURE.md` walks one `tools/call` through them.

// tests: points at which they let this process die; nothing in the program
mod faults;

// words: pure, never await, never touch a file, a clock or a socket
pub mod digest;
pub mod sshsig;
pub mod sanitize;
pub mod jsonrpc;
pub mod mcp;
pub mod view;
pub mod principal;
pub mod hold;
pub mod definition;
pub mod policy;
pub mod waiting;

// state: what is durable, what waits, and what is counted of both
pub mod meter;
pub mod trace;
pub mod audit;
pub mod store;
mod hold_table;

// decision: the policy enforcement point
pub mod gate;

// edges: they move bytes and never decide
pub mod transport;
mod reachable;
pub mod reload;
pub mod control;
pub mod channels;
pub mod desk;

// composition: the program
pub mod config;
pub mod exit;
pub mod telemetry;
pub mod cli;

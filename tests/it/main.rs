//! The one integration binary: a module per feature. `support` holds what they share; nothing else is shared.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod support;

mod approvals;
mod bad_input;
mod canary;
mod channels;
mod clocks;
mod conformance;
mod control;
mod demo;
mod desk;
mod desk_pages;
mod desk_peers;
mod display;
mod docs;
mod doctor;
mod fleet;
mod gate;
mod kills;
mod model;
mod http;
mod http_abuse;
mod http_agents;
mod naughty;
mod neighbours;
mod patience;
mod http_lines;
mod http_remote;
mod http_revisions;
mod http_waiting;
mod policies;
mod quorum;
mod real_http_peers;
mod real_peers;
mod record;
mod reload;
mod signatures;
mod stdio;
mod tasks;
mod telemetry;
mod tidy;
mod tools;
mod transcripts;
mod waiting;

//! What the program shows of its own work: its log, numbers for Prometheus, whether it is well, and OTLP for a collector.
//!
//! Used by `cli`. Nothing of it is started where nobody asked for it, except the log. Nothing waits for whoever reads it: a call
//! goes its way whether or not the log, the numbers and the spans find a reader.

mod collect;
mod exposition;
mod listener;
mod log;

pub use self::{
    collect::Subject,
    listener::Listener,
    log::{LOG_VARIABLE, Log, init},
};

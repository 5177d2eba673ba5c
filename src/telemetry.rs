//! What the program shows of its own work: its log, numbers for Prometheus, whether it is well, and OTLP for a collector.
//!
//! Used by `cli`. Nothing of it is started where nobody asked for it, except the log. Nothing waits for whoever reads it: a call
//! goes its way whether or not the log, the numbers and the spans find a reader.

mod collect;
mod exposition;
mod json;
mod listener;
mod log;
mod otlp;

pub use self::{
    collect::Subject,
    listener::Listener,
    log::{LOG_VARIABLE, Log, LogFormat, as_json, init},
    otlp::{BadSettings, Otlp, OtlpSettings},
};

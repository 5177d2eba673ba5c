//! What the program says of its own work: on stderr, never on stdout, which belongs to the protocol or to data.
//!
//! `HOLDSHORT_LOG` sets what is said (`info`, `debug`, `holdshort::transport=trace`); the default is warnings. No argument
//! of a call and no secret is ever a field of a log line.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// The environment variable that sets what is logged.
pub const LOG_VARIABLE: &str = "HOLDSHORT_LOG";

/// Begins to log. Call it once, in `main`.
pub fn init() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second call would be a mistake of this program, and harmless.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

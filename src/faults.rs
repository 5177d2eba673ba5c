//! Named points along a call's life at which this process can be made to die, as a crash would.
//!
//! There are none in the program: the points are compiled only into this crate's own tests, which name one in the environment of a
//! process that they start (`tests`). A test of the program looks that it has none.

/// A point of this name. Nothing at all, outside of this crate's own tests.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(test)]
        crate::faults::at($name);
    };
}
pub(crate) use fail_point;

#[cfg(test)]
mod tests;

/// The point at which a started process dies; behind a colon, at which of the times that it comes there.
#[cfg(test)]
const POINT_VARIABLE: &str = "HOLDSHORT_TEST_DIES_AT";

/// Where it writes down that it has come to its point.
#[cfg(test)]
const FIRED_VARIABLE: &str = "HOLDSHORT_TEST_FIRED";

/// The process is at the point `name`.
#[cfg(test)]
pub(crate) fn at(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};

    static COMES: AtomicU64 = AtomicU64::new(0);
    let Ok(meant) = std::env::var(POINT_VARIABLE) else { return };
    let (point, time) = meant.split_once(':').unwrap_or((&meant, "1"));
    if point != name || COMES.fetch_add(1, Ordering::SeqCst) + 1 != time.parse::<u64>().unwrap() {
        return;
    }
    std::fs::write(std::env::var(FIRED_VARIABLE).unwrap(), name).unwrap();
    // As if by somebody else: nothing is unwound, flushed or told.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}

//! Named points along a call's life at which this process can be made to die, as a crash would, or something can be made to fail.
//!
//! There are none in the program: the points are compiled only into this crate's own tests, which name one in the environment of a
//! process that they start (`tests`). A test of the program looks that it has none.

/// A point of this name. Nothing at all, outside of this crate's own tests. With a second part, that is what happens at it; without
/// one, the process dies.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(test)]
        crate::faults::at($name);
    };
    ($name:literal, $fails:expr) => {
        #[cfg(test)]
        if crate::faults::fails($name) {
            $fails;
        }
    };
}
pub(crate) use fail_point;

#[cfg(test)]
mod tests;

/// The point whose fault happens; behind a colon, at which of the times that it is reached.
#[cfg(test)]
const POINT_VARIABLE: &str = "HOLDSHORT_TEST_FAULT_AT";

/// Where the process writes down that the fault has happened.
#[cfg(test)]
const FIRED_VARIABLE: &str = "HOLDSHORT_TEST_FIRED";

/// Whether what fails may do so by now: not while a process begins.
#[cfg(test)]
static HAS_BEGUN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// The process is at the point `name`.
#[cfg(test)]
pub(crate) fn at(name: &str) {
    if is_due(name) {
        // As if by somebody else: nothing is unwound, flushed or told.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        loop {
            std::thread::park();
        }
    }
}

/// Whether what is done at the point `name` is to fail.
#[cfg(test)]
pub(crate) fn fails(name: &str) -> bool {
    HAS_BEGUN.load(std::sync::atomic::Ordering::SeqCst) && is_due(name)
}

#[cfg(test)]
fn is_due(name: &str) -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};

    static COMES: AtomicU64 = AtomicU64::new(0);
    let Ok(meant) = std::env::var(POINT_VARIABLE) else { return false };
    let (point, time) = meant.split_once(':').unwrap_or((&meant, "1"));
    let is_due = point == name && COMES.fetch_add(1, Ordering::SeqCst) + 1 == time.parse::<u64>().unwrap();
    if is_due {
        std::fs::write(std::env::var(FIRED_VARIABLE).unwrap(), name).unwrap();
    }
    is_due
}

//! Ends a bench in which nothing comes back any more: a hanging measurement is a failed one.
//!
//! Used by the benches that drive other processes; those that do not end with their input are ended by whoever has started them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// As long as nothing comes back before the bench gives up.
pub(crate) const HANG_SECONDS: u64 = 60;

/// Counts what came in: a figure that does not move means that somebody hangs.
pub(crate) static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// Starts to watch; `give_up` is done before the process ends.
pub(crate) fn watch(give_up: fn()) {
    thread::spawn(move || {
        let mut seen = u64::MAX;
        loop {
            let answers = ANSWERS.load(Ordering::Relaxed);
            if answers == seen {
                complain(&format!("the measurement failed: nothing came back for {HANG_SECONDS} s"));
                give_up();
                std::process::exit(1);
            }
            seen = answers;
            thread::sleep(Duration::from_secs(HANG_SECONDS));
        }
    });
}

/// Says why nothing was measured.
#[expect(clippy::print_stderr, reason = "a bench talks to the person who runs it")]
pub(crate) fn complain(text: &str) {
    eprintln!("{text}");
}

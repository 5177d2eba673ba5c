//! How many events of the log were lost, until a line of the log tells of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::meter::{Dropped, Meter};

/// The count, shared by who loses events and who tells of it.
#[derive(Default)]
pub(super) struct Lost {
    untold: AtomicU64,
    meter: Arc<Meter>,
}

impl Lost {
    /// None so far; `meter` hears of each.
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { untold: AtomicU64::new(0), meter }
    }

    /// One more.
    pub(super) fn one(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        self.meter.dropped(Dropped::Audit, 1);
    }

    /// Those that a line is about to tell of.
    pub(super) fn take(&self) -> u64 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    /// The line was not written.
    pub(super) fn put_back(&self, count: u64) {
        self.untold.fetch_add(count, Ordering::Relaxed);
    }

    /// Those that no line tells of.
    pub(super) fn untold(&self) -> u64 {
        self.untold.load(Ordering::Relaxed)
    }
}

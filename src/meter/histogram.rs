//! How often something took how long.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::family::Distribution;

/// For what people decide: from a tenth of a second to a day.
pub(super) const DECISION_SECONDS: &[f64] =
    &[0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0];

/// For what a disk or a database answers: from a tenth of a millisecond to ten seconds.
pub(super) const STORE_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Times, counted by the first of `bounds` (in seconds) that each does not exceed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: for what exceeds them all.
    counts: Box<[AtomicU64]>,
    microseconds: AtomicU64,
}

impl Histogram {
    /// One that has seen nothing.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, counts, microseconds: AtomicU64::new(0) }
    }

    /// Something took this long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// What it has seen so far.
    pub(super) fn now(&self) -> Distribution {
        let microseconds = self.microseconds.load(Ordering::Relaxed);
        Distribution {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: Duration::from_micros(microseconds).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_at_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for millis in [0, 500, 501, 1000, 1001, 90_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let seen = histogram.now();
        assert_eq!(seen.counts, [2, 2, 2]);
        assert_eq!((seen.count(), seen.sum), (6, 93.002));
    }
}

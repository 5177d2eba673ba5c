//! How often something may happen.
//!
//! Used where somebody could try again and again. It refuses; it never makes anybody wait.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket of permits that fills again evenly.
#[derive(Debug)]
pub(super) struct Rate {
    permits_max: f64,
    every: Duration,
    left: Mutex<(f64, Instant)>,
}

impl Rate {
    /// Keys that are wrong: ten at once, then one in six seconds. (They have 256 bits: this is for the log and the processor.)
    pub(super) fn wrong_keys() -> Self {
        Self::new(10, Duration::from_secs(6))
    }

    /// Verdicts: sixty at once, then one a second.
    pub(super) fn verdicts() -> Self {
        Self::new(60, Duration::from_secs(1))
    }

    fn new(permits_max: u32, every: Duration) -> Self {
        let permits_max = f64::from(permits_max);
        Self { permits_max, every, left: Mutex::new((permits_max, Instant::now())) }
    }

    /// Takes a permit, if one is left; else says how many seconds it takes until there is one.
    pub(super) fn take(&self) -> Result<(), u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Result<(), u64> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(left.1).as_secs_f64();
        let permits = (left.0 + elapsed / self.every.as_secs_f64()).min(self.permits_max);
        if permits < 1.0 {
            *left = (permits, now);
            return Err(self.every.mul_f64(1.0 - permits).as_secs() + 1);
        }
        *left = (permits - 1.0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_there_is_one_permit_at_a_time() {
        let rate = Rate::new(3, Duration::from_secs(10));
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rate.take_at(now), Ok(()));
        }
        assert_eq!(rate.take_at(now), Err(11));
        assert!(rate.take_at(now + Duration::from_secs(9)).is_err());
        assert_eq!(rate.take_at(now + Duration::from_secs(10)), Ok(()));
        assert!(rate.take_at(now + Duration::from_secs(10)).is_err());
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..4).filter(|_| rate.take_at(later).is_ok()).count(), 3, "never more than a burst");
    }
}

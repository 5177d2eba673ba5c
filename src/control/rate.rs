//! How often something may happen.
//!
//! Used where somebody could try again and again. It refuses; it never makes anybody wait.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket of permits that fills again evenly.
#[derive(Debug)]
pub(crate) struct Rate {
    permits_max: f64,
    every: Duration,
    left: Mutex<(f64, Instant)>,
}

impl Rate {
    /// Keys that are wrong: ten at once, then one in six seconds. (They have 256 bits: this is for the log and the processor.)
    pub(crate) fn wrong_keys() -> Self {
        Self::new(10, Duration::from_secs(6))
    }

    /// Verdicts: sixty at once, then one a second.
    pub(crate) fn verdicts() -> Self {
        Self::new(60, Duration::from_secs(1))
    }

    /// Verdicts that have no effect: six hundred at once, then ten a second. More than a desk lets through, so that nobody there can use up
    /// what others need.
    pub(crate) fn fruitless() -> Self {
        Self::new(600, Duration::from_millis(100))
    }

    fn new(permits_max: u32, every: Duration) -> Self {
        let permits_max = f64::from(permits_max);
        Self { permits_max, every, left: Mutex::new((permits_max, Instant::now())) }
    }

    /// Takes a permit, if one is left; else says how many seconds it takes until there is one.
    pub(crate) fn take(&self) -> Result<(), u64> {
        self.permit(Instant::now(), 1.0)
    }

    /// The same, and leaves the permit there.
    pub(crate) fn look(&self) -> Result<(), u64> {
        self.permit(Instant::now(), 0.0)
    }

    fn permit(&self, now: Instant, taken: f64) -> Result<(), u64> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(left.1).as_secs_f64();
        let permits = (left.0 + elapsed / self.every.as_secs_f64()).min(self.permits_max);
        if permits < 1.0 {
            *left = (permits, now);
            return Err(self.every.mul_f64(1.0 - permits).as_secs() + 1);
        }
        *left = (permits - taken, now);
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
            assert_eq!(rate.permit(now, 1.0), Ok(()));
        }
        assert_eq!(rate.permit(now, 1.0), Err(11));
        assert!(rate.permit(now + Duration::from_secs(9), 1.0).is_err());
        assert_eq!(rate.permit(now + Duration::from_secs(10), 1.0), Ok(()));
        assert!(rate.permit(now + Duration::from_secs(10), 1.0).is_err());
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..4).filter(|_| rate.permit(later, 1.0).is_ok()).count(), 3, "never more than a burst");
    }
}

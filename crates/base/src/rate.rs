//! How often something may happen: commands that strangers can send, and lines in the log that
//! strangers can cause.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::clock::Stamp;

/// At most `burst` at once, and one more each `every`.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many of the burst are used up, at `at`.
    used: u32,
    at: Option<Stamp>,
    left_out: u64,
}

impl RateLimit {
    /// A limit of which nothing is used up.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, state: Mutex::default() }
    }

    /// Uses one up, or says how long it takes until there is one again.
    ///
    /// # Errors
    /// With that time.
    pub fn take(&self, now: &Stamp) -> Result<(), Duration> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).take(self, now)
    }

    /// For a line in the log: how many were left out since the last one, if one may be written
    /// now. Otherwise it is left out and counted.
    pub fn line(&self, now: &Stamp) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.take(self, now).is_ok() {
            return Some(std::mem::take(&mut state.left_out));
        }
        state.left_out += 1;
        None
    }
}

impl State {
    fn take(&mut self, limit: &RateLimit, now: &Stamp) -> Result<(), Duration> {
        let at = *self.at.get_or_insert(*now);
        let waited = now.since(&at);
        let back = waited.as_nanos() / limit.every.as_nanos().max(1);
        if back > 0 {
            self.used = self.used.saturating_sub(u32::try_from(back).unwrap_or(u32::MAX));
            self.at = Some(*now);
        }
        if self.used < limit.burst {
            if self.used == 0 {
                // The time until the next one counts from the first use.
                self.at = Some(*now);
            }
            self.used += 1;
            return Ok(());
        }
        Err(limit.every.saturating_sub(now.since(&self.at.unwrap_or(*now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_burst_passes_and_then_one_each_period() {
        let clock = Clock::manual(0);
        let limit = RateLimit::new(3, Duration::from_secs(2));
        for _ in 0..3 {
            assert_eq!(limit.take(&clock.now()), Ok(()));
        }
        clock.advance(Duration::from_millis(500));
        assert_eq!(limit.take(&clock.now()), Err(Duration::from_millis(1500)));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(limit.take(&clock.now()), Ok(()));
        assert!(limit.take(&clock.now()).is_err());
        clock.advance(Duration::from_secs(3600));
        for _ in 0..3 {
            assert_eq!(limit.take(&clock.now()), Ok(()), "never more than the burst");
        }
        assert!(limit.take(&clock.now()).is_err());
    }

    #[test]
    fn lines_that_are_left_out_are_counted_in_the_next_one() {
        let clock = Clock::manual(0);
        let limit = RateLimit::new(1, Duration::from_secs(1));
        assert_eq!(limit.line(&clock.now()), Some(0));
        for _ in 0..3000 {
            assert_eq!(limit.line(&clock.now()), None);
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(limit.line(&clock.now()), Some(3000));
    }
}

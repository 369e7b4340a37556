//! How long to wait before something that failed is tried again: twice as long for each failure in a
//! row, up to a bound.

use std::time::Duration;

/// The waits after failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// After many.
    pub longest: Duration,
}

impl Backoff {
    /// From `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The wait after so many failures in a row; as after one where there was none.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// The same, between half and all of it as `jitter` from 0 to 1 says, so that a thousand boxes
    /// do not come back at once.
    pub fn jittered(&self, failures: u32, jitter: f64) -> Duration {
        self.after(failures).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

    #[test]
    fn each_failure_in_a_row_doubles_the_wait_up_to_the_longest() {
        let seconds = |failures| BACKOFF.after(failures).as_secs();
        assert_eq!([0, 1, 2, 3, 6, 7, 8].map(seconds), [1, 1, 2, 4, 32, 60, 60]);
        assert_eq!(BACKOFF.after(u32::MAX), BACKOFF.longest);
    }

    #[test]
    fn jitter_takes_at_most_half_of_a_wait() {
        assert_eq!(BACKOFF.jittered(3, 0.0), Duration::from_secs(2));
        assert_eq!(BACKOFF.jittered(3, 1.0), Duration::from_secs(4));
        assert_eq!(BACKOFF.jittered(3, 9.0), Duration::from_secs(4));
    }
}

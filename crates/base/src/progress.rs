//! Whether a stage of the daemon gets on with its work: two atomics that its thread writes and
//! that whoever watches reads.
//!
//! A stage is *busy* from taking a piece of work to being done with it, and *stuck* when one
//! piece takes longer than its limit. Waiting for work, or for room in the next queue, is not
//! work: there the stage is idle, however long it takes.
//!
//! A [`Injection`] that was ordered strikes in the middle of a piece of work, where the real fault
//! would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Clock;
use super::fault_injection::Injection;

/// Progress of one stage. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    name: &'static str,
    limit: Duration,
    clock: Clock,
    /// When the piece of work at hand was begun, in ns of monotonic time plus one; 0 while idle.
    begun: AtomicU64,
    injections: Vec<Injection>,
}

impl Progress {
    /// Of the stage `name`, which may take as long as `limit` for one piece of work.
    pub fn new(name: &'static str, limit: Duration, clock: Clock) -> Self {
        Self::with_injections(name, limit, clock, Vec::new())
    }

    /// As [`Progress::new`], with faults that were ordered.
    pub fn with_injections(
        name: &'static str,
        limit: Duration,
        clock: Clock,
        injections: Vec<Injection>,
    ) -> Self {
        Self(Arc::new(Inner { name, limit, clock, begun: AtomicU64::new(0), injections }))
    }

    /// Of a stage that nobody watches, as in a command that ends by itself.
    pub fn unwatched() -> Self {
        Self::new("", Duration::MAX, Clock::system())
    }

    /// Name of the stage.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// How long one piece of work may take.
    pub fn limit(&self) -> Duration {
        self.0.limit
    }

    /// A piece of work begins; it ends when the guard is dropped, also by a panic.
    #[must_use = "the work ends when this is dropped"]
    pub fn work(&self) -> Busy {
        let now = self.0.clock.now().mono_ns;
        self.0.begun.store(now.saturating_add(1), Ordering::Release);
        Busy(self.clone())
    }

    /// In the middle of the `n`-th frame or batch, counted here: lets an injected fault strike.
    pub fn pass(&self) {
        for injection in &self.0.injections {
            injection.pass(self.0.name);
        }
    }

    /// How long the stage has been at its piece of work; `None` while it is idle.
    pub fn busy_for(&self) -> Option<Duration> {
        let begun = self.0.begun.load(Ordering::Acquire).checked_sub(1)?;
        // It may have begun after the caller looked at the clock.
        Some(Duration::from_nanos(self.0.clock.now().mono_ns.saturating_sub(begun)))
    }

    /// Whether that is longer than it may be.
    pub fn is_stuck(&self) -> bool {
        self.busy_for().is_some_and(|busy| busy > self.0.limit)
    }
}

/// A stage is at work for as long as this lives.
pub struct Busy(Progress);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.begun.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_stuck_when_one_piece_of_work_takes_longer_than_its_limit() {
        let clock = Clock::manual(0);
        let progress = Progress::new("segment", Duration::from_secs(10), clock.clone());
        assert_eq!(progress.busy_for(), None);
        let busy = progress.work();
        clock.advance(Duration::from_secs(10));
        assert_eq!(progress.busy_for(), Some(Duration::from_secs(10)));
        assert!(!progress.is_stuck());
        clock.advance(Duration::from_nanos(1));
        assert!(progress.is_stuck());
        drop(busy);
        assert!(!progress.is_stuck());
    }

    #[test]
    fn many_pieces_of_work_and_a_long_wait_are_no_standstill() {
        let clock = Clock::manual(0);
        let progress = Progress::new("capture", Duration::from_secs(10), clock.clone());
        for _ in 0..5 {
            let _busy = progress.work();
            clock.advance(Duration::from_secs(9));
            assert!(!progress.is_stuck());
        }
        clock.advance(Duration::from_secs(3600));
        assert_eq!(progress.busy_for(), None);
    }

    #[test]
    fn a_panic_ends_the_piece_of_work() {
        let progress = Progress::new("segment", Duration::from_secs(1), Clock::manual(0));
        let inside = progress.clone();
        let panicked = std::thread::spawn(move || {
            let _busy = inside.work();
            panic!("a fault of this test's own");
        });
        assert!(panicked.join().is_err());
        assert_eq!(progress.busy_for(), None);
    }
}

//! Reading that ends: a file whose reads fail once the time for them is over.
//!
//! Decoders are of another's making and cannot be asked to stop, but they read, and between two
//! reads of 64 KiB they make at most some tens of megabytes of pixels.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Problem;
use reticle_base::clock::Clock;

/// How long reading may take. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Timer(Arc<Inner>);

struct Inner {
    clock: Clock,
    limit: Duration,
    /// In ns of monotonic time.
    until: AtomicU64,
    is_over: AtomicBool,
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} for each page", self.0.limit)
    }
}

impl Timer {
    /// Of so much for each piece of work.
    pub(super) fn new(limit: Duration) -> Self {
        Self::with_clock(limit, Clock::system())
    }

    fn with_clock(limit: Duration, clock: Clock) -> Self {
        let until = AtomicU64::new(u64::MAX);
        Self(Arc::new(Inner { clock, limit, until, is_over: AtomicBool::new(false) }))
    }

    /// A piece of work begins.
    pub(super) fn start(&self) {
        let limit = u64::try_from(self.0.limit.as_nanos()).unwrap_or(u64::MAX);
        let until = self.0.clock.now().mono_ns.saturating_add(limit);
        self.0.until.store(until, Ordering::Relaxed);
        self.0.is_over.store(false, Ordering::Relaxed);
    }

    /// What is wrong, where its time was over.
    pub(super) fn problem(&self) -> Option<Problem> {
        let seconds = self.0.limit.as_secs();
        self.0.is_over.load(Ordering::Relaxed).then_some(Problem::TooSlow { seconds })
    }

    fn check(&self) -> io::Result<()> {
        if self.0.clock.now().mono_ns > self.0.until.load(Ordering::Relaxed) {
            self.0.is_over.store(true, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::TimedOut, "reading took too long"));
        }
        Ok(())
    }
}

/// A file that is read in time.
#[derive(Debug)]
pub(super) struct Timed {
    file: File,
    timer: Timer,
}

impl Timed {
    pub(super) fn new(file: File, timer: &Timer) -> Self {
        Self { file, timer: timer.clone() }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.timer.check()?;
        self.file.read(into)
    }
}

impl Seek for Timed {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.timer.check()?;
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_fails_when_its_time_is_over_and_the_next_page_has_its_own() {
        let clock = Clock::manual(0);
        let timer = Timer::with_clock(Duration::from_secs(60), clock.clone());
        let mut file = Timed::new(tempfile::tempfile().unwrap(), &timer);
        timer.start();
        clock.advance(Duration::from_secs(60));
        assert_eq!(file.read(&mut [0]).unwrap(), 0);
        assert!(timer.problem().is_none());
        clock.advance(Duration::from_secs(1));
        assert_eq!(file.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let why = timer.problem().unwrap().to_string();
        assert!(why.starts_with("was not read within 60 s"), "{why}");
        timer.start();
        assert_eq!(file.read(&mut [0]).unwrap(), 0);
    }
}

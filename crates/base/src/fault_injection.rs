//! Faults that a person orders to see what happens: the environment variable [`VARIABLE`].
//!
//! ```text
//! RETICLE_INJECT=segment-panic:20,writer-stall:30:45,capture-hang:10:60,stuck-after:15
//! ```
//!
//! | fault                 | what happens                                                     |
//! |-----------------------|------------------------------------------------------------------|
//! | `NAME-panic:N`        | the thread NAME panics at its N-th piece of work                 |
//! | `NAME-panic:N:T`      | the same for T pieces of work in a row                           |
//! | `segment-stall:N:S`   | the segmentation of the N-th frame takes S seconds longer        |
//! | `writer-stall:N:S`    | the store's N-th batch takes S seconds longer                    |
//! | `capture-hang:N:S`    | the source hangs for S seconds after its N-th frame              |
//! | `stuck-after:S`       | no fault: every stage counts as stuck after S seconds of one work |
//!
//! NAME is a [`Thread`]; the thread `store-writer` is `writer` here. A piece of work is
//!
//! | NAME | piece of work |
//! |------|---------------|
//! | `control`, `publish` | a look at what there is to do, four a second |
//! | `capture`, `segment` | a frame (the panics of single frames are caught: `segment` dies of three in a row) |
//! | `writer` | a batch |
//! | `sync` | a look at how far the destinations are, one in two seconds |
//! | `sync-archive`, `sync-central` | a look for something to deliver, one a second while there is nothing |
//! | `web` | a second |
//! | `otlp` | numbers that are sent |
//!
//! Off unless set; then a stage has no faults and pays nothing. A stall does not end when the
//! daemon is asked to stop, as a driver that hangs does not.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::thread::Thread;

/// Environment variable that orders faults.
pub const VARIABLE: &str = "RETICLE_INJECT";

/// Longest stall that can be ordered: an hour is for ever, and a mistyped one ends.
const LONGEST_STALL_S: u64 = 3600;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Panic { times: u64 },
    Stall(Duration),
}

/// One fault in one stage.
#[derive(Debug)]
pub struct Injection {
    fault: Fault,
    /// At which piece of work, from 1.
    nth: u64,
    passed: AtomicU64,
}

impl Injection {
    fn new(fault: Fault, nth: u64) -> Self {
        Self { fault, nth, passed: AtomicU64::new(0) }
    }

    /// Strikes, if this is its piece of work.
    pub(super) fn pass(&self, stage: &str) {
        let now = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Fault::Panic { times } if now >= self.nth && now - self.nth < times => {
                panic!("injected fault: {stage} panics here ({VARIABLE})");
            }
            Fault::Stall(length) if now == self.nth => {
                let seconds = length.as_secs();
                tracing::warn!(stage, seconds, "injected fault: the stage stands still");
                std::thread::sleep(length);
                tracing::warn!(stage, "injected fault: the stage goes on");
            }
            _ => {}
        }
    }
}

/// Everything that was ordered, by thread.
#[derive(Debug, Default)]
pub struct Injections {
    by_thread: BTreeMap<Thread, Vec<Injection>>,
    /// Limit of every stage instead of its own.
    pub stuck_after: Option<Duration>,
}

/// A text that orders no fault.
#[derive(Debug, thiserror::Error)]
#[error(
    "{VARIABLE}: `{item}` is no fault that can be injected; write THREAD-panic:NUMBER[:TIMES] (of control, capture, \
     segment, writer, sync, sync-archive, sync-central, publish, web or otlp), \
     segment-stall:FRAME:SECONDS, writer-stall:BATCH:SECONDS, capture-hang:FRAME:SECONDS or \
     stuck-after:SECONDS (numbers from 1, seconds at most {LONGEST_STALL_S}), with commas between; \
     or unset it to work without faults"
)]
pub struct NoInjection {
    item: String,
}

impl Injections {
    /// What the environment orders; nothing where it is silent.
    ///
    /// # Errors
    /// When it says something else.
    pub fn from_environment() -> Result<Self, NoInjection> {
        let text = std::env::var_os(VARIABLE).unwrap_or_default();
        let text = text.to_string_lossy();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let injections = text.parse()?;
        tracing::warn!(
            injections = &*text,
            "FAULT INJECTION is on ({VARIABLE}): faults will be made on purpose. Never for real work"
        );
        Ok(injections)
    }
}

impl FromStr for Injections {
    type Err = NoInjection;

    fn from_str(text: &str) -> Result<Self, NoInjection> {
        let mut injections = Self::default();
        for item in text.split(',').map(str::trim) {
            injections.add(item).ok_or_else(|| NoInjection { item: item.to_owned() })?;
        }
        Ok(injections)
    }
}

/// What a thread is called here.
fn word(thread: Thread) -> &'static str {
    match thread {
        Thread::StoreWriter => "writer",
        other => other.name(),
    }
}

impl Injections {
    /// Those of one thread, which are its own from now on.
    pub fn take(&mut self, thread: Thread) -> Vec<Injection> {
        self.by_thread.remove(&thread).unwrap_or_default()
    }

    fn order(&mut self, thread: Thread, fault: Fault, nth: u64) {
        self.by_thread.entry(thread).or_default().push(Injection::new(fault, nth));
    }

    fn add(&mut self, item: &str) -> Option<()> {
        let mut words = item.split(':');
        let name = words.next()?;
        let numbers = words
            .map(|word| word.parse::<u64>().ok().filter(|number| *number > 0))
            .collect::<Option<Vec<u64>>>()?;
        let stall = |seconds: u64| {
            (seconds <= LONGEST_STALL_S).then(|| Fault::Stall(Duration::from_secs(seconds)))
        };
        if let Some(name) = name.strip_suffix("-panic") {
            let thread = Thread::ALL.into_iter().find(|thread| word(*thread) == name)?;
            let (nth, times) = match *numbers.as_slice() {
                [nth] => (nth, 1),
                [nth, times] => (nth, times),
                _ => return None,
            };
            self.order(thread, Fault::Panic { times }, nth);
            return Some(());
        }
        match (name, numbers.as_slice()) {
            ("segment-stall", &[nth, seconds]) => {
                self.order(Thread::Segment, stall(seconds)?, nth);
            }
            ("writer-stall", &[nth, seconds]) => {
                self.order(Thread::StoreWriter, stall(seconds)?, nth);
            }
            ("capture-hang", &[nth, seconds]) => {
                self.order(Thread::Capture, stall(seconds)?, nth);
            }
            ("stuck-after", &[seconds]) if seconds <= LONGEST_STALL_S => {
                self.stuck_after = Some(Duration::from_secs(seconds));
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_are_read_by_stage() {
        let text = "segment-panic:20, writer-stall:30:45,capture-hang:10:60,stuck-after:5";
        let mut injections: Injections = text.parse().unwrap();
        let mut read = |thread| {
            let injections = injections.take(thread);
            injections.iter().map(|injection| (injection.nth, injection.fault)).collect::<Vec<_>>()
        };
        let stall = |seconds| Fault::Stall(Duration::from_secs(seconds));
        assert_eq!(read(Thread::Segment), [(20, Fault::Panic { times: 1 })]);
        assert_eq!(read(Thread::StoreWriter), [(30, stall(45))]);
        assert_eq!(read(Thread::Capture), [(10, stall(60))]);
        assert_eq!(injections.stuck_after, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_thread_of_any_name_can_be_let_die() {
        for thread in Thread::ALL {
            let mut injections: Injections = format!("{}-panic:3:2", word(thread)).parse().unwrap();
            let injections = injections.take(thread);
            assert_eq!((injections[0].nth, injections[0].fault), (3, Fault::Panic { times: 2 }));
        }
    }

    #[test]
    fn a_text_that_orders_nothing_is_refused_with_what_to_write() {
        for bad in [
            "segment-panic",
            "segment-panic:0",
            "segment-panic:1:2:3",
            "writer-stall:3",
            "writer-stall:3:99999",
            "capture-hang:a:1",
            "disk-full:1",
            "nobody-panic:1",
            "web-panic:0",
            "segment-panic:1,,",
        ] {
            let error = bad.parse::<Injections>().expect_err(bad).to_string();
            assert!(error.starts_with("RETICLE_INJECT: `"), "{error}");
            assert!(error.contains("write THREAD-panic:NUMBER"), "{error}");
        }
    }

    #[test]
    fn a_panic_strikes_as_often_as_ordered_and_not_before() {
        let mut injections: Injections = "segment-panic:2:2".parse().unwrap();
        let injection = injections.take(Thread::Segment).remove(0);
        let struck: Vec<bool> = (0..4)
            .map(|_| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| injection.pass("segment")))
                    .is_err()
            })
            .collect();
        assert_eq!(struck, [false, true, true, false]);
    }
}

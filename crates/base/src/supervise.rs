//! Every long-lived thread of the daemon has someone who notices its end.
//!
//! [`Roster`] lists the threads. A thread that panics, or that ends although nobody asked it to,
//! is *dead*: that is counted, logged with what it said, and told by [`Roster::look`], from where
//! status, metrics and alarms have it. Then the written policy happens:
//!
//! | thread | policy | why |
//! |--------|--------|-----|
//! | `control`, `capture`, `segment`, `store-writer` | the process ends | each is a link of the only chain from the camera to the disk, and what a panic left half-done in it (a driver's buffers, a batch) only a fresh process is rid of; what was acknowledged is on the disk |
//! | `sync`, `sync-archive`, `sync-central`, `publish`, `web`, `otlp` | it begins again | frames are taken and saved without them, and must not stop for them; all that they have to do is on the disk or on the status board |
//!
//! A thread that begins again waits before: 1 s, twice as long for each death in a row, a minute
//! at most. `sync-archive` and `sync-central` are tasks of the thread `sync-work`; they are watched
//! as if they were threads.
//!
//! What does not belong here: threads that work for one call (the pool of the segmentation, the
//! threads of a runtime that block). Their panic comes out in whoever waits for them.
//!
//! A [`Injection`] that was ordered strikes in [`Watched::pass`].

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::clock::{Clock, Stamp};
use super::fault_injection::{Injection, Injections};
use super::thread::{Policy, Thread};
use crate::backoff::Backoff;

/// The pause after a death, before the thread begins again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: long enough that a thread that dies at once is no load, short enough that
/// what waits for it is not forgotten.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A thread that lived so long begins to count its deaths in a row anew.
const WELL: Duration = Duration::from_secs(600);

/// How long a death is told after the thread works again: longer than the longest pause, so that
/// a thread that dies again and again is one alarm.
const LATELY: Duration = Duration::from_secs(90);

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It works, or waits for work.
    Works,
    /// It died and will begin again.
    Pauses,
    /// It died, and the process ends of it.
    Dead,
    /// It came to its end.
    Ended,
}

impl Life {
    /// The word for it, as `works`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Pauses => "pauses",
            Self::Dead => "dead",
            Self::Ended => "ended",
        }
    }
}

/// How a thread is, for those who tell it.
#[derive(Clone, Debug)]
pub struct Look {
    /// Which.
    pub thread: Thread,
    /// What it is doing.
    pub life: Life,
    /// How often it died.
    pub deaths: u64,
    /// When it died last, and what it said.
    pub last: Option<(Stamp, String)>,
    /// Whether it is dead, or died so short a time ago that somebody should know.
    pub lately: bool,
}

/// The threads of one daemon. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Roster(Arc<Inner>);

struct Inner {
    clock: Clock,
    injections: Mutex<Injections>,
    threads: Mutex<Vec<Watched>>,
}

impl Roster {
    /// Nobody yet. Each thread gets the faults that are injected into it.
    pub fn new(injections: Injections, clock: Clock) -> Self {
        let (injections, threads) = (Mutex::new(injections), Mutex::default());
        Self(Arc::new(Inner { clock, injections, threads }))
    }

    /// Watches a thread from now on.
    pub fn watch(&self, thread: Thread) -> Watched {
        let injections =
            self.0.injections.lock().unwrap_or_else(PoisonError::into_inner).take(thread);
        let watched = Watched::new(thread, injections, self.0.clock.clone());
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(watched.clone());
        watched
    }

    /// A thread without which the process ends, and that died. One that ended although nobody asked
    /// it to counts as dead from here on; so this is asked only while nobody has asked.
    pub fn dead(&self) -> Option<Thread> {
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |life| {
            threads.iter().find(|watched| {
                watched.0.thread.policy() == Policy::EndTheProcess && watched.lock().life == life
            })
        };
        // One that died takes others along, which end in order.
        let found = is(Life::Dead).or_else(|| {
            is(Life::Ended).inspect(|watched| {
                watched.died("it ended although nobody asked it to");
            })
        });
        found.map(|watched| watched.0.thread)
    }

    /// How each of them is.
    pub fn look(&self) -> Vec<Look> {
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().map(Watched::look).collect()
    }
}

/// One thread under supervision. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Watched(Arc<Entry>);

struct Entry {
    thread: Thread,
    clock: Clock,
    injections: Vec<Injection>,
    state: Mutex<State>,
}

struct State {
    life: Life,
    begun: Stamp,
    deaths: u64,
    in_a_row: u32,
    last: Option<(Stamp, String)>,
}

impl Watched {
    fn new(thread: Thread, injections: Vec<Injection>, clock: Clock) -> Self {
        let begun = clock.now();
        let state = State { life: Life::Works, begun, deaths: 0, in_a_row: 0, last: None };
        Self(Arc::new(Entry { thread, clock, injections, state: Mutex::new(state) }))
    }

    /// One that nobody looks after, as in a command that ends by itself.
    pub fn alone(thread: Thread) -> Self {
        Self::new(thread, Vec::new(), Clock::system())
    }

    /// In the middle of the `n`-th piece of work, counted here: lets an injected fault strike.
    pub fn pass(&self) {
        for injection in &self.0.injections {
            injection.pass(self.0.thread.name());
        }
    }

    /// Does `work`, after which the thread ends; `None` where it died.
    pub fn once<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => {
                self.lock().life = Life::Ended;
                Some(done)
            }
            Err(panic) => {
                self.died(words(&*panic));
                None
            }
        }
    }

    /// Does `work` until it comes to its end, which gives `None`, or dies of a panic or an error:
    /// then for how long to wait before the next attempt.
    pub fn attempt(&self, work: impl FnOnce() -> io::Result<()>) -> Option<Duration> {
        self.begins();
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => self.ended(),
            Ok(Err(error)) => Some(self.died(&error.to_string())),
            Err(panic) => Some(self.died(words(&*panic))),
        }
    }

    /// As [`Watched::attempt`], for a task.
    pub async fn attempt_task(&self, work: impl Future<Output = ()>) -> Option<Duration> {
        self.begins();
        let mut work = pin!(work);
        let caught = poll_fn(|context| {
            // After a panic it is not polled again.
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        match caught.await {
            Ok(()) => self.ended(),
            Err(panic) => Some(self.died(words(&*panic))),
        }
    }

    fn begins(&self) {
        let now = self.0.clock.now();
        let mut state = self.lock();
        if state.life == Life::Pauses {
            tracing::info!(thread = self.0.thread.name(), "the thread that died begins again");
        }
        state.life = Life::Works;
        state.begun = now;
    }

    fn ended(&self) -> Option<Duration> {
        self.lock().life = Life::Ended;
        None
    }

    /// Notes a death, says it in the log, and gives the pause before the next beginning.
    fn died(&self, why: &str) -> Duration {
        let now = self.0.clock.now();
        let (thread, policy) = (self.0.thread.name(), self.0.thread.policy());
        let mut state = self.lock();
        state.deaths += 1;
        state.in_a_row = if now.since(&state.begun) >= WELL { 1 } else { state.in_a_row + 1 };
        state.last = Some((now, why.to_owned()));
        let pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).after(state.in_a_row);
        let deaths = state.deaths;
        match policy {
            Policy::EndTheProcess => {
                state.life = Life::Dead;
                tracing::error!(
                    thread,
                    policy = policy.word(),
                    deaths,
                    why,
                    "a thread died, which is a fault in Reticle: the process ends; report it"
                );
            }
            Policy::Restart => {
                state.life = Life::Pauses;
                tracing::error!(
                    thread,
                    policy = policy.word(),
                    deaths,
                    pause_s = pause.as_secs(),
                    why,
                    "a thread died, which is a fault in Reticle: it begins again; report it"
                );
            }
        }
        pause
    }

    fn look(&self) -> Look {
        let now = self.0.clock.now();
        let state = self.lock();
        let is_dead = matches!(state.life, Life::Pauses | Life::Dead);
        let is_recent = state.last.as_ref().is_some_and(|(at, _)| now.since(at) < LATELY);
        Look {
            thread: self.0.thread,
            life: state.life,
            deaths: state.deaths,
            last: state.last.clone(),
            lately: is_dead || is_recent,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a panic says.
pub fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> (Roster, Clock) {
        let clock = Clock::manual(0);
        (Roster::new(Injections::default(), clock.clone()), clock)
    }

    fn panics() -> io::Result<()> {
        panic!("a fault of this test's own");
    }

    #[test]
    fn a_thread_that_dies_is_counted_and_begins_again_after_a_longer_pause_each_time() {
        let (roster, _clock) = roster();
        let watched = roster.watch(Thread::Sync);
        let pauses: Vec<u64> = (0..8).map(|_| watched.attempt(panics).unwrap().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let look = roster.look().remove(0);
        assert_eq!((look.life, look.deaths, look.lately), (Life::Pauses, 8, true));
        assert_eq!(look.last.unwrap().1, "a fault of this test's own");
        assert_eq!(roster.dead(), None, "the process lives without it");
    }

    #[test]
    fn who_lived_long_waits_a_short_time_and_is_told_for_a_while() {
        let (roster, clock) = roster();
        let watched = roster.watch(Thread::Publish);
        for _ in 0..3 {
            watched.attempt(panics).unwrap();
        }
        let pause = watched.attempt(|| {
            assert_eq!(roster.look()[0].life, Life::Works);
            clock.advance(WELL);
            Err(io::Error::other("gone"))
        });
        assert_eq!(pause, Some(FIRST_PAUSE));
        assert_eq!(watched.attempt(|| Ok(())), None);
        assert!(roster.look()[0].lately);
        clock.advance(LATELY);
        let look = roster.look().remove(0);
        assert_eq!((look.life, look.deaths, look.lately), (Life::Ended, 4, false));
    }

    #[test]
    fn the_process_ends_of_a_thread_that_it_cannot_do_without_whether_it_died_or_ended() {
        for ends in [true, false] {
            let (roster, _clock) = roster();
            let watched = roster.watch(Thread::Capture);
            assert_eq!(roster.dead(), None);
            let done = watched.once(|| assert!(ends, "a fault of this test's own"));
            assert_eq!(done.is_some(), ends);
            assert_eq!(roster.dead(), Some(Thread::Capture));
        }
    }

    #[test]
    fn a_task_that_panics_is_caught_and_one_that_ends_is_not_begun_again() {
        let (roster, _clock) = roster();
        let watched = roster.watch(Thread::SyncArchive);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let panicked = runtime.block_on(watched.attempt_task(async {
            tokio::task::yield_now().await;
            panic!("in the middle");
        }));
        assert_eq!(panicked, Some(FIRST_PAUSE));
        assert_eq!(runtime.block_on(watched.attempt_task(async {})), None);
        assert_eq!(roster.look()[0].deaths, 1);
    }

    #[test]
    fn a_injection_of_a_thread_strikes_once_and_not_in_its_next_life() {
        let injections: Injections = "publish-panic:2".parse().unwrap();
        let roster = Roster::new(injections, Clock::manual(0));
        let (publish, web) = (roster.watch(Thread::Publish), roster.watch(Thread::Web));
        let work = || {
            for _ in 0..5 {
                publish.pass();
                web.pass();
            }
            Ok(())
        };
        assert!(publish.attempt(work).is_some());
        assert!(publish.attempt(work).is_none());
    }

    #[test]
    fn every_name_is_written_once_and_every_policy_in_the_design() {
        let design = include_str!("../../../docs/design/pipeline.md");
        for thread in Thread::ALL {
            let rows: Vec<&str> = design
                .lines()
                .filter(|line| line.starts_with(&format!("| `{}` | ", thread.name())))
                .filter(|line| line.contains(thread.policy().word()))
                .collect();
            assert_eq!(rows.len(), 1, "{}: {rows:?}", thread.name());
        }
    }
}

//! The orderly end: waits for each thread as long as waiting is of use, and goes on telling
//! the service manager, the page and the broker how things are meanwhile.
//!
//! A thread that hangs (a driver, a disk) must not hold the end for ever: the service manager
//! would kill the process in the middle of what the others still write. So
//! 1. once a stage is stuck ([`Watchdog::stuck`]) all together are waited for [`GRACE`] more, and
//!    nobody once [`STOP_WITHIN`] is over;
//! 2. what waits for the disk is still written then, if the writer is not the one that hangs;
//! 3. the process ends without the rest, which is named in the log and in the exit status.
//!
//! Nothing that was acknowledged depends on it: being killed is what the store is made for.

use std::thread::JoinHandle;
use std::time::Duration;

use super::control::{Control, LAST_WORDS, TICK};
use super::monitor::Monitor;
use super::watchdog::Watchdog;
use reticle_base::clock::{Clock, Stamp};
use reticle_base::thread::Thread;

/// How long the end may take. Longer than the longest piece of work of a stage, so that a slow
/// one is waited for; shorter than `TimeoutStopSec` of the unit, which kills (`tests/service.rs`
/// compares them).
pub const STOP_WITHIN: Duration = Duration::from_secs(150);

/// For how long a thread is waited for although a stage is stuck: those that need not the stage
/// take leave meanwhile.
const GRACE: Duration = Duration::from_secs(5);

/// How long the page may take, whatever else hangs: it has bounds of its own.
const PAGE: Duration = Duration::from_secs(10);

/// Between two looks at whether a thread has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Looks in a row at which the writer must have nothing to do: it may just be taking a job.
const IDLE_LOOKS: u32 = 5;

/// The end of one daemon.
pub(super) struct Ending<'a> {
    clock: &'a Clock,
    monitor: &'a Monitor,
    watchdog: &'a mut Watchdog,
    begun: Stamp,
    told: Stamp,
    /// Since when a stage is stuck.
    stuck: Option<Stamp>,
    /// Those that were not waited for to the end.
    left: Vec<&'static str>,
}

impl<'a> Ending<'a> {
    /// It begins now.
    pub(super) fn new(clock: &'a Clock, monitor: &'a Monitor, watchdog: &'a mut Watchdog) -> Self {
        watchdog.stopping();
        let now = clock.now();
        Self { clock, monitor, watchdog, begun: now, told: now, stuck: None, left: Vec::new() }
    }

    /// What was found is told for a while before anything ends: to the page, to the broker.
    pub(super) fn last_words(&mut self) {
        self.wait_at_most(LAST_WORDS, || false);
    }

    /// Hands over to the store what the control loop owes it; not once the writer has ended.
    pub(super) fn hand_over(&mut self, control: &mut Control<'_>, writer: &JoinHandle<()>) {
        if !self.wait(|| writer.is_finished() || control.hand_over()) {
            tracing::error!("the store does not take the end of the session any more");
        }
    }

    /// Lets the store end the orders that it was given, so that each is answered and recorded.
    pub(super) fn end_orders(&mut self, control: &mut Control<'_>, writer: &JoinHandle<()>) {
        let mut is_over = || {
            let has_ended = control.end_orders();
            (control.hand_over() && has_ended) || writer.is_finished()
        };
        if !self.wait(&mut is_over) {
            tracing::error!("the store does not end the last orders; they may have been done");
        }
    }

    /// Waits for a thread that was asked to end.
    pub(super) fn join(&mut self, thread: JoinHandle<()>, which: Thread) {
        let has_ended = self.wait(|| thread.is_finished());
        self.close(thread, which, has_ended);
    }

    /// The same for the page, which tells how the others end.
    pub(super) fn join_page(&mut self, thread: JoinHandle<()>) {
        let has_ended = self.wait_at_most(PAGE, || thread.is_finished());
        self.close(thread, Thread::Web, has_ended);
    }

    /// If somebody was left, the store's queue does not close: lets the writer do what is in it,
    /// until it is idle or the one that hangs.
    pub(super) fn settle(&mut self, is_over: impl Fn() -> bool) {
        let mut looks = 0;
        while !self.left.is_empty() && looks < IDLE_LOOKS {
            looks = if is_over() { looks + 1 } else { 0 };
            if self.look().since(&self.begun) >= STOP_WITHIN {
                return;
            }
        }
    }

    /// Those that were left.
    pub(super) fn left(&self) -> &[&'static str] {
        &self.left
    }

    fn close(&mut self, thread: JoinHandle<()>, which: Thread, has_ended: bool) {
        if !has_ended {
            tracing::error!(thread = which.name(), "not waited for any longer: it does not end");
            self.left.push(which.name());
        } else if thread.join().is_err() {
            tracing::error!(thread = which.name(), "a thread panicked where nobody caught it");
        }
    }

    /// False where waiting is of no use any more.
    fn wait(&mut self, mut is_done: impl FnMut() -> bool) -> bool {
        loop {
            if is_done() {
                return true;
            }
            let now = self.look();
            match self.watchdog.stuck() {
                Some(_) if now.since(self.stuck.get_or_insert(now)) >= GRACE => return false,
                Some(_) => {}
                None => self.stuck = None,
            }
            if now.since(&self.begun) >= STOP_WITHIN {
                return false;
            }
        }
    }

    fn wait_at_most(&mut self, limit: Duration, is_done: impl Fn() -> bool) -> bool {
        let begun = self.clock.now();
        loop {
            if is_done() {
                return true;
            }
            if self.look().since(&begun) >= limit {
                return false;
            }
        }
    }

    /// A moment passes, and what there is to tell is told.
    fn look(&mut self) -> Stamp {
        std::thread::sleep(LOOK);
        let now = self.clock.now();
        if now.since(&self.told) >= TICK {
            self.told = now;
            self.monitor.tick();
            self.watchdog.tick();
        }
        now
    }
}

//! The capture thread's loop: the only place that knows about trying again.
//!
//! Promises:
//! 1. A source that is lost is opened again, at first after [`Backoff::first`], then after
//!    twice as long each time, at most [`Backoff::longest`]. The loop neither ends nor spins.
//! 2. Every loss that ended is reported as a [`Gap`]: from the last frame before it to the
//!    first sign of life after it, with an estimate of the frames that were missed.
//! 3. Sequence numbers of the frames that leave here never go back, whatever a reopened
//!    source counts. A jump is what was missed: counted by the source, or estimated over a
//!    gap.
//! 4. A request to stop is noticed within [`PATIENCE`], as long as the source keeps its own
//!    promise to wait no longer than it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Event, Exposure, Opener, Source, SourceError};
use reticle_base::backoff::Backoff;
use reticle_base::clock::{Clock, Stamp};
use reticle_base::shutdown::Shutdown;
use reticle_domain::frame::Frame;

/// Longest wait in one go; well under the half second that a shutdown may take.
const PATIENCE: Duration = Duration::from_millis(200);

/// A reopened source that gives no frame, as a folder without news, counts as back when it
/// has not complained for so long. Longer than the time after which a camera that hangs is
/// called lost, so that one is not called back.
const SETTLED: Duration = Duration::from_secs(4);

/// What happened, told in order to whoever runs the loop.
#[derive(Debug)]
pub enum Notice {
    /// A frame.
    Frame(Box<Frame>),
    /// The source is being opened for the first time.
    Opening,
    /// The source was opened for the first time.
    Ready,
    /// The source is lost (or not there yet) and will be opened again and again. Told again
    /// when the reason changes.
    Lost {
        /// What was seen and what to do, for a person.
        reason: String,
        /// When it was first seen.
        since: Stamp,
    },
    /// The source is back.
    Back {
        /// What the loss cost.
        gap: Gap,
    },
    /// The source skipped so many frames without being lost.
    Missed {
        /// How many.
        count: u64,
    },
    /// One image was unfit and was passed over.
    Refused {
        /// Which image.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// The source came to its end; the loop is over.
    Ended,
    /// The source does not work as configured; the loop is over.
    Unusable(String),
}

/// A time without a source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// Capture of the last frame before; where there was none, when the loss was seen.
    pub from: Stamp,
    /// Capture of the first frame after; where none has come yet, when the source was open
    /// and content again.
    pub to: Stamp,
    /// Frames missed, estimated from the distance of the frames before the loss; `None` where
    /// fewer than two frames were seen before.
    pub missed: Option<u64>,
    /// What was seen first when the source was lost, for a person.
    pub reason: String,
}

/// How long to wait before opening a lost source again. A camera that is plugged in again is back
/// within a second, and a missing one costs ten failed `open` a minute at worst sixty: nothing.
const REOPENING: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Open or closed; capture goes on while it is open. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A gate that is open or closed.
    pub fn new(open: bool) -> Self {
        Self(Arc::new((Mutex::new(open), Condvar::new())))
    }

    /// Lets capture go on.
    pub fn open(&self) {
        self.set(true);
    }

    /// Holds capture.
    pub fn close(&self) {
        self.set(false);
    }

    /// Whether capture may go on.
    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the gate to be open; false if asked to stop meanwhile.
    pub fn wait_until_open(&self, shutdown: &Shutdown) -> bool {
        while !shutdown.is_requested() {
            if self.wait_open(PATIENCE) {
                return true;
            }
        }
        false
    }

    fn set(&self, open: bool) {
        let (state, changed) = &*self.0;
        *state.lock().unwrap_or_else(PoisonError::into_inner) = open;
        changed.notify_all();
    }

    /// Waits up to `timeout` for the gate to be open; true if it is.
    fn wait_open(&self, timeout: Duration) -> bool {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = changed
            .wait_timeout_while(state, timeout, |open| !*open)
            .unwrap_or_else(PoisonError::into_inner);
        *state
    }
}

/// Runs the source of `opener` until it ends, proves unusable, or `shutdown` is requested.
///
/// A source that is unusable when it is opened for the first time ends the loop; later it
/// counts as lost, because what was plugged in meanwhile can be plugged out again.
pub fn run(
    opener: &Opener,
    shutdown: Shutdown,
    gate: Gate,
    exposure: Exposure,
    notify: impl FnMut(Notice),
) {
    Loop::new(opener.clock.clone(), shutdown, gate, exposure, REOPENING, notify)
        .run(|| opener.open());
}

/// What is known of a loss while it lasts.
struct Loss {
    from: Stamp,
    since: Stamp,
    /// What was seen first, which is what the gap is about.
    first: String,
    /// What was seen last, which is what an operator can act on.
    reason: String,
    paused_before: Duration,
}

struct Loop<N> {
    clock: Clock,
    shutdown: Shutdown,
    gate: Gate,
    exposure: Exposure,
    backoff: Backoff,
    notify: N,
    /// Whether the source was ever opened.
    was_open: bool,
    loss: Option<Loss>,
    /// Time spent at the closed gate, which is no gap.
    paused: Duration,
    last: Option<Stamp>,
    distances: Distances,
    /// The number that the next frame gets if nothing was missed.
    next_number: u64,
}

/// How one life of a source ended.
enum Ending {
    Stop,
    Over(Notice),
    Lost(String),
}

impl<N: FnMut(Notice)> Loop<N> {
    fn new(
        clock: Clock,
        shutdown: Shutdown,
        gate: Gate,
        exposure: Exposure,
        backoff: Backoff,
        notify: N,
    ) -> Self {
        Self {
            clock,
            shutdown,
            gate,
            exposure,
            backoff,
            notify,
            was_open: false,
            loss: None,
            paused: Duration::ZERO,
            last: None,
            distances: Distances::default(),
            next_number: 0,
        }
    }

    fn run(mut self, mut opener: impl FnMut() -> Result<Box<dyn Source>, SourceError>) {
        let mut failures = 0_u32;
        self.tell(Notice::Opening);
        while self.pass_gate(None) {
            let ending = match opener() {
                Ok(source) => {
                    if !self.was_open {
                        self.was_open = true;
                        if self.loss.is_none() {
                            self.tell(Notice::Ready);
                        }
                    }
                    self.live(source)
                }
                Err(SourceError::Unusable(reason)) if !self.was_open => {
                    Ending::Over(Notice::Unusable(reason))
                }
                Err(SourceError::Lost(reason) | SourceError::Unusable(reason)) => {
                    Ending::Lost(reason)
                }
            };
            match ending {
                Ending::Stop => return,
                Ending::Over(notice) => return self.tell(notice),
                Ending::Lost(reason) => {
                    // It was content in between: this is another loss, and a quick try again
                    // costs nothing.
                    if self.loss.is_none() {
                        failures = 0;
                    }
                    self.lose(reason);
                    failures = failures.saturating_add(1);
                    if self.shutdown.wait(self.backoff.after(failures)) {
                        return;
                    }
                }
            }
        }
    }

    /// One life of a source, from open to lost.
    fn live(&mut self, mut source: Box<dyn Source>) -> Ending {
        self.exposure.restore(&mut *source);
        let opened = self.clock.now();
        let paused_at_open = self.paused;
        let mut numbers = Numbers::default();
        loop {
            if !self.pass_gate(Some(&mut *source)) {
                return Ending::Stop;
            }
            self.exposure.serve(&mut *source);
            match source.next(PATIENCE) {
                Ok(Event::Frame(frame)) => self.pass_on(frame, &mut numbers),
                Ok(Event::Nothing) => {}
                Ok(Event::Refused { what, why }) => {
                    numbers.refused += 1;
                    self.tell(Notice::Refused { what, why });
                }
                Ok(Event::End) => return Ending::Over(Notice::Ended),
                Err(SourceError::Lost(reason)) => return Ending::Lost(reason),
                Err(SourceError::Unusable(reason)) => {
                    return Ending::Over(Notice::Unusable(reason));
                }
            }
            let now = self.clock.now();
            let open_for = now.since(&opened).saturating_sub(self.paused - paused_at_open);
            if self.loss.is_some() && open_for >= SETTLED {
                self.come_back(now);
            }
        }
    }

    /// Numbers the frame, tells what was missed before it, and hands it on.
    fn pass_on(&mut self, mut frame: Box<Frame>, numbers: &mut Numbers) {
        if self.loss.is_some() {
            self.come_back(frame.captured);
        } else {
            let missed = numbers.missed_before(frame.sequence);
            if missed > 0 {
                self.tell(Notice::Missed { count: missed });
                self.next_number += missed;
            }
            if let Some(last) = self.last {
                let steps = u32::try_from(missed + 1).unwrap_or(u32::MAX);
                self.distances.seen(frame.captured.since(&last) / steps);
            }
        }
        numbers.seen(frame.sequence);
        frame.sequence = self.next_number;
        self.next_number += 1;
        self.last = Some(frame.captured);
        self.tell(Notice::Frame(frame));
    }

    fn lose(&mut self, reason: String) {
        let now = self.clock.now();
        let loss = self.loss.get_or_insert_with(|| Loss {
            from: self.last.unwrap_or(now),
            since: now,
            first: reason.clone(),
            reason: String::new(),
            paused_before: self.paused,
        });
        if loss.reason != reason {
            loss.reason.clone_from(&reason);
            let since = loss.since;
            self.tell(Notice::Lost { reason, since });
        }
    }

    fn come_back(&mut self, to: Stamp) {
        let Some(loss) = self.loss.take() else { return };
        let without = to.since(&loss.from).saturating_sub(self.paused - loss.paused_before);
        let usual = self.distances.usual().filter(|usual| !usual.is_zero());
        let missed = usual.map(|usual| {
            // The next frame after the last one is due after one distance, and is not missed.
            let due = (without.as_secs_f64() / usual.as_secs_f64()).round();
            (due as u64).saturating_sub(1)
        });
        self.next_number += missed.unwrap_or(0);
        let gap = Gap { from: loss.from, to, missed, reason: loss.first };
        self.tell(Notice::Back { gap });
    }

    /// Waits while the gate is closed; false when it is time to stop.
    fn pass_gate(&mut self, mut source: Option<&mut dyn Source>) -> bool {
        if !self.gate.is_open() {
            let closed = self.clock.now();
            if let Some(source) = source.as_deref_mut() {
                source.rest();
            }
            while !self.shutdown.is_requested() && !self.gate.wait_open(PATIENCE) {
                if let Some(source) = source.as_deref_mut() {
                    self.exposure.serve(source);
                }
            }
            self.paused += self.clock.now().since(&closed);
            // A pause says nothing about how far apart frames are.
            self.last = self.last.filter(|_| self.loss.is_some());
        }
        !self.shutdown.is_requested()
    }

    fn tell(&mut self, notice: Notice) {
        (self.notify)(notice);
    }
}

/// What one life of a source has counted.
#[derive(Default)]
struct Numbers {
    last: Option<u64>,
    refused: u64,
}

impl Numbers {
    /// Frames that `sequence` says were skipped, less those that were refused and told.
    fn missed_before(&self, sequence: u64) -> u64 {
        match self.last {
            // A source begins where it likes.
            None => 0,
            Some(last) => sequence.saturating_sub(last + 1).saturating_sub(self.refused),
        }
    }

    fn seen(&mut self, sequence: u64) {
        self.last = Some(sequence);
        self.refused = 0;
    }
}

/// Distances of the last frames.
#[derive(Default)]
struct Distances(VecDeque<Duration>);

impl Distances {
    /// Enough for a steady median, few enough to follow a changed rate within seconds.
    const KEPT: usize = 15;

    fn seen(&mut self, distance: Duration) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(distance);
    }

    /// The median: cameras begin unevenly, and one late frame says nothing.
    fn usual(&self) -> Option<Duration> {
        let mut sorted = Vec::from_iter(self.0.iter().copied());
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests;

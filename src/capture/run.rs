//! The capture thread's loop: the only place that knows about trying again.
//!
//! Promises:
//! 1. A source that is lost is opened again, at first after [`BackOff::first`], then after
//!    twice as long each time, at most [`BackOff::most`]. The loop neither ends nor spins.
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

use super::{Event, Options, Source, SourceError, open};
use crate::base::clock::{Clock, Stamp};
use crate::base::shutdown::Shutdown;
use crate::domain::frame::Frame;

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

/// How long to wait before opening a lost source again.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    /// After the first failure.
    pub first: Duration,
    /// At most, after many.
    pub most: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        // A camera that is plugged in again is back within a second, and a missing one costs
        // ten failed `open` a minute at worst sixty: nothing.
        Self { first: Duration::from_millis(100), most: Duration::from_secs(1) }
    }
}

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

/// Runs the source of `options` until it ends, proves unusable, or `shutdown` is requested.
///
/// A source that is unusable when it is opened for the first time ends the loop; later it
/// counts as lost, because what was plugged in meanwhile can be plugged out again.
pub fn run(
    options: &Options,
    clock: Clock,
    shutdown: Shutdown,
    gate: Gate,
    notify: impl FnMut(Notice),
) {
    let opener = || open(options, &clock);
    Loop::new(clock.clone(), shutdown, gate, BackOff::default(), notify).run(opener);
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
    back_off: BackOff,
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
    fn new(clock: Clock, shutdown: Shutdown, gate: Gate, back_off: BackOff, notify: N) -> Self {
        Self {
            clock,
            shutdown,
            gate,
            back_off,
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
        let mut wait = self.back_off.first;
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
                        wait = self.back_off.first;
                    }
                    self.lose(reason);
                    if self.shutdown.wait(wait) {
                        return;
                    }
                    wait = (wait * 2).min(self.back_off.most);
                }
            }
        }
    }

    /// One life of a source, from open to lost.
    fn live(&mut self, mut source: Box<dyn Source>) -> Ending {
        let opened = self.clock.now();
        let paused_at_open = self.paused;
        let mut numbers = Numbers::default();
        loop {
            if !self.pass_gate(Some(&mut *source)) {
                return Ending::Stop;
            }
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
            if let Some(source) = source.take() {
                source.rest();
            }
            while !self.shutdown.is_requested() && !self.gate.wait_open(PATIENCE) {}
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
mod tests {
    use super::*;
    use crate::domain::frame::{Pixels, Place, Shot};

    /// What a scripted source does next.
    enum Step {
        /// Time passes, then a frame with this number comes.
        Frame(u64),
        /// So many milliseconds pass without a frame.
        Silence(u64),
        Refuse,
        Lose(&'static str),
        Break(&'static str),
        /// Somebody closes the gate, and opens it when this much time has passed.
        Pause(u64),
        Stop,
        End,
    }
    use Step::{Break, End, Frame, Lose, Pause, Refuse, Silence, Stop};

    /// Distance of scripted frames.
    const STEP: Duration = Duration::from_millis(100);

    struct Scripted {
        steps: VecDeque<Step>,
        clock: Clock,
        gate: Gate,
        shutdown: Shutdown,
        rested: Arc<Mutex<u32>>,
    }

    impl Source for Scripted {
        fn next(&mut self, patience: Duration) -> Result<Event, SourceError> {
            assert!(patience <= Duration::from_millis(500), "a stop must not wait longer");
            match self.steps.pop_front().expect("the script says how it ends") {
                Frame(sequence) => {
                    self.clock.advance(STEP);
                    let shot = Shot {
                        sequence,
                        captured: self.clock.now(),
                        exposure_us: None,
                        width: 1,
                        height: 1,
                        bit_depth: 8,
                        pixels: Pixels::U8(vec![0]),
                        pixel_size_um: None,
                        place: Place::default(),
                        origin: None,
                        truth: None,
                    };
                    Ok(Event::Frame(Box::new(shot.into_frame().unwrap())))
                }
                Silence(ms) => {
                    self.clock.advance(Duration::from_millis(ms));
                    Ok(Event::Nothing)
                }
                Refuse => {
                    self.clock.advance(STEP);
                    Ok(Event::Refused { what: "frame".into(), why: "damaged".into() })
                }
                Lose(reason) => Err(SourceError::Lost(reason.into())),
                Break(reason) => Err(SourceError::Unusable(reason.into())),
                Pause(ms) => {
                    self.gate.close();
                    let (gate, clock) = (self.gate.clone(), self.clock.clone());
                    let rested = Arc::clone(&self.rested);
                    let before = *rested.lock().unwrap();
                    std::thread::spawn(move || {
                        // The loop holds once it has let the source rest.
                        while *rested.lock().unwrap() == before {
                            std::thread::yield_now();
                        }
                        clock.advance(Duration::from_millis(ms));
                        gate.open();
                    });
                    Ok(Event::Nothing)
                }
                Stop => {
                    self.shutdown.request();
                    Ok(Event::Nothing)
                }
                End => Ok(Event::End),
            }
        }

        fn rest(&mut self) {
            *self.rested.lock().unwrap() += 1;
        }
    }

    /// One try to open: a source with its script, or an error.
    type Life = Result<Vec<Step>, SourceError>;

    /// Runs the lives one after the other and tells the notices in short form.
    fn told(lives: Vec<Life>) -> Vec<String> {
        let clock = Clock::manual(0);
        let shutdown = Shutdown::new();
        let gate = Gate::new(true);
        let rested = Arc::new(Mutex::new(0));
        let mut lives = VecDeque::from(lives);
        let mut notices = Vec::new();
        let opener = || {
            let life = lives.pop_front().expect("opened more often than the script says")?;
            Ok(Box::new(Scripted {
                steps: life.into(),
                clock: clock.clone(),
                gate: gate.clone(),
                shutdown: shutdown.clone(),
                rested: Arc::clone(&rested),
            }) as Box<dyn Source>)
        };
        let at_once = BackOff { first: Duration::ZERO, most: Duration::ZERO };
        let notify = |notice: Notice| {
            notices.push(match notice {
                Notice::Frame(frame) => format!("frame {}", frame.sequence),
                Notice::Lost { reason, since } => {
                    format!("lost {reason} at {}", since.mono_ns / 1_000_000)
                }
                Notice::Back { gap } => format!(
                    "back from {} to {} missed {:?} because {}",
                    gap.from.mono_ns / 1_000_000,
                    gap.to.mono_ns / 1_000_000,
                    gap.missed,
                    gap.reason
                ),
                Notice::Missed { count } => format!("missed {count}"),
                Notice::Refused { why, .. } => format!("refused {why}"),
                Notice::Unusable(reason) => format!("unusable {reason}"),
                Notice::Opening => "opening".into(),
                Notice::Ready => "ready".into(),
                Notice::Ended => "ended".into(),
            });
        };
        Loop::new(clock.clone(), shutdown.clone(), gate.clone(), at_once, notify).run(opener);
        assert!(lives.is_empty(), "opened less often than the script says");
        notices
    }

    fn lost(reason: &str) -> Life {
        Err(SourceError::Lost(reason.into()))
    }

    #[test]
    fn a_source_that_ends_ends_the_loop() {
        let told = told(vec![Ok(vec![Frame(0), Frame(1), End])]);
        assert_eq!(told, ["opening", "ready", "frame 0", "frame 1", "ended"]);
    }

    #[test]
    fn a_lost_camera_comes_back_with_its_gap_and_the_numbers_go_on() {
        let told = told(vec![
            Ok(vec![Frame(0), Frame(1), Frame(2), Silence(550), Lose("unplugged")]),
            lost("not there"),
            lost("not there"),
            Ok(vec![Frame(0), Frame(1), Stop]),
        ]);
        assert_eq!(
            told,
            [
                "opening",
                "ready",
                "frame 0",
                "frame 1",
                "frame 2",
                "lost unplugged at 850",
                "lost not there at 850",
                // Frames were due at 400, 500, 600, 700, 800 and 900 ms.
                "back from 300 to 950 missed Some(6) because unplugged",
                "frame 9",
                "frame 10",
            ]
        );
    }

    #[test]
    fn a_camera_that_opens_but_stays_silent_is_not_called_back() {
        let told = told(vec![
            Ok(vec![Frame(0), Frame(1), Lose("silent")]),
            Ok(vec![Silence(2500), Lose("silent")]),
            Ok(vec![Silence(2500), Lose("silent")]),
            Ok(vec![Frame(7), Stop]),
        ]);
        assert_eq!(
            told[4..],
            [
                "lost silent at 200",
                "back from 200 to 5300 missed Some(50) because silent",
                "frame 52"
            ]
        );
    }

    #[test]
    fn a_source_without_news_is_back_once_it_is_content() {
        let told = told(vec![
            Ok(vec![Frame(0), Lose("unmounted")]),
            Ok(vec![Silence(3000), Silence(1500), Frame(0), End]),
        ]);
        assert_eq!(
            told[3..],
            [
                "lost unmounted at 100",
                "back from 100 to 4600 missed None because unmounted",
                "frame 1",
                "ended"
            ]
        );
    }

    #[test]
    fn a_camera_that_is_not_there_at_first_is_waited_for() {
        let told = told(vec![lost("not there"), Ok(vec![Frame(0), Stop])]);
        assert_eq!(
            told,
            [
                "opening",
                "lost not there at 0",
                "back from 0 to 100 missed None because not there",
                "frame 0"
            ]
        );
    }

    #[test]
    fn what_is_unusable_at_first_ends_the_loop_and_later_counts_as_lost() {
        let unusable = || Err(SourceError::Unusable("no such size".into()));
        assert_eq!(told(vec![unusable()]), ["opening", "unusable no such size"]);
        let later = told(vec![Ok(vec![Lose("gone")]), unusable(), Ok(vec![Frame(0), Stop])]);
        assert_eq!(later[2..4], ["lost gone at 0", "lost no such size at 0"]);
        assert_eq!(
            told(vec![Ok(vec![Break("no permission to read")])]),
            ["opening", "ready", "unusable no permission to read"]
        );
    }

    #[test]
    fn a_jump_in_the_sequence_is_missed_and_a_refused_frame_is_not_counted_twice() {
        let told = told(vec![Ok(vec![
            Frame(5),
            Frame(6),
            Frame(9),
            Refuse,
            Frame(11),
            Refuse,
            Frame(14),
            End,
        ])]);
        assert_eq!(
            told[2..],
            [
                "frame 0",
                "frame 1",
                "missed 2",
                "frame 4",
                "refused damaged",
                "frame 5",
                "refused damaged",
                "missed 1",
                "frame 7",
                "ended"
            ]
        );
    }

    #[test]
    fn a_pause_is_no_gap_and_no_loss() {
        let told = told(vec![
            Ok(vec![Frame(0), Frame(1), Pause(60_000), Frame(2), Pause(60_000), Lose("gone")]),
            Ok(vec![Pause(60_000), Frame(0), Stop]),
        ]);
        assert_eq!(
            told[2..],
            [
                "frame 0",
                "frame 1",
                "frame 2",
                "lost gone at 120300",
                "back from 120300 to 180400 missed Some(0) because gone",
                "frame 3"
            ]
        );
    }

    #[test]
    fn a_stop_while_the_source_is_lost_or_paused_ends_the_loop_without_delay() {
        for open in [true, false] {
            let clock = Clock::manual(0);
            let (shutdown, gate) = (Shutdown::new(), Gate::new(open));
            let slow = BackOff { first: Duration::from_secs(60), most: Duration::from_secs(60) };
            let stop = shutdown.clone();
            let notify = |notice| {
                if matches!(notice, Notice::Lost { .. }) || !open {
                    stop.request();
                }
            };
            Loop::new(clock, shutdown.clone(), gate, slow, notify)
                .run(|| Err(SourceError::Lost("not there".into())));
            assert!(shutdown.is_requested());
        }
    }

    #[test]
    fn a_gate_lets_a_waiter_through_at_once_when_it_opens() {
        let gate = Gate::new(false);
        let waiter = gate.clone();
        let thread = std::thread::spawn(move || waiter.wait_open(Duration::from_secs(60)));
        gate.open();
        assert!(thread.join().unwrap());
        gate.close();
        assert!(!gate.is_open());
    }
}

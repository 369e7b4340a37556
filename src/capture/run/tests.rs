//! The capture loop with a scripted source.

use super::*;
use reticle_domain::frame::{Pixels, Place, Shot};

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
                    pixel_size_source: None,
                    pixel_size_note: None,
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
    let at_once = Backoff::new(Duration::ZERO, Duration::ZERO);
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
    Loop::new(clock.clone(), shutdown.clone(), gate.clone(), Exposure::default(), at_once, notify)
        .run(opener);
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
        ["lost silent at 200", "back from 200 to 5300 missed Some(50) because silent", "frame 52"]
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
        let slow = Backoff::new(Duration::from_secs(60), Duration::from_secs(60));
        let stop = shutdown.clone();
        let notify = |notice| {
            if matches!(notice, Notice::Lost { .. }) || !open {
                stop.request();
            }
        };
        Loop::new(clock, shutdown.clone(), gate, Exposure::default(), slow, notify)
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

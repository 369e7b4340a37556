//! The open session, and to which session the frames on their way belong.
//!
//! A session is recorded with its first frame or gap ([`CurrentSession::begin`]). One that ends
//! before leaves no row and no event: rows are never deleted, and Start and Stop pressed three
//! hundred times would be three hundred sessions of nothing for ever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::monitor::Monitor;
use reticle_base::clock::Stamp;
use reticle_base::ids::{FrameId, SessionId};
use reticle_base::queue::Sender;
use reticle_domain::frame::Frame;
use reticle_domain::session::Session;
use reticle_store::Job;

/// The open session and its frames. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct CurrentSession(Arc<Mutex<Owners>>);

#[derive(Default)]
struct Owners {
    open: Option<SessionId>,
    /// The open session, while nothing was recorded in it.
    empty: Option<Session>,
    /// A session of which the first thing is being recorded.
    beginning: Option<Beginning>,
    /// The store has no room: frames are shown, and belong to no session.
    held: bool,
    /// Newest last. A frame that is being segmented when its session closes still belongs to it.
    recent: VecDeque<(FrameId, SessionId)>,
}

struct Beginning {
    session: Session,
    /// When it was closed, if that was before the store had its begin.
    closed: Option<Stamp>,
}

/// More than can be between capture and the end of segmentation.
const RECENT: usize = 64;

/// To whom a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// To this session: it is recorded.
    Session(SessionId),
    /// To nobody, because there is no room to record it.
    NoRoom,
    /// To nobody: its session was closed while it was on its way.
    Closed,
}

impl CurrentSession {
    /// Whether there is no room to record frames.
    pub(super) fn hold(&self, held: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held = held;
    }

    /// The open session, for something to be recorded in it; [`CurrentSession::begin`] goes first.
    pub(super) fn enter(&self) -> Option<SessionId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).enter()
    }

    /// Claims a frame for the open session; [`CurrentSession::begin`] goes before it is recorded.
    pub(super) fn claim(&self, frame: &Frame) -> Claim {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.held && owners.open.is_some() {
            return Claim::NoRoom;
        }
        let Some(session) = owners.enter() else { return Claim::Closed };
        if owners.recent.len() == RECENT {
            owners.recent.pop_front();
        }
        owners.recent.push_back((frame.id, session));
        Claim::Session(session)
    }

    /// Hands a session to the store before the first thing that is recorded in it, and its end too
    /// where it was closed meanwhile. Only the thread of the source enters sessions and calls this.
    pub(super) fn begin(&self, to_store: &Sender<Job>, monitor: &Monitor) {
        // Not while it is locked: the store may be slow, and whoever closes the session must not wait.
        let session = {
            let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(beginning) = &owners.beginning else { return };
            beginning.session.clone()
        };
        to_store.send(Job::Open(session.clone()));
        monitor.session_began(&session);
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).beginning.take();
        if let Some(at) = begun.and_then(|begun| begun.closed) {
            to_store.send(Job::Close { session: session.id, at });
            monitor.session_ended(session.id, session.name);
        }
    }

    /// The session that claimed a frame.
    pub(super) fn of(&self, frame: &Frame) -> Option<SessionId> {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.recent.iter().rev().find(|(id, _)| *id == frame.id).map(|(_, session)| *session)
    }

    /// Opens a session; nothing is recorded of it yet.
    pub(super) fn open(&self, session: Session) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.open = Some(session.id);
        owners.empty = Some(session);
    }

    /// Closes the open session. `None` where there is no end to record: it is empty, or
    /// [`CurrentSession::begin`] is at it and does that.
    pub(super) fn close(&self, at: Stamp) -> Option<SessionId> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = owners.open.take()?;
        if owners.empty.take().is_some() {
            return None;
        }
        match &mut owners.beginning {
            Some(beginning) if beginning.session.id == session => {
                beginning.closed = Some(at);
                None
            }
            _ => Some(session),
        }
    }
}

impl Owners {
    fn enter(&mut self) -> Option<SessionId> {
        if let Some(session) = self.empty.take() {
            self.beginning = Some(Beginning { session, closed: None });
        }
        self.open
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::metrics::Metrics;
    use reticle_base::clock::Clock;
    use reticle_base::queue::{self, Received, Receiver, WhenFull};
    use reticle_domain::frame::{Pixels, Place, Shot};
    use reticle_domain::status::StatusBoard;

    struct Bench {
        clock: Clock,
        current: CurrentSession,
        to_store: Sender<Job>,
        jobs: Receiver<Job>,
        monitor: Monitor,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Clock::manual(0);
            let (to_store, jobs) = queue::bounded("store", 16, WhenFull::Wait);
            let options = reticle_store::Options::default();
            let board = StatusBoard::new();
            let monitor = Monitor::new(board, clock.clone(), Metrics::new(), &options);
            Self { clock, current: CurrentSession::default(), to_store, jobs, monitor }
        }

        fn opens(&self) -> SessionId {
            let session = Session {
                id: SessionId::new(),
                name: "plate 7".into(),
                source: "virtual".into(),
                channel: None,
                operator: None,
                pixel_size_um: None,
                started: self.clock.now(),
            };
            let id = session.id;
            self.current.open(session);
            id
        }

        fn frame(&self) -> Frame {
            let shot = Shot {
                sequence: 0,
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
            shot.into_frame().unwrap()
        }

        /// What the store was given, in words.
        fn given(&self) -> Vec<&'static str> {
            let mut given = Vec::new();
            while let Received::Item(job) = self.jobs.recv_timeout(Duration::ZERO) {
                given.push(match job {
                    Job::Open(_) => "open",
                    Job::Close { .. } => "close",
                    _ => "other",
                });
            }
            given
        }

        fn events(&self) -> Vec<&'static str> {
            std::iter::from_fn(|| self.monitor.next_event())
                .map(|event| event.what.word())
                .collect()
        }
    }

    #[test]
    fn a_session_is_recorded_once_with_the_first_thing_in_it() {
        let bench = Bench::new();
        let session = bench.opens();
        assert_eq!(bench.given(), [""; 0]);
        for _ in 0..3 {
            assert_eq!(bench.current.claim(&bench.frame()), Claim::Session(session));
            bench.current.begin(&bench.to_store, &bench.monitor);
        }
        assert_eq!(bench.given(), ["open"]);
        assert_eq!(bench.events(), ["session_opened"]);
        assert_eq!(bench.current.close(bench.clock.now()), Some(session));
    }

    #[test]
    fn a_session_that_ends_empty_leaves_nothing() {
        let bench = Bench::new();
        for _ in 0..300 {
            bench.opens();
            assert_eq!(bench.current.close(bench.clock.now()), None);
            assert_eq!(bench.current.claim(&bench.frame()), Claim::Closed);
            bench.current.begin(&bench.to_store, &bench.monitor);
        }
        assert_eq!(bench.given(), [""; 0]);
        assert_eq!(bench.events(), [""; 0]);
    }

    #[test]
    fn a_frame_that_is_only_shown_begins_no_session() {
        let bench = Bench::new();
        bench.opens();
        bench.current.hold(true);
        assert_eq!(bench.current.claim(&bench.frame()), Claim::NoRoom);
        bench.current.begin(&bench.to_store, &bench.monitor);
        assert_eq!(bench.given(), [""; 0]);
    }

    #[test]
    fn a_session_that_is_closed_while_it_begins_is_closed_after_it_was_opened() {
        let bench = Bench::new();
        let first = bench.opens();
        assert_eq!(bench.current.claim(&bench.frame()), Claim::Session(first));
        assert_eq!(bench.current.close(bench.clock.now()), None, "the source's thread does it");
        let second = bench.opens();
        bench.current.begin(&bench.to_store, &bench.monitor);
        assert_eq!(bench.given(), ["open", "close"]);
        assert_eq!(bench.events(), ["session_opened", "session_closed"]);
        assert_eq!(bench.current.claim(&bench.frame()), Claim::Session(second));
        bench.current.begin(&bench.to_store, &bench.monitor);
        assert_eq!(bench.given(), ["open"], "the next one is another");
    }
}

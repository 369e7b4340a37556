//! Sessions and commands: who starts, pauses and stops, and what that does.
//!
//! | state   | start             | pause  | stop          | source ends   |
//! |---------|-------------------|--------|---------------|---------------|
//! | stopped | opens a session   | –      | –             | –             |
//! | running | –                 | paused | closes it     | closes it     |
//! | paused  | running, same one | –      | closes it     | closes it     |
//!
//! A command that changes nothing is no error: pressing Start twice is starting.
//!
//! A session is recorded with its first frame or gap ([`CurrentSession::begin`]). One that ends
//! before leaves no row and no event: rows are never deleted, and Start and Stop pressed three
//! hundred times would be three hundred sessions of nothing for ever.
//!
//! # It never waits for the store
//!
//! This loop feeds the watchdog, so it must go on while the disk hangs. What it has for the
//! store is *owed*: offered at each tick, in its order, until the store's queue takes it. A stop
//! takes effect at once and owes the session's end. A start needs nothing of the store: the thread
//! of the source hands it the session before the first frame.
//! An order of the command line ([`Wish`]) is taken before it is carried out, so that it is
//! carried out once, however long that takes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::monitor::Monitor;
use super::watchdog::Watchdog;
use crate::base::clock::{Clock, Stamp};
use crate::base::ids::{FrameId, SessionId};
use crate::base::queue::{Received, Receiver, Sender};
use crate::base::shutdown::Shutdown;
use crate::base::supervise::{Roster, Thread, Watched};
use crate::capture;
use crate::capture::run::Gate;
use crate::config::Settings;
use crate::domain::event::What;
use crate::domain::frame::Frame;
use crate::domain::session::Session;
use crate::domain::status::{Command, RunState};
use crate::store::{Answer, Ask, Gap, GapReason, Job, StoreError, Wish};
use crate::sync;

/// How often signals and rates are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How long the daemon goes on after it was found that it must end: until its alarm is on the
/// page and with the broker.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Ticks between two looks at whether the clock can be trusted.
const CLOCK_TICKS: u32 = 20;

/// The open session, and to which session the frames on their way belong.
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

    fn open(&self, session: Session) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.open = Some(session.id);
        owners.empty = Some(session);
    }

    /// Closes the open session. `None` where there is no end to record: it is empty, or
    /// [`CurrentSession::begin`] is at it and does that.
    fn close(&self, at: Stamp) -> Option<SessionId> {
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

/// Turns true when a signal asks the daemon to stop. To be called before anybody can see that the
/// daemon is there: until then a signal kills.
pub(super) fn signals() -> Arc<AtomicBool> {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // The first signal asks, a second one kills.
        let registered = signal_hook::flag::register_conditional_shutdown(
            signal,
            128 + signal,
            Arc::clone(&signalled),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&signalled)));
        if let Err(error) = registered {
            tracing::warn!(signal, %error, "cannot listen for a signal; it will kill at once");
        }
    }
    signalled
}

/// Why the loop ended.
#[derive(Debug)]
pub(super) enum End {
    /// Somebody asked.
    Asked,
    /// A thread died without which nothing goes on.
    Died(Thread),
    /// The names of the store lead elsewhere; the reason, with what to do.
    Unlinked(String),
}

/// An order of the command line that the store has, or is owed.
struct Granting {
    wish: Wish,
    answers: mpsc::Receiver<Result<Answer, StoreError>>,
}

/// The one owner of the run state.
pub(super) struct Control<'a> {
    settings: &'a Settings,
    clock: &'a Clock,
    gate: Gate,
    session: CurrentSession,
    to_store: Sender<Job>,
    monitor: Monitor,
    sync: sync::Handle,
    state: RunState,
    /// Whether wall time could be trusted when this was last looked at.
    trusted: bool,
    /// What the store's queue had no room for, oldest first.
    owed: VecDeque<Job>,
    grantings: Vec<Granting>,
}

impl<'a> Control<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        clock: &'a Clock,
        gate: Gate,
        session: CurrentSession,
        to_store: Sender<Job>,
        monitor: Monitor,
        sync: sync::Handle,
    ) -> Self {
        for wish in Wish::ALL {
            wish.forget(&settings.store.folder);
        }
        Self {
            settings,
            clock,
            gate,
            session,
            to_store,
            monitor,
            sync,
            state: RunState::Stopped,
            trusted: clock.is_trusted(),
            owed: VecDeque::new(),
            grantings: Vec::new(),
        }
    }

    /// Starts the first session, then obeys until shutdown is requested, a signal comes, or
    /// something is found after which nothing goes on.
    pub(super) fn run(
        &mut self,
        commands: &Receiver<Command>,
        shutdown: &Shutdown,
        signalled: &AtomicBool,
        watchdog: &mut Watchdog,
        (roster, watched): (&Roster, &Watched),
    ) -> End {
        self.give(Job::Clock { now: self.clock.now(), trusted: self.trusted });
        self.obey(Command::Start);
        let mut ticks = 0_u32;
        let mut end: Option<(End, Stamp)> = None;
        while !shutdown.is_requested() {
            match commands.recv_timeout(TICK) {
                Received::Item(command) => self.obey(command),
                Received::Timeout => {}
                Received::Closed => break,
            }
            watched.pass();
            if signalled.load(Ordering::SeqCst) {
                tracing::info!("asked to stop");
                break;
            }
            if end.is_none() {
                end = self.must_end(roster).map(|end| (end, self.clock.now()));
            }
            if let Some((_, found)) = &end
                && self.clock.now().since(found) >= LAST_WORDS
            {
                break;
            }
            if self.monitor.take_source_ended() {
                self.obey(Command::Stop);
            }
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(CLOCK_TICKS) {
                self.look_at_the_clock();
            }
            self.grant_wishes();
            self.monitor.tick();
            self.hand_over();
            watchdog.tick();
        }
        shutdown.request();
        end.map_or(End::Asked, |(end, _)| end)
    }

    /// What was found after which nothing goes on.
    fn must_end(&self, roster: &Roster) -> Option<End> {
        // It knows better than a thread that ended of it.
        self.monitor.unlinked().map(End::Unlinked).or_else(|| roster.dead().map(End::Died))
    }

    /// The session ends with the daemon. What of it the store does not take is owed.
    pub(super) fn finish(&mut self) {
        self.monitor.happened(What::Stopping {});
        self.obey(Command::Stop);
    }

    fn obey(&mut self, command: Command) {
        match (self.state, command) {
            (RunState::Stopped, Command::Start) => self.open_session(),
            (RunState::Paused, Command::Start) => self.change(RunState::Running),
            (RunState::Running, Command::Pause) => self.change(RunState::Paused),
            (RunState::Running | RunState::Paused, Command::Stop) => self.close_session(),
            _ => {}
        }
    }

    /// Gives the store what there is for it, and says whether that was all. While the store is
    /// stuck the rest waits: this thread must go on saying that it is.
    pub(super) fn hand_over(&mut self) -> bool {
        while let Some(job) = self.owed.pop_front() {
            if let Err(job) = self.to_store.offer(job) {
                self.owed.push_front(job);
                return false;
            }
        }
        // What happened goes into the store, from where it is told to the lab.
        while let Some(event) = self.monitor.next_event() {
            if let Err(Job::Event(event)) = self.to_store.offer(Job::Event(event)) {
                self.monitor.put_back(event);
                return false;
            }
        }
        true
    }

    fn give(&mut self, job: Job) {
        self.owed.push_back(job);
        self.hand_over();
    }

    /// What somebody asked by the command line.
    fn grant_wishes(&mut self) {
        let folder = &self.settings.store.folder;
        for wish in Wish::ALL {
            // One of a kind at a time: the next can wait in the folder.
            if self.grantings.iter().any(|granting| granting.wish == wish) || !wish.take(folder) {
                continue;
            }
            tracing::info!(?wish, "asked by the command line");
            let asks: &[Ask] = match wish {
                Wish::Retry => &[Ask::Retry, Ask::Hurry],
                Wish::Again => &[Ask::Again, Ask::Hurry],
                Wish::Deliver => &[Ask::Hurry],
                // The thread that reads the folder grants it.
                Wish::Images => continue,
            };
            let (reply, answers) = sync_channel(asks.len());
            let jobs = asks.iter().map(|ask| Job::Ask { ask: ask.clone(), reply: reply.clone() });
            self.owed.extend(jobs);
            self.grantings.push(Granting { wish, answers });
        }
        let sync = &self.sync;
        self.grantings.retain(|Granting { wish, answers }| {
            loop {
                match answers.try_recv() {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(?wish, %error, "the store could not do it; ask again");
                    }
                    Err(TryRecvError::Empty) => break true,
                    Err(TryRecvError::Disconnected) => {
                        wish.forget(folder);
                        sync.wake();
                        break false;
                    }
                }
            }
        });
    }

    /// A wrong clock that has become right dates again what was recorded with it.
    fn look_at_the_clock(&mut self) {
        if !self.trusted && self.clock.is_trusted() {
            self.trusted = true;
            self.give(Job::Clock { now: self.clock.now(), trusted: true });
        }
    }

    fn change(&mut self, state: RunState) {
        tracing::info!(?state, "run state");
        self.state = state;
        self.monitor.run_state(state);
        if state == RunState::Running {
            self.gate.open();
        } else {
            self.gate.close();
        }
    }

    fn open_session(&mut self) {
        let started = self.clock.now();
        let options = &self.settings.session;
        let session = Session {
            id: SessionId::new(),
            name: options.name.clone().unwrap_or_else(|| started.rfc3339()),
            source: self.settings.source.spec.to_string(),
            channel: options.channel.clone(),
            operator: options.operator.clone(),
            pixel_size_um: self.settings.source.pixel_size_um,
            started,
        };
        tracing::info!(session = %session.id, name = session.name, "session opened");
        self.monitor.session(Some(&session));
        self.session.open(session);
        self.change(RunState::Running);
    }

    fn close_session(&mut self) {
        self.change(RunState::Stopped);
        let at = self.clock.now();
        let name = self.monitor.session_name();
        if let Some(session) = self.session.close(at) {
            tracing::info!(%session, "session closed");
            self.give(Job::Close { session, at });
            self.monitor.session_ended(session, name.unwrap_or_default());
        }
        self.monitor.session(None);
    }
}

/// What the store is told of a lost source.
pub(super) fn source_gap(session: SessionId, gap: &capture::run::Gap) -> Gap {
    Gap {
        session,
        from: gap.from,
        to: gap.to,
        missed: gap.missed,
        reason: GapReason::SourceLost,
        detail: gap.reason.clone(),
    }
}

/// What the store is told of frames that the source skipped.
pub(super) fn missed(session: SessionId, count: u64, at: Stamp) -> Gap {
    Gap {
        session,
        from: at,
        to: at,
        missed: Some(count),
        reason: GapReason::SequenceJump,
        detail: format!("the source's sequence jumped by {count} frames"),
    }
}

/// What people call a frame: its file, or its number.
pub(super) fn name_of(frame: &Frame) -> String {
    frame.origin.clone().unwrap_or_else(|| format!("frame {}", frame.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::queue::{self, WhenFull};
    use crate::domain::frame::{Pixels, Place, Shot};
    use crate::domain::status::StatusBoard;
    use crate::store;
    use crate::telemetry::metrics::Metrics;

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
            let options = store::Options::default();
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

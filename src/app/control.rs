//! Sessions and commands: who starts, pauses and stops, and what that does.
//!
//! | state   | start             | pause  | stop          | source ends   |
//! |---------|-------------------|--------|---------------|---------------|
//! | stopped | opens a session   | –      | –             | –             |
//! | running | –                 | paused | closes it     | closes it     |
//! | paused  | running, same one | –      | closes it     | closes it     |
//!
//! A command that changes nothing is no error: pressing Start twice is starting.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::monitor::Monitor;
use super::watchdog::Watchdog;
use crate::base::clock::{Clock, Stamp};
use crate::base::ids::{FrameId, SessionId};
use crate::base::queue::{Received, Receiver, Sender};
use crate::base::shutdown::Shutdown;
use crate::capture;
use crate::capture::run::Gate;
use crate::config::Settings;
use crate::domain::event::What;
use crate::domain::frame::Frame;
use crate::domain::session::Session;
use crate::domain::status::{Command, RunState};
use crate::store::{Gap, GapReason, Job, Wish};
use crate::sync;

/// How often signals and rates are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two looks at whether the clock can be trusted.
const CLOCK_TICKS: u32 = 20;

/// The open session, and to which session the frames on their way belong.
#[derive(Clone, Default)]
pub(super) struct CurrentSession(Arc<Mutex<Owners>>);

#[derive(Default)]
struct Owners {
    open: Option<SessionId>,
    /// The store has no room: frames are shown, and belong to no session.
    held: bool,
    /// Newest last. A frame that is being segmented when its session closes still belongs to it.
    recent: VecDeque<(FrameId, SessionId)>,
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

    /// The open session.
    pub(super) fn id(&self) -> Option<SessionId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open
    }

    /// Claims a frame for the open session.
    pub(super) fn claim(&self, frame: &Frame) -> Claim {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = owners.open else { return Claim::Closed };
        if owners.held {
            return Claim::NoRoom;
        }
        if owners.recent.len() == RECENT {
            owners.recent.pop_front();
        }
        owners.recent.push_back((frame.id, session));
        Claim::Session(session)
    }

    /// The session that claimed a frame.
    pub(super) fn of(&self, frame: &Frame) -> Option<SessionId> {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.recent.iter().rev().find(|(id, _)| *id == frame.id).map(|(_, session)| *session)
    }

    fn set(&self, session: Option<SessionId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open = session;
    }
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
        let state = RunState::Stopped;
        let trusted = clock.is_trusted();
        Self { settings, clock, gate, session, to_store, monitor, sync, state, trusted }
    }

    /// Starts the first session, then obeys until shutdown is requested, a signal comes, or a
    /// stage is `dead`, whose name it returns.
    pub(super) fn run(
        mut self,
        commands: &Receiver<Command>,
        shutdown: &Shutdown,
        watchdog: &mut Watchdog,
        dead: impl Fn() -> Option<&'static str>,
    ) -> Option<&'static str> {
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
        self.to_store.send(Job::Clock { now: self.clock.now(), trusted: self.trusted });
        self.obey(Command::Start);
        let mut ticks = 0_u32;
        while !shutdown.is_requested() {
            match commands.recv_timeout(TICK) {
                Received::Item(command) => self.obey(command),
                Received::Timeout => {}
                Received::Closed => break,
            }
            if signalled.load(Ordering::SeqCst) {
                tracing::info!("asked to stop");
                break;
            }
            if let Some(name) = dead() {
                tracing::error!(name, "a thread of the daemon died; stopping");
                shutdown.request();
                return Some(name);
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
            self.write_events();
            watchdog.tick();
        }
        shutdown.request();
        self.monitor.happened(What::Stopping {});
        self.obey(Command::Stop);
        while let Some(event) = self.monitor.next_event() {
            self.to_store.send(Job::Event(event));
        }
        None
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

    /// What happened goes into the store, from where it is told to the lab. While the store is
    /// stuck it waits with the monitor: this thread must go on saying that it is.
    fn write_events(&self) {
        while let Some(event) = self.monitor.next_event() {
            if let Err(Job::Event(event)) = self.to_store.offer(Job::Event(event)) {
                self.monitor.put_back(event);
                break;
            }
        }
    }

    /// What somebody asked by the command line.
    fn grant_wishes(&self) {
        let folder = &self.settings.store.folder;
        for wish in Wish::ALL.into_iter().filter(|wish| wish.is_asked(folder)) {
            tracing::info!(?wish, "asked by the command line");
            match wish {
                Wish::Retry => self.sync.retry(),
                Wish::Again => self.sync.again(),
                Wish::Deliver => self.sync.deliver_all(),
                // The thread that reads the folder grants it.
                Wish::Images => continue,
            }
            wish.granted(folder);
        }
    }

    /// A wrong clock that has become right dates again what was recorded with it.
    fn look_at_the_clock(&mut self) {
        if !self.trusted && self.clock.is_trusted() {
            self.trusted = true;
            self.to_store.send(Job::Clock { now: self.clock.now(), trusted: true });
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
        self.session.set(Some(session.id));
        self.monitor.session(Some(&session));
        self.to_store.send(Job::Open(session));
        self.change(RunState::Running);
    }

    fn close_session(&mut self) {
        self.change(RunState::Stopped);
        if let Some(session) = self.session.id() {
            tracing::info!(%session, "session closed");
            self.session.set(None);
            self.to_store.send(Job::Close { session, at: self.clock.now() });
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

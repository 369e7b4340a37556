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
//! The open session itself is in [`CurrentSession`].
//!
//! # It never waits for the store
//!
//! This loop feeds the watchdog, so it must go on while the disk hangs. What it has for the
//! store is *owed*: offered at each tick, in its order, until the store's queue takes it. A stop
//! takes effect at once and owes the session's end. A start needs nothing of the store: the thread
//! of the source hands it the session before the first frame.
//! An order ends ([`Done`]) when what it asks for is done: of the store, when it is on the disk. It
//! lives in this process alone, so that it is carried out once or not at all.
//!
//! [`Done`]: reticle_domain::order::Done

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::current_session::CurrentSession;
use super::granting::{Ended, Granting};
use super::monitor::Monitor;
use super::orders::{Run, Submitted, Work};
use super::watchdog::Watchdog;
use crate::capture;
use crate::capture::run::Gate;
use crate::config::Settings;
use crate::sync;
use reticle_base::clock::{Clock, Stamp};
use reticle_base::ids::{EventId, SessionId};
use reticle_base::queue::{Received, Receiver, Sender};
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::{Roster, Watched};
use reticle_base::thread::Thread;
use reticle_domain::actor::Actor;
use reticle_domain::event::What;
use reticle_domain::frame::Frame;
use reticle_domain::order::Order;
use reticle_domain::session::Session;
use reticle_domain::status::RunState;
use reticle_store::{Ask, Gap, GapReason, Job, Noting};
use serde_json::{Value, json};

/// How often signals and rates are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How long the daemon goes on after it was found that it must end: until its alarm is on the
/// page and with the broker.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Jobs that are owed to the store before the record of an order goes to the log alone.
const OWED: usize = 1_000;

/// Ticks between two looks at whether the clock can be trusted.
const CLOCK_TICKS: u32 = 20;

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
    granting: Granting,
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
            granting: Granting::default(),
        }
    }

    /// Starts the first session, then obeys until shutdown is requested, a signal comes, or
    /// something is found after which nothing goes on.
    pub(super) fn run(
        &mut self,
        orders: &Receiver<Submitted>,
        shutdown: &Shutdown,
        signalled: &AtomicBool,
        watchdog: &mut Watchdog,
        (roster, watched): (&Roster, &Watched),
    ) -> End {
        self.give(Job::Clock { now: self.clock.now(), trusted: self.trusted });
        self.obey(Run::Start);
        let mut ticks = 0_u32;
        let mut end: Option<(End, Stamp)> = None;
        while !shutdown.is_requested() {
            match orders.recv_timeout(TICK) {
                Received::Item(submitted) => self.carry_out(submitted),
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
                self.obey(Run::Stop);
            }
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(CLOCK_TICKS) {
                self.look_at_the_clock();
            }
            self.end_orders();
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
        self.obey(Run::Stop);
    }

    fn obey(&mut self, run: Run) {
        match (self.state, run) {
            (RunState::Stopped, Run::Start) => self.open_session(),
            (RunState::Paused, Run::Start) => self.change(RunState::Running),
            (RunState::Running, Run::Pause) => self.change(RunState::Paused),
            (RunState::Running | RunState::Paused, Run::Stop) => self.close_session(),
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

    /// Does what was ordered, or begins it where the store has to do it.
    fn carry_out(&mut self, Submitted { order, work, done }: Submitted) {
        let (actor, reason) = (&order.actor, order.reason.as_deref());
        tracing::info!(%actor, command = order.command.word(), reason, "an order was taken");
        match work {
            Work::Run(run) => {
                let result = self.run_as_ordered(run);
                self.end(Ended { order, done, result });
            }
            Work::Store(asks) => match self.granting.begin(order, asks, done) {
                Ok(jobs) => {
                    self.owed.extend(jobs);
                    self.hand_over();
                }
                Err(ended) => self.end(*ended),
            },
        }
    }

    fn run_as_ordered(&mut self, run: Run) -> Result<Value, String> {
        if (self.state, run) == (RunState::Stopped, Run::Pause) {
            return Err("no session is open, so there is nothing to pause; start one".to_owned());
        }
        self.obey(run);
        Ok(json!({ "run": self.state, "session": self.monitor.session_id() }))
    }

    /// Ends the orders that the store has carried out.
    pub(super) fn end_orders(&mut self) -> bool {
        for ended in self.granting.ended() {
            // What was given another chance is looked at now.
            self.sync.wake();
            self.end(ended);
        }
        self.granting.is_empty()
    }

    fn end(&mut self, Ended { order, done, result }: Ended) {
        if let Err(error) = &result {
            tracing::warn!(actor = %order.actor, command = order.command.word(), error, "not done");
        }
        self.record(&order, &result);
        done(result);
    }

    /// Records who ordered what, and what came of it. The store is owed that like everything else.
    /// What came over the broker `publish` has noted, under the id that its sender gave.
    fn record(&mut self, order: &Order, result: &Result<Value, String>) {
        if order.actor == Actor::Mqtt {
            return;
        }
        let (operation, id) = (order.command.word().to_owned(), EventId::new().to_string());
        let (actor, reason) = (order.actor.to_string(), order.reason.clone());
        let refused = result.as_ref().err().cloned();
        self.monitor.happened(What::Commanded {
            operation: operation.clone(),
            command: id.clone(),
            actor: actor.clone(),
            reason: reason.clone(),
            refused,
        });
        if self.owed.len() >= OWED {
            tracing::error!(
                actor,
                operation,
                "the store takes nothing; this stands in the log only"
            );
            return;
        }
        let answer = match result {
            Ok(result) => json!({ "status": "successful", "result": result }),
            Err(detail) => json!({ "status": "failed", "detail": detail }),
        };
        let noting = Noting { operation: operation.clone(), id: id.clone(), actor, reason };
        let commanded = Ask::Commanded { operation, id, answer: answer.to_string() };
        // Nobody waits for these answers.
        let ask = |ask| Job::Ask { ask, reply: sync_channel(2).0 };
        self.owed.extend([ask(Ask::Command(noting)), ask(commanded)]);
        self.hand_over();
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

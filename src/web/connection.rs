//! One connection: what it does now, and how long it may do that.
//!
//! | it …                             | for at most                                             |
//! |----------------------------------|---------------------------------------------------------|
//! | has no request (keep-alive)      | [`Times::idle`]                                         |
//! | sends a header, or is new        | [`Times::header`]                                       |
//! | is answered                      | [`Times::stall`], and 1 s more for each [`SLOWEST`]      |
//! | takes no byte of what is sent    | [`Times::stall`]                                        |
//! | is in a spare place              | [`CROWDED`]                                             |
//!
//! Who exceeds this is cut off. A stream has no end of its own, so only the bound on taking no
//! byte holds for it; a WebSocket has its own ([`super::live`]).
//!
//! Memory: a request's header has 16 kB (`server.rs`), an answer is counted where it is made
//! (`bounded.rs`), and the kernel's buffers are small (`server.rs`).

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection in a spare place may take for everything.
pub(super) const CROWDED: Duration = Duration::from_secs(2);

/// Fewest bytes a second at which an answer must be taken: below this the page is of no use.
pub(super) const SLOWEST: u64 = 32 * 1024;

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// To send the header of a request, and its body.
    pub(super) header: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// To take the next byte of an answer.
    pub(super) stall: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [header, idle, stall] = [5, 60, 20].map(Duration::from_secs);
        Self { header, idle, stall }
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of a request has come.
    Idle,
    /// Part of a header has come, or the connection is new.
    Header,
    /// A request has come whole, and nothing of its answer is known yet.
    Asked,
    /// Its answer is on its way.
    Answered {
        /// Until when all of it must be taken; `None` for a stream.
        until: Option<Instant>,
        /// Whether hyper has all of it, and only has to write it.
        handed_on: bool,
    },
    /// It has become a WebSocket, which has bounds of its own.
    Upgraded,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client takes no byte of what is there to be sent.
    blocked: Option<Instant>,
}

/// What is known of one connection by those who watch over it.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    began: Instant,
    crowded: bool,
    displaced: AtomicBool,
    wake: Notify,
}

impl Link {
    /// Of a new connection; `crowded` is one in a spare place.
    pub(super) fn new(crowded: bool) -> Self {
        let now = Instant::now();
        let state = State { phase: Phase::Header, since: now, blocked: None };
        Self {
            state: Mutex::new(state),
            began: now,
            crowded,
            displaced: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Whether it is in a spare place.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Since when it waits for a request or for the rest of one; `None` while one is answered.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let state = self.state();
        matches!(state.phase, Phase::Idle | Phase::Header).then_some(state.since)
    }

    /// Whether nothing of a request has come.
    pub(super) fn is_idle(&self) -> bool {
        self.state().phase == Phase::Idle
    }

    /// Closes it, because somebody else needs its place.
    pub(super) fn make_room(&self) {
        self.displaced.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Whether [`Link::make_room`] was called.
    pub(super) fn must_make_room(&self) -> bool {
        self.displaced.load(Ordering::SeqCst)
    }

    /// A request has come whole.
    pub(super) fn asked(&self) {
        self.change(Phase::Asked);
    }

    /// Its answer is known: `bytes` of it, or a stream.
    pub(super) fn answered(&self, bytes: Option<u64>, times: &Times) {
        let until =
            bytes.map(|bytes| Instant::now() + times.stall + Duration::from_secs(bytes / SLOWEST));
        self.change(Phase::Answered { until, handed_on: false });
    }

    /// It becomes a WebSocket, and waits for no request any more.
    pub(super) fn upgraded(&self) {
        self.change(Phase::Upgraded);
    }

    /// Hyper has all of the answer.
    pub(super) fn handed_on(&self) {
        if let Phase::Answered { handed_on, .. } = &mut self.state().phase {
            *handed_on = true;
        }
    }

    /// Bytes have come.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Header, Instant::now());
        }
    }

    /// The client has taken bytes, or the socket takes none.
    pub(super) fn wrote(&self, blocked: bool) {
        let mut state = self.state();
        state.blocked = blocked.then(|| state.blocked.unwrap_or_else(Instant::now));
    }

    /// Everything that there was to be sent is with the kernel.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        state.blocked = None;
        if matches!(state.phase, Phase::Answered { handed_on: true, .. }) {
            (state.phase, state.since) = (Phase::Idle, Instant::now());
        }
    }

    /// When it is cut off, unless something happens before.
    fn deadline(&self, times: &Times) -> Option<Instant> {
        let state = self.state();
        let phase = match state.phase {
            Phase::Idle => Some(state.since + times.idle),
            Phase::Header => Some(state.since + times.header),
            Phase::Asked | Phase::Upgraded => None,
            Phase::Answered { until, .. } => until,
        };
        let blocked = state.blocked.map(|since| since + times.stall);
        let crowded = self.crowded.then(|| self.began + CROWDED);
        [phase, blocked, crowded].into_iter().flatten().min()
    }

    /// Comes back when the connection is to be closed. Looks at the deadline each time that the
    /// task is woken, so it belongs into the task that serves the connection, after it.
    pub(super) async fn over(&self, times: &Times) -> Over {
        let displaced = async {
            while !self.must_make_room() {
                self.wake.notified().await;
            }
        };
        tokio::select! {
            () = displaced => Over::Displaced,
            () = self.late(times) => Over::Late,
        }
    }

    async fn late(&self, times: &Times) {
        let mut sleep: Option<Pin<Box<Sleep>>> = None;
        std::future::poll_fn(|context| {
            let Some(deadline) = self.deadline(times) else {
                sleep = None;
                return Poll::Pending;
            };
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
            }
            sleep.as_mut().poll(context)
        })
        .await;
    }

    fn change(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, Instant::now());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection was closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Its time was over.
    Late,
    /// Somebody else needed its place.
    Displaced,
}

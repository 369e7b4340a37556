//! What every request can see, and the seats that clients take.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{Semaphore, watch};

use super::connection::Times;
use super::feed::LiveFeed;
use super::latency::Latency;
use super::live_frame::Encoding;
use super::names::Names;
use super::options::Options;
use super::problem::Problem;
use super::wire::ScreenTime;
use crate::telemetry::metrics::{Metrics, Refusal};
use reticle_base::clock::Clock;
use reticle_base::rate::RateLimit;
use reticle_domain::order::Executor;
use reticle_domain::status::StatusBoard;
use reticle_store::{Reader, StoreError};

/// Questions to the store at a time. More would keep its threads from encoding live frames, and
/// each holds a picture and two descriptors or three.
const QUESTIONS: usize = 4;
/// How long a question may wait for its turn at the store.
const QUESTION_PATIENCE: Duration = Duration::from_secs(5);
/// Commands that are taken at once, and how long each further one takes to be allowed. People press
/// a button, programs name a state; whoever sends more fills the logbook.
const COMMANDS: (u32, Duration) = (60, Duration::from_secs(1));
/// Lines in the log about refused requests, likewise. The metric counts all of them.
const REFUSAL_LINES: (u32, Duration) = (5, Duration::from_secs(1));

/// Memory of answers that are on their way, in KiB. A larger one is taken when it is alone.
pub(super) const ANSWERS_KIB: u32 = 24 * 1024;

/// What the web side is given to work with.
pub struct Ports {
    /// How the daemon is doing; `app` writes it.
    pub status: StatusBoard,
    /// The newest segmented frame; `app` publishes it.
    pub live: LiveFeed,
    /// Who carries out orders.
    pub executor: Arc<dyn Executor>,
    /// Where the command line calls, where there is such a socket.
    pub local: Option<UnixListener>,
    /// What is saved.
    pub reader: Reader,
    /// What `/metrics` tells beside the status.
    pub metrics: Metrics,
    /// What the box says over MQTT: an AsyncAPI document as JSON.
    pub asyncapi: String,
    /// How many look at the live view; the page counts them.
    pub viewers: Seats,
    /// The daemon's time, with which capture-to-screen latency is measured.
    pub clock: Clock,
}

/// What every request can see.
pub(super) struct Shared {
    pub(super) status: StatusBoard,
    pub(super) live: LiveFeed,
    pub(super) executor: Arc<dyn Executor>,
    pub(super) asyncapi: Bytes,
    reader: Reader,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) names: Names,
    pub(super) encoding: Encoding,
    pub(super) viewers: Seats,
    pub(super) streams: Seats,
    pub(super) times: Times,
    /// Room for answers that are on their way, in KiB.
    pub(super) answers: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    pub(super) command_rate: RateLimit,
    pub(super) refusal_lines: RateLimit,
    /// Capture to screen over all live views.
    screen: Mutex<Latency>,
    /// Turns true when the daemon stops.
    pub(super) stop: watch::Receiver<bool>,
}

impl Shared {
    pub(super) fn new(
        address: SocketAddr,
        times: Times,
        options: &Options,
        ports: Ports,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            status: ports.status,
            live: ports.live,
            executor: ports.executor,
            asyncapi: ports.asyncapi.into(),
            reader: ports.reader,
            metrics: ports.metrics,
            clock: ports.clock,
            names: Names::new(address, &options.hosts),
            encoding: Encoding { longest: options.preview_px, quality: options.preview_quality },
            viewers: ports.viewers,
            streams: Seats::default(),
            times,
            answers: Arc::new(Semaphore::new(ANSWERS_KIB as usize)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            command_rate: RateLimit::new(COMMANDS.0, COMMANDS.1),
            refusal_lines: RateLimit::new(REFUSAL_LINES.0, REFUSAL_LINES.1),
            screen: Mutex::default(),
            stop,
        }
    }

    pub(super) fn note_shown(&self, took: Duration) {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).add(took);
    }

    pub(super) fn screen_time(&self) -> Option<ScreenTime> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).summary()
    }

    /// Asks the store on a thread that may wait for the disk.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.questions).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(QUESTION_PATIENCE, turn).await else {
            self.metrics.refused_client(Refusal::Crowded);
            let detail = "the store is asked too much at the moment; ask again";
            return Err(Problem::unavailable(detail).retry_after(QUESTION_PATIENCE));
        };
        let reader = self.reader.clone();
        let answer = tokio::task::spawn_blocking(move || {
            // Also when the client has left: the thread is at work all the same.
            let _turn = turn;
            question(&reader)
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Problem::store(error.to_string())),
            Err(_) => Err(Problem::store("reading broke off; see the daemon's log")),
        }
    }
}

/// Comes back when the daemon stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the server is gone, which is a stop too.
    stop.wait_for(|stop| *stop).await.ok();
}

/// Counts who is connected, so that there is a bound. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Seats(Arc<AtomicUsize>);

/// One connection's place; free again when dropped.
pub(super) struct Seat(Seats);

impl Seats {
    /// A seat, unless `most` are taken.
    pub(super) fn take(&self, most: usize) -> Option<Seat> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Seat(self.clone()))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

//! The page, the HTTP API and the live channel.
//!
//! Owns: everything that leaves the box over HTTP. It reads the [`StatusBoard`], the
//! [`LiveFeed`] and the store, and hands [`Order`]s on; it changes nothing by itself.
//!
//! Promises:
//! 1. One message carries a frame *and* its segmentation ([`live`]), so an overlay can never
//!    lie over the wrong image.
//! 2. A slow client slows nobody: each has at most one frame on its way, and the newest frame
//!    replaces those that it did not take.
//! 3. What clients can take is bounded, whatever they do: connections, so that the store and the
//!    source keep their descriptors ([`admission`]); the time of a header, an answer and a
//!    connection without either ([`connection`]); headers, the kernel's buffers ([`server`]),
//!    bodies and answers that nobody reads ([`bounded`]); live views and streams ([`Seats`]); and
//!    how many commands are taken a second.
//! 4. Nothing is encoded while nobody watches; a frame is encoded once, whoever watches.
//! 5. A page of another site can neither command the box nor read from it ([`guard`]), and
//!    our page loads nothing from anywhere but the box.
//!
//! [`Order`]: reticle_domain::order::Order
//!
//! It has threads of its own and a tokio runtime in them; nobody else in the daemon is async.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{Semaphore, watch};

use crate::telemetry::metrics::Metrics;
use reticle_base::clock::Clock;
use reticle_base::rate::RateLimit;
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::Watched;
use reticle_domain::order::Executor;
use reticle_domain::status::StatusBoard;

mod admission;
mod assets;
mod bounded;
mod colours;
mod commands;
mod connection;
mod contours;
mod cursor;
mod feed;
mod guard;
mod latency;
mod live;
pub mod local;
mod openapi;
mod preview;
mod problem;
mod routes;
mod server;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wire;

pub use feed::{LiveFeed, LiveFrame, Snapshot};

/// Threads that answer requests.
const WORKERS: usize = 2;
/// Most threads that encode frames and wait for the store.
const BLOCKING: usize = 8;
/// When it is worth asking again after all connections were in use.
const CROWDED_RETRY: Duration = Duration::from_secs(4);
/// How often the server's task is looked after.
const LOOK: Duration = Duration::from_millis(500);
/// Questions to the store at a time. More would keep its threads from encoding live frames, and
/// each holds a picture and two descriptors or three.
const QUESTIONS: usize = 4;
/// Commands that are taken at once, and how long each further one takes to be allowed. People press
/// a button, programs name a state; whoever sends more fills the logbook.
const COMMANDS: (u32, Duration) = (60, Duration::from_secs(1));
/// Lines in the log about refused requests, likewise. The metric counts all of them.
const REFUSAL_LINES: (u32, Duration) = (5, Duration::from_secs(1));
/// How long connections may take to finish when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// `[web]`: the page and the HTTP API.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address and port to listen on. Whoever reaches it may watch and command the box, so
    /// the default is this machine alone.
    pub listen: SocketAddr,
    /// Host names under which browsers may call the box, besides `localhost` and addresses
    /// written as numbers: `["scope-3.lab.example"]`. Any other name is refused, so that a
    /// foreign page cannot reach the box through a name it controls. Behind a proxy that speaks
    /// TLS, the address as browsers see it: `["https://scope-3.lab.example"]`.
    pub hosts: Vec<String>,
    /// Connections at a time; fewer where the limit of file descriptors is low. Beyond it the
    /// one that has waited longest for a request is closed.
    #[schemars(range(min = 4, max = 4096))]
    pub max_connections: u32,
    /// Connections at a time from one address. Programs on this machine, a proxy among them,
    /// may have three quarters of all.
    #[schemars(range(min = 1, max = 4096))]
    pub max_connections_per_address: u32,
    /// Longest edge of the image on the live page, in pixels; larger frames are averaged
    /// down for the page (never for segmentation or for the store).
    pub preview_px: u32,
    /// JPEG quality of the live image, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub preview_quality: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: Vec::new(),
            max_connections: 256,
            max_connections_per_address: 64,
            preview_px: 1536,
            preview_quality: 85,
        }
    }
}

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Somebody else has the port.
    #[error(
        "port {} on {} is already in use, perhaps by another reticle: stop that one, or set \
         `listen` in [web] (or --listen) to a free port",
        .0.port(), .0.ip()
    )]
    PortInUse(SocketAddr),
    /// Any other reason.
    #[error(
        "cannot listen on {address}: {error}; set `listen` in [web] to an address of this machine"
    )]
    CannotListen {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

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
    pub reader: reticle_store::Reader,
    /// What `/metrics` tells beside the status.
    pub metrics: Metrics,
    /// What the box says over MQTT: an AsyncAPI document as JSON.
    pub asyncapi: String,
    /// How many look at the live view; the page counts them.
    pub viewers: Seats,
    /// The daemon's time, with which capture-to-screen latency is measured.
    pub clock: Clock,
}

/// Takes the port, so that a port in use is known before anything else starts.
///
/// # Errors
/// When the address cannot be had; the message says what to do.
pub fn bind(options: &Options) -> Result<TcpListener, WebError> {
    let address = options.listen;
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => WebError::PortInUse(address),
        _ => WebError::CannotListen { address, error },
    })?;
    server::bound_buffers(&listener).map_err(|error| WebError::CannotListen { address, error })?;
    Ok(listener)
}

/// Why a page that listens there is not this machine's own, and what to do; there are no accounts
/// yet. `None` on loopback.
pub fn open_to_network(address: SocketAddr) -> Option<String> {
    let ip = address.ip().to_canonical();
    let from = if ip.is_unspecified() { "every network of this box" } else { "the network" };
    (!ip.is_loopback()).then(|| {
        format!(
            "the page listens on {address}, so whoever reaches it from {from} may watch and command \
             the box, without an account; set `listen` in [web] to 127.0.0.1:{} and let a reverse \
             proxy or an SSH tunnel ask who it is, or let a firewall choose who reaches it",
            address.port()
        )
    })
}

/// Serves until `shutdown`, in threads of its own; the one that is returned ends last. It begins
/// again when it dies, on the same port: browsers connect anew.
///
/// # Errors
/// When the thread cannot be started or the listener cannot be used.
pub fn serve(
    listener: TcpListener,
    options: &Options,
    ports: Ports,
    shutdown: Shutdown,
    watched: Watched,
) -> io::Result<JoinHandle<()>> {
    let times = connection::Times::default();
    serve_within(times, listener, options, ports, (shutdown, watched))
}

/// The same with other times; for tests, which cannot wait a minute.
fn serve_within(
    times: connection::Times,
    listener: TcpListener,
    options: &Options,
    mut ports: Ports,
    (shutdown, watched): (Shutdown, Watched),
) -> io::Result<JoinHandle<()>> {
    let local = ports.local.take();
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let (metrics, clock) = (ports.metrics.clone(), ports.clock.clone());
    let shared = Shared::new(address, times, options, ports, stopping);
    let serving = Serving {
        listener,
        local,
        routes: routes::router(Arc::new(shared)),
        bounds: admission::Bounds::new(options),
        times,
        metrics,
        clock,
        stop,
        shutdown,
        watched,
    };
    std::thread::Builder::new().name("web".into()).spawn(move || {
        while let Some(pause) = serving.watched.attempt(|| serving.live()) {
            if serving.shutdown.wait(pause) {
                break;
            }
        }
    })
}

/// What each life of the server begins with.
struct Serving {
    listener: TcpListener,
    local: Option<UnixListener>,
    routes: axum::Router,
    bounds: admission::Bounds,
    times: connection::Times,
    metrics: Metrics,
    clock: Clock,
    stop: watch::Sender<bool>,
    shutdown: Shutdown,
    watched: Watched,
}

impl Serving {
    /// One life of the server, with a runtime and connections of its own: until the daemon stops,
    /// or until it ends by itself.
    fn live(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING)
            .thread_name("web-worker")
            .enable_all()
            .build()?;
        let runtime = InBackground(Some(runtime));
        let Some(running) = &runtime.0 else { return Ok(()) };
        let listener = {
            let _inside = running.enter();
            tokio::net::TcpListener::from_std(self.listener.try_clone()?)?
        };
        let server = server::Server {
            listener,
            routes: self.routes.clone(),
            admission: admission::Admission::new(self.bounds, self.metrics.clone()),
            times: self.times,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            stop: self.stop.subscribe(),
        };
        if let Some(local) = &self.local {
            let listener = {
                let _inside = running.enter();
                tokio::net::UnixListener::from_std(local.try_clone()?)?
            };
            let (routes, stop) = (self.routes.clone(), self.stop.subscribe());
            running.spawn(local::Local { listener, routes, stop }.run());
        }
        let server = running.spawn(server.run());
        tracing::debug!("the page is served");
        while !self.shutdown.wait(LOOK) {
            self.watched.pass();
            if server.is_finished() {
                running.block_on(server)?;
                return Err(io::Error::other("the server of the page ended by itself"));
            }
        }
        self.stop.send_replace(true);
        let ended = running.block_on(async { tokio::time::timeout(GRACE, server).await });
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the page's server ended badly");
        }
        Ok(())
    }
}

/// A runtime that is not waited for when it goes, neither in order nor by a panic.
struct InBackground(Option<tokio::runtime::Runtime>);

impl Drop for InBackground {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(GRACE);
        }
    }
}

/// What every request can see.
struct Shared {
    status: StatusBoard,
    live: LiveFeed,
    executor: Arc<dyn Executor>,
    asyncapi: Bytes,
    reader: reticle_store::Reader,
    metrics: Metrics,
    clock: Clock,
    names: guard::Names,
    encoding: feed::Encoding,
    viewers: Seats,
    streams: Seats,
    times: connection::Times,
    /// Room for answers that are on their way.
    answers: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    command_rate: RateLimit,
    refusal_lines: RateLimit,
    /// Capture to screen over all live views.
    screen: Mutex<latency::Latency>,
    /// Turns true when the daemon stops.
    stop: watch::Receiver<bool>,
}

impl Shared {
    fn new(
        address: SocketAddr,
        times: connection::Times,
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
            names: guard::Names::new(address, &options.hosts),
            encoding: feed::Encoding {
                longest: options.preview_px,
                quality: options.preview_quality,
            },
            viewers: ports.viewers,
            streams: Seats::default(),
            times,
            answers: bounded::answers(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            command_rate: RateLimit::new(COMMANDS.0, COMMANDS.1),
            refusal_lines: RateLimit::new(REFUSAL_LINES.0, REFUSAL_LINES.1),
            screen: Mutex::default(),
            stop,
        }
    }

    fn note_shown(&self, took: Duration) {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).add(took);
    }

    fn screen_time(&self) -> Option<latency::ScreenTime> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).summary()
    }
}

/// Comes back when the daemon stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the server is gone, which is a stop too.
    stop.wait_for(|stop| *stop).await.ok();
}

/// Counts who is connected, so that there is a bound. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Seats(Arc<AtomicUsize>);

/// One connection's place; free again when dropped.
struct Seat(Seats);

impl Seats {
    /// A seat, unless `most` are taken.
    fn take(&self, most: usize) -> Option<Seat> {
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

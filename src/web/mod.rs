//! The page, the HTTP API and the live channel.
//!
//! Owns: everything that leaves the box over HTTP. It reads the [`StatusBoard`], the
//! [`LiveFeed`] and the store, and sends [`Command`]s; it changes nothing by itself.
//!
//! Promises:
//! 1. One message carries a frame *and* its segmentation ([`live`]), so an overlay can never
//!    lie over the wrong image.
//! 2. A slow client slows nobody: each has at most one frame on its way, and the newest frame
//!    replaces those that it did not take. Memory does not grow with slow clients.
//! 3. Nothing is encoded while nobody watches; a frame is encoded once, whoever watches.
//! 4. A page of another site can neither command the box nor read from it ([`guard`]), and
//!    our page loads nothing from anywhere but the box.
//!
//! It has threads of its own and a tokio runtime in them; nobody else in the daemon is async.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::queue;
use crate::base::shutdown::Shutdown;
use crate::base::supervise::Watched;
use crate::domain::status::{Command, StatusBoard};
use crate::store;
use crate::telemetry::metrics::Metrics;

mod assets;
mod colours;
mod contours;
mod feed;
mod guard;
mod latency;
mod live;
mod openapi;
mod preview;
mod problem;
mod routes;
mod streams;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

pub use feed::{LiveFeed, LiveFrame, Snapshot};

/// Threads that answer requests.
const WORKERS: usize = 2;
/// Most threads that encode frames and wait for the store.
const BLOCKING: usize = 8;
/// How often is looked whether the server is still there.
const LOOK: Duration = Duration::from_secs(1);
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
    /// foreign page cannot reach the box through a name it controls.
    pub hosts: Vec<String>,
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
    /// Where start, pause and stop go.
    pub commands: queue::Sender<Command>,
    /// What is saved.
    pub reader: store::Reader,
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
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the page is open to the network: whoever reaches it may command the box");
    }
    Ok(listener)
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
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let routes = routes::router(Arc::new(Shared::new(address, options, ports, stopping)));
    std::thread::Builder::new().name("web".into()).spawn(move || {
        let life = || serve_once(&listener, &routes, (&stop, &shutdown), &watched);
        while let Some(pause) = watched.attempt(life) {
            if shutdown.wait(pause) {
                break;
            }
        }
    })
}

/// One life of the server, with a runtime of its own: until `shutdown`, or until it ends by itself.
fn serve_once(
    listener: &TcpListener,
    routes: &axum::Router,
    (stop, shutdown): (&watch::Sender<bool>, &Shutdown),
    watched: &Watched,
) -> io::Result<()> {
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
        tokio::net::TcpListener::from_std(listener.try_clone()?)?
    };
    let (routes, mut stopping) = (routes.clone(), stop.subscribe());
    let server = running.spawn(async move {
        axum::serve(listener, routes)
            .with_graceful_shutdown(async move { stopped(&mut stopping).await })
            .await
    });
    tracing::debug!("the page is served");
    while !shutdown.wait(LOOK) {
        watched.pass();
        if server.is_finished() {
            running.block_on(server)??;
            return Err(io::Error::other("the server of the page ended by itself"));
        }
    }
    stop.send_replace(true);
    let ended = running.block_on(async { tokio::time::timeout(GRACE, server).await });
    if let Ok(Ok(Err(error))) = ended {
        tracing::warn!(%error, "the page's server ended badly");
    }
    Ok(())
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
    commands: queue::Sender<Command>,
    asyncapi: Bytes,
    reader: store::Reader,
    metrics: Metrics,
    clock: Clock,
    names: guard::Names,
    encoding: feed::Encoding,
    viewers: Seats,
    streams: Seats,
    /// Capture to screen over all live views.
    screen: Mutex<latency::Latency>,
    /// Turns true when the daemon stops.
    stop: watch::Receiver<bool>,
}

impl Shared {
    fn new(
        address: SocketAddr,
        options: &Options,
        ports: Ports,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            status: ports.status,
            live: ports.live,
            commands: ports.commands,
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

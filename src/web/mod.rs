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
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::queue;
use crate::base::shutdown::Shutdown;
use crate::domain::status::Command;

mod feed;

pub use feed::{LiveFeed, LiveFrame, StatusBoard};

/// Threads that answer requests. Encoding runs on tokio's blocking threads.
const WORKERS: usize = 2;
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

/// Serves until `shutdown`, in threads of its own; the one that is returned ends last.
///
/// # Errors
/// When threads cannot be started or the listener cannot be used.
pub fn serve(
    listener: TcpListener,
    options: &Options,
    ports: Ports,
    shutdown: Shutdown,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("web-worker")
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let _ = (options, ports, Arc::new(()));
    std::thread::Builder::new().name("web".into()).spawn(move || {
        let server = runtime.spawn(async move { axum::serve(listener, axum::Router::new()).await });
        while !shutdown.wait(Duration::from_secs(3600)) {}
        server.abort();
        runtime.shutdown_timeout(GRACE);
    })
}

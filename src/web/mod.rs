//! The page, the HTTP API and the live channel.
//!
//! Owns: everything that leaves the box over HTTP. It reads the status board, the
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
//! 6. Every route is registered once, with its action and its entry in the OpenAPI document
//!    ([`routes`]); what it answers is a type of the wire ([`wire`]), never the store's.
//! 7. A command that is sent again under its `Idempotency-Key` is carried out once
//!    ([`idempotency`]).
//!
//! [`Order`]: reticle_domain::order::Order
//!
//! It has threads of its own and a tokio runtime in them; nobody else in the daemon is async.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::telemetry::metrics::Metrics;
use reticle_base::clock::Clock;
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::Watched;

mod access;
mod admission;
mod assets;
mod bounded;
mod colours;
mod commands;
mod connection;
mod contours;
mod cursor;
mod documents;
mod feed;
mod frame_message;
mod guard;
mod idempotency;
mod latency;
mod live;
mod live_frame;
pub mod local;
mod names;
mod options;
mod preview;
mod probes;
mod problem;
mod results;
mod routes;
mod server;
mod shared;
mod socket;
mod status;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wire;

pub use feed::{LiveFeed, Snapshot};
pub use live_frame::LiveFrame;
pub use options::{Options, WebError, open_to_network};
pub use shared::{Ports, Seats};

use shared::Shared;

/// Threads that answer requests.
const WORKERS: usize = 2;
/// Most threads that encode frames and wait for the store.
const BLOCKING: usize = 8;
/// How often the server's task is looked after.
const LOOK: Duration = Duration::from_millis(500);
/// How long connections may take to finish when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

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

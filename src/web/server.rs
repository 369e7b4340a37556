//! Takes connections and serves them, one task each, within the bounds of [`super::admission`] and
//! the times of [`super::connection`].
//!
//! HTTP/1 only. `axum::serve` would also answer HTTP/2, whose streams, windows and header tables
//! each need bounds of their own and of which a box on a local network has no use.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::admission::{Admission, Place};
use super::connection::{Link, Over, Times};
use super::shared::stopped;
use super::socket::{Socket, Watched};
use crate::telemetry::metrics::{Metrics, Refusal};
use reticle_base::clock::Clock;
use reticle_base::rate::RateLimit;
use reticle_domain::actor::Actor;

/// Most bytes of a request's header, its first line included. Browsers send some 2 kB.
pub(super) const LONGEST_HEADER: usize = 16 * 1024;

/// The kernel's buffers of a connection, in bytes, which are this process' memory to a service
/// manager that limits it. The kernel's own choice grows to 6 MB each. A request has 32 kB at most;
/// what is sent fills a link of 1 Gbit/s at 1 ms.
const RECEIVE_BUFFER: usize = 32 * 1024;
const SEND_BUFFER: usize = 128 * 1024;

/// How long no connection is taken after one could not be: descriptors come back when somebody
/// closes one, and asking again at once would only turn a core warm.
pub(super) const BACK_OFF: Duration = Duration::from_millis(200);

/// Marks a request that came over a connection in a spare place.
#[derive(Clone, Copy)]
pub(super) struct Crowded;

/// Sets what connections inherit from the socket they are taken from.
pub(super) fn bound_buffers(listener: &std::net::TcpListener) -> io::Result<()> {
    let socket = socket2::SockRef::from(listener);
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)
}

/// What it takes to serve.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) routes: Router,
    pub(super) admission: Admission,
    pub(super) times: Times,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// Turns true when the daemon stops.
    pub(super) stop: watch::Receiver<bool>,
}

impl Server {
    /// Serves until it is to stop, and then until every connection has ended.
    pub(super) async fn run(self) {
        let mut stop = self.stop.clone();
        let complaints = RateLimit::new(1, Duration::from_secs(10));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                (stream, actor, link, place) = self.next(&complaints) => {
                    let one = Connection {
                        actor,
                        link,
                        routes: TowerToHyperService::new(self.routes.clone()),
                        times: self.times,
                        metrics: self.metrics.clone(),
                        stop: self.stop.clone(),
                    };
                    connections.spawn(one.serve(stream, place));
                }
                Some(ended) = connections.join_next() => note(ended),
            }
        }
        let Self { listener, admission, .. } = self;
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
        // WebSockets have left their tasks; they end by themselves, with a word of goodbye.
        admission.all_closed().await;
    }

    /// The next connection. One that is not taken in the end waits in the kernel.
    async fn next(&self, complaints: &RateLimit) -> (TcpStream, Actor, Arc<Link>, Place) {
        loop {
            let Some(socket) = self.admission.socket().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let (link, place) = self.admission.admit(origin(from), socket);
                    return (stream, Actor::at(from.ip()), link, place);
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    if let Some(left_out) = complaints.line(&self.clock.now()) {
                        tracing::warn!(%error, left_out, "cannot take a connection; trying again");
                    }
                    sleep(BACK_OFF).await;
                }
            }
        }
    }
}

pub(super) fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "serving a connection broke off; this is a fault in Reticle");
    }
}

/// Whether it was this client that left while it was being taken.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Whom a connection counts for. In IPv6 a machine has 2⁶⁴ addresses, so its network counts.
fn origin(from: SocketAddr) -> IpAddr {
    match from.ip().to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
        address => address,
    }
}

struct Connection {
    actor: Actor,
    link: Arc<Link>,
    routes: TowerToHyperService<Router>,
    times: Times,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, place: Place) {
        let Self { actor, link, routes, times, metrics, mut stop } = self;
        // A frame is worth sending before the next one comes.
        stream.set_nodelay(true).ok();
        let socket = Socket::new(stream, Arc::clone(&link), place);
        let answer = |mut request: Request<Incoming>| {
            link.asked();
            request.extensions_mut().insert(actor.clone());
            if link.is_crowded() {
                request.extensions_mut().insert(Crowded);
            }
            let answer = routes.call(request);
            let link = Arc::clone(&link);
            async move {
                let response = answer.await?;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    link.upgraded();
                } else {
                    link.answered(response.body().size_hint().exact(), &times);
                }
                Ok::<_, Infallible>(response.map(|body| Watched::new(body, link)))
            }
        };
        let mut builder = http1::Builder::new();
        // Ours begins with the first byte, not with the end of the answer before.
        builder.max_buf_size(LONGEST_HEADER).header_read_timeout(None);
        let connection = builder.serve_connection(TokioIo::new(socket), service_fn(answer));
        let mut connection = pin!(connection.with_upgrades());
        let mut over = pin!(link.over(&times));
        let mut is_stopping = false;
        loop {
            // In this order: what happened on the connection decides how long it has.
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                        if error.is_parse() {
                            metrics.refused_client(Refusal::Header);
                        }
                    }
                    return;
                }
                over = over.as_mut() => {
                    tracing::debug!(?over, "closed a connection");
                    if over == Over::Late && !link.is_idle() {
                        metrics.refused_client(Refusal::Slow);
                    }
                    return;
                }
                () = stopped(&mut stop), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| origin(SocketAddr::new(text.parse().unwrap(), 1)).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:10.0.0.7"), "10.0.0.7");
        assert_eq!(of("::1"), "::1");
        assert_eq!(of("10.0.0.7"), "10.0.0.7");
    }
}

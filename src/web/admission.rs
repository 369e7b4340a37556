//! Who may be connected: bounds how many connections there are, so that they can take neither the
//! descriptors nor the memory that the store and the camera need.
//!
//! 1. There are never more than [`Bounds::all`] connections, and [`SPARE`] beside them.
//! 2. One address has at most [`Bounds::per_address`]; the loopback has more, because a proxy on
//!    this machine brings everybody's ([`Bounds::per_loopback`]).
//! 3. When a bound is reached, the connection that has *waited* longest makes room for the new
//!    one: it has no request, or not a whole one, so nobody loses an answer. So idle connections
//!    and unfinished headers keep nobody out, however many there are.
//! 4. When nobody waits, the new one is answered in a spare place: the probes as ever, everything
//!    else with 503. It is over within [`super::connection::CROWDED`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Link;
use super::options::Options;
use crate::telemetry::metrics::{Metrics, Refusal};
use reticle_base::descriptors;

/// Connections beside the others, for the probes and for saying that there are too many.
pub(super) const SPARE: usize = 4;

/// Descriptors that are left to the rest of the daemon: 12 for four questions to the store (each
/// the database, its log and a frame file), 6 for the writer that opens the database again and
/// writes a file, 4 for the source, 10 for deliveries.
const RESERVED: u64 = 32;

/// Connections that there are however few descriptors are left.
const FEWEST: usize = 4;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) all: usize,
    pub(super) per_address: usize,
    pub(super) per_loopback: usize,
}

impl Bounds {
    /// What is configured, as far as descriptors allow.
    pub(super) fn new(options: &Options) -> Self {
        let bounds = Self::within(options, descriptors::left());
        if bounds.all < options.max_connections as usize {
            tracing::warn!(
                connections = bounds.all,
                configured = options.max_connections,
                "few file descriptors are left, so fewer connections are taken: raise the limit \
                 (LimitNOFILE in the unit, or ulimit -n)"
            );
        }
        bounds
    }

    fn within(options: &Options, descriptors: u64) -> Self {
        let left = descriptors.saturating_sub(RESERVED + SPARE as u64);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let all = (options.max_connections as usize).min(left).max(FEWEST);
        let per_address = (options.max_connections_per_address as usize).clamp(1, all);
        Self { all, per_address, per_loopback: per_address.max(all - all / 4) }
    }

    fn of(&self, address: IpAddr) -> usize {
        if address.is_loopback() { self.per_loopback } else { self.per_address }
    }
}

/// The connections that there are. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Admission(Arc<Inner>);

struct Inner {
    bounds: Bounds,
    metrics: Metrics,
    /// One permit a descriptor: taken before a connection is accepted, and given back when its
    /// socket is closed.
    sockets: Arc<Semaphore>,
    next: AtomicU64,
    links: Mutex<HashMap<u64, (IpAddr, Arc<Link>)>>,
}

/// One connection's place; free again when dropped, which is when its socket is closed.
pub(super) struct Place {
    id: u64,
    admission: Admission,
    _socket: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(bounds: Bounds, metrics: Metrics) -> Self {
        let sockets = Arc::new(Semaphore::new(bounds.all + SPARE));
        let (next, links) = (AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Inner { bounds, metrics, sockets, next, links }))
    }

    /// Waits until one more socket may be open.
    pub(super) async fn socket(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.sockets).acquire_owned().await.ok()
    }

    /// Waits until no socket is open.
    pub(super) async fn all_closed(&self) {
        let all = u32::try_from(self.0.bounds.all + SPARE).unwrap_or(u32::MAX);
        // Nobody closes the semaphore; if somebody did, there would be nothing to wait for.
        self.0.sockets.acquire_many(all).await.ok();
    }

    /// Gives a new connection its place, and whether it is one of the spare ones.
    pub(super) fn admit(
        &self,
        address: IpAddr,
        socket: OwnedSemaphorePermit,
    ) -> (Arc<Link>, Place) {
        let inner = &*self.0;
        let mut links = inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |links: &HashMap<u64, (IpAddr, Arc<Link>)>| {
            let of_it = links.values().filter(|(other, _)| *other == address).count();
            if of_it >= inner.bounds.of(address) {
                return Some(Some(address));
            }
            (links.len() >= inner.bounds.all).then_some(None)
        };
        let mut crowded = false;
        if let Some(full) = is_full(&links) {
            match waits_longest(&links, full) {
                Some(id) => {
                    if let Some((_, link)) = links.remove(&id) {
                        link.make_room();
                    }
                    inner.metrics.refused_client(Refusal::Displaced);
                }
                None => {
                    crowded = true;
                    inner.metrics.refused_client(Refusal::Crowded);
                }
            }
        }
        let link = Arc::new(Link::new(crowded));
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        if !crowded {
            links.insert(id, (address, Arc::clone(&link)));
        }
        inner.metrics.connections(links.len());
        (link, Place { id, admission: self.clone(), _socket: socket })
    }
}

/// The connection that has waited longest for a request, of `address` or, where there is none, of
/// the address that has most connections among those that wait.
fn waits_longest(
    links: &HashMap<u64, (IpAddr, Arc<Link>)>,
    address: Option<IpAddr>,
) -> Option<u64> {
    let waiting = || {
        let each = links.iter();
        each.filter_map(|(id, (from, link))| Some((*id, *from, link.waits_since()?)))
    };
    let address = address.or_else(|| {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (_, from, _) in waiting() {
            *counts.entry(from).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(from, _)| from)
    })?;
    let of_it = waiting().filter(|(_, from, _)| *from == address);
    of_it.min_by_key(|(id, _, since)| (*since, *id)).map(|(id, _, _)| id)
}

impl Drop for Place {
    fn drop(&mut self) {
        let inner = &*self.admission.0;
        let mut links = inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.remove(&self.id);
        inner.metrics.connections(links.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { all: 6, per_address: 2, per_loopback: 4 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    struct Crowd {
        admission: Admission,
        inside: Vec<(Arc<Link>, Place)>,
    }

    impl Crowd {
        fn new() -> Self {
            Self { admission: Admission::new(BOUNDS, Metrics::new()), inside: Vec::new() }
        }

        fn comes(&mut self, from: IpAddr) -> Arc<Link> {
            let socket = Arc::clone(&self.admission.0.sockets).try_acquire_owned().unwrap();
            let (link, place) = self.admission.admit(from, socket);
            self.inside.push((Arc::clone(&link), place));
            link
        }
    }

    #[test]
    fn connections_leave_descriptors_to_the_rest_of_the_daemon() {
        let options = Options::default();
        let bounds = Bounds::within(&options, 1_000_000);
        assert_eq!(bounds, Bounds { all: 256, per_address: 64, per_loopback: 192 });
        let few = Bounds::within(&options, 47);
        assert_eq!(few.all, 11, "47 are left, 32 are reserved, 4 are spare");
        assert_eq!(Bounds::within(&options, 0).all, FEWEST);
    }

    #[test]
    fn of_a_full_address_the_one_that_waits_longest_makes_room() {
        let mut crowd = Crowd::new();
        let [first, second] = [1, 1].map(|last| crowd.comes(address(last)));
        let other = crowd.comes(address(2));
        let third = crowd.comes(address(1));
        assert!(first.must_make_room());
        assert!(![second, other, third].iter().any(|link| link.must_make_room()));
    }

    #[test]
    fn who_has_a_request_keeps_its_place_and_the_new_one_is_told_that_there_are_too_many() {
        let mut crowd = Crowd::new();
        let busy = [1, 1].map(|last| crowd.comes(address(last)));
        for link in &busy {
            link.asked();
        }
        let third = crowd.comes(address(1));
        assert!(third.is_crowded());
        assert!(!busy.iter().any(|link| link.must_make_room()));
        let elsewhere = crowd.comes(address(2));
        assert!(!elsewhere.is_crowded(), "another address has room");
    }

    #[test]
    fn when_all_places_are_taken_the_address_with_most_that_wait_makes_room() {
        let mut crowd = Crowd::new();
        let local = IpAddr::from([127, 0, 0, 1]);
        let locals: Vec<_> = (0..4).map(|_| crowd.comes(local)).collect();
        let others = [2, 3].map(|last| crowd.comes(address(last)));
        crowd.comes(address(4));
        assert!(locals[0].must_make_room());
        assert!(!others.iter().any(|link| link.must_make_room()));
    }

    #[test]
    fn a_place_is_free_again_when_its_socket_is_closed() {
        let mut crowd = Crowd::new();
        for _ in 0..100 {
            let link = crowd.comes(address(1));
            link.asked();
            assert!(!link.is_crowded());
            crowd.inside.clear();
        }
        assert_eq!(crowd.admission.0.sockets.available_permits(), BOUNDS.all + SPARE);
    }
}

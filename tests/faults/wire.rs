//! A stretch of network between the daemon and PostgreSQL, which can be cut and slowed down.
//!
//! Bytes are carried as they are; what they mean is nobody's business here.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes taken at a time.
const CHUNK: usize = 4096;

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Carries what it is given.
    Open,
    /// Connections are closed and new ones refused.
    Cut,
    /// Carries so many bytes a second in each direction.
    Slow { bytes_per_s: u64 },
}

/// Open until it goes out of scope.
pub(crate) struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    ended: AtomicBool,
    opened: AtomicU64,
    refused: AtomicU64,
    carried: AtomicU64,
    slowed: AtomicU64,
}

impl Wire {
    /// To a port of loopback.
    pub(crate) fn to(upstream: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)),
            state: Mutex::new(State::Open),
            ended: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A server that is not there is what the client is to see, as a closed connection.
                accepting.open(client).ok();
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn set(&self, state: State) {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Connections asked for so far, with or without a server behind.
    pub(crate) fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// Connections asked for while it was cut.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Bytes carried so far, both ways.
    pub(crate) fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }

    /// Bytes of them that were slowed down.
    pub(crate) fn slowed(&self) -> u64 {
        self.shared.slowed.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.state() == State::Cut {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return client.shutdown(Shutdown::Both);
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        let server = TcpStream::connect(self.upstream)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(self));
            thread::spawn(move || {
                // Either end may close or reset: then so does the other.
                shared.carry(&from, &to).ok();
                from.shutdown(Shutdown::Both).ok();
                to.shutdown(Shutdown::Both).ok();
            });
        }
        Ok(())
    }

    /// Until one end closes or the wire is cut.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        from.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut chunk = [0; CHUNK];
        while !self.ended.load(Ordering::SeqCst) {
            // Short pieces over a slow wire, so that it can be mended between two.
            let at_most = match self.state() {
                State::Open => CHUNK,
                State::Cut => return Ok(()),
                State::Slow { bytes_per_s } => usize::try_from(bytes_per_s / 10).unwrap_or(CHUNK),
            };
            let read = match from.read(&mut chunk[..at_most.clamp(1, CHUNK)]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut]
                        .contains(&error.kind()) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            // It may have changed while nothing came.
            match self.state() {
                State::Open => {}
                State::Cut => return Ok(()),
                State::Slow { bytes_per_s } => {
                    self.slowed.fetch_add(read as u64, Ordering::SeqCst);
                    thread::sleep(Duration::from_secs(1).mul_f64(read as f64 / bytes_per_s as f64));
                }
            }
            self.carried.fetch_add(read as u64, Ordering::SeqCst);
            to.write_all(&chunk[..read])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::wait_for;

    #[test]
    fn a_wire_carries_both_ways_until_it_is_cut_and_again_when_it_is_mended() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Wire::to(server.local_addr().unwrap().port()).unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, wire.port())).unwrap();
        let echo = |client: &mut TcpStream, peer: &mut TcpStream| {
            let mut four = [0; 4];
            client.write_all(b"ping").unwrap();
            peer.read_exact(&mut four).unwrap();
            peer.write_all(&four).unwrap();
            client.read_exact(&mut four).unwrap();
            assert_eq!(&four, b"ping");
        };
        let mut client = connect();
        let (mut peer, _) = server.accept().unwrap();
        echo(&mut client, &mut peer);
        wire.set(State::Slow { bytes_per_s: 100 });
        echo(&mut client, &mut peer);
        assert_eq!((wire.opened(), wire.carried(), wire.slowed()), (1, 16, 8));

        wire.set(State::Cut);
        assert_eq!(client.read(&mut [0; 4]).unwrap(), 0, "cut at once");
        assert_eq!(peer.read(&mut [0; 4]).unwrap(), 0);
        let mut refused = connect();
        assert_eq!(refused.read(&mut [0; 4]).unwrap_or(0), 0);
        wait_for("the refusal to be counted", || (wire.refused() == 1).then_some(()));

        wire.set(State::Open);
        let mut client = connect();
        let (mut peer, _) = server.accept().unwrap();
        echo(&mut client, &mut peer);
        assert_eq!((wire.opened(), wire.refused()), (2, 1));
    }
}

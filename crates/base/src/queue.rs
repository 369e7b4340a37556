//! Bounded queues between stages: each has a name, a bound, and a written policy for
//! when it is full.
//!
//! - [`WhenFull::Wait`]: the sender waits; nothing is dropped.
//! - [`WhenFull::NewestWins`]: the oldest waiting item makes room and is counted as
//!   skipped; the sender never waits.
//!
//! A queue is closed for the receiver once every sender is gone and it is empty, and for
//! the senders once the receiver is gone. That is how stages drain from left to right.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a sender does when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Wait for room.
    Wait,
    /// Drop the oldest waiting item, count it, and go on.
    NewestWins,
}

/// How a [`Receiver::recv_timeout`] ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<T> {
    /// An item.
    Item(T),
    /// Nothing came in time.
    Timeout,
    /// Every sender is gone and nothing is left.
    Closed,
}

/// What became of an item given to [`Sender::send`].
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<T> {
    /// It waits in the queue.
    Queued,
    /// It waits in the queue, and this older one was skipped for it.
    Displaced(T),
    /// The receiver is gone; here it is back.
    Closed(T),
}

struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    receiver_alive: bool,
    skipped: u64,
}

struct Shared<T> {
    name: &'static str,
    capacity: usize,
    when_full: WhenFull,
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The left end of a queue.
pub struct Sender<T>(Arc<Shared<T>>);

/// The right end of a queue; there is one.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A view on a queue's figures that keeps neither end open.
pub struct Gauge<T>(Arc<Shared<T>>);

/// Makes a queue. `capacity` of zero counts as one.
pub fn bounded<T>(
    name: &'static str,
    capacity: usize,
    when_full: WhenFull,
) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        name,
        capacity: capacity.max(1),
        when_full,
        state: Mutex::new(State {
            items: VecDeque::new(),
            senders: 1,
            receiver_alive: true,
            skipped: 0,
        }),
        changed: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Hands `item` over, by the queue's policy.
    pub fn send(&self, item: T) -> Sent<T> {
        let mut state = self.0.lock();
        loop {
            if !state.receiver_alive {
                return Sent::Closed(item);
            }
            if state.items.len() < self.0.capacity {
                state.items.push_back(item);
                self.0.changed.notify_all();
                return Sent::Queued;
            }
            match self.0.when_full {
                WhenFull::Wait => {
                    state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                WhenFull::NewestWins => {
                    let oldest = state.items.pop_front();
                    state.items.push_back(item);
                    state.skipped += 1;
                    self.0.changed.notify_all();
                    return oldest.map_or(Sent::Queued, Sent::Displaced);
                }
            }
        }
    }

    /// Hands `item` over if there is room now, and gives it back if there is none or if the
    /// receiver is gone. Never waits and displaces nothing.
    pub fn offer(&self, item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if !state.receiver_alive || state.items.len() >= self.0.capacity {
            return Err(item);
        }
        state.items.push_back(item);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Whether the receiver is gone, so that nothing will ever be taken.
    pub fn is_closed(&self) -> bool {
        !self.0.lock().receiver_alive
    }

    /// Figures of this queue.
    pub fn gauge(&self) -> Gauge<T> {
        Gauge(Arc::clone(&self.0))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Receiver<T> {
    /// Waits for the next item; `None` once closed and empty.
    pub fn recv(&self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                self.0.changed.notify_all();
                return Some(item);
            }
            if state.senders == 0 {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits up to `timeout` for the next item.
    pub fn recv_timeout(&self, timeout: Duration) -> Received<T> {
        let state = self.0.lock();
        let (mut state, _) = self
            .0
            .changed
            .wait_timeout_while(state, timeout, |state| state.items.is_empty() && state.senders > 0)
            .unwrap_or_else(PoisonError::into_inner);
        match state.items.pop_front() {
            Some(item) => {
                self.0.changed.notify_all();
                Received::Item(item)
            }
            None if state.senders == 0 => Received::Closed,
            None => Received::Timeout,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_alive = false;
        // What nobody will take is let go now, not when the last sender goes.
        state.items.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

impl<T> Gauge<T> {
    /// The queue's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Items waiting now.
    pub fn depth(&self) -> usize {
        self.0.lock().items.len()
    }

    /// Items dropped for newer ones since the start.
    pub fn skipped(&self) -> u64 {
        self.0.lock().skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_wins_drops_the_oldest_and_counts_it() {
        let (sender, receiver) = bounded("test", 2, WhenFull::NewestWins);
        assert_eq!(sender.send(1), Sent::Queued);
        assert_eq!(sender.send(2), Sent::Queued);
        assert_eq!(sender.send(3), Sent::Displaced(1));
        assert_eq!(sender.gauge().skipped(), 1);
        drop(sender);
        assert_eq!(receiver.recv(), Some(2));
        assert_eq!(receiver.recv(), Some(3));
        assert_eq!(receiver.recv(), None);
    }

    #[test]
    fn a_waiting_sender_goes_on_when_there_is_room_and_loses_nothing() {
        let (sender, receiver) = bounded("test", 1, WhenFull::Wait);
        let thread = std::thread::spawn(move || {
            for item in 0..1000 {
                assert_eq!(sender.send(item), Sent::Queued);
            }
        });
        let got: Vec<i32> = std::iter::from_fn(|| receiver.recv()).collect();
        thread.join().unwrap();
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = bounded("test", 1, WhenFull::Wait);
        assert_eq!(sender.send(1), Sent::Queued);
        let waiting = std::thread::spawn(move || sender.send(2));
        drop(receiver);
        assert_eq!(waiting.join().unwrap(), Sent::Closed(2));
    }

    #[test]
    fn what_is_offered_to_a_full_queue_comes_back() {
        let (sender, receiver) = bounded("test", 1, WhenFull::NewestWins);
        assert_eq!(sender.offer(1), Ok(()));
        assert_eq!(sender.offer(2), Err(2));
        assert_eq!(receiver.recv(), Some(1));
        assert_eq!(sender.offer(3), Ok(()));
        drop(receiver);
        assert_eq!(sender.offer(4), Err(4));
    }

    #[test]
    fn a_timeout_is_not_an_end() {
        let (sender, receiver) = bounded::<u8>("test", 1, WhenFull::Wait);
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Received::Timeout);
        drop(sender);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Received::Closed);
    }
}

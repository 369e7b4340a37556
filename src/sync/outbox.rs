//! The store's outbox, asked from async code: through the writer's queue, because one thread
//! writes.

use std::sync::mpsc::sync_channel;

use reticle_base::queue::{Sender, Sent};
use reticle_store::{Answer, Ask, Job, StoreError};

/// Why the outbox gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The writer is gone: everything is stopping.
    #[error("the store is closed")]
    Closed,
    /// The store could not write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Cheap to clone. The writer's queue stays open as long as one is there.
#[derive(Clone)]
pub(super) struct Outbox(Sender<Job>);

impl Outbox {
    pub(super) fn new(jobs: Sender<Job>) -> Self {
        Self(jobs)
    }

    /// Asks, and waits until the answer is committed.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, NoAnswer> {
        let jobs = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let (reply, answer) = sync_channel(1);
            if let Sent::Closed(_) = jobs.send(Job::Ask { ask, reply }) {
                return Err(NoAnswer::Closed);
            }
            Ok(answer.recv().map_err(|_gone| NoAnswer::Closed)??)
        })
        .await
        .unwrap_or_else(|error| {
            die_of(error);
            Err(NoAnswer::Closed)
        })
    }

    /// Asks without waiting for the answer or the commit.
    pub(super) fn tell(&self, ask: Ask) {
        let (reply, _) = sync_channel(1);
        self.0.send(Job::Ask { ask, reply });
    }
}

/// A panic of a thread that was waited for is the panic of who waits. What was only broken off is
/// none: the runtime ends.
pub(super) fn die_of(error: tokio::task::JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

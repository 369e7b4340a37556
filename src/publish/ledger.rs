//! What a command has to do with the store: its id before it is done, its answer and its event
//! after. Each of these waits for the store's writer, so all of it is done beside the loop.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use reticle_base::queue::Sender;
use reticle_domain::event::Event;
use reticle_store::{Answer, Ask, Job, Noted, Noting};

/// How long a command waits until the store has its id. A busy SD card takes a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks whether the store's queue has room.
const LOOK: Duration = Duration::from_millis(20);

/// Entries that wait at most, while the store stands still.
const MOST: usize = 256;

/// Notes the id of a command that is about to be done. An error says why that is not certain;
/// then the command must not be done.
pub(super) fn note(jobs: &Sender<Job>, noting: Noting) -> Result<Noted, String> {
    let (reply, answer) = sync_channel(1);
    let mut job = Job::Ask { ask: Ask::Command(noting), reply };
    let mut looks = PATIENCE.as_millis() / LOOK.as_millis();
    // Not `send`: with a store that stands still it would wait without end.
    while let Err(back) = jobs.offer(job) {
        if looks == 0 {
            return Err(format!("its store has taken nothing for {} s", PATIENCE.as_secs()));
        }
        looks -= 1;
        job = back;
        std::thread::sleep(LOOK);
    }
    match answer.recv_timeout(PATIENCE) {
        Ok(Ok(Answer::Command(noted))) => Ok(noted),
        Ok(Ok(other)) => Err(format!("its store answered {other:?}; report this as a defect")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(RecvTimeoutError::Timeout) => {
            Err(format!("its store has not answered for {} s", PATIENCE.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Err("it is stopping".to_owned()),
    }
}

/// Ends of commands, on their way into the store one after the other.
#[derive(Default)]
pub(super) struct Ledger {
    waiting: VecDeque<Job>,
    /// One is being handed over.
    busy: bool,
}

impl Ledger {
    /// The end of a command: for the logbook, and for whoever asks again.
    pub(super) fn add(&mut self, event: Event, kept: Option<Ask>) {
        if self.waiting.len() >= MOST {
            tracing::error!(?event, "the store takes nothing; this stands in the log only");
            return;
        }
        // Nobody waits for this answer: where it is lost, asking again says `done_already`.
        self.waiting.extend(kept.map(|ask| Job::Ask { ask, reply: sync_channel(1).0 }));
        self.waiting.push_back(Job::Event(event));
    }

    /// The next to hand over, where none is being.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.busy {
            return None;
        }
        let job = self.waiting.pop_front();
        self.busy = job.is_some();
        job
    }

    /// It was handed over.
    pub(super) fn done(&mut self) {
        self.busy = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::queue::{WhenFull, bounded};

    fn stop(id: &str) -> Noting {
        let (operation, actor) = ("stop".to_owned(), "mqtt".to_owned());
        Noting { operation, id: id.to_owned(), actor, reason: None }
    }

    #[test]
    fn an_id_is_noted_only_when_the_store_says_so() {
        let (jobs, receiver) = bounded("store", 1, WhenFull::Wait);
        let writer = std::thread::spawn(move || {
            let mut answers = [
                Ok(Answer::Command(Noted::First)),
                Ok(Answer::Written),
                Err(reticle_store::StoreError::Damaged {
                    path: "reticle.db".into(),
                    detail: "the disk is full".to_owned(),
                }),
            ]
            .into_iter();
            while let Some(Job::Ask { reply, .. }) = receiver.recv() {
                if let Some(answer) = answers.next() {
                    reply.send(answer).unwrap();
                }
            }
        });
        assert_eq!(note(&jobs, stop("1")), Ok(Noted::First));
        assert!(note(&jobs, stop("2")).unwrap_err().contains("Written"));
        assert!(note(&jobs, stop("3")).unwrap_err().contains("the disk is full"));
        assert_eq!(note(&jobs, stop("4")).unwrap_err(), "it is stopping");
        drop(jobs);
        writer.join().unwrap();
    }
}

//! Whether this store may deliver: what a destination remembers of it, against what it knows.
//!
//! A store claims each delivery with a mark that only grows, and commits it before anything is
//! sent ([`Item::mark`](reticle_store::Item)). The destination keeps the mark of the newest one
//! beside what was delivered ([`Standing`]). From that follows what no honest store can meet:
//!
//! - a mark there that is greater than what this store has claimed: its database is an older copy
//!   (a backup, a snapshot of a virtual machine, a disk that lied), or it has a twin;
//! - another writer there than this process, after this process has written: a twin;
//! - a dispute that was noted in this epoch.
//!
//! Then nothing is delivered or taken back; the dispute is noted there, so that the other one
//! finds it too, and a person decides. Another epoch with a smaller mark is a restored store that
//! was counted on from above what the destination knew: it goes on.

use std::sync::{Mutex, PoisonError};

use super::error::SyncError;
use reticle_base::clock::Clock;
use reticle_base::ids::EpochId;
use reticle_domain::facts::BoxName;
use reticle_exchange::standing::{Dispute, Standing, VERSION};
use reticle_store::Identity;

/// What a person does about a conflict.
const WAY_FORWARD: &str = "nothing is delivered there any more and nothing there is changed; what \
                           this box captures is saved here. If another box delivers under this \
                           one's name, switch one of them off; then decide with `reticle sync \
                           adopt`";

/// This process, and the box that it delivers for.
#[derive(Clone)]
pub struct Writer {
    /// Random: another one for each start.
    pub name: String,
    /// Name of the machine.
    pub machine: String,
    /// The box.
    pub box_name: BoxName,
    /// What time it is.
    pub clock: Clock,
}

/// Who makes a delivery, and with which mark.
#[derive(Clone)]
pub struct Claimant {
    /// The store and its epoch.
    pub identity: Identity,
    /// The process.
    pub writer: Writer,
    /// The mark of the delivery.
    pub mark: i64,
}

/// What this process has written at one destination.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Option<Written>>);

#[derive(Clone, Debug)]
struct Written {
    epoch: EpochId,
    mark: i64,
    /// Who had written there before, and with which mark, as long as nothing says that this
    /// process has: a put that failed, or a transaction that was rolled back, leaves that.
    before: Option<(String, i64)>,
}

impl Writer {
    /// This process.
    pub fn of_this_process(box_name: &BoxName, clock: Clock) -> Self {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = uuid::Uuid::new_v4().to_string();
        Self { name, machine, box_name: box_name.clone(), clock }
    }
}

impl Memory {
    /// Remembers a mark, before it is written over what was `found`: the answer may be lost.
    pub(super) fn writes(&self, claimant: &Claimant, found: Option<&Standing>) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let other = found.filter(|found| found.writer != claimant.writer.name);
        let epoch = claimant.identity.epoch;
        let is_first = written.as_ref().is_none_or(|written| written.epoch != epoch);
        // After the first there may be only what was found then, or there is a conflict.
        let unwritten =
            is_first || written.as_ref().is_some_and(|written| written.before.is_some());
        let before = other.filter(|_| unwritten);
        let before = before.map(|found| (found.writer.clone(), found.high_water));
        *written = Some(Written { epoch, mark: claimant.mark, before });
    }

    /// What was remembered last is there.
    pub(super) fn has_written(&self) {
        if let Some(written) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            written.before = None;
        }
    }

    /// Why the store must not deliver to a destination that has `found` of it; `None` where it
    /// may.
    pub(super) fn conflict(&self, found: Option<&Standing>, claimant: &Claimant) -> Option<String> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let written = written.filter(|written| written.epoch == claimant.identity.epoch);
        let found = found?;
        let by = format!("{} ({})", found.box_name, found.written);
        let known = written.as_ref().map_or(claimant.mark - 1, |written| written.mark);
        let still_there = |written: &Written| {
            let before = written.before.as_ref();
            before
                .is_some_and(|(writer, mark)| (writer, mark) == (&found.writer, &found.high_water))
        };
        let same_epoch = found.epoch == claimant.identity.epoch;
        let why = if found.high_water > known {
            format!(
                "it was given {} deliveries by this box's store, the last by {by}, and the store \
                 knows of {known}: its database is an older copy, or another box has the same one",
                found.high_water
            )
        } else if let Some(dispute) = found.disputed.as_ref().filter(|_| same_epoch) {
            format!(
                "{} noted on {} (with {} deliveries) that two boxes deliver with one database, or \
                 one with an older copy of it",
                dispute.machine, dispute.since, dispute.high_water
            )
        } else if found.writer != claimant.writer.name
            && written.is_some_and(|written| !still_there(&written))
        {
            format!("another program, {by}, delivers there with a copy of this box's database")
        } else {
            return None;
        };
        Some(format!("{why}; {WAY_FORWARD}"))
    }
}

impl Claimant {
    /// What the destination is to keep with the delivery.
    pub(super) fn standing(&self) -> Standing {
        let BoxName { site, name } = &self.writer.box_name;
        Standing {
            version: VERSION,
            store: self.identity.store,
            epoch: self.identity.epoch,
            box_name: format!("{site}/{name}"),
            writer: self.writer.name.clone(),
            high_water: self.mark,
            written: self.writer.clock.now().rfc3339(),
            disputed: None,
        }
    }

    /// What is noted there when it must not.
    pub(super) fn dispute(&self) -> Dispute {
        Dispute {
            writer: self.writer.name.clone(),
            machine: self.writer.machine.clone(),
            high_water: self.mark,
            since: self.writer.clock.now().rfc3339(),
        }
    }
}

/// The conflict with a destination that holds what the store does not know. Its mark was that of
/// this store, or there would have been a conflict before.
pub(super) fn unknown(what: String, it_holds: &str) -> SyncError {
    let why = format!("{it_holds}, which this box does not know; {WAY_FORWARD}");
    SyncError::conflict(what, why, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::ids::StoreId;

    fn claimant(epoch: EpochId, writer: &str, mark: i64) -> Claimant {
        Claimant {
            identity: Identity { store: StoreId::from_bytes([1; 16]), epoch },
            writer: Writer {
                name: writer.to_owned(),
                machine: "scope".to_owned(),
                box_name: BoxName { site: "lab".to_owned(), name: "box-1".to_owned() },
                clock: Clock::manual(0),
            },
            mark,
        }
    }

    const FIRST: EpochId = EpochId::from_bytes([1; 16]);
    const SECOND: EpochId = EpochId::from_bytes([2; 16]);

    /// A process that has written nothing yet meets what `found` wrote.
    fn meets(found: &Claimant, own: &Claimant) -> bool {
        Memory::default().conflict(Some(&found.standing()), own).is_some()
    }

    #[test]
    fn a_store_that_begins_or_was_restarted_goes_on() {
        assert_eq!(Memory::default().conflict(None, &claimant(FIRST, "a", 1)), None);
        assert!(!meets(&claimant(FIRST, "a", 7), &claimant(FIRST, "b", 8)));
        assert!(!meets(&claimant(FIRST, "a", 7), &claimant(FIRST, "b", 30)), "some failed");
    }

    #[test]
    fn an_older_copy_meets_a_greater_mark() {
        let there = claimant(FIRST, "a", 8);
        for mark in 1..=8 {
            assert!(meets(&there, &claimant(FIRST, "b", mark)), "{mark}");
            assert!(meets(&there, &claimant(SECOND, "b", mark)), "{mark}, in another epoch");
        }
        assert!(!meets(&there, &claimant(SECOND, "b", 9)), "restored, and counted on from above");
    }

    #[test]
    fn one_delivery_may_be_written_twice_by_whoever_made_it() {
        let own = claimant(FIRST, "a", 8);
        let memory = Memory::default();
        memory.writes(&own, None);
        assert_eq!(memory.conflict(Some(&own.standing()), &own), None);
        assert!(meets(&own, &own), "another process that claimed the same");
    }

    #[test]
    fn a_write_that_failed_leaves_what_was_there_and_no_twin() {
        let memory = Memory::default();
        let before = claimant(FIRST, "a", 8).standing();
        for mark in 9..12 {
            let own = claimant(FIRST, "b", mark);
            assert_eq!(memory.conflict(Some(&before), &own), None, "{mark}");
            memory.writes(&own, Some(&before));
        }
        // Not what was there before, but another's: a twin.
        let own = claimant(FIRST, "b", 12);
        for (writer, mark) in [("c", 8), ("a", 9)] {
            let there = claimant(FIRST, writer, mark).standing();
            assert!(memory.conflict(Some(&there), &own).is_some(), "{writer} {mark}");
        }
        // One of the answers was only lost; or one came. From then on the old one is a twin's.
        memory.writes(&own, Some(&claimant(FIRST, "b", 11).standing()));
        assert!(memory.conflict(Some(&before), &own).is_some());
        let memory = Memory::default();
        memory.writes(&own, Some(&before));
        memory.has_written();
        assert!(memory.conflict(Some(&before), &own).is_some());
    }

    #[test]
    fn a_twin_is_noticed_whoever_comes_first() {
        let memory = Memory::default();
        memory.writes(&claimant(FIRST, "a", 8), None);
        let next = claimant(FIRST, "a", 10);
        for (epoch, writer, mark) in [(FIRST, "b", 9), (FIRST, "b", 8), (SECOND, "b", 5)] {
            let there = claimant(epoch, writer, mark).standing();
            assert!(memory.conflict(Some(&there), &next).is_some(), "{writer} {mark}");
        }
        // A virtual machine that was copied while it ran: even the process has one name.
        let there = claimant(FIRST, "a", 9).standing();
        assert!(memory.conflict(Some(&there), &next).is_some());
        assert_eq!(memory.conflict(None, &next), None, "an emptied bucket");
        // A new epoch was begun under this process, and its marks were counted on.
        let there = claimant(FIRST, "b", 20).standing();
        assert_eq!(memory.conflict(Some(&there), &claimant(SECOND, "a", 21)), None);
    }

    #[test]
    fn a_dispute_holds_for_its_epoch() {
        let mut there = claimant(FIRST, "a", 8).standing();
        there.disputed = Some(claimant(FIRST, "b", 4).dispute());
        for writer in ["a", "b", "c"] {
            let own = claimant(FIRST, writer, 100);
            assert!(Memory::default().conflict(Some(&there), &own).is_some(), "{writer}");
        }
        assert_eq!(Memory::default().conflict(Some(&there), &claimant(SECOND, "a", 9)), None);
    }
}

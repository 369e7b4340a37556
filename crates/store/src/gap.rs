//! What is missing, and why: stretches without frames, frames without a file.

use crate::words::words;
use reticle_base::clock::Stamp;
use reticle_base::ids::SessionId;

/// A stretch without frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Session it happened in.
    pub session: SessionId,
    /// Last moment before it.
    pub from: Stamp,
    /// First moment after it.
    pub to: Stamp,
    /// Frames missed, where the source can tell.
    pub missed: Option<u64>,
    /// Why, for machines.
    pub reason: GapReason,
    /// What was seen, for people.
    pub detail: String,
}

words! {
    /// Why frames are missing.
    GapReason {
        /// The source was lost and came back.
        SourceLost = "source_lost",
        /// The source's own count jumped.
        SequenceJump = "sequence_jump",
        /// Capture could not hand frames on in time.
        Overrun = "overrun",
    }
}

words! {
    /// Why a frame has no file.
    NoFile {
        /// The retention rule (`keep`) does not include it.
        Rule = "rule",
        /// It alone is larger than `max_bytes`, nothing could be evicted for it, or the file of
        /// which it is a page has its share of the room.
        MaxBytes = "max_bytes",
        /// There was too little free room (`min_free_bytes`) and nothing to evict.
        MinFree = "min_free",
        /// The file could not be written; the failure was reported.
        WriteFailed = "write_failed",
        /// It was evicted to stay within `max_bytes`.
        EvictedMaxBytes = "evicted_max_bytes",
        /// It was evicted to leave `min_free_bytes` free.
        EvictedMinFree = "evicted_min_free",
        /// Its row came back from a backup or from the archive, and its file did not.
        NotRestored = "not_restored",
    }
}

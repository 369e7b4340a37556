//! Proof that something is saved.

use reticle_base::ids::{FrameId, SessionId};

/// A segmentation that is committed and fsynced. Only this crate can make one, after the
/// commit returned, so whoever holds it may tell people "saved".
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    frame: FrameId,
    session: SessionId,
    sequence: u64,
    objects: u32,
}

impl Record {
    /// For the store alone, after the commit.
    pub(crate) fn committed(
        frame: FrameId,
        session: SessionId,
        sequence: u64,
        objects: u32,
    ) -> Self {
        Self { frame, session, sequence, objects }
    }

    /// Frame that is saved.
    pub fn frame(&self) -> FrameId {
        self.frame
    }

    /// Session it belongs to.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The frame's sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Number of objects saved with it.
    pub fn objects(&self) -> u32 {
        self.objects
    }
}

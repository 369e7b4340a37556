//! What a check of the store says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names, sizes and numbers; no pixels and no label images are read (not I4, I6, and of I7
    /// only the labels, and not I13).
    Quick,
    /// Everything.
    Full,
}

/// One of the numbered invariants. This is the list of them: other places point here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(into = "String")]
pub struct Invariant(pub(super) u8);

impl Invariant {
    /// What it says.
    pub fn text(self) -> &'static str {
        match self.0 {
            // Pages and indexes (`integrity_check`), and every reference leads to a row: there is no
            // result without frame, no object without result.
            1 => "the database is sound",
            // One of a newer program is, too, where it allows this one.
            2 => "the schema is one that this program knows",
            // Its place is `frames/<session>/<frame>.tif`.
            3 => "a named frame file is there, in its place, with the recorded size",
            // SHA-256, width and height.
            4 => "a frame file holds the recorded pixels",
            // While a daemon works, and after a crash until the next start, files in work are no
            // fault; they are noted.
            5 => "every frame file is named by a row",
            // It has its frame's width and height, the recorded number of objects and SHA-256.
            6 => "a label image can be read and is the recorded one",
            // Labels 1 to n, each with the area that it has in the label image.
            7 => "the objects of a result are those of its label image",
            8 => "a frame is marked as segmented if and only if it has a result",
            9 => "the counters of a session are what it holds",
            // By its reason.
            10 => "every eviction is counted",
            // Nothing is committed before it was captured, nor before what was committed earlier; no
            // session ends before it starts. The sequence number of frames is no invariant: a source
            // that is lost and opened again counts from 0.
            11 => "time goes forward within a boot",
            // Of its session and shape; there are no holes but those noted as lost.
            12 => "frames have positions in their series, without holes",
            // By field and by minute.
            13 => "the sums are those of the results",
            // For every configured destination, what is there is requested; what is delivered has a
            // receipt; what is to be archived with its pixels still has them.
            14 => "everything is delivered, or noted to be, and done only with a receipt",
            // So nothing is passed over. No invariant counts by keys: they only grow, and may have
            // holes. A result that is missing shows in I8 and I9; an event that was deleted by hand
            // is not missed.
            _ => "no cursor of what is published is beyond the keys that were given",
        }
    }

    /// What a person can do when it is broken.
    pub fn remedy(self) -> &'static str {
        match self.0 {
            1 | 2 => {
                "copy the folder aside; put a backup back with `reticle restore`, or start with another data folder"
            }
            3 => "put the file back from a backup; the record and its labels are still good",
            4 => "restore the file from a backup; do not train or re-segment with it",
            5 => "stop the daemon and start it again: it moves such files to orphans/",
            6 | 7 => "segment the frame again, or restore the database from a backup",
            8..=10 | 12 | 13 => {
                "the data are good, a number is not: please report this as a defect"
            }
            11 => "look at the clock of this machine; please report this as a defect",
            _ => "nothing is lost here; run `reticle sync verify`, and report this as a defect",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}", self.0)
    }
}

impl From<Invariant> for String {
    fn from(invariant: Invariant) -> Self {
        invariant.to_string()
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which invariant it concerns.
    pub invariant: Invariant,
    /// Row, file or frame.
    pub place: String,
    /// What is there and what should be.
    pub what: String,
}

/// What [`fsck`](super::fsck) looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Sessions.
    pub sessions: u64,
    /// Frame rows.
    pub frames: u64,
    /// Frame files.
    pub files: u64,
    /// Results with their label images.
    pub segmentations: u64,
    /// Object rows.
    pub objects: u64,
}

/// What [`fsck`](super::fsck) found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FsckReport {
    /// The data folder.
    pub folder: PathBuf,
    /// Whether a daemon was writing meanwhile.
    pub running: bool,
    /// Whether pixels and label images were left out.
    pub quick: bool,
    /// What was looked at.
    pub checked: Checked,
    /// Broken invariants, the first hundred places of each.
    pub broken: Vec<Finding>,
    /// How many places each broken invariant has in all.
    pub broken_counts: BTreeMap<String, u64>,
    /// What is no fault but worth knowing.
    pub notes: Vec<Finding>,
}

impl FsckReport {
    /// Whether every invariant that was checked holds.
    pub fn is_clean(&self) -> bool {
        self.broken_counts.is_empty()
    }
}

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

/// One of the numbered invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(into = "String")]
pub struct Invariant(pub(super) u8);

impl Invariant {
    /// What it says.
    pub fn text(self) -> &'static str {
        match self.0 {
            1 => "the database is sound",
            2 => "the schema is one that this program knows",
            3 => "a named frame file is there, in its place, with the recorded size",
            4 => "a frame file holds the recorded pixels",
            5 => "every frame file is named by a row",
            6 => "a label image can be read and is the recorded one",
            7 => "the objects of a result are those of its label image",
            8 => "a frame is marked as segmented if and only if it has a result",
            9 => "the counters of a session are what it holds",
            10 => "every eviction is counted",
            11 => "time goes forward within a boot",
            12 => "frames have places in their series, without holes",
            13 => "the sums are those of the results",
            _ => "everything is delivered, or noted to be, and done only with a receipt",
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

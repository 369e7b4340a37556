//! What the archive gives back, and what became of it.

use crate::blobs;
use crate::delivery::{Deliveries, Receipt};
use reticle_base::clock::Stamp;
use reticle_base::ids::{FrameId, StoreId};
use reticle_domain::facts::FrameFacts;
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::segmentation::{ModelRef, Timings};
use reticle_domain::session::Session;

/// A session as the archive describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedSession {
    /// Its begin.
    pub session: Session,
    /// Its end, where the archive knows one.
    pub ended: Option<Stamp>,
    /// Day under which its tables are archived.
    pub archive_date: String,
    /// Its arrays.
    pub series: Vec<AdoptedSeries>,
}

/// An array of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptedSeries {
    /// Its number in the session.
    pub number: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 or 2.
    pub bytes_per_pixel: u8,
    /// Frames in one part.
    pub part_frames: u32,
    /// Positions that the array has in the archive.
    pub frames: u64,
}

/// A frame of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedFrame {
    /// What its table says.
    pub facts: FrameFacts,
    /// Whether the archive has its pixels, compared with the recorded hash.
    pub in_archive: bool,
}

/// A result of a part.
#[derive(Clone, Debug)]
pub struct AdoptedResult {
    /// The frame.
    pub frame: FrameId,
    /// Its labels, as the database holds them: a part's label images would fill the memory.
    pub(super) packed: Vec<u8>,
    pub(super) count: u32,
    pub(super) labels_sha256: [u8; 32],
    pub(super) objects: Vec<Object>,
    pub(super) focus: f32,
    pub(super) timings: Timings,
    pub(super) look: Option<Look>,
    pub(super) committed: Option<Stamp>,
}

impl AdoptedResult {
    /// A result, if these are the objects of these labels.
    ///
    /// # Errors
    /// Why they are not.
    pub fn new(
        frame: FrameId,
        labels: &LabelImage,
        objects: Vec<Object>,
        (focus, timings, look, committed): (f32, Timings, Option<Look>, Option<Stamp>),
    ) -> Result<Self, String> {
        let packed = blobs::encode_with(labels, &objects)?;
        let (count, labels_sha256) = (labels.count(), labels.sha256());
        Ok(Self { frame, packed, count, labels_sha256, objects, focus, timings, look, committed })
    }
}

/// All results of one model in a part.
#[derive(Clone, Debug)]
pub struct AdoptedResults {
    /// The model.
    pub model: ModelRef,
    /// Those that could be read.
    pub results: Vec<AdoptedResult>,
    /// How many the archive has, whether they could be read or not.
    pub there: u64,
    /// The objects of the archive that hold them.
    pub receipts: Vec<Receipt>,
}

/// What the archive has of one part of a series.
#[derive(Clone, Debug, Default)]
pub struct AdoptedPart {
    /// Number of the series.
    pub series: u32,
    /// Number of the part.
    pub part: u64,
    /// Its frames.
    pub frames: Vec<AdoptedFrame>,
    /// Their table; none where the archive has none.
    pub table: Option<Receipt>,
    /// Results by model.
    pub results: Vec<AdoptedResults>,
    /// The shard of its pixels, with how many frames are in it.
    pub pixels: Option<Receipt>,
}

impl AdoptedPart {
    /// Everything that was read for it.
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        let results = self.results.iter().flat_map(|results| &results.receipts);
        self.table.iter().chain(&self.pixels).chain(results)
    }
}

/// What was not here and is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PartTaken {
    /// Frames.
    pub frames: u64,
    /// Results.
    pub results: u64,
    /// Objects in them.
    pub objects: u64,
    /// Frames of which it is known now that the archive has their pixels.
    pub pixels: u64,
}

impl PartTaken {
    /// Whether nothing was taken.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Why something of the archive cannot be taken beside what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// How an adoption ends.
#[derive(Clone, Copy, Debug)]
pub struct Adoption {
    /// Another name for this store, where it is to have one.
    pub store: Option<StoreId>,
    /// The mark of deliveries that the archive knows.
    pub archive_mark: i64,
    /// The one that the central database knows.
    pub central_mark: i64,
    /// Whether the broker had everything that was here before.
    pub published_all: bool,
}

pub(super) type When<'a> = (&'a Deliveries, &'a Stamp);

/// Undoes a transaction: its own fault, or the database's.
pub(super) enum Broken {
    Refused(Refusal),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

//! Reading: any number of read-only connections beside the one writer.

use super::error::StoreError;
use super::writer::NoFile;
use crate::base::ids::{FrameId, SessionId};
use crate::domain::frame::{Pixels, Place};
use crate::domain::label_image::LabelImage;
use crate::domain::object::Object;
use crate::domain::segmentation::Timings;

/// A saved result, without its pixels and labels. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SavedFrame {
    /// Place in the order of commits; ask for what comes after it.
    pub cursor: u64,
    /// The frame.
    pub id: FrameId,
    /// Session it belongs to.
    pub session: SessionId,
    /// Number that the source counted.
    pub sequence: u64,
    /// When it was captured.
    pub captured: String,
    /// When the result was committed.
    pub committed: String,
    /// SHA-256 of its pixels, in hex.
    pub sha256: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel.
    pub bit_depth: u8,
    /// Exposure in microseconds, where known.
    pub exposure_us: Option<u32>,
    /// Edge of a pixel in the sample, in µm, where known.
    pub pixel_size_um: Option<f64>,
    /// Where on the plate.
    pub place: Place,
    /// File it came from, where it was a file.
    pub origin: Option<String>,
    /// Frame file, relative to the data folder, while it is kept.
    pub file: Option<String>,
    /// Why there is no file, where there is none.
    pub no_file: Option<NoFile>,
    /// Number of objects.
    pub objects: u32,
    /// Focus score, 0 to 1.
    pub focus: f32,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model, in hex.
    pub model_sha256: String,
    /// SHA-256 of the label image, in hex; see [`LabelImage::sha256`].
    pub labels_sha256: String,
    /// Where the time went.
    pub timings: Timings,
}

/// A session and what it holds. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SessionSummary {
    /// Which.
    pub id: SessionId,
    /// What people call it.
    pub name: String,
    /// Specification of its source.
    pub source: String,
    /// Fluorophore or contrast.
    pub channel: Option<String>,
    /// Who acquired it.
    pub operator: Option<String>,
    /// Edge of a pixel in the sample, in µm, where configured.
    pub pixel_size_um: Option<f64>,
    /// When it began.
    pub started: String,
    /// When it ended; `None` while it is open or when the daemon died in it.
    pub ended: Option<String>,
    /// Frames recorded.
    pub frames: u64,
    /// Results saved.
    pub segmentations: u64,
    /// Objects in them.
    pub objects: u64,
}

/// The pixels of a kept frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel.
    pub bit_depth: u8,
    /// The grey values; their hash was compared with the record's.
    pub pixels: Pixels,
}

/// The store in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Sessions.
    pub sessions: u64,
    /// Frames recorded.
    pub frames: u64,
    /// Results saved.
    pub segmentations: u64,
    /// Objects in them.
    pub objects: u64,
    /// Frame files on the disk.
    pub kept_files: u64,
    /// Bytes they take.
    pub kept_bytes: u64,
    /// Of those, not yet segmented by any model.
    pub backlog: u64,
    /// Frame files evicted so far.
    pub evicted: u64,
}

/// Reads what is saved. Clones share a small pool of read-only connections; calls block on
/// the disk, so async code wraps them in `spawn_blocking`.
#[derive(Clone)]
pub struct Reader {}

impl Reader {
    /// Opens the store in `folder` for reading, whether a daemon writes it or not.
    ///
    /// # Errors
    /// When there is no store, or it cannot be read.
    pub fn open(folder: &std::path::Path) -> Result<Self, StoreError> {
        todo!("{folder:?}")
    }

    /// All sessions, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionSummary>, StoreError> {
        todo!()
    }

    /// Up to `limit` results in the order of commits, after the one with this cursor.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn saved_frames(
        &self,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<SavedFrame>, StoreError> {
        todo!("{after:?} {limit}")
    }

    /// The newest result of a frame; `None` if there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn frame(&self, id: FrameId) -> Result<Option<SavedFrame>, StoreError> {
        todo!("{id}")
    }

    /// The label image of the frame's newest result, its hash checked.
    ///
    /// # Errors
    /// When the database cannot be read or the labels are damaged.
    pub fn labels(&self, id: FrameId) -> Result<Option<LabelImage>, StoreError> {
        todo!("{id}")
    }

    /// The objects of the frame's newest result, by label.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn objects(&self, id: FrameId) -> Result<Option<Vec<Object>>, StoreError> {
        todo!("{id}")
    }

    /// The frame's pixels, their hash checked; `None` if there is no such frame or it has no
    /// file.
    ///
    /// # Errors
    /// When the database or the file cannot be read, or the pixels are damaged.
    pub fn pixels(&self, id: FrameId) -> Result<Option<StoredPixels>, StoreError> {
        todo!("{id}")
    }

    /// The store in a few numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        todo!()
    }
}

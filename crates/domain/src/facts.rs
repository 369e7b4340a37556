//! What is known of recorded frames and results, as it leaves the box: to archives, to the
//! central database, into files that people ask for. Plain data, read from the store.

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::frame::Place;
use super::look::Look;
use super::pixel_size::PixelSizeSource;
use super::segmentation::{ModelRef, Timings};
use reticle_base::ids::{FrameId, SessionId};

/// When something happened: as it was recorded, and as it is known now.
///
/// A box without a battery clock starts with a wrong date. What it recorded then is dated again
/// once its clock can be trusted; both times stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dated {
    /// The best that is known: nanoseconds since 1970, UTC.
    pub at_ns: i64,
    /// What the wall clock said at that moment.
    pub recorded_ns: i64,
    /// `CLOCK_MONOTONIC` of that boot.
    pub mono_ns: u64,
    /// Which boot of which machine.
    pub boot: Uuid,
}

impl Dated {
    /// The best time as RFC 3339 in UTC.
    pub fn rfc3339(&self) -> String {
        reticle_base::clock::rfc3339(self.at_ns)
    }
}

/// Which box of which lab speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxName {
    /// The lab.
    pub site: String,
    /// The box.
    pub name: String,
}

/// One acquisition.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionFacts {
    /// Name for ever.
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
    pub started: Dated,
    /// When it ended; `None` while it is open, or when the daemon died in it.
    pub ended: Option<Dated>,
    /// Frames recorded.
    pub frames: u64,
    /// Results saved.
    pub segmentations: u64,
    /// Objects in them.
    pub objects: u64,
    /// Day under which its tables are archived, `YYYY-MM-DD`. Chosen once, when the session is
    /// first archived, and kept when times are mended, so that keys never change.
    pub archive_date: String,
}

/// Frames of one session with the same pixel grid: one array where they leave the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The store's own key.
    pub pk: i64,
    /// Session it belongs to.
    pub session: SessionId,
    /// From 0, in the order of their first frames.
    pub number: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 or 2.
    pub bytes_per_pixel: u8,
    /// Frames in one part, which is one object of an archive.
    pub part_frames: u32,
    /// Frames recorded.
    pub frames: u64,
}

impl Series {
    /// Number of its parts, the last of which may not be full.
    pub fn parts(&self) -> u64 {
        self.frames.div_ceil(self.part_frames.into())
    }

    /// Positions of a part, whether there are frames at all of them or not.
    pub fn part_positions(&self, part: u64) -> Range<u64> {
        let frames = u64::from(self.part_frames);
        part * frames..(part + 1) * frames
    }
}

/// One recorded frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameFacts {
    /// The store's own key, in the order of recording.
    pub pk: i64,
    /// Name for ever.
    pub id: FrameId,
    /// Session it belongs to.
    pub session: SessionId,
    /// Number of its series in the session.
    pub series: u32,
    /// Place in its series, from 0: first index of the archived arrays.
    pub position: u64,
    /// Number that the source counted.
    pub sequence: u64,
    /// When it was captured.
    pub captured: Dated,
    /// Exposure in microseconds, where known.
    pub exposure_us: Option<u32>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel.
    pub bit_depth: u8,
    /// SHA-256 of the pixels.
    pub sha256: [u8; 32],
    /// Edge of a pixel in the sample, in µm, where known.
    pub pixel_size_um: Option<f64>,
    /// Who stated that size.
    pub pixel_size_source: Option<PixelSizeSource>,
    /// What a person should know of it.
    pub pixel_size_note: Option<String>,
    /// Where on the plate.
    pub place: Place,
    /// File it came from, where it was a file.
    pub origin: Option<String>,
    /// Whether any model has segmented it.
    pub segmented: bool,
    /// Whether its pixels are on this box now.
    pub has_pixels: bool,
}

/// A model with its parameters, as one version of the software ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// The store's own key.
    pub pk: i64,
    /// What ran.
    pub model: ModelRef,
}

impl ModelFacts {
    /// Name that tells apart models, parameters and versions, and that is fit for paths:
    /// the package's name and 12 hex digits of the SHA-256 over all four parts, each followed
    /// by a zero byte.
    pub fn key(&self) -> String {
        let ModelRef { name, sha256, parameters, software } = &self.model;
        let mut hasher = Sha256::new();
        for part in [name, sha256, parameters, software] {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        let digits = hex::encode(hasher.finalize());
        let plain: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
            .collect();
        format!("{plain}-{}", digits.get(..12).unwrap_or(&digits))
    }
}

/// The answer of one model to one frame, without its labels and objects.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultFacts {
    /// The store's own key, in the order of commits.
    pub pk: i64,
    /// The frame.
    pub frame: Arc<FrameFacts>,
    /// By what.
    pub model: Arc<ModelFacts>,
    /// Number of objects.
    pub objects: u32,
    /// Focus score, 0 to 1; not a number where it could not be told.
    pub focus: f32,
    /// How the picture was looked at; `None` for results of before that was recorded.
    pub look: Option<Look>,
    /// Where the time went.
    pub timings: Timings,
    /// When it was committed.
    pub committed: Dated,
    /// SHA-256 of the label image, see `LabelImage::sha256`.
    pub labels_sha256: [u8; 32],
}

/// One well as it stands, by one model: the sums of its fields. Means and area fraction have the
/// meaning that they have in the views; none where nothing is there to be divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct WellFacts {
    /// Session it was imaged in.
    pub session: SessionId,
    /// By what.
    pub model: Arc<ModelFacts>,
    /// The plate, where known.
    pub plate: Option<String>,
    /// The well, as `C07`.
    pub well: String,
    /// Fields with a result.
    pub fields: u64,
    /// Frames with a result.
    pub frames: u64,
    /// Objects in them.
    pub objects: u64,
    /// Of the frames, those in focus.
    pub frames_in_focus: u64,
    /// Objects in these.
    pub objects_in_focus: u64,
    /// Mean area of the objects in focus, in pixels.
    pub mean_area_px: Option<f64>,
    /// Mean over the objects in focus of their mean grey value.
    pub mean_intensity: Option<f64>,
    /// Share of the pixels of frames in focus that objects cover, 0 to 1.
    pub area_fraction: Option<f64>,
    /// Mean focus score of all frames, 0 to 1; one that could not be told counts as 0.
    pub mean_focus: Option<f64>,
}

//! The answer to one frame.

use std::sync::Arc;

use super::frame::Frame;
use super::label_image::LabelImage;
use super::look::Look;
use super::object::Object;

/// Focus score from which on a frame counts as in focus in what is summed up over frames. Below
/// it the page says "out of focus".
pub const IN_FOCUS: f32 = 0.3;

/// Which model with which parameters answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ModelRef {
    /// Name of the package, as `nuclei`.
    pub name: String,
    /// SHA-256 of the package's network file, in hex.
    pub sha256: String,
    /// Normalisation and post-processing parameters, as canonical JSON.
    pub parameters: String,
    /// Version of the software that ran it.
    pub software: String,
}

/// Where the time went, in microseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timings {
    /// Percentiles and scaling.
    pub normalise_us: u64,
    /// The network over all tiles.
    pub network_us: u64,
    /// Instances from the network's maps.
    pub instances_us: u64,
    /// Measuring objects and focus.
    pub measure_us: u64,
}

impl Timings {
    /// All stages together.
    pub fn total_us(&self) -> u64 {
        self.normalise_us + self.network_us + self.instances_us + self.measure_us
    }
}

/// Objects of one frame. Carries its frame, so that the two can never be mixed up.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// The frame that was segmented.
    pub frame: Arc<Frame>,
    /// By what.
    pub model: Arc<ModelRef>,
    /// Where the objects are.
    pub labels: Arc<LabelImage>,
    /// What was measured, by label from 1.
    pub objects: Arc<Vec<Object>>,
    /// Focus score of the frame, 0 (blurred) to 1 (sharp); see `segment::focus`.
    pub focus: f32,
    /// In which scale it was looked at, and whether the model knows such pictures.
    pub look: Look,
    /// Where the time went.
    pub timings: Timings,
}

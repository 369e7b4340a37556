//! What is saved, in JSON. Times are RFC 3339 in UTC, hashes are in hex.

use serde::Serialize;
use utoipa::ToSchema;

use super::status::Place;
use super::words;
use reticle_domain::{object, segmentation};

/// A saved result, without its pixels and labels.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct SavedFrame {
    /// Place in the order of commits, within one epoch of the store.
    cursor: u64,
    /// The frame.
    #[schema(value_type = words::FrameId)]
    id: String,
    /// Session it belongs to.
    #[schema(value_type = words::SessionId)]
    session: String,
    /// Number that the source counted.
    sequence: u64,
    /// When it was captured.
    captured: String,
    /// When the result was committed.
    committed: String,
    /// SHA-256 of its pixels.
    sha256: String,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// Used bits of a pixel.
    bit_depth: u8,
    /// Exposure in microseconds, where known.
    #[schema(required)]
    exposure_us: Option<u32>,
    /// Edge of a pixel in the sample, in µm, where known.
    #[schema(required)]
    pixel_size_um: Option<f64>,
    /// Who stated that size: the configuration, or what in the file.
    #[schema(required, value_type = Option<words::PixelSizeSource>)]
    pixel_size_source: Option<&'static str>,
    /// What a person should know of it: sources that disagree, an implausible size that was left.
    #[schema(required)]
    pixel_size_note: Option<String>,
    /// Where on the plate.
    place: Place,
    /// File it came from, where it was a file.
    #[schema(required)]
    origin: Option<String>,
    /// Frame file, relative to the data folder, while it is kept.
    #[schema(required)]
    file: Option<String>,
    /// Why there is no file, where there is none.
    #[schema(required, value_type = Option<words::NoFile>)]
    no_file: Option<&'static str>,
    /// Number of objects.
    objects: u32,
    /// Focus score, 0 to 1.
    focus: f32,
    /// Name of the model.
    model: String,
    /// SHA-256 of the model.
    model_sha256: String,
    /// SHA-256 of the labels, row by row and little-endian: 2 bytes each where there are fewer than
    /// 65,536 objects, else 4.
    labels_sha256: String,
    /// Where the time went.
    timings: Timings,
    /// Who said how large objects are; null for results of other programs.
    #[schema(required, value_type = Option<words::ScaleFrom>)]
    scale_from: Option<&'static str>,
    /// How many times as long an edge of the picture was made for the model.
    #[schema(required)]
    scale: Option<f32>,
    /// How many times as large as stated the objects look, where it is more than 2 or less than
    /// 0.5.
    #[schema(required)]
    size_ratio: Option<f32>,
    /// In which way the picture is unlike what the model was trained on, where it is.
    #[schema(required, value_type = Option<words::Unlike>)]
    unlike: Option<&'static str>,
}

impl From<reticle_store::SavedFrame> for SavedFrame {
    fn from(saved: reticle_store::SavedFrame) -> Self {
        Self {
            cursor: saved.cursor,
            id: saved.id.to_string(),
            session: saved.session.to_string(),
            sequence: saved.sequence,
            captured: saved.captured,
            committed: saved.committed,
            sha256: saved.sha256,
            width: saved.width,
            height: saved.height,
            bit_depth: saved.bit_depth,
            exposure_us: saved.exposure_us,
            pixel_size_um: saved.pixel_size_um,
            pixel_size_source: saved.pixel_size_source.map(|source| source.as_str()),
            pixel_size_note: saved.pixel_size_note,
            place: saved.place.into(),
            origin: saved.origin,
            file: saved.file,
            no_file: saved.no_file.map(|reason| reason.word()),
            objects: saved.objects,
            focus: saved.focus,
            model: saved.model,
            model_sha256: saved.model_sha256,
            labels_sha256: saved.labels_sha256,
            timings: saved.timings.into(),
            scale_from: saved.scale_from.map(|from| from.word()),
            scale: saved.scale,
            size_ratio: saved.size_ratio,
            unlike: saved.unlike.map(|unlike| unlike.word()),
        }
    }
}

/// Where the time went, in microseconds of wall time.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Timings {
    /// Percentiles and scaling.
    normalise_us: u64,
    /// The network over all tiles.
    network_us: u64,
    /// Instances from the network's maps.
    instances_us: u64,
    /// Measuring objects and focus.
    measure_us: u64,
}

impl From<segmentation::Timings> for Timings {
    fn from(timings: segmentation::Timings) -> Self {
        let segmentation::Timings { normalise_us, network_us, instances_us, measure_us } = timings;
        Self { normalise_us, network_us, instances_us, measure_us }
    }
}

/// Part of the list of saved frames.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct FramesReply {
    /// In the order in which they were committed.
    pub(in crate::web) frames: Vec<SavedFrame>,
    /// Ask again with `after` set to this for what was committed since; also when there was
    /// nothing new. A text to be given back as it is: it holds the epoch of the store.
    #[schema(example = "0199b7c2d3e4755f8a6b1c2d3e4f5a6b-42")]
    pub(in crate::web) next: String,
}

/// One segmented object, by the names of scikit-image's `regionprops_table`. Lengths are in pixels,
/// areas in pixels, intensities in grey values.
///
/// `centroid-0` is the row and `centroid-1` the column, as in scikit-image; the bounding box
/// is half open: rows `bbox-0..bbox-2`, columns `bbox-1..bbox-3`.
// Not `Object`: to utoipa that is any JSON object, whatever is in scope.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct MeasuredObject {
    /// Value in the label image, from 1.
    label: u32,
    /// Number of pixels.
    area: u32,
    /// Row of the centre of mass.
    #[serde(rename = "centroid-0")]
    centroid_0: f64,
    /// Column of the centre of mass.
    #[serde(rename = "centroid-1")]
    centroid_1: f64,
    /// First row.
    #[serde(rename = "bbox-0")]
    bbox_0: u32,
    /// First column.
    #[serde(rename = "bbox-1")]
    bbox_1: u32,
    /// Row after the last.
    #[serde(rename = "bbox-2")]
    bbox_2: u32,
    /// Column after the last.
    #[serde(rename = "bbox-3")]
    bbox_3: u32,
    /// Perimeter by the 4-neighbourhood weights of scikit-image (Benkrid & Crookes).
    perimeter: f64,
    /// Eccentricity of the ellipse with the same second moments, 0 (circle) to 1.
    eccentricity: f64,
    /// Area over the area of the convex hull, 0 to 1.
    solidity: f64,
    /// Long axis of that ellipse.
    major_axis_length: f64,
    /// Short axis of that ellipse.
    minor_axis_length: f64,
    /// Angle of the long axis to the row axis, in radians, −π/2 to π/2.
    orientation: f64,
    /// Mean grey value.
    intensity_mean: f64,
    /// Largest grey value.
    intensity_max: f64,
    /// Smallest grey value.
    intensity_min: f64,
    /// Whether it touches the edge of the frame, so that its size is not the cell's.
    touches_border: bool,
}

impl From<object::Object> for MeasuredObject {
    fn from(object: object::Object) -> Self {
        Self {
            label: object.label,
            area: object.area,
            centroid_0: object.centroid_0,
            centroid_1: object.centroid_1,
            bbox_0: object.bbox_0,
            bbox_1: object.bbox_1,
            bbox_2: object.bbox_2,
            bbox_3: object.bbox_3,
            perimeter: object.perimeter,
            eccentricity: object.eccentricity,
            solidity: object.solidity,
            major_axis_length: object.major_axis_length,
            minor_axis_length: object.minor_axis_length,
            orientation: object.orientation,
            intensity_mean: object.intensity_mean,
            intensity_max: object.intensity_max,
            intensity_min: object.intensity_min,
            touches_border: object.touches_border,
        }
    }
}

/// All sessions, newest first.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct SessionsReply {
    /// The sessions.
    pub(in crate::web) sessions: Vec<SessionSummary>,
}

/// A session and what it holds.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct SessionSummary {
    /// Which.
    #[schema(value_type = words::SessionId)]
    id: String,
    /// What people call it.
    name: String,
    /// Specification of its source.
    source: String,
    /// Fluorophore or contrast.
    #[schema(required)]
    channel: Option<String>,
    /// Who acquired it.
    #[schema(required)]
    operator: Option<String>,
    /// Edge of a pixel in the sample, in µm, where configured.
    #[schema(required)]
    pixel_size_um: Option<f64>,
    /// When it began.
    started: String,
    /// When it ended; null while it is open or when the daemon died in it.
    #[schema(required)]
    ended: Option<String>,
    /// Frames recorded.
    frames: u64,
    /// Results saved.
    segmentations: u64,
    /// Objects in them.
    objects: u64,
}

impl From<reticle_store::SessionSummary> for SessionSummary {
    fn from(session: reticle_store::SessionSummary) -> Self {
        Self {
            id: session.id.to_string(),
            name: session.name,
            source: session.source,
            channel: session.channel,
            operator: session.operator,
            pixel_size_um: session.pixel_size_um,
            started: session.started,
            ended: session.ended,
            frames: session.frames,
            segmentations: session.segmentations,
            objects: session.objects,
        }
    }
}

/// The store in a few numbers.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Totals {
    /// Sessions.
    sessions: u64,
    /// Frames recorded.
    frames: u64,
    /// Results saved.
    segmentations: u64,
    /// Objects in them.
    objects: u64,
    /// Frame files on the disk.
    kept_files: u64,
    /// Bytes they take.
    kept_bytes: u64,
    /// Of those, not yet segmented by any model.
    backlog: u64,
    /// Frame files evicted so far.
    evicted: u64,
}

impl From<reticle_store::Totals> for Totals {
    fn from(totals: reticle_store::Totals) -> Self {
        Self {
            sessions: totals.sessions,
            frames: totals.frames,
            segmentations: totals.segmentations,
            objects: totals.objects,
            kept_files: totals.kept_files,
            kept_bytes: totals.kept_bytes,
            backlog: totals.backlog,
            evicted: totals.evicted,
        }
    }
}

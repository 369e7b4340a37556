//! Made-up facts for the tests of this module.

use proptest::prelude::*;
use uuid::Uuid;

use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{Dated, FrameFacts, ModelFacts, Series, SessionFacts};
use reticle_domain::frame::Place;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::ModelRef;

pub(super) fn dated(at_ns: i64) -> Dated {
    Dated { at_ns, recorded_ns: at_ns - 1_000, mono_ns: 5, boot: Uuid::from_u128(9) }
}

pub(super) fn session() -> SessionFacts {
    SessionFacts {
        id: SessionId::from_bytes([7; 16]),
        name: "plate 7".into(),
        source: "virtual".into(),
        channel: Some("DAPI".into()),
        operator: None,
        pixel_size_um: Some(0.65),
        started: dated(1_700_000_000_000_000_000),
        ended: None,
        frames: 3,
        segmentations: 2,
        objects: 9,
        archive_date: "2023-11-14".into(),
    }
}

/// Frames of 6 × 4 pixels of 16 bits, two in a part.
pub(super) fn series(frames: u64, number: u32) -> Series {
    Series {
        pk: 1,
        session: session().id,
        number,
        width: 6,
        height: 4,
        bytes_per_pixel: 2,
        part_frames: 2,
        frames,
    }
}

pub(super) fn model(name: &str) -> ModelFacts {
    let model = ModelRef {
        name: name.into(),
        sha256: "ab".repeat(32),
        parameters: "{\"threshold\":0.5}".into(),
        software: "reticle 0.1.0".into(),
    };
    ModelFacts { pk: 1, model }
}

pub(super) fn frame(position: u64) -> FrameFacts {
    FrameFacts {
        pk: position as i64 + 1,
        id: FrameId::from_bytes([position as u8 + 1; 16]),
        session: session().id,
        series: 0,
        position,
        sequence: position * 10,
        captured: dated(1_700_000_001_000_000_000 + position as i64),
        exposure_us: Some(10_000),
        width: 6,
        height: 4,
        bit_depth: 12,
        sha256: [position as u8; 32],
        pixel_size_um: Some(0.65),
        pixel_size_source: Some(PixelSizeSource::OmeXml),
        pixel_size_note: Some("the resolution tag says 0.325 µm".into()),
        place: Place { plate: Some("P1".into()), well: Some("C07".into()), field: Some(3) },
        origin: Some("t 1.tif#2".into()),
        segmented: true,
        has_pixels: true,
    }
}

pub(super) fn object(label: u32) -> Object {
    let at = f64::from(label);
    Object {
        label,
        area: 100 + label,
        centroid_0: at + 0.1,
        centroid_1: at + 0.2,
        bbox_0: label,
        bbox_1: label + 1,
        bbox_2: label + 2,
        bbox_3: label + 3,
        perimeter: 35.5,
        eccentricity: 0.5,
        solidity: 0.96,
        major_axis_length: 12.0,
        minor_axis_length: 10.0,
        orientation: -0.25,
        intensity_mean: 1234.5,
        intensity_max: 4095.0,
        intensity_min: 7.0,
        touches_border: label.is_multiple_of(2),
    }
}

/// Small label images with all that is hard: objects that touch, are disconnected, have holes,
/// meet only at corners, fill the frame or lie at its edge; labels that are missing.
pub(super) fn any_labels() -> impl Strategy<Value = LabelImage> {
    (1_u32..14, 1_u32..14, 1_u32..5).prop_flat_map(|(width, height, most)| {
        let size = (width * height) as usize;
        // A label above the number of pixels would be numbered anew when it is read.
        proptest::collection::vec(0..=most.min(width * height), size)
            .prop_map(move |labels| LabelImage::new(width, height, labels).unwrap())
    })
}

/// More objects than 16 bits can number, each of one pixel.
pub(super) fn many_objects() -> LabelImage {
    LabelImage::new(300, 250, (1..=75_000).collect()).unwrap()
}

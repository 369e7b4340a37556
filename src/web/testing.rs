//! Frames for the tests of this module: bright discs that drift.

use std::path::Path;
use std::sync::Arc;

use super::live_frame::LiveFrame;
use reticle_base::clock::Clock;
use reticle_base::ids::SessionId;
use reticle_base::queue::{self, WhenFull};
use reticle_domain::frame::{Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_store::{Job, Outcome, Record, Store};

const SIZE: u32 = 128;

pub(crate) fn clock() -> Clock {
    Clock::manual(1_700_000_000_000_000_000)
}

/// Frame number `sequence`, captured now.
pub(crate) fn live_frame(sequence: u64, clock: &Clock) -> LiveFrame {
    let mut labels = vec![0_u32; (SIZE * SIZE) as usize];
    let mut pixels = vec![200_u16; labels.len()];
    for (index, label) in labels.iter_mut().enumerate() {
        let (x, y) = (index as u32 % SIZE, index as u32 / SIZE);
        let (cell_x, cell_y) = (x % 32, (y + sequence as u32) % 32);
        if cell_x.abs_diff(16).pow(2) + cell_y.abs_diff(16).pow(2) < 100 {
            *label = 1 + x / 32 + 4 * (((y + sequence as u32) / 32) % 5);
            pixels[index] = 3_000;
        }
    }
    let labels = LabelImage::new(SIZE, SIZE, labels).unwrap().relabelled();
    let shot = Shot {
        sequence,
        captured: clock.now(),
        exposure_us: Some(20_000),
        width: SIZE,
        height: SIZE,
        bit_depth: 12,
        pixels: Pixels::U16(pixels),
        pixel_size_um: Some(0.65),
        pixel_size_source: Some(PixelSizeSource::OmeXml),
        pixel_size_note: None,
        place: Place { plate: Some("P-1".into()), well: Some("A01".into()), field: Some(1) },
        origin: None,
        truth: None,
    };
    LiveFrame {
        segmentation: Segmentation {
            frame: Arc::new(shot.into_frame().unwrap()),
            model: Arc::new(ModelRef {
                name: "nuclei".into(),
                sha256: "00".repeat(32),
                parameters: "{}".into(),
                software: "reticle test".into(),
            }),
            objects: Arc::new(objects(&labels)),
            labels: Arc::new(labels),
            focus: 0.9,
            look: Look::PLAIN,
            timings: Timings::default(),
        },
        ap50: Some(0.91),
        true_objects: Some(16),
    }
}

/// Saves the results, in a session and store of their own in `folder`, and returns what the store
/// says of each.
pub(crate) fn save(
    folder: &Path,
    clock: &Clock,
    results: impl IntoIterator<Item = LiveFrame>,
) -> Vec<Record> {
    let options = reticle_store::Options { folder: folder.to_owned(), ..Default::default() };
    let (store, _) = Store::open(&options, clock.clone()).unwrap();
    let (jobs, inbox) = queue::bounded("jobs", 8, WhenFull::Wait);
    let (to, records) = std::sync::mpsc::sync_channel(1_000);
    let outcome = move |outcome| match outcome {
        Outcome::Saved(record) => to.send(record).unwrap(),
        other => assert!(!matches!(other, Outcome::Failed { .. }), "{other:?}"),
    };
    let writer = store.spawn_writer(inbox, outcome).unwrap();
    let session = Session {
        id: SessionId::new(),
        name: "plate 7".into(),
        source: "virtual".into(),
        channel: None,
        operator: None,
        pixel_size_um: None,
        started: clock.now(),
    };
    let id = session.id;
    jobs.send(Job::Open(session));
    for LiveFrame { segmentation, .. } in results {
        jobs.send(Job::Keep { session: id, frame: Arc::clone(&segmentation.frame) });
        jobs.send(Job::Commit { session: id, segmentation });
    }
    drop(jobs);
    writer.join().unwrap();
    records.into_iter().collect()
}

/// Objects with their true areas, which the store checks; the rest is of no matter here.
fn objects(labels: &LabelImage) -> Vec<Object> {
    let mut areas = vec![0; labels.count() as usize];
    for &label in labels.labels() {
        if label != 0 {
            areas[label as usize - 1] += 1;
        }
    }
    (1..)
        .zip(areas)
        .map(|(label, area)| Object {
            label,
            area,
            centroid_0: 16.0,
            centroid_1: 16.0,
            bbox_0: 6,
            bbox_1: 6,
            bbox_2: 26,
            bbox_3: 26,
            perimeter: 60.0,
            eccentricity: 0.1,
            solidity: 0.97,
            major_axis_length: 20.0,
            minor_axis_length: 20.0,
            orientation: 0.0,
            intensity_mean: 3_000.0,
            intensity_max: 3_000.0,
            intensity_min: 3_000.0,
            touches_border: false,
        })
        .collect()
}

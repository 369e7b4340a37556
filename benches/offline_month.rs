//! A box that is offline for a month, and then is not.
//!
//! ```text
//! RETICLE_OFFLINE_DAYS=30 cargo bench --bench offline_month
//! ```
//! One frame a minute (1024², 100 objects) goes through the store's own writer, on a clock that is
//! moved on by a minute each, into a data folder with a budget, while the archive cannot be
//! reached; every 200th frame is promised to it with its pixels. Then the archive is there (a
//! folder) and everything is delivered. Prints what was evicted and why, memory, sizes, and the
//! time of the backlog. Ends with an error if anything that was promised is gone.
//!
//! Then the same with a budget that cannot hold it: frames are held, nothing is lost, and
//! they are taken again once there is room. Without the variable it is half a day, with budgets in
//! proportion.

#![expect(clippy::print_stdout, reason = "it is what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails should end")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use reticle::sync::{self, ArchiveOptions, Destinations};
use reticle::telemetry::resident_bytes;
use reticle_base::clock::Clock;
use reticle_base::ids::SessionId;
use reticle_base::queue::{self, WhenFull};
use reticle_domain::facts::BoxName;
use reticle_domain::frame::{Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_store::{Depth, Job, Keep, Outcome, Store};

const EDGE: u32 = 1024;
const OBJECTS: u32 = 100;

/// Of so many frames one is promised to the archive with its pixels.
const PROMISED: u32 = 200;

/// The budget that holds a month: 2 GB, as many bytes for each frame.
const BUDGET: u64 = 2_000_000_000 / (30 * 24 * 60);

/// What happened to the frames.
#[derive(Default)]
struct Seen {
    saved: u64,
    failed: u64,
    held: u64,
    resumed: u64,
    evicted: BTreeMap<&'static str, u64>,
}

fn main() {
    let frames = std::env::var("RETICLE_OFFLINE_DAYS")
        .map_or(720, |text| 1440 * text.parse::<u64>().expect("RETICLE_OFFLINE_DAYS is a number"));
    // Room for what evictions work with, besides the share of each frame.
    let enough = BUDGET * frames + 100_000_000;
    println!("{frames} frames, one a minute, in {:.2} GB:", enough as f64 / 1e9);
    month(frames, enough);
    let scarce = enough / 3;
    println!("{frames} frames in {:.2} GB:", scarce as f64 / 1e9);
    month(frames, scarce);
}

fn month(frames: u64, budget: u64) {
    let folder = tempfile::Builder::new()
        .prefix("reticle-month-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    let options = reticle_store::Options {
        folder: folder.path().join("data"),
        max_bytes: budget,
        frames: reticle_store::FrameRetention {
            keep: Keep::All,
            max_bytes: budget,
            min_free_bytes: 0,
        },
    };
    let archive = folder.path().join("archive");
    let clock = Clock::manual(1_790_000_000_000_000_000);
    let wall = Clock::system();
    let session = SessionId::new();
    let destinations = destinations(&options, &archive, &clock);

    let start = wall.now();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (first_rss, taken) = record(&options, &destinations, &clock, session, frames, &seen);
    let took = wall.now().since(&start);
    {
        let seen = seen.lock().unwrap();
        println!(
            "  taken: {taken} of {frames} frames in {:.0} s; saved {}, not saved {}, evicted {:?}, \
             held {} times; database {:.2} GB, memory {} MB after the first hundred, {} MB at the end",
            took.as_secs_f64(),
            seen.saved,
            seen.failed,
            seen.evicted,
            seen.held,
            std::fs::metadata(options.folder.join("reticle.db")).unwrap().len() as f64 / 1e9,
            first_rss >> 20,
            resident_bytes() >> 20,
        );
        assert_eq!((seen.saved, seen.failed), (taken, 0));
    }
    promised_are_there(&options.folder, taken);
    let report = reticle_store::fsck(&options.folder, Depth::Quick, |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:#?}");

    // The network is back.
    std::fs::create_dir(&archive).unwrap();
    let start = wall.now();
    let (store, _) = Store::open(&options, clock.clone()).unwrap();
    let deliveries = sync::drain(&destinations, store, |_| {}).unwrap();
    let took = wall.now().since(&start).as_secs_f64();
    for delivery in &deliveries {
        assert_eq!((delivery.waiting, delivery.quarantined), (0, 0), "{delivery:?}");
    }
    let (objects, bytes) = size_of(&archive);
    println!(
        "  backlog: {:.0} s, {:.0} frames a second, {objects} objects of the archive, {:.2} GB; \
         memory {} MB",
        took,
        taken as f64 / took,
        bytes as f64 / 1e9,
        resident_bytes() >> 20,
    );
    if taken < frames {
        let before = seen.lock().unwrap().saved;
        let (_, more) = record(&options, &destinations, &clock, session, 10, &seen);
        assert_eq!(more, 10, "frames are taken again");
        println!("  taken again: {}", seen.lock().unwrap().saved - before);
    }
}

fn destinations(options: &reticle_store::Options, archive: &Path, clock: &Clock) -> Destinations {
    let sync = sync::Options {
        archive: ArchiveOptions {
            // An absolute folder that is not there is a share that is not mounted.
            to: format!("file:{}", std::path::absolute(archive).unwrap().display()),
            pixels: Keep::Every(PROMISED.try_into().unwrap()),
            ..ArchiveOptions::default()
        },
        ..sync::Options::default()
    };
    let name = BoxName { site: "bench".into(), name: "box".into() };
    Destinations::open(&sync, &name, options, clock.clone()).unwrap()
}

/// Takes frames until there are enough or they are held; memory after the first hundred, and
/// how many were taken.
fn record(
    options: &reticle_store::Options,
    destinations: &Destinations,
    clock: &Clock,
    session: SessionId,
    frames: u64,
    seen: &Arc<Mutex<Seen>>,
) -> (u64, u64) {
    let (mut store, _) = Store::open(options, clock.clone()).unwrap();
    store.deliver_to(destinations.deliveries()).unwrap();
    let (jobs, receiver) = queue::bounded("store", 8, WhenFull::Wait);
    let held = Arc::new(AtomicBool::new(false));
    let writer = store
        .spawn_writer(receiver, {
            let (seen, held) = (Arc::clone(seen), Arc::clone(&held));
            move |outcome| {
                let mut seen = seen.lock().unwrap();
                match outcome {
                    Outcome::Saved(_) => seen.saved += 1,
                    Outcome::Failed { error, .. } | Outcome::KeepFailed { error, .. } => {
                        println!("  {error}");
                        seen.failed += 1;
                    }
                    Outcome::Evicted { frames, reason, .. } => {
                        *seen.evicted.entry(reason.word()).or_default() += frames;
                    }
                    Outcome::Held { reason } => {
                        println!("  held: {reason}");
                        seen.held += 1;
                        held.store(true, Ordering::SeqCst);
                    }
                    Outcome::Resumed => {
                        seen.resumed += 1;
                        held.store(false, Ordering::SeqCst);
                    }
                    _ => {}
                }
            }
        })
        .unwrap();
    jobs.send(Job::Open(Session {
        id: session,
        name: "a month".into(),
        source: "bench".into(),
        channel: None,
        operator: None,
        pixel_size_um: Some(0.65),
        started: clock.now(),
    }));
    let variants: Vec<_> = (0..8).map(labels).collect();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let noise: Vec<u16> =
        (0..2 * EDGE * EDGE).map(|_| 300 + random.random_range(0..40_u16)).collect();
    let (mut first_rss, mut taken) = (0, 0);
    for number in 0..frames {
        if held.load(Ordering::SeqCst) {
            break;
        }
        clock.advance(Duration::from_secs(60));
        let at = random.random_range(0..noise.len() / 2);
        let shot = Shot {
            sequence: number,
            captured: clock.now(),
            exposure_us: Some(10_000),
            width: EDGE,
            height: EDGE,
            bit_depth: 16,
            pixels: Pixels::U16(noise[at..at + (EDGE * EDGE) as usize].to_vec()),
            pixel_size_um: Some(0.65),
            pixel_size_source: None,
            pixel_size_note: None,
            place: Place { plate: Some("P1".into()), well: Some("C07".into()), field: Some(1) },
            origin: None,
            truth: None,
        };
        let frame = Arc::new(shot.into_frame().unwrap());
        let (labels, objects) = variants[number as usize % variants.len()].clone();
        jobs.send(Job::Keep { session, frame: Arc::clone(&frame) });
        jobs.send(Job::Commit {
            session,
            segmentation: Segmentation {
                frame,
                model: model(),
                labels,
                objects,
                focus: 0.9,
                look: Look::PLAIN,
                timings: Timings::default(),
            },
        });
        taken += 1;
        if number == 100 {
            first_rss = resident_bytes();
        }
    }
    jobs.send(Job::Close { session, at: clock.now() });
    drop(jobs);
    writer.join().unwrap();
    (first_rss, taken)
}

/// Every frame that was promised to the archive is here, with its pixels.
fn promised_are_there(folder: &Path, taken: u64) {
    let reader = reticle_store::Reader::open(folder).unwrap();
    let mut promised = 0;
    for session in reader.sessions().unwrap() {
        for series in reader.series(session.id).unwrap() {
            for frame in reader.frames_of(&series, 0..series.frames).unwrap() {
                if frame.sequence.is_multiple_of(PROMISED.into()) && frame.has_pixels {
                    assert!(reader.pixels(frame.id).unwrap().is_some());
                    promised += 1;
                }
            }
        }
    }
    // The last one may have met the hold itself: recorded, and said to be without its pixels.
    let expected = taken.div_ceil(PROMISED.into());
    assert!(promised + 1 >= expected, "{promised} of {expected} are there");
    println!("  promised to the archive: {promised}, all here");
}

fn size_of(folder: &Path) -> (u64, u64) {
    std::fs::read_dir(folder).unwrap().fold((0, 0), |(objects, bytes), entry| {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            let (more, size) = size_of(&entry.path());
            (objects + more, bytes + size)
        } else {
            (objects + 1, bytes + entry.metadata().unwrap().len())
        }
    })
}

fn model() -> Arc<ModelRef> {
    Arc::new(ModelRef {
        name: "nuclei".into(),
        sha256: "ab".repeat(32),
        parameters: "{}".into(),
        software: "0.1.0".into(),
    })
}

/// Discs with wavy edges, so that they pack about as well as cells.
#[expect(clippy::disallowed_methods, reason = "made-up objects are no results")]
fn labels(seed: u64) -> (Arc<LabelImage>, Arc<Vec<Object>>) {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut labels = vec![0; (EDGE * EDGE) as usize];
    let mut objects = Vec::new();
    for label in 1..=OBJECTS {
        let (row, column) = ((label - 1) / 10 * 100 + 50, (label - 1) % 10 * 100 + 50);
        let (radius, wave, turn) = (
            random.random_range(15.0..35.0_f64),
            random.random_range(1.0..4.0),
            random.random_range(0.0..std::f64::consts::TAU),
        );
        let mut area = 0;
        for y in row - 45..row + 45 {
            for x in column - 45..column + 45 {
                let (dy, dx) = (f64::from(y) - f64::from(row), f64::from(x) - f64::from(column));
                let edge = radius + wave * (5.0 * dy.atan2(dx) + turn).sin();
                if dy.hypot(dx) < edge {
                    labels[(y * EDGE + x) as usize] = label;
                    area += 1;
                }
            }
        }
        let mut value = || random.random_range(0.0..1000.0);
        objects.push(Object {
            label,
            area,
            centroid_0: value(),
            centroid_1: value(),
            bbox_0: row - 45,
            bbox_1: column - 45,
            bbox_2: row + 45,
            bbox_3: column + 45,
            perimeter: value(),
            eccentricity: value() / 1000.0,
            solidity: value() / 1000.0,
            major_axis_length: value(),
            minor_axis_length: value(),
            orientation: value() / 1000.0,
            intensity_mean: value(),
            intensity_max: value().round(),
            intensity_min: value().round(),
            touches_border: false,
        });
    }
    (Arc::new(LabelImage::new(EDGE, EDGE, labels).unwrap()), Arc::new(objects))
}

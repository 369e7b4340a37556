//! The store when it is large: a million frames with fifty million objects.
//!
//! ```text
//! RETICLE_SCALE_FRAMES=1000000 cargo bench --bench store_at_scale
//! ```
//! One result of 50 objects is saved through the store, and copied by SQL as often as asked (without
//! that variable 20,000 times), then the store is used as the daemon uses it. Prints: size on disk, time
//! of a commit (p50, p99), of the page's questions (p50, p95), of `reticle fsck --quick`. And, for
//! the choice between rows and a packed block of columns for the objects of a frame, the bytes and
//! the commit time of both, in the same run on tables of their own.

#![expect(clippy::print_stdout, reason = "it is what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails should end")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use reticle_base::clock::Clock;
use reticle_base::ids::SessionId;
use reticle_base::queue::{self, WhenFull};
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_store::{Depth, Job, Keep, Outcome, Store};
use rusqlite::{Connection, params};

/// Edge of a frame, and objects in it.
const EDGE: u32 = 512;
const OBJECTS: u32 = 50;

/// Commits and questions that are timed.
const COMMITS: usize = 1000;
const QUESTIONS: usize = 200;

/// Frames on which rows and blocks are compared.
const COMPARED: usize = 2000;

fn main() {
    let frames: u64 = std::env::var("RETICLE_SCALE_FRAMES")
        .map_or(20_000, |text| text.parse().expect("RETICLE_SCALE_FRAMES is a number"));
    let folder = tempfile::Builder::new()
        .prefix("reticle-scale-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    let clock = Clock::system();
    let options = reticle_store::Options {
        folder: folder.path().join("data"),
        max_bytes: 0,
        frames: reticle_store::FrameRetention {
            keep: Keep::None,
            max_bytes: 1 << 30,
            min_free_bytes: 0,
        },
    };
    let session = session(&clock);
    let first = result(&clock, 0);
    save(&options, &clock, &session, std::slice::from_ref(&first));

    let database = options.folder.join("reticle.db");
    let made = timed(&clock, || copy(&database, frames));
    let bytes = std::fs::metadata(&database).unwrap().len();
    println!(
        "{frames} frames of {EDGE}² with {} objects each: {:.2} GB, {:.1} kB a frame; made in {:.0} s",
        OBJECTS,
        bytes as f64 / 1e9,
        bytes as f64 / 1e3 / frames as f64,
        made.as_secs_f64()
    );

    let more: Vec<_> = (0..COMMITS).map(|n| result(&clock, frames + n as u64)).collect();
    let mut commits = save(&options, &clock, &session, &more);
    println!(
        "commit of one result: p50 {:.1} ms, p99 {:.1} ms",
        at(&mut commits, 0.5),
        at(&mut commits, 0.99)
    );

    let reader = reticle_store::Reader::open(&options.folder).unwrap();
    let newest = reader.newest_frames(1).unwrap().remove(0).id;
    let questions: [(&str, &dyn Fn()); 6] = [
        ("totals", &|| {
            black_box(reader.totals().unwrap());
        }),
        ("sessions", &|| {
            black_box(reader.sessions().unwrap());
        }),
        ("newest 50 frames", &|| {
            black_box(reader.newest_frames(50).unwrap());
        }),
        ("objects of a frame", &|| {
            black_box(reader.objects(newest).unwrap());
        }),
        ("labels of a frame", &|| {
            black_box(reader.labels(newest).unwrap());
        }),
        ("deliveries", &|| {
            black_box(reader.deliveries().unwrap());
        }),
    ];
    for (name, ask) in questions {
        let mut times: Vec<f64> =
            (0..QUESTIONS).map(|_| timed(&clock, ask).as_secs_f64() * 1e3).collect();
        println!("{name}: p50 {:.2} ms, p95 {:.2} ms", at(&mut times, 0.5), at(&mut times, 0.95));
    }

    let checked = timed(&clock, || {
        let report = reticle_store::fsck(&options.folder, Depth::Quick, |_, _| {}).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    });
    println!("fsck --quick: {:.0} s", checked.as_secs_f64());
    compare(&folder.path().join("rows.db"), &folder.path().join("block.db"), &clock, &first);
}

fn timed(clock: &Clock, work: impl FnOnce()) -> Duration {
    let start = clock.now();
    work();
    clock.now().since(&start)
}

/// A quantile, by nearest rank.
fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// Saves results one after the other, and how many milliseconds each took.
fn save(
    options: &reticle_store::Options,
    clock: &Clock,
    session: &Session,
    results: &[Segmentation],
) -> Vec<f64> {
    let (mut store, _) = Store::open(options, clock.clone()).unwrap();
    store
        .deliver_to(reticle_store::Deliveries {
            archive: Some("file:/archive".into()),
            pixels: Keep::None,
            central: Some("postgresql://lab/db".into()),
        })
        .unwrap();
    let (jobs, receiver) = queue::bounded("store", 4, WhenFull::Wait);
    let (done, saved) = sync_channel(4);
    let writer = store
        .spawn_writer(receiver, move |outcome| match outcome {
            Outcome::Saved(_) => done.send(()).unwrap(),
            Outcome::Failed { error, .. } | Outcome::KeepFailed { error, .. } => panic!("{error}"),
            _ => {}
        })
        .unwrap();
    jobs.send(Job::Open(session.clone()));
    let times = results
        .iter()
        .map(|result| {
            let took = timed(clock, || {
                let session = session.id;
                jobs.send(Job::Keep { session, frame: Arc::clone(&result.frame) });
                jobs.send(Job::Commit { session, segmentation: result.clone() });
                saved.recv().unwrap();
            });
            took.as_secs_f64() * 1e3
        })
        .collect();
    drop(jobs);
    writer.join().unwrap();
    times
}

/// Copies the one result that is there until there are this many.
fn copy(database: &std::path::Path, frames: u64) {
    let db = Connection::open(database).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = off; PRAGMA cache_size = -400000;",
    )
    .unwrap();
    let columns = |table: &str| -> Vec<String> {
        db.prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let copied = |table: &str, changed: &[(&str, &str)]| -> (String, String) {
        let names = columns(table);
        let values: Vec<String> = names
            .iter()
            .map(|name| {
                changed
                    .iter()
                    .find(|(column, _)| column == name)
                    .map_or_else(|| format!("one.\"{name}\""), |(_, value)| (*value).to_owned())
            })
            .collect();
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        (names.join(", "), values.join(", "))
    };
    // 10,000 at a time: the log stays small.
    for start in (2..=frames).step_by(10_000) {
        let end = (start + 9_999).min(frames);
        let numbers = format!(
            "WITH RECURSIVE number (n) AS
                 (SELECT {start} UNION ALL SELECT n + 1 FROM number WHERE n < {end})"
        );
        let (names, values) = copied(
            "frame",
            &[
                ("pk", "n"),
                ("id", "CAST(unhex(format('%032x', n)) AS BLOB)"),
                ("sequence", "n"),
                ("position", "n - 1"),
                ("captured_mono_ns", "one.captured_mono_ns + n"),
            ],
        );
        db.execute_batch(&format!(
            "BEGIN; INSERT INTO frame ({names}) {numbers}
             SELECT {values} FROM number CROSS JOIN frame AS one WHERE one.pk = 1;"
        ))
        .unwrap();
        let (names, values) = copied(
            "segmentation",
            &[("pk", "n"), ("frame", "n"), ("committed_mono_ns", "one.committed_mono_ns + n")],
        );
        db.execute_batch(&format!(
            "INSERT INTO segmentation ({names}) {numbers}
             SELECT {values} FROM number CROSS JOIN segmentation AS one WHERE one.pk = 1;"
        ))
        .unwrap();
        let (names, values) = copied("object", &[("segmentation", "n")]);
        db.execute_batch(&format!(
            "INSERT INTO object ({names}) {numbers}
             SELECT {values} FROM number CROSS JOIN object AS one WHERE one.segmentation = 1; COMMIT;"
        ))
        .unwrap();
    }
    // What is kept ready, and what would have been noted for each destination.
    db.execute_batch(
        "BEGIN;
         UPDATE session SET (frames, segmentations, objects) =
             (SELECT count(*), count(*), sum(objects) FROM segmentation);
         UPDATE series SET frames = (SELECT count(*) FROM frame);
         UPDATE field_sum SET (frames, objects, area, pixels, intensity, focus, frames_in_focus,
             objects_in_focus, area_in_focus, pixels_in_focus, intensity_in_focus) =
             (SELECT n, objects * n, area * n, pixels * n, intensity * n, focus * n,
                     frames_in_focus * n, objects_in_focus * n, area_in_focus * n,
                     pixels_in_focus * n, intensity_in_focus * n
              FROM (SELECT count(*) AS n FROM frame));
         DELETE FROM outbox WHERE kind <> 'session'; DELETE FROM destination; COMMIT;",
    )
    .unwrap();
}

/// Rows against a block of columns: the same objects, each frame its own commit.
fn compare(rows: &std::path::Path, block: &std::path::Path, clock: &Clock, result: &Segmentation) {
    let open = |path: &std::path::Path, table: &str| {
        let db = Connection::open(path).unwrap();
        db.execute_batch(&format!("PRAGMA journal_mode = wal; PRAGMA synchronous = full; {table}"))
            .unwrap();
        db
    };
    let real = "REAL, ".repeat(15);
    let values: Vec<String> = real
        .split(", ")
        .filter(|word| !word.is_empty())
        .enumerate()
        .map(|(number, kind)| format!("v{number} {kind}"))
        .collect();
    let by_rows = open(
        rows,
        &format!(
            "CREATE TABLE object (result INTEGER, label INTEGER, {}, PRIMARY KEY (result, label))
             STRICT, WITHOUT ROWID",
            values.join(", ")
        ),
    );
    let by_block =
        open(block, "CREATE TABLE result (pk INTEGER PRIMARY KEY, objects BLOB NOT NULL) STRICT");
    let marks = vec!["?"; values.len() + 2].join(", ");
    let insert = format!("INSERT INTO object VALUES ({marks})");
    let (mut row_times, mut block_times) = (Vec::new(), Vec::new());
    for number in 0..COMPARED {
        // Measured values differ from frame to frame: the same bytes again would pack too well.
        let numbers: Vec<Vec<f64>> = result
            .objects
            .iter()
            .map(|object| {
                numbers(object).map(|value| value * (1.0 + number as f64 * 1e-3)).to_vec()
            })
            .collect();
        row_times.push(
            timed(clock, || {
                let transaction = by_rows.unchecked_transaction().unwrap();
                let mut statement = by_rows.prepare_cached(&insert).unwrap();
                for (label, values) in numbers.iter().enumerate() {
                    let head = [number as f64, label as f64];
                    let values = head.iter().chain(values).copied().enumerate();
                    for (at, value) in values {
                        if at < 2 {
                            statement.raw_bind_parameter(at + 1, value as i64).unwrap();
                        } else {
                            statement.raw_bind_parameter(at + 1, value).unwrap();
                        }
                    }
                    statement.raw_execute().unwrap();
                }
                transaction.commit().unwrap();
            })
            .as_secs_f64()
                * 1e3,
        );
        block_times.push(
            timed(clock, || {
                let columns: Vec<u8> = (0..values.len())
                    .flat_map(|column| numbers.iter().map(move |row| row[column]))
                    .flat_map(f64::to_le_bytes)
                    .collect();
                let packed = zstd::bulk::compress(&columns, 3).unwrap();
                by_block
                    .execute("INSERT INTO result VALUES (?1, ?2)", params![number as i64, packed])
                    .unwrap();
            })
            .as_secs_f64()
                * 1e3,
        );
    }
    for (name, db, path, mut times) in
        [("rows", by_rows, rows, row_times), ("blocks of columns", by_block, block, block_times)]
    {
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let bytes = std::fs::metadata(path).unwrap().len();
        println!(
            "objects as {name}: {:.0} bytes a frame, commit p50 {:.2} ms, p99 {:.2} ms",
            bytes as f64 / COMPARED as f64,
            at(&mut times, 0.5),
            at(&mut times, 0.99)
        );
    }
}

/// The measured values of an object, as far as they are numbers.
fn numbers(object: &Object) -> [f64; 15] {
    [
        object.area.into(),
        object.centroid_0,
        object.centroid_1,
        object.bbox_0.into(),
        object.bbox_1.into(),
        object.bbox_2.into(),
        object.bbox_3.into(),
        object.perimeter,
        object.eccentricity,
        object.solidity,
        object.major_axis_length,
        object.minor_axis_length,
        object.orientation,
        object.intensity_mean,
        object.intensity_max,
    ]
}

fn session(clock: &Clock) -> Session {
    Session {
        id: SessionId::new(),
        name: "scale".into(),
        source: "virtual".into(),
        channel: None,
        operator: None,
        pixel_size_um: Some(0.65),
        started: clock.now(),
    }
}

/// Square objects on a grid, each with its own numbers.
#[expect(clippy::disallowed_methods, reason = "made-up objects are no results")]
fn result(clock: &Clock, sequence: u64) -> Segmentation {
    let (across, side) = (8, 30);
    let mut labels = vec![0; (EDGE * EDGE) as usize];
    let mut objects = Vec::new();
    for label in 1..=OBJECTS {
        let (row, column) = ((label - 1) / across * 60 + 5, (label - 1) % across * 60 + 5);
        for y in row..row + side {
            for x in column..column + side {
                labels[(y * EDGE + x) as usize] = label;
            }
        }
        let wobble = f64::from(label) * 0.137;
        objects.push(Object {
            label,
            area: side * side,
            centroid_0: f64::from(row) + 14.5 + wobble,
            centroid_1: f64::from(column) + 14.5 - wobble,
            bbox_0: row,
            bbox_1: column,
            bbox_2: row + side,
            bbox_3: column + side,
            perimeter: 116.0 + wobble,
            eccentricity: (wobble * 0.1).sin().abs(),
            solidity: 1.0 - wobble * 0.001,
            major_axis_length: 34.6 + wobble,
            minor_axis_length: 34.6 - wobble,
            orientation: wobble.cos(),
            intensity_mean: 1234.5 + wobble * 31.0,
            intensity_max: 4000.0,
            intensity_min: 300.0,
            touches_border: false,
        });
    }
    let shot = Shot {
        sequence,
        captured: clock.now(),
        exposure_us: Some(10_000),
        width: EDGE,
        height: EDGE,
        bit_depth: 16,
        pixels: Pixels::U16(vec![1; (EDGE * EDGE) as usize]),
        pixel_size_um: Some(0.65),
        pixel_size_source: None,
        pixel_size_note: None,
        place: Place { plate: Some("P1".into()), well: Some("C07".into()), field: Some(1) },
        origin: None,
        truth: None,
    };
    let frame: Frame = shot.into_frame().unwrap();
    let model = ModelRef {
        name: "nuclei".into(),
        sha256: "ab".repeat(32),
        parameters: "{}".into(),
        software: "0.1.0".into(),
    };
    Segmentation {
        frame: Arc::new(frame),
        model: Arc::new(model),
        labels: Arc::new(LabelImage::new(EDGE, EDGE, labels).unwrap()),
        objects: Arc::new(objects),
        focus: 0.9,
        look: Look::PLAIN,
        timings: Timings::default(),
    }
}

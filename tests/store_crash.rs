//! `kill -9` at random moments: whatever the store acknowledged is there afterwards, with the
//! same hash, and `reticle fsck` finds nothing broken.
//!
//! This program runs itself again as the child that writes through the real writer thread and
//! tells over a pipe what was acknowledged. `RETICLE_CRASH_SEED` repeats a run,
//! `RETICLE_CRASH_ROUNDS` makes it longer. The unit tests of the store kill between every two
//! steps by name instead.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use reticle_base::clock::Clock;
use reticle_base::ids::{FrameId, SessionId};
use reticle_base::queue::{self, WhenFull};
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_store::{Depth, FrameRetention, Job, NoFile, Options, Outcome, Reader, Store, fsck};

const FOLDER: &str = "RETICLE_TEST_CRASH_FOLDER";
const EDGE: u32 = 128;

/// Rounds in the suite; each ends with a kill.
const ROUNDS: u32 = 24;

/// Longest life of a child: start, recovery and some dozens of frames.
const LONGEST_MS: u64 = 250;

fn options(folder: &Path) -> Options {
    // Room for 40 files, so that each child evicts as it goes.
    let frames = FrameRetention { max_bytes: 40 * 37_000, min_free_bytes: 0, ..Default::default() };
    Options { folder: folder.to_owned(), max_bytes: 0, frames }
}

fn frame(clock: &Clock, sequence: u64) -> Frame {
    let pixels = (0..EDGE * EDGE).map(|at| (at as u16).wrapping_mul(31) ^ sequence as u16);
    let shot = Shot {
        sequence,
        captured: clock.now(),
        exposure_us: None,
        width: EDGE,
        height: EDGE,
        bit_depth: 16,
        pixels: Pixels::U16(pixels.collect()),
        pixel_size_um: None,
        pixel_size_source: None,
        pixel_size_note: None,
        place: Place::default(),
        origin: None,
        truth: None,
    };
    shot.into_frame().unwrap()
}

/// Squares of 8 pixels, one on each fourth field of a chess board of 16.
fn answer(frame: Arc<Frame>, model: &Arc<ModelRef>) -> Segmentation {
    let (step, shift) = (EDGE / 8, frame.sequence as u32 % 8);
    let labels = (0..EDGE * EDGE)
        .map(|at| {
            let (row, column) = (at / EDGE, at % EDGE);
            let inside = row % step < 8 && (column + shift) % step < 8;
            u32::from(inside) * (row / step * 9 + (column + shift) / step + 1)
        })
        .collect();
    let labels = LabelImage::new(EDGE, EDGE, labels).unwrap().relabelled();
    let objects = (1..=labels.count()).map(|label| Object {
        label,
        area: labels.labels().iter().filter(|&&value| value == label).count() as u32,
        centroid_0: 0.0,
        centroid_1: 0.0,
        bbox_0: 0,
        bbox_1: 0,
        bbox_2: 1,
        bbox_3: 1,
        perimeter: 1.0,
        eccentricity: 0.0,
        solidity: 1.0,
        major_axis_length: 1.0,
        minor_axis_length: 1.0,
        orientation: 0.0,
        intensity_mean: 1.0,
        intensity_max: 1.0,
        intensity_min: 1.0,
        touches_border: false,
    });
    Segmentation {
        objects: Arc::new(objects.collect()),
        labels: Arc::new(labels),
        model: Arc::clone(model),
        focus: 0.5,
        look: Look::PLAIN,
        timings: Timings::default(),
        frame,
    }
}

/// The child: writes for ever. Does nothing when it is not asked to.
#[test]
fn child_that_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let clock = Clock::system();
    let (store, _) = Store::open(&options(Path::new(&folder)), clock.clone()).unwrap();
    let (jobs, receiver) = queue::bounded("store", 16, WhenFull::Wait);
    let session = Session {
        id: SessionId::new(),
        name: "crash".into(),
        source: "virtual".into(),
        channel: None,
        operator: None,
        pixel_size_um: None,
        started: clock.now(),
    };
    let model = Arc::new(ModelRef {
        name: "nuclei".into(),
        sha256: "00".into(),
        parameters: "{}".into(),
        software: "0".into(),
    });
    let mut out = std::io::stdout();
    let writer = store.spawn_writer(receiver, move |outcome| {
        let line = match outcome {
            Outcome::Kept { frame } => format!("kept {frame}"),
            Outcome::Saved(record) => format!("saved {}", record.frame()),
            Outcome::AlreadySaved { record, .. } => format!("saved before {}", record.frame()),
            Outcome::Evicted { .. }
            | Outcome::NotKept { .. }
            | Outcome::Held { .. }
            | Outcome::Resumed => return,
            Outcome::Unlinked { reason } => format!("unlinked {reason}"),
            Outcome::Failed { error, .. } | Outcome::KeepFailed { error, .. } => {
                format!("failed {error}")
            }
        };
        // One write a line: a line is told whole or not at all.
        out.write_all(format!("ack {line}\n").as_bytes()).unwrap();
    });
    let writer = writer.unwrap();
    jobs.send(Job::Open(session.clone()));
    for sequence in 0.. {
        let frame = Arc::new(frame(&clock, sequence));
        let segmentation = answer(Arc::clone(&frame), &model);
        // What the parent will look for is known before it can be acknowledged.
        let mut out = std::io::stdout();
        let (pixels, labels) =
            (hex::encode(frame.sha256), hex::encode(segmentation.labels.sha256()));
        out.write_all(format!("taken {} {pixels} {labels}\n", frame.id).as_bytes()).unwrap();
        jobs.send(Job::Keep { session: session.id, frame });
        if sequence % 4 != 3 {
            jobs.send(Job::Commit { session: session.id, segmentation });
        }
    }
    writer.join().unwrap();
}

/// What the child said before it died.
#[derive(Default)]
struct Told {
    taken: HashMap<FrameId, (String, String)>,
    kept: Vec<FrameId>,
    saved: Vec<FrameId>,
}

impl Told {
    fn line(&mut self, line: &str) {
        // libtest's own words may stand before ours.
        let words = line.rsplit_once("ack ").map_or(line, |(_, ack)| ack);
        let words = words.find("taken ").and_then(|at| words.get(at..)).unwrap_or(words);
        match words.split(' ').collect::<Vec<_>>()[..] {
            ["taken", id, pixels, labels] => {
                self.taken.insert(id.parse().unwrap(), (pixels.into(), labels.into()));
            }
            ["kept", id] => self.kept.push(id.parse().unwrap()),
            ["saved", id] => self.saved.push(id.parse().unwrap()),
            ["failed", ..] => panic!("{line}"),
            _ => {}
        }
    }

    /// That all of it is there.
    fn check(&self, folder: &Path) {
        let reader = Reader::open(folder).unwrap();
        for id in &self.saved {
            let (pixels, labels) = &self.taken[id];
            let stored = reader.frame(*id).unwrap().expect("an acknowledged result is there");
            assert_eq!((&stored.sha256, &stored.labels_sha256), (pixels, labels));
            // These compare the hashes of what they read with the recorded ones.
            reader.labels(*id).unwrap().unwrap();
            let file = reader.pixels(*id).unwrap();
            assert!(file.is_some() || stored.no_file == Some(NoFile::EvictedMaxBytes));
            assert_eq!(
                reader.objects(*id).unwrap().unwrap().len(),
                stored.objects as usize,
                "{id}"
            );
        }
        let saved: std::collections::HashSet<_> = self.saved.iter().collect();
        let mut files = 0;
        for id in self.kept.iter().filter(|id| !saved.contains(id)) {
            // Its result may be there although nobody heard of it before the kill.
            if reader.frame(*id).unwrap().is_some() {
                continue;
            }
            if let Some(stored) = reader.pixels(*id).unwrap() {
                assert_eq!(hex::encode(stored.pixels.sha256()), self.taken[id].0);
                files += 1;
            }
        }
        let totals = reader.totals().unwrap();
        assert!(files <= totals.backlog, "{files} acknowledged, {totals:?}");
        let frames: std::collections::HashSet<_> = self.kept.iter().chain(&self.saved).collect();
        assert!(totals.frames >= frames.len() as u64, "{} acknowledged, {totals:?}", frames.len());
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("RETICLE_CRASH_SEED", Clock::system().now().wall_ns.cast_unsigned());
    let rounds = number("RETICLE_CRASH_ROUNDS", u64::from(ROUNDS));
    eprintln!("RETICLE_CRASH_SEED={seed} repeats these {rounds} rounds");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let mut rounds_with_news = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        let listener = std::thread::spawn(move || pipe.lines().collect::<Result<Vec<_>, _>>());
        std::thread::sleep(Duration::from_micros(random.random_range(0..LONGEST_MS * 1000)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "round {round}: died by itself");
        let lines = listener.join().unwrap().unwrap();
        let before = told.saved.len();
        lines.iter().for_each(|line| told.line(line));
        rounds_with_news += usize::from(told.saved.len() > before);
        if told.saved.is_empty() {
            continue;
        }
        // As the crash left it, before any recovery.
        let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
        assert!(report.is_clean(), "round {round}: {report:#?}");
        told.check(folder.path());
    }
    assert!(rounds_with_news > 0, "no child lived long enough to save anything");

    // After the recovery, and closed in order.
    let (store, recovery) = Store::open(&options(folder.path()), Clock::system()).unwrap();
    assert_eq!(recovery.missing, 0);
    told.check(folder.path());
    let (jobs, receiver) = queue::bounded("store", 1, WhenFull::Wait);
    drop(jobs);
    store.spawn_writer(receiver, |_| {}).unwrap().join().unwrap();
    let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
    assert!(report.is_clean() && !report.running, "{report:#?}");
    eprintln!(
        "{} results and {} files acknowledged in {rounds_with_news} of {rounds} rounds",
        told.saved.len(),
        told.kept.len()
    );

    // And so says the command.
    let check = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_reticle"))
            .args(["fsck", "--data"])
            .arg(folder.path())
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = check(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.ends_with("All is well.\n"), "{text}");
    // Some file: those of results may all have made room for the backlog that kills leave.
    let file = std::fs::read_dir(folder.path().join("frames"))
        .unwrap()
        .flat_map(|session| std::fs::read_dir(session.unwrap().path()).unwrap())
        .find_map(|file| Some(file.ok()?.path()))
        .unwrap();
    std::fs::remove_file(file).unwrap();
    let output = check(&["--quick"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("BROKEN I3: frame") && text.contains("What to do: put the file back"));
    let json: serde_json::Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!(json["broken"][0]["invariant"], "I3", "{json}");
}

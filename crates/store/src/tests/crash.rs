//! The process is killed between every two steps; what was promised is there afterwards.
//!
//! This test's program runs itself again as a child, with the name of a point in its
//! environment ([`reticle_base::crash`]). The child tells over a pipe what was acknowledged.
//! `tests/store_crash.rs` does the same at random moments, from outside.

use reticle_base::clock::Clock;
use reticle_base::remedy::Remedy;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::clean;
use crate::fixture::{self, Bench, EDGE};
use crate::*;
use reticle_base::ids::{EventId, FrameId, SessionId};
use reticle_domain::event::{Event, What};

const FOLDER: &str = "RETICLE_TEST_CRASH_FOLDER";
const TASK: &str = "RETICLE_TEST_CRASH_TASK";
pub(super) const CRASH_AT: &str = "RETICLE_TEST_CRASH_AT";

/// Every point in the code, in the order of a keep, a commit, an eviction and a recovery.
const POINTS: [&str; 17] = [
    "file written",
    "file synced",
    "file renamed",
    "batch prepared",
    "frame inserted",
    "segmentation inserted",
    "receipts written",
    "cursor written",
    "rows inserted",
    "committed",
    "eviction written",
    "eviction committed",
    "evicted file unlinked",
    "file unlinked",
    "orphan moved",
    "recovered",
    "recovery written",
];

/// Dies at the point that the environment names, with SIGKILL, which no handler and no destructor
/// can soften: `name`, or `name:n` for the n-th time.
pub(super) fn die_where_asked(name: &'static str) {
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var(CRASH_AT) else { return };
    let (wanted, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == nth.parse().unwrap_or(1) {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).ok();
        loop {
            std::thread::park();
        }
    }
}

fn small(folder: &Path) -> Options {
    let mut options = fixture::options(folder);
    options.frames.max_bytes = 4 * (u64::from(EDGE * EDGE * 2) + 4096);
    options
}

/// What the child does: the whole life of a store, telling each acknowledgement.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    reticle_base::crash::arm(die_where_asked);
    let mut bench = Bench::delivering(&small(Path::new(&folder)), fixture::without_pixels());
    if std::env::var(TASK).as_deref() == Ok("open") {
        bench.close();
        return;
    }
    bench.writer.publish_to(Some("mqtt://broker")).unwrap();
    for n in 0..10 {
        let frame = fixture::frame(&bench.clock, n, EDGE, EDGE);
        let answer = fixture::segmentation(&frame, 3);
        let event = Event {
            id: EventId::new(),
            at: bench.clock.now(),
            session: Some(bench.session.id),
            what: What::Paused { paused: true },
        };
        let mut jobs = vec![Job::Event(event), bench.keep(&frame)];
        if n % 3 != 0 {
            jobs.push(bench.commit(&answer));
        }
        if n == 5 {
            // Its file is written, its row refused, and the file removed after the commit.
            jobs.push(Job::Keep {
                session: SessionId::new(),
                frame: fixture::frame(&bench.clock, 100, EDGE, EDGE),
            });
        }
        let mut out = std::io::stdout();
        bench.writer.work(jobs, &mut |outcome| {
            let line = match outcome {
                Outcome::Kept { frame: id } => format!("kept {id} {}", hex::encode(frame.sha256)),
                Outcome::Saved(record) => {
                    format!("saved {} {}", record.frame(), hex::encode(answer.labels.sha256()))
                }
                _ => return,
            };
            writeln!(out, "ack {line}").unwrap();
        });
        for item in bench.claim(Destination::Archive) {
            bench.deliver(&item);
        }
        tell(&mut bench);
    }
    bench.close();
}

/// Tells all that waits, as a broker would hear it, and then moves the cursors.
fn tell(bench: &mut Bench) {
    let reader = bench.reader();
    let mut out = std::io::stdout();
    let events = reader.unpublished_events(100).unwrap();
    for event in &events {
        writeln!(out, "ack told {} event", event.id).unwrap();
    }
    let results = reader.unpublished_results(100).unwrap();
    for result in &results {
        writeln!(out, "ack told {} result", result.frame.id).unwrap();
    }
    let last = [
        (Stream::Events, events.last().map(|event| event.pk)),
        (Stream::Results, results.last().map(|result| result.pk)),
    ];
    for (stream, upto) in last {
        if let Some(upto) = upto {
            bench.writer.ask(Ask::Published { stream, upto }).unwrap();
        }
    }
}

/// That nothing which is recorded was passed over: it was told, or will be.
fn verify_told(reader: &Reader, acks: &[String], context: &str) {
    let mut told: BTreeSet<String> = acks
        .iter()
        .filter_map(|ack| ack.strip_prefix("told ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    // Killed before the broker was known: nobody was to be told.
    if reader.publish_cursors().unwrap().is_empty() {
        assert!(told.is_empty(), "{context}");
        return;
    }
    told.extend(reader.unpublished_events(100).unwrap().iter().map(|event| event.id.to_string()));
    told.extend(reader.unpublished_results(100).unwrap().iter().map(|it| it.frame.id.to_string()));
    for event in reader.events(None, 100).unwrap() {
        assert!(told.contains(&event.id.to_string()), "{context}: {event:?}");
    }
    for saved in reader.saved_frames(None, 100).unwrap() {
        assert!(told.contains(&saved.id.to_string()), "{context}: {saved:?}");
    }
}

/// Runs the child to its end or to its death, and gives what it acknowledged.
fn run_child(folder: &Path, task: &str, crash_at: &str) -> (Vec<String>, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(TASK, task)
        .env(CRASH_AT, crash_at)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(killed || output.status.success(), "{crash_at}: {output:?}");
    let acks = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once("ack ").map(|(_, ack)| ack.to_owned()))
        .collect();
    (acks, killed)
}

/// Opens the store again and looks for all that was acknowledged.
fn verify(folder: &Path, acks: &[String], context: &str) {
    let left = fsck(folder, Depth::Full, |_, _| {});
    // Killed before there was a database, or before its schema: nothing was promised.
    match left {
        Ok(report) => assert!(report.is_clean(), "{context}: {report:#?}"),
        Err(error) => assert!(acks.is_empty(), "{context}: {error}"),
    }
    let bench = Bench::open(&small(folder));
    assert_eq!(bench.recovery.missing, 0, "{context}");
    let reader = bench.reader();
    verify_told(&reader, acks, context);
    for ack in acks.iter().filter(|ack| !ack.starts_with("told ")) {
        let [verb, id, sha256] = ack.split(' ').collect::<Vec<_>>()[..] else { panic!("{ack}") };
        let id: FrameId = id.parse().unwrap();
        if verb == "saved" {
            let stored = reader.frame(id).unwrap().expect(context);
            assert_eq!(stored.labels_sha256, sha256, "{context}: {ack}");
            let labels = reader.labels(id).unwrap().unwrap();
            assert_eq!(hex::encode(labels.sha256()), sha256, "{context}: {ack}");
        } else {
            let pixels = crate::sql::rows::pixels_of(bench.writer.connection.as_ref().unwrap(), id);
            match pixels.unwrap().expect(context) {
                crate::sql::rows::Pixels::Filed { .. } => {
                    let pixels = reader.pixels(id).unwrap().unwrap();
                    assert_eq!(hex::encode(pixels.pixels.sha256()), sha256, "{context}: {ack}");
                }
                crate::sql::rows::Pixels::Without(reason) => {
                    assert_eq!(reason, NoFile::EvictedMaxBytes, "{context}: {ack}");
                }
            }
        }
    }
    bench.close();
    let report = clean(folder);
    assert!(
        report.notes.iter().all(|note| note.place == "orphans"),
        "{context}: {:#?}",
        report.notes
    );
}

#[test]
fn a_kill_between_any_two_steps_loses_nothing_that_was_acknowledged() {
    let mut reached = BTreeSet::new();
    for point in &POINTS[..14] {
        for nth in ["", ":2", ":7"] {
            let folder = tempfile::tempdir().unwrap();
            let at = format!("{point}{nth}");
            let (acks, killed) = run_child(folder.path(), "life", &at);
            assert!(killed || !nth.is_empty(), "{at} was never reached");
            reached.insert(*point);
            verify(folder.path(), &acks, &at);
        }
    }
    assert_eq!(reached.len(), 14);
}

#[test]
fn a_kill_in_the_middle_of_a_recovery_is_recovered_too() {
    let mut reached = BTreeSet::new();
    // Each first death leaves something else: half a file, an orphan, an eviction to complete.
    for first in ["file written", "frame inserted:2", "eviction committed", "committed"] {
        for second in &POINTS[13..] {
            let folder = tempfile::tempdir().unwrap();
            let (acks, killed) = run_child(folder.path(), "life", first);
            assert!(killed, "{first}");
            let (_, killed) = run_child(folder.path(), "open", second);
            if killed {
                reached.insert(*second);
            }
            verify(folder.path(), &acks, &format!("{first}, then {second}"));
        }
    }
    assert_eq!(reached.len(), POINTS[13..].len(), "only reached {reached:?}");
}

#[test]
fn no_point_in_the_code_is_left_out() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    let folders = ["src", "src/adopt", "src/read", "src/sql", "src/write", "../base/src"];
    for folder in folders.map(|folder| here.join(folder)) {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.split("crash::point(\"").skip(1);
            found.extend(names.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let named = POINTS.iter().chain(&super::recover::RESTORE_POINTS);
    let named = named.chain(&super::recover::ADOPT_POINTS).map(|&name| name.to_owned());
    assert_eq!(found, named.collect::<BTreeSet<_>>());
}

/// What the child does on a file system of 8 MiB.
#[test]
fn full_disk_child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    if std::env::var(TASK).as_deref() != Ok("full disk") {
        return;
    }
    let disk = Path::new(&folder);
    let mut bench = Bench::open(&fixture::options(&disk.join("data")));
    let mut answers = Vec::new();
    // Twice as many frames as the disk holds: the oldest files make room, no result is lost.
    for n in 0..120 {
        let frame = fixture::frame(&bench.clock, n, 256, 256);
        let answer = fixture::segmentation(&frame, 20);
        let jobs = vec![bench.keep(&frame), bench.commit(&answer)];
        bench.work(jobs);
        answers.push(answer);
    }
    let saved = |bench: &Bench| super::saved(&bench.outcomes);
    assert_eq!(saved(&bench), 120, "{:?}", super::failures(&bench.outcomes));
    assert!(bench.reader().totals().unwrap().evicted > 40);

    // Another program takes all that is left, and what is given up for it.
    let other = disk.join("other");
    let mut taken = std::fs::File::create(&other).unwrap();
    bench.outcomes.clear();
    let mut n = 120;
    while super::failures(&bench.outcomes).is_empty() {
        while taken.write_all(&[7; 4096]).is_ok() {}
        bench.take(n, 3);
        n += 1;
        assert!(n < 1000, "nothing fails on a full disk");
    }
    for error in super::failures(&bench.outcomes) {
        assert_eq!(error.remedy(), Remedy::Retry, "{error}");
        assert!(error.is_disk_full(), "{error}");
        assert!(error.to_string().contains("free some room"), "{error}");
    }
    drop(taken);
    std::fs::remove_file(&other).unwrap();
    bench.outcomes.clear();
    answers.push(bench.take(2000, 3));
    assert_eq!(saved(&bench), 1, "{:?}", bench.outcomes);
    for answer in &answers {
        let labels = bench.reader().labels(answer.frame.id).unwrap().unwrap();
        assert_eq!(labels, *answer.labels);
    }
    bench.close();
    clean(&disk.join("data"));

    // A start on a full disk: the reserve is what it lives on.
    Bench::open(&fixture::options(&disk.join("data"))).close();
    assert!(disk.join("data/reserve").exists());
    let mut taken = std::fs::File::create(&other).unwrap();
    while taken.write_all(&[7; 4096]).is_ok() {}
    let mut bench = Bench::open(&fixture::options(&disk.join("data")));
    bench.take(3000, 3);
    assert_eq!(saved(&bench), 1, "{:?}", bench.outcomes);
    drop(taken);
    std::fs::remove_file(&other).unwrap();
    bench.close();

    // The same folder, mounted read-only.
    let status = Command::new("sh")
        .args(["-c", "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\""])
        .arg(disk.join("data"))
        .status()
        .unwrap();
    assert!(status.success());
    let error = Store::open(&fixture::options(&disk.join("data")), Clock::system()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("data/lock") && text.contains("mount it writable"), "{text}");
    clean(&disk.join("data"));
    writeln!(std::io::stdout(), "ack done").unwrap();
}

#[test]
fn a_full_disk_evicts_then_fails_with_advice_then_resumes() {
    let folder = tempfile::tempdir().unwrap();
    // A file system of its own, which needs a mount namespace.
    let enter = ["--user", "--map-root-user", "--mount", "sh", "-c"];
    let may = Command::new("unshare").args(enter).arg("mount -t tmpfs tmpfs /mnt").output();
    if !may.is_ok_and(|output| output.status.success()) {
        // The same errors without a disk of its own: a_full_database_loses_nothing…
        eprintln!("not run: this machine does not let us mount a small file system");
        return;
    }
    let output = Command::new("unshare")
        .args(enter)
        .arg("mount -t tmpfs -o size=8m tmpfs \"$0\" && exec \"$@\"")
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::full_disk_child", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(TASK, "full disk")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("ack done"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! Local bytes that change by themselves.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use rand::Rng as _;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::words;
use crate::bench::Bench;
use crate::common::wait_for;
use crate::kind::one_in;

/// With more frames than this, everything takes longer to send again than a round may last; then
/// only the part that rots is asked for again, as if the outbox had forgotten that it was sent.
const EVERYTHING: u64 = 1000;

/// Bytes that were changed, and what they were.
struct Rotten {
    /// The key of their frame.
    frame: i64,
    what: What,
    before: Vec<u8>,
}

enum What {
    Labels { segmentation: i64 },
    File { path: PathBuf },
}

/// A label image or a frame file rots on the box, the archive has it whole, and all of it is asked
/// for again: what is broken here does not replace what is good there. Then the bytes are put back
/// as they were, as from a backup.
pub(super) fn rot(bench: &mut Bench) {
    bench.settle();
    bench.end_or_kill();
    let rotten = spoil(bench);
    let check = bench.reticle(&["fsck"]).output().expect("the program can be started");
    let words = words(&check);
    match &rotten.what {
        What::Labels { segmentation } => {
            let named = !check.status.success() && words.contains("BROKEN I");
            assert!(named, "label image {segmentation} is rotten and fsck says:\n{words}");
        }
        What::File { path } => eprintln!("  {}", path.display()),
    }
    ask_again(bench, &rotten);
    bench.go();
    drain(bench);
    bench.pause();
    let overwritten = bench.memory.overwritten();
    assert!(overwritten.is_empty(), "a good copy was replaced by a rotten one: {overwritten:#?}");

    bench.end_or_kill();
    mend(bench, &rotten);
    // Whoever mended something gives what was refused meanwhile another chance.
    ask(bench, &["sync", "retry"]);
    ask_again(bench, &rotten);
    bench.go();
    bench.archive_again();
}

/// Lets the dead daemon's box deliver again what the archive has.
fn ask_again(bench: &Bench, rotten: &Rotten) {
    if bench.ledger.noted() < EVERYTHING {
        return ask(bench, &["sync", "retry", "--everything"]);
    }
    let again = "UPDATE outbox SET delivered = 0, delivered_rows = 0, state = 'waiting'
                 WHERE destination = 'archive' AND (series, part) IN
                       (SELECT series.pk, frame.position / series.part_frames
                        FROM frame JOIN series ON series.pk = frame.series WHERE frame.pk = ?1)";
    let parts = open(bench).execute(again, [rotten.frame]).unwrap();
    assert!(parts > 0, "what rots was never to be delivered");
}

fn ask(bench: &Bench, verb: &[&str]) {
    let output = bench.reticle(verb).output().expect("the program can be started");
    assert!(output.status.success(), "reticle {}: {}", verb.join(" "), words(&output));
}

/// Returns when what waits now was delivered, or refused.
fn drain(bench: &Bench) {
    let mut command = bench.reticle(&["sync", "drain"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program can be started");
    // How it ends is told by what it leaves.
    wait_for("everything to be sent again", || {
        child.try_wait().expect("a child can be asked").map(drop)
    });
}

/// Changes some bytes of a result that is delivered.
fn spoil(bench: &mut Bench) -> Rotten {
    let db = open(bench);
    if one_in(&mut bench.random, 2) {
        // One whose pixels the archive has as well, and which is not yet evicted.
        let file = "SELECT pk, file FROM frame WHERE file IS NOT NULL AND sequence % 8 = 0
                    ORDER BY pk DESC LIMIT 1 OFFSET ?1";
        let newest = bench.random.random_range(0..8);
        let file: Option<(i64, String)> =
            db.query_row(file, [newest], |row| Ok((row.get(0)?, row.get(1)?))).optional().unwrap();
        if let Some((frame, file)) = file {
            let path = bench.data.join(file);
            let before = fs::read(&path).unwrap();
            write(&path, &turned(bench, before.clone()));
            return Rotten { frame, what: What::File { path }, before };
        }
    }
    let count: i64 =
        db.query_row("SELECT count(*) FROM segmentation", [], |row| row.get(0)).unwrap();
    // Of the newest: a part that is sent again has all that is in it.
    let which = bench.random.random_range(0..count.min(500));
    let (segmentation, frame, before): (i64, i64, Vec<u8>) = db
        .query_row(
            "SELECT pk, frame, labels FROM segmentation ORDER BY pk DESC LIMIT 1 OFFSET ?1",
            [which],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    set_labels(&db, segmentation, &turned(bench, before.clone()));
    Rotten { frame, what: What::Labels { segmentation }, before }
}

fn mend(bench: &Bench, rotten: &Rotten) {
    match &rotten.what {
        What::Labels { segmentation } => set_labels(&open(bench), *segmentation, &rotten.before),
        // Otherwise it made room meanwhile, as the archive has its pixels whole.
        What::File { path } if path.exists() => write(path, &rotten.before),
        What::File { .. } => {}
    }
}

/// All bits of a few bytes in the middle turned around.
fn turned(bench: &mut Bench, mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bench.random.random_range(bytes.len() / 3..bytes.len() / 2);
    bytes[middle..].iter_mut().take(16).for_each(|byte| *byte = !*byte);
    bytes
}

fn open(bench: &Bench) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    Connection::open_with_flags(bench.database(), flags).unwrap()
}

fn set_labels(db: &Connection, segmentation: i64, labels: &[u8]) {
    let set = "UPDATE segmentation SET labels = ?2 WHERE pk = ?1";
    let changed = db.execute(set, rusqlite::params![segmentation, labels]).unwrap();
    assert_eq!(changed, 1);
}

#[expect(clippy::disallowed_methods, reason = "rot need not be durable")]
fn write(path: &std::path::Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the data folder can be written");
}

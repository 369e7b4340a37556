//! Faults of the machine: the process, its disk, its file, its clock.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use rand::Rng as _;
use reticle_base::clock::Clock;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::{copy_database, freeze, thaw, words};
use crate::bench::{Bench, write};
use crate::common::{PATIENCE, wait_at_most, wait_for};
use crate::kind::one_in;
use crate::places;

/// How far a stored time may be from where the clock was set, in seconds.
const NEAR: i64 = 600;

const DAY: i64 = 86_400;

pub(super) fn stop(bench: &mut Bench) {
    freeze(bench);
    bench.pause();
    bench.pause();
    thaw(bench);
}

pub(super) fn full_disk(bench: &mut Bench) {
    let other = bench.disk.as_ref().expect("the plan leaves this out elsewhere").join("other");
    let mut taken = File::create(&other).expect("there is room for an empty file");
    let seen = wait_for("the daemon to say that the disk is full", || {
        // Again and again: it gives up files and its reserve, and those are taken as well.
        take_the_rest(&mut taken);
        bench.status().filter(|status| !is_saving(status))
    });
    eprintln!("  the daemon says: {} {}", seen["save"], seen["recording_paused"]);
    bench.pause();
    let dies = one_in(&mut bench.random, 3);
    if dies {
        bench.kill();
    }
    drop(taken);
    fs::remove_file(&other).expect("a file can be removed from a full disk");
    if dies {
        bench.go();
    }
    wait_for("the daemon to save again", || bench.status().filter(is_saving));
}

fn take_the_rest(file: &mut File) {
    for block in [&[7; 65_536][..], &[7; 4096]] {
        while file.write_all(block).is_ok() {}
    }
}

fn is_saving(status: &Value) -> bool {
    status["save"]["state"] != "failing" && status["recording_paused"].is_null()
}

pub(super) fn damage(bench: &mut Bench) {
    bench.pause();
    bench.kill();
    let backup = bench.folder.join("backup");
    fs::create_dir_all(&backup).expect("the bench's folder can be written");
    copy_database(&bench.data, &backup);

    let page = break_a_page(bench);
    let check = bench.reticle(&["fsck"]).output().expect("the program can be started");
    let words = words(&check);
    let found = !check.status.success() && (words.contains("BROKEN I") || is_named(&words));
    assert!(found, "page {page} is damaged and fsck says:\n{words}");
    let words = refusal(bench);
    assert!(is_named(&words), "page {page} is damaged and the daemon ends with:\n{words}");
    eprintln!("  page {page}: {}", words.lines().last().unwrap_or_default());

    copy_database(&backup, &bench.data);
    bench.go();
}

/// Whether a message names the damaged file.
fn is_named(words: &str) -> bool {
    words.contains("reticle.db")
}

/// Turns all bits of one page around: of a table that holds results, because a page that
/// nothing uses is no damage. The log is folded in first, because it could have a newer copy of
/// the page, which would mend it.
fn break_a_page(bench: &mut Bench) -> u32 {
    let path = bench.database();
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let size: u32 = db.pragma_query_value(None, "page_size", |row| row.get(0)).unwrap();
    let pages: Vec<u32> = db
        .prepare(
            "SELECT pageno FROM dbstat WHERE name IN ('frame', 'segmentation', 'object')
             ORDER BY pageno",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    db.close().map_err(|(_, error)| error).unwrap();
    let page = pages[bench.random.random_range(0..pages.len())];
    let mut bytes = fs::read(&path).unwrap();
    let start = (page - 1) as usize * size as usize;
    bytes[start..start + size as usize].iter_mut().for_each(|byte| *byte = !*byte);
    #[expect(clippy::disallowed_methods, reason = "damage need not be durable")]
    fs::write(&path, bytes).unwrap();
    page
}

/// What a daemon says that refuses to start.
fn refusal(bench: &Bench) -> String {
    let mut command = bench.reticle(&["run", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait_at_most(PATIENCE, || child.try_wait().expect("a child can be asked"));
    if ended.is_none() {
        child.kill().expect("a child can be killed");
    }
    let output = child.wait_with_output().expect("a child can be waited for");
    let words = words(&output);
    assert!(ended.is_some_and(|status| !status.success()), "it runs on a damaged store:\n{words}");
    words
}

pub(super) fn clock(bench: &mut Bench) {
    let library = faketime().expect("the plan leaves this out elsewhere");
    let setting = bench.folder.join("clock");
    write(&setting, "+0");
    let library = library.display().to_string();
    let file = setting.display().to_string();
    bench.end_or_kill();
    // The setting is read again each time somebody asks what time it is. Only the wall clock:
    // nobody can set the monotonic one.
    bench.go_with(&[
        ("LD_PRELOAD", &library),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    let ahead = bench.random.random_range(1..30);
    let behind = bench.random.random_range(1..30);
    for days in [ahead, -behind] {
        // Renamed into place: half a setting would be another one.
        let new = setting.with_extension("new");
        write(&new, &format!("{days:+}d"));
        fs::rename(&new, &setting).expect("the bench's folder can be written");
        wait_for("a result to be stored with the time that was set", || {
            let stored = places::newest_commit(&bench.database()).ok()??;
            let now = Clock::system().now().wall_ns / 1_000_000_000;
            ((stored - now - days * DAY).abs() < NEAR).then_some(())
        });
        bench.pause();
    }
    eprintln!("  stored times jumped by {ahead:+} and {:+} days", -behind);
    bench.end_or_kill();
    bench.go();
}

pub(super) fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64"].into_iter().flat_map(fs::read_dir).flatten();
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|library| library.is_file())
}

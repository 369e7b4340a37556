//! How each fault is done, and how it is shown that it hit.
//!
//! Each begins with a sound system, waits for the proof that the fault was met (and fails the
//! run when it is not), lasts a random while longer, and is taken away again. That deliveries
//! get on afterwards is waited for as well, so that one fault does not hide behind another's
//! back-off.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rand::Rng as _;
use reticle::base::clock::Clock;
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::bench::{Bench, write};
use crate::common::fault_proxy::Fault;
use crate::common::{PATIENCE, wait_at_most, wait_for};
use crate::crowd::Crowd;
use crate::kind::{Kind, one_in};
use crate::places;
use crate::wire::State;

/// The database and what belongs to it.
const DATABASE_FILES: [&str; 3] = ["reticle.db", "reticle.db-wal", "reticle.db-shm"];

/// How far a stored time may be from where the clock was set, in seconds.
const NEAR: i64 = 600;

const DAY: i64 = 86_400;

/// Kinds that cannot be done on this machine, each with the reason.
pub(crate) fn impossible(disk: Option<&Path>) -> Vec<(Kind, &'static str)> {
    let mut kinds = Vec::new();
    if disk.is_none() {
        kinds.push((Kind::FullDisk, "no small file system can be mounted here"));
    }
    if faketime().is_none() {
        kinds.push((Kind::Clock, "libfaketime is not installed: scripts/setup test"));
    }
    kinds
}

/// Does one fault from beginning to end. Panics where it did not hit.
pub(crate) fn inject(bench: &mut Bench, kind: Kind) {
    match kind {
        // Counts itself, because it happens within the others, too.
        Kind::Kill => {
            bench.pause();
            bench.kill();
            return bench.go();
        }
        Kind::Stop => stop(bench),
        Kind::FullDisk => full_disk(bench),
        Kind::Damage => damage(bench),
        Kind::Clock => clock(bench),
        Kind::S3Error => archive(bench, "", Fault::Status { code: 500, retry_after: None }),
        Kind::S3SlowDown => archive(bench, "", Fault::Status { code: 503, retry_after: Some(1) }),
        Kind::S3Hang => hang(bench),
        Kind::S3Cut => {
            let after = bench.random.random_range(1..200);
            archive(bench, "PUT ", Fault::CloseMidBody { after });
        }
        Kind::S3LostAnswer => archive(bench, "PUT ", Fault::LoseAnswer),
        // The confirmation of a put; the archive asks for it by HEAD.
        Kind::S3Checksum => archive(bench, "HEAD ", Fault::CorruptChecksum),
        Kind::S3Credentials => credentials(bench),
        Kind::S3Restart => archive_restart(bench),
        Kind::PgRestart => central_restart(bench),
        Kind::PgConnections => connections(bench),
        Kind::PgReadOnly => read_only(bench),
        Kind::PgCut => cut(bench),
        Kind::PgSlow => slow(bench),
    }
    bench.fired.count(kind);
}

// ---- The box ------------------------------------------------------------------------------------

fn stop(bench: &mut Bench) {
    let pid = process(bench.daemon().pid());
    rustix::process::kill_process(pid, Signal::STOP).expect("a child can be stopped");
    let stat = PathBuf::from(format!("/proc/{}/stat", bench.daemon().pid()));
    wait_for("the kernel to say that the daemon is stopped", || {
        let stat = fs::read_to_string(&stat).expect("a stopped process has a state");
        // The state stands behind the name, which is in brackets and may hold anything.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        (state == Some('T')).then_some(())
    });
    bench.pause();
    bench.pause();
    rustix::process::kill_process(pid, Signal::CONT).expect("a child can be continued");
}

fn full_disk(bench: &mut Bench) {
    let other = bench.disk.as_ref().expect("the plan leaves this out elsewhere").join("other");
    let mut taken = File::create(&other).expect("there is room for an empty file");
    let seen = wait_for("the daemon to say that the disk is full", || {
        // Again and again: it gives up files and its reserve, and those are taken as well.
        take_the_rest(&mut taken);
        bench.status().filter(|status| !is_saving(status))
    });
    eprintln!("  the daemon says: {} {}", seen["save"], seen["hold"]);
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
    status["save"]["state"] != "failing" && status["hold"].is_null()
}

fn damage(bench: &mut Bench) {
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

/// The database is the same in `to` as in `from` afterwards.
fn copy_database(from: &Path, to: &Path) {
    for name in DATABASE_FILES {
        let (from, to) = (from.join(name), to.join(name));
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("{}: {error}", to.display())
            }
            _ => {}
        }
        if from.exists() {
            fs::copy(&from, &to).expect("the database can be copied");
        }
    }
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

fn words(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

fn clock(bench: &mut Bench) {
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

fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64"].into_iter().flat_map(fs::read_dir).flatten();
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|library| library.is_file())
}

// ---- The archive --------------------------------------------------------------------------------

/// Something is done to the requests with `request` in their first line.
fn archive(bench: &mut Bench, request: &str, fault: Fault) {
    let before = bench.s3_proxy.fired(fault);
    bench.s3_proxy.set(request, fault);
    bench.deliver_until("a request to the archive to meet the fault", |bench| {
        bench.s3_proxy.fired(fault) > before
    });
    bench.dwell();
    bench.s3_proxy.clear();
    bench.archive_again();
}

/// The daemon is patient with a server that does not answer: it is ended in the middle of its
/// patience.
fn hang(bench: &mut Bench) {
    let before = bench.s3_proxy.fired(Fault::Hang);
    bench.s3_proxy.set("", Fault::Hang);
    bench.deliver_until("a request to the archive to hang", |bench| {
        bench.s3_proxy.fired(Fault::Hang) > before
    });
    bench.pause();
    bench.end_or_kill();
    bench.s3_proxy.clear();
    bench.go();
    bench.archive_again();
}

fn credentials(bench: &mut Bench) {
    bench.end_or_kill();
    bench.go_with(&[("AWS_SECRET_ACCESS_KEY", "of-somebody-else")]);
    bench.deliver_until("the server to refuse the credentials", |bench| {
        let log = bench.daemon().log();
        log.contains("SignatureDoesNotMatch") || log.contains("secret key does not belong")
    });
    bench.pause();
    bench.end_or_kill();
    bench.go();
    bench.archive_again();
}

fn archive_restart(bench: &mut Bench) {
    let asked = |bench: &Bench| bench.s3_proxy.fired(Fault::Pass);
    bench.s3.kill();
    let before = asked(bench);
    bench.deliver_until("a request to a server that is not there", |bench| asked(bench) > before);
    bench.dwell();
    bench.s3.restart();
    bench.archive_again();
}

// ---- PostgreSQL -----------------------------------------------------------------------------------

fn central_restart(bench: &mut Bench) {
    let started = "SELECT pg_postmaster_start_time()";
    let first = bench.postgres.psql(started);
    let pid = bench.postgres.psql("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)");
    let pid = process(pid.parse().expect("the first line is the process id"));
    // Immediate: no farewell to anybody, recovery from the log at the next start.
    rustix::process::kill_process(pid, Signal::QUIT).expect("the server can be signalled");
    bench.dwell();
    // Asked before: on a busy machine the daemon is back before it can be asked after.
    let before = bench.wire.opened();
    bench.postgres.restart();
    assert_ne!(bench.postgres.psql(started), first, "it is still the same server");
    bench.deliver_until("the daemon to connect again", |bench| bench.wire.opened() > before);
    bench.central_again();
}

fn connections(bench: &mut Bench) {
    let url = bench.postgres.url();
    let crowd = Crowd::hold_all(&url, bench.postgres.password(), || end_others(bench) == "0");
    // The crowd has all there are, so whoever comes now is refused.
    let before = bench.wire.opened();
    bench.deliver_until("the daemon to ask for a connection", |bench| bench.wire.opened() > before);
    bench.dwell();
    drop(crowd);
    bench.central_again();
}

fn read_only(bench: &mut Bench) {
    let before = bench.daemon().log().len();
    let set = "ALTER ROLE box IN DATABASE lab SET default_transaction_read_only = ";
    bench.postgres.psql(&format!("{set}on"));
    // A session has the setting from its beginning.
    end_others(bench);
    bench.deliver_until("the server to refuse a write", |bench| {
        bench.daemon().log().get(before..).is_some_and(|log| log.contains("25006"))
    });
    bench.dwell();
    bench.postgres.psql(&format!("{set}off"));
    end_others(bench);
    bench.central_again();
}

/// Ends the daemon's sessions; how many there were.
fn end_others(bench: &Bench) -> String {
    bench.postgres.psql(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE usename = 'box' AND application_name <> '{}'",
        Crowd::NAME
    ))
}

fn cut(bench: &mut Bench) {
    let before = bench.wire.refused();
    bench.wire.set(State::Cut);
    bench
        .deliver_until("the daemon to find the network cut", |bench| bench.wire.refused() > before);
    bench.dwell();
    bench.wire.set(State::Open);
    bench.central_again();
}

fn slow(bench: &mut Bench) {
    /// More than a question whether anybody is there.
    const SLOWED: u64 = 2_000;
    let before = bench.wire.slowed();
    let bytes_per_s = bench.random.random_range(2_000..20_000);
    bench.wire.set(State::Slow { bytes_per_s });
    bench.deliver_until("a delivery over the slow network", |bench| {
        bench.wire.slowed() > before + SLOWED
    });
    bench.dwell();
    bench.wire.set(State::Open);
    bench.central_again();
}

fn process(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel gives positive process ids")
}

//! The names of the store are taken from the files that the daemon has open: nothing that is
//! called saved afterwards may be missing from what the disk can reach, the alarm is raised once,
//! and the process ends, so that the next one starts on what is there or says why it does not.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use reticle_store::Reader;
use serde_json::Value;

mod common;

use common::{Daemon, Start, reticle, wait_for};

const CONFIG: &str = "[source]\nwidth = 256\nheight = 256\nfps = 25.0\n";

/// Named in the process that runs where it may mount.
const MOUNTING: &str = "RETICLE_TEST_MAY_MOUNT";

/// How soon it must be noticed: at the next batch, or when the writer looks by itself.
const NOTICED: Duration = Duration::from_secs(8);

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
        fs::write(folder.path().join("reticle.toml"), CONFIG).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn start(&self) -> Daemon {
        self.start_in(&self.data())
    }

    fn start_in(&self, data: &Path) -> Daemon {
        Start::default().config(self.path("reticle.toml")).data(data).start()
    }

    /// A daemon that has saved some results.
    fn saving(&self) -> (Daemon, BTreeSet<String>) {
        let daemon = self.start();
        let saved = wait_for("some frames to be saved", || {
            let saved = told(&daemon).ok()?;
            (saved.len() > 10).then_some(saved)
        });
        (daemon, saved)
    }

    /// What a start says that must not succeed.
    fn refused(&self) -> String {
        let mut command = reticle();
        command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(self.path("reticle.toml"));
        let output = command.arg("--data").arg(self.data()).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        said(&output)
    }

    /// All ids that the store has which the names lead to now.
    fn reachable(&self) -> BTreeSet<String> {
        let Ok(reader) = Reader::open(&self.data()) else { return BTreeSet::new() };
        let frames = reader.saved_frames(None, 10_000).unwrap();
        frames.into_iter().map(|frame| frame.id.to_string()).collect()
    }

    fn fsck(&self) {
        let output =
            reticle().args(["fsck", "--json", "--data"]).arg(self.data()).output().unwrap();
        assert!(output.status.success(), "fsck found something:\n{}", said(&output));
    }
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What the API lists as saved.
fn told(daemon: &Daemon) -> Result<BTreeSet<String>, ureq::Error> {
    let (mut all, mut after) = (BTreeSet::new(), String::new());
    loop {
        let page = daemon.try_json(&format!("/api/v1/frames?limit=500{after}"))?;
        let frames: Vec<&Value> = page["frames"].as_array().into_iter().flatten().collect();
        if frames.is_empty() {
            return Ok(all);
        }
        all.extend(frames.iter().filter_map(|frame| Some(frame["id"].as_str()?.to_owned())));
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
}

/// What was seen of a daemon between the event and its end.
struct Seen {
    /// What its API called saved.
    told: BTreeSet<String>,
    log: String,
}

/// Watches the daemon from the event on until it has ended, as it must.
#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn watch(mut daemon: Daemon) -> Seen {
    let event = Instant::now();
    let count = |daemon: &Daemon| {
        let status = daemon.try_json("/api/v1/status").ok()?;
        let mut alarms = status["alarms"].as_array()?.iter();
        let alarm = alarms.find(|alarm| alarm["kind"] == "store_unlinked").cloned();
        Some((status["counters"]["saved"].as_u64()?, alarm))
    };
    // Reports of which the check came before the event are over by now.
    let (first, mut alarm) = count(&daemon).expect("it answers while it tells why it ends");
    let (mut last, mut all) = (first, BTreeSet::new());
    let mut noticed = None;
    while daemon.is_running() {
        if let Some((saved, seen)) = count(&daemon) {
            last = saved;
            alarm = alarm.or(seen);
        }
        if alarm.is_some() {
            noticed.get_or_insert(event.elapsed());
        }
        all.extend(told(&daemon).unwrap_or_default());
        assert!(event.elapsed() < Duration::from_secs(40), "it goes on:\n{}", daemon.log());
    }
    let log = daemon.log();
    eprintln!("alarm after {noticed:?}, ended after {:?}", event.elapsed());
    assert_eq!(last, first, "results were called saved after the event:\n{log}");
    let reason = alarm.expect("the alarm is seen")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("runbook: store_unlinked"), "{reason}");
    assert!(noticed.unwrap() < NOTICED, "{noticed:?}");
    assert!(log.contains("nothing more is saved"), "{log}");
    let is_it = |line: &&str| {
        let alarm = line.split("alarm=").nth(1).unwrap_or_default();
        line.contains("an alarm is on") && alarm.trim_matches('"').starts_with("store_unlinked")
    };
    assert_eq!(log.lines().filter(is_it).count(), 1, "raised once:\n{log}");
    assert!(!log.contains("everything captured is on disk"), "{log}");
    let pid = daemon.pid();
    let status = daemon.end();
    assert_eq!(status.code(), Some(1), "{pid}: {status}");
    Seen { told: all, log }
}

#[test]
fn a_data_folder_that_is_removed_is_not_saved_into() {
    let bench = Bench::new();
    let (daemon, before) = bench.saving();
    // The daemon may make a file while the folder is being removed.
    wait_for("the folder to be gone", || {
        fs::remove_dir_all(bench.data()).ok();
        (!bench.data().join("reticle.db").exists()).then_some(())
    });
    let seen = watch(daemon);
    let after: Vec<_> = seen.told.difference(&before).collect();
    assert!(after.is_empty(), "given out, and on no disk: {after:?}");
    // What a delivery under way may have made again is no store.
    fs::remove_dir_all(bench.data()).ok();
    let daemon = bench.start();
    wait_for("a fresh store to be written", || (!told(&daemon).ok()?.is_empty()).then_some(()));
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn a_database_that_is_renamed_is_found_again_whole_and_no_new_one_takes_its_place() {
    let bench = Bench::new();
    let (daemon, before) = bench.saving();
    let (database, moved) = (bench.data().join("reticle.db"), bench.path("moved.db"));
    fs::rename(&database, &moved).unwrap();
    let seen = watch(daemon);
    let refusal = bench.refused();
    assert!(refusal.contains("reticle.db is gone and frame files of it are there"), "{refusal}");
    assert!(!database.exists(), "a new one was made");
    fs::rename(&moved, &database).unwrap();
    let daemon = bench.start();
    assert!(daemon.stop().success());
    let there = bench.reachable();
    assert!(before.is_subset(&there), "what was called saved is gone");
    assert!(seen.told.is_subset(&there), "{}", seen.log);
    bench.fsck();
}

#[test]
fn a_database_that_is_put_in_its_place_stays_as_it_is() {
    let bench = Bench::new();
    let other = Bench::new();
    let (daemon, _) = other.saving();
    assert!(daemon.stop().success());
    let others = other.reachable();

    let (daemon, before) = bench.saving();
    fs::rename(other.data().join("reticle.db"), bench.data().join("reticle.db")).unwrap();
    let seen = watch(daemon);
    let after: Vec<_> = seen.told.difference(&before).collect();
    assert!(after.is_empty(), "given out, and on no disk: {after:?}");
    assert_eq!(bench.reachable(), others, "it was changed by the log of another");
    let daemon = bench.start();
    wait_for("results to be saved into what is there", || {
        told(&daemon).ok()?.difference(&others).next().map(drop)
    });
    assert!(daemon.stop().success());
    assert!(others.is_subset(&bench.reachable()));
}

#[test]
fn a_log_that_is_deleted_costs_nothing() {
    let bench = Bench::new();
    let (daemon, before) = bench.saving();
    fs::remove_file(bench.data().join("reticle.db-wal")).unwrap();
    let seen = watch(daemon);
    let there = bench.reachable();
    assert!(before.is_subset(&there), "what was called saved is gone");
    assert!(seen.told.is_subset(&there), "{}", seen.log);
    let daemon = bench.start();
    assert!(daemon.stop().success());
    assert!(before.is_subset(&bench.reachable()));
    bench.fsck();
}

#[test]
fn the_folder_of_frame_files_that_is_moved_is_noticed_too() {
    let bench = Bench::new();
    let (daemon, before) = bench.saving();
    wait_for("frame files", || bench.data().join("frames").is_dir().then_some(()));
    fs::rename(bench.data().join("frames"), bench.path("frames")).unwrap();
    let seen = watch(daemon);
    assert!(seen.log.contains("the folder of frame files"), "{}", seen.log);
    assert!(before.is_subset(&bench.reachable()));
}

#[test]
fn a_file_system_that_is_no_longer_mounted_is_waited_for_and_not_replaced() {
    // The mount needs a namespace of its own, as in tests/faults.
    let enter: &[&str] = if rustix::process::geteuid().is_root() {
        &["--mount"]
    } else {
        &["--user", "--map-root-user", "--mount"]
    };
    let may = Command::new("unshare")
        .args(enter)
        .args(["sh", "-c", "mount --bind /tmp /mnt && umount -l /mnt"])
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "where everything must run, no mount is allowed");
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let status = Command::new("unshare")
        .args(enter)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "where_it_may_mount", "--nocapture"])
        .env(MOUNTING, "yes")
        .status()
        .unwrap();
    assert!(status.success(), "what is wrong stands above");
}

/// The process that may mount. Does nothing when it is not asked to.
#[test]
fn where_it_may_mount() {
    if std::env::var_os(MOUNTING).is_none() {
        return;
    }
    let mount = |program: &str, args: &[&OsStr]| {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", said(&output));
    };
    let bench = Bench::new();
    let (disk, data) = (bench.path("disk"), bench.data());
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&data).unwrap();
    let bind = [OsStr::new("--bind"), disk.as_os_str(), data.as_os_str()];
    mount("mount", &bind);
    let (daemon, before) = bench.saving();
    mount("umount", &[OsStr::new("-l"), data.as_os_str()]);
    let seen = watch(daemon);
    let after: Vec<_> = seen.told.difference(&before).collect();
    assert!(after.is_empty(), "given out, and on no disk: {after:?}");

    let refusal = bench.refused();
    assert!(refusal.contains("its file system is not mounted"), "{refusal}");
    assert!(!data.join("reticle.db").exists(), "a store was made in the mount point");
    mount("mount", &bind);
    let daemon = bench.start();
    assert!(daemon.stop().success());
    assert!(before.is_subset(&bench.reachable()), "what was called saved is gone");
    bench.fsck();
    mount("umount", &[data.as_os_str()]);
}

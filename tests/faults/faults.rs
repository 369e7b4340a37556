//! How each fault is done, and how it is shown that it hit.
//!
//! Each begins with a sound system, waits for the proof that the fault was met (and fails the
//! run when it is not), lasts a random while longer, and is taken away again. That deliveries
//! get on afterwards is waited for as well, so that one fault does not hide behind another's
//! back-off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::Bench;
use crate::common::fault_proxy::Fault;
use crate::common::{mosquitto, wait_for};
use crate::kind::Kind;

mod archive;
mod broker;
mod central;
mod clients;
mod files;
mod history;
mod images;
mod machine;
mod rot;

/// The database and what belongs to it.
const DATABASE_FILES: [&str; 3] = ["reticle.db", "reticle.db-wal", "reticle.db-shm"];

/// Kinds that cannot be done on this machine, each with the reason.
pub(crate) fn impossible(disk: Option<&Path>) -> Vec<(Kind, &'static str)> {
    let mut kinds = Vec::new();
    if disk.is_none() {
        kinds.push((Kind::FullDisk, "no small file system can be mounted here"));
    }
    if machine::faketime().is_none() {
        kinds.push((Kind::Clock, "libfaketime is not installed: scripts/setup test"));
    }
    if !mosquitto::is_installed() {
        kinds.push((Kind::BrokerReplay, "mosquitto is not installed: scripts/setup test"));
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
        Kind::Stop => machine::stop(bench),
        Kind::FullDisk => machine::full_disk(bench),
        Kind::Damage => machine::damage(bench),
        Kind::Clock => machine::clock(bench),
        Kind::RestoreOld => history::restore_old(bench),
        Kind::Rot => rot::rot(bench),
        Kind::Clone => history::clone(bench),
        Kind::Unlinked => files::unlinked(bench),
        Kind::ReplacedDb => files::replaced_db(bench),
        Kind::Descriptors => clients::descriptors(bench),
        Kind::SlowClients => clients::slow_clients(bench),
        Kind::PoisonImage => images::poison(bench),
        Kind::PageBomb => images::page_bomb(bench),
        Kind::S3Error => {
            archive::answer(bench, "", Fault::Status { code: 500, retry_after: None });
        }
        Kind::S3SlowDown => {
            archive::answer(bench, "", Fault::Status { code: 503, retry_after: Some(1) });
        }
        Kind::S3Hang => archive::hang(bench),
        Kind::S3Cut => {
            let after = bench.random.random_range(1..200);
            archive::answer(bench, "PUT ", Fault::CloseMidBody { after });
        }
        Kind::S3LostAnswer => archive::answer(bench, "PUT ", Fault::LoseAnswer),
        // The confirmation of a put; the archive asks for it by HEAD.
        Kind::S3Checksum => archive::answer(bench, "HEAD ", Fault::CorruptChecksum),
        Kind::S3Credentials => archive::credentials(bench),
        Kind::S3Restart => archive::restart(bench),
        Kind::PgRestart => central::restart(bench),
        Kind::PgConnections => central::connections(bench),
        Kind::PgReadOnly => central::read_only(bench),
        Kind::PgCut => central::cut(bench),
        Kind::PgSlow => central::slow(bench),
        Kind::SwallowedRows => central::swallowed_rows(bench),
        Kind::BrokerReplay => broker::replay(bench),
    }
    bench.fired.count(kind);
}

// ---- What several of them do --------------------------------------------------------------------

/// SIGSTOP; returns when the kernel says that the daemon is stopped.
fn freeze(bench: &Bench) {
    let pid = bench.daemon().pid();
    kill_process(process(pid), Signal::STOP).expect("a child can be stopped");
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    wait_for("the kernel to say that the daemon is stopped", || {
        let stat = fs::read_to_string(&stat).expect("a stopped process has a state");
        // The state stands behind the name, which is in brackets and may hold anything.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        (state == Some('T')).then_some(())
    });
}

/// SIGCONT.
fn thaw(bench: &Bench) {
    kill_process(process(bench.daemon().pid()), Signal::CONT).expect("a child can be continued");
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

fn words(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Copies a folder with all that is in it. What vanishes meanwhile is left out.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the bench's folder can be written");
    for entry in fs::read_dir(from).expect("the data folder can be listed") {
        let entry = entry.expect("the data folder can be listed");
        let to = to.join(entry.file_name());
        let copied = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                copy_folder(&entry.path(), &to);
                continue;
            }
            // A socket has no contents, and its daemon makes it anew.
            Ok(kind) if !kind.is_file() => continue,
            Ok(_) => fs::copy(entry.path(), &to).map(drop),
            Err(error) => Err(error),
        };
        match copied {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("{}: {error}", entry.path().display())
            }
            _ => {}
        }
    }
}

/// Removes a folder that may not be there.
fn remove_folder(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            panic!("{}: {error}", folder.display())
        }
        _ => {}
    }
}

fn process(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel gives positive process ids")
}

//! Files that are taken away from the running daemon: what it saves then, no name reaches.
//!
//! The daemon is stopped for a moment (SIGSTOP), and what it has on the disk is copied, as a power
//! cut would leave it. That copy is what is put back: whatever the daemon reports as saved
//! afterwards is lost, and the ledger knows. What was on its way to the archive at that moment may
//! have arrived there: the archive is read back before the daemon starts on the copy.

use std::fs;
use std::path::PathBuf;

use rand::Rng as _;

use super::{DATABASE_FILES, copy_database, copy_folder, freeze, history, remove_folder, thaw};
use crate::bench::Bench;

/// What the box says before it ends.
const ALARM: &str = "store_unlinked";

pub(super) fn unlinked(bench: &mut Bench) {
    bench.pause();
    freeze(bench);
    let copy = copy(bench);
    let gone = bench.data.with_extension("gone");
    let which = bench.random.random_range(0..3);
    let what = match which {
        0 => {
            fs::rename(&bench.data, &gone).expect("a folder can be renamed");
            "the data folder is renamed"
        }
        1 => {
            fs::remove_dir_all(&bench.data).expect("a folder can be removed");
            "the data folder is removed"
        }
        _ => {
            fs::remove_file(bench.data.join(DATABASE_FILES[1])).expect("the log can be removed");
            "the database's log is removed"
        }
    };
    end(bench, what);
    remove_folder(&gone);
    remove_folder(&bench.data);
    copy_folder(&copy, &bench.data);
    history::adopt_all(bench);
}

/// The database has another one in its place, as after a hasty restore.
pub(super) fn replaced_db(bench: &mut Bench) {
    bench.pause();
    freeze(bench);
    let copy = copy(bench);
    let other = bench.data.join("other.db");
    fs::copy(bench.database(), &other).expect("the database can be copied");
    fs::rename(&other, bench.database()).expect("a file can be renamed");
    end(bench, "the database is replaced");
    copy_database(&copy, &bench.data);
    history::adopt_all(bench);
}

/// What is on the disk now.
fn copy(bench: &Bench) -> PathBuf {
    let copy = bench.folder.join("as-it-was");
    remove_folder(&copy);
    copy_folder(&bench.data, &copy);
    copy
}

/// The daemon finds out, says so, and ends by itself, not as if all were well.
fn end(bench: &mut Bench, what: &str) {
    thaw(bench);
    let (status, log) = bench.wait_for_its_end();
    eprintln!("  {what}: {status}");
    assert!(!status.success(), "{what}, and the daemon ends as if nothing were wrong:\n{log}");
    assert!(log.contains(ALARM), "{what}, and the daemon does not say {ALARM}:\n{log}");
}

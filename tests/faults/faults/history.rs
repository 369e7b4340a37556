//! Faults by which a box knows less than the archive: an older copy of its database, a copy of it
//! that runs elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{copy_database, copy_folder, freeze, remove_folder, thaw, words};
use crate::bench::{Bench, PREFIX, has_alarm};
use crate::common::wait_for;
use crate::kind::one_in;

/// What the box says then.
const ALARM: &str = "archive_ahead";

/// The database goes back to where it was before some results, which are all delivered: none of
/// them is lost, and none of them is known to the box.
pub(super) fn restore_old(bench: &mut Bench) {
    if one_in(&mut bench.random, 2) { by_hand(bench) } else { by_program(bench) }
}

/// Somebody copies files, as after a snapshot of the whole machine: nobody tells the box.
fn by_hand(bench: &mut Bench) {
    bench.pause();
    let old = bench.folder.join("old");
    fs::create_dir_all(&old).expect("the bench's folder can be written");
    // In the middle of a session: the copy knows some frames of a part, and the archive will
    // have more.
    freeze(bench);
    copy_database(&bench.data, &old);
    thaw(bench);
    forget_what_comes(bench);
    copy_database(&old, &bench.data);

    let before = Delivered::by_now(bench);
    bench.go();
    wait_for("the box to say that the archive is ahead of it", || bench.alarm(ALARM).then_some(()));
    before.must_stay(bench);
    bench.end_or_kill();
    adopt_all(bench);
}

/// `reticle backup` of the running daemon, `reticle restore` of a stopped one.
fn by_program(bench: &mut Bench) {
    bench.pause();
    let backup = bench.folder.join("backup-of-the-program");
    remove_folder(&backup);
    fs::create_dir_all(&backup).expect("the bench's folder can be written");
    let file = backup.join("reticle.backup");
    let file = file.display().to_string();
    succeed(bench, &["backup", "--to", &file]);
    forget_what_comes(bench);
    succeed(bench, &["restore", "--from", &file, "--yes"]);
    bench.go();
    get_on(bench);
}

/// Some results that the copy does not have, and the archive and PostgreSQL do. The daemon has
/// ended then.
fn forget_what_comes(bench: &mut Bench) {
    bench.ledger.wait_for_more();
    bench.settle();
    bench.end_or_kill();
}

/// A second daemon under the same name, on a copy of everything.
pub(super) fn clone(bench: &mut Bench) {
    let folder = bench.folder.join("twin");
    remove_folder(&folder);
    if one_in(&mut bench.random, 2) {
        // A card is copied.
        bench.end_or_kill();
        copy_folder(&bench.data, &folder);
        bench.go();
    } else {
        // A snapshot of a virtual machine is started; the original goes on.
        bench.pause();
        freeze(bench);
        copy_folder(&bench.data, &folder);
        thaw(bench);
    }
    let twin = bench.twin(&folder);
    let ahead = |daemon: &crate::common::Daemon| {
        daemon.try_json("/api/v1/status").is_ok_and(|status| has_alarm(&status, ALARM))
    };
    wait_for("both to say that they are not alone", || {
        (ahead(bench.daemon()) && ahead(&twin)).then_some(())
    });
    Delivered::by_now(bench).must_stay(bench);
    twin.kill();
    bench.end_or_kill();
    let of_twin = sessions(&folder.join("reticle.db"));
    remove_folder(&folder);
    let named = adopt(bench);
    name_what_is_gone(bench, &of_twin, &named);
}

/// The twin may have been first at PostgreSQL and delivered there what it alone has. Nobody can
/// bring that back; whoever counts must be told of it.
fn name_what_is_gone(bench: &mut Bench, of_twin: &BTreeSet<String>, named: &BTreeSet<String>) {
    let there = bench.postgres.psql("SELECT id FROM reticle.session");
    let here = sessions(&bench.database());
    let only_there: BTreeSet<String> = there
        .lines()
        .filter(|id| of_twin.contains(*id) && !here.contains(*id))
        .map(str::to_owned)
        .collect();
    for session in &only_there {
        assert!(named.contains(session), "`sync adopt` does not name session {session}");
        eprintln!("  session {session} of the twin is only in PostgreSQL, and was named");
    }
    bench.gone.extend(named.intersection(of_twin).cloned());
}

fn sessions(database: &Path) -> BTreeSet<String> {
    let place = crate::places::store(database).expect("a database that was closed can be read");
    place.sessions.into_iter().collect()
}

/// The same where all of it comes back.
pub(super) fn adopt_all(bench: &mut Bench) {
    let named = adopt(bench);
    assert!(named.is_subset(&bench.gone), "something does not come back: {named:?}");
}

/// The way forward, and that it leads there; the sessions of which something does not come back.
fn adopt(bench: &mut Bench) -> BTreeSet<String> {
    let (is_fine, adopted) = bench.report(&["sync", "adopt", "--json"]);
    assert!(is_fine, "reticle sync adopt ends with:\n{adopted:#}");
    let lacking = adopted["missing"].as_array().expect("a list");
    lacking.iter().for_each(|one| eprintln!("  {one}"));
    let named = lacking.iter().filter_map(|one| one["session"].as_str().map(str::to_owned));
    let named: BTreeSet<String> = named.collect();
    eprintln!("  reticle sync adopt: changed {}, {} named", adopted["changed"], named.len());
    bench.go();
    get_on(bench);
    named
}

/// The box delivers again.
fn get_on(bench: &mut Bench) {
    wait_for("the alarm to end", || {
        bench.status().filter(|status| !has_alarm(status, ALARM)).map(drop)
    });
    bench.archive_again();
    bench.central_again();
}

/// Runs a verb of the program that must end well.
fn succeed(bench: &Bench, verb: &[&str]) {
    let output = bench.reticle(verb).output().expect("the program can be started");
    let words = words(&output);
    assert!(output.status.success(), "reticle {} ends with:\n{words}", verb.join(" "));
    eprintln!("  reticle {}: {}", verb.join(" "), words.lines().last().unwrap_or_default());
}

/// What the archive and PostgreSQL hold.
#[derive(PartialEq, Eq)]
struct Delivered {
    /// Hash of each object, without what boxes say of themselves.
    objects: BTreeMap<String, String>,
    /// Sessions, frames, results and objects.
    rows: String,
}

impl Delivered {
    fn by_now(bench: &Bench) -> Self {
        let mut objects = BTreeMap::new();
        let root = bench.s3.bucket().join(PREFIX);
        hash(&root, &root, &mut objects);
        let rows = bench.postgres.psql(
            "SELECT (SELECT count(*) FROM reticle.session), (SELECT count(*) FROM reticle.frame),
                    (SELECT count(*) FROM reticle.segmentation),
                    (SELECT count(*) FROM reticle.object)",
        );
        Self { objects, rows }
    }

    /// Nothing is delivered any more, although there is something to deliver.
    fn must_stay(&self, bench: &mut Bench) {
        // Frames come meanwhile, and more than the delay after which they would be delivered.
        let saved = || bench.status().and_then(|status| status["counters"]["saved"].as_u64());
        let before = saved();
        wait_for("results that wait", || (saved()? > before? + 20).then_some(()));
        let now = Self::by_now(bench);
        for (key, sha256) in &now.objects {
            let before = self.objects.get(key);
            assert!(
                before == Some(sha256),
                "{key} is written by a box that knows less than the archive; it was {before:?} \
                 and is {sha256}"
            );
        }
        assert!(now.objects.len() == self.objects.len(), "objects of the archive are gone");
        assert_eq!(now.rows, self.rows, "PostgreSQL takes rows of a box that knows less");
    }
}

fn hash(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == ".reticle" {
            continue;
        }
        if path.is_dir() {
            hash(root, &path, into);
        } else if let (Ok(key), Ok(bytes)) = (path.strip_prefix(root), fs::read(&path)) {
            into.insert(key.display().to_string(), hex::encode(Sha256::digest(bytes)));
        }
    }
}

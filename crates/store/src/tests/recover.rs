//! Restores and adoptions, killed between every two steps.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::clean;
use crate::fixture::{self, Bench};
use crate::*;
use reticle_base::clock::Clock;
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;
use reticle_domain::facts::Dated;
use reticle_domain::session::Session;

const FOLDER: &str = "RETICLE_TEST_RECOVER_FOLDER";
const TASK: &str = "RETICLE_TEST_RECOVER_TASK";

/// Every point in the code of a restore, in order. From the second on the backup counts.
pub(super) const RESTORE_POINTS: [&str; 4] = [
    "restore ready",
    "restore decided",
    "part of the old database set aside",
    "restored database in place",
];

/// Those of an adoption.
pub(super) const ADOPT_POINTS: [&str; 2] = ["adopted rows inserted", "orphan brought back"];

#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    reticle_base::crash::arm(super::crash::die_where_asked);
    let folder = Path::new(&folder);
    if std::env::var(TASK).as_deref() == Ok("restore") {
        restore(folder);
    } else {
        adopt(folder);
    }
}

fn restore(folder: &Path) -> Restored {
    let restoring = Restoring::prepare(&folder.join("data"), &folder.join("old.db")).unwrap();
    restoring.put_in_place(&Clock::system()).unwrap()
}

fn run_child(folder: &Path, task: &str, crash_at: &str) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::recover::child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(TASK, task)
        .env(super::crash::CRASH_AT, crash_at)
        .status()
        .unwrap();
    let killed = status.signal() == Some(9);
    assert!(killed || status.success(), "{crash_at}: {status}");
    killed
}

/// Ids of the frames of a database.
fn frames_of(database: &Path) -> BTreeSet<[u8; 16]> {
    let db = rusqlite::Connection::open(database).unwrap();
    let mut frames = db.prepare("SELECT id FROM frame").unwrap();
    frames.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A store of six frames, and a backup from when it had three.
fn three_of_six(folder: &Path) -> (BTreeSet<[u8; 16]>, BTreeSet<[u8; 16]>) {
    let data = folder.join("data");
    let mut bench = Bench::open(&fixture::options(&data));
    for sequence in 0..6 {
        if sequence == 3 {
            backup(&data, &folder.join("old.db")).unwrap();
        }
        bench.take(sequence, 3);
    }
    bench.close();
    (frames_of(&folder.join("old.db")), frames_of(&data.join("reticle.db")))
}

#[test]
fn a_restore_killed_between_any_two_steps_is_not_begun_or_goes_on() {
    for point in RESTORE_POINTS {
        for nth in ["", ":2", ":3"] {
            let folder = tempfile::tempdir().unwrap();
            let (old, all) = three_of_six(folder.path());
            let at = format!("{point}{nth}");
            let killed = run_child(folder.path(), "restore", &at);
            let repeats = point == RESTORE_POINTS[2];
            assert_eq!(killed, nth.is_empty() || repeats, "{at}");
            let data = folder.path().join("data");
            let (store, _) = Store::open(&fixture::options(&data), Clock::system()).unwrap();
            store.close();
            let now = frames_of(&data.join("reticle.db"));
            if killed && point == RESTORE_POINTS[0] {
                assert_eq!(now, all, "{at}: nothing was decided yet");
            } else {
                assert_eq!(now, old, "{at}");
                let aside = std::fs::read_dir(data.join("set-aside")).unwrap().next().unwrap();
                assert_eq!(frames_of(&aside.unwrap().path().join("reticle.db")), all, "{at}");
            }
            assert!(
                !data.join("restoring").exists() && !data.join("reticle.db.restored-wal").exists()
            );
            clean(&data);
        }
    }
}

#[test]
fn a_restore_says_what_it_takes_away_and_begins_an_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (old, all) = three_of_six(folder.path());
    let data = folder.path().join("data");
    let before = Reader::open(&data).unwrap().identity().unwrap();
    // A file of the backup's own frames that went meanwhile, and one that became an orphan.
    let files: Vec<_> = crate::frames::list(&data).unwrap().0;
    let of_backup: Vec<_> =
        files.iter().filter(|file| old.contains(file.frame().unwrap().as_bytes())).collect();
    std::fs::remove_file(&of_backup[0].path).unwrap();
    let orphan = data.join("orphans").join(of_backup[1].name.strip_prefix("frames/").unwrap());
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::rename(&of_backup[1].path, &orphan).unwrap();

    let restoring = Restoring::prepare(&data, &folder.path().join("old.db")).unwrap();
    let Present::Store { missing, .. } = &restoring.plan().present else { panic!("it is there") };
    assert_eq!((missing.frames, missing.results, missing.other_store), (3, 3, false));
    assert_eq!((missing.sessions, all.len() - old.len()), (0, 3));
    assert!(missing.objects > 0 && missing.first <= missing.last && missing.first.is_some());
    let restored = restoring.put_in_place(&Clock::system()).unwrap();
    assert_eq!((restored.files, restored.from_orphans, restored.files_missing), (2, 1, 1));
    assert_eq!(restored.identity.store, before.store);
    assert_ne!(restored.identity.epoch, before.epoch);
    let (store, recovery) = Store::open(&fixture::options(&data), Clock::system()).unwrap();
    assert_eq!((recovery.orphans, recovery.missing), (3, 0), "of the three that are forgotten");
    store.close();
    clean(&data);
}

#[test]
fn a_restore_waits_for_no_daemon() {
    let folder = tempfile::tempdir().unwrap();
    three_of_six(folder.path());
    let data = folder.path().join("data");
    let (store, _) = Store::open(&fixture::options(&data), Clock::system()).unwrap();
    let refused = Restoring::prepare(&data, &folder.path().join("old.db")).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    store.close();
}

/// What an archive would say of the store in `data`, read from it.
fn donor(data: &Path) -> (AdoptedSession, AdoptedPart) {
    let reader = Reader::open(data).unwrap();
    let session = reader.sessions().unwrap().remove(0).id;
    let facts = reader.session_facts(session).unwrap().unwrap();
    let series = reader.series(session).unwrap().remove(0);
    let model = reader.models_of(session).unwrap().remove(0);
    let stamp = |dated: &Dated| Stamp {
        wall_ns: dated.recorded_ns,
        mono_ns: dated.mono_ns,
        boot_id: dated.boot,
    };
    let frames = reader.frames_of(&series, 0..64).unwrap();
    let results = reader.results_of(&series, &model, 0..64).unwrap();
    let there = results.len() as u64;
    let results = results.iter().map(|result| {
        let labels = reader.labels_of(result).unwrap();
        let objects = reader.objects_of(result).unwrap();
        let known = (result.focus, result.timings, result.look, Some(stamp(&result.committed)));
        AdoptedResult::new(result.frame.id, &labels, objects, known).unwrap()
    });
    let results = AdoptedResults {
        model: model.model.clone(),
        results: results.collect(),
        there,
        receipts: vec![receipt("labels", there)],
    };
    let session = AdoptedSession {
        session: Session {
            id: session,
            name: facts.name.clone(),
            source: facts.source.clone(),
            channel: facts.channel.clone(),
            operator: facts.operator.clone(),
            pixel_size_um: facts.pixel_size_um,
            started: stamp(&facts.started),
        },
        ended: None,
        archive_date: "2026-11-28".to_owned(),
        series: vec![AdoptedSeries {
            number: series.number,
            width: series.width,
            height: series.height,
            bytes_per_pixel: series.bytes_per_pixel,
            part_frames: series.part_frames,
            frames: series.frames,
        }],
    };
    let part = AdoptedPart {
        table: Some(receipt("frames", frames.len() as u64)),
        frames: frames.into_iter().map(|facts| AdoptedFrame { facts, in_archive: false }).collect(),
        results: vec![results],
        ..AdoptedPart::default()
    };
    (session, part)
}

fn receipt(key: &str, rows: u64) -> Receipt {
    Receipt {
        location: "file:/archive".into(),
        key: key.into(),
        bytes: 10,
        sha256: [7; 32],
        etag: "tag".into(),
        checksum: "sha256:07".into(),
        rows,
    }
}

/// Reads the store in `data` back into the one in `new`; what was taken.
fn adopt(folder: &Path) -> PartTaken {
    let (session, part) = donor(&folder.join("data"));
    let options = fixture::options(&folder.join("new"));
    let (mut store, _) = Store::open(&options, Clock::system()).unwrap();
    store.deliver_to(fixture::deliveries()).unwrap();
    let changed = store.adopt_session(&session).unwrap().unwrap();
    let taken = store.adopt_part(session.session.id, &part).unwrap().unwrap();
    let documents = [receipt("manifest", 0)];
    store.adopt_documents(session.session.id, &documents, Some(changed)).unwrap();
    store.take_back_orphans().unwrap();
    store.close();
    taken
}

/// The files of a store, where a crash would leave those without a row.
fn orphans_of(folder: &Path) {
    let new = folder.join("new");
    std::fs::create_dir_all(&new).unwrap();
    std::fs::rename(folder.join("data/frames"), new.join("orphans")).unwrap();
    let db = rusqlite::Connection::open(folder.join("data/reticle.db")).unwrap();
    db.execute("UPDATE frame SET file = NULL, file_bytes = NULL, no_file = 'not_restored'", [])
        .unwrap();
}

#[test]
fn an_adoption_killed_at_any_moment_is_made_whole_by_another_one() {
    for point in ADOPT_POINTS {
        for nth in ["", ":2", ":3"] {
            let folder = tempfile::tempdir().unwrap();
            let (_, all) = three_of_six(folder.path());
            orphans_of(folder.path());
            let at = format!("{point}{nth}");
            assert!(run_child(folder.path(), "adopt", &at), "{at}");
            adopt(folder.path());
            let new = folder.path().join("new");
            assert_eq!(frames_of(&new.join("reticle.db")), all, "{at}");
            let totals = Reader::open(&new).unwrap().totals().unwrap();
            assert_eq!((totals.segmentations, totals.kept_files), (6, 6), "{at}");
            clean(&new);
            assert!(adopt(folder.path()).is_nothing(), "{at}: again is nothing");
            clean(&new);
        }
    }
}

#[test]
fn what_came_back_is_delivered_as_far_as_the_archive_lacks_it() {
    let folder = tempfile::tempdir().unwrap();
    three_of_six(folder.path());
    orphans_of(folder.path());
    adopt(folder.path());
    let mut bench =
        Bench::delivering(&fixture::options(&folder.path().join("new")), fixture::deliveries());
    let session = bench.session.id;
    let kinds = |items: Vec<Item>| -> Vec<Kind> {
        items.into_iter().filter(|item| item.session != session).map(|item| item.kind).collect()
    };
    // The archive has the frames and the results; files that found their rows, it has not.
    assert_eq!(kinds(bench.claim(Destination::Archive)), [Kind::Pixels]);
    let central = kinds(bench.claim(Destination::Central));
    assert_eq!(central, [Kind::Session, Kind::Frames, Kind::Results]);
    bench.close();
}

#[test]
fn a_session_that_two_stores_went_on_with_is_refused_and_held_back() {
    let folder = tempfile::tempdir().unwrap();
    three_of_six(folder.path());
    adopt(folder.path());
    let (session, mut part) = donor(&folder.path().join("data"));
    let id = session.session.id;
    let options = fixture::options(&folder.path().join("new"));
    let (mut store, _) = Store::open(&options, Clock::system()).unwrap();
    store.deliver_to(fixture::deliveries()).unwrap();
    part.frames[2].facts.id = FrameId::new();
    let refusal = store.adopt_part(id, &part).unwrap().unwrap_err();
    assert!(refusal.0.contains("position 2 of series 0"), "{refusal:?}");
    store.hold_back(id, &refusal.0).unwrap();
    let reader = store.reader();
    assert_eq!(reader.totals().unwrap().frames, 6, "nothing of it was taken");
    assert!(reader.quarantined().unwrap().iter().any(|part| part.reason == refusal.0));
    store.close();
    clean(&folder.path().join("new"));
}

#[test]
fn positions_of_which_nothing_came_back_stay_free() {
    let folder = tempfile::tempdir().unwrap();
    three_of_six(folder.path());
    let (session, mut part) = donor(&folder.path().join("data"));
    let id = session.session.id;
    let options = fixture::options(&folder.path().join("new"));
    let (mut store, _) = Store::open(&options, Clock::system()).unwrap();
    store.deliver_to(fixture::deliveries()).unwrap();
    let whole = part.clone();
    part.frames.retain(|frame| ![0, 3, 4].contains(&frame.facts.position));
    store.adopt_session(&session).unwrap().unwrap();
    assert_eq!(store.adopt_part(id, &part).unwrap().unwrap().frames, 3);
    assert_eq!(store.reader().series(id).unwrap()[0].frames, 6);
    store.close();
    clean(&options.folder);
    // When more of it is found, it takes its place.
    let (mut store, _) = Store::open(&options, Clock::system()).unwrap();
    store.deliver_to(fixture::deliveries()).unwrap();
    assert_eq!(store.adopt_part(id, &whole).unwrap().unwrap().frames, 3);
    store.close();
    clean(&options.folder);
}

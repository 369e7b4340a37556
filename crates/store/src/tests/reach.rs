//! Nothing is called saved that the names of the store do not lead to.

use super::*;

/// A store with some results in it; then something happens to its files, and more comes. What was
/// reported of that.
fn after(event: impl FnOnce(&Path)) -> (tempfile::TempDir, Vec<Outcome>) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut bench = Bench::open(&fixture::options(&data));
    for sequence in 0..3 {
        bench.take(sequence, 5);
    }
    assert_eq!(saved(&bench.outcomes), 3);
    let reader = bench.reader();
    assert_eq!(reader.totals().unwrap().segmentations, 3);
    event(folder.path());
    bench.outcomes.clear();
    for sequence in 3..6 {
        bench.take(sequence, 5);
    }
    let error = reader.totals().unwrap_err();
    assert!(matches!(error, StoreError::Unlinked { .. }), "{error}");
    (folder, bench.close())
}

fn is_refused(outcomes: &[Outcome], what: &str) {
    assert_eq!(saved(outcomes), 0, "{outcomes:?}");
    assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Kept { .. })));
    let told: Vec<&String> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Unlinked { reason } => Some(reason),
            _ => None,
        })
        .collect();
    assert!(matches!(told[..], [reason] if reason.starts_with(what)), "once: {told:?}");
    assert_eq!(failures(outcomes).len(), 6, "three frames and three results");
}

fn results(folder: &Path) -> usize {
    Reader::open(folder).unwrap().saved_frames(None, 100).unwrap().len()
}

#[test]
fn a_folder_that_is_removed_or_moved_is_not_written_into() {
    let (_folder, outcomes) = after(|root| fs::remove_dir_all(root.join("data")).unwrap());
    is_refused(&outcomes, "the data folder");

    let (folder, outcomes) =
        after(|root| fs::rename(root.join("data"), root.join("moved")).unwrap());
    is_refused(&outcomes, "the data folder");
    assert!(!folder.path().join("data").exists(), "nothing is made where it was");
    assert_eq!(results(&folder.path().join("moved")), 3);
    clean(&folder.path().join("moved"));
}

#[test]
fn no_new_store_is_made_where_another_is_elsewhere() {
    let (folder, outcomes) = after(|root| {
        fs::rename(root.join("data"), root.join("moved")).unwrap();
        fs::create_dir(root.join("data")).unwrap();
    });
    is_refused(&outcomes, "the data folder");
    let data = folder.path().join("data");
    let options = fixture::options(&data);
    let error = Store::open(&options, Clock::system()).err().unwrap();
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("its file system is not mounted"), "{error}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "the note, and nothing else");
    // Put back, it is as before; the note was in what was there meanwhile.
    fs::rename(&data, folder.path().join("between")).unwrap();
    fs::rename(folder.path().join("moved"), &data).unwrap();
    Bench::open(&options).close();
    assert_eq!(results(&data), 3);
    clean(&data);
}

#[test]
fn a_database_that_is_renamed_is_whole_and_not_replaced_by_a_new_one() {
    let (folder, outcomes) =
        after(|root| fs::rename(root.join("data/reticle.db"), root.join("moved.db")).unwrap());
    is_refused(&outcomes, "the database");
    let options = fixture::options(&folder.path().join("data"));
    let error = Store::open(&options, Clock::system()).err().unwrap();
    assert!(error.to_string().contains("frame files of it are there"), "{error}");
    // Without its log, as somebody would copy it.
    let database = folder.path().join("data/reticle.db");
    fs::remove_file(folder.path().join("data/reticle.db-wal")).ok();
    fs::rename(folder.path().join("moved.db"), database).unwrap();
    Bench::open(&options).close();
    assert_eq!(results(&options.folder), 3);
    clean(&options.folder);
}

#[test]
fn a_database_that_is_put_in_the_place_of_ours_is_not_touched() {
    let other = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(other.path()));
    bench.take(0, 4);
    bench.close();
    let theirs = fs::read(other.path().join("reticle.db")).unwrap();
    let (folder, outcomes) = after(|root| {
        fs::rename(other.path().join("reticle.db"), root.join("data/reticle.db")).unwrap();
    });
    is_refused(&outcomes, "the database");
    assert_eq!(fs::read(folder.path().join("data/reticle.db")).unwrap(), theirs);
    assert_eq!(results(&folder.path().join("data")), 1, "it gets no log of another");
}

#[test]
fn a_log_that_is_deleted_or_replaced_costs_nothing() {
    for replaced in [false, true] {
        let (folder, outcomes) = after(|root| {
            fs::remove_file(root.join("data/reticle.db-wal")).unwrap();
            if replaced {
                fs::write(root.join("data/reticle.db-wal"), b"somebody else's").unwrap();
            }
        });
        is_refused(&outcomes, "the database's log");
        let data = folder.path().join("data");
        Bench::open(&fixture::options(&data)).close();
        assert_eq!(results(&data), 3);
        clean(&data);
    }
}

#[test]
fn frame_files_that_are_moved_and_a_lock_that_is_gone_are_noticed() {
    let (_folder, outcomes) =
        after(|root| fs::rename(root.join("data/frames"), root.join("frames")).unwrap());
    is_refused(&outcomes, "the folder of frame files");
    let (_folder, outcomes) = after(|root| fs::remove_file(root.join("data/lock")).unwrap());
    is_refused(&outcomes, "the lock");
}

#[test]
fn an_idle_writer_notices_it_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    fs::remove_file(folder.path().join("reticle.db")).unwrap();
    let outcomes = &mut bench.outcomes;
    outcomes.clear();
    bench.writer.idle(&mut |outcome| outcomes.push(outcome));
    assert!(matches!(bench.outcomes[..], [Outcome::Unlinked { .. }]), "{:?}", bench.outcomes);
}

#[test]
fn a_connection_that_is_made_anew_is_one_to_the_same_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.take(0, 3);
    bench.writer.let_go(&mut |_| {});
    bench.take(1, 3);
    assert_eq!(saved(&bench.outcomes), 2);
    bench.writer.let_go(&mut |_| {});
    let database = folder.path().join("reticle.db");
    fs::copy(&database, folder.path().join("copy.db")).unwrap();
    fs::rename(folder.path().join("copy.db"), &database).unwrap();
    bench.outcomes.clear();
    bench.take(2, 3);
    assert_eq!(saved(&bench.outcomes), 0);
}

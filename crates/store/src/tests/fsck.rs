//! Each invariant, broken on purpose, is found and named.

#![expect(clippy::disallowed_methods, reason = "damage is done in place")]

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::clean;
use crate::fixture::{self, Bench};
use crate::*;

/// A store with three results (one frame evicted), closed in order.
fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.take(0, 4);
    bench.writer.evict_for_full_disk(&mut |_| {}).unwrap();
    bench.take(1, 4);
    bench.take(2, 4);
    let close = Job::Close { session: bench.session.id, at: bench.clock.now() };
    bench.work(vec![close]);
    let file = bench.reader().newest_frames(1).unwrap().remove(0).file.unwrap();
    bench.close();
    clean(folder.path());
    let file = folder.path().join(file);
    (folder, file)
}

/// Does what no part of Reticle would do.
fn vandalise(folder: &Path, sql: &str) {
    let db = Connection::open(folder.join("reticle.db")).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    db.pragma_update(None, "ignore_check_constraints", true).unwrap();
    db.execute_batch(sql).unwrap();
}

/// That exactly this invariant is found broken; what is said of it.
fn broken(folder: &Path, invariant: &str) -> String {
    let report = fsck(folder, Depth::Full, |_, _| {}).unwrap();
    let numbers: Vec<_> = report.broken_counts.keys().collect();
    assert_eq!(numbers, [invariant], "{report:#?}");
    format!("{}: {}", report.broken[0].place, report.broken[0].what)
}

#[test]
fn i1_a_reference_into_nothing_is_found() {
    let (folder, _) = store();
    vandalise(folder.path(), "UPDATE frame SET captured_boot = 99 WHERE pk = 2");
    let found = broken(folder.path(), "I1");
    assert!(found.contains("row 2 of frame names a row of boot that is not there"), "{found}");
}

#[test]
fn i1_a_damaged_page_is_found() {
    let (folder, _) = store();
    let path = folder.path().join("reticle.db");
    let db = Connection::open(&path).unwrap();
    let page: u64 = db
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'object'", [], |row| {
            row.get::<_, i64>(0).map(i64::cast_unsigned)
        })
        .unwrap();
    drop(db);
    let mut bytes = fs::read(&path).unwrap();
    let at = (page as usize - 1) * 4096;
    bytes[at + 100..at + 4096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    match fsck(folder.path(), Depth::Quick, |_, _| {}) {
        Ok(report) => assert!(report.broken_counts.contains_key("I1"), "{report:#?}"),
        Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
    }
}

#[test]
fn i2_another_schema_is_told_and_not_misread() {
    let (folder, _) = store();
    vandalise(folder.path(), "UPDATE refinery_schema_history SET version = version + 74");
    let newest = crate::sql::schema::newest_version();
    let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.notes[0].what.contains("of a newer Reticle"), "{report:#?}");
    vandalise(folder.path(), "UPDATE compatibility SET oldest_reader = 70");
    let error = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found, .. } if found == newest + 74), "{error}");
    vandalise(folder.path(), "UPDATE compatibility SET oldest_reader = 1");
    vandalise(folder.path(), "DELETE FROM refinery_schema_history");
    let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
    let what = format!("the next start brings it to {newest}");
    assert!(report.notes[0].what.contains(&what), "{report:#?}");
}

#[test]
fn i3_a_missing_a_short_and_a_misplaced_file_are_found() {
    let (folder, file) = store();
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let found = broken(folder.path(), "I3");
    assert!(found.contains("cannot be found") && found.contains(".tif"), "{found}");
    fs::write(&file, &whole[..100]).unwrap();
    let found = broken(folder.path(), "I3");
    assert!(found.contains("has 100 bytes, not"), "{found}");
    fs::write(&file, whole).unwrap();
    clean(folder.path());
    let elsewhere = file.with_file_name("elsewhere.tif");
    fs::rename(&file, &elsewhere).unwrap();
    vandalise(
        folder.path(),
        "UPDATE frame SET file = rtrim(rtrim(file, replace(file, '/', '')), '') || 'elsewhere.tif'
         WHERE pk = 3",
    );
    let found = broken(folder.path(), "I3");
    assert!(found.contains("the file should be frames/"), "{found}");
}

#[test]
fn i4_a_changed_pixel_is_found() {
    let (folder, file) = store();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let found = broken(folder.path(), "I4");
    assert!(found.contains("the pixels have the hash"), "{found}");
    let quick = fsck(folder.path(), Depth::Quick, |_, _| {}).unwrap();
    assert!(quick.is_clean() && quick.quick, "{quick:#?}");
}

#[test]
fn i5_a_file_without_a_row_is_found() {
    let (folder, file) = store();
    fs::copy(&file, file.with_file_name("0190aaaa-0000-7000-8000-000000000001.tif")).unwrap();
    fs::write(file.with_file_name("half.tif.tmp"), b"half").unwrap();
    let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
    assert_eq!(report.broken_counts.get("I5"), Some(&2), "{report:#?}");
    let bench = Bench::open(&fixture::options(folder.path()));
    assert_eq!((bench.recovery.orphans, bench.recovery.temporaries), (1, 1));
    bench.close();
    assert!(clean(folder.path()).notes[0].what.contains("look at them"));
}

#[test]
fn i6_a_label_image_that_is_not_the_recorded_one_is_found() {
    for (sql, what) in [
        ("UPDATE segmentation SET labels = x'00' WHERE pk = 3", "its head is damaged"),
        ("UPDATE segmentation SET labels_sha256 = zeroblob(32) WHERE pk = 3", "has the hash"),
        ("UPDATE frame SET width = 63 WHERE pk = 1", "the label image is 64×64, its frame 63×64"),
    ] {
        let (folder, _) = store();
        vandalise(folder.path(), sql);
        let found = broken(folder.path(), "I6");
        assert!(found.contains(what), "{found}");
    }
}

#[test]
fn i7_objects_that_are_not_those_of_the_labels_are_found() {
    for (sql, what) in [
        ("DELETE FROM object WHERE segmentation = 2 AND label = 1", "are not 1 to"),
        ("UPDATE object SET area = area + 1 WHERE segmentation = 2 AND label = 1", "the areas"),
        ("UPDATE object SET label = 900 WHERE segmentation = 2 AND label = 1", "are not 1 to"),
    ] {
        let (folder, _) = store();
        vandalise(folder.path(), sql);
        let found = broken(folder.path(), "I7");
        assert!(found.contains(what), "{found}");
    }
}

#[test]
fn i8_a_wrong_mark_is_found() {
    let (folder, _) = store();
    vandalise(folder.path(), "UPDATE frame SET segmented = 0 WHERE pk = 2");
    let found = broken(folder.path(), "I8");
    assert!(found.contains("has a result, but no mark"), "{found}");
}

#[test]
fn i9_a_wrong_counter_is_found() {
    let (folder, _) = store();
    vandalise(folder.path(), "UPDATE session SET objects = objects + 1");
    let found = broken(folder.path(), "I9");
    assert!(found.contains("counts 3 frames, 3 results"), "{found}");
}

#[test]
fn i10_an_uncounted_eviction_is_found() {
    for sql in ["DELETE FROM tally", "UPDATE tally SET count = 5"] {
        let (folder, _) = store();
        vandalise(folder.path(), sql);
        let found = broken(folder.path(), "I10");
        assert!(found.contains("1 frames were evicted"), "{found}");
    }
}

#[test]
fn i11_time_that_goes_back_is_found() {
    for (sql, what) in [
        ("UPDATE segmentation SET committed_mono_ns = 9e18 WHERE pk = 2", "before result 2"),
        ("UPDATE frame SET captured_mono_ns = 9e18 WHERE pk = 2", "before its frame was captured"),
        ("UPDATE session SET ended_mono_ns = 0", "ended before it started"),
    ] {
        let (folder, _) = store();
        vandalise(folder.path(), sql);
        let found = broken(folder.path(), "I11");
        assert!(found.contains(what), "{found}");
    }
}

#[test]
fn a_thousand_faults_are_counted_and_a_hundred_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let answer = bench.take(0, 0);
    bench.close();
    let id = hex::encode(answer.frame.id.as_bytes());
    vandalise(
        folder.path(),
        &format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 150)
             INSERT INTO frame (id, session, sequence, captured_wall_ns, captured_mono_ns,
                 captured_boot, width, height, bit_depth, sha256, file, file_bytes, series, position)
             SELECT randomblob(16), session, n, 0, 0, captured_boot, 1, 1, 8, sha256, 'f' || n, 1,
                    series, position + n
             FROM frame, n WHERE id = x'{id}';
             UPDATE session SET frames = 151"
        ),
    );
    let report = fsck(folder.path(), Depth::Quick, |_, _| {}).unwrap();
    assert_eq!((report.broken_counts["I3"], report.broken.len()), (150, 100));
}

#[test]
fn no_store_is_an_error_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let error = fsck(folder.path(), Depth::Quick, |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("cannot find the store"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn i12_a_hole_in_a_series_is_found() {
    let (folder, _) = store();
    vandalise(folder.path(), "UPDATE frame SET position = 7 WHERE position = 2");
    let found = broken(folder.path(), "I12");
    assert!(found.contains("holds 3 at positions 0 to 7"), "{found}");
}

#[test]
fn i13_a_sum_that_is_not_that_of_the_results_is_found() {
    let (folder, _) = store();
    vandalise(folder.path(), "UPDATE field_sum SET area = area + 1");
    let found = broken(folder.path(), "I13");
    assert!(found.starts_with("field_sum P1 C07 3: says 3 frames"), "{found}");
    vandalise(folder.path(), "UPDATE field_sum SET area = area - 1; DELETE FROM minute_sum");
    assert!(broken(folder.path(), "I13").starts_with("minute_sum"));
}

/// A store whose archive has everything.
fn delivered() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    bench.take(0, 4);
    for item in bench.claim(Destination::Archive) {
        bench.deliver(&item);
    }
    bench.close();
    clean(folder.path());
    folder
}

#[test]
fn i14_what_nobody_would_deliver_is_found() {
    for (damage, words) in [
        ("DELETE FROM receipt; DELETE FROM outbox WHERE kind = 'results'", "are requested"),
        ("UPDATE outbox SET requested = 0, delivered = 0 WHERE kind = 'frames'", "0 are requested"),
        ("DELETE FROM receipt", "there is no receipt"),
    ] {
        let folder = delivered();
        vandalise(folder.path(), damage);
        let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
        assert!(report.broken_counts.contains_key("I14"), "{damage}: {report:#?}");
        assert!(report.broken.iter().any(|found| found.what.contains(words)), "{report:#?}");
    }
}

#[test]
fn i15_a_cursor_that_would_pass_over_what_comes_is_found() {
    for (damage, words) in [
        (
            "UPDATE publish_cursor SET acknowledged = 7 WHERE stream = 'results'",
            "is at 7; there are keys up to 1",
        ),
        (
            "UPDATE publish_cursor SET acknowledged = 3 WHERE stream = 'events'",
            "is at 3; there are keys up to 2",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(&fixture::options(folder.path()));
        bench.writer.publish_to(Some("mqtt://broker")).unwrap();
        for _ in 0..2 {
            let what = reticle_domain::event::What::Stopping {};
            let id = reticle_base::ids::EventId::new();
            let at = bench.clock.now();
            let event = reticle_domain::event::Event { id, at, session: None, what };
            bench.work(vec![Job::Event(event)]);
        }
        bench.take(0, 4);
        bench.close();
        clean(folder.path());
        vandalise(folder.path(), damage);
        let found = broken(folder.path(), "I15");
        assert!(found.contains(words), "{found}");
    }
}

/// Older versions used up a key whenever labels were imported again; keys grow, and have holes.
#[test]
fn a_healthy_store_whose_keys_have_holes_is_clean_and_counts_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.publish_to(Some("mqtt://broker")).unwrap();
    bench.take(0, 4);
    for hole in ["seq + 1", "seq + 40"] {
        let db = bench.writer.connection().unwrap();
        db.execute_batch(&format!("UPDATE sqlite_sequence SET seq = {hole}")).unwrap();
        bench.take(1, 4);
        let id = reticle_base::ids::EventId::new();
        let what = reticle_domain::event::What::Stopping {};
        let event = reticle_domain::event::Event { id, at: bench.clock.now(), session: None, what };
        bench.work(vec![Job::Event(event)]);
        bench.take(2, 4);
    }
    let told = bench.reader().publish_cursors().unwrap();
    assert_eq!(told.iter().map(|told| told.waiting).collect::<Vec<_>>(), [2, 5], "{told:?}");
    bench.close();
    clean(folder.path());
}

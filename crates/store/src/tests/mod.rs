//! What the store promises, tried on real folders.

#![expect(clippy::disallowed_methods, reason = "files and channels of a test need not last")]

mod clock_correction;
mod crash;
mod cursor;
mod fsck;
mod intake;
mod outbox;
mod reach;
mod recover;
mod way_back;

use reticle_base::remedy::Remedy;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::fixture::{self, Bench, EDGE};
use reticle_base::clock::Clock;
use reticle_base::ids::{FrameId, SessionId};
use reticle_base::queue;
use reticle_domain::pixel_size::PixelSizeSource;

/// Bytes of one frame file of the fixture, to within its head.
const PIXEL_BYTES: u64 = (EDGE * EDGE * 2) as u64;

fn clean(folder: &Path) -> FsckReport {
    let report = fsck(folder, Depth::Full, |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    report
}

fn files(folder: &Path) -> usize {
    frames::list(folder).unwrap().0.len()
}

fn failures(outcomes: &[Outcome]) -> Vec<&StoreError> {
    outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Failed { error, .. } | Outcome::KeepFailed { error, .. } => Some(error),
            _ => None,
        })
        .collect()
}

fn saved(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Saved(_))).count()
}

#[test]
fn a_saved_result_reads_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    assert_eq!(bench.recovery, Recovery::default());
    let answer = bench.take(7, 12);
    let [Outcome::Kept { frame: kept }, Outcome::Saved(record)] = &bench.outcomes[..] else {
        panic!("{:?}", bench.outcomes)
    };
    let id = answer.frame.id;
    assert_eq!((*kept, record.frame(), record.sequence()), (id, id, 7));
    assert_eq!(record.objects(), answer.labels.count());

    let reader = bench.reader();
    let stored = reader.frame(id).unwrap().unwrap();
    assert_eq!(stored.session, bench.session.id);
    assert_eq!(stored.sha256, hex::encode(answer.frame.sha256));
    assert_eq!(stored.labels_sha256, hex::encode(answer.labels.sha256()));
    assert_eq!(stored.place, answer.frame.place);
    assert_eq!(stored.pixel_size_um, Some(0.65));
    assert_eq!(stored.pixel_size_source, Some(PixelSizeSource::OmeXml));
    assert_eq!(stored.pixel_size_note, answer.frame.pixel_size_note);
    assert_eq!(stored.captured, answer.frame.captured.rfc3339());
    assert_eq!(stored.timings, answer.timings);
    let look = answer.look;
    assert_eq!((stored.scale_from, stored.scale), (Some(look.scale_from), Some(look.scale)));
    assert_eq!((stored.size_ratio, stored.unlike), (look.size_ratio, look.unlike));
    assert_eq!((stored.model.as_str(), stored.focus), ("nuclei", 0.75));
    assert_eq!(stored.file, Some(format!("frames/{}/{id}.tif", bench.session.id)));
    assert_eq!(reader.saved_frames(None, 10).unwrap(), std::slice::from_ref(&stored));
    assert_eq!(reader.saved_frames(Some(stored.cursor), 10).unwrap(), []);
    assert_eq!(reader.labels(id).unwrap().unwrap(), *answer.labels);
    assert_eq!(reader.objects(id).unwrap().unwrap(), *answer.objects);
    let pixels = reader.pixels(id).unwrap().unwrap();
    assert_eq!((pixels.width, pixels.height, pixels.bit_depth), (EDGE, EDGE, 16));
    assert_eq!(pixels.pixels, answer.frame.pixels);
    let totals = reader.totals().unwrap();
    assert_eq!((totals.frames, totals.segmentations, totals.kept_files), (1, 1, 1));
    assert_eq!(totals.objects, u64::from(answer.labels.count()));
    assert_eq!(totals.backlog, 0);

    let unknown = FrameId::new();
    assert_eq!(reader.frame(unknown).unwrap(), None);
    assert_eq!(reader.labels(unknown).unwrap(), None);
    assert_eq!(reader.objects(unknown).unwrap(), None);
    assert_eq!(reader.pixels(unknown).unwrap(), None);

    let at = bench.clock.now();
    let close = Job::Close { session: bench.session.id, at };
    bench.work(vec![close]);
    let sessions = reader.sessions().unwrap();
    assert_eq!(sessions[0].ended, Some(at.rfc3339()));
    assert_eq!((sessions[0].frames, sessions[0].segmentations), (1, 1));
    bench.close();
    let report = clean(folder.path());
    assert_eq!((report.checked.files, report.checked.segmentations, report.running), (1, 1, false));
}

#[test]
fn the_same_thing_given_twice_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let answer = bench.take(0, 5);
    let before = (bench.reader().totals().unwrap(), bench.reader().newest_frames(9).unwrap());
    let again = vec![
        Job::Open(bench.session.clone()),
        bench.keep(&answer.frame),
        bench.commit(&answer),
        bench.commit(&answer),
    ];
    bench.work(again);
    assert_eq!(saved(&bench.outcomes), 3, "{:?}", bench.outcomes);
    let after = (bench.reader().totals().unwrap(), bench.reader().newest_frames(9).unwrap());
    assert_eq!(before, after);
    bench.close();
    clean(folder.path());
}

#[test]
fn another_model_adds_a_second_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let first = bench.take(0, 5);
    let mut second = fixture::segmentation(&first.frame, 9);
    second.model = Arc::new(reticle_domain::segmentation::ModelRef {
        name: "nuclei-tuned".into(),
        ..(*fixture::model()).clone()
    });
    let job = bench.commit(&second);
    bench.work(vec![job]);
    let reader = bench.reader();
    assert_eq!(reader.saved_frames(None, 10).unwrap().len(), 2);
    assert_eq!(reader.frame(first.frame.id).unwrap().unwrap().model, "nuclei-tuned");
    assert_eq!(reader.labels(first.frame.id).unwrap().unwrap(), *second.labels);
    bench.close();
    clean(folder.path());
}

#[test]
fn a_kept_frame_without_a_result_is_backlog() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let skipped = bench.take(0, 0);
    bench.take(1, 3);
    let reader = bench.reader();
    assert_eq!(reader.totals().unwrap().backlog, 1);
    assert_eq!(reader.frame(skipped.frame.id).unwrap(), None);
    assert!(reader.pixels(skipped.frame.id).unwrap().is_some());
    bench.close();
    clean(folder.path());
}

#[test]
fn one_unfit_result_does_not_hold_up_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let frame = |n| fixture::frame(&Clock::system(), n, EDGE, EDGE);
    let (good, bad) = (fixture::segmentation(&frame(0), 4), frame(1));
    let mut mixed_up = fixture::segmentation(&bad, 4);
    mixed_up.objects = Arc::new(Vec::new());
    let stranger = Job::Keep { session: SessionId::new(), frame: frame(2) };
    let batch =
        vec![bench.commit(&mixed_up), stranger, bench.keep(&good.frame), bench.commit(&good)];
    bench.work(batch);
    assert_eq!(saved(&bench.outcomes), 1);
    let errors = failures(&bench.outcomes);
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.remedy() == Remedy::GiveUp), "{errors:?}");
    assert!(errors[0].to_string().contains(&bad.id.to_string()), "{}", errors[0]);
    bench.take(3, 2);
    bench.close();
    assert_eq!(clean(folder.path()).checked.files, 2);
    assert_eq!(files(folder.path()), 2, "the stranger's file is gone");
}

#[test]
fn what_is_not_a_number_is_stored_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let frame = fixture::frame(&bench.clock, 0, EDGE, EDGE);
    let mut answer = fixture::segmentation(&frame, 2);
    answer.focus = f32::NAN;
    Arc::make_mut(&mut answer.objects)[0].solidity = f64::NAN;
    let job = bench.commit(&answer);
    bench.work(vec![job]);
    assert_eq!(saved(&bench.outcomes), 1, "{:?}", bench.outcomes);
    assert!(bench.reader().frame(frame.id).unwrap().unwrap().focus.is_nan());
    assert!(bench.reader().objects(frame.id).unwrap().unwrap()[0].solidity.is_nan());
}

#[test]
fn the_oldest_segmented_frames_make_room_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = fixture::options(folder.path());
    options.frames.max_bytes = 6 * (PIXEL_BYTES + 4096);
    let mut bench = Bench::open(&options);
    let skipped = bench.take(0, 0);
    let answers: Vec<_> = (1..12).map(|n| bench.take(n, 3)).collect();
    let reader = bench.reader();
    let totals = reader.totals().unwrap();
    assert!(totals.kept_bytes <= options.frames.max_bytes, "{totals:?}");
    assert!(totals.kept_files >= 4, "{totals:?}");
    assert_eq!(totals.evicted, 12 - totals.kept_files);
    assert_eq!(totals.segmentations, 11, "no record is evicted");
    assert!(reader.pixels(skipped.frame.id).unwrap().is_some(), "the backlog stays longest");
    let has_file = |n: usize| reader.frame(answers[n].frame.id).unwrap().unwrap().file.is_some();
    assert!(!has_file(0) && has_file(10));
    let first = reader.frame(answers[0].frame.id).unwrap().unwrap();
    assert_eq!(first.no_file, Some(NoFile::EvictedMaxBytes));
    assert_eq!(reader.labels(first.id).unwrap().unwrap(), *answers[0].labels);
    let told: u64 = bench
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Evicted { frames, reason: NoFile::EvictedMaxBytes, .. } => *frames,
            _ => 0,
        })
        .sum();
    assert_eq!(told, totals.evicted);
    assert_eq!(files(folder.path()) as u64, totals.kept_files);
    // When nothing else is left, the backlog goes too.
    bench.writer.options.frames.max_bytes = PIXEL_BYTES + 4096;
    bench.take(20, 0);
    assert!(bench.reader().pixels(skipped.frame.id).unwrap().is_none());
    bench.close();
    clean(folder.path());
}

#[test]
fn the_rule_says_which_frames_have_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = fixture::options(folder.path());
    options.frames.keep = Keep::Every(NonZeroU32::new(3).unwrap());
    let mut bench = Bench::open(&options);
    (0..7).for_each(|n| drop(bench.take(n, 2)));
    assert_eq!(bench.reader().totals().unwrap().kept_files, 3);
    bench.writer.options.frames.keep = Keep::None;
    let last = bench.take(9, 2);
    let last = bench.reader().frame(last.frame.id).unwrap().unwrap();
    assert_eq!((last.file, last.no_file), (None, Some(NoFile::Rule)));
    bench.close();
    clean(folder.path());
}

#[test]
fn with_too_little_free_room_the_result_is_saved_without_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = fixture::options(folder.path());
    let mut bench = Bench::open(&options);
    bench.take(0, 2);
    bench.writer.options.frames.min_free_bytes = u64::MAX / 2;
    let answer = bench.take(1, 2);
    let stored = bench.reader().frame(answer.frame.id).unwrap().unwrap();
    assert_eq!((stored.file, stored.no_file), (None, Some(NoFile::MinFree)));
    assert_eq!(bench.reader().totals().unwrap().evicted, 1, "the older frame made room");
    assert_eq!(saved(&bench.outcomes), 2);
    bench.close();
    options.frames.max_bytes = 10;
    let mut bench = Bench::open(&options);
    bench.take(2, 2);
    assert!(matches!(bench.outcomes[0], Outcome::NotKept { reason: NoFile::MaxBytes, .. }));
    bench.close();
    clean(folder.path());
}

#[test]
fn a_frame_file_that_cannot_be_written_costs_the_pixels_and_not_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    // Where the folder of frame files should be; root, too, can make no folder of a file.
    fs::remove_dir_all(folder.path().join(frames::FRAMES)).ok();
    fs::File::create(folder.path().join(frames::FRAMES)).unwrap();
    let answer = bench.take(0, 4);
    let [Outcome::KeepFailed { frame, .. }, Outcome::Saved(record)] = &bench.outcomes[..] else {
        panic!("{:?}", bench.outcomes)
    };
    assert_eq!((*frame, record.frame()), (answer.frame.id, answer.frame.id));
    let saved = bench.reader().frame(answer.frame.id).unwrap().unwrap();
    assert_eq!((saved.file, saved.no_file), (None, Some(NoFile::WriteFailed)));
}

#[test]
fn a_full_database_loses_nothing_that_was_saved_and_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let before = bench.take(0, 4);
    // SQLite's own limit gives the error of a full disk, wherever the test runs.
    let db = bench.writer.connection().unwrap();
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    bench.outcomes.clear();
    let big = fixture::frame(&bench.clock, 1, 512, 512);
    let lost = fixture::segmentation(&big, 400);
    let next = fixture::session(&bench.clock);
    let batch = vec![bench.keep(&big), bench.commit(&lost), Job::Open(next.clone())];
    bench.work(batch);
    let errors = failures(&bench.outcomes);
    assert_eq!(errors.len(), 3, "{:?}", bench.outcomes);
    assert!(errors.iter().all(|error| error.is_disk_full() && error.remedy() == Remedy::Retry));
    assert!(errors[0].to_string().contains("free some room"), "{}", errors[0]);
    assert_eq!(bench.reader().frame(big.id).unwrap(), None);

    let db = bench.writer.connection().unwrap();
    db.pragma_update_and_check(None, "max_page_count", 1 << 30, |_| Ok(())).unwrap();
    bench.outcomes.clear();
    let after = bench.take(2, 4);
    assert_eq!(saved(&bench.outcomes), 1);
    let reader = bench.reader();
    for answer in [before, after] {
        assert_eq!(reader.labels(answer.frame.id).unwrap().unwrap(), *answer.labels);
    }
    assert_eq!(reader.sessions().unwrap()[0].id, next.id, "what was owed is recorded");
    bench.close();
    clean(folder.path());
}

#[test]
fn a_database_that_turns_read_only_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let db = bench.writer.connection().unwrap();
    db.pragma_update(None, "query_only", true).unwrap();
    bench.take(0, 4);
    assert_eq!(saved(&bench.outcomes), 1, "{:?}", bench.outcomes);
    bench.close();
    clean(folder.path());
}

#[test]
fn a_database_that_vanished_fails_each_job_also_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::open(&options);
    bench.take(0, 4);
    bench.writer.let_go(&mut |_| {});
    let (here, away) = (folder.path().join("reticle.db"), folder.path().join("away.db"));
    fs::rename(&here, &away).unwrap();
    bench.outcomes.clear();
    bench.take(1, 4);
    assert!(!here.exists(), "no new database in the place of the old");
    // What was written in between may be elsewhere; only a fresh process trusts the names again.
    fs::rename(&away, &here).unwrap();
    bench.take(2, 4);
    let errors = failures(&bench.outcomes);
    assert_eq!(errors.len(), 4);
    assert!(errors.iter().all(|error| error.remedy() == Remedy::Stop), "{errors:?}");
    bench.close();
    let mut bench = Bench::open(&options);
    bench.take(3, 4);
    assert_eq!(saved(&bench.outcomes), 1, "{:?}", bench.outcomes);
    bench.close();
    clean(folder.path());
}

#[test]
fn the_next_start_mends_what_a_crash_left() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::open(&options);
    let evicted = bench.take(0, 4);
    let lost = bench.take(1, 4);
    let reader = bench.reader();
    let file_of = |id| folder.path().join(reader.frame(id).unwrap().unwrap().file.unwrap());
    let (evicted_file, lost_file) = (file_of(evicted.frame.id), file_of(lost.frame.id));
    let pixels = fs::read(&evicted_file).unwrap();
    fs::remove_file(&lost_file).unwrap();
    bench.writer.evict_for_full_disk(&mut |_| {}).unwrap();
    fs::write(&evicted_file, &pixels).unwrap();
    let orphan = format!("{}.tif", FrameId::new());
    fs::write(evicted_file.with_file_name(&orphan), &pixels).unwrap();
    fs::write(evicted_file.with_extension("tif.tmp"), b"half").unwrap();
    let session = bench.session.id;
    // As a crash leaves it: the lock is let go of, but not emptied.
    drop(bench);
    let report = fsck(folder.path(), Depth::Full, |_, _| {}).unwrap();
    assert_eq!(report.notes.len(), 3, "{report:#?}");

    let bench = Bench::open(&options);
    let found = &bench.recovery;
    assert!(found.unclean);
    assert_eq!((found.temporaries, found.evictions_completed, found.orphans), (1, 1, 1));
    assert!(!evicted_file.exists());
    let orphan = folder.path().join("orphans").join(session.to_string()).join(orphan);
    assert_eq!(fs::read(orphan).unwrap(), pixels);
    bench.close();
    assert!(!Bench::open(&options).recovery.unclean);
}

#[test]
fn a_second_daemon_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let bench = Bench::open(&options);
    let error = Store::open(&options, Clock::system()).err().unwrap();
    assert!(matches!(error, StoreError::Locked { pid: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("choose another folder"), "{error}");
    assert!(clean(folder.path()).running);
    bench.close();
    Bench::open(&options).close();
}

#[test]
fn a_folder_that_cannot_be_made_is_named_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"in the way").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Store::open(&fixture::options(&path), Clock::system()).err().unwrap();
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()), "{text}");
        assert!(text.contains("a file is in the way"), "{text}");
    }
    let nowhere = Reader::open(&folder.path().join("nowhere")).err().unwrap().to_string();
    assert!(nowhere.contains("nowhere"), "{nowhere}");
}

#[test]
fn the_thread_works_off_its_queue_and_closes_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let clock = Clock::system();
    let (store, _) = Store::open(&options, clock.clone()).unwrap();
    let reader = store.reader();
    let (sender, jobs) = queue::bounded("store", 8, queue::WhenFull::Wait);
    let (told, outcomes) = std::sync::mpsc::channel();
    let thread = store.spawn_writer(jobs, move |outcome| told.send(outcome).unwrap()).unwrap();
    let session = fixture::session(&clock);
    sender.send(Job::Open(session.clone()));
    for n in 0..40 {
        let frame = fixture::frame(&clock, n, EDGE, EDGE);
        sender.send(Job::Keep { session: session.id, frame: Arc::clone(&frame) });
        let segmentation = fixture::segmentation(&frame, 3);
        sender.send(Job::Commit { session: session.id, segmentation });
    }
    drop(sender);
    let outcomes: Vec<Outcome> = outcomes.into_iter().collect();
    thread.join().unwrap();
    assert_eq!(saved(&outcomes), 40);
    assert_eq!(reader.saved_frames(None, 100).unwrap().len(), 40);
    let page = reader.saved_frames(None, 15).unwrap();
    let rest = reader.saved_frames(page.last().map(|frame| frame.cursor), 100).unwrap();
    assert_eq!((page.len(), rest.len()), (15, 25));
    assert!(rest.iter().map(|frame| frame.sequence).eq(15..40));
    let report = clean(folder.path());
    assert!(!report.running && report.notes.is_empty(), "{report:#?}");
}

/// Not a claim but a figure, printed: what one live frame costs the writer.
#[test]
fn what_a_frame_of_1024_with_280_objects_costs() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let answers: Vec<_> = (0..24)
        .map(|n| {
            let frame = fixture::frame(&bench.clock, n, 1024, 1024);
            fixture::segmentation(&frame, 280)
        })
        .collect();
    let jobs = |bench: &Bench, answers: &[reticle_domain::segmentation::Segmentation]| {
        answers.iter().flat_map(|a| [bench.keep(&a.frame), bench.commit(a)]).collect::<Vec<_>>()
    };
    let ms = |from: &reticle_base::clock::Stamp, clock: &Clock, n: f64| {
        clock.now().since(from).as_secs_f64() * 1e3 / n
    };
    let start = bench.clock.now();
    for answer in &answers[..12] {
        let jobs = jobs(&bench, std::slice::from_ref(answer));
        bench.work(jobs);
    }
    let alone = ms(&start, &bench.clock, 12.0);
    let start = bench.clock.now();
    for four in answers[12..].chunks(4) {
        let jobs = jobs(&bench, four);
        bench.work(jobs);
    }
    let grouped = ms(&start, &bench.clock, 12.0);
    bench.writer.options.frames.keep = Keep::None;
    let again: Vec<_> = (24..36)
        .map(|n| fixture::segmentation(&fixture::frame(&bench.clock, n, 1024, 1024), 280))
        .collect();
    let start = bench.clock.now();
    for answer in &again {
        let jobs = jobs(&bench, std::slice::from_ref(answer));
        bench.work(jobs);
    }
    let without = ms(&start, &bench.clock, 12.0);
    println!(
        "a frame with its file and result: {alone:.1} ms alone, {grouped:.1} ms four at a time; \
         without its file {without:.1} ms"
    );
    assert_eq!(saved(&bench.outcomes), 36);
    bench.close();
    let bytes = fs::metadata(folder.path().join("reticle.db")).unwrap().len();
    println!("database: {} bytes a frame", bytes / 36);
}

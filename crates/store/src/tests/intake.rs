//! The ledger of a watched folder, and the share of the room that one image file has.

use super::{PIXEL_BYTES, clean, files, saved};
use crate::fixture::{self, Bench, EDGE};
use crate::*;
use reticle_base::ids::FrameId;
use reticle_domain::frame::Frame;
use reticle_domain::taken::{FileIdentity, TakenPage};
use std::sync::Arc;

const FOLDER: &str = "/data/drop";

fn file(path: &str, content: u8, mtime_ns: i64) -> IntakeFile {
    IntakeFile {
        folder: FOLDER.into(),
        path: path.into(),
        bytes: 100,
        mtime_ns,
        identity: FileIdentity { device: 1, inode: u64::from(content), born_ns: None },
        sha256: [content; 32],
    }
}

impl Bench {
    fn change(&mut self, change: Change) -> i64 {
        match self.writer.ask(Ask::Intake(change)).unwrap() {
            Answer::Intake(row) => row,
            other => panic!("{other:?}"),
        }
    }

    fn begin_file(&mut self, file: IntakeFile, row: Option<i64>, run: u8) -> i64 {
        let known = self.at(&file.path).filter(|known| Some(known.pk) == row);
        let first_frame = known.map_or_else(FrameId::new, |known| known.first_frame);
        self.change(Change::Begin { file, row, run: [run; 16], first_frame })
    }

    fn at(&self, path: &str) -> Option<IntakeRow> {
        self.reader().intake_at(FOLDER, path).unwrap()
    }
}

/// A frame that is a page of a file.
fn page(bench: &Bench, id: FrameId, sequence: u64, origin: &str) -> Arc<Frame> {
    let frame = fixture::frame(&bench.clock, sequence, EDGE, EDGE);
    Arc::new(Frame { id, origin: Some(origin.into()), ..(*frame).clone() })
}

#[test]
fn an_attempt_counts_once_for_each_process_and_not_after_an_end_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let row = bench.begin_file(file("a.png", 1, 7), None, 1);
    assert_eq!(bench.begin_file(file("a.png", 1, 7), Some(row), 1), row);
    assert_eq!(bench.at("a.png").unwrap().attempts, 1);
    bench.begin_file(file("a.png", 1, 7), Some(row), 2);
    let begun = bench.at("a.png").unwrap();
    assert_eq!((begun.attempts, begun.state), (2, IntakeState::Begun));
    bench.close();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    assert_eq!(bench.at("a.png").unwrap().attempts, 0);
    bench.begin_file(file("a.png", 1, 7), Some(row), 3);
    bench.change(Change::Taken { row, pages: 1 });
    let taken = bench.at("a.png").unwrap();
    assert_eq!((taken.attempts, taken.state), (0, IntakeState::Taken));
    assert_eq!(taken.first_frame, begun.first_frame);
}

#[test]
fn a_file_that_is_overwritten_or_gone_makes_room_for_another_under_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let first = bench.begin_file(file("a.png", 1, 7), None, 1);
    let second = bench.begin_file(file("a.png", 2, 8), None, 1);
    assert_eq!(bench.at("a.png").unwrap().pk, second);
    // The first comes back under another name, and then takes the place of the second.
    bench.change(Change::Known { file: file("b.png", 1, 7), row: first });
    assert_eq!(bench.at("b.png").unwrap().pk, first);
    bench.change(Change::Known { file: file("a.png", 1, 7), row: first });
    assert_eq!((bench.at("a.png").unwrap().pk, bench.at("b.png")), (first, None));
    let like = bench.reader().intake_like(FOLDER, &[2; 32], 8, 10).unwrap();
    assert_eq!(like.iter().map(|row| (row.pk, row.here)).collect::<Vec<_>>(), [(second, false)]);
    assert_eq!(bench.reader().intake_missing(FOLDER, |path| path != "a.png").unwrap(), [first]);
    bench.change(Change::Gone { rows: vec![first] });
    assert_eq!(bench.at("a.png"), None);
    clean(folder.path());
}

#[test]
fn what_was_passed_over_is_listed_with_the_reason_and_gets_another_chance() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let states = [IntakeState::Refused, IntakeState::TooLarge, IntakeState::Quarantined];
    for (content, state) in (1..).zip(states) {
        let row = bench.begin_file(file(state.word(), content, 7), None, 1);
        bench.change(Change::Refused { row, state, reason: "why".into() });
    }
    let row = bench.begin_file(file("a.png", 9, 7), None, 1);
    bench.change(Change::Taken { row, pages: 1 });
    let listed = bench.reader().intake_passed_over().unwrap();
    assert_eq!(listed.iter().map(|entry| entry.state).collect::<Vec<_>>(), states);
    assert!(listed.iter().all(|entry| entry.reason.as_deref() == Some("why")));
    let mut settled = Vec::new();
    bench.reader().intake_settled(FOLDER, |path, _, _| settled.push(path.to_owned())).unwrap();
    // What is above a limit is asked for again by the next process.
    assert_eq!(settled, ["refused", "quarantined", "a.png"]);
    assert_eq!(bench.change(Change::Retry), 3);
    assert_eq!(bench.reader().intake_passed_over().unwrap(), []);
    let again = bench.at("quarantined").unwrap();
    assert_eq!((again.state, again.attempts), (IntakeState::Begun, 0));
}

#[test]
fn a_page_that_is_read_again_is_the_same_frame_and_keeps_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let first = FrameId::new();
    let pages: Vec<_> =
        (0..3).map(|n| page(&bench, first.later_by(n), n, &format!("a.tif#{n}"))).collect();
    let answers: Vec<_> = pages.iter().map(|frame| fixture::segmentation(frame, 3)).collect();
    // Killed after the first page was segmented and the second was kept.
    let jobs = vec![bench.keep(&pages[0]), bench.commit(&answers[0]), bench.keep(&pages[1])];
    bench.work(jobs);
    drop(bench);
    let mut bench = Bench::open(&fixture::options(folder.path()));
    for (frame, answer) in pages.iter().zip(&answers) {
        let jobs = vec![bench.keep(frame), bench.commit(answer)];
        bench.work(jobs);
    }
    assert_eq!(saved(&bench.outcomes), 3);
    let totals = bench.reader().totals().unwrap();
    assert_eq!((totals.frames, totals.segmentations), (3, 3));
    let counted: Vec<_> =
        bench.reader().sessions().unwrap().iter().map(|it| (it.frames, it.segmentations)).collect();
    assert_eq!(counted, [(1, 1), (2, 2)]);
    clean(folder.path());
}

#[test]
fn pages_are_known_of_what_a_path_held_and_done_once_their_results_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let row = bench.begin_file(file("a.tif", 1, 7), None, 1);
    let first = FrameId::new();
    let frame = page(&bench, first, 0, "a.tif#0");
    let noted = |index: usize| TakenPage {
        index,
        sha256: [index as u8; 32],
        frame: first.later_by(index as u64),
        done: false,
    };
    for index in 0..3 {
        bench.change(Change::Page { row, page: noted(index) });
    }
    let answer = fixture::segmentation(&frame, 3);
    let jobs = vec![bench.keep(&frame), bench.commit(&answer)];
    bench.work(jobs);
    let done = |bench: &Bench, row| -> Vec<(usize, bool)> {
        let pages = bench.reader().intake_pages(row).unwrap();
        pages.iter().map(|page| (page.index, page.done)).collect()
    };
    assert_eq!(done(&bench, row), [(0, true), (1, false), (2, false)]);
    bench.change(Change::Taken { row, pages: 2 });
    assert_eq!(done(&bench, row), [(0, true), (1, true)]);
    // Another file in its place is read against them.
    let next = bench.begin_file(file("a.tif", 2, 8), None, 1);
    assert_eq!((done(&bench, row), done(&bench, next)), (vec![], vec![(0, true), (1, true)]));
    clean(folder.path());
}

/// Room for sixteen frames.
fn room_for_sixteen(folder: &std::path::Path) -> Options {
    let mut options = fixture::options(folder);
    options.frames.max_bytes = 16 * (PIXEL_BYTES + 4096);
    options
}

#[test]
fn the_pages_of_one_file_push_no_other_frame_out_beyond_their_share() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&room_for_sixteen(folder.path()));
    let real: Vec<_> = (0..10).map(|sequence| bench.take(sequence, 2).frame.id).collect();
    for n in 0..100 {
        let frame = page(&bench, FrameId::new(), 10 + n, &format!("bomb.tif#{n}"));
        let answer = fixture::segmentation(&frame, 2);
        let jobs = vec![bench.keep(&frame), bench.commit(&answer)];
        bench.work(jobs);
    }
    let reader = bench.reader();
    let kept = |id| reader.frame(id).unwrap().unwrap().file.is_some();
    // Six pages lie where nothing was; for the others something would have to go.
    let left = real.iter().filter(|id| kept(**id)).count();
    assert_eq!(left, real.len());
    assert!(files(folder.path()) >= 14, "{}", files(folder.path()));
    assert_eq!(saved(&bench.outcomes), 110);
    let without = bench
        .outcomes
        .iter()
        .filter(|it| matches!(it, Outcome::NotKept { reason: NoFile::MaxBytes, .. }))
        .count();
    assert!(without >= 90, "{without}");
    assert!(!bench.outcomes.iter().any(|it| matches!(it, Outcome::Held { .. })));
    // Images of their own take the room that they always took.
    let next = bench.take(500, 2).frame.id;
    assert!(bench.reader().frame(next).unwrap().unwrap().file.is_some());
    assert!(bench.outcomes.iter().any(|it| matches!(it, Outcome::Evicted { .. })));
    clean(folder.path());
}

#[test]
fn pages_that_an_archive_is_to_have_wait_for_it_instead() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&room_for_sixteen(folder.path()), fixture::deliveries());
    for n in 0..16 {
        let frame = page(&bench, FrameId::new(), n, &format!("stack.tif#{n}"));
        let job = bench.keep(&frame);
        bench.work(vec![job]);
    }
    assert!(!bench.outcomes.iter().any(|it| matches!(it, Outcome::NotKept { .. })));
    assert_eq!(files(folder.path()), 16);
}

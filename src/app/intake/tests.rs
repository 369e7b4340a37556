//! The ledger against a real store, asked as the source asks it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;
use crate::base::clock::Clock;
use crate::base::queue::{self, WhenFull};
use crate::domain::status::StatusBoard;
use crate::store::{Options, Store};
use crate::telemetry::metrics::Metrics;

const NOW: Duration = Duration::ZERO;

/// A store whose writer runs, and the files that are in the watched folder: size, time, content.
struct Bench {
    data: tempfile::TempDir,
    to_store: Sender<Job>,
    monitor: Monitor,
    settings: Settings,
    there: RefCell<BTreeMap<String, (u64, i64, u8)>>,
}

impl Bench {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let options = Options { folder: data.path().join("data"), ..Options::default() };
        let (store, _) = Store::open(&options, Clock::system()).unwrap();
        let (to_store, jobs) = queue::bounded("store", 8, WhenFull::Wait);
        store.spawn_writer(jobs, |_| {}).unwrap();
        let monitor = Monitor::new(StatusBoard::new(), Clock::system(), Metrics::new(), &options);
        let mut settings = Settings { store: options, ..Settings::default() };
        settings.source.spec = SourceSpec::Folder("/drop".into());
        Self { data, to_store, monitor, settings, there: RefCell::default() }
    }

    /// A process that watches the folder.
    fn process(&self) -> (Intake, Arc<dyn Ledger>) {
        let reader = Reader::open(&self.data.path().join("data")).unwrap();
        let intake = Intake::new(&self.settings, reader, self.monitor.clone());
        let ledger = intake.ledger(self.to_store.clone());
        (intake, ledger)
    }

    fn put(&self, name: &str, mtime_ns: i64, content: u8) {
        self.there.borrow_mut().insert(name.to_owned(), (100, mtime_ns, content));
    }

    fn remove(&self, name: &str) -> (u64, i64, u8) {
        self.there.borrow_mut().remove(name).unwrap()
    }

    fn begin(&self, ledger: &Arc<dyn Ledger>, name: &str) -> Answer {
        let there = self.there.borrow().clone();
        let (bytes, mtime_ns, content) = there[name];
        let candidate = Candidate {
            folder: Path::new("/drop"),
            name: OsStr::new(name),
            version: (bytes, mtime_ns),
            sha256: [content; 32],
            grew: false,
        };
        let holds = |name: &OsStr, (bytes, mtime_ns)| {
            there.get(name.to_str().unwrap()).is_some_and(|it| (it.0, it.1) == (bytes, mtime_ns))
        };
        ledger.begin(candidate, &holds, NOW).unwrap()
    }

    /// Reads a file of one page to its end; false where it is no new image.
    fn takes(&self, process: &(Intake, Arc<dyn Ledger>), name: &str) -> bool {
        let (intake, ledger) = process;
        match self.begin(ledger, name) {
            Answer::Read(begun) => {
                ledger.gives(begun.file, begun.first_frame);
                ledger.ends(begun.file, End::Given);
                intake.refused(begun.first_frame);
                assert_eq!(ledger.again(), Vec::<OsString>::new());
                self.flush();
                true
            }
            Answer::Known => false,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the store has committed what was sent to it.
    fn flush(&self) {
        let (reply, answer) = mpsc::sync_channel(1);
        let ask = Ask::Intake(Change::Gone { rows: Vec::new() });
        self.to_store.send(Job::Ask { ask, reply });
        answer.recv().unwrap().unwrap();
    }

    fn listed(&self, ledger: &Arc<dyn Ledger>) {
        let there = self.there.borrow();
        ledger
            .listed(Path::new("/drop"), &|name| there.contains_key(name.to_str().unwrap()))
            .unwrap();
    }
}

fn read(answer: Answer) -> Begun {
    match answer {
        Answer::Read(begun) => begun,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_touch_a_rename_and_a_copy_whose_original_is_gone_are_known() {
    let bench = Bench::new();
    let first = bench.process();
    bench.put("a.png", 1, 7);
    assert!(bench.takes(&first, "a.png"));
    let next = bench.process();
    assert!(!bench.takes(&next, "a.png"));
    bench.put("a.png", 2, 7);
    assert!(!bench.takes(&next, "a.png"));
    bench.remove("a.png");
    bench.put("b.png", 2, 7);
    assert!(!bench.takes(&next, "b.png"));
    bench.remove("b.png");
    bench.put("c.png", 9, 7);
    assert!(!bench.takes(&next, "c.png"));
}

#[test]
fn equal_files_that_are_there_at_once_are_two_images_and_other_content_is_another() {
    let bench = Bench::new();
    let process = bench.process();
    for name in ["A01.png", "A02.png", "A03.png"] {
        bench.put(name, 1, 7);
        assert!(bench.takes(&process, name));
    }
    bench.put("A02.png", 1, 8);
    assert!(bench.takes(&process, "A02.png"));
    // The original of the middle one was moved away, with its time: one of two is it.
    bench.put("A04.png", 1, 7);
    assert!(!bench.takes(&process, "A04.png"));
    bench.put("A05.png", 5, 7);
    assert!(bench.takes(&process, "A05.png"));
}

#[test]
fn what_was_noticed_to_be_gone_is_known_again_only_with_the_time_that_it_had() {
    let bench = Bench::new();
    let process = bench.process();
    for name in ["A01.png", "A02.png"] {
        bench.put(name, 1, 7);
        assert!(bench.takes(&process, name));
    }
    let (.., moved_out) = (bench.remove("A01.png"), bench.remove("A02.png"));
    bench.listed(&process.1);
    bench.listed(&process.1);
    // The next plate: the same names, and again an empty well.
    bench.put("A01.png", 50, 7);
    assert!(bench.takes(&process, "A01.png"));
    bench.put("A02.png", moved_out.1, 7);
    assert!(!bench.takes(&process, "A02.png"));
}

#[test]
fn two_that_change_places_are_known() {
    let bench = Bench::new();
    let process = bench.process();
    bench.put("a.png", 1, 7);
    bench.put("b.png", 2, 8);
    assert!(bench.takes(&process, "a.png") && bench.takes(&process, "b.png"));
    bench.put("a.png", 2, 8);
    bench.put("b.png", 1, 7);
    let next = bench.process();
    assert!(!bench.takes(&next, "a.png") && !bench.takes(&next, "b.png"));
}

#[test]
fn what_a_dead_process_had_begun_is_read_alone_and_the_second_death_accuses_one() {
    let bench = Bench::new();
    for (name, content) in [("a.png", 1), ("b.png", 2), ("c.png", 3), ("d.png", 4)] {
        bench.put(name, 1, content);
    }
    let (_, ledger) = bench.process();
    for name in ["a.png", "b.png", "c.png"] {
        let begun = read(bench.begin(&ledger, name));
        ledger.gives(begun.file, begun.first_frame);
        ledger.ends(begun.file, End::Given);
    }
    // It dies with three on their way. The next reads the first, and nothing beside it.
    let (_, ledger) = bench.process();
    let begun = read(bench.begin(&ledger, "a.png"));
    ledger.gives(begun.file, begun.first_frame);
    for name in ["b.png", "d.png"] {
        assert_eq!(bench.begin(&ledger, name), Answer::Later);
    }
    // It dies, too.
    let third = bench.process();
    assert!(matches!(bench.begin(&third.1, "a.png"), Answer::Quarantined(_)));
    assert_eq!(bench.begin(&third.1, "a.png"), Answer::Known);
    for name in ["b.png", "c.png", "d.png"] {
        assert!(bench.takes(&third, name), "{name}");
    }
}

#[test]
fn a_frame_for_which_there_was_no_session_has_its_file_taken_again() {
    let bench = Bench::new();
    let (intake, ledger) = bench.process();
    bench.put("a.png", 1, 7);
    let begun = read(bench.begin(&ledger, "a.png"));
    ledger.gives(begun.file, begun.first_frame);
    ledger.ends(begun.file, End::Given);
    assert_eq!(ledger.again(), Vec::<OsString>::new());
    intake.dropped(begun.first_frame);
    assert_eq!(ledger.again(), ["a.png"]);
    let again = read(bench.begin(&ledger, "a.png"));
    assert_eq!(again, begun);
}

#[test]
fn a_limit_is_asked_for_again_by_the_next_process_and_not_before() {
    let bench = Bench::new();
    bench.put("a.png", 1, 7);
    let (_, ledger) = bench.process();
    let begun = read(bench.begin(&ledger, "a.png"));
    ledger.ends(begun.file, End::AboveLimit("too large".to_owned()));
    ledger.again();
    assert_eq!(bench.begin(&ledger, "a.png"), Answer::Known);
    let (_, ledger) = bench.process();
    let begun = read(bench.begin(&ledger, "a.png"));
    ledger.ends(begun.file, End::Unfit("broken".to_owned()));
    ledger.again();
    bench.flush();
    let (_, ledger) = bench.process();
    assert_eq!(bench.begin(&ledger, "a.png"), Answer::Known);
}

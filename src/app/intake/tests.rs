//! The ledger against a real store, asked as the source asks it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::*;
use crate::telemetry::metrics::Metrics;
use reticle_base::clock::Clock;
use reticle_base::queue::{self, WhenFull};
use reticle_domain::status::StatusBoard;
use reticle_domain::taken::FileIdentity;
use reticle_store::{Options, Store};

const NOW: Duration = Duration::ZERO;

/// A store whose writer runs, and the files that are in the watched folder: size, time, content,
/// number of the file.
struct Bench {
    data: tempfile::TempDir,
    to_store: Sender<Job>,
    monitor: Monitor,
    settings: Settings,
    inodes: Cell<u64>,
    there: RefCell<BTreeMap<String, (u64, i64, u8, u64)>>,
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
        Self {
            data,
            to_store,
            monitor,
            settings,
            inodes: Cell::default(),
            there: RefCell::default(),
        }
    }

    /// A process that watches the folder.
    fn process(&self) -> (Intake, Arc<dyn Ledger>) {
        let reader = Reader::open(&self.data.path().join("data")).unwrap();
        let intake = Intake::new(&self.settings, reader, self.monitor.clone());
        let ledger = intake.ledger(self.to_store.clone());
        (intake, ledger)
    }

    /// A file of its own.
    fn put(&self, name: &str, mtime_ns: i64, content: u8) {
        let inode = self.there.borrow().values().map(|it| it.3).max().unwrap_or(0) + 1;
        let inode = inode.max(self.inodes.get() + 1);
        self.inodes.set(inode);
        self.there.borrow_mut().insert(name.to_owned(), (100, mtime_ns, content, inode));
    }

    /// What a file holds is changed in place.
    fn write(&self, name: &str, mtime_ns: i64, content: u8, bytes: u64) {
        let mut there = self.there.borrow_mut();
        let inode = there[name].3;
        there.insert(name.to_owned(), (bytes, mtime_ns, content, inode));
    }

    fn rename(&self, from: &str, to: &str) {
        let file = self.remove(from);
        self.there.borrow_mut().insert(to.to_owned(), file);
    }

    fn remove(&self, name: &str) -> (u64, i64, u8, u64) {
        self.there.borrow_mut().remove(name).unwrap()
    }

    fn begin(&self, ledger: &Arc<dyn Ledger>, name: &str) -> Answer {
        self.begin_open(ledger, name, false)
    }

    fn begin_open(&self, ledger: &Arc<dyn Ledger>, name: &str, is_open: bool) -> Answer {
        let there = self.there.borrow().clone();
        let (bytes, mtime_ns, content, inode) = there[name];
        let candidate = Candidate {
            folder: Path::new("/drop"),
            name: OsStr::new(name),
            version: (bytes, mtime_ns),
            sha256: [content; 32],
            identity: FileIdentity { device: 1, inode, born_ns: Some(5) },
            is_open,
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
                ledger.gives(begun.file, &page(&begun, 0));
                ledger.ends(begun.file, End::Given { pages: 1 });
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

/// A page of a file whose content is its number.
fn page(begun: &Begun, index: usize) -> TakenPage {
    let frame = begun.first_frame.later_by(index as u64);
    TakenPage { index, sha256: [index as u8; 32], frame, done: false }
}

fn read(answer: Answer) -> Begun {
    match answer {
        Answer::Read(begun) => begun,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_touch_a_rename_and_a_second_name_are_known() {
    let bench = Bench::new();
    let first = bench.process();
    bench.put("a.png", 1, 7);
    assert!(bench.takes(&first, "a.png"));
    let next = bench.process();
    assert!(!bench.takes(&next, "a.png"));
    bench.write("a.png", 2, 7, 100);
    assert!(!bench.takes(&next, "a.png"));
    bench.rename("a.png", "b.png");
    assert!(!bench.takes(&next, "b.png"));
    bench.rename("b.png", "c.png");
    bench.write("c.png", 9, 7, 100);
    assert!(!bench.takes(&next, "c.png"));
    let linked = bench.there.borrow()["c.png"];
    bench.there.borrow_mut().insert("d.png".to_owned(), linked);
    assert!(!bench.takes(&next, "d.png"));
    // Written again under its name, as a copy from the same place does.
    bench.put("d.png", 20, 7);
    assert!(!bench.takes(&next, "d.png"));
}

#[test]
fn two_black_wells_are_two_images_whether_the_first_is_still_there_or_not() {
    let bench = Bench::new();
    let process = bench.process();
    for name in ["A01.png", "A02.png", "A03.png"] {
        bench.put(name, 1, 7);
        assert!(bench.takes(&process, name));
    }
    bench.put("A02.png", 1, 8);
    assert!(bench.takes(&process, "A02.png"));
    // Whatever was cleared away, with the same time or another: it is another file.
    bench.remove("A01.png");
    for (name, mtime_ns) in [("A04.png", 1), ("A05.png", 5)] {
        bench.put(name, mtime_ns, 7);
        assert!(bench.takes(&process, name), "{name}");
    }
}

#[test]
fn of_a_file_that_is_written_to_the_pages_are_known_that_were_given() {
    let bench = Bench::new();
    let (intake, ledger) = bench.process();
    bench.put("a.tif", 1, 1);
    let begun = read(bench.begin(&ledger, "a.tif"));
    assert_eq!(begun.pages, []);
    ledger.gives(begun.file, &page(&begun, 0));
    ledger.gives(begun.file, &page(&begun, 1));
    ledger.ends(begun.file, End::Given { pages: 2 });
    intake.refused(page(&begun, 0).frame);
    // It grows while the second page is on its way.
    bench.write("a.tif", 2, 2, 150);
    let grown = read(bench.begin(&ledger, "a.tif"));
    assert_eq!(grown.file, begun.file);
    // A page of another content at the same place must not get the id of a frame that is there.
    assert_ne!(grown.first_frame, begun.first_frame);
    let done = |index| TakenPage { done: true, ..page(&begun, index) };
    assert_eq!(grown.pages, [done(0), done(1)]);
    ledger.gives(grown.file, &page(&begun, 2));
    ledger.ends(grown.file, End::Given { pages: 3 });
    (1..3).for_each(|index| intake.refused(page(&begun, index).frame));
    ledger.again();
    bench.flush();
    // Written anew beside it and put in its place, with one page less: after a restart, too.
    bench.put("a.tif", 3, 3);
    let (_, ledger) = bench.process();
    let anew = read(bench.begin(&ledger, "a.tif"));
    assert_ne!(anew.file, begun.file);
    assert_eq!(anew.pages, [done(0), done(1), done(2)]);
}

#[test]
fn a_page_that_was_not_committed_is_given_again_under_its_id() {
    let bench = Bench::new();
    let (intake, ledger) = bench.process();
    bench.put("a.tif", 1, 1);
    let begun = read(bench.begin(&ledger, "a.tif"));
    ledger.gives(begun.file, &page(&begun, 0));
    bench.flush();
    drop((intake, ledger));
    // The process died, and the file grew meanwhile.
    bench.write("a.tif", 2, 2, 150);
    let (_, ledger) = bench.process();
    assert_eq!(read(bench.begin(&ledger, "a.tif")).pages, [page(&begun, 0)]);
}

#[test]
fn a_file_that_is_written_over_is_not_read_before_it_is_closed() {
    let bench = Bench::new();
    let process = bench.process();
    bench.put("a.png", 1, 7);
    assert!(bench.takes(&process, "a.png"));
    bench.write("a.png", 2, 8, 100);
    assert_eq!(bench.begin_open(&process.1, "a.png", true), Answer::WrittenOver);
    // One that grows by pages is read while its writer keeps it open.
    bench.write("a.png", 3, 8, 200);
    let begun = read(bench.begin_open(&process.1, "a.png", true));
    ledger_ends(&process.1, &begun);
    bench.write("a.png", 4, 9, 100);
    assert!(bench.takes(&process, "a.png"));
}

fn ledger_ends(ledger: &Arc<dyn Ledger>, begun: &Begun) {
    ledger.ends(begun.file, End::Given { pages: 1 });
    ledger.again();
}

#[test]
fn what_was_noticed_to_be_gone_is_known_again_only_with_the_time_that_it_had() {
    let bench = Bench::new();
    let process = bench.process();
    for name in ["A01.png", "A02.png"] {
        bench.put(name, 1, 7);
        assert!(bench.takes(&process, name));
    }
    bench.remove("A01.png");
    let (_, moved_out, ..) = bench.remove("A02.png");
    bench.listed(&process.1);
    bench.listed(&process.1);
    // The next plate: the same names, and again an empty well.
    bench.put("A01.png", 50, 7);
    assert!(bench.takes(&process, "A01.png"));
    bench.put("A03.png", moved_out, 7);
    assert!(bench.takes(&process, "A03.png"));
    bench.put("A02.png", moved_out, 7);
    assert!(!bench.takes(&process, "A02.png"));
}

#[test]
fn two_that_change_places_are_known() {
    let bench = Bench::new();
    let process = bench.process();
    bench.put("a.png", 1, 7);
    bench.put("b.png", 2, 8);
    assert!(bench.takes(&process, "a.png") && bench.takes(&process, "b.png"));
    bench.rename("a.png", "hold");
    bench.rename("b.png", "a.png");
    bench.rename("hold", "b.png");
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
        ledger.gives(begun.file, &page(&begun, 0));
        ledger.ends(begun.file, End::Given { pages: 1 });
    }
    // It dies with three on their way. The next reads the first, and nothing beside it.
    let (_, ledger) = bench.process();
    let begun = read(bench.begin(&ledger, "a.png"));
    ledger.gives(begun.file, &page(&begun, 0));
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
    ledger.gives(begun.file, &page(&begun, 0));
    ledger.ends(begun.file, End::Given { pages: 1 });
    assert_eq!(ledger.again(), Vec::<OsString>::new());
    intake.dropped(begun.first_frame);
    assert_eq!(ledger.again(), ["a.png"]);
    let again = read(bench.begin(&ledger, "a.png"));
    assert_eq!(again, Begun { pages: vec![page(&begun, 0)], ..begun });
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

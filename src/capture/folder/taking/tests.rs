//! What a watched folder asks a ledger and tells it.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use sha2::{Digest, Sha256};

use super::super::ledger::LedgerError;
use super::super::*;
use super::*;
use crate::capture::{Opener, SourceSpec};
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_domain::taken::TakenPage;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// A ledger that answers as it was told, and writes down what it hears.
#[derive(Default)]
struct Scripted(Mutex<Script>);

#[derive(Default)]
struct Script {
    /// Answers by name, the last first; without one a file is read.
    answers: Vec<(&'static str, Answer)>,
    settled: Vec<(OsString, u64, i64)>,
    again: Vec<OsString>,
    given: Vec<TakenPage>,
    heard: Vec<String>,
    is_busy: bool,
}

impl Scripted {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn hears(&self, what: String) {
        self.script().heard.push(what);
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.script().heard)
    }
}

fn first_frame() -> FrameId {
    FrameId::from_bytes([7; 16])
}

fn begun(pages: &[TakenPage]) -> Begun {
    Begun { file: 1, first_frame: first_frame(), pages: pages.to_vec() }
}

impl Ledger for Scripted {
    fn settled(&self, _: &Path, each: &mut dyn FnMut(&OsStr, u64, i64)) -> Result<(), LedgerError> {
        for (name, bytes, modified_ns) in &self.script().settled {
            each(name, *bytes, *modified_ns);
        }
        Ok(())
    }

    fn begin(
        &self,
        candidate: Candidate<'_>,
        holds: &dyn Fn(&OsStr, (u64, i64)) -> bool,
        _: Duration,
    ) -> Result<Answer, LedgerError> {
        assert!(holds(candidate.name, candidate.version));
        assert!(!holds(OsStr::new("nobody.png"), candidate.version));
        let name = candidate.name.to_str().unwrap();
        self.hears(format!("begin {name} {}", hex::encode(&candidate.sha256[..4])));
        let mut script = self.script();
        if let Some(at) = script.answers.iter().rposition(|(of, _)| *of == name) {
            return Ok(script.answers.remove(at).1);
        }
        Ok(Answer::Read(begun(&[])))
    }

    fn gives(&self, file: i64, page: &TakenPage) {
        assert_eq!((file, page.frame), (1, first_frame().later_by(page.index as u64)));
        self.script().given.push(*page);
        self.hears(format!("gives {}", page.index));
    }

    fn moved(&self, _: i64, page: &TakenPage) {
        self.hears(format!("moved to {}", page.index));
    }

    fn ends(&self, _: i64, end: End) {
        self.hears(format!("{end:?}"));
    }

    fn is_idle(&self, _: Duration) -> bool {
        !self.script().is_busy
    }

    fn listed(&self, _: &Path, _: &dyn Fn(&OsStr) -> bool) -> Result<(), LedgerError> {
        Ok(())
    }

    fn again(&self) -> Vec<OsString> {
        std::mem::take(&mut self.script().again)
    }
}

struct Bench {
    folder: tempfile::TempDir,
    ledger: Arc<Scripted>,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), ledger: Arc::default() }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        // Not a file that somebody may still be writing.
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }

    fn open(&self) -> Box<dyn Source> {
        self.open_at(&Clock::system())
    }

    fn open_at(&self, clock: &Clock) -> Box<dyn Source> {
        let spec = SourceSpec::Folder(self.folder.path().to_owned());
        let options = Options { spec, ..Options::default() };
        Opener::new(options, Limits::default(), clock.clone())
            .with_ledger(Arc::clone(&self.ledger) as Arc<dyn Ledger>)
            .open()
            .unwrap()
    }
}

fn png(value: u32) -> Vec<u8> {
    let image = LabelImage::new(2, 2, vec![value; 4]).unwrap();
    reticle_imagefile::encode_labels_png(&image).unwrap()
}

fn stack() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(root.join("tests/golden/images/imagej_stack.tif")).unwrap()
}

fn frame(source: &mut dyn Source) -> Frame {
    match source.next(LONG).unwrap() {
        Event::Frame(frame) => *frame,
        other => panic!("{other:?} instead of a frame"),
    }
}

fn nothing_more(source: &mut dyn Source) {
    let event = source.next(SHORT).unwrap();
    assert!(matches!(event, Event::Nothing), "{event:?}");
}

#[test]
fn a_file_is_begun_then_given_page_by_page_with_lasting_ids_then_ended() {
    let bench = Bench::new();
    bench.put("a.tif", &stack());
    let mut source = bench.open();
    let ids: Vec<FrameId> = (0..3).map(|_| frame(&mut *source).id).collect();
    assert_eq!(ids, [0, 1, 2].map(|page| first_frame().later_by(page)));
    nothing_more(&mut *source);
    let hash = hex::encode(Sha256::digest(stack()));
    let begun = format!("begin a.tif {}", hash.get(..8).unwrap());
    let given = "Given { pages: 3 }";
    assert_eq!(bench.ledger.heard(), [&begun, "gives 0", "gives 1", "gives 2", given]);
}

#[test]
fn pages_that_were_given_before_are_not_given_again() {
    let bench = Bench::new();
    bench.put("a.tif", &stack());
    let mut source = bench.open();
    (0..3).for_each(|_| drop(frame(&mut *source)));
    nothing_more(&mut *source);
    let given: Vec<TakenPage> =
        bench.ledger.script().given.iter().map(|it| TakenPage { done: true, ..*it }).collect();
    // Of three it is known that two were given, and in another order that all were.
    let moved = [given[1], given[0], given[2]];
    let moved = moved.iter().zip(0..).map(|(page, index)| TakenPage { index, ..*page });
    for (known, pages) in [(given[..2].to_vec(), 1), (moved.collect(), 0)] {
        let bench = Bench::new();
        bench.put("b.tif", &stack());
        bench.ledger.script().answers.push(("b.tif", Answer::Read(begun(&known))));
        let mut source = bench.open();
        if pages > 0 {
            assert_eq!(frame(&mut *source).origin.as_deref(), Some("b.tif#2"));
        }
        nothing_more(&mut *source);
        let heard = bench.ledger.heard();
        assert_eq!(heard.iter().filter(|it| it.starts_with("gives")).count(), pages);
        let swapped = heard.iter().filter(|it| it.starts_with("moved")).count();
        assert_eq!(swapped, if pages > 0 { 0 } else { 2 });
        assert_eq!(heard.last().unwrap(), "Given { pages: 3 }");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_said_once_and_taken_once_it_can_be() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    // Rights keep nothing from a test that runs as root; this can be opened and not read.
    std::os::unix::fs::symlink("/proc/self/mem", &target).unwrap();
    std::os::unix::fs::symlink(&target, bench.folder.path().join("a.png")).unwrap();
    let clock = Clock::manual(Clock::system().now().wall_ns + 3_600_000_000_000);
    let mut source = bench.open_at(&clock);
    let mut next = || {
        clock.advance(Duration::from_secs(5));
        source.next(Duration::ZERO).unwrap()
    };
    let mut events = std::iter::from_fn(|| Some(next()));
    let said = events.by_ref().take(20).filter(|it| matches!(it, Event::Refused { .. }));
    assert_eq!(said.count(), 1);
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&target, png(1)).unwrap();
    let taken = events.take(20).filter(|it| matches!(it, Event::Frame(_)));
    assert_eq!(taken.count(), 1);
}

#[test]
fn what_is_known_is_passed_over_in_silence_and_what_ended_a_process_by_name() {
    let bench = Bench::new();
    for name in ["a.png", "b.png", "c.png"] {
        bench.put(name, &png(1));
    }
    let quarantined = Answer::Quarantined("ended the daemon".to_owned());
    bench.ledger.script().answers = vec![("a.png", Answer::Known), ("b.png", quarantined)];
    let mut source = bench.open();
    match source.next(LONG).unwrap() {
        Event::Refused { what, why } => {
            assert_eq!((&*what, &*why), ("b.png", "ended the daemon"))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(frame(&mut *source).origin.as_deref(), Some("c.png"));
    nothing_more(&mut *source);
    // Somebody wants it tried again.
    bench.ledger.script().again.push("b.png".into());
    assert_eq!(frame(&mut *source).origin.as_deref(), Some("b.png"));
}

/// A TIFF of one uncompressed page of 32 × 32 grey values, its pixels last.
fn tiff(value: u8) -> Vec<u8> {
    let tags: [(u16, u16, u32); 9] = [
        (256, 4, 32),
        (257, 4, 32),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1),
        (278, 4, 32),
        (279, 4, 1024),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, of) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(of.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend([value; 1024]);
    bytes
}

#[test]
fn a_file_that_is_opened_again_before_anybody_looked_is_not_read_half_written() {
    let bench = Bench::new();
    let mut source = bench.open();
    nothing_more(&mut *source);
    // Its last size at once and closed, then opened again and half of it written: all of that before
    // the watch comes to read what happened.
    let (path, whole) = (bench.folder.path().join("a.tif"), tiff(9));
    std::fs::write(&path, vec![0; whole.len()]).unwrap();
    let mut writer = File::options().write(true).open(&path).unwrap();
    writer.write_all(&whole[..whole.len() / 2]).unwrap();
    nothing_more(&mut *source);
    nothing_more(&mut *source);
    writer.write_all(&whole[whole.len() / 2..]).unwrap();
    drop(writer);
    let frame = frame(&mut *source);
    assert_eq!(frame.pixels, Pixels::U8(vec![9; 1024]));
    nothing_more(&mut *source);
}

#[test]
fn a_file_that_is_to_wait_is_asked_for_again_and_holds_those_behind_it() {
    let bench = Bench::new();
    bench.put("a.png", &png(1));
    bench.put("b.png", &png(2));
    bench.ledger.script().answers = vec![("a.png", Answer::Later); 3];
    let mut source = bench.open();
    assert_eq!(frame(&mut *source).origin.as_deref(), Some("a.png"));
    assert_eq!(frame(&mut *source).origin.as_deref(), Some("b.png"));
    let asked = bench.ledger.heard().iter().filter(|it| it.starts_with("begin a")).count();
    assert_eq!(asked, 4);
}

#[test]
fn what_an_earlier_process_took_is_not_even_asked_for() {
    let bench = Bench::new();
    bench.put("a.png", &png(1));
    bench.put("b.png", &png(2));
    let (bytes, modified_ns) = version_of(&bench.folder.path().join("a.png")).unwrap();
    bench.ledger.script().settled.push(("a.png".into(), bytes, modified_ns));
    let mut source = bench.open();
    assert_eq!(frame(&mut *source).origin.as_deref(), Some("b.png"));
    nothing_more(&mut *source);
    assert!(!bench.ledger.heard().iter().any(|it| it.starts_with("begin a")));
}

#[test]
fn a_broken_file_ends_as_unfit_and_one_that_is_left_in_the_middle_as_interrupted() {
    let bench = Bench::new();
    bench.put("a.png", &png(1)[..40]);
    bench.put("b.tif", &stack());
    let mut source = bench.open();
    assert!(matches!(source.next(LONG).unwrap(), Event::Refused { .. }));
    assert!(bench.ledger.heard()[1].starts_with("Unfit(\"is damaged"));
    frame(&mut *source);
    drop(source);
    assert_eq!(bench.ledger.heard().last().unwrap(), "Interrupted");
}

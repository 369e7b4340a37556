//! From a file that is whole to one that may be read: its content is hashed and the ledger asked.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::ledger::{Answer, Begun, Candidate, End, Ledger};
use super::pages::{Found, Known};
use super::watch::{Arrival, version_of};
use super::whole::{Doubt, Scan};
use super::{Event, Folder, Mode, SourceError};
use crate::base::ids::FrameId;
use crate::domain::taken::FileIdentity;
use crate::imagefile::Problem;

/// Bytes that are hashed between two looks at the time.
const PIECE_BYTES: usize = 1 << 20;

/// A file that is being asked for.
pub(super) struct Asked {
    arrival: Arrival,
    file: File,
    scan: Scan,
    /// SHA-256 of all its bytes and what is to be thought of them, once they were read.
    read: Option<([u8; 32], Doubt)>,
}

/// What asking for a file came to.
pub(super) enum Asking {
    /// Read it.
    Read(Arrival, Option<Begun>),
    /// There is nothing to read.
    Passed,
    /// There is nothing to read, and this is to be said.
    Said(Event),
    /// The time is over; go on with it next time.
    NotYet,
}

/// What there is to say to the ledger of the file that is being read.
pub(super) struct Entry {
    begun: Begun,
    /// Pages that were given before, and were not met again.
    known: Known,
    ledger: Arc<dyn Ledger>,
    /// Whether any page is fit.
    any: bool,
    refused: Option<End>,
    ended: bool,
}

impl Entry {
    /// A page was read: the id of its frame, or `None` where it was given before.
    pub(super) fn gives(&mut self, index: usize, sha256: [u8; 32]) -> Option<FrameId> {
        self.any = true;
        let usual = self.begun.first_frame.later_by(index as u64);
        match self.known.find(index, sha256, usual) {
            Found::Known => None,
            Found::Moved(page) => {
                self.ledger.moved(self.begun.file, &page);
                None
            }
            Found::New(page) => {
                self.ledger.gives(self.begun.file, &page);
                Some(page.frame)
            }
        }
    }

    /// Its key in the ledger.
    pub(super) fn file(&self) -> i64 {
        self.begun.file
    }

    /// A page of it was refused.
    pub(super) fn refused(&mut self, problem: &Problem) {
        let why = problem.to_string();
        let end = if problem.is_limit() { End::AboveLimit(why) } else { End::Unfit(why) };
        self.refused.get_or_insert(end);
    }

    /// All of it was read: it has so many pages.
    pub(super) fn ends(mut self, pages: usize) {
        let unfit = self.refused.take().filter(|_| !self.any);
        self.end(unfit.unwrap_or(End::Given { pages }));
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.ledger.ends(self.begun.file, end);
    }
}

impl Drop for Entry {
    /// What has no end was interrupted: the folder was lost, the file grows, or it is time to stop.
    fn drop(&mut self) {
        if !self.ended {
            self.end(End::Interrupted);
        }
    }
}

impl Folder {
    /// Begins to ask for a file.
    pub(super) fn ask_for(&mut self, arrival: Arrival) -> Result<Asking, SourceError> {
        let Mode::Watching(watch) = &mut self.mode else {
            return Ok(Asking::Read(arrival, None));
        };
        if !watch.is_unchanged(&arrival) {
            watch.wait_for(arrival);
            return Ok(Asking::Passed);
        }
        if self.ledger.is_none() {
            return Ok(Asking::Read(arrival, None));
        }
        if let Some((bytes, _)) = arrival.facts()
            && let Err(problem) = self.limits.check_bytes(bytes)
        {
            return self.cannot_ask(arrival, &problem);
        }
        match File::open(self.path.join(&arrival.name)) {
            Ok(file) => {
                self.asked = Some(Asked { arrival, file, scan: Scan::default(), read: None });
                Ok(Asking::NotYet)
            }
            Err(error) => self.cannot_ask(arrival, &Problem::Unreadable(error)),
        }
    }

    /// Goes on with the file that is being asked for, up to `until`.
    pub(super) fn ask_on(&mut self, until: u64) -> Result<Asking, SourceError> {
        let Some(mut asked) = self.asked.take() else { return Ok(Asking::Passed) };
        let (sha256, doubt) = match asked.read {
            Some(read) => read,
            None => match self.scan(&mut asked, until) {
                Ok(Some(read)) => read,
                Ok(None) => {
                    self.asked = Some(asked);
                    return Ok(Asking::NotYet);
                }
                Err(error) => {
                    return self.cannot_ask(asked.arrival, &Problem::Unreadable(error));
                }
            },
        };
        let patience = Duration::from_nanos(until.saturating_sub(self.clock.now().mono_ns));
        let (Mode::Watching(watch), Some(ledger)) = (&mut self.mode, &self.ledger) else {
            return Ok(Asking::Passed);
        };
        let Some(version) = asked.arrival.facts().filter(|_| watch.is_unchanged(&asked.arrival))
        else {
            watch.wait_for(asked.arrival);
            return Ok(Asking::Passed);
        };
        watch.can_be_read(&asked.arrival);
        let left = asked.arrival.left;
        let still_for = watch.still_for(&asked.arrival);
        if still_for < doubt.takes(left) {
            watch.doubt(asked.arrival, doubt);
            return Ok(Asking::Passed);
        }
        let identity = match asked.file.metadata() {
            Ok(metadata) => identity_of(&metadata),
            Err(error) => return self.cannot_ask(asked.arrival, &Problem::Unreadable(error)),
        };
        let candidate = Candidate {
            folder: &self.path,
            name: &asked.arrival.name,
            version,
            identity,
            sha256,
            is_open: still_for < Doubt::WrittenOver.takes(left),
        };
        let path = &self.path;
        let holds = |name: &std::ffi::OsStr, version| version_of(&path.join(name)) == Some(version);
        let answer = ledger
            .begin(candidate, &holds, patience)
            .map_err(|error| SourceError::Lost(error.to_string()))?;
        match answer {
            Answer::Read(begun) => Ok(Asking::Read(asked.arrival, Some(begun))),
            Answer::Known => {
                let name = asked.arrival.name.display();
                tracing::debug!(file = %name, "this image was taken before");
                watch.was_read(&asked.arrival);
                Ok(Asking::Passed)
            }
            Answer::Quarantined(why) => {
                watch.was_read(&asked.arrival);
                let what = asked.arrival.name.to_string_lossy().into_owned();
                Ok(Asking::Said(Event::Refused { what, why }))
            }
            Answer::WrittenOver => {
                watch.doubt(asked.arrival, Doubt::WrittenOver);
                Ok(Asking::Passed)
            }
            Answer::Later => {
                asked.read = Some((sha256, doubt));
                self.asked = Some(asked);
                Ok(Asking::NotYet)
            }
        }
    }

    /// Reads on; `None` when the time is over.
    fn scan(&self, asked: &mut Asked, until: u64) -> std::io::Result<Option<([u8; 32], Doubt)>> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = asked.file.read(&mut piece)?;
            if read == 0 {
                return Ok(Some(std::mem::take(&mut asked.scan).finish(&asked.file)));
            }
            asked.scan.read(&piece[..read]);
            if self.clock.now().mono_ns >= until {
                return Ok(None);
            }
        }
    }

    fn cannot_ask(&mut self, arrival: Arrival, problem: &Problem) -> Result<Asking, SourceError> {
        let refused = self.refuse(arrival.clone(), None, problem)?;
        if refused.is_some() && super::is_for_good(problem) {
            self.was_read(&arrival);
        }
        Ok(refused.map_or(Asking::Passed, Asking::Said))
    }

    /// What the ledger is to hear of a file that was begun.
    pub(super) fn entry(&self, begun: Option<Begun>) -> Option<Entry> {
        let ledger = Arc::clone(self.ledger.as_ref()?);
        let begun = begun?;
        let known = Known::of(&begun.pages);
        Some(Entry { begun, known, ledger, any: false, refused: None, ended: false })
    }

    /// Files that are to be taken after all.
    pub(super) fn take_again(&mut self) {
        if let (Mode::Watching(watch), Some(ledger)) = (&mut self.mode, &self.ledger) {
            for name in ledger.again() {
                watch.take_again(name);
            }
        }
    }
}

/// Size and time of change in nanoseconds, of a file.
pub(super) fn facts_of(metadata: &std::fs::Metadata) -> (u64, i64) {
    let modified_ns =
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    // Years from 1677 to 2262; what is beyond is a file system's nonsense, and stays the same.
    let bound = |edge: i64| i128::from(edge);
    let modified_ns = modified_ns.clamp(bound(i64::MIN), bound(i64::MAX));
    (metadata.size(), i64::try_from(modified_ns).unwrap_or(i64::MAX))
}

/// Which file it is, whatever its name.
fn identity_of(metadata: &std::fs::Metadata) -> FileIdentity {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        born_ns: born.and_then(|born| i64::try_from(born.as_nanos()).ok()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::path::Path;
    use std::sync::{Mutex, MutexGuard};

    use super::super::ledger::LedgerError;
    use super::super::*;
    use super::*;
    use crate::capture::{Opener, SourceSpec};
    use crate::domain::label_image::LabelImage;
    use crate::domain::taken::TakenPage;
    use sha2::{Digest, Sha256};

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
        fn settled(
            &self,
            _: &Path,
            each: &mut dyn FnMut(&OsStr, u64, i64),
        ) -> Result<(), LedgerError> {
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
        imagefile::encode_labels_png(&image).unwrap()
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
        // It holds three, of which two were given; and its path held three others before.
        for (known, pages) in [(&given[..2], "2"), (&given[..], "")] {
            bench.put("b.tif", &stack());
            bench.ledger.heard();
            bench.ledger.script().answers.push(("b.tif", Answer::Read(begun(known))));
            bench.ledger.script().again.push("b.tif".into());
            if !pages.is_empty() {
                assert_eq!(frame(&mut *source).origin.as_deref(), Some("b.tif#2"));
            }
            nothing_more(&mut *source);
            assert_eq!(bench.ledger.heard().last().unwrap(), "Given { pages: 3 }");
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
}

//! Real files, real inotify. Nothing sleeps: each test waits on the source's own `next`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::time::SystemTime;

use super::super::{Opener, SourceSpec};
use super::*;
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;

/// Longer than any wait in here on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// Long enough for what is there to be found.
const SHORT: Duration = Duration::from_millis(300);

/// A PNG of 2 × 2 grey values of 16 bits, all `value`.
fn png(value: u32) -> Vec<u8> {
    let image = LabelImage::new(2, 2, vec![value; 4]).unwrap();
    reticle_imagefile::encode_labels_png(&image).unwrap()
}

fn stack() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("tests/golden/images/imagej_stack.tif")).unwrap()
}

struct Inbox {
    folder: tempfile::TempDir,
}

impl Inbox {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// A file that nobody has changed for an hour.
    fn put_old(&self, name: &str, bytes: &[u8]) {
        self.put(name, bytes);
        let hour_ago = SystemTime::UNIX_EPOCH
            + Duration::from_nanos(Clock::system().now().wall_ns as u64)
            - Duration::from_secs(3600);
        File::options().write(true).open(self.at(name)).unwrap().set_modified(hour_ago).unwrap();
    }

    /// A file with the time of change of another.
    fn put_as_old_as(&self, other: &str, name: &str, bytes: &[u8]) {
        self.put(name, bytes);
        let changed = fs::metadata(self.at(other)).unwrap().modified().unwrap();
        File::options().write(true).open(self.at(name)).unwrap().set_modified(changed).unwrap();
    }

    fn watch(&self) -> Folder {
        open(self.folder.path(), &Options::default(), &Clock::system()).unwrap()
    }

    fn replay(&self, options: &Options, clock: &Clock) -> Folder {
        open(self.folder.path(), options, clock).unwrap()
    }
}

fn open(path: &Path, options: &Options, clock: &Clock) -> Result<Folder, SourceError> {
    Folder::open(path, options, Limits::default(), (Memory::default(), None), clock.clone())
}

fn frame(source: &mut dyn Source) -> Frame {
    match source.next(LONG).unwrap() {
        Event::Frame(frame) => *frame,
        other => panic!("{other:?} instead of a frame"),
    }
}

fn origin(source: &mut dyn Source) -> String {
    frame(source).origin.unwrap()
}

fn nothing_more(source: &mut dyn Source) {
    let event = source.next(SHORT).unwrap();
    assert!(matches!(event, Event::Nothing), "{event:?}");
}

fn lost(error: SourceError, folder: &str) {
    match error {
        SourceError::Lost(why) => assert!(why.contains(folder), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_there_comes_first_in_natural_order_then_what_is_new() {
    let inbox = Inbox::new();
    for name in ["t10.png", "t2.png", "A03_s4.png"] {
        inbox.put_old(name, &png(7));
    }
    inbox.put_old("notes.txt", b"not an image");
    let mut source = inbox.watch();
    let first = frame(&mut source);
    assert_eq!(first.origin.as_deref(), Some("A03_s4.png"));
    assert_eq!(first.place.well.as_deref(), Some("A03"));
    assert_eq!(first.place.field, Some(4));
    assert_eq!((first.sequence, first.width, first.height, first.bit_depth), (0, 2, 2, 16));
    assert!(first.pixels == Pixels::U16(vec![7; 4]));
    assert_eq!(origin(&mut source), "t2.png");
    assert_eq!(origin(&mut source), "t10.png");
    nothing_more(&mut source);
    inbox.put("t1.png", &png(8));
    let new = frame(&mut source);
    assert_eq!((new.origin.as_deref(), new.sequence), (Some("t1.png"), 3));
    nothing_more(&mut source);
}

#[test]
fn a_file_renamed_into_place_comes_once_and_its_temporary_name_never() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    inbox.put("a.png.part", &png(1));
    nothing_more(&mut source);
    fs::rename(inbox.at("a.png.part"), inbox.at("a.png")).unwrap();
    assert_eq!(origin(&mut source), "a.png");
    nothing_more(&mut source);
}

#[test]
fn a_growing_file_is_not_read_before_it_is_closed() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    let bytes = stack();
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = File::create(inbox.at("a.tif")).unwrap();
    file.write_all(half).unwrap();
    nothing_more(&mut source);
    file.write_all(rest).unwrap();
    drop(file);
    for page in 0..3 {
        assert_eq!(origin(&mut source), format!("a.tif#{page}"));
    }
    nothing_more(&mut source);
}

#[test]
fn a_file_that_its_writer_keeps_open_is_read_once_it_stands_still() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    let mut file = File::create(inbox.at("a.png")).unwrap();
    file.write_all(&png(1)).unwrap();
    let begun = Clock::system().now();
    assert_eq!(origin(&mut source), "a.png");
    assert!(Clock::system().now().since(&begun) + SHORT > watch::SETTLED);
    // Closing changes nothing, so it is not a new image.
    drop(file);
    nothing_more(&mut source);
}

#[test]
fn a_writer_that_pauses_in_the_middle_is_waited_for_and_not_refused() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    let bytes = stack();
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = File::create(inbox.at("a.tif")).unwrap();
    file.write_all(half).unwrap();
    // Half of a stack holds its first pages; whatever is read of it comes once.
    let mut seen = Vec::new();
    let patience = watch::SETTLED * 2;
    while let Event::Frame(frame) = source.next(patience).unwrap() {
        seen.push(frame.origin.unwrap());
    }
    file.write_all(rest).unwrap();
    drop(file);
    while seen.len() < 3 {
        seen.push(origin(&mut source));
    }
    assert_eq!(seen, ["a.tif#0", "a.tif#1", "a.tif#2"]);
    nothing_more(&mut source);
}

#[test]
fn a_file_written_again_is_a_new_image() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    // Of different sizes, because the kernel's times of change come in ticks.
    for height in 1..4 {
        let image = LabelImage::empty(1, height);
        inbox.put("latest.png", &reticle_imagefile::encode_labels_png(&image).unwrap());
        assert_eq!(frame(&mut source).height, height);
    }
    nothing_more(&mut source);
}

#[test]
fn a_file_written_again_with_its_old_time_of_change_is_a_new_image() {
    let inbox = Inbox::new();
    inbox.put_old("a.png", &png(1));
    let path = inbox.folder.path();
    let identity = Identity::of(path).unwrap();
    let mut watch =
        Watch::begin(path, identity, (Memory::default(), None), Clock::system()).unwrap();
    let first = watch.next(LONG).unwrap().expect("it is there");
    watch.was_read(&first);
    let old = fs::metadata(inbox.at("a.png")).unwrap().modified().unwrap();
    // As FTP's MDTM does it, between the end of the transfer and the reading.
    inbox.put("a.png", &png(2));
    let second = watch.next(LONG).unwrap().expect("it was written");
    File::open(inbox.at("a.png")).unwrap().set_modified(old).unwrap();
    assert!(!watch.is_unchanged(&second));
    watch.wait_for(second);
    assert!(watch.next(LONG).unwrap().is_some(), "what was written is looked at");
    assert!(watch.next(SHORT).unwrap().is_none(), "and once");
}

#[test]
fn a_writer_racing_the_first_listing_loses_no_file_and_gets_none_twice() {
    let inbox = Inbox::new();
    let path = inbox.folder.path().to_owned();
    let count = 300;
    let writer = std::thread::spawn(move || {
        for at in 0..count {
            fs::write(path.join(format!("t{at}.png")), png(at)).unwrap();
        }
    });
    let mut source = inbox.watch();
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(origin(&mut source)).or_insert(0) += 1;
    }
    writer.join().unwrap();
    nothing_more(&mut source);
    assert_eq!(seen.len(), count as usize);
}

#[test]
fn more_changes_than_the_kernel_remembers_lose_no_file() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: u32 = limit.trim().parse().unwrap();
    // Made, opened, written, closed: four events each, and our own queue on top.
    let count = limit / 4 + 1200;
    for at in 0..count {
        inbox.put(&format!("t{at}.png"), &png(1));
    }
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(origin(&mut source)).or_insert(0) += 1;
    }
    nothing_more(&mut source);
    assert_eq!(seen.len(), count as usize);
}

#[test]
fn a_broken_image_is_refused_by_name_and_the_next_one_follows() {
    let inbox = Inbox::new();
    let mut source = inbox.watch();
    inbox.put("a.png", &png(1)[..40]);
    inbox.put("b.tif", b"");
    inbox.put("c.png", b"hello");
    inbox.put("d.png", &png(1));
    for (name, expected) in [("a.png", "damaged"), ("b.tif", "empty"), ("c.png", "not a TIFF")] {
        match source.next(LONG).unwrap() {
            Event::Refused { what, why } => {
                assert_eq!(what, name);
                assert!(why.contains(expected), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    let frame = frame(&mut source);
    assert_eq!((frame.origin.as_deref(), frame.sequence), (Some("d.png"), 0));
}

#[test]
fn an_image_above_the_limit_is_refused_unread_with_what_to_raise() {
    let inbox = Inbox::new();
    // A header alone: what is read beyond it is damage.
    inbox.put_old("a.png", &png(1)[..40]);
    let to_raise = Some("`max_megapixels` in [segment]");
    let limits = Limits { max_pixels: 3, to_raise, ..Limits::default() };
    let options = Options::default();
    let path = inbox.folder.path();
    let mut source =
        Folder::open(path, &options, limits, (Memory::default(), None), Clock::system()).unwrap();
    match source.next(LONG).unwrap() {
        Event::Refused { what, why } => {
            assert_eq!(what, "a.png");
            assert_eq!(
                why,
                "has 2×2 pixels, above the limit of 3; crop it or export it in tiles, or raise \
                 `max_megapixels` in [segment] if the box has the memory"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_that_goes_away_is_lost_and_found_again() {
    let inbox = Inbox::new();
    let path = inbox.at("drop");
    let open = || open(&path, &Options::default(), &Clock::system());
    lost(open().err().unwrap(), "drop");
    fs::create_dir(&path).unwrap();
    let mut source = open().unwrap();
    nothing_more(&mut source);
    fs::remove_dir(&path).unwrap();
    lost(source.next(LONG).unwrap_err(), "drop");
    fs::create_dir(&path).unwrap();
    let mut source = open().unwrap();
    fs::rename(&path, inbox.at("elsewhere")).unwrap();
    fs::create_dir(&path).unwrap();
    lost(source.next(LONG).unwrap_err(), "drop");
    let mut source = open().unwrap();
    fs::write(path.join("a.png"), png(1)).unwrap();
    assert_eq!(origin(&mut source), "a.png");
}

/// Watches the folder whenever it is asked to open it.
fn opener(path: &Path) -> Opener {
    let options = Options { spec: SourceSpec::Folder(path.to_owned()), ..Options::default() };
    Opener::new(options, Limits::default(), Clock::system())
}

#[test]
fn a_share_that_was_gone_gives_only_what_is_new_or_changed_when_it_is_back() {
    let inbox = Inbox::new();
    let share = inbox.at("share");
    fs::create_dir(&share).unwrap();
    for name in ["share/a.png", "share/b.png", "share/c.png"] {
        inbox.put_old(name, &png(1));
    }
    let opener = opener(&share);
    let mut source = opener.open().unwrap();
    for name in ["a.png", "b.png", "c.png"] {
        assert_eq!(origin(&mut *source), name);
    }
    nothing_more(&mut *source);
    // It goes away; what is left is the empty folder on which it was mounted.
    fs::rename(&share, inbox.at("server")).unwrap();
    fs::create_dir(&share).unwrap();
    lost(source.next(LONG).unwrap_err(), "share");
    let mut source = opener.open().unwrap();
    nothing_more(&mut *source);
    // It is mounted again, with other inodes, and in the meantime somebody was at work.
    fs::create_dir(inbox.at("again")).unwrap();
    let larger = reticle_imagefile::encode_labels_png(&LabelImage::empty(1, 3)).unwrap();
    inbox.put_as_old_as("server/a.png", "again/a.png", &png(1));
    inbox.put_as_old_as("server/b.png", "again/b.png", &larger);
    inbox.put_old("again/c.png", &png(1));
    inbox.put_old("again/d.png", &png(1));
    fs::remove_dir(&share).unwrap();
    fs::rename(inbox.at("again"), &share).unwrap();
    lost(source.next(LONG).unwrap_err(), "share");
    let mut source = opener.open().unwrap();
    for name in ["b.png", "c.png", "d.png"] {
        assert_eq!(origin(&mut *source), name);
    }
    nothing_more(&mut *source);
}

#[test]
fn a_share_mounted_again_just_before_it_is_listed_is_lost_first() {
    let inbox = Inbox::new();
    let (share, again) = (inbox.at("share"), inbox.at("again"));
    fs::create_dir(&share).unwrap();
    fs::create_dir(&again).unwrap();
    inbox.put_old("share/a.png", &png(1));
    inbox.put_as_old_as("share/a.png", "again/a.png", &png(1));
    let clock = Clock::manual(Clock::system().now().wall_ns);
    let mut source = open(&share, &Options::default(), &clock).unwrap();
    assert_eq!(origin(&mut source), "a.png");
    fs::rename(&share, inbox.at("gone")).unwrap();
    fs::rename(&again, &share).unwrap();
    // Time to list the folder, which comes before any event is looked at.
    clock.advance(Duration::from_secs(60));
    lost(source.next(Duration::ZERO).unwrap_err(), "share");
}

#[test]
fn what_was_listed_but_not_given_is_given_when_the_folder_is_opened_again() {
    let inbox = Inbox::new();
    for name in ["t1.png", "t2.png", "t3.png"] {
        inbox.put_old(name, &png(1));
    }
    let opener = opener(inbox.folder.path());
    assert_eq!(origin(&mut *opener.open().unwrap()), "t1.png");
    let mut source = opener.open().unwrap();
    assert_eq!(origin(&mut *source), "t2.png");
    assert_eq!(origin(&mut *source), "t3.png");
    nothing_more(&mut *source);
}

#[test]
fn a_stack_goes_on_after_the_last_page_given_when_the_folder_is_opened_again() {
    let inbox = Inbox::new();
    inbox.put_old("a.tif", &stack());
    let opener = opener(inbox.folder.path());
    for page in ["a.tif#0", "a.tif#1"] {
        assert_eq!(origin(&mut *opener.open().unwrap()), page);
    }
    let mut source = opener.open().unwrap();
    assert_eq!(origin(&mut *source), "a.tif#2");
    nothing_more(&mut *source);
    nothing_more(&mut *opener.open().unwrap());
}

#[test]
fn a_broken_image_is_refused_once_however_often_the_folder_is_opened() {
    let inbox = Inbox::new();
    inbox.put_old("a.png", &png(1)[..40]);
    inbox.put_old("b.tif", b"");
    let opener = opener(inbox.folder.path());
    let mut source = opener.open().unwrap();
    for _ in 0..2 {
        assert!(matches!(source.next(LONG).unwrap(), Event::Refused { .. }));
    }
    nothing_more(&mut *source);
    nothing_more(&mut *opener.open().unwrap());
}

#[test]
fn a_file_in_place_of_the_folder_needs_a_person() {
    let inbox = Inbox::new();
    inbox.put("a", b"");
    let error = open(&inbox.at("a"), &Options::default(), &Clock::system()).err().unwrap();
    assert!(matches!(error, SourceError::Unusable(_)), "{error:?}");
}

#[test]
fn a_replay_keeps_its_rate_without_drift_and_ends() {
    let inbox = Inbox::new();
    for at in 0..5 {
        inbox.put(&format!("t{at}.png"), &png(at));
    }
    let clock = Clock::manual(1_000_000_000);
    let options = Options { fps: Some(10.0), ..Options::default() };
    let mut source = inbox.replay(&options, &clock);
    let begun = clock.now();
    let no_wait = Duration::ZERO;
    let mut at_ms = Vec::new();
    // The clock moves in steps that do not fit the period.
    loop {
        match source.next(no_wait).unwrap() {
            Event::Frame(frame) => at_ms.push(frame.captured.since(&begun).as_millis()),
            Event::Nothing => clock.advance(Duration::from_millis(30)),
            Event::End => break,
            Event::Refused { .. } => panic!(),
        }
    }
    assert_eq!(at_ms, [0, 120, 210, 300, 420]);
    assert!(matches!(source.next(no_wait).unwrap(), Event::End));
}

#[test]
fn a_replay_that_was_held_goes_on_at_its_rate_instead_of_racing() {
    let inbox = Inbox::new();
    for at in 0..4 {
        inbox.put(&format!("t{at}.png"), &png(at));
    }
    let clock = Clock::manual(1_000_000_000);
    let options = Options { fps: Some(10.0), ..Options::default() };
    let mut source = inbox.replay(&options, &clock);
    assert_eq!(frame(&mut source).sequence, 0);
    source.rest();
    clock.advance(Duration::from_secs(5));
    assert_eq!(frame(&mut source).sequence, 1);
    assert!(matches!(source.next(Duration::ZERO).unwrap(), Event::Nothing));
    // The same without being told.
    clock.advance(Duration::from_secs(5));
    assert_eq!(frame(&mut source).sequence, 2);
    assert!(matches!(source.next(Duration::ZERO).unwrap(), Event::Nothing));
}

#[test]
fn a_replay_begins_again_and_counts_on() {
    let inbox = Inbox::new();
    inbox.put("b.tif", &stack());
    inbox.put("a.png", &png(1));
    let options = Options { replay: true, pixel_size_um: Some(0.5), ..Options::default() };
    let mut source = inbox.replay(&options, &Clock::system());
    for sequence in 0..12_u64 {
        let frame = frame(&mut source);
        assert_eq!(frame.sequence, sequence);
        let expected = ["a.png", "b.tif#0", "b.tif#1", "b.tif#2"][(sequence % 4) as usize];
        assert_eq!(frame.origin.as_deref(), Some(expected));
        assert_eq!(frame.pixel_size_um, Some(0.5));
    }
}

#[test]
fn a_replay_of_nothing_is_lost_instead_of_spinning() {
    let inbox = Inbox::new();
    inbox.put("a.png", b"hello");
    let options = Options { replay: true, ..Options::default() };
    let mut source = inbox.replay(&options, &Clock::system());
    assert!(matches!(source.next(LONG).unwrap(), Event::Refused { .. }));
    let error = source.next(LONG).unwrap_err();
    assert!(matches!(error, SourceError::Lost(_)));
    assert!(error.to_string().contains("has no image that can be read"), "{error}");
}

#[test]
fn a_rate_that_is_none_needs_a_person() {
    let inbox = Inbox::new();
    for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = Options { fps: Some(fps), ..Options::default() };
        let error = open(inbox.folder.path(), &options, &Clock::system()).err().unwrap();
        assert!(matches!(error, SourceError::Unusable(_)), "{fps}: {error:?}");
    }
}

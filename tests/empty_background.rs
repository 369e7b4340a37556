//! Empty background is left out, and no label changes by it: frames are segmented with and
//! without.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reticle::capture::{self, Event};
use reticle_base::clock::Clock;
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_segment::network::Tiles;
use reticle_segment::{Options, Segmenter};

mod common;

use common::data_dir;

/// Frames of the virtual microscope in a field, in a well, and the time of one.
const FIELD: u64 = 12;
const WELL: u64 = 2 * FIELD;
const FRAME: Duration = Duration::from_millis(200);

/// A segmenter that leaves empty tiles out, and one that does not.
struct Both {
    usual: Segmenter,
    thorough: Segmenter,
}

impl Both {
    fn new(model: &str, object_diameter_px: Option<f32>) -> Self {
        let options = Options { model: model.to_owned(), object_diameter_px, ..Options::default() };
        let segmenter = || Segmenter::new(&options, Clock::system()).unwrap();
        let mut both = Self { usual: segmenter(), thorough: segmenter() };
        both.thorough.run_every_tile();
        both
    }

    /// The tiles of `frame` and its objects; panics, naming `what`, when a label differs.
    fn segment(&mut self, frame: &Arc<Frame>, what: &str) -> (Tiles, u32) {
        let usual = self.usual.segment(frame).unwrap();
        let thorough = self.thorough.segment(frame).unwrap();
        assert_eq!(self.thorough.tiles().skipped, 0, "{what}");
        let differing = std::iter::zip(usual.labels.labels(), thorough.labels.labels())
            .filter(|(usual, thorough)| usual != thorough)
            .count();
        assert_eq!(differing, 0, "pixels of {what} have another label when tiles are left out");
        (self.usual.tiles(), usual.labels.count())
    }
}

fn read(path: &Path) -> Arc<Frame> {
    let page = reticle_imagefile::open(path, Options::default().limits())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    Arc::new(page.into_shot(Clock::system().now(), name).into_frame().unwrap())
}

#[test]
fn no_label_of_a_real_frame_changes_when_empty_tiles_are_left_out() {
    let Some(data) = data_dir() else { return };
    for (model, split, fewest) in [
        ("nuclei", "val", 50),
        ("nuclei", "test", 50),
        ("phase", "phase-val", 5),
        ("phase", "phase-test", 5),
    ] {
        let mut both = Both::new(model, None);
        let mut sum = Tiles::default();
        for path in reticle_imagefile::list_images(&[data.join(split).join("images")]).unwrap() {
            let (tiles, _) = both.segment(&read(&path), &path.display().to_string());
            sum.all += tiles.all;
            sum.skipped += tiles.skipped;
        }
        eprintln!("{split}: {sum:?}");
        assert!(sum.all >= fewest, "{split} has too few images: {sum:?}");
    }
}

/// Frames of the virtual microscope, by sequence number in rising order.
fn virtual_frames(sequences: &[u64]) -> Vec<Arc<Frame>> {
    let clock = Clock::manual(0);
    let mut scope = capture::open(&capture::Options::default(), &clock).unwrap();
    let mut next = || match scope.next(Duration::from_millis(1)).unwrap() {
        Event::Frame(frame) => Arc::new(*frame),
        _ => panic!("the virtual microscope gave no frame"),
    };
    // The first frame begins the beat.
    let mut frame = next();
    let take = |&sequence: &u64| {
        while frame.sequence < sequence {
            clock.advance(FRAME * u32::try_from(sequence - frame.sequence).unwrap());
            frame = next();
        }
        assert_eq!(frame.sequence, sequence);
        Arc::clone(&frame)
    };
    sequences.iter().map(take).collect()
}

#[test]
fn no_label_of_the_virtual_microscope_changes_and_its_empty_wells_are_left_out() {
    // Both fields of wells that get sparser from A01 and A03 to A11; A12 has no cells.
    let wells = [0, 2, 5, 8, 10, 11];
    let sequences: Vec<u64> =
        wells.iter().flat_map(|well| [well * WELL, well * WELL + FIELD]).collect();
    let frames = virtual_frames(&sequences);
    for object_diameter_px in [None, Some(20.0)] {
        let mut both = Both::new("nuclei", object_diameter_px);
        let (mut sparse, mut empty) = (Tiles::default(), Tiles::default());
        for frame in &frames {
            let well = frame.place.well.clone().unwrap();
            let (tiles, objects) = both.segment(frame, &format!("{well}, {}", frame.sequence));
            eprintln!("{well}, {}: {objects} objects, {tiles:?}", frame.sequence);
            let sum = match well.as_str() {
                "A11" => &mut sparse,
                "A12" => &mut empty,
                _ => continue,
            };
            sum.all += tiles.all;
            sum.skipped += tiles.skipped;
        }
        assert!(sparse.skipped > 0, "{sparse:?}");
        // Light that falls off towards a corner of an image that is all noise may look like signal.
        assert!(empty.all > 0 && 3 * empty.skipped >= 2 * empty.all, "{empty:?}");
    }
}

/// A number that looks random (the finaliser of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[test]
fn an_object_in_one_corner_is_found_by_its_tile_alone_with_the_same_labels() {
    const EDGE: u32 = 600;
    let pixel = |at: u32| {
        let (x, y) = (at % EDGE, at / EDGE);
        let is_inside = x.abs_diff(45).pow(2) + y.abs_diff(40).pow(2) < 90;
        let noise = mix(u64::from(at) + 1) % 16;
        u16::try_from(100 + noise + if is_inside { 80 } else { 0 }).unwrap()
    };
    let frame = Shot {
        sequence: 0,
        captured: Clock::system().now(),
        exposure_us: None,
        width: EDGE,
        height: EDGE,
        bit_depth: 16,
        pixels: Pixels::U16((0..EDGE * EDGE).map(pixel).collect()),
        pixel_size_um: None,
        pixel_size_source: None,
        pixel_size_note: None,
        place: Place::default(),
        origin: None,
        truth: None,
    };
    let frame = Arc::new(frame.into_frame().unwrap());
    for object_diameter_px in [None, Some(20.0)] {
        let (tiles, objects) =
            Both::new("nuclei", object_diameter_px).segment(&frame, "the drawn frame");
        assert_eq!(objects, 1);
        assert_eq!(tiles.all - tiles.skipped, 1, "{tiles:?}");
        assert!(tiles.skipped >= 3, "{tiles:?}");
    }
}

//! What other programs write is read as they meant it; see `tests/golden/images/make.py`.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use reticle_base::clock::Clock;
use reticle_domain::frame::{Frame, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::pixel_size::PixelSizeSource;

const WIDTH: u32 = 23;
const HEIGHT: u32 = 19;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/images").join(name)
}

/// The picture that `make.py` draws.
fn picture8(page: u32) -> Vec<u8> {
    (0..HEIGHT)
        .flat_map(|row| {
            (0..WIDTH).map(move |column| ((row * 37 + column * 11 + page * 101) % 251) as u8)
        })
        .collect()
}

fn picture16(page: u32) -> Vec<u16> {
    picture8(page).into_iter().map(|value| u16::from(value) * 16 + 5).collect()
}

fn read(name: &str) -> Vec<Page> {
    open(&golden(name), Limits::default()).unwrap().map(Result::unwrap).collect()
}

fn refusal(path: &Path) -> String {
    match open(path, Limits::default()) {
        Err(error) => error.to_string(),
        Ok(mut pages) => pages.find_map(Result::err).expect("a refusal").to_string(),
    }
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn every_way_to_store_a_grey_picture_gives_the_same_pixels() {
    for name in [
        "deflate8.tif",
        "packbits8.tif",
        "miniswhite8.tif",
        "rgb_grey8.tif",
        "rgb_planar_grey8.tif",
        "grey8.png",
        "rgba_grey.png",
        "palette_grey.png",
    ] {
        let pages = read(name);
        assert_eq!(pages.len(), 1, "{name}");
        assert_eq!((pages[0].width, pages[0].height), (WIDTH, HEIGHT), "{name}");
        assert_eq!(pages[0].bit_depth, 8, "{name}");
        assert!(pages[0].pixels == Pixels::U8(picture8(0)), "{name}");
    }
    for name in ["lzw16.tif", "bigendian16.tif", "bigtiff16.tif", "tiled16.tif", "grey16.png"] {
        let pages = read(name);
        assert_eq!(pages.len(), 1, "{name}");
        assert_eq!(pages[0].bit_depth, 16, "{name}");
        assert!(pages[0].pixels == Pixels::U16(picture16(0)), "{name}");
    }
}

#[test]
fn a_bilevel_png_becomes_black_and_white() {
    let expected = picture8(0).into_iter().map(|value| if value > 100 { 255 } else { 0 }).collect();
    assert!(read("grey1.png")[0].pixels == Pixels::U8(expected));
}

#[test]
fn jpeg_is_read_to_within_its_loss() {
    for name in ["grey.jpg", "rgb_grey_progressive.jpg"] {
        let page = &read(name)[0];
        assert_eq!((page.width, page.height), (WIDTH, HEIGHT));
        for row in 0..HEIGHT {
            for column in 0..WIDTH {
                let found = page.pixels.get((row * WIDTH + column) as usize);
                assert!(found.abs_diff((row * 5 + column * 6) as u16) <= 6, "{name}");
            }
        }
    }
}

#[test]
fn the_pixel_size_is_known_where_a_program_wrote_it_in_earnest() {
    let size = |name| read(name)[0].pixel_size_um;
    let near = |found: Option<f64>, expected: f64| {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-6), "{found:?}");
    };
    near(size("ome_stack.ome.tif"), 0.325);
    near(size("imagej_stack.tif"), 0.25);
    near(size("lzw16.tif"), 0.5);
    assert_eq!(size("deflate8.tif"), None);
    assert_eq!(size("bigtiff16.tif"), None);
}

#[test]
fn stacks_are_read_page_by_page() {
    for (name, bit_depth) in [("ome_stack.ome.tif", 12), ("imagej_stack.tif", 16)] {
        let mut pages = open(&golden(name), Limits::default()).unwrap();
        assert_eq!(pages.len(), 3, "{name}");
        for index in 0..3 {
            let page = pages.next().unwrap().unwrap();
            assert_eq!((page.index, page.bit_depth), (index, bit_depth), "{name}");
            assert!(page.pixels == Pixels::U16(picture16(index as u32)), "{name} {index}");
            assert!(page.pixel_size_um.is_some(), "{name}");
        }
        assert!(pages.next().is_none());
        assert_eq!(pages.total(), 3);
    }
}

#[test]
fn thumbnails_are_not_pages() {
    let pages = read("with_thumbnail.tif");
    assert_eq!(pages.len(), 2);
    assert!(pages[0].pixels == Pixels::U8(picture8(0)));
    assert!(pages[1].pixels == Pixels::U8(picture8(2)));
    assert_eq!(pages[1].index, 1);
}

#[test]
fn what_is_not_one_grey_channel_is_refused_with_the_remedy() {
    for name in ["colour.png", "colour.jpg", "rgb_colour8.tif"] {
        let text = refusal(&golden(name));
        assert!(text.contains(name), "{text}");
        assert!(text.contains("is a colour image; Reticle segments one channel"), "{text}");
    }
    for (name, what) in [
        ("float32.tif", "floating-point"),
        ("uint32.tif", "32 bits a pixel"),
        ("lut8.tif", "colour table"),
    ] {
        let text = refusal(&golden(name));
        assert!(text.contains(what) && text.contains("8-bit or 16-bit greyscale"), "{text}");
    }
    let text = refusal(&golden("zstd16.tif"));
    assert!(text.contains("compressed by ZSTD") && text.contains("LZW or deflate"), "{text}");
}

#[test]
fn an_image_cut_off_anywhere_is_an_error_and_never_a_wrong_picture() {
    for name in [
        "grey16.png",
        "lzw16.tif",
        "bigendian16.tif",
        "ome_stack.ome.tif",
        "grey.jpg",
        "rgb_grey_progressive.jpg",
    ] {
        let bytes = fs::read(golden(name)).unwrap();
        let whole = read(name);
        for length in 0..bytes.len() {
            let (_folder, path) = written(name, &bytes[..length]);
            let Ok(pages) = open(&path, Limits::default()) else { continue };
            for (index, page) in pages.enumerate() {
                // A cut behind the pixels takes nothing away.
                assert!(page.is_err() || page.unwrap() == whole[index], "{name} cut to {length}");
            }
        }
    }
}

#[test]
fn broken_files_are_named_with_what_to_do() {
    let png = fs::read(golden("grey16.png")).unwrap();
    for (name, bytes, expected) in [
        ("zero.tif", &b""[..], "zero.tif is empty (0 bytes); export or copy it again"),
        (
            "text.png",
            b"hello, world",
            "is not a TIFF, PNG or JPEG image; export it as one of these",
        ),
        ("cut.png", &png[..png.len() / 2], "is damaged or cut short"),
        ("cut.tif", b"II*\0\x08\0", "is damaged or cut short (it ends too early)"),
    ] {
        let (_folder, path) = written(name, bytes);
        let text = refusal(&path);
        assert!(text.contains(name) && text.contains(expected), "{text}");
    }
    let text = refusal(Path::new("/nowhere/a.png"));
    assert!(text.starts_with("/nowhere/a.png cannot be read (No such file"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path()).contains("is not a file"));
}

#[test]
fn a_file_is_what_its_content_says_whatever_its_name() {
    let (_folder, path) = written("really_png.tif", &fs::read(golden("grey8.png")).unwrap());
    let page = open(&path, Limits::default()).unwrap().next().unwrap().unwrap();
    assert!(page.pixels == Pixels::U8(picture8(0)));
}

/// A PNG header that promises 20,000 × 20,000 pixels.
fn huge_png() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend(20_000_u32.to_be_bytes());
    bytes.extend(20_000_u32.to_be_bytes());
    bytes.extend([8, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn an_image_above_the_limit_is_refused_by_its_header_alone() {
    let (_folder, path) = written("huge.png", &huge_png());
    let text = refusal(&path);
    assert!(
        text.contains("huge.png has 20000×20000 pixels, above the limit of 67108864"),
        "{text}"
    );
    let small = Limits { max_pixels: u64::from(WIDTH * HEIGHT) - 1, ..Limits::default() };
    for name in ["grey16.png", "grey.jpg"] {
        assert!(matches!(
            open(&golden(name), small).unwrap_err().problem(),
            Problem::TooLarge { width: WIDTH, height: HEIGHT, .. }
        ));
    }
    let page = open(&golden("lzw16.tif"), small).unwrap().next().unwrap();
    assert!(matches!(page.unwrap_err().problem(), Problem::TooLarge { .. }));
    let just = Limits { max_pixels: u64::from(WIDTH * HEIGHT), ..Limits::default() };
    assert!(open(&golden("lzw16.tif"), just).unwrap().all(|page| page.is_ok()));
}

/// A TIFF whose pages, of 64 × 64 black pixels, have their strips at `strips` and name `next` of the
/// page at a place as the one after it. Places count directories, strips count whole strips.
fn pages(strips: &[u32], next: impl Fn(usize) -> Option<usize>) -> Vec<u8> {
    const EDGE: u32 = 64;
    const DIRECTORY: u32 = 2 + 9 * 12 + 4;
    let stored = strips.iter().max().map_or(0, |most| most + 1);
    let first = 8 + stored * EDGE * EDGE;
    let at = |page: usize| first + page as u32 * DIRECTORY;
    let mut bytes = b"II*\0".to_vec();
    bytes.extend(at(0).to_le_bytes());
    bytes.resize(first as usize, 0);
    for (page, strip) in strips.iter().enumerate() {
        let tags: [(u16, u16, u32); 9] = [
            (256, 4, EDGE),
            (257, 4, EDGE),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 8 + strip * EDGE * EDGE),
            (277, 3, 1),
            (278, 4, EDGE),
            (279, 4, EDGE * EDGE),
        ];
        bytes.extend(9_u16.to_le_bytes());
        for (tag, kind, value) in tags {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(next(page).map_or(0, at).to_le_bytes());
    }
    bytes
}

#[test]
fn a_list_of_pages_that_runs_in_a_circle_is_cut_where_it_closes() {
    let (_folder, path) = written("a.tif", &pages(&[0, 1, 2], |page| Some((page + 1) % 3)));
    let read: Vec<_> = open(&path, Limits::default()).unwrap().collect();
    let (end, whole) = read.split_last().unwrap();
    assert!(whole.len() == 3 && whole.iter().all(Result::is_ok), "{read:?}");
    let why = end.as_ref().unwrap_err().to_string();
    assert!(why.contains("in a circle (page 2 is followed by page 0)"), "{why}");
    assert!(!why.contains("damaged"), "{why}");
}

#[test]
fn a_file_of_too_many_pages_or_bytes_is_refused_unread() {
    let chain = |page| (page < 4).then_some(page + 1);
    let (_folder, path) = written("a.tif", &pages(&[0, 1, 2, 3, 4], chain));
    let four = Limits { max_pages: 4, ..Limits::default() };
    let error = open(&path, four).unwrap_err();
    assert!(error.to_string().contains("has more than 4 pages"), "{error}");
    assert!(error.problem().is_limit());
    let five = Limits { max_pages: 5, ..Limits::default() };
    assert_eq!(open(&path, five).unwrap().filter_map(Result::ok).count(), 5);
    let bytes = fs::metadata(&path).unwrap().len();
    let small = Limits { max_bytes: bytes - 1, ..Limits::default() };
    let error = open(&path, small).unwrap_err().to_string();
    assert!(error.contains(&format!("has {bytes} bytes, above the limit of")), "{error}");
}

#[test]
fn pages_that_share_their_pixels_are_refused_and_a_file_that_is_cut_short_is_damaged() {
    let shared = vec![0; 200];
    let chain = |page| (page < 199).then_some(page + 1);
    let (_folder, path) = written("bomb.tif", &pages(&shared, chain));
    let error = open(&path, Limits::default()).unwrap_err();
    assert!(matches!(error.problem(), Problem::SharedPixels { claimed: 819_200, .. }), "{error}");
    assert!(!error.problem().is_limit());
    // Some pages of a stack may well be the same blank.
    let few = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0];
    let chain = |page| (page < 12).then_some(page + 1);
    let (_folder, path) = written("stack.tif", &pages(&few, chain));
    assert_eq!(open(&path, Limits::default()).unwrap().filter_map(Result::ok).count(), 13);
    // Directories first, pixels after them, and the writer is not done.
    let bytes = fs::read(golden("bigendian16.tif")).unwrap();
    let (_folder, path) = written("cut.tif", &bytes[..700]);
    assert!(refusal(&path).contains("damaged or cut short"));
}

#[test]
fn an_image_that_needs_more_memory_than_there_is_is_refused_by_its_header() {
    // A petabyte a pixel is more than any machine has.
    let greedy = Limits { bytes_a_pixel: 1 << 50, ..Limits::default() };
    let error = open(&golden("grey16.png"), greedy).unwrap_err();
    assert!(matches!(error.problem(), Problem::NoMemory { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("has 23×19 pixels, which take 492"), "{text}");
    assert!(text.contains("MB can be had within the "), "{text}");
    let page = open(&golden("lzw16.tif"), greedy).unwrap().next().unwrap();
    assert!(matches!(page.unwrap_err().problem(), Problem::NoMemory { .. }));
    assert!(open(&golden("lzw16.tif"), greedy).unwrap().next_is_heavy());
    assert!(!open(&golden("lzw16.tif"), Limits::default()).unwrap().next_is_heavy());
}

#[test]
fn labels_are_read_from_every_width_and_sign() {
    let expected: Vec<u32> = picture8(0).into_iter().map(|value| u32::from(value) / 50).collect();
    for name in ["labels_u32.tif", "labels_i32.tif"] {
        assert_eq!(read_labels(&golden(name)).unwrap().labels(), expected, "{name}");
    }
    let sparse = read_labels(&golden("labels_sparse.tif")).unwrap();
    let dense = LabelImage::new(WIDTH, HEIGHT, expected).unwrap().relabelled();
    assert!(sparse == dense);
    let bilevel = read_labels(&golden("grey1.png")).unwrap();
    assert_eq!(bilevel.count(), 1);
    for name in ["palette_grey.png", "grey.jpg", "float32.tif", "colour.png"] {
        let text = read_labels(&golden(name)).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn too_many_objects_for_a_png_go_into_a_tiff_beside_it() {
    let labels = LabelImage::new(300, 300, (0..90_000).collect()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = write_labels(&folder.path().join("a.png"), &labels).unwrap();
    assert_eq!(path, folder.path().join("a.tif"));
    assert!(read_labels(&path).unwrap() == labels);
    let error = write_labels(Path::new("/nowhere/a.png"), &labels).unwrap_err().to_string();
    assert!(error.contains("/nowhere/a.tif cannot be written"), "{error}");
}

fn frame(width: u32, height: u32, bit_depth: u8, pixels: Pixels) -> Frame {
    Shot {
        sequence: 7,
        captured: Clock::manual(1_700_000_000_000_000_000).now(),
        exposure_us: Some(25_000),
        width,
        height,
        bit_depth,
        pixels,
        pixel_size_um: Some(0.325),
        pixel_size_source: Some(PixelSizeSource::OmeXml),
        pixel_size_note: None,
        place: Place {
            plate: Some("µ & <plate>".to_owned()),
            well: Some("C07".to_owned()),
            field: Some(2),
        },
        origin: Some("a\u{1}b.tif#3".to_owned()),
        truth: None,
    }
    .into_frame()
    .unwrap()
}

proptest! {
    #[test]
    fn a_frame_comes_back_from_its_tiff_bit_for_bit(
        (width, height, bits, seed) in (1..70_u32, 1..70_u32, prop::sample::select(vec![8_u8, 10, 12, 14, 16]), any::<u16>())
    ) {
        let values = (0..width * height).map(|at| (at as u16).wrapping_mul(40_503) ^ seed);
        let pixels = if bits == 8 {
            Pixels::U8(values.map(|value| value as u8).collect())
        } else {
            Pixels::U16(values.map(|value| value >> (16 - bits)).collect())
        };
        let frame = frame(width, height, bits, pixels);
        let page = decode_frame_tiff(&encode_frame_tiff(&frame).unwrap()).unwrap();
        prop_assert_eq!(page.pixels.sha256(), frame.sha256);
        prop_assert_eq!((page.width, page.height, page.bit_depth), (width, height, bits));
        prop_assert_eq!(page.pixel_size_um, Some(0.325));
    }

    #[test]
    fn labels_come_back_identical(
        (width, height, most, png) in (1..50_u32, 1..50_u32, prop::sample::select(vec![1_u32, 255, 256, 2000, 65_535, 65_536, 90_000]), any::<bool>())
    ) {
        // As large as the image has pixels at most, or they would be renumbered.
        let most = most.min(width * height);
        let labels = (0..width * height).map(|at| at.wrapping_mul(2_654_435_761) % (most + 1));
        let labels = LabelImage::new(width, height, labels.collect()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if png { "a.png" } else { "a.tiff" });
        let path = write_labels(&path, &labels).unwrap();
        prop_assert!(read_labels(&path).unwrap() == labels);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_take_much_memory(
        (name, flips) in (
            prop::sample::select(vec!["lzw16.tif", "tiled16.tif", "ome_stack.ome.tif", "bigtiff16.tif", "grey16.png", "rgb_grey_progressive.jpg"]),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        )
    ) {
        let mut bytes = fs::read(golden(name)).unwrap();
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let (_folder, path) = written("flipped", &bytes);
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        if let Ok(pages) = open(&path, limits) {
            for page in pages.take(10).flatten() {
                prop_assert_eq!(page.pixels.len() as u64, u64::from(page.width) * u64::from(page.height));
            }
        }
    }
}

//! Files of the kinds that were read wrongly, or refused with the wrong word, built tag by tag.

use std::fs;
use std::path::PathBuf;

use super::*;

const WIDTH: u32 = 12;
const HEIGHT: u32 = 10;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const ASCII: u16 = 2;

/// One page: tags with their kinds and values, and its bytes. Offset and length of the bytes are
/// filled in where the tags 273 and 279 have the value 0.
#[derive(Clone)]
struct Made {
    tags: Vec<(u16, u16, Vec<u64>)>,
    bytes: Vec<u8>,
}

impl Made {
    fn new(width: u32, height: u32, bits: u64, bytes: Vec<u8>) -> Self {
        let long = |tag, value: u32| (tag, LONG, vec![u64::from(value)]);
        let tags = vec![
            long(256, width),
            long(257, height),
            (258, SHORT, vec![bits]),
            long(259, 1),
            long(262, 1),
            long(273, 0),
            long(277, 1),
            long(278, height),
            long(279, 0),
        ];
        Self { tags, bytes }
    }

    /// Sets a tag, or adds it once more where it stands already as text.
    fn with(mut self, tag: u16, kind: u16, values: &[u64]) -> Self {
        self.tags.retain(|(other, ..)| *other != tag);
        self.tags.push((tag, kind, values.to_vec()));
        self
    }

    fn without(mut self, tag: u16) -> Self {
        self.tags.retain(|(other, ..)| *other != tag);
        self
    }

    fn saying(self, text: &str) -> Self {
        let bytes: Vec<_> = text.bytes().chain([0]).map(u64::from).collect();
        self.with(270, ASCII, &bytes)
    }
}

/// The grey picture of 8 bits that most files here show.
fn grey() -> Vec<u8> {
    (0..WIDTH * HEIGHT).map(|at| (at * 7 % 251) as u8).collect()
}

fn plain() -> Made {
    Made::new(WIDTH, HEIGHT, 8, grey())
}

fn le16(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn size_of(kind: u16) -> usize {
    match kind {
        1 | 2 => 1,
        SHORT => 2,
        5 => 8,
        _ => 4,
    }
}

/// A classic little-endian file of these pages; the last is followed by page `back`, where there is
/// one.
fn file_of(pages: &[Made], back: Option<usize>) -> Vec<u8> {
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    let mut starts = Vec::new();
    for page in pages {
        starts.push(bytes.len() as u64);
        bytes.extend(&page.bytes);
    }
    let mut directories = Vec::new();
    let mut link = 4;
    for (page, start) in pages.iter().zip(starts) {
        let mut tags = page.tags.clone();
        tags.sort_by_key(|(tag, ..)| *tag);
        for (tag, _, values) in &mut tags {
            match (*tag, values.as_slice()) {
                (273, [0]) => *values = vec![start],
                (279, [0]) => *values = vec![page.bytes.len() as u64],
                // Strips by where they are within the page's bytes.
                (273, [_, _, ..]) => values.iter_mut().for_each(|value| *value += start),
                _ => {}
            }
        }
        let mut entries = Vec::new();
        for (tag, kind, values) in &tags {
            let size = size_of(*kind);
            let mut value: Vec<u8> =
                values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect();
            if value.len() > 4 {
                let at = bytes.len() as u32;
                bytes.extend(&value);
                value = at.to_le_bytes().to_vec();
            }
            value.resize(4, 0);
            entries.extend(tag.to_le_bytes());
            entries.extend(kind.to_le_bytes());
            entries.extend((values.len() as u32).to_le_bytes());
            entries.extend(value);
        }
        let at = bytes.len() as u32;
        bytes[link..link + 4].copy_from_slice(&at.to_le_bytes());
        directories.push(at);
        bytes.extend((tags.len() as u16).to_le_bytes());
        bytes.extend(entries);
        link = bytes.len();
        bytes.extend([0; 4]);
    }
    if let Some(back) = back {
        bytes[link..link + 4].copy_from_slice(&directories[back].to_le_bytes());
    }
    bytes
}

struct Opened {
    pages: Vec<Result<Page, ImageFileError>>,
    notes: Vec<String>,
}

fn opened(name: &str, bytes: &[u8], selection: &Selection) -> Result<Opened, ImageFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let pages = open_chosen(&path, Limits::default(), selection)?;
    let notes = pages.notes().to_vec();
    let expected = pages.len();
    let pages: Vec<_> = pages.collect();
    if pages.iter().all(Result::is_ok) {
        assert_eq!(pages.len(), expected);
    }
    Ok(Opened { pages, notes })
}

fn read_all(pages: &[Made]) -> Vec<Page> {
    let opened = opened("a.tif", &file_of(pages, None), &Selection::default()).unwrap();
    opened.pages.into_iter().map(Result::unwrap).collect()
}

fn read_one(page: Made) -> Page {
    let mut pages = read_all(&[page]);
    assert_eq!(pages.len(), 1);
    pages.remove(0)
}

fn choose(channel: Option<&str>, z: Option<&str>) -> Selection {
    let pick = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    Selection { channel: pick(channel), z: pick(z) }
}

/// What a file is refused with; it must not be called damaged.
fn refused(what: &str, bytes: &[u8]) -> String {
    let why = match opened(what, bytes, &Selection::default()) {
        Err(error) => error.to_string(),
        Ok(opened) => opened.pages.into_iter().find_map(Result::err).expect(what).to_string(),
    };
    assert!(!why.contains("damaged"), "{what}: {why}");
    why
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte.reverse_bits()).collect()
}

#[test]
fn bits_in_reversed_order_are_turned_round() {
    const FILL_ORDER: u16 = 266;
    let expected = Pixels::U8(grey());
    let page = Made::new(WIDTH, HEIGHT, 8, reversed(&grey())).with(FILL_ORDER, SHORT, &[2]);
    assert!(read_one(page).pixels == expected);
    assert!(read_one(plain().with(FILL_ORDER, SHORT, &[1])).pixels == expected);
    // 16 bits: each byte by itself.
    let deep: Vec<_> = grey().iter().map(|&value| u16::from(value) * 16 + 3).collect();
    let page = Made::new(WIDTH, HEIGHT, 16, reversed(&le16(&deep))).with(FILL_ORDER, SHORT, &[2]);
    assert!(read_one(page).pixels == Pixels::U16(deep));
    // Compressed: what is compressed is turned round. PackBits of one literal run a row.
    let packed: Vec<_> = grey().chunks(12).flat_map(|row| [&[11_u8][..], row].concat()).collect();
    let page = Made::new(WIDTH, HEIGHT, 8, reversed(&packed)).with(FILL_ORDER, SHORT, &[2]).with(
        259,
        SHORT,
        &[32_773],
    );
    assert!(read_one(page).pixels == expected);
    // Less than 8 bits: the first pixel is in the lowest bits.
    let page = Made::new(8, 1, 1, vec![0b0000_0101]).with(FILL_ORDER, SHORT, &[2]);
    assert!(read_one(page).pixels == Pixels::U8(vec![255, 0, 255, 0, 0, 0, 0, 0]));
    let page = Made::new(2, 1, 4, vec![0x48]).with(FILL_ORDER, SHORT, &[2]);
    assert!(read_one(page).pixels == Pixels::U8(vec![17, 34]));
}

#[test]
fn lengths_that_are_missing_are_worked_out() {
    let expected = Pixels::U8(grey());
    assert!(read_one(plain().without(279)).pixels == expected);
    assert!(read_one(plain().with(279, LONG, &[0, 0])).pixels == expected);
    let rows = u64::from(WIDTH);
    let strips = [0, 4 * rows, 8 * rows];
    let strips = plain().with(273, LONG, &strips).with(278, LONG, &[4]);
    assert!(read_one(strips.clone().without(279)).pixels == expected);
    assert!(read_one(strips.with(279, LONG, &[4 * rows, 4 * rows, 4 * rows])).pixels == expected);
    assert!(read_one(plain().without(278)).pixels == expected);
    assert!(read_one(plain().with(278, LONG, &[u64::from(u32::MAX)])).pixels == expected);
    // A length that did not fit its field.
    assert!(read_one(plain().with(279, LONG, &[5])).pixels == expected);
    // What is not there is damage, not a refusal.
    let cut = file_of(&[plain().with(257, LONG, &[9_999]).with(278, LONG, &[9_999])], None);
    let error = opened("a.tif", &cut, &Selection::default()).unwrap().pixels_error();
    assert!(error.contains("is damaged or cut short"), "{error}");
}

impl Opened {
    fn pixels_error(self) -> String {
        self.pages.into_iter().find_map(Result::err).unwrap().to_string()
    }
}

#[test]
fn formats_of_samples_that_mean_plain_numbers_are_read() {
    const SAMPLE_FORMAT: u16 = 339;
    let expected = Pixels::U8(grey());
    assert!(read_one(plain().with(SAMPLE_FORMAT, SHORT, &[4])).pixels == expected);
    assert!(read_one(plain().with(258, SHORT, &[8, 8, 8])).pixels == expected);
    assert!(read_one(plain().with(258, SHORT, &[8, 8, 4])).pixels == expected);
    assert!(read_one(plain().with(SAMPLE_FORMAT, SHORT, &[1, 1, 1])).pixels == expected);
    let low: Vec<u8> = grey().iter().map(|value| value / 2).collect();
    let signed = Made::new(WIDTH, HEIGHT, 8, low.clone()).with(SAMPLE_FORMAT, SHORT, &[2]);
    assert!(read_one(signed).pixels == Pixels::U8(low));
    let white: Vec<u8> = grey().iter().map(|value| 255 - value).collect();
    let white = Made::new(WIDTH, HEIGHT, 8, white).with(262, SHORT, &[0]);
    assert!(read_one(white).pixels == expected);
}

#[test]
fn packed_bits_are_unpacked() {
    let values = [0_u16, 1, 0xabc, 0xfff, 0x800, 7];
    let mut bits = String::new();
    for row in values.chunks(3) {
        let row: String = row.iter().map(|value| format!("{value:012b}")).collect();
        bits.push_str(&format!("{row:0<40}"));
    }
    let byte = |bits: &[u8]| bits.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
    let bytes: Vec<u8> = bits.as_bytes().chunks(8).map(byte).collect();
    let page = read_one(Made::new(3, 2, 12, bytes));
    assert_eq!(page.bit_depth, 12);
    assert!(page.pixels == Pixels::U16(values.to_vec()));
    let page = read_one(Made::new(4, 1, 2, vec![0b00_01_10_11]));
    assert!(page.pixels == Pixels::U8(vec![0, 85, 170, 255]));
}

#[test]
fn grey_is_grey_however_it_is_coloured() {
    const EXTRA_SAMPLES: u16 = 338;
    const COLOR_MAP: u16 = 320;
    let expected = Pixels::U8(grey());
    let palette = |map: Vec<u64>| {
        plain().with(262, SHORT, &[3]).with(COLOR_MAP, SHORT, &[&map[..], &map, &map].concat())
    };
    assert!(read_one(palette((0..256).map(|value| value * 257).collect())).pixels == expected);
    assert!(read_one(palette((0..256).map(|value| value << 8).collect())).pixels == expected);
    assert!(read_one(palette((0..256).collect())).pixels == expected);
    let inverse = read_one(palette((0..256).map(|value| (255 - value) * 257).collect()));
    assert!(inverse.pixels == Pixels::U8(grey().iter().map(|value| 255 - value).collect()));
    let map: Vec<u64> = (0..4).map(|value| value * 0x5555).collect();
    let two_bits = Made::new(4, 1, 2, vec![0b00_01_10_11]).with(262, SHORT, &[3]).with(
        COLOR_MAP,
        SHORT,
        &[&map[..], &map, &map].concat(),
    );
    assert!(read_one(two_bits).pixels == Pixels::U8(vec![0, 85, 170, 255]));
    // A table of colours stays refused.
    let colours: Vec<u64> = (0..768).map(|value| value * 80).collect();
    let table = plain().with(262, SHORT, &[3]).with(COLOR_MAP, SHORT, &colours);
    assert!(refused("lut.tif", &file_of(&[table], None)).contains("colour table (LUT)"));
    // Grey and alpha.
    let samples = |second: u8| grey().into_iter().flat_map(|value| [value, second]).collect();
    let two = |second: u8| {
        Made::new(WIDTH, HEIGHT, 8, samples(second)).with(277, SHORT, &[2]).with(
            258,
            SHORT,
            &[8, 8],
        )
    };
    for alpha in [1, 2] {
        assert!(read_one(two(255).with(EXTRA_SAMPLES, SHORT, &[alpha])).pixels == expected);
    }
    let transparent = file_of(&[two(9).with(EXTRA_SAMPLES, SHORT, &[2])], None);
    assert!(refused("alpha.tif", &transparent).contains("transparent"));
    // A second sample that nobody calls alpha is a second channel.
    let channels = file_of(&[two(255)], None);
    assert!(refused("two.tif", &channels).contains("holds 2 channels"));
    let chosen = opened("two.tif", &channels, &choose(Some("1"), None)).unwrap();
    assert!(chosen.pages[0].as_ref().unwrap().pixels == expected);
    let planes = [grey(), vec![9; grey().len()]].concat();
    let planar = Made::new(WIDTH, HEIGHT, 8, planes)
        .with(277, SHORT, &[2])
        .with(258, SHORT, &[8, 8])
        .with(284, SHORT, &[2])
        .with(273, LONG, &[0, u64::from(WIDTH * HEIGHT)])
        .without(279);
    let chosen = opened("planar.tif", &file_of(&[planar], None), &choose(Some("2"), None)).unwrap();
    assert!(chosen.pages[0].as_ref().unwrap().pixels == Pixels::U8(vec![9; grey().len()]));
}

#[test]
fn what_is_not_read_is_called_what_it_is() {
    const PREDICTOR: u16 = 317;
    let deep = || Made::new(WIDTH, HEIGHT, 16, le16(&[700; (WIDTH * HEIGHT) as usize]));
    let sixteen = Made::new(WIDTH, HEIGHT, 32, vec![0; (WIDTH * HEIGHT * 4) as usize]);
    for (what, page) in [
        ("signed pixels in which white is 0", deep().with(262, SHORT, &[0]).with(339, SHORT, &[2])),
        ("floating-point", sixteen.clone().with(339, SHORT, &[3])),
        ("complex numbers", sixteen.with(339, SHORT, &[5])),
        ("format that is not known (9)", plain().with(339, SHORT, &[9])),
        ("says that it stores differences", plain().with(PREDICTOR, SHORT, &[2])),
        ("raw colour mosaic", deep().with(262, SHORT, &[32_803])),
        ("0 is black or white", plain().without(262)),
        ("has 3 bits a pixel", plain().with(258, SHORT, &[3])),
        ("has 24 bits a pixel", plain().with(258, SHORT, &[24])),
        ("a sparse file", plain().with(273, LONG, &[0, 0]).with(278, LONG, &[5])),
        ("not red, green and blue", plain().with(262, SHORT, &[5])),
        ("compressed by LERC", plain().with(259, SHORT, &[34_887])),
        ("compressed by JPEG 2000", plain().with(259, SHORT, &[33_005])),
        ("compressed by LZMA", plain().with(259, SHORT, &[34_925])),
        ("compressed by method 4711", plain().with(259, SHORT, &[4_711])),
        ("negative pixels", Made::new(2, 1, 8, vec![3, 200]).with(339, SHORT, &[2])),
    ] {
        let mut page = page;
        if what == "a sparse file" {
            // Offsets of 0 are kept: they are not filled in where there are two.
            page.tags.retain(|(tag, ..)| *tag != 273);
            page.tags.push((273, SHORT, vec![8, 0]));
            let mut bytes = file_of(&[page], None);
            let at = bytes.windows(4).position(|tag| tag == [0x11, 1, 3, 0]).unwrap();
            bytes[at + 10..at + 12].copy_from_slice(&[0, 0]);
            assert!(refused(what, &bytes).contains(what));
            continue;
        }
        let why = refused("a.tif", &file_of(&[page], None));
        assert!(why.contains(what) && why.contains("export it"), "{what}: {why}");
    }
}

#[test]
fn kinds_of_jpeg_are_named() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/images/grey.jpg");
    let jpeg = fs::read(golden).unwrap();
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    let changed = |at: usize, value: u8| {
        let mut jpeg = jpeg.clone();
        jpeg[frame + at] = value;
        jpeg
    };
    for (what, bytes) in [
        ("JPEG of 12 bits", changed(4, 12)),
        ("lossless JPEG", changed(1, 0xc3)),
        ("JPEG-LS", changed(1, 0xf7)),
        ("hierarchical", changed(1, 0xc5)),
        ("arithmetic", changed(1, 0xc9)),
        ("arithmetic", changed(1, 0xca)),
    ] {
        let why = refused("a.jpg", &bytes);
        assert!(why.contains(what) && why.contains("not read here"), "{what}: {why}");
        // The same within a TIFF.
        let page = Made::new(23, 19, 8, bytes).with(259, SHORT, &[7]);
        let why = refused("a.tif", &file_of(&[page], None));
        assert!(why.contains(what), "{what}: {why}");
    }
    let page = read_one(Made::new(23, 19, 8, jpeg.clone()).with(259, SHORT, &[7]));
    assert_eq!((page.width, page.height), (23, 19));
    let narrow = Made::new(22, 19, 8, jpeg).with(259, SHORT, &[7]);
    assert!(refused("a.tif", &file_of(&[narrow], None)).contains("22 and 1 are said"));
}

#[test]
fn directories_in_a_circle_give_the_pages_before_and_are_not_called_damaged() {
    for (pages, back, text) in [
        (2, 0, "page 1 is followed by page 0"),
        (1, 0, "page 0 is followed by page 0"),
        (3, 1, "page 2 is followed by page 1"),
    ] {
        let bytes = file_of(&vec![plain(); pages], Some(back));
        let read = opened("a.tif", &bytes, &Selection::default()).unwrap().pages;
        assert_eq!(read.iter().filter(|page| page.is_ok()).count(), pages);
        let why = read.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(why.contains("in a circle") && why.contains(text), "{why}");
        assert!(!why.contains("damaged"), "{why}");
    }
}

/// One page that has the bytes of `planes`, each with its own value.
fn hidden(planes: u8) -> Made {
    let bytes = (0..planes).flat_map(|plane| vec![plane; (WIDTH * HEIGHT) as usize]).collect();
    Made::new(WIDTH, HEIGHT, 8, bytes).with(279, LONG, &[u64::from(WIDTH * HEIGHT)])
}

fn values(pages: &[Result<Page, ImageFileError>]) -> Vec<u16> {
    pages.iter().flatten().map(|page| page.pixels.get(0)).collect()
}

#[test]
fn planes_that_are_not_listed_are_read() {
    let stk = |uic2: usize, uic3: Option<usize>| {
        let page = hidden(4).with(33_629, 5, &vec![0; uic2]);
        uic3.map_or(page.clone(), |uic3| page.with(33_630, 5, &vec![0; uic3]))
    };
    for (what, page) in [
        ("ImageJ", hidden(4).saying("ImageJ=1.53t\nimages=4\nslices=4\n")),
        ("STK", stk(4, None)),
        ("STK", stk(4, Some(4))),
        // Numbers of UIC2 counted one by one.
        ("STK", stk(12, Some(4))),
    ] {
        let opened = opened("a.tif", &file_of(&[page], None), &Selection::default()).unwrap();
        assert_eq!(values(&opened.pages), [0, 1, 2, 3], "{what}");
        let note = "lists 1 of its 4 images";
        assert!(opened.notes.iter().any(|text| text.contains(note)), "{:?}", opened.notes);
    }
    // µ in Latin-1, in a description that is not UTF-8.
    let mut bytes = file_of(&[hidden(4).saying("ImageJ=1.53t\nimages=4\nunit=*m\n")], None);
    let at = bytes.windows(6).position(|text| text == b"unit=*").unwrap();
    bytes[at + 5] = 0xb5;
    let opened = opened("a.tif", &bytes, &Selection::default()).unwrap();
    assert_eq!(values(&opened.pages), [0, 1, 2, 3]);
}

#[test]
fn planes_that_are_not_listed_and_not_found_are_not_passed_over() {
    let text = "ImageJ=1.53t\nimages=4\n";
    // Two listed of four that follow each other.
    let second = |shift: u64| {
        let mut bytes = file_of(&[hidden(4).saying(text), hidden(4)], None);
        let strips: Vec<_> =
            (0..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == [0x11, 1, 4, 0]).collect();
        bytes[strips[1] + 8..strips[1] + 12].copy_from_slice(&(8 + shift as u32).to_le_bytes());
        bytes
    };
    let plane = u64::from(WIDTH * HEIGHT);
    let read = opened("a.tif", &second(plane), &Selection::default()).unwrap();
    assert_eq!(values(&read.pages), [0, 1, 2, 3]);
    assert!(refused("a.tif", &second(2 * plane)).contains("do not follow each other"));
    // Said, and not there.
    assert!(refused("a.tif", &file_of(&[plain().saying(text)], None)).contains("are not in it"));
    // Compressed, nobody knows where the next one begins.
    let packed: Vec<_> = grey().chunks(12).flat_map(|row| [&[11_u8][..], row].concat()).collect();
    let packed = Made::new(WIDTH, HEIGHT, 8, packed).with(259, SHORT, &[32_773]).saying(text);
    let why = refused("a.tif", &file_of(&[packed], None));
    assert!(why.contains("holds more images than it lists (4 by"), "{why}");
    // Cut short in the third: two, and a word.
    let cut = file_of(&[hidden(2).saying(text)], None);
    let read = opened("a.tif", &cut, &Selection::default()).unwrap();
    assert!(values(&read.pages).starts_with(&[0, 1]));
    assert!(read.pages.last().unwrap().is_err());
}

/// A page of one value, of this size.
fn sized(width: u32, height: u32) -> Made {
    Made::new(width, height, 8, vec![width as u8; (width * height) as usize])
}

fn widths(pages: &[Made]) -> Vec<u32> {
    read_all(pages).iter().map(|page| page.width).collect()
}

#[test]
fn smaller_copies_are_no_pages_however_they_are_marked() {
    const NEW: u16 = 254;
    const OLD: u16 = 255;
    let flagged = |tag, value| sized(32, 24).with(tag, LONG, &[value]);
    assert_eq!(widths(&[sized(64, 48), flagged(NEW, 1)]), [64]);
    assert_eq!(widths(&[sized(64, 48), flagged(OLD, 2)]), [64]);
    assert_eq!(widths(&[flagged(OLD, 2), sized(64, 48)]), [64]);
    assert_eq!(widths(&[sized(64, 48), sized(64, 48).with(NEW, LONG, &[4])]), [64]);
    // A page of several, and "full resolution", are pages.
    assert_eq!(
        widths(&[sized(64, 48).with(OLD, SHORT, &[3]), sized(64, 48).with(OLD, SHORT, &[1])]),
        [64, 64]
    );
    // Unflagged: by halves, by quarters, of odd sizes, rounded up and down.
    assert_eq!(widths(&[sized(64, 48), sized(32, 24), sized(16, 12)]), [64]);
    assert_eq!(widths(&[sized(64, 48), sized(16, 12), sized(4, 3)]), [64]);
    assert_eq!(widths(&[sized(101, 75), sized(51, 38), sized(25, 19)]), [101]);
    // A pyramid for each page, whichever way they come.
    let (large, small) = (sized(64, 48), sized(32, 24));
    assert_eq!(widths(&[large.clone(), small.clone(), large.clone(), small.clone()]), [64, 64]);
    assert_eq!(widths(&[large.clone(), large.clone(), small.clone(), small]), [64, 64]);
    // Nothing but copies: the largest is the picture.
    assert_eq!(widths(&[flagged(NEW, 1), sized(64, 48).with(NEW, LONG, &[1])]), [64]);
    // A slide: its label and overview are of other sizes.
    let slide = sized(64, 48).saying("Aperio Image Library v11\n64x48");
    let pages = [slide, sized(20, 15), sized(16, 12), sized(30, 30), sized(60, 20)];
    assert_eq!(widths(&pages), [64]);
    let opened = opened("a.svs", &file_of(&pages, None), &Selection::default()).unwrap();
    assert!(opened.notes[0].contains("4 smaller copies"), "{:?}", opened.notes);
}

#[test]
fn pages_of_other_sizes_are_pages() {
    assert_eq!(widths(&[sized(64, 48), sized(32, 20)]), [64, 32]);
    assert_eq!(widths(&[sized(64, 48), sized(50, 40), sized(64, 48)]), [64, 50, 64]);
    assert_eq!(widths(&[sized(32, 24), sized(64, 48)]), [32, 64]);
    // Half as large and of another depth is another picture.
    let deep = Made::new(32, 24, 16, vec![0; 32 * 24 * 2]);
    assert_eq!(widths(&[sized(64, 48), deep]), [64, 32]);
}

#[test]
fn a_channel_and_a_plane_are_taken_where_they_are_chosen() {
    let text = "ImageJ=1.53t\nimages=4\nchannels=2\nslices=2\nhyperstack=true\n";
    let pages: Vec<_> = (0..4_u8)
        .map(|page| Made::new(WIDTH, HEIGHT, 8, vec![page; (WIDTH * HEIGHT) as usize]))
        .enumerate()
        .map(|(at, page)| if at == 0 { page.saying(text) } else { page })
        .collect();
    let bytes = file_of(&pages, None);
    assert!(refused("a.tif", &bytes).contains("holds 2 channels (1, 2)"));
    let read = |channel, z| opened("a.tif", &bytes, &choose(channel, z)).unwrap();
    let second = read(Some("2"), None);
    assert_eq!(values(&second.pages), [1, 3]);
    // A page keeps its number in the file.
    let numbers: Vec<_> = second.pages.iter().flatten().map(|page| page.index).collect();
    assert_eq!(numbers, [1, 3]);
    assert!(second.notes[0].contains("2 is read"), "{:?}", second.notes);
    assert_eq!(values(&read(Some("2"), Some("2")).pages), [3]);
    assert_eq!(values(&read(Some("1"), Some("middle")).pages), [0]);
    for wrong in [choose(Some("3"), None), choose(Some("DAPI"), None), choose(Some("1"), Some("3"))]
    {
        let why = opened("a.tif", &bytes, &wrong).err().unwrap().to_string();
        assert!(why.contains("none of them"), "{why}");
    }
}

#[test]
fn a_file_that_has_only_other_channels_says_so() {
    let text = r#"<OME UUID="urn:uuid:A"><Image><Pixels DimensionOrder="XYCZT" SizeC="2" SizeZ="1" SizeT="1"><Channel Name="BF"/><Channel Name="DAPI"/><TiffData IFD="0" FirstC="0"><UUID>urn:uuid:A</UUID></TiffData><TiffData IFD="0" FirstC="1"><UUID>urn:uuid:B</UUID></TiffData></Pixels></Image></OME>"#;
    let bytes = file_of(&[plain().saying(text)], None);
    let read = opened("a.ome.tif", &bytes, &choose(Some("BF"), None)).unwrap();
    assert!(read.pages[0].as_ref().unwrap().pixels == Pixels::U8(grey()));
    let why = opened("a.ome.tif", &bytes, &choose(Some("DAPI"), None)).err().unwrap().to_string();
    assert!(why.contains("one file of a set"), "{why}");
}

#[test]
fn an_animation_is_refused_and_a_still_of_it_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/images/grey8.png");
    let png = fs::read(golden).unwrap();
    let with = |frames: u32| {
        let mut chunk = b"\0\0\0\x08acTL".to_vec();
        chunk.extend(frames.to_be_bytes());
        chunk.extend([0; 4]);
        let mut crc = !0_u32;
        for byte in &chunk[4..] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        chunk.extend((!crc).to_be_bytes());
        [&png[..33], &chunk, &png[33..]].concat()
    };
    assert!(refused("a.png", &with(3)).contains("an animation of 3 pictures"));
    assert!(opened("a.png", &with(1), &Selection::default()).unwrap().pages[0].is_ok());
}

#[test]
fn other_formats_are_named_by_their_content_whatever_they_are_called() {
    for (bytes, what) in [
        (&b"ZISRAWFILE\0\0\0\0\0\0"[..], "a Zeiss CZI file"),
        (&[0xda, 0xce, 0xbe, 0x0a, 0, 0][..], "a Nikon ND2 file"),
        (&b"GIF89a\0\0"[..], "a GIF"),
        (&b"\x89HDF\r\n\x1a\n\0"[..], "an HDF5 file"),
    ] {
        let why = refused("a.tif", bytes);
        assert!(why.contains(what) && why.contains("not read here"), "{why}");
    }
    assert!(refused("a.vsi", &file_of(&[plain()], None)).contains("VSI"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("zarr.json"), "{}").unwrap();
    let why = open(folder.path(), Limits::default()).unwrap_err().to_string();
    assert!(why.contains("OME-Zarr"), "{why}");
}

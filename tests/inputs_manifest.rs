//! Files that microscopes, cameras and other programs really give, rebuilt from public bug reports:
//! each is read as it is meant, or refused with the right word, by `reticle segment` itself.
//!
//! `inputs/` beside the real images has the files, `KINDS.csv` what is right and `MANIFEST.csv` the
//! cases; where the two differ the kind counts. The smallest files are in `tests/data/inputs`, so
//! that a clone without the others tries these. Scenarios without a file (folders, names, sizes of
//! pixels in other dialects) are made here. Noise (K03), pictures that the model does not know (K17)
//! and watched folders have tests of their own besides.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{data_dir, reticle};
use reticle_imagefile::{Limits, Page, Selection, open_chosen};
use serde_json::Value;

/// SHA-256 of the pictures that the files show, as little-endian grey values, by tifffile.
const PICTURE_16: &str = "ed3a92e93433919fc09d6bdacd05636b5467d58b42b2a6ee001d203fdba64290";
const PICTURE_8: &str = "9e49e88ce387b2d0693b96fa7e8a47e13ddc644af151a1b636bb79aca5b53b3f";
const WIDE: &str = "4a6976fa7dbc57fdde5fcba1f8dee55f7e476c5c6ed9be485a5b01e9c2111abf";

/// What is right for a file.
#[derive(Clone, Copy)]
enum Right {
    /// So many pages, and no word about them. Of the first the pixels are known.
    Read { pages: usize, first: &'static str },
    /// As [`Self::Read`] of one page, with a pixel size or none, a word in the record, and nuclei.
    Sized { um: Option<f64>, note: Option<&'static str>, objects: usize },
    /// Planes that the file does not list are read, and it is said.
    Hidden { pages: usize },
    /// Refused with all of these words, and not as damaged; some pages may come before.
    Refused { pages: usize, words: &'static [&'static str] },
    /// Refused with the channels' names; with the last one chosen so many pages come.
    Channels { words: &'static str, choose: &'static str, pages: usize },
    /// No nuclei are in it, and so many may be found.
    Empty { most: usize },
    /// So many nuclei, or a word in the record that the model does not know such pictures.
    CountedOrUnlike { least: usize, most: usize },
}

use Right::*;

/// Each file of `inputs/`, by how its name begins, with its kind.
const FILES: &[(&str, &str, Right)] = &[
    ("t123-jpegxr", "K18-silence-and-messages", refused(&["compressed by JPEG XR"])),
    ("t127-png", "K18-silence-and-messages", refused(&["compressed by PNG"])),
    ("t14-ljpeg16", "K15-not-damaged", refused(&["not read here", "lossless JPEG"])),
    ("t19-palette-grey", "K16-inconsistent-refusal", Read { pages: 1, first: PICTURE_8 }),
    ("t20k-graya", "K16-inconsistent-refusal", Read { pages: 1, first: PICTURE_8 }),
    (
        "s02-imagej-hyper",
        "K10-channels-as-pages",
        Channels { words: "2 channels (1, 2)", choose: "2", pages: 2 },
    ),
    ("s03b-imagej-4gb-latin1", "K08-hidden-planes", Hidden { pages: 5 }),
    ("s04-stk", "K08-hidden-planes", Hidden { pages: 4 }),
    (
        "s05-ome-c2",
        "K10-channels-as-pages",
        Channels { words: "2 channels (1 Brightfield, 2 DAPI)", choose: "DAPI", pages: 1 },
    ),
    (
        "s05b-ome-zct",
        "K10-channels-as-pages",
        Channels { words: "2 channels", choose: "2", pages: 3 },
    ),
    ("s13-circle", "K15-not-damaged", Refused { pages: 2, words: &["in a circle"] }),
    ("s13b-self", "K15-not-damaged", Refused { pages: 1, words: &["in a circle"] }),
    ("s15-no-bytecounts", "K15-not-damaged", Read { pages: 1, first: PICTURE_16 }),
    ("s15g-sampleformat-void", "K15-not-damaged", Read { pages: 1, first: PICTURE_16 }),
    ("s16b-fillorder2", "K14-fillorder", Read { pages: 1, first: PICTURE_8 }),
    ("p09-ij-latin1", "K13-pixel-size-lost", Sized { um: Some(0.65), note: None, objects: 30 }),
    (
        "p20b-mm-uncal",
        "K02-absurd-pixel-size",
        Sized { um: None, note: Some("no pixel size is believed"), objects: 30 },
    ),
    ("p20c-mm-ijonly", "K01-mm-description", Sized { um: Some(0.65), note: None, objects: 30 }),
    (
        "p35-ome-absurd",
        "K02-absurd-pixel-size",
        Sized { um: None, note: Some("the OME-XML says 650 µm"), objects: 30 },
    ),
    ("p53-res-long", "K13-pixel-size-lost", Sized { um: Some(0.65), note: None, objects: 30 }),
    ("j07-12bit", "K15-not-damaged", refused(&["not read here", "JPEG of 12 bits"])),
    ("j08-lossless", "K15-not-damaged", refused(&["not read here", "lossless JPEG"])),
    ("v06c-corrnoise", "K03-correlated-noise", Empty { most: 2 }),
    ("bayer-demosaic", "K03-correlated-noise", Empty { most: 0 }),
    ("jpeg-q60-s3", "K03-correlated-noise", Empty { most: 0 }),
    ("v09-dynrange", "K17-limits-of-model", CountedOrUnlike { least: 20, most: 26 }),
];

const fn refused(words: &'static [&'static str]) -> Right {
    Refused { pages: 0, words }
}

/// What `reticle segment` made of some arguments, and said.
struct Ran {
    code: Option<i32>,
    said: String,
    json: Value,
}

impl Ran {
    /// Objects of each label image.
    fn objects(&self) -> Vec<usize> {
        let images = self.json["images"].as_array().cloned().unwrap_or_default();
        images.iter().map(|image| image["objects"].as_u64().unwrap() as usize).collect()
    }
}

fn segment(arguments: &[&str]) -> Ran {
    let out = tempfile::tempdir().unwrap();
    let out_argument = out.path().join("out");
    let ran = reticle()
        .args(["segment", "--json", "--jobs", "1", "--out"])
        .arg(out_argument)
        .args(arguments)
        .output()
        .unwrap();
    Ran {
        code: ran.status.code(),
        said: String::from_utf8_lossy(&ran.stderr).into_owned(),
        json: serde_json::from_slice(&ran.stdout).unwrap_or_default(),
    }
}

fn pages(path: &Path, channel: Option<&str>) -> Vec<Page> {
    let channel = channel.map(|channel| channel.parse().unwrap());
    let selection = Selection { channel, z: None };
    let pages = open_chosen(path, Limits::default(), &selection);
    pages.map(|pages| pages.flatten().collect()).unwrap_or_default()
}

/// What is wrong with how a file is read and segmented, and what came of it in a line.
fn judge(path: &Path, right: Right) -> (String, Option<String>) {
    let file = path.to_str().unwrap();
    let ran = segment(&[file]);
    let found = pages(path, None);
    let objects = ran.objects();
    let record = &ran.json["images"][0];
    let um = record["pixel_size_um"].as_f64();
    let got = format!(
        "{:?}, {} pages, {um:?} µm, objects {objects:?}: {}",
        ran.code,
        found.len(),
        ran.said.trim()
    );
    let mut wrong = Vec::new();
    let mut must = |is_so: bool, what: &str| {
        if !is_so {
            wrong.push(what.to_owned());
        }
    };
    must(!ran.said.contains("damaged"), "it is not damaged");
    match right {
        Read { pages, first } => {
            must(ran.code == Some(0) && objects.len() == pages, "it is to be segmented");
            must(found.len() == pages, "the number of pages");
            let hash = found.first().map(|page| hex::encode(page.pixels.sha256()));
            must(hash.as_deref() == Some(first), &format!("the pixels: {hash:?}"));
        }
        Sized { um: size, note, objects: nuclei } => {
            must(ran.code == Some(0), "it is to be segmented");
            let hash = found.first().map(|page| hex::encode(page.pixels.sha256()));
            must(hash.as_deref() == Some(WIDE), &format!("the pixels: {hash:?}"));
            must(is_near(um, size), "the pixel size");
            must(objects == [nuclei], "the number of nuclei");
            let said = record["pixel_size_note"].as_str();
            let as_said = match note {
                None => said.is_none(),
                Some(words) => said.is_some_and(|said| said.contains(words)),
            };
            must(as_said, "what is said of the pixel size");
            must(note.is_none_or(|words| ran.said.contains(words)), "it is to be said");
            must(record["pixel_size_source"].is_null() == size.is_none(), "who said it");
        }
        Hidden { pages } => {
            must(ran.code == Some(0) && objects.len() == pages, "all planes are to be segmented");
            must(ran.said.contains("lists 1 of its"), "it is to be said");
            must(!ran.said.contains("pixel size"), "nothing is known of its pixel size");
        }
        Refused { pages, words } => {
            must(ran.code == Some(1) && objects.len() == pages, "it is to be refused");
            must(words.iter().all(|word| ran.said.contains(word)), "the word");
        }
        Channels { words, choose, pages: chosen } => {
            must(ran.code == Some(1) && objects.is_empty(), "it is to be refused");
            must(ran.said.contains(words) && ran.said.contains("--channel"), "the word");
            let again = segment(&[file, "--channel", choose]);
            must(again.code == Some(0) && again.objects().len() == chosen, "the chosen channel");
            must(again.said.contains("2 channels"), "which channel is read is to be said");
            must(pages(path, Some(choose)).len() == chosen, "the pages of the channel");
        }
        Empty { most } => {
            must(ran.code == Some(0) && objects.len() == 1, "it is to be segmented");
            must(objects.iter().all(|&objects| objects <= most), "there are none");
        }
        CountedOrUnlike { least, most } => {
            must(ran.code == Some(0) && objects.len() == 1, "it is to be segmented");
            let is_counted = objects.iter().all(|objects| (least..=most).contains(objects));
            must(is_counted || !record["unlike"].is_null(), "a word, or the number");
        }
    }
    (got, (!wrong.is_empty()).then(|| wrong.join(", ")))
}

fn is_near(found: Option<f64>, right: Option<f64>) -> bool {
    match (found, right) {
        (None, None) => true,
        (Some(found), Some(right)) => (found / right - 1.0).abs() < 0.01,
        _ => false,
    }
}

/// `inputs/` beside the real images; `None`, said on stderr, where it is not there.
fn inputs() -> Option<PathBuf> {
    let folder = data_dir()?.join("../inputs");
    if !folder.is_dir() {
        eprintln!("skipped in part: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

/// Names of the files in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn each_file_that_was_read_wrongly_is_right_now() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/inputs");
    let mut files: BTreeMap<String, PathBuf> =
        names(&own).into_iter().map(|name| (name.clone(), own.join(name))).collect();
    if let Some(inputs) = inputs() {
        let folder = inputs.join("files");
        for name in names(&folder) {
            files.insert(name.clone(), folder.join(name));
        }
        // A case that came later wants its line here.
        let manifest = fs::read_to_string(inputs.join("MANIFEST.csv")).unwrap();
        for line in manifest.lines().skip(1) {
            let file = line.rsplit(',').next().unwrap_or_default();
            let known = FILES.iter().find(|(start, ..)| file.starts_with(start));
            if !file.is_empty() {
                let (_, kind, _) = known.unwrap_or_else(|| panic!("what is right for {file}?"));
                assert!(line.contains(kind), "{file} is of kind {kind}: {line}");
            }
        }
    }
    let mut faults = Vec::new();
    for (name, path) in &files {
        let known = FILES.iter().find(|(start, ..)| name.starts_with(start));
        let (_, kind, right) = *known.unwrap_or_else(|| panic!("what is right for {name}?"));
        let (got, wrong) = judge(path, right);
        eprintln!("{kind:26} {name}: {}: {got}", wrong.as_deref().unwrap_or("right"));
        faults.extend(wrong.map(|wrong| format!("{name} ({kind}): {wrong}: {got}")));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Edge of the pictures that are drawn here, in pixels.
const EDGE: u32 = 384;

/// Nuclei of one diameter, apart from each other, and how many.
fn nuclei(diameter: u32) -> (Vec<u16>, usize) {
    let mut rng = fastrand::Rng::with_seed(diameter.into());
    let pitch = diameter * 2;
    let mut centres = Vec::new();
    for row in 0..EDGE / pitch {
        for column in 0..EDGE / pitch {
            let mut place = |at: u32| {
                f64::from(at * pitch + pitch / 2) + (rng.f64() - 0.5) * f64::from(diameter) / 4.0
            };
            centres.push((place(column), place(row), 1500.0 + 800.0 * rng.f64()));
        }
    }
    let radius = f64::from(diameter) / 2.0;
    let value = |at: u32| {
        let (x, y) = (f64::from(at % EDGE), f64::from(at / EDGE));
        let light: f64 = centres
            .iter()
            .map(|(cx, cy, bright)| {
                let beyond = (x - cx).hypot(y - cy) - radius;
                bright / (1.0 + (beyond / 1.2).exp())
            })
            .sum();
        (150.0 + light + 12.0 * (rng.f64() + rng.f64() - 1.0)) as u16
    };
    ((0..EDGE * EDGE).map(value).collect(), centres.len())
}

/// A tag: its number, its kind, how many values, and the values as bytes.
type Tag = (u16, u16, u32, Vec<u8>);

fn ascii(text: &[u8]) -> Tag {
    let bytes = [text, &[0]].concat();
    (270, 2, bytes.len() as u32, bytes)
}

fn rational(tag: u16, n: u32, d: u32) -> Tag {
    (tag, 5, 1, [n.to_le_bytes(), d.to_le_bytes()].concat())
}

fn resolution(n: u32, d: u32, unit: u16) -> Vec<Tag> {
    vec![rational(282, n, d), rational(283, n, d), (296, 3, 1, unit.to_le_bytes().to_vec())]
}

/// A TIFF of one page of 16 bits with these tags besides.
fn tiff(pixels: &[u16], extra: Vec<Tag>) -> Vec<u8> {
    let long = |tag: u16, value: u32| (tag, 4, 1, value.to_le_bytes().to_vec());
    let count = 2 * pixels.len() as u32;
    let mut tags = vec![
        long(256, EDGE),
        long(257, EDGE),
        long(258, 16),
        long(259, 1),
        long(262, 1),
        long(273, 8),
        long(277, 1),
        long(278, EDGE),
        long(279, count),
    ];
    tags.extend(extra);
    tags.sort_by_key(|(tag, ..)| *tag);
    let mut bytes = b"II*\0".to_vec();
    bytes.extend((8 + count).to_le_bytes());
    bytes.extend(pixels.iter().flat_map(|value| value.to_le_bytes()));
    let mut values = Vec::new();
    let behind = 8 + count + 2 + 12 * tags.len() as u32 + 4;
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        if value.len() > 4 {
            bytes.extend((behind + values.len() as u32).to_le_bytes());
            values.extend(&value);
            values.resize(values.len().next_multiple_of(2), 0);
        } else {
            bytes.extend([value.as_slice(), &[0; 4]].concat().iter().take(4));
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(values);
    bytes
}

fn ome(attributes: &str) -> Vec<u8> {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{EDGE}" SizeY="{EDGE}" SizeC="1" SizeZ="1" SizeT="1" {attributes}><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>"#
    )
    .into_bytes()
}

fn imagej(unit: &[u8]) -> Tag {
    ascii(&[b"ImageJ=1.53t\nunit=", unit, b"\nmin=0\nmax=2500\n"].concat())
}

/// Pixels of 0.65 µm, as the tag's fraction says it of a centimetre and of a micrometre.
const A_CM: (u32, u32) = (15_384_615, 1000);
const A_UM: (u32, u32) = (1_538_462, 1_000_000);

/// What each program writes, and the size that is right: 0.65 µm, or none.
fn dialects() -> Vec<(&'static str, Vec<Tag>, bool)> {
    let micro_manager = |xml: Vec<u8>, resolution: Vec<Tag>| {
        [vec![ascii(&xml), imagej(b"um")], resolution].concat()
    };
    let sized = ome(
        r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="µm" PhysicalSizeY="0.65" PhysicalSizeYUnit="µm""#,
    );
    let latin1 = {
        let text = String::from_utf8(sized.clone()).unwrap().replace("UTF-8", "ISO-8859-1");
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<u8>>()
    };
    let a_cm = || resolution(A_CM.0, A_CM.1, 3);
    let a_um = || resolution(A_UM.0, A_UM.1, 1);
    let longs = |n: u32, unit: u16| {
        let long = |tag| (tag, 4, 1, n.to_le_bytes().to_vec());
        vec![long(282), long(283), (296, 3, 1, unit.to_le_bytes().to_vec())]
    };
    let ij = |unit: &[u8], more: Vec<Tag>| [vec![imagej(unit)], more].concat();
    let metamorph = br#"<MetaData><prop id="spatial-calibration-state" type="bool" value="on"/><prop id="spatial-calibration-x" type="float" value="0.65"/><prop id="spatial-calibration-y" type="float" value="0.65"/><prop id="spatial-calibration-units" type="string" value="um"/></MetaData>"#;
    vec![
        // K01: whose word counts.
        ("p20-mm", micro_manager(sized.clone(), a_cm()), true),
        ("p20c-mm-ijonly", ij(b"um", a_cm()), true),
        ("mm, inch", ij(b"um", resolution(39_076_923, 1000, 2)), true),
        ("mm, text first", [vec![imagej(b"um"), ascii(&sized)], a_cm()].concat(), true),
        ("mm, OME alone says it", micro_manager(sized.clone(), resolution(72, 1, 2)), true),
        ("mm, tag alone says it", micro_manager(ome(""), a_cm()), true),
        ("ImageJ, cm in the text", ij(b"cm", resolution(A_CM.0, A_CM.1, 1)), true),
        // K02: nobody is believed beyond what a pixel can be.
        ("p14-ij-inch300", ij(b"inch", resolution(300, 1, 2)), false),
        ("p14b-ij-inch96", ij(b"inch", resolution(96, 1, 2)), false),
        ("p14c-ij-cm-118", ij(b"cm", resolution(118, 1, 3)), false),
        (
            "p20b-mm-uncal",
            micro_manager(
                ome(r#"PhysicalSizeX="0" PhysicalSizeY="0""#),
                resolution(u32::MAX, 1, 3),
            ),
            false,
        ),
        ("p21-absurd-small", ij(b"um", resolution(u32::MAX, 1, 1)), false),
        ("p35-ome-absurd", vec![ascii(&ome(r#"PhysicalSizeX="650" PhysicalSizeY="650""#))], false),
        (
            "OME in nm said as mm",
            vec![ascii(&ome(
                r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="mm" PhysicalSizeY="0.65" PhysicalSizeYUnit="mm""#,
            ))],
            false,
        ),
        (
            "OME, 1 m",
            vec![ascii(&ome(
                r#"PhysicalSizeX="1" PhysicalSizeXUnit="m" PhysicalSizeY="1" PhysicalSizeYUnit="m""#,
            ))],
            false,
        ),
        ("72 dots an inch, no text", resolution(72, 1, 2), false),
        ("1200 dots an inch", resolution(1200, 1, 2), false),
        ("0/0", resolution(0, 0, 3), false),
        // K13: the same size, however it is written.
        ("p09-ij-latin1", ij(b"\xb5m", a_um()), true),
        ("p15-ij-micrometre", ij(b"micrometre", a_um()), true),
        ("p15b-ij-Microns", ij(b"Microns", a_um()), true),
        ("p15c-ij-mu-greek", ij("μm".as_bytes(), a_um()), true),
        ("ImageJ, escaped", ij(b"\\u03BCm", a_um()), true),
        ("ImageJ, nm", ij(b"nm", resolution(1_538_462, 1_000_000_000, 1)), true),
        ("ImageJ, mm", ij(b"mm", resolution(1_538_462, 1000, 1)), true),
        ("p33-ome-latin1", vec![ascii(&latin1)], true),
        (
            "OME, nm",
            vec![ascii(&ome(
                r#"PhysicalSizeX="650" PhysicalSizeXUnit="nm" PhysicalSizeY="650" PhysicalSizeYUnit="nm""#,
            ))],
            true,
        ),
        ("OME, no unit", vec![ascii(&ome(r#"PhysicalSizeX="0.65" PhysicalSizeY="0.65""#))], true),
        ("p50-metamorph-xml", [vec![ascii(metamorph)], resolution(72, 1, 2)].concat(), true),
        ("p53-res-long", longs(15_385, 3), true),
        ("LONG an inch", longs(39_077, 2), true),
    ]
}

#[test]
fn a_pixel_size_that_can_be_believed_is_found_and_no_other_is() {
    let (pixels, nuclei) = nuclei(20);
    let folder = tempfile::tempdir().unwrap();
    let dialects = dialects();
    let mut paths = Vec::new();
    for (at, (_, tags, _)) in dialects.iter().enumerate() {
        let path = folder.path().join(format!("{at:02}.tif"));
        fs::write(&path, tiff(&pixels, tags.clone())).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    }
    let ran = segment(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    let images = ran.json["images"].as_array().unwrap();
    assert_eq!(images.len(), dialects.len());
    let mut faults = Vec::new();
    for ((what, _, is_known), image) in dialects.iter().zip(images) {
        let um = image["pixel_size_um"].as_f64();
        let objects = image["objects"].as_u64().unwrap() as usize;
        if !is_near(um, is_known.then_some(0.65)) || objects != nuclei {
            faults.push(format!("{what}: {um:?} µm, {objects} of {nuclei} nuclei: {image}"));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// e2-d10-mm to e2-d80-ij-300dpi: the number of nuclei does not hang on who wrote the size.
#[test]
fn nuclei_of_other_sizes_are_as_many_whoever_wrote_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for diameter in [10, 20, 40, 80] {
        let (pixels, nuclei) = nuclei(diameter);
        let sized = ome(r#"PhysicalSizeX="0.65" PhysicalSizeY="0.65""#);
        for (what, tags) in [
            ("mm", [vec![ascii(&sized), imagej(b"um")], resolution(A_CM.0, A_CM.1, 3)].concat()),
            ("ij-300dpi", [vec![imagej(b"inch")], resolution(300, 1, 2)].concat()),
        ] {
            let path = folder.path().join(format!("d{diameter}-{what}.tif"));
            fs::write(&path, tiff(&pixels, tags)).unwrap();
            let ran = segment(&[path.to_str().unwrap()]);
            eprintln!("d{diameter}-{what}: {:?} of {nuclei}: {}", ran.objects(), ran.said.trim());
            assert_eq!(ran.objects(), [nuclei], "d{diameter}-{what}");
        }
    }
}

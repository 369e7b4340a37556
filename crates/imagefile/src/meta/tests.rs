//! What files say of their pixel size, each as a file of the dialect that a program writes.

mod vendors;

use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;

use super::Problem;
use super::ome::Ome;
use crate::planes::Selection;
use crate::tiff::Stack;
use crate::{Limits, Page, open};
use reticle_domain::pixel_size::PixelSizeSource::{self, *};
use reticle_domain::pixel_size::{self, PixelSize};
use vendors::metamorph;

/// A TIFF of 4×4 pixels of 16 bits with the tags of a test, byte by byte.
struct Tiff {
    big_endian: bool,
    big_tiff: bool,
    /// Tag, type, count, and the value as it lies in the file.
    tags: Vec<(u16, u16, u64, Vec<u8>)>,
}

const PIXELS: [u16; 16] = [7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 4095];

impl Tiff {
    fn new() -> Self {
        Self { big_endian: false, big_tiff: false, tags: Vec::new() }
    }

    fn big_endian() -> Self {
        Self { big_endian: true, ..Self::new() }
    }

    fn tag(mut self, tag: u16, kind: u16, count: usize, value: impl Into<Vec<u8>>) -> Self {
        self.tags.push((tag, kind, count as u64, value.into()));
        self
    }

    fn ascii(self, tag: u16, text: impl AsRef<[u8]>) -> Self {
        let mut text = text.as_ref().to_vec();
        text.push(0);
        let count = text.len();
        self.tag(tag, 2, count, text)
    }

    fn described(self, text: impl AsRef<[u8]>) -> Self {
        self.ascii(270, text)
    }

    /// Both resolutions as a fraction, and its unit.
    fn resolution(self, n: u32, d: u32, unit: u16) -> Self {
        self.resolutions((n, d), (n, d)).unit(unit)
    }

    fn resolutions(self, x: (u32, u32), y: (u32, u32)) -> Self {
        let fraction = |this: &Self, (n, d)| [this.u32(n), this.u32(d)].concat();
        let (x, y) = (fraction(&self, x), fraction(&self, y));
        self.tag(282, 5, 1, x).tag(283, 5, 1, y)
    }

    fn unit(self, unit: u16) -> Self {
        let unit = self.u16(unit).to_vec();
        self.tag(296, 3, 1, unit)
    }

    fn longs(self, x: u32, y: u32, unit: u16) -> Self {
        let (x, y) = (self.u32(x), self.u32(y));
        self.tag(282, 4, 1, x).tag(283, 4, 1, y).unit(unit)
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A count or an offset.
    fn offset(&self, value: u64) -> Vec<u8> {
        match (self.big_tiff, self.big_endian) {
            (true, true) => value.to_be_bytes().to_vec(),
            (true, false) => value.to_le_bytes().to_vec(),
            (false, _) => self.u32(value as u32).to_vec(),
        }
    }

    fn bytes(mut self) -> Vec<u8> {
        let pixels: Vec<u8> = PIXELS.iter().flat_map(|value| self.u16(*value)).collect();
        let word = |this: &Self, value| this.u16(value).to_vec();
        for (tag, value) in [(256, 4), (257, 4), (258, 16), (259, 1), (262, 1), (277, 1), (278, 4)]
        {
            self.tags.push((tag, 3, 1, word(&self, value)));
        }
        let (header, entry) = if self.big_tiff { (16, 20) } else { (8, 12) };
        self.tags.push((273, 4, 1, self.u32(header).to_vec()));
        self.tags.push((279, 4, 1, self.u32(pixels.len() as u32).to_vec()));
        // In the order of the tags, those of one tag in the order of the test.
        self.tags.sort_by_key(|(tag, ..)| *tag);

        let mut file = if self.big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        file.extend(self.u16(if self.big_tiff { 43 } else { 42 }));
        if self.big_tiff {
            file.extend([self.u16(8), self.u16(0)].concat());
        }
        let directory = u64::from(header) + pixels.len() as u64;
        file.extend(self.offset(directory));
        file.extend(pixels);
        let count = self.tags.len();
        file.extend(if self.big_tiff {
            self.offset(count as u64)
        } else {
            word(&self, count as u16)
        });
        let inline = self.offset(0).len();
        let mut beyond = directory as usize + count * entry + if self.big_tiff { 16 } else { 6 };
        let mut values = Vec::new();
        for (tag, kind, count, value) in &self.tags {
            file.extend([self.u16(*tag), self.u16(*kind)].concat());
            file.extend(self.offset(*count));
            let mut value = value.clone();
            if value.len() <= inline {
                value.resize(inline, 0);
                file.extend(value);
            } else {
                file.extend(self.offset(beyond as u64));
                beyond += value.len();
                values.extend(value);
            }
        }
        file.extend(self.offset(0));
        file.extend(values);
        file
    }
}

fn read(name: &str, bytes: &[u8]) -> Page {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    open(&path, Limits::default()).unwrap().next().unwrap().unwrap()
}

/// What is believed of a TIFF, whose pixels must be the test's.
#[track_caller]
fn size(tiff: Tiff) -> PixelSize {
    let page = read("a.tif", &tiff.bytes());
    assert!(page.pixels == reticle_domain::frame::Pixels::U16(PIXELS.to_vec()));
    PixelSize { um: page.pixel_size_um, source: page.pixel_size_source, note: page.pixel_size_note }
}

#[track_caller]
fn is(tiff: Tiff, um: f64, source: PixelSizeSource) {
    let found = size(tiff);
    assert!(found.um.is_some_and(|found| (found / um - 1.0).abs() < 2e-4), "{found:?}");
    assert_eq!(found.source, Some(source), "{found:?}");
    assert_eq!(found.note, None);
}

/// Nothing is believed, and the note says this of why.
#[track_caller]
fn is_unknown(tiff: Tiff, why: &str) {
    let found = size(tiff);
    assert_eq!((found.um, found.source), (None, None));
    assert!(found.note.as_deref().is_some_and(|note| note.contains(why)), "{found:?}");
}

fn ome(attributes: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="4" SizeY="4" SizeZ="1" SizeC="1" SizeT="1" {attributes}><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>"#
    )
}

const MM_IMAGEJ: &str = "ImageJ=1.53c\nimages=1\nchannels=1\nunit=um\nmin=100.0\nmax=4000.0\n";

/// As Micro-Manager writes it: OME-XML, ImageJ's text, centimetres and its own JSON.
fn micro_manager(um: f64, per_cm: u32) -> Tiff {
    let size = format!(
        r#"PhysicalSizeX="{um}" PhysicalSizeXUnit="µm" PhysicalSizeY="{um}" PhysicalSizeYUnit="µm""#
    );
    Tiff::new()
        .described(ome(&size))
        .described(MM_IMAGEJ)
        .resolution(per_cm, 1, 3)
        .ascii(51_123, format!(r#"{{"PixelSizeUm":{um:?},"BitDepth":12,"Camera":"sim"}}"#))
}

/// What is believed of a TIFF's bytes, whatever its pixels are.
fn described_by(bytes: Vec<u8>) -> Result<PixelSize, Problem> {
    let length = bytes.len() as u64;
    let page = Stack::open(Cursor::new(bytes), length, Limits::default(), &Selection::default())?
        .read(0)?;
    Ok(PixelSize {
        um: page.pixel_size_um,
        source: page.pixel_size_source,
        note: page.pixel_size_note,
    })
}

// K01: which of several statements counts.

#[test]
fn of_micro_manager_s_two_descriptions_the_ome_xml_counts() {
    is(micro_manager(0.65, 15_384), 0.65, OmeXml);
    for (um, per_cm) in [(1.3, 7_692), (0.325, 30_769), (0.1625, 61_538), (0.0645, 155_038)] {
        is(micro_manager(um, per_cm), um, OmeXml);
    }
}

#[test]
fn the_order_of_two_descriptions_does_not_matter() {
    let xml = ome(r#"PhysicalSizeX="0.65" PhysicalSizeY="0.65" SignificantBits="12""#);
    let tiff = Tiff::new().described(MM_IMAGEJ).described(&xml).resolution(15_384, 1, 3);
    let page = read("a.tif", &tiff.bytes());
    assert_eq!((page.pixel_size_um, page.bit_depth), (Some(0.65), 12));
    let tiff = Tiff::new().described(xml).described(MM_IMAGEJ).resolution(15_384, 1, 3);
    let page = read("a.tif", &tiff.bytes());
    assert_eq!((page.pixel_size_um, page.bit_depth), (Some(0.65), 12));
}

#[test]
fn both_descriptions_are_read_in_big_endian_and_in_bigtiff() {
    let xml = ome(r#"PhysicalSizeX="0.65" PhysicalSizeY="0.65""#);
    for (big_endian, big_tiff) in [(false, true), (true, false), (true, true)] {
        let tiff = Tiff { big_endian, big_tiff, tags: Vec::new() };
        is(tiff.described(&xml).described(MM_IMAGEJ).resolution(15_384, 1, 3), 0.65, OmeXml);
    }
}

#[test]
fn centimetres_and_inches_of_the_tag_count_before_the_unit_in_imagej_s_text() {
    let text = |unit: &str| format!("ImageJ=1.53c\nunit={unit}\n");
    is(Tiff::new().described(MM_IMAGEJ).resolution(15_384, 1, 3), 0.65, Resolution);
    is(Tiff::new().described(MM_IMAGEJ).resolution(39_077, 1, 2), 0.65, Resolution);
    is(Tiff::new().described(text("cm")).resolution(15_384, 1, 3), 0.65, Resolution);
    is(Tiff::new().described(text("pixel")).resolution(15_384, 1, 3), 0.65, Resolution);
    is(Tiff::big_endian().described(text("\\u00B5m")).longs(15_385, 15_385, 3), 0.65, Resolution);
}

#[test]
fn where_only_imagej_s_own_unit_makes_sense_the_tag_s_was_a_default() {
    // tifffile before 2020 left the unit at inch.
    for unit in [1, 2, 3] {
        let tiff = Tiff::new().described("ImageJ=1.11a\nunit=um\n");
        is(tiff.resolution(1_538_462, 1_000_000, unit), 0.65, Imagej);
    }
    let tiff = Tiff::new().described("ImageJ=1.11a\nunit=um\n");
    is(tiff.resolutions((1_538_462, 1_000_000), (1_538_462, 1_000_000)), 0.65, Imagej);
}

#[test]
fn micro_manager_s_json_counts_without_ome_xml() {
    for json in [
        r#"{"PixelSizeUm":0.65,"BitDepth":12}"#,
        r#"{"BitDepth": 12, "PixelSizeUm" : 0.65}"#,
        r#"{"PixelSizeUm":"0.65"}"#,
        r#"{"PixelSizeUm":{"type":"DOUBLE","scalar":0.65},"x":{"scalar":3}}"#,
        r#"{"PixelSize_um":0.65,"PixelSizeAffine":"0.1;0;0"}"#,
    ] {
        let tiff = Tiff::new().described(MM_IMAGEJ).resolution(15_384, 1, 3);
        is(tiff.ascii(51_123, json), 0.65, MicroManager);
        is(Tiff::new().ascii(51_123, json), 0.65, MicroManager);
    }
}

#[test]
fn what_imagej_kept_of_an_image_s_past_counts_last_of_a_tiff() {
    let past = |tiff: Tiff| {
        let mut bytes = b"IJIJinfo\0\0\0\x01".to_vec();
        let info = "{\"PixelSize_um\": 0.65}";
        bytes.extend(info.encode_utf16().flat_map(|unit| tiff.u16(unit)));
        let count = bytes.len();
        tiff.tag(50_839, 1, count, bytes)
    };
    for tiff in [Tiff::new(), Tiff::big_endian()] {
        is(past(tiff.described("ImageJ=1.53t\n")), 0.65, ImagejProperties);
    }
    // Scaled to half its size since then.
    let found = size(past(Tiff::new().described("ImageJ=1.53t\nunit=um\n").resolution(10, 13, 1)));
    assert!(found.um.is_some_and(|um| (um - 1.3).abs() < 1e-9), "{found:?}");
    assert_eq!(found.source, Some(Imagej));
    assert!(found.note.unwrap().contains("0.65 µm"));
}

#[test]
fn two_that_disagree_are_both_named() {
    let found = size(micro_manager(0.65, 30_769));
    assert_eq!((found.um, found.source), (Some(0.65), Some(OmeXml)));
    assert_eq!(
        found.note.as_deref(),
        Some("the pixel size of 0.65 µm is that of the OME-XML; the resolution tag says 0.325 µm")
    );
}

// K02: sizes that no microscope has.

#[test]
fn a_microscope_that_was_not_calibrated_states_no_size() {
    let tiff = micro_manager(0.0, u32::MAX);
    is_unknown(tiff, "the resolution tag says 2.33e-6 µm");
    let silent = size(Tiff::new().described(ome(r#"PhysicalSizeX="0.0" PhysicalSizeY="0""#)));
    assert_eq!(silent, PixelSize::default());
    is_unknown(Tiff::new().described(ome(r#"PhysicalSizeX="2.0E-10""#)), "2.00e-10 µm");
}

#[test]
fn a_size_in_the_wrong_unit_is_not_believed() {
    let lost = r#"PhysicalSizeX="650" PhysicalSizeXUnit="µm" PhysicalSizeY="650""#;
    is_unknown(Tiff::new().described(ome(lost)), "the OME-XML says 650 µm");
    let metres = r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="m" PhysicalSizeY="0.65""#;
    is_unknown(Tiff::new().described(ome(metres)), "6.50e5 µm");
    let nm = r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="nm" PhysicalSizeY="0.65" PhysicalSizeYUnit="nm""#;
    is_unknown(Tiff::new().described(ome(nm)), "6.50e-4 µm");
    // What is plausible beside it is believed, with a word.
    let found = size(Tiff::new().described(ome(lost)).resolution(15_384, 1, 3));
    assert_eq!(found.source, Some(Resolution));
    assert!(found.note.unwrap().contains("the OME-XML says 650 µm"));
}

#[test]
fn dots_of_printers_and_screens_are_no_pixel_sizes_even_if_imagej_wrote_them() {
    for (unit, tag) in [("inch", 2), ("cm", 3)] {
        for (dots, um) in [(72, 352.8), (96, 264.6), (300, 84.67), (600, 42.33)] {
            let (dots, um) = if tag == 3 { (dots, um / 2.54) } else { (dots, um) };
            if um < 20.0 {
                continue;
            }
            let text = format!("ImageJ=1.54f\nunit={unit}\n");
            is_unknown(
                Tiff::new().described(&text).resolution(dots, 1, tag),
                "not between 0.01 and 20",
            );
            is_unknown(
                Tiff::new().described(text).resolutions((dots, 1), (dots, 1)),
                "not between",
            );
        }
    }
    is_unknown(Tiff::new().described("ImageJ=1.54f\nunit=cm\n").resolution(118, 1, 3), "84.75 µm");
    for dots in [1200, 2400, 4800, 9600] {
        for tiff in [Tiff::new(), Tiff::new().described("ImageJ=1.54f\nunit=inch\n")] {
            let found = size(tiff.resolution(dots, 1, 2));
            assert_eq!(found.um, None, "{dots}");
            assert!(found.note.is_some(), "{dots}");
        }
    }
}

#[test]
fn the_bounds_hold_for_every_dialect() {
    let dialects: [fn(f64) -> Tiff; 6] = [
        |um| Tiff::new().described(ome(&format!(r#"PhysicalSizeX="{um}""#))),
        |um| Tiff::new().ascii(51_123, format!(r#"{{"PixelSizeUm":{um}}}"#)),
        |um| Tiff::new().described(metamorph(um, "um")),
        |um| Tiff::new().described(format!("Aperio v10|MPP = {um}")),
        |um| {
            Tiff::new().described(format!("SCIFIO=0.9\naxes=X,Y\nscales={um},{um}\nunits=um,um\n"))
        },
        |um| {
            let tiff = Tiff::new().described("ImageJ=1.54f\nunit=um\n");
            tiff.resolution((1e6 / um) as u32, 1_000_000, 1)
        },
    ];
    for dialect in dialects {
        for um in [1e-6, 0.009, 21.0, 650.0, 84_666.0] {
            is_unknown(dialect(um), "not between 0.01 and 20 µm");
        }
        for um in [0.0105, 0.0645, 0.65, 6.5, 19.9] {
            assert!(size(dialect(um)).um.is_some_and(|found| (found - um).abs() < um * 1e-3));
        }
    }
}

// K13: sizes that were lost.

#[test]
fn a_micrometre_in_imagej_s_text_is_one_in_every_encoding() {
    let unit = |unit: &[u8]| {
        let text = [b"ImageJ=1.54f\nunit=".as_slice(), unit, b"\n".as_slice()].concat();
        Tiff::big_endian().described(text).resolution(1_538_462, 1_000_000, 1)
    };
    for text in [
        b"\xb5m".as_slice(),
        "µm".as_bytes(),
        "μm".as_bytes(),
        b"\\u00B5m",
        b"\\u03BCm",
        b"um",
        b"UM",
        b"micron",
        b"microns",
        b"Microns",
        b"micrometer",
        b"micrometre",
        b"Micrometres",
        b"\xc2\xb5m \xff",
        b"?m",
    ] {
        // The last of them but one is UTF-8 in a text that is not.
        let text = text.strip_suffix(b" \xff").unwrap_or(text);
        is(unit(text), 0.65, Imagej);
    }
    let mixed = b"ImageJ=1.54f\nInfo=\xe9t\xe9\nunit=\xc2\xb5m\n";
    is(Tiff::new().described(mixed).resolution(1_538_462, 1_000_000, 1), 0.65, Imagej);
    let windows = "ImageJ=1.54f\r\nunit=micron\r\n";
    is(Tiff::new().described(windows).resolution(1_538_462, 1_000_000, 1), 0.65, Imagej);
    let nm = "ImageJ=1.54f\nunit=nm\n";
    is(Tiff::new().described(nm).resolution(1_538_462, 1_000_000_000, 1), 0.65, Imagej);
}

#[test]
fn a_unit_that_is_not_known_is_named_and_harmless() {
    let text = "ImageJ=1.54f\nunit=\u{1b}[31mfurlong\n";
    is_unknown(
        Tiff::new().described(text).resolution(2, 1, 1),
        "unknown unit \"\\u001b[31mfurlong\"",
    );
    let pixels = "ImageJ=1.54f\nunit=pixel\n";
    assert_eq!(size(Tiff::new().described(pixels).resolution(1, 1, 1)), PixelSize::default());
}

#[test]
fn edges_in_two_units_are_compared_in_one() {
    let text = "ImageJ=1.54f\nunit=um\nyunit=nm\n";
    let tiff = Tiff::new().described(text);
    is(tiff.resolutions((1_538_462, 1_000_000), (1_538_462, 1_000_000_000)).unit(1), 0.65, Imagej);
    let tiff = Tiff::new().described(MM_IMAGEJ).resolutions((1, 1), (1, 2)).unit(1);
    is_unknown(tiff, "1 × 2 µm, which is not square");
}

#[test]
fn ome_xml_is_read_in_latin_1_and_with_every_way_to_write_the_unit() {
    for unit in ["µm", "μm", "um", "&#181;m", "&#xB5;m", "micrometer", "Microns", "\\u00B5m"] {
        let xml = ome(&format!(r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="{unit}""#));
        is(Tiff::new().described(&xml), 0.65, OmeXml);
        let latin_1: Vec<u8> =
            xml.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
        is(Tiff::new().described(latin_1), 0.65, OmeXml);
    }
    for (size, unit) in
        [("650", "nm"), ("0.00065", "mm"), ("6.5E-7", "m"), ("6500", "Å"), ("0,65", "µm")]
    {
        let both = format!(
            r#"PhysicalSizeX="{size}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{size}" PhysicalSizeYUnit="{unit}""#
        );
        is(Tiff::new().described(ome(&both)), 0.65, OmeXml);
    }
    let pixels = ome(r#"PhysicalSizeX="1" PhysicalSizeXUnit="pixel""#);
    assert_eq!(size(Tiff::new().described(pixels)), PixelSize::default());
}

#[test]
fn ome_xml_with_rubbish_around_it_is_read() {
    let xml = ome(r#"PhysicalSizeX="0.65""#);
    is(Tiff::new().described(format!("\u{feff}  {xml}\r\n\0\0rubbish")), 0.65, OmeXml);
    let control = xml.replace("<Image ", "<Image Name=\"a\u{1}b\" ");
    is(Tiff::new().described(control), 0.65, OmeXml);
    let prefixed = r#"<ome:OME xmlns:ome="http://www.openmicroscopy.org/Schemas/OME/2013-06"><ome:Image><ome:Pixels PhysicalSizeX="0.65"/></ome:Image></ome:OME>"#;
    is(Tiff::new().described(prefixed), 0.65, OmeXml);
}

#[test]
fn broken_xml_says_nothing_and_harms_nothing() {
    for text in ["<OME><Image", r#"<!DOCTYPE OME [<!ENTITY a "aaaa">]><OME>&a;</OME>"#, "<", ""] {
        assert_eq!(size(Tiff::new().described(text)), PixelSize::default());
    }
}

#[test]
fn images_of_one_file_have_each_their_own_size_where_the_xml_says_whose_it_is() {
    let image = |um: &str, data: &str| {
        format!(r#"<Image><Pixels PhysicalSizeX="{um}">{data}</Pixels></Image>"#)
    };
    let ome = |images: &str| Ome::parse(&format!(r#"<OME UUID="urn:uuid:a">{images}</OME>"#));
    let said = |ome: &Ome, at| ome.stated(at).and_then(|stated| pixel_size::decide([stated]).um);
    let two = ome(&(image("0.65", r#"<TiffData IFD="0"/><TiffData IFD="1"/>"#)
        + &image("1.3", r#"<TiffData IFD="2" PlaneCount="3"/>"#)));
    let found: Vec<_> = (0..6).map(|at| said(&two, at)).collect();
    assert_eq!(found, [Some(0.65), Some(0.65), Some(1.3), Some(1.3), Some(1.3), None]);
    let untold = ome(&(image("0.65", "") + &image("1.3", "")));
    assert_eq!(said(&untold, 0), None);
    let note = pixel_size::decide(untold.stated(0)).note.unwrap();
    assert!(note.contains("different sizes for its images (0.65, 1.3 µm)"), "{note}");
    // The other one's planes are in another file of the set.
    let other = r#"<TiffData IFD="0"><UUID FileName="b">urn:uuid:b</UUID></TiffData>"#;
    let here = r#"<TiffData IFD="0"><UUID FileName="a">urn:uuid:a</UUID></TiffData>"#;
    assert_eq!(said(&ome(&(image("0.65", other) + &image("1.3", here))), 0), Some(1.3));
    // One that says nothing does not contradict.
    assert_eq!(said(&ome(&(image("0.65", "") + "<Image><Pixels/></Image>")), 3), Some(0.65));
}

#[test]
fn the_resolution_is_read_from_every_type_of_number() {
    is(Tiff::new().longs(15_385, 15_385, 3), 0.65, Resolution);
    is(Tiff::big_endian().longs(15_385, 15_385, 3), 0.65, Resolution);
    is(Tiff { big_tiff: true, ..Tiff::new() }.longs(15_385, 15_385, 3), 0.65, Resolution);
    is(Tiff::new().resolution(15_384_615, 1000, 3), 0.65, Resolution);
    is(Tiff::new().resolution(39_077, 1, 2), 0.65, Resolution);
    // The format's default is the inch.
    is(Tiff::new().resolutions((39_077, 1), (39_077, 1)), 0.65, Resolution);
    let number =
        |kind, bytes: &[u8]| Tiff::new().tag(282, kind, 1, bytes).tag(283, kind, 1, bytes).unit(3);
    is(number(3, &15_385_u16.to_le_bytes()), 0.65, Resolution);
    is(number(9, &15_385_i32.to_le_bytes()), 0.65, Resolution);
    is(number(10, &[15_385_i32.to_le_bytes(), 1_i32.to_le_bytes()].concat()), 0.65, Resolution);
    is(number(11, &15_385_f32.to_le_bytes()), 0.65, Resolution);
    is(number(12, &15_385_f64.to_le_bytes()), 0.65, Resolution);
    let x_alone = Tiff::new().tag(282, 4, 1, 15_385_u32.to_le_bytes()).unit(3);
    is(x_alone, 0.65, Resolution);
    for (n, d) in [(0, 1), (1, 0), (0, 0)] {
        assert_eq!(size(Tiff::new().resolution(n, d, 3)), PixelSize::default());
    }
    assert_eq!(size(Tiff::new().resolution(15_385, 1, 1)), PixelSize::default());
}

#[test]
fn a_private_tag_that_points_nowhere_is_left_and_a_cut_description_is_damage() {
    for tag in [33_560, 33_628, 34_361, 65_332] {
        let mut bytes = Tiff::new().ascii(tag, [b'1'; 40]).bytes();
        let keep = bytes.len() - 41;
        bytes.truncate(keep);
        let page = read("a.tif", &bytes);
        assert_eq!(page.pixel_size_note, None);
    }
    let mut bytes = Tiff::new().described(MM_IMAGEJ).bytes();
    bytes.truncate(bytes.len() - 5);
    let cut = described_by(bytes);
    assert!(matches!(cut, Err(Problem::Damaged(_))), "{cut:?}");
}

// PNG and JPEG.

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A PNG of one grey pixel with this chunk before its picture.
fn png(physical: Option<(u32, u32, u8)>) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let named = [name.as_slice(), body].concat();
        let sum = crc32(&named);
        [&(body.len() as u32).to_be_bytes(), named.as_slice(), &sum.to_be_bytes()].concat()
    };
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]));
    file.extend(chunk(b"tEXt", b"Software\0a microscope"));
    if let Some((x, y, unit)) = physical {
        file.extend(chunk(
            b"pHYs",
            &[&x.to_be_bytes(), &y.to_be_bytes(), [unit].as_slice()].concat(),
        ));
    }
    // Stored, not compressed: a row of filter 0 and one pixel, with its Adler-32.
    file.extend(chunk(b"IDAT", &[0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 9, 0, 0x0b, 0, 0x0a]));
    file.extend(chunk(b"IEND", &[]));
    file
}

#[test]
fn a_png_s_pixels_a_metre_are_read_and_screens_are_not_believed() {
    let of = |physical| {
        let page = read("a.png", &png(physical));
        (page.pixel_size_um.map(|um| (um * 1e4).round() / 1e4), page.pixel_size_source)
    };
    assert_eq!(of(Some((1_538_462, 1_538_462, 1))), (Some(0.65), Some(Png)));
    for physical in [
        None,
        Some((1_538_462, 1_538_462, 0)),
        Some((2835, 2835, 1)),
        Some((3780, 3780, 1)),
        Some((94_488, 94_488, 1)),
        Some((0, 0, 1)),
        Some((1_538_462, 769_231, 1)),
    ] {
        assert_eq!(of(physical), (None, None), "{physical:?}");
    }
    let note = read("a.png", &png(Some((2835, 2835, 1)))).pixel_size_note.unwrap();
    assert!(note.contains("the PNG's pHYs says 352.7 µm"), "{note}");
}

#[test]
fn a_jpeg_s_density_is_read_and_screens_are_not_believed() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/images/grey.jpg");
    let of = |unit, x: u16, y: u16| {
        let mut bytes = std::fs::read(golden).unwrap();
        assert_eq!(&bytes[6..11], b"JFIF\0");
        bytes[13] = unit;
        bytes[14..18].copy_from_slice(&[x.to_be_bytes(), y.to_be_bytes()].concat());
        read("a.jpg", &bytes)
    };
    let page = of(2, 15_385, 15_385);
    assert_eq!(page.pixel_size_source, Some(Jfif));
    assert!((page.pixel_size_um.unwrap() - 0.65).abs() < 1e-4);
    assert_eq!(of(1, 39_077, 39_077).pixel_size_source, Some(Jfif));
    for (unit, x, y) in
        [(0, 1, 1), (1, 72, 72), (1, 300, 300), (2, 118, 118), (1, 2400, 2400), (2, 0, 0)]
    {
        assert_eq!(of(unit, x, y).pixel_size_um, None, "{unit} {x}");
    }
}

proptest! {
    /// Whatever tags hold, nothing panics, and what is believed is plausible.
    #[test]
    fn no_tags_make_the_reader_panic(
        values in prop::collection::vec(
            (prop::sample::select(vec![270_u16, 282, 283, 296, 33_560, 33_628, 34_361, 34_412, 34_682, 50_839, 51_123, 65_332]),
             0_u16..20, any::<u16>(), prop::collection::vec(any::<u8>(), 0..80)), 0..6),
        (big_endian, big_tiff) in any::<(bool, bool)>(),
    ) {
        let mut tiff = Tiff { big_endian, big_tiff, tags: Vec::new() };
        for (tag, kind, count, bytes) in values {
            tiff = tiff.tag(tag, kind, usize::from(count), bytes);
        }
        let bytes = tiff.bytes();
        if let Ok(size) = described_by(bytes) {
            prop_assert!(size.um.is_none_or(pixel_size::is_plausible));
            prop_assert_eq!(size.um.is_some(), size.source.is_some());
        }
    }
}

//! The readers of foreign bytes, each with the bytes that it is given.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use reticle::config;
use reticle_base::clock::Clock;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{Dated, FrameFacts, ModelFacts, Series};
use reticle_domain::frame::Place;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::pixel_size;
use reticle_domain::segmentation::ModelRef;
use reticle_exchange::import::{self, Kind, Source};
use reticle_exchange::output::Output;
use reticle_exchange::tables::{self, Frames, ModelKey, ObjectRow, Objects, ParquetTable};
use reticle_exchange::zarr::{self, ShardShape, ShardWriter};
use reticle_imagefile::{Limits, Selection};
use serde_json::{Value, json};

use super::{mutate, tiff};

/// Pixels that an image may have here: few enough that memory beyond them is noticed.
const MAX_PIXELS: u64 = 8 << 20;

/// Bytes that a pixel may take while it is decoded: what `Limits` reckons with.
const BYTES_A_PIXEL: u64 = 10;

/// A reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// TIFF, PNG and JPEG as frames, page by page.
    Pages,
    /// TIFF and PNG as label images.
    Labels,
    /// Stored frames.
    Frame,
    /// Stored label images.
    Blob,
    Coco,
    GeoJson,
    Config,
    Zarr,
    Parquet,
}

impl Target {
    /// Of a hundred executions, sixty are of image files.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..100) {
            0..40 => Self::Pages,
            40..54 => Self::Labels,
            54..60 => Self::Frame,
            60..72 => Self::Blob,
            72..80 => Self::Coco,
            80..88 => Self::GeoJson,
            88..92 => Self::Config,
            92..96 => Self::Zarr,
            _ => Self::Parquet,
        }
    }

    /// Pixels that it takes at most, where its callers do not say how many.
    fn pixels(self) -> u64 {
        match self {
            Self::Pages => MAX_PIXELS,
            _ => reticle_imagefile::MAX_PIXELS,
        }
    }

    /// Bytes of memory beyond which it takes too much: three times those of the pixels that it may
    /// read.
    pub(crate) fn bound(self) -> u64 {
        3 * self.pixels() * BYTES_A_PIXEL
    }
}

/// What a reader made of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Read,
    Refused,
}

/// Sound files to begin with, and a folder to lay changed ones in.
pub(crate) struct Inputs {
    tiffs: Vec<Vec<u8>>,
    pngs: Vec<Vec<u8>>,
    jpegs: Vec<Vec<u8>>,
    blobs: Vec<Vec<u8>>,
    coco: Value,
    geojson: Value,
    toml: String,
    zarrs: Vec<Vec<(&'static str, Vec<u8>)>>,
    parquets: Vec<Vec<u8>>,
    scratch: PathBuf,
}

impl Inputs {
    /// Reads the images of `tests/golden`, and makes the rest.
    pub(crate) fn new(scratch: &Path) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images");
        let mut files: Vec<PathBuf> = fs::read_dir(golden)
            .expect("the golden images are part of the repository")
            .map(|entry| entry.expect("its folder can be listed").path())
            .collect();
        files.sort();
        let of = |endings: &[&str]| -> Vec<Vec<u8>> {
            files
                .iter()
                .filter(|file| file.extension().is_some_and(|e| endings.iter().any(|n| e == *n)))
                .map(|file| fs::read(file).expect("a golden image can be read"))
                .collect()
        };
        let (mut tiffs, mut pngs) = (of(&["tif"]), of(&["png"]));
        let labels = label_images();
        tiffs.push(frame_tiff(&files));
        tiffs.extend(labels.iter().map(reticle_imagefile::encode_labels_tiff));
        pngs.extend(labels.iter().filter_map(reticle_imagefile::encode_labels_png));
        let pack = |labels| reticle_store::pack_labels(labels).expect("labels can be packed");
        fs::create_dir_all(scratch.join("zarr/c/0/0")).expect("the scratch folder takes folders");
        Self {
            tiffs,
            pngs,
            jpegs: of(&["jpg"]),
            blobs: labels.iter().map(pack).collect(),
            coco: coco(),
            geojson: geojson(),
            toml: config::default_file(),
            zarrs: zarrs(scratch),
            parquets: parquets(scratch),
            scratch: scratch.to_owned(),
        }
    }

    /// The next bytes for a reader; of Zarr, the changed file among its files.
    pub(crate) fn draw(&self, target: Target, rng: &mut Rng) -> Vec<u8> {
        let one = |of: &Vec<Vec<u8>>, rng: &mut Rng| of[rng.usize(..of.len())].clone();
        match target {
            Target::Pages | Target::Labels | Target::Frame => {
                let kind = if target == Target::Frame { 0 } else { rng.u8(..10) };
                let mut bytes = match kind {
                    0..4 => tiff::build(&one(&self.jpegs, rng), rng),
                    4..6 => one(&self.tiffs, rng),
                    6..8 => mutate::png(&one(&self.pngs, rng), &one(&self.pngs, rng), rng),
                    8 => mutate::jpeg(&one(&self.jpegs, rng), &one(&self.jpegs, rng), rng),
                    _ => match rng.u8(..2) {
                        0 => one(&self.pngs, rng),
                        _ => one(&self.jpegs, rng),
                    },
                };
                let other = match rng.u8(..3) {
                    0 => one(&self.tiffs, rng),
                    1 => one(&self.pngs, rng),
                    _ => one(&self.jpegs, rng),
                };
                changed(&mut bytes, &other, rng);
                bytes
            }
            Target::Blob => {
                let mut bytes = one(&self.blobs, rng);
                if rng.bool() {
                    // Behind the checksum of zstd: runs that are changed and packed again.
                    let (head, packed) = bytes.split_at(16);
                    let mut runs = zstd::decode_all(packed).expect("it was packed before");
                    mutate::havoc(&mut runs, &[0x80, 0xff, 0xff, 0xff, 0x0f], rng);
                    let mut again = head.to_vec();
                    again.extend(zstd::encode_all(&*runs, 1).expect("memory takes every byte"));
                    bytes = again;
                }
                changed(&mut bytes, &one(&self.blobs, rng), rng);
                bytes
            }
            Target::Coco | Target::GeoJson => {
                let seed = if target == Target::Coco { &self.coco } else { &self.geojson };
                let mut document = seed.clone();
                mutate::json(&mut document, rng);
                let mut bytes = document.to_string().into_bytes();
                if rng.u8(..8) == 0 {
                    mutate::havoc(&mut bytes, b"[[[{\"1e999\\ud800", rng);
                }
                bytes
            }
            Target::Config => {
                let lines: Vec<&str> = self.toml.lines().collect();
                mutate::toml(&lines, rng)
            }
            Target::Zarr => Vec::new(),
            Target::Parquet => {
                let mut bytes = one(&self.parquets, rng);
                changed(&mut bytes, &one(&self.parquets, rng), rng);
                bytes
            }
        }
    }

    /// Has a reader read `bytes`.
    pub(crate) fn run(&self, target: Target, bytes: &[u8], rng: &mut Rng) -> Answer {
        let at = |name: &str| self.scratch.join(name);
        let lay = |name: &str| {
            let path = at(name);
            fs::write(&path, bytes).expect("the scratch folder takes files");
            path
        };
        match target {
            Target::Pages => pages(&lay("image"), &selection(rng)),
            Target::Labels => answer(reticle_imagefile::read_drawn_labels(&lay("image"))),
            Target::Frame => answer(reticle_imagefile::decode_frame_tiff(bytes)),
            Target::Blob => answer(reticle_store::unpack_labels(bytes)),
            Target::Coco => imported(lay("coco.json"), Kind::Coco),
            Target::GeoJson => imported(lay("t1.geojson"), Kind::GeoJson),
            Target::Config => answer(config::load(Some(&lay("reticle.toml")))),
            Target::Zarr => {
                self.lay_zarr(rng);
                imported(at("zarr"), Kind::OmeZarr)
            }
            Target::Parquet => {
                let path = lay("table.parquet");
                let rows = tables::rows_by_frame(&path).is_ok();
                let frames = tables::read::frames(&path).is_ok();
                let objects = tables::read::objects(&path, |_, _| {}).is_ok();
                let results = tables::read::results(&path).is_ok();
                if rows || frames || objects || results { Answer::Read } else { Answer::Refused }
            }
        }
    }

    /// The files of an array, one of them changed.
    fn lay_zarr(&self, rng: &mut Rng) {
        let files = &self.zarrs[rng.usize(..self.zarrs.len())];
        let bad = rng.usize(..files.len());
        for name in ["zarr.json", ".zarray", ".zattrs", "0.0.0", "c/0/0/0"] {
            fs::remove_file(self.scratch.join("zarr").join(name)).ok();
        }
        for (number, (name, bytes)) in files.iter().enumerate() {
            let mut bytes = bytes.clone();
            if number == bad {
                match serde_json::from_slice::<Value>(&bytes) {
                    Ok(mut document) => {
                        mutate::json(&mut document, rng);
                        bytes = document.to_string().into_bytes();
                    }
                    Err(_) => mutate::havoc(&mut bytes, &[0x28, 0xb5, 0x2f, 0xfd, 0xff], rng),
                }
            }
            let path = self.scratch.join("zarr").join(name);
            fs::write(path, bytes).expect("the scratch folder takes files");
        }
    }
}

/// Most often changed in some bytes, now and then the first part of one and the last of another.
fn changed(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    match rng.u8(..16) {
        0..5 => {}
        5 => mutate::splice(bytes, other, rng),
        _ => mutate::havoc(bytes, other, rng),
    }
}

fn answer<T, E>(read: Result<T, E>) -> Answer {
    if read.is_ok() { Answer::Read } else { Answer::Refused }
}

/// Most often none; else a channel, a z plane, or both.
fn selection(rng: &mut Rng) -> Selection {
    let pick = |of: &[&str], rng: &mut Rng| {
        let text = of.get(rng.usize(..of.len() + 4))?;
        Some(text.parse().expect("it picks something"))
    };
    let channel = pick(&["1", "2", "DAPI", "red", "4294967296"], rng);
    Selection { channel, z: pick(&["1", "3", "middle"], rng) }
}

fn pages(path: &Path, selection: &Selection) -> Answer {
    let limits = Limits { max_pixels: MAX_PIXELS, max_pages: 50, ..Limits::default() };
    let Ok(mut pages) = reticle_imagefile::open_chosen(path, limits, selection) else {
        return Answer::Refused;
    };
    assert!(pages.len() <= pages.total(), "no more is chosen than there is");
    pages.next_is_heavy();
    let mut answer = Answer::Refused;
    for page in pages.flatten() {
        let pixels = u64::from(page.width) * u64::from(page.height);
        assert_eq!(page.pixels.len() as u64, pixels, "a page has all its pixels");
        assert!(pixels <= MAX_PIXELS, "a page is within its limit");
        if let Some(size) = page.pixel_size_um {
            assert!(pixel_size::is_plausible(size), "a pixel has a size: {size}");
            assert!(page.pixel_size_source.is_some(), "somebody stated it");
        }
        answer = Answer::Read;
    }
    answer
}

fn imported(path: PathBuf, kind: Kind) -> Answer {
    let mut answer = Answer::Refused;
    import::read(&Source { path, kind }, 4, &mut |found| {
        if let Ok(found) = found {
            // Frames are of a size that is known; this one fits the sound document.
            let drawn = found.labels((12, 10));
            if drawn.is_ok() {
                answer = Answer::Read;
            }
        }
    });
    answer
}

/// Small ones, with many and with large labels.
fn label_images() -> Vec<LabelImage> {
    let make = |width: u32, height: u32, label: fn(u32) -> u32| {
        let labels = (0..width * height).map(label).collect();
        LabelImage::new(width, height, labels).expect("it has a label for each pixel")
    };
    vec![
        make(12, 10, |at| at / 30),
        make(16, 16, |at| at),
        make(31, 7, |at| at % 5),
        make(300, 3, |at| at / 3),
        LabelImage::empty(9, 9),
    ]
}

/// A frame as the store keeps it.
fn frame_tiff(golden: &[PathBuf]) -> Vec<u8> {
    let path = golden.iter().find(|file| file.ends_with("grey16.png")).expect("it is there");
    let mut pages = reticle_imagefile::open(path, Limits::default()).expect("it is sound");
    let page = pages.next().expect("it has a page").expect("it is sound");
    let shot = page.into_shot(Clock::manual(0).now(), "a.png".to_owned());
    let frame = shot.into_frame().expect("a page has all its pixels");
    reticle_imagefile::encode_frame_tiff(&frame).expect("it has pixels")
}

fn coco() -> Value {
    json!({
        "images": [
            { "id": 1, "width": 12, "height": 10, "file_name": "t1.png" },
            { "id": 2, "width": 12, "height": 10, "file_name": "t2.png" },
        ],
        "annotations": [
            { "image_id": 1, "label": 1, "segmentation": { "size": [10, 12], "counts": "R1b04N20" } },
            { "image_id": 1, "label": 2,
              "segmentation": { "size": [10, 12], "counts": [10, 5, 20, 5, 80] } },
            { "image_id": 2, "segmentation": [[1.5, 1.0, 8.0, 1.25, 8.0, 9.0, 1.0, 9.0], [0, 0, 2, 0, 2, 2]] },
        ],
    })
}

fn geojson() -> Value {
    let ring = json!([[1.0, 1.0], [9.5, 1.0], [9.5, 8.0], [1.0, 8.0], [1.0, 1.0]]);
    let hole = json!([[3, 3], [5, 3], [5, 5], [3, 5], [3, 3]]);
    json!({
        "type": "FeatureCollection", "width": 12, "height": 10,
        "features": [
            { "type": "Feature", "properties": { "label": 1 },
              "geometry": { "type": "Polygon", "coordinates": [ring, hole] } },
            { "type": "Feature", "properties": { "label": 2 },
              "geometry": { "type": "MultiPolygon", "coordinates": [[[[0, 0], [2, 0], [2, 2], [0, 0]]]] } },
        ],
    })
}

/// An array as the archive has it, and two of Zarr 2.
fn zarrs(scratch: &Path) -> Vec<Vec<(&'static str, Vec<u8>)>> {
    let series = Series {
        pk: 1,
        session: SessionId::from_bytes([7; 16]),
        number: 0,
        width: 12,
        height: 10,
        bytes_per_pixel: 2,
        part_frames: 2,
        frames: 2,
    };
    let shape = ShardShape { frames: 2, width: 12, height: 10, bytes_per_pixel: 4 };
    let path = scratch.join("shard");
    let output = Output::scratch(&path).expect("the scratch folder takes files");
    let mut shard = ShardWriter::new(output, shape).expect("a shard can be begun");
    for position in 0..2 {
        let labels: Vec<u32> = (0..120).map(|at| at / 40).collect();
        shard.push_labels(position, &labels).expect("a shard takes its positions");
    }
    shard.finish().expect("a shard can be ended");
    let shard = fs::read(&path).expect("it was written");
    let version_2 = |compressor: Value| {
        let document = json!({
            "zarr_format": 2, "shape": [1, 10, 12], "chunks": [1, 10, 12], "dtype": "<u2",
            "compressor": compressor, "fill_value": 0, "order": "C", "filters": null,
        });
        document.to_string().into_bytes()
    };
    let raw: Vec<u8> = (0..120_u16).flat_map(|at| (at / 40).to_le_bytes()).collect();
    let zstd = zstd::encode_all(&*raw, 1).expect("memory takes every byte");
    vec![
        vec![("zarr.json", zarr::label_array(&series)), ("c/0/0/0", shard)],
        vec![(".zarray", version_2(Value::Null)), ("0.0.0", raw)],
        vec![(".zarray", version_2(json!({ "id": "zstd", "level": 1 }))), ("0.0.0", zstd)],
    ]
}

/// A table of frames and one of objects.
fn parquets(scratch: &Path) -> Vec<Vec<u8>> {
    let at = 1_700_000_000_000_000_000;
    let dated = Dated { at_ns: at, recorded_ns: at, mono_ns: 5, boot: uuid::Uuid::from_u128(9) };
    let model = ModelFacts {
        pk: 1,
        model: ModelRef {
            name: "nuclei".into(),
            sha256: "ab".repeat(32),
            parameters: "{}".into(),
            software: "reticle 0.1.0".into(),
        },
    };
    let key = ModelKey::of(&model);
    let path = scratch.join("seed.parquet");
    let mut frames = ParquetTable::<Frames>::create(&path).expect("a table can be begun");
    let facts = |position: u64| FrameFacts {
        pk: position as i64,
        id: FrameId::from_bytes([position as u8; 16]),
        session: SessionId::from_bytes([7; 16]),
        series: 0,
        position,
        sequence: position,
        captured: dated,
        exposure_us: Some(10_000),
        width: 12,
        height: 10,
        bit_depth: 12,
        sha256: [3; 32],
        pixel_size_um: Some(0.65),
        pixel_size_source: None,
        pixel_size_note: None,
        place: Place { plate: Some("P1".into()), well: Some("C07".into()), field: Some(3) },
        origin: Some("t 1.tif#2".into()),
        segmented: true,
        has_pixels: true,
    };
    for position in 0..3 {
        frames.push(&(None, &facts(position))).expect("a table takes rows");
    }
    frames.finish().expect("a table can be ended");
    let of_frames = fs::read(&path).expect("it was written");
    let mut objects = ParquetTable::<Objects>::create(&path).expect("a table can be begun");
    for label in 1..9 {
        let row = ObjectRow { frame: &facts(1), model: &key, object: &object(label) };
        objects.push(&row).expect("a table takes rows");
    }
    objects.finish().expect("a table can be ended");
    vec![of_frames, fs::read(&path).expect("it was written")]
}

fn object(label: u32) -> Object {
    let at = f64::from(label);
    Object {
        label,
        area: 100 + label,
        centroid_0: at,
        centroid_1: at,
        bbox_0: label,
        bbox_1: label + 1,
        bbox_2: label + 2,
        bbox_3: label + 3,
        perimeter: 35.5,
        eccentricity: 0.5,
        solidity: 0.96,
        major_axis_length: 12.0,
        minor_axis_length: 10.0,
        orientation: -0.25,
        intensity_mean: 1234.5,
        intensity_max: 4095.0,
        intensity_min: 7.0,
        touches_border: false,
    }
}

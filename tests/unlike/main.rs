//! Pictures unlike what their model knows are said to be, those of its kind are not; and in which scale
//! a picture is looked at is decided by what is stated, by its session, or by itself.
//!
//! The rates are measured by `make prove-unlike`; a test run has a part of it.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reticle_base::clock::Clock;
use reticle_domain::frame::Frame;
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::{Look, Unlike};
use reticle_segment::{Options, Segmenter};
use serde_json::Value;

#[path = "../common/mod.rs"]
mod common;
#[expect(clippy::disallowed_methods, reason = "pictures of a test are no results")]
mod measure;
#[expect(clippy::disallowed_methods, reason = "pictures of a test are no results")]
mod more;
#[expect(clippy::disallowed_methods, reason = "pictures of a test are no results")]
mod pictures;
mod scales;

use common::{data_dir, reticle};
use pictures::Picture;

fn segmenter(model: &str) -> Segmenter {
    let options = Options { model: model.to_owned(), ..Options::default() };
    Segmenter::new(&options, Clock::system()).unwrap()
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

/// The real images of a set; none where there is no folder of them.
fn images(set: &str) -> Vec<PathBuf> {
    let Some(data) = data_dir() else { return Vec::new() };
    reticle_imagefile::list_images(&[data.join(set).join("images")]).unwrap()
}

/// Objects found, and what is said of the picture.
fn found(segmenter: &mut Segmenter, frame: &Arc<Frame>) -> (usize, Look) {
    let found = segmenter.segment(frame).unwrap();
    (found.objects.len(), found.look)
}

#[test]
fn pictures_of_the_models_own_kind_are_not_doubted() {
    for (model, sets) in [("nuclei", &["val"][..]), ("phase", &["phase-val", "phase-test"])] {
        let mut segmenter = segmenter(model);
        for path in sets.iter().flat_map(|set| images(set)) {
            let (_, look) = found(&mut segmenter, &read(&path));
            assert_eq!(look.doubts(model), Vec::<String>::new(), "{}", path.display());
        }
    }
}

const EDGE: usize = 512;

/// A dark field with the noise of a camera.
fn dark(seed: u64) -> Picture {
    Picture::flat(EDGE, 30.0).noisy(5.0, seed)
}

fn nuclei(seed: u64, count: usize, diameter: f64) -> Picture {
    dark(seed).with_nuclei(count, diameter, |k| 60.0 + (k % 7) as f64 * 15.0, seed)
}

#[test]
fn drawn_nuclei_and_empty_fields_are_not_doubted() {
    let mut segmenter = segmenter("nuclei");
    for seed in 0..4 {
        for (count, diameter) in [(0, 20.0), (3, 20.0), (40, 15.0), (50, 20.0), (30, 40.0)] {
            let (objects, look) = found(&mut segmenter, &nuclei(seed, count, diameter).bytes());
            assert_eq!(look.unlike, None, "{count} of {diameter} px, seed {seed}: {objects} found");
        }
    }
}

/// Panics where one of `pictures` neither has the true count, within a fifth, nor one of these words.
fn each_is_right_or_said(
    what: &str,
    words: &[Unlike],
    count: usize,
    pictures: impl IntoIterator<Item = Arc<Frame>>,
) {
    let mut segmenter = segmenter("nuclei");
    let (mut right, mut said) = (0, 0);
    for (number, picture) in pictures.into_iter().enumerate() {
        let (objects, look) = found(&mut segmenter, &picture);
        let is_right = objects.abs_diff(count) * 5 <= count;
        let is_said = look.unlike.is_some_and(|word| words.contains(&word));
        right += u32::from(is_right && !is_said);
        said += u32::from(is_said);
        assert!(
            is_right || is_said,
            "{what} {number}: {objects} for {count} and {:?}; {:?}",
            look.unlike,
            segmenter.evidence()
        );
    }
    eprintln!("{what}: {said} said, {right} right without a word");
}

const SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn dark_nuclei_on_bright_are_said() {
    for diameter in [10.0, 20.0, 40.0, 80.0] {
        let count = ((EDGE as f64 / diameter / 2.0).powi(2) as usize).min(50);
        // Fewer where there is no room, so that only the word counts.
        let inverted = SEEDS.map(|seed| nuclei(seed, count, diameter).inverted().bytes());
        let what = format!("inverted, {diameter} px");
        each_is_right_or_said(&what, &[Unlike::DarkOnBright], count, inverted);
    }
}

#[test]
fn stripes_rows_and_patterns_are_said_or_empty() {
    let lines = [Unlike::Stripes, Unlike::FixedPattern];
    for period in [8.0, 16.0, 32.0, 48.0] {
        let stripes =
            SEEDS.map(|seed| dark(seed).with_stripes(period, 20.0, seed % 2 == 0).bytes());
        each_is_right_or_said(&format!("stripes, {period} px"), &lines, 0, stripes);
        let lattices = SEEDS.map(|seed| dark(seed).with_lattice(period, 40.0).bytes());
        each_is_right_or_said(&format!("lattice, {period} px"), &lines, 0, lattices);
    }
    let rows = SEEDS.map(|seed| dark(seed).with_row_offsets(12.0, seed % 2 == 0, seed).bytes());
    each_is_right_or_said("rows", &lines, 0, rows);
}

#[test]
fn glow_without_edges_is_said_or_empty() {
    let words = [Unlike::Soft, Unlike::Strange];
    for sigma in [25.0, 40.0, 60.0] {
        let glow = SEEDS.map(|seed| dark(seed).with_glow(12, sigma, 60.0, seed).bytes());
        each_is_right_or_said(&format!("glow, {sigma} px"), &words, 0, glow);
    }
}

#[test]
fn dim_nuclei_beside_very_bright_ones_are_found_or_said() {
    let field = |seed, noise, bright, dim: f64| {
        let flat = Picture::flat(EDGE, 200.0).noisy(noise, seed);
        flat.with_nuclei(25, 20.0, |k| if k < 5 { bright } else { dim }, seed)
    };
    let words = [Unlike::DimBesideBright];
    for dim in [120.0, 250.0, 500.0, 2000.0] {
        let fields = SEEDS.map(|seed| field(seed, 8.0, 60_000.0, dim).words());
        each_is_right_or_said(&format!("dim, {dim} of 60,000"), &words, 25, fields);
    }
}

#[test]
fn debris_among_nuclei_is_said_or_left_out() {
    let words = [Unlike::Debris, Unlike::Strange, Unlike::Soft];
    let fields =
        SEEDS.map(|seed| nuclei(seed, 20, 20.0).with_debris(150, 6.0, 120.0, seed).bytes());
    each_is_right_or_said("debris", &words, 20, fields);
}

/// Writes a picture as a 16-bit PNG, which is what label images are, too.
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
fn write(path: &Path, picture: &Picture) {
    let values = picture.values.iter().map(|value| value.round().clamp(0.0, 65_535.0) as u32);
    let (width, height) = (picture.width as u32, picture.height as u32);
    let image = LabelImage::new(width, height, values.collect()).unwrap();
    std::fs::write(path, reticle_imagefile::encode_labels_png(&image).unwrap()).unwrap();
}

#[test]
fn segment_says_and_records_what_it_doubts_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("in")).unwrap();
    write(&at("in/dark.png"), &nuclei(1, 40, 20.0).inverted());
    write(&at("in/usual.png"), &nuclei(2, 40, 20.0));
    let mut command = reticle();
    command.current_dir(folder.path()).args(["segment", "in", "--out", "out", "--json"]);
    let ran = command.output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{said}");
    let sentence =
        "dark.png: this picture is unlike what `nuclei` was trained on: dark cells on bright?";
    assert!(said.contains(sentence), "{said}");
    assert!(!said.contains("usual.png"), "{said}");
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let images: Vec<_> = ["dark-on-bright".into(), Value::Null]
        .into_iter()
        .zip(report["images"].as_array().unwrap())
        .collect();
    let table = std::fs::read_to_string(at("out/images.csv")).unwrap();
    let mut rows = table.lines();
    assert!(rows.next().unwrap().ends_with("scale_from,scale,size_ratio,unlike"), "{table}");
    for (unlike, image) in images {
        assert_eq!(image["unlike"], unlike, "{report}");
        assert_eq!(image["scale_from"], "picture", "{report}");
        let row = rows.next().unwrap();
        let name = image["image"].as_str().unwrap();
        assert!(row.starts_with(name) && row.ends_with(unlike.as_str().unwrap_or(",")), "{table}");
    }
}

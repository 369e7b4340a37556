//! Pictures unlike what their model knows are said to be, and those of its kind are not.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reticle::base::clock::Clock;
use reticle::domain::frame::Frame;
use reticle::imagefile;
use reticle::segment::{Options, Segmenter};

#[path = "../common/mod.rs"]
mod common;
mod pictures;

use common::data_dir;
use pictures::Picture;

fn segmenter(model: &str) -> Segmenter {
    let options = Options { model: model.to_owned(), ..Options::default() };
    Segmenter::new(&options, Clock::system()).unwrap()
}

fn read(path: &Path) -> Arc<Frame> {
    let page = imagefile::open(path, Options::default().limits()).unwrap().next().unwrap().unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    Arc::new(page.into_shot(Clock::system().now(), name).into_frame().unwrap())
}

fn images(set: &str) -> Vec<PathBuf> {
    let Some(data) = data_dir() else { return Vec::new() };
    let mut images: Vec<PathBuf> = std::fs::read_dir(data.join(set).join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    images.sort();
    images
}

/// Writes the evidence of all pictures, for choosing limits: UNLIKE_CSV=file.
#[test]
fn evidence_of_everything() {
    use std::io::Write as _;
    let Some(path) = std::env::var_os("UNLIKE_CSV") else { return };
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut nuclei = segmenter("nuclei");
    let mut phase = segmenter("phase");
    let mut put = |model: &str, set: &str, kind: &str, name: &str, frame: &Arc<Frame>| {
        let segmenter = if model == "nuclei" { &mut nuclei } else { &mut phase };
        let found = segmenter.segment(frame).unwrap();
        let evidence = format!("{:?}", segmenter.evidence());
        let evidence = evidence.trim_start_matches("Evidence { ").trim_end_matches(" }");
        let said = found.look.unlike.map_or("-", |unlike| unlike.word());
        writeln!(
            out,
            "model: {model}, set: {set}, kind: {kind}, name: {name}, said: {said}, scale: {}, focus: {}, {evidence}",
            found.look.scale, found.focus
        )
        .unwrap();
    };
    for (model, sets) in [
        ("nuclei", &["train", "val", "test", "train-bbbc039", "phase-train", "phase-test", "stained-test", "stained-train"][..]),
        ("phase", &["phase-train", "phase-val", "phase-test", "val", "stained-test"][..]),
    ] {
        for set in sets {
            for path in images(set) {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let frame = read(&path);
                put(model, set, "plain", &name, &frame);
                let plain = Picture::of(&frame);
                let own = match model {
                    "nuclei" => !set.starts_with("phase"),
                    _ => set.starts_with("phase"),
                };
                if !own || (*set == "train" && plain.width > 600) {
                    continue;
                }
                let seed = plain.values.len() as u64;
                put(model, set, "inverted", &name, &plain.clone().inverted().words());
                let (low, high) = (plain.quantile(0.01), plain.quantile(0.998));
                let span = (high - low).max(8.0);
                let wide = |picture: Picture| picture.each(|_, _, v| (v - low) / span * 8000.0 + 4000.0);
                let sixteen = wide(plain.clone());
                put(model, set, "stripes10", &name, &sixteen.clone().with_stripes(16.0, 800.0, false).words());
                put(model, set, "stripes30", &name, &sixteen.clone().with_stripes(24.0, 2400.0, true).words());
                put(model, set, "rows10", &name, &sixteen.clone().with_row_offsets(800.0, false, seed).words());
                put(model, set, "blur6", &name, &sixteen.clone().blurred(6.0).words());
                put(model, set, "lattice30", &name, &sixteen.clone().with_lattice(32.0, 2400.0).words());
                let dim = sixteen.clone().each(|x, y, v| {
                    let left = x < plain.width / 8 && y < plain.height;
                    500.0 + (v - 4000.0) / 8000.0 * if left { 40_000.0 } else { 250.0 }
                });
                put(model, set, "dim8", &name, &dim.words());
            }
        }
    }
    for seed in 0..40_u64 {
        let name = seed.to_string();
        for edge in [512, 768] {
            let n = |sigma: f64| Picture::flat(edge, 30.0).noisy(sigma, seed + edge as u64);
            let p = 16.0 + (seed % 5) as f64 * 8.0;
            let upright = seed % 2 == 0;
            put("nuclei", "drawn", "empty", &name, &n(6.0).bytes());
            let centre = edge as f64 / 2.0;
            let vignette = |depth: f64| n(6.0).each(|x, y, v| v + 100.0 - depth * ((x as f64 - centre).powi(2) + (y as f64 - centre).powi(2)).powf(1.5) / centre.powi(3));
            put("nuclei", "drawn", "e-vignette", &name, &vignette(5.0 + seed as f64).bytes());
            put("nuclei", "drawn", "e-slope", &name, &n(6.0).each(|x, _, v| v + x as f64 * seed as f64 / 200.0).bytes());
            put("nuclei", "drawn", "e-quiet", &name, &n(0.3 + seed as f64 / 40.0).bytes());
            put("nuclei", "drawn", "e-hot", &name, &n(3.0).each(|x, y, v| if (x * 31 + y * 17) % 4001 == 0 { 255.0 } else { v }).bytes());
            put("nuclei", "drawn", "e-16", &name, &n(6.0).each(|_, _, v| v * 40.0).words());
            put("nuclei", "drawn", "e-cold", &name, &n(3.0).each(|x, y, v| if (x * 31 + y * 17) % 4001 == 0 { 0.0 } else { v }).bytes());
            put("nuclei", "drawn", "d-stripes", &name, &n(6.0).with_stripes(p, 10.0 + seed as f64, upright).bytes());
            put("nuclei", "drawn", "d-rows", &name, &n(6.0).with_row_offsets(3.0 + seed as f64 / 3.0, upright, seed).bytes());
            put("nuclei", "drawn", "d-lattice", &name, &n(4.0).with_lattice(p, 10.0 + seed as f64 * 2.0).bytes());
            put("nuclei", "drawn", "d-glow", &name, &n(4.0).with_glow(8 + seed as usize % 12, 15.0 + seed as f64, 60.0, seed).bytes());
            for d in [10.0, 20.0, 40.0, 80.0] {
                let count = (40 + seed as usize).min((edge as f64 / d / 2.0).powi(2) as usize);
                put("nuclei", "drawn", &format!("d-nuclei{d}"), &name, &n(5.0).with_nuclei(count, d, |k| 60.0 + (k % 7) as f64 * 15.0, seed).bytes());
                put("nuclei", "drawn", &format!("d-few{d}"), &name, &n(5.0).with_nuclei(1 + seed as usize % 6, d, |k| 60.0 + (k % 7) as f64 * 15.0, seed).bytes());
                put("nuclei", "drawn", &format!("d-inverted{d}"), &name, &n(5.0).with_nuclei(count, d, |k| 60.0 + (k % 7) as f64 * 15.0, seed).inverted().bytes());
            }
            let field = n(5.0).with_nuclei(30, 20.0, |k| 60.0 + (k % 7) as f64 * 15.0, seed);
            put("nuclei", "drawn", "d-debris", &name, &field.clone().with_debris(150, 6.0, 120.0, seed).bytes());
            put("nuclei", "drawn", "d-debris-only", &name, &n(5.0).with_debris(150, 6.0, 120.0, seed).bytes());
            let dim = Picture::flat(edge, 200.0).noisy(8.0, seed).with_nuclei(25, 20.0, |k| if k < 5 { 60_000.0 } else { 120.0 + 10.0 * seed as f64 }, seed);
            put("nuclei", "drawn", "d-dim", &name, &dim.words());
            let dim = Picture::flat(edge, 30.0).noisy(2.0, seed).with_nuclei(25, 20.0, |k| if k < 5 { 220.0 } else { 12.0 + seed as f64 / 4.0 }, seed);
            put("nuclei", "drawn", "d-dim8", &name, &dim.bytes());
        }
    }
}

//! Every kind of TIFF that can be combined, against independent readers: `tests/readers/tiff_matrix.py`
//! makes the files and says what tifffile and Pillow see in them.
//!
//! In a test run a drawn part of the matrix is read; `make prove-tiff` reads all of it.
//! `RETICLE_TIFF_MATRIX` is how many files are drawn, `RETICLE_FAULT_SEED` draws others.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reticle_imagefile::{Limits, Page, Selection, open_chosen};
use serde_json::Value;

/// Files of the matrix in a test run; what programs write themselves is read always.
const DRAWN: &str = "250";
const SEED: &str = "14";

/// What lossy pictures may differ by, between two decoders.
const ROUNDING: u16 = 3;

fn from_environment(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn make(folder: &Path) -> Vec<Value> {
    let python = from_environment("RETICLE_READERS_PYTHON", "python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/tiff_matrix.py");
    let count = from_environment("RETICLE_TIFF_MATRIX", DRAWN);
    let seed = from_environment("RETICLE_FAULT_SEED", SEED);
    eprintln!("RETICLE_TIFF_MATRIX={count} RETICLE_FAULT_SEED={seed}");
    let made = Command::new(&python).arg(script).arg(folder).args([count, seed]).output();
    let made = made.expect("RETICLE_READERS_PYTHON names a Python");
    assert!(
        made.status.success(),
        "{python} could not make the files: run `scripts/setup test` and `make test`, or name a \
         Python with the group `readers` of scripts/tools.txt in RETICLE_READERS_PYTHON: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    serde_json::from_slice(&expected).unwrap()
}

/// What we see: the pages, or why not.
fn read(folder: &Path, entry: &Value) -> Result<Vec<Page>, String> {
    let pick = |key: &str| entry[key].as_str().map(|text| text.parse().unwrap());
    let selection = Selection { channel: pick("channel"), z: pick("z") };
    let path = folder.join(entry["file"].as_str().unwrap());
    let pages = open_chosen(&path, Limits::default(), &selection);
    let pages = pages.map_err(|error| error.to_string())?;
    pages.map(|page| page.map_err(|error| error.to_string())).collect()
}

/// As `tiff_matrix.py` tells a page.
fn told(page: &Page) -> Value {
    serde_json::json!([page.width, page.height, hex::encode(page.pixels.sha256())])
}

fn is_near(page: &Page, expected: &str) -> bool {
    let expected = STANDARD.decode(expected).unwrap();
    page.pixels.len() == expected.len()
        && (0..expected.len())
            .all(|at| page.pixels.get(at).abs_diff(expected[at].into()) <= ROUNDING)
}

/// What is wrong with what we see, where anything is.
fn fault(folder: &Path, entry: &Value) -> Option<String> {
    if let Some([other, ..]) = entry["differ"].as_array().map(Vec::as_slice) {
        return Some(format!("is another picture for {other}"));
    }
    let seen = read(folder, entry);
    match (entry["refusal"].as_str(), seen) {
        (Some(word), Err(why)) if why.contains("damaged") || !why.contains(word) => {
            Some(format!("is refused with {why:?}, and {word:?} is right"))
        }
        (Some(_), Err(_)) => None,
        (Some(word), Ok(_)) => Some(format!("is read, and to be refused with {word:?}")),
        (None, Err(why)) => Some(format!("is refused: {why}")),
        (None, Ok(pages)) => {
            let expected = entry["pages"].as_array().unwrap();
            if pages.len() != expected.len() {
                return Some(format!("has {} pages for {}", pages.len(), expected.len()));
            }
            let near = entry["near"].as_str();
            for (at, (page, expected)) in pages.iter().zip(expected).enumerate() {
                let same = near.map_or_else(|| told(page) == *expected, |near| is_near(page, near));
                if !same {
                    return Some(format!("page {at} is {}, and {expected} is right", told(page)));
                }
                let size = entry["pixel_size_um"].as_f64();
                if let Some(size) = size
                    && page.pixel_size_um.is_none_or(|found| (found / size - 1.0).abs() > 0.01)
                {
                    return Some(format!("has pixels of {:?} µm for {size}", page.pixel_size_um));
                }
            }
            None
        }
    }
}

#[test]
fn independent_readers_and_ours_see_the_same_pages_or_we_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let entries = make(folder.path());
    let mut figures = BTreeMap::<String, usize>::new();
    let mut faults = Vec::new();
    for entry in &entries {
        let what = match (entry["refusal"].as_str(), entry["agree"].as_array()) {
            (Some(word), _) => format!("refused: {word}"),
            (None, Some(agree)) if agree.is_empty() => "read, as drawn (by no other)".to_owned(),
            (None, agree) => format!("read, as by {:?}", agree.map_or(0, Vec::len)),
        };
        *figures.entry(what).or_default() += 1;
        if let Some(fault) = fault(folder.path(), entry) {
            faults.push(format!("{}: {fault}: {}", entry["file"], entry["spec"]));
        }
    }
    eprintln!("{} files", entries.len());
    for (what, count) in figures {
        eprintln!("{count:6} {what}");
    }
    let shown = faults.len().min(30);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults[..shown].join("\n"));
}

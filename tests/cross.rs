//! One image, segmented by the program built for another processor and by this one, gets the
//! same labels. Run by `make test-cross`, which names the other program:
//! `RETICLE_CROSS_BIN`, and `RETICLE_CROSS_RUNNER` (an emulator) where it cannot run here.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod common;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use reticle_domain::label_image::LabelImage;
use reticle_imagefile::read_labels;
use reticle_segment::golden::Report;

#[test]
fn the_other_processor_gives_the_labels_that_this_one_gives() {
    let Some(other) = std::env::var_os("RETICLE_CROSS_BIN") else {
        eprintln!("skipped: RETICLE_CROSS_BIN names no program (make test-cross does)");
        return;
    };
    let foreign = match std::env::var_os("RETICLE_CROSS_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(other);
            command
        }
        None => Command::new(other),
    };
    let image = image();
    let folder = tempfile::tempdir().unwrap();
    let ours = segment(common::reticle(), &image, &folder.path().join("native"));
    let theirs = segment(foreign, &image, &folder.path().join("foreign"));

    let report = Report::compare(&ours, &theirs);
    eprintln!("{}: {report:?}", image.display());
    assert!(report.expected_objects > 0, "an image without objects proves nothing");
    assert!(report.is_good(), "the processors do not agree: {report:?}");
}

/// A small image: an emulated network takes seconds. From the real ones where they are, else the
/// frame that the model package proves itself with.
fn image() -> PathBuf {
    if let Some(data) = common::data_dir() {
        let images = data.join("test/images");
        let entries = std::fs::read_dir(&images).unwrap();
        let images = entries.map(|entry| entry.unwrap().path());
        // The smallest file, and of those the first by name: the same on each machine.
        return images.min_by_key(|image| (size(image), image.clone())).unwrap();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nuclei/golden.png")
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

/// The labels that `program segment` writes for the image.
fn segment(mut program: Command, image: &Path, out: &Path) -> LabelImage {
    program.arg("segment").arg(image).arg("--out").arg(out).args(["--jobs", "1"]);
    let line: Vec<OsString> = program.get_args().map(OsString::from).collect();
    let done = program.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{:?} {line:?}: {}\n{said}", program.get_program(), done.status);
    let labels = std::fs::read_dir(out.join("labels")).unwrap().map(|entry| entry.unwrap().path());
    let labels: Vec<PathBuf> = labels.filter(|path| is_label_image(path)).collect();
    assert_eq!(labels.len(), 1, "one image in, one label image out: {labels:?}");
    read_labels(&labels[0]).unwrap()
}

fn is_label_image(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "png" || extension == "tif")
}

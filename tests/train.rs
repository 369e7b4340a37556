//! `reticle train` from a folder to a package that segments. Short: it shows that the way is
//! whole, not that a model is good; `unseen_real_images_…` in pipeline.rs shows that.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use image::{GrayImage, ImageBuffer, Luma};

mod common;

use common::reticle;

/// Bright discs on a dark ground, with their labels.
fn write_pair(folder: &Path, name: &str, shift: u32) {
    let mut image = GrayImage::from_pixel(96, 96, Luma([20]));
    let mut labels: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::new(96, 96);
    for (index, (x, y)) in [(20, 20), (60, 25), (40, 70)].into_iter().enumerate() {
        for (dy, dx) in (-9_i32..=9).flat_map(|dy| (-9_i32..=9).map(move |dx| (dy, dx))) {
            if dx * dx + dy * dy <= 81 {
                let at = ((x + shift).cast_signed() + dx, (y + shift / 2).cast_signed() + dy);
                let at = (at.0.cast_unsigned(), at.1.cast_unsigned());
                image.put_pixel(at.0, at.1, Luma([200]));
                labels.put_pixel(at.0, at.1, Luma([index as u16 + 1]));
            }
        }
    }
    for part in ["images", "labels"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
    }
    image.save(folder.join("images").join(name)).unwrap();
    labels.save(folder.join("labels").join(name)).unwrap();
}

#[test]
fn images_and_labels_become_a_package_that_segments() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for index in 0..11 {
        write_pair(&data, &format!("{index:02}.png"), index);
    }
    let package = folder.path().join("discs");
    let output = reticle()
        .arg("train")
        .arg(&data)
        .arg("--out")
        .arg(&package)
        .args(["--steps", "60", "--batch", "2", "--crop", "64", "--widths", "16,32,32,48"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("AP at IoU 0.5"), "{said}");
    for file in ["model.toml", "model.onnx", "README.md", "golden.png", "golden-labels.png"] {
        assert!(package.join(file).is_file(), "{file} is missing");
    }
    let manifest: toml::Table =
        toml::from_str(&std::fs::read_to_string(package.join("model.toml")).unwrap()).unwrap();
    assert_eq!(manifest["training"]["images"].as_integer(), Some(9), "two of eleven are held out");
    assert_eq!(manifest["training"]["objects"].as_integer(), Some(27));
    assert_eq!(manifest["training"]["recipe"]["widths"].to_string(), "[16, 32, 32, 48]");

    let out = folder.path().join("out");
    let output = reticle()
        .arg("segment")
        .arg(data.join("images"))
        .arg("--out")
        .arg(&out)
        .arg("--model")
        .arg(&package)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(out.join("labels")).unwrap().count(), 11);

    // And on from there: the second training starts from the first one's weights.
    let output = reticle()
        .arg("train")
        .arg(&data)
        .arg("--out")
        .arg(folder.path().join("more"))
        .arg("--start")
        .arg(&package)
        .args(["--steps", "2", "--batch", "1", "--crop", "32"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_interrupted_training_makes_a_package_of_what_it_has_and_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for index in 0..2 {
        write_pair(&data, &format!("{index}.png"), index);
    }
    let package = folder.path().join("discs");
    let train = || {
        let mut command = reticle();
        command.arg("train").arg(&data).arg("--out").arg(&package);
        command.args(["--steps", "1500", "--batch", "1", "--crop", "32", "--threads", "1"]);
        command
    };
    let mut child = train().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("step 100/") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended before step 100");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    let stopped_at = || {
        let manifest = std::fs::read_to_string(package.join("model.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        manifest["training"]["recipe"].get("stopped_at").and_then(toml::Value::as_integer)
    };
    let step = stopped_at().unwrap();
    assert!((100..1500).contains(&step) && rest.contains(&format!("stopped at step {step}")));

    let output = train().args(["--seed", "7"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is of another training"), "{said}");

    let output = train().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("going on from step {step} ")), "{said}");
    assert_eq!(stopped_at(), None);
    assert!(!package.join("checkpoint.bin").exists());
}

#[test]
fn a_data_set_that_does_not_fit_together_is_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a.png", 0);
    std::fs::remove_file(folder.path().join("labels/a.png")).unwrap();
    let output = reticle()
        .arg("train")
        .arg(folder.path())
        .arg("--out")
        .arg(folder.path().join("model"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("a.png") && errors.contains("no label image"), "{errors}");
}

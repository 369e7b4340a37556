//! Broken input: each file is refused by name, with the reason and the remedy, and nothing
//! else suffers: not the other images of a run, not the daemon.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use common::{Daemon, Start, reticle, wait_for};

/// A broken file: its name, and what is said about it.
struct Broken {
    name: &'static str,
    says: &'static str,
    make: fn(&Path),
}

/// Everything that has gone wrong between a camera and us, one file each.
const BROKEN: [Broken; 8] = [
    Broken {
        name: "cut_short.tif",
        says: "is damaged or cut short (it ends too early); export or copy it again",
        make: |path| cut(path, "bigendian16.tif", 700),
    },
    Broken {
        name: "cut_off.png",
        says: "is damaged or cut short",
        make: |path| cut(path, "grey16.png", 150),
    },
    Broken {
        name: "zero.tif",
        says: "is empty (0 bytes); export or copy it again",
        make: |path| fs::write(path, b"").unwrap(),
    },
    Broken { name: "one_pixel.tif", says: "1×1", make: |path| tiff(path, 1, 1) },
    Broken {
        name: "huge.tif",
        says: "has 20000×20000 pixels, above the limit of 67108864; crop it or export it in tiles",
        make: |path| tiff(path, 20_000, 20_000),
    },
    Broken {
        name: "colour.png",
        says: "is a colour image; Reticle segments one channel: choose `red`, `green` or `blue` with",
        make: |path| copy(path, golden("colour.png")),
    },
    Broken {
        name: "float.tif",
        says: "has floating-point pixels",
        make: |path| copy(path, golden("float32.tif")),
    },
    Broken {
        name: "text.png",
        says: "is not a TIFF, PNG or JPEG image; export it as one of these",
        make: |path| fs::write(path, b"these are not the cells you are looking for").unwrap(),
    },
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)
}

fn copy(path: &Path, from: PathBuf) {
    fs::copy(from, path).unwrap();
}

/// The first bytes of a sound file.
fn cut(path: &Path, whole: &str, length: usize) {
    fs::write(path, &fs::read(golden(whole)).unwrap()[..length]).unwrap();
}

/// A sound, black TIFF of 8 bits and any size, whose pixels take no room on the disk.
fn tiff(path: &Path, width: u32, height: u32) {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    let pixels_at = 256;
    let tags = [
        (256, LONG, width),
        (257, LONG, height),
        (258, SHORT, 8),
        (259, SHORT, 1),
        (262, SHORT, 1),
        (273, LONG, pixels_at),
        (277, SHORT, 1),
        (278, LONG, height),
        (279, LONG, width * height),
    ];
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, value) in tags {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(u64::from(pixels_at) + u64::from(width) * u64::from(height)).unwrap();
}

#[test]
fn segment_names_every_broken_image_does_the_others_and_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    let out = folder.path().join("out");
    fs::create_dir(&images).unwrap();
    for broken in &BROKEN {
        (broken.make)(&images.join(broken.name));
    }
    fs::copy(golden("grey8.png"), images.join("good_a.png")).unwrap();
    fs::copy(golden("ome_stack.ome.tif"), images.join("good_z.ome.tif")).unwrap();
    let ran = reticle().arg("segment").arg(&images).arg("--out").arg(&out).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    for broken in &BROKEN {
        let line = said.lines().find(|line| line.contains(broken.name));
        let line = line.unwrap_or_else(|| panic!("{} is not named in:\n{said}", broken.name));
        assert!(line.contains(broken.says), "{line}");
    }
    let mut labels: Vec<String> = fs::read_dir(out.join("labels"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    labels.sort();
    let stack = ["good_z.ome-page0000.png", "good_z.ome-page0001.png", "good_z.ome-page0002.png"];
    assert_eq!(labels, [&["good_a.png"][..], &stack].concat());
    assert!(fs::metadata(out.join("objects.csv")).unwrap().len() > 0);
    assert!(fs::metadata(out.join("objects.parquet")).unwrap().len() > 0);
}

#[test]
fn of_two_images_of_one_name_the_first_is_segmented_and_the_second_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["one", "two"] {
        fs::create_dir(at(name)).unwrap();
    }
    for image in ["one/a.png", "one/b.png", "two/a.png"] {
        fs::copy(golden("grey8.png"), at(image)).unwrap();
    }
    let mut segment = reticle();
    segment.arg("segment").args([at("one"), at("two")]).arg("--out").arg(at("out"));
    let ran = segment.arg("--json").output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    let complaint = format!(
        "reticle: {} is passed over: its labels/a.png would replace that of {}; rename it, or \
         segment it with another --out\n",
        at("two/a.png").display(),
        at("one/a.png").display()
    );
    assert_eq!(said, complaint);
    let done: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(done["images"].as_array().unwrap().len(), 2);
    assert_eq!(done["failed"].as_array().unwrap().len(), 1);
    assert!(at("out/labels/a.png").is_file() && at("out/labels/b.png").is_file());
}

#[test]
fn a_running_daemon_refuses_broken_images_by_name_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&format!("folder:{}", folder.path().display()));
    for (refused_before, broken) in (0_u64..).zip(&BROKEN) {
        // Made elsewhere and renamed into place, so that it is seen once, in this state.
        let hidden = folder.path().join(format!(".{}", broken.name));
        (broken.make)(&hidden);
        fs::rename(&hidden, folder.path().join(broken.name)).unwrap();
        let status = wait_for(&format!("the refusal of {}", broken.name), || {
            let status = daemon.json("/api/v1/status");
            (status["counters"]["refused"].as_u64()? > refused_before).then_some(status)
        });
        let last = status["last_refusal"].as_str().unwrap_or_default();
        assert!(last.contains(broken.name) && last.contains(broken.says), "{last}");
        assert_eq!(status["counters"]["refused"], refused_before + 1);
    }
    // 20,000 × 20,000 pixels alone would be 390,625 KiB.
    assert!(daemon.resident_kib() < 300_000, "{} KiB", daemon.resident_kib());
    let hidden = folder.path().join(".good.png");
    fs::copy(golden("grey8.png"), &hidden).unwrap();
    fs::rename(&hidden, folder.path().join("good.png")).unwrap();
    wait_for("the good image to be saved", || {
        (daemon.json("/api/v1/status")["counters"]["saved"].as_u64()? == 1).then_some(())
    });
    assert!(daemon.is_running());
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_reads_no_image_that_it_may_not_segment_and_says_what_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("reticle.toml");
    fs::write(&config, "[segment]\nmax_megapixels = 0.2\n").unwrap();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    let large = images.join("large.tif");
    tiff(&large, 500, 401);
    // Holes would be waited for: its writer could yet fill them.
    let mut file = File::options().append(true).open(&large).unwrap();
    file.set_len(256).unwrap();
    file.write_all(&[77; 500 * 401]).unwrap();
    drop(file);
    let daemon =
        Start::default().config(config).source(format!("folder:{}", images.display())).start();
    let status = wait_for("the refusal of large.tif", || {
        let status = daemon.json("/api/v1/status");
        (status["counters"]["refused"].as_u64()? > 0).then_some(status)
    });
    let last = status["last_refusal"].as_str().unwrap_or_default();
    let says = "has 500×401 pixels, above the limit of 200000";
    assert!(last.contains("large.tif") && last.contains(says), "{last}");
    assert!(last.contains("or raise `max_megapixels` in [segment]"), "{last}");
    assert_eq!(status["counters"]["captured"], 0);
}

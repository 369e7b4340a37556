//! The same images get the same results, byte for byte: labels, `objects.parquet` and the other
//! tables, whatever processor and C library computed them.
//!
//! One test takes FMA and AVX2 from the C library's functions, as on an older processor. The other is run by
//! `make test-cross`, which names a program built for another processor: `RETICLE_CROSS_BIN`, and
//! `RETICLE_CROSS_RUNNER` (an emulator) where it cannot run here.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Images that are segmented: an emulated network takes seconds for each.
const IMAGES: usize = 3;

/// What makes the functions of glibc do without FMA and AVX2 (since 2.33; before, the names had
/// `_Usable` at their end).
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
const WITHOUT_FMA: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-FMA_Usable,-FMA4_Usable,-AVX2_Usable");

#[test]
fn the_other_processor_gives_the_bytes_that_this_one_gives() {
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
    assert_same_bytes(foreign);
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn a_c_library_without_fma_gives_the_bytes_that_one_with_it_gives() {
    if !std::arch::is_x86_feature_detected!("fma") {
        eprintln!("skipped: this processor has no FMA that could be taken away");
        return;
    }
    let (with, without) = (last_bits(None), last_bits(Some(WITHOUT_FMA)));
    assert_ne!(with, without, "{WITHOUT_FMA:?} changed nothing, so this test would prove nothing");
    let mut program = common::reticle();
    program.env(WITHOUT_FMA.0, WITHOUT_FMA.1);
    assert_same_bytes(program);
}

/// What the C library of a process of its own, with that variable, makes of some numbers.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn last_bits(variable: Option<(&str, &str)>) -> String {
    let mut probe = Command::new(std::env::current_exe().unwrap());
    probe.args(["--exact", "the_last_bits_of_the_c_library", "--ignored", "--nocapture"]);
    let done = probe.env_remove(WITHOUT_FMA.0).envs(variable).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("last bits: "));
    line.unwrap_or_else(|| panic!("the probe says {said:?}")).1.to_owned()
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
#[ignore = "a probe that the test above runs in a process of its own"]
fn the_last_bits_of_the_c_library() {
    #[expect(clippy::disallowed_methods, reason = "what is banned is what is looked at here")]
    let bits = (1..20_000).map(|at| {
        let x = std::hint::black_box(f64::from(at) * 0.001);
        x.atan2(1.5).to_bits() ^ x.log2().to_bits() ^ x.exp2().to_bits()
    });
    let all = bits.fold(0_u64, |all, bits| all.rotate_left(5) ^ bits);
    println!("last bits: {all:x}");
}

/// Segments the images by this build and by `other`, and compares every file that they make.
fn assert_same_bytes(other: Command) {
    let mut images = images();
    let folder = tempfile::tempdir().unwrap();
    // Decoders have code for each kind of processor, too.
    let jpeg = folder.path().join("decoded.jpg");
    image::open(&images[0]).unwrap().to_luma8().save(&jpeg).unwrap();
    images.push(jpeg);
    let ours = segment(common::reticle(), &images, &folder.path().join("ours"));
    let theirs = segment(other, &images, &folder.path().join("theirs"));
    let names: Vec<&String> = ours.keys().collect();
    assert_eq!(names, theirs.keys().collect::<Vec<_>>());
    assert_eq!(names.iter().filter(|name| name.starts_with("labels/")).count(), images.len());
    let objects = String::from_utf8_lossy(&ours["objects.csv"]).lines().count() - 1;
    assert!(objects >= 10 * images.len(), "images with {objects} objects prove little");
    let differ: Vec<_> = names.iter().filter(|name| ours[**name] != theirs[**name]).collect();
    assert!(differ.is_empty(), "of {} files these differ: {differ:?}", names.len());
    eprintln!("{objects} objects of {images:?}: {} files are the same", names.len());
}

/// Small images: from the real ones where they are, else frames that the model packages prove
/// themselves with.
fn images() -> Vec<PathBuf> {
    let mut images: Vec<PathBuf> = match common::data_dir() {
        Some(data) => {
            let entries = std::fs::read_dir(data.join("test/images")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        }
        None => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let file = |name: &str| root.join(name);
            ["models/nuclei/golden.png", "models/phase/golden.png"].map(file).into()
        }
    };
    // The smallest files, and of equal ones the first by name: the same on each machine.
    images.sort_by_key(|image| (std::fs::metadata(image).unwrap().len(), image.clone()));
    images.truncate(IMAGES);
    images
}

/// The files that `program segment` makes of the images, by their path in its folder.
fn segment(mut program: Command, images: &[PathBuf], out: &Path) -> BTreeMap<String, Vec<u8>> {
    program.arg("segment").args(images).arg("--out").arg(out).args(["--jobs", "1"]);
    let line: Vec<OsString> = program.get_args().map(OsString::from).collect();
    let done = program.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{:?} {line:?}: {}\n{said}", program.get_program(), done.status);
    let mut files = BTreeMap::new();
    for folder in ["", "labels/"] {
        for entry in std::fs::read_dir(out.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() && !name.starts_with('.') {
                files.insert(format!("{folder}{name}"), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

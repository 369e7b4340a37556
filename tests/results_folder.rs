//! The folder of results: nothing in it is written over that `reticle` did not make, results of two
//! runs are never mixed, each label image is that of its own image, and what was left out is said.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{reticle, wait_for};
use image::{GrayImage, ImageBuffer, Luma};

/// A folder with images, in which commands run.
struct Lab(tempfile::TempDir);

impl Lab {
    /// With these images, each of another picture.
    fn with(images: &[&str]) -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        for (number, name) in (0..).zip(images) {
            picture(&lab.at(name), number);
        }
        lab
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran(reticle().current_dir(self.0.path()).args(arguments).output().unwrap())
    }

    fn segment(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["segment", "--json", "--jobs", "1"], arguments].concat())
    }

    /// Names in a folder, sorted; hidden ones left out.
    fn list(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

impl Lab {
    /// Rows of a table as cells, without its header; none where there is no table.
    fn rows(&self, table: &str) -> Vec<csv::StringRecord> {
        let reader = csv::Reader::from_path(self.at(table));
        reader.into_iter().flat_map(|reader| reader.into_records().flatten()).collect()
    }

    /// How many images are in the table of images. Each has its label image, and all of its objects
    /// in the table of objects.
    fn done_in_tables(&self) -> usize {
        let (images, objects) = (self.rows("out/images.csv"), self.rows("out/objects.csv"));
        for image in &images {
            let found = objects.iter().filter(|object| object[0] == image[0]).count();
            assert_eq!(found.to_string(), image[2], "objects of {}", &image[0]);
            assert!(found > 0, "the discs are found");
            assert!(self.at("out/labels").join(&image[0]).exists(), "labels of {}", &image[0]);
        }
        images.len()
    }
}

struct Ran(Output);

impl Ran {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    #[track_caller]
    fn is_fine(&self) -> &Self {
        assert_eq!(self.0.status.code(), Some(0), "{}", self.said());
        self
    }

    /// Ended with 1, and said all of it.
    #[track_caller]
    fn says(&self, words: &[&str]) -> &Self {
        let said = self.said();
        assert_eq!(self.0.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "\"{word}\" is not in: {said}");
        }
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.stdout).unwrap()
    }
}

/// One bright disc, at a place of its own.
fn picture(path: &Path, number: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    disc(number).save(path).unwrap();
}

fn disc(number: u32) -> GrayImage {
    let (cx, cy) = (16 + number * 7 % 32, 16 + number * 11 % 32);
    GrayImage::from_fn(64, 64, |x, y| {
        let far = x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2);
        Luma([if far <= 64 { 220 } else { 20 }])
    })
}

/// A stack of such pictures.
fn stack(path: &Path, pages: u32) {
    grey_tiff(path, &(0..pages).map(disc).collect::<Vec<_>>());
}

fn grey_tiff(path: &Path, pages: &[GrayImage]) {
    let mut file = fs::File::create(path).unwrap();
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    for page in pages {
        encoder.write_image::<tiff::encoder::colortype::Gray8>(64, 64, page.as_raw()).unwrap();
    }
}

#[test]
fn hand_drawn_labels_of_the_training_layout_stay() {
    let lab = Lab::with(&["mine/images/a.png", "mine/images/b.png"]);
    lab.put("mine/labels/a.png", b"drawn by hand");
    let ran = lab.segment(&["mine/images", "--out", "mine"]);
    ran.says(&["mine/labels/a.png was not made by `reticle segment`", "give another --out"]);
    // Nor does it help to insist.
    lab.segment(&["mine/images", "--out", "mine", "--force"]).says(&["mine/labels/a.png"]);
    assert_eq!(lab.read("mine/labels/a.png"), b"drawn by hand");
    assert_eq!(lab.list("mine"), ["images", "labels"], "nothing was written");
    // Of another name or ending they would be mixed with what is made.
    for other in ["mine/labels/a.tif", "mine/labels/z.png", "mine/labels/notes.txt"] {
        fs::remove_dir_all(lab.at("mine/labels")).unwrap();
        lab.put(other, b"drawn by hand");
        lab.segment(&["mine/images", "--out", "mine"]).says(&[other]);
        assert_eq!(lab.list("mine/labels").len(), 1);
    }
}

#[test]
fn files_of_others_in_the_place_of_the_tables_stay() {
    for name in ["objects.csv", "objects.parquet", "objects.csv.tmp", "objects.parquet.tmp"] {
        let lab = Lab::with(&["in/a.png"]);
        lab.put(&format!("out/{name}"), b"mine");
        lab.segment(&["in", "--out", "out"]).says(&[name, "was not made by this program"]);
        assert_eq!(lab.read(&format!("out/{name}")), b"mine");
        assert_eq!(lab.list("out"), [name]);
    }
}

#[test]
fn images_that_lie_where_the_results_go_stay() {
    let lab = Lab::with(&["out/labels/a.png", "out/labels/b.png"]);
    let before = lab.read("out/labels/a.png");
    lab.segment(&["out/labels", "--out", "out"]).says(&["out/labels/a.png", "another --out"]);
    assert_eq!(lab.read("out/labels/a.png"), before);
    // By another way to them: a link to the folder, a hard link to the file.
    symlink(lab.at("out/labels"), lab.at("link")).unwrap();
    fs::hard_link(lab.at("out/labels/a.png"), lab.at("hard.png")).unwrap();
    lab.segment(&["link/a.png", "--out", "out"]).says(&["out/labels/a.png"]);
    lab.segment(&["hard.png", "--out", "out"]).says(&["out/labels/a.png"]);
    // What an earlier run made is not removed while it is read.
    let lab = Lab::with(&["in/a.png"]);
    lab.segment(&["in", "--out", "out"]).is_fine();
    let labels = lab.read("out/labels/a.png");
    lab.segment(&["out/labels", "--out", "out"]).says(&["out/labels/a.png is to be segmented"]);
    assert_eq!(lab.read("out/labels/a.png"), labels);
}

#[test]
fn hand_drawn_labels_behind_a_link_stay() {
    let lab = Lab::with(&["in/a.png"]);
    lab.put("drawn/a.png", b"drawn by hand");
    fs::create_dir(lab.at("out")).unwrap();
    symlink(lab.at("drawn"), lab.at("out/labels")).unwrap();
    lab.segment(&["in", "--out", "out"]).says(&["out/labels/a.png"]);
    fs::remove_file(lab.at("out/labels")).unwrap();
    fs::create_dir(lab.at("out/labels")).unwrap();
    symlink(lab.at("drawn/a.png"), lab.at("out/labels/a.png")).unwrap();
    lab.segment(&["in", "--out", "out"]).says(&["out/labels/a.png"]);
    assert_eq!(lab.read("drawn/a.png"), b"drawn by hand");
}

#[test]
fn a_run_again_replaces_its_own_results_and_no_corrected_label_image() {
    let lab = Lab::with(&["in/a.png", "in/b.png"]);
    lab.segment(&["in", "--out", "out"]).is_fine();
    let first = (lab.read("out/labels/a.png"), lab.read("out/objects.csv"));
    lab.segment(&["in", "--out", "out"]).is_fine();
    assert_eq!((lab.read("out/labels/a.png"), lab.read("out/objects.csv")), first);
    lab.put("out/labels/b.png", b"corrected by hand");
    for force in [&[][..], &["--force"]] {
        let ran = lab.segment(&[&["in", "--out", "out"], force].concat());
        ran.says(&["out/labels/b.png was changed since this program made it"]);
    }
    assert_eq!(lab.read("out/labels/b.png"), b"corrected by hand");
    assert_eq!(lab.read("out/labels/a.png"), first.0, "the others are still there");
    // Moved away, it is out of the way.
    fs::rename(lab.at("out/labels/b.png"), lab.at("corrected.png")).unwrap();
    lab.segment(&["in", "--out", "out"]).is_fine();
    assert_eq!(lab.list("out/labels"), ["a.png", "b.png"]);
}

#[test]
fn results_of_two_runs_are_not_mixed() {
    let lab = Lab::with(&["day1/a.png", "day1/b.png", "day2/c.png", "day2/a.png"]);
    lab.segment(&["day1", "--out", "out"]).is_fine();
    let ran = lab.segment(&["day2", "--out", "out"]);
    ran.says(&["results of an earlier run", "labels/b.png", "--force"]);
    assert_eq!(lab.list("out/labels"), ["a.png", "b.png"], "those of the first day are there");
    lab.segment(&["day2", "--out", "out", "--force"]).is_fine();
    assert_eq!(lab.list("out/labels"), ["a.png", "c.png"]);
    assert!(!String::from_utf8(lab.read("out/objects.csv")).unwrap().contains("b.png"));
    // Pages that a stack has no more, and an image that is not read any more, leave nothing.
    let lab = Lab::with(&["in/a.png", "in/c.png"]);
    stack(&lab.at("in/s.tif"), 3);
    lab.segment(&["in", "--out", "out"]).is_fine();
    assert_eq!(lab.list("out/labels").len(), 5);
    stack(&lab.at("in/s.tif"), 2);
    lab.put("in/c.png", b"no image any more");
    lab.segment(&["in", "--out", "out"]).says(&["c.png"]);
    assert_eq!(lab.list("out/labels"), ["a.png", "s-page0000.png", "s-page0001.png"]);
}

#[test]
fn a_run_that_was_killed_does_not_stand_in_the_way_of_the_next() {
    let names: Vec<String> = (0..24).map(|number| format!("in/{number}.png")).collect();
    let lab = Lab::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = reticle();
    command.current_dir(lab.0.path()).args(["segment", "in", "--out", "out", "--jobs", "1"]);
    let mut child = command.spawn().unwrap();
    wait_for("the first images to be done", || {
        (lab.rows("out/images.csv").len() > 2).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lab.done_in_tables() > 2, "what was done is in the tables");
    lab.segment(&["in", "--out", "out"]).is_fine();
    assert_eq!(lab.list("out/labels").len(), 24);
    assert_eq!(lab.list("out"), ["images.csv", "labels", "objects.csv", "objects.parquet"]);
}

#[test]
fn a_run_that_is_interrupted_ends_with_whole_tables_of_what_was_done() {
    let names: Vec<String> = (0..60).map(|number| format!("in/{number}.png")).collect();
    let lab = Lab::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = reticle();
    command.current_dir(lab.0.path()).args(["segment", "in", "--out", "out", "--jobs", "2"]);
    let mut child = command.spawn().unwrap();
    wait_for("the first images to be done", || {
        (lab.rows("out/images.csv").len() > 2).then_some(())
    });
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(2), "a shell sees that it was interrupted");
    let done = lab.done_in_tables();
    assert!((3..60).contains(&done), "{done} were done");
    assert!(lab.at("out/objects.parquet").exists());
    lab.segment(&["in", "--out", "out"]).is_fine();
    assert_eq!(lab.done_in_tables(), 60);
}

#[test]
fn each_label_image_is_that_of_its_own_image() {
    let lab = Lab::with(&["in/a-page0000.png", "in/a-page0007.png", "in/b.png", "in/B.png"]);
    stack(&lab.at("in/a.tif"), 2);
    let ran = lab.segment(&["in", "--out", "out"]);
    ran.says(&["a-page0000.png is passed over", "replace that of page 0 of in/a.tif"]);
    let expected =
        ["B.png", "a-page0000.png", "a-page0001.png", "a-page0007.png", "b.png"].map(str::to_owned);
    assert_eq!(lab.list("out/labels"), expected);
    let done = ran.json();
    let of = |image: &str| {
        let images = done["images"].as_array().unwrap();
        images.iter().filter(|entry| entry["image"] == image).count()
    };
    assert_eq!((of("a.tif"), of("a-page0000.png"), of("a-page0007.png")), (2, 0, 1));
    // That of page 0 is what the page alone gives.
    stack(&lab.at("page.tif"), 1);
    lab.segment(&["page.tif", "--out", "alone"]).is_fine();
    assert_eq!(lab.read("alone/labels/page.png"), lab.read("out/labels/a-page0000.png"));
}

#[test]
fn any_name_that_a_file_may_have_gets_a_label_image_of_its_own() {
    let names: [&[u8]; 8] = [
        b"l_\xe8.png",
        b"l_\xe9.png",
        b"two\nlines.png",
        b"\x1b[31mred.png",
        b"...png",
        b" .png",
        "e\u{301}.png".as_bytes(),
        "\u{e9}.png".as_bytes(),
    ];
    let lab = Lab::with(&[]);
    fs::create_dir(lab.at("in")).unwrap();
    let long = [&[b'x'; 251][..], b".png"].concat();
    for (number, name) in (0..).zip(names.into_iter().chain([&*long])) {
        disc(number).save(lab.at("in").join(OsStr::from_bytes(name))).unwrap();
    }
    // Hidden files are left out of folders, and taken where they are named.
    let ran = lab.segment(&["in", "in/...png", "--out", "out"]);
    ran.is_fine();
    let labels = fs::read_dir(lab.at("out/labels")).unwrap().count();
    assert_eq!(labels, 9, "{:?}", lab.list("out/labels"));
    for name in ["l_%E8.png", "l_%E9.png", "two%0Alines.png", "%1B[31mred.png", "e\u{301}.png"] {
        assert!(lab.at("out/labels").join(name).is_file(), "{name}");
    }
    let images: std::collections::HashSet<String> = ran.json()["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(images.len(), 9, "tables tell them apart: {images:?}");
}

#[test]
fn one_path_of_several_that_is_missing_is_named_and_the_others_are_done() {
    let lab = Lab::with(&["a.png", "more/b.png"]);
    let ran = lab.segment(&["a.png", "missing.tif", "gone/", "more", "--out", "out"]);
    ran.says(&["missing.tif cannot be read", "gone/ cannot be read"]);
    assert_eq!(lab.list("out/labels"), ["a.png", "b.png"]);
    assert_eq!(ran.json()["failed"].as_array().unwrap().len(), 2);
    // Where none is there, nothing is made.
    lab.segment(&["missing.tif", "--out", "none"]).says(&["no image found"]);
    assert!(!lab.at("none").exists());
}

#[test]
fn what_a_folder_holds_beside_images_is_named_with_what_to_do() {
    let lab = Lab::with(&["deep/day1/a.png", "deep/day2/a.png", "some/a.png", "some/day2/b.png"]);
    lab.put("czi/a.czi", b"ZISRAWFILE");
    lab.put("czi/b.nd2", b"\xda\xce\xbe\x0a");
    lab.put("some/c.lif", b"x");
    lab.put("some/p.ome.zarr/zarr.json", b"{}");
    lab.put("some/d.lsm", b"II*\0");
    fs::create_dir(lab.at("empty")).unwrap();
    lab.segment(&["czi", "--out", "out"]).says(&[
        "1 Zeiss CZI file is left out (a.czi): export each channel as OME-TIFF in ZEN",
        "1 Nikon ND2 file is left out (b.nd2)",
        "no image found in czi",
    ]);
    lab.segment(&["deep", "--out", "out"]).says(&[
        "2 sub-folders are not looked into (day1, day2): name the folders themselves",
        "no image found in deep",
    ]);
    lab.segment(&["empty", "--out", "out"]).says(&["no image found in empty"]);
    lab.segment(&["some/p.ome.zarr", "--out", "out"]).says(&["is an OME-Zarr or Zarr folder"]);
    // Beside images it is said, and is no failure.
    let ran = lab.segment(&["some", "--out", "out"]);
    ran.is_fine();
    for said in ["Leica LIF", "Zarr folder", "d.lsm", "sub-folder is not looked into (day2)"] {
        assert!(ran.said().contains(said), "{said}: {}", ran.said());
    }
    assert_eq!(ran.json()["left_out"].as_array().unwrap().len(), 4);
    // The folder of results itself, and companions of images, are not worth a word.
    let lab = Lab::with(&["in/a.png"]);
    lab.put("in/notes.txt", b"words");
    for _ in 0..2 {
        let ran = lab.segment(&["in", "--out", "in/out"]);
        assert_eq!(ran.is_fine().said(), "");
    }
}

#[test]
fn a_limit_that_is_no_number_of_megapixels_is_wrong_usage() {
    let lab = Lab::with(&["a.png"]);
    for wrong in ["nan", "inf", "-1", "0", "1e99", "many", ""] {
        let ran = lab.segment(&["a.png", "--out", "out", "--max-megapixels", wrong]);
        assert_eq!(ran.0.status.code(), Some(2), "{wrong}: {}", ran.said());
    }
    lab.segment(&["a.png", "--out", "out", "--max-megapixels", "0.1"]).is_fine();
}

#[test]
fn a_mask_a_stack_and_floating_point_labels_as_truth_are_said_to_be_what_they_are() {
    let lab = Lab::with(&[]);
    let two = |first: u16, second: u16| {
        ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(64, 64, |x, y| {
            let label = if x < 32 { first } else { second };
            Luma([if x % 32 < 12 && y < 40 { label } else { 0 }])
        })
    };
    fs::create_dir_all(lab.at("pred")).unwrap();
    two(1, 2).save(lab.at("pred/a.png")).unwrap();
    let truth = |name: &str| {
        fs::remove_dir_all(lab.at("truth")).ok();
        fs::create_dir_all(lab.at("truth")).unwrap();
        lab.at("truth").join(name)
    };
    let eval = || lab.run(&["eval", "--truth", "truth", "--pred", "pred"]);
    two(1, 2).save(truth("a.png")).unwrap();
    eval().is_fine();
    for label in [1, 255, 65_535] {
        two(label, label).save(truth("a.png")).unwrap();
        let words = ["is a binary mask", "2 pieces", "skimage.measure.label"];
        eval().says(&words);
    }
    let mask =
        GrayImage::from_fn(64, 64, |x, y| Luma([if x % 20 < 9 && y < 40 { 255 } else { 0 }]));
    grey_tiff(&truth("a.tif"), &[mask]);
    eval().says(&["is a binary mask", "Count Masks"]);
    stack(&truth("a.tif"), 2);
    eval().says(&["has 2 pages, and a label image is one page"]);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/float32.tif");
    fs::copy(golden, truth("a.tif")).unwrap();
    eval().says(&["floating-point", "labels are whole numbers", "without scaling"]);
    // Of two of one name one would be taken without a word.
    two(1, 2).save(truth("a.png")).unwrap();
    stack(&lab.at("truth/a.tif"), 1);
    eval().says(&["truth/a.tif: ", "has the same name"]);
    // So it is before a training.
    picture(&lab.at("data/images/a.png"), 1);
    picture(&lab.at("data/images/b.png"), 2);
    for name in ["data/labels/a.png", "data/labels/b.png"] {
        fs::create_dir_all(lab.at("data/labels")).unwrap();
        two(255, 255).save(lab.at(name)).unwrap();
    }
    let train = || lab.run(&["train", "data", "--out", "model", "--steps", "1"]);
    train().says(&["data/labels/a.png is a binary mask"]);
    stack(&lab.at("data/images/a.png"), 2);
    train().says(&["data/images/a.png has 2 pages"]);
}

#[test]
fn a_training_writes_over_no_file_of_the_folder_that_it_is_given() {
    for name in ["README.md", "model.toml", "golden.png", "checkpoint.bin"] {
        let lab = Lab::with(&["mine/images/a.png"]);
        lab.put(&format!("mine/{name}"), b"mine");
        lab.run(&["train", "mine", "--out", "mine"]).says(&[name, "was not made by this program"]);
        assert_eq!(lab.read(&format!("mine/{name}")), b"mine");
    }
}

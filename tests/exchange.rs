//! What `reticle export` writes is read by the programs that people read it with
//! (`tests/readers`), and what `reticle import` reads becomes the identical result.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use reticle_base::clock::Clock;
use reticle_base::ids::{FrameId, SessionId};
use reticle_base::queue::{self, WhenFull};
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::{Look, ScaleFrom, Unlike};
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_segment::measure;
use reticle_store::{FrameRetention, Job, Options, Reader, Store};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod common;

use common::reticle;

/// Forms with one label image a frame, all of which are read back.
const LABEL_FORMATS: [&str; 5] = ["ome-zarr", "ome-tiff", "label-tiff", "coco", "geojson"];

/// A frame and what the model `nuclei` found in it; the last has no result.
struct Taken {
    frame: Arc<Frame>,
    labels: Option<Arc<LabelImage>>,
}

/// A store with one session: three frames of 60 × 40 with 16 bits, then two of 33 × 21 with 8.
struct Recorded {
    folder: tempfile::TempDir,
    session: SessionId,
    taken: Vec<Taken>,
}

impl Recorded {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let session = Session {
            id: SessionId::new(),
            name: "plate 7".into(),
            source: "folder:drop".into(),
            channel: Some("DAPI".into()),
            operator: None,
            pixel_size_um: Some(0.65),
            started: clock.now(),
        };
        let taken: Vec<Taken> = (0..5).map(|number| take(&clock, number)).collect();
        let mut jobs = vec![Job::Open(session.clone())];
        for Taken { frame, labels } in &taken {
            jobs.push(Job::Keep { session: session.id, frame: Arc::clone(frame) });
            if let Some(labels) = labels {
                let found = segmentation("nuclei", frame, labels);
                jobs.push(Job::Commit { session: session.id, segmentation: found });
            }
        }
        let other = segmentation("cells", &taken[0].frame, &empty(&taken[0].frame));
        jobs.push(Job::Commit { session: session.id, segmentation: other });
        jobs.push(Job::Close { session: session.id, at: clock.now() });

        let frames = FrameRetention { min_free_bytes: 0, ..FrameRetention::default() };
        let options = Options { folder: folder.path().to_owned(), max_bytes: 0, frames };
        let (store, _recovery) = Store::open(&options, clock).unwrap();
        let (sender, receiver) = queue::bounded("jobs", 64, WhenFull::Wait);
        let writer = store
            .spawn_writer(receiver, |outcome| {
                let outcome = format!("{outcome:?}");
                assert!(!outcome.starts_with("Failed"), "{outcome}");
            })
            .unwrap();
        for job in jobs {
            assert!(matches!(sender.send(job), queue::Sent::Queued));
        }
        drop(sender);
        writer.join().unwrap();
        Self { folder, session: session.id, taken }
    }

    fn run(&self, verb: &str, args: &[&str]) -> Output {
        let mut command = reticle();
        command.arg(verb).args(args).args(["--session", "latest", "--json", "--data"]);
        command.arg(self.folder.path()).output().unwrap()
    }

    fn export(&self, format: &str, out: &Path, more: &[&str]) -> Value {
        let out = out.to_str().unwrap();
        let output = self.run("export", &[&["--format", format, "--out", out], more].concat());
        assert!(output.status.success(), "{format}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Results of the model of this name, by frame.
    fn results(&self, name: &str) -> Vec<(FrameId, LabelImage, u32)> {
        let reader = Reader::open(self.folder.path()).unwrap();
        let models = reader.models_of(self.session).unwrap();
        let model = models.iter().find(|model| model.model.name == name).unwrap();
        let mut results = Vec::new();
        for series in reader.series(self.session).unwrap() {
            for result in reader.results_of(&series, model, 0..series.frames).unwrap() {
                let labels = reader.labels_of(&result).unwrap();
                let area = reader.objects_of(&result).unwrap().iter().map(|o| o.area).sum();
                results.push((result.frame.id, labels, area));
            }
        }
        results
    }

    fn labelled(&self) -> impl Iterator<Item = (FrameId, &LabelImage)> {
        self.taken
            .iter()
            .filter_map(|Taken { frame, labels }| Some((frame.id, &**labels.as_ref()?)))
    }
}

fn take(clock: &Clock, number: u32) -> Taken {
    let (width, height) = if number < 3 { (60, 40) } else { (33, 21) };
    let values = (0..width * height).map(|at| at * 7 + number * 13);
    let pixels = if number < 3 {
        Pixels::U16(values.map(|value| (value % 4096) as u16).collect())
    } else {
        Pixels::U8(values.map(|value| value as u8).collect())
    };
    let shot = Shot {
        sequence: number.into(),
        captured: clock.now(),
        exposure_us: Some(10_000),
        width,
        height,
        bit_depth: if number < 3 { 12 } else { 8 },
        pixels,
        pixel_size_um: Some(0.65),
        pixel_size_source: Some(PixelSizeSource::OmeXml),
        pixel_size_note: None,
        place: Place { plate: Some("P 1".into()), well: Some("C07".into()), field: Some(number) },
        origin: Some(format!("drop/t{number}.tif")),
        truth: None,
    };
    let frame = Arc::new(shot.into_frame().unwrap());
    let labels = match number {
        4 => None,
        1 => Some(empty(&frame)),
        _ => Some(Arc::new(cells(width, height, number))),
    };
    Taken { frame, labels }
}

fn empty(frame: &Frame) -> Arc<LabelImage> {
    Arc::new(LabelImage::empty(frame.width, frame.height))
}

/// Objects that touch, one with a hole, one whose pixels meet at corners only, one at the edge.
fn cells(width: u32, height: u32, shift: u32) -> LabelImage {
    let label = |x: u32, y: u32| match (x, y) {
        (x, y) if (x, y) == (width - 1, height - 1) => 4,
        (x, y) if (14..20).contains(&y) && x + 12 == y + 20 + shift => 3,
        (7..=8, 6..=7) => 0,
        (4..=11, 3..=11) => 1,
        (12..=20, 3..=11) => 2,
        _ => 0,
    };
    let labels = (0..height).flat_map(|y| (0..width).map(move |x| label(x, y))).collect();
    LabelImage::new(width, height, labels).unwrap().relabelled()
}

fn segmentation(name: &str, frame: &Arc<Frame>, labels: &Arc<LabelImage>) -> Segmentation {
    let model = ModelRef {
        name: name.into(),
        sha256: "ab".repeat(32),
        parameters: "{}".into(),
        software: "reticle test".into(),
    };
    Segmentation {
        frame: Arc::clone(frame),
        model: Arc::new(model),
        labels: Arc::clone(labels),
        objects: Arc::new(measure::objects(labels, &frame.pixels)),
        focus: 0.5,
        look: match name {
            "nuclei" => Look {
                scale_from: ScaleFrom::Stated,
                scale: 0.5,
                size_ratio: Some(2.5),
                unlike: Some(Unlike::DarkOnBright),
            },
            _ => Look::PLAIN,
        },
        timings: Timings::default(),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// As `tests/readers/read.py` tells label images.
fn digest(labels: &LabelImage) -> String {
    let bytes: Vec<u8> = labels.labels().iter().flat_map(|label| label.to_le_bytes()).collect();
    hex::encode(Sha256::digest(bytes))
}

/// A Python with the packages that `scripts/setup test` installs.
fn readers(script: &str) -> Command {
    let python = std::env::var_os("RETICLE_READERS_PYTHON").unwrap_or_else(|| "python3".into());
    let check = "import duckdb, ome_types, ome_zarr, ome_zarr_models, pyarrow, pycocotools, zarr";
    let found = Command::new(&python).args(["-c", check]).output();
    let is_fit = found.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        is_fit,
        "{} cannot read what is exported: run `scripts/setup test` and `make test`, or name a \
         Python with the packages of the group `readers` of scripts/tools.txt in \
         RETICLE_READERS_PYTHON: {}",
        python.display(),
        found.map_or_else(|error| error.to_string(), |output| said(&output)),
    );
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers").join(script));
    command
}

#[test]
fn other_programs_read_every_pixel_label_and_number_that_is_exported() {
    let recorded = Recorded::new();
    let out = tempfile::tempdir().unwrap();
    let all = ["ome-zarr", "ome-tiff", "label-tiff", "coco", "geojson", "csv", "parquet"];
    for format in all {
        let more: &[&str] = match format {
            "ome-zarr" | "csv" | "parquet" => &[],
            _ => &["--model", "nuclei"],
        };
        recorded.export(format, &out.path().join(format), more);
    }
    let output = readers("read.py").arg(out.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();

    let nuclei = ["series-0.ome.zarr", "series-1.ome.zarr"].map(|name| {
        let series = &found["ome_zarr"][name];
        assert_eq!(series["name"], "plate 7");
        assert_eq!(series["scale"], serde_json::json!([1.0, 0.65, 0.65]));
        assert_eq!(series["labels"].as_object().unwrap().len(), 2, "two models");
        let mut labels = series["labels"].as_object().unwrap().iter();
        labels.find(|(key, _)| key.starts_with("nuclei-")).unwrap().1
    });
    assert_eq!(found["ome_zarr"]["series-0.ome.zarr"]["dtype"], "uint16");
    assert_eq!(found["ome_zarr"]["series-1.ome.zarr"]["shape"], serde_json::json!([2, 21, 33]));
    for (number, Taken { frame, labels }) in recorded.taken.iter().enumerate() {
        let (series, position) = if number < 3 { (0, number) } else { (1, number - 3) };
        let pixels = hex::encode(frame.sha256);
        let image = &found["ome_zarr"][format!("series-{series}.ome.zarr")];
        assert_eq!(image["pixels"][position], pixels.as_str());
        assert_eq!(found["ome_tiff"][format!("{}.ome.tif", frame.id)]["digest"], pixels.as_str());
        // Without a result the array is background, and there is no file.
        let expected = labels.as_ref().map(|labels| Value::from(digest(labels)));
        let or_empty = expected.clone().unwrap_or_else(|| digest(&empty(frame)).into());
        assert_eq!(nuclei[series][position], or_empty);
        let expected = expected.unwrap_or(Value::Null);
        let tiff = &found["ome_tiff"][format!("{}_labels.ome.tif", frame.id)];
        assert_eq!(tiff["digest"], expected);
        assert_eq!(found["label_tiff"][format!("{}.tif", frame.id)], expected);
        assert_eq!(found["coco"][format!("{}.ome.tif", frame.id)], expected);
        assert_eq!(found["geojson"][format!("{}.geojson", frame.id)], expected);
        if labels.is_some() {
            assert_eq!(tiff["declared"], "uint16");
            assert_eq!((&tiff["pixel_size_um"], &tiff["unit"]), (&0.65.into(), &"µm".into()));
        }
    }

    let tables = &found["tables"];
    assert_eq!(tables["captured_type"], "timestamp[ns, tz=UTC]");
    assert_eq!(tables["csv_rows"]["frames"], 5);
    for (number, Taken { frame, labels }) in recorded.taken.iter().enumerate() {
        assert_eq!(tables["captured_ns"][number], frame.captured.wall_ns);
        assert_eq!(tables["sha256"][number], hex::encode(frame.sha256));
        let objects = labels.as_ref().map_or(0, |labels| labels.count());
        let area = labels
            .as_ref()
            .map_or(0, |labels| labels.labels().iter().filter(|label| **label != 0).count());
        let expected = serde_json::json!([frame.id, objects, area]);
        assert_eq!(tables["joined"][number], expected);
    }
    let objects: u32 = recorded.labelled().map(|(_, labels)| labels.count()).sum();
    assert_eq!(tables["csv_rows"]["objects"], objects);
    let doubted = serde_json::json!(["nuclei", "stated", 0.5, 2.5, "dark-on-bright"]);
    let plain = serde_json::json!(["cells", "model", 1.0, null, null]);
    let looks = tables["looks"].as_array().unwrap();
    assert_eq!(looks.iter().filter(|look| **look == doubted).count(), 4, "{looks:?}");
    assert_eq!(looks.iter().filter(|look| **look == plain).count(), 1, "{looks:?}");
    assert_eq!((looks.len(), &tables["csv_rows"]["results"]), (5, &Value::from(5)));
}

#[test]
fn what_is_exported_and_imported_again_is_the_identical_result() {
    let recorded = Recorded::new();
    let out = tempfile::tempdir().unwrap();
    let before = recorded.results("nuclei");
    assert_eq!(before.len(), 4);
    for format in LABEL_FORMATS {
        let folder = out.path().join(format);
        recorded.export(format, &folder, &["--model", "nuclei"]);
        let name = format!("again-{format}");
        let output = recorded.run("import", &[folder.to_str().unwrap(), "--name", &name]);
        assert!(output.status.success(), "{format}: {}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["imported"], 4, "{format}: {report}");
        assert_eq!(report["without_pixels"], 0, "{format}: {report}");
        assert_eq!(recorded.results(&name), before, "{format}");
    }
    let fsck = reticle().arg("fsck").arg("--data").arg(recorded.folder.path()).output().unwrap();
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
}

#[test]
fn label_images_that_zarr_python_wrote_in_other_ways_are_imported() {
    let recorded = Recorded::new();
    let out = tempfile::tempdir().unwrap();
    recorded.export("ome-zarr", &out.path().join("ours"), &["--model", "nuclei"]);
    let labels = out.path().join("ours/series-0.ome.zarr/labels");
    let key = std::fs::read_dir(&labels)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let others = out.path().join("others");
    std::fs::create_dir(&others).unwrap();
    let output = readers("write.py").arg(key.join("0")).arg(&others).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let mut before = recorded.results("nuclei");
    before.retain(|(_, labels, _)| labels.width() == 60);
    for name in ["bare", "five", "older", "sharded"] {
        let path = others.join(format!("{name}.zarr"));
        let output = recorded.run("import", &[path.to_str().unwrap(), "--name", name]);
        assert!(output.status.success(), "{name}: {}", said(&output));
        let mut after = recorded.results(name);
        // zarr-python leaves out chunks of background: such a frame counts as not labelled.
        after.retain(|(_, labels, _)| labels.count() > 0);
        let with_objects = before.iter().filter(|(_, labels, _)| labels.count() > 0);
        assert!(after.iter().eq(with_objects), "{name}");
    }
}

#[test]
fn what_cannot_be_imported_is_named_and_the_rest_is_imported() {
    let recorded = Recorded::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let labels = cells(60, 40, 0);
    let png = |path: PathBuf, labels: &LabelImage| {
        reticle_imagefile::write_labels(&path, labels).unwrap();
    };
    // By the name of the frame's file, by its id in another name, and four that are wrong.
    png(at("t0.png"), &labels);
    png(at(&format!("mended {}.png", recorded.taken[2].frame.id)), &labels);
    png(at("t1.png"), &LabelImage::empty(3, 3));
    png(at("t9.png"), &labels);
    png(at(&format!("{}.png", recorded.taken[0].frame.id)), &labels);
    std::fs::File::create(at("t3.png")).unwrap();
    let output = recorded.run("import", &[folder.path().to_str().unwrap(), "--name", "mended"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["imported"], 2, "{report}");
    let failed = said(&output);
    for expected in [
        "t1.png: has 3×3 pixels, but its frame has 60×40",
        "t9.png: belongs to no frame of session",
        "has got another label image before it",
        "t3.png: is empty",
    ] {
        assert!(failed.contains(expected), "{expected}: {failed}");
    }
    assert_eq!(report["failed"].as_array().unwrap().len(), 4, "{report}");
    let results = recorded.results("mended");
    assert!(results.iter().all(|(_, found, _)| *found == labels));
}

#[test]
fn a_folder_that_holds_something_is_not_written_into_unless_forced() {
    let recorded = Recorded::new();
    let out = tempfile::tempdir().unwrap();
    recorded.export("csv", out.path(), &[]);
    let before = std::fs::read(out.path().join("objects.csv")).unwrap();
    let path = out.path().to_str().unwrap();
    let refused = recorded.run("export", &["--format", "csv", "--out", path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("holds something"), "{}", said(&refused));
    recorded.export("csv", out.path(), &["--force"]);
    assert_eq!(std::fs::read(out.path().join("objects.csv")).unwrap(), before);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
fn a_forced_export_removes_what_an_earlier_one_made_and_nothing_else() {
    let recorded = Recorded::new();
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    std::fs::write(at("notes.txt"), "mine").unwrap();
    recorded.export("csv", out.path(), &["--force"]);
    // Another form takes the place of the first.
    recorded.export("parquet", out.path(), &["--force"]);
    assert!(at("objects.parquet").exists() && !at("objects.csv").exists());
    // Files of others, and those that were changed, stay.
    let path = out.path().to_str().unwrap();
    let refused = |name: &str| {
        std::fs::write(at(name), "mine").unwrap();
        let ran = recorded.run("export", &["--format", "csv", "--out", path, "--force"]);
        assert_eq!(ran.status.code(), Some(1), "{}", said(&ran));
        assert!(said(&ran).contains(name), "{}", said(&ran));
        assert_eq!(std::fs::read(at(name)).unwrap(), b"mine");
        std::fs::remove_file(at(name)).unwrap();
    };
    refused("objects.parquet");
    refused("frames.csv");
    assert_eq!(std::fs::read(at("notes.txt")).unwrap(), b"mine");
}

#[test]
fn exporting_twice_gives_the_same_bytes() {
    let recorded = Recorded::new();
    for format in ["ome-zarr", "coco", "parquet"] {
        let [one, two] = [(); 2].map(|()| {
            let out = tempfile::tempdir().unwrap();
            recorded.export(format, out.path(), &["--model", "nuclei"]);
            files(out.path())
        });
        assert!(!one.is_empty());
        assert_eq!(one, two, "{format}");
    }
}

#[test]
fn several_models_have_to_be_told_apart_where_there_is_room_for_one() {
    let recorded = Recorded::new();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().to_str().unwrap();
    let refused = recorded.run("export", &["--format", "coco", "--out", path]);
    assert_eq!(refused.status.code(), Some(1));
    let why = said(&refused);
    assert!(why.contains("choose one by --model") && why.contains("cells-"), "{why}");
    let unknown = recorded.run("export", &["--format", "coco", "--out", path, "--model", "x"]);
    assert!(said(&unknown).contains("no model x has results"), "{}", said(&unknown));
}

/// Every file under a folder, by its path in it.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn nothing_of_others_making_hangs_an_import_or_fills_the_memory() {
    let recorded = Recorded::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = |name: &str| {
        rustix::fs::mkfifoat(rustix::fs::CWD, at(name), rustix::fs::Mode::RUSR).unwrap();
    };
    // Under a watchdog: what does not end is killed, and has no exit code.
    let refusal = |path: &Path| {
        let mut command = reticle();
        command.args(["import", "--session", "latest", "--data"]).arg(recorded.folder.path());
        command.arg(path);
        let mut command = assert_cmd::Command::from_std(command);
        let output = command.timeout(common::PATIENCE).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}: {}", path.display(), said(&output));
        said(&output)
    };
    for name in ["t0.png", "t0.json", "t0.geojson"] {
        pipe(name);
        assert!(refusal(&at(name)).contains("is no regular file"), "{name}");
        std::fs::remove_file(at(name)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at(name)).unwrap();
        assert!(refusal(&at(name)).contains("is no regular file"), "{name}");
        std::fs::remove_file(at(name)).unwrap();
        std::fs::File::create(at(name)).unwrap().set_len(1 << 40).unwrap();
        assert!(refusal(&at(name)).contains("are the most that are read"), "{name}");
        std::fs::remove_file(at(name)).unwrap();
    }
    assert!(refusal(Path::new("/dev/zero")).contains("is no regular file"));

    let write = |name: &str, text: String| {
        reticle_base::durable::create_dir(at(name).parent().unwrap()).unwrap();
        reticle_base::durable::write(&at(name), text.as_bytes()).unwrap();
    };
    write(
        "series-0.ome.zarr/zarr.json",
        serde_json::json!({
            "zarr_format": 3, "node_type": "array", "data_type": "uint8", "fill_value": 0,
            "shape": [1_u64 << 40, 40, 60],
            "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": [1, 40, 60] } },
            "chunk_key_encoding": { "name": "default" },
            "codecs": [{ "name": "bytes" }],
        })
        .to_string(),
    );
    let why = refusal(&at("series-0.ome.zarr"));
    assert!(why.contains("has 1099511627776 positions, and the session has 5 frames"), "{why}");

    // Ten thousand objects, each of which covers the largest frame that there is; and a million
    // images of that size which belong to no frame.
    let frame = recorded.taken[0].frame.id;
    let mask = "{\"image_id\":1,\"segmentation\":{\"size\":[40,60],\"counts\":[0,2400]}}";
    let masks = vec![mask; 100_000].join(",");
    write(
        "masks.json",
        format!(
            "{{\"images\":[{{\"id\":1,\"width\":60,\"height\":40,\"frame\":\"{frame}\"}}],\
             \"annotations\":[{masks}]}}"
        ),
    );
    assert!(refusal(&at("masks.json")).contains("cover the frame more than 16 times"));
    let image = "{\"id\":1,\"width\":8192,\"height\":8192}";
    let images = vec![image; 10_000].join(",");
    write("images.json", format!("{{\"images\":[{images}],\"annotations\":[]}}"));
    assert!(refusal(&at("images.json")).contains("belongs to no frame"));

    for corner in ["[1e300, 0]", "[1e400, 0]", "[-1e9, 0]"] {
        let ring = format!("[[{corner}, [9, 0], [9, 9], {corner}]]");
        write(
            "t0.geojson",
            format!(
                "{{\"type\":\"Feature\",\"properties\":{{}},\"geometry\":{{\"type\":\"Polygon\",\
                 \"coordinates\":{ring}}}}}"
            ),
        );
        let why = refusal(&at("t0.geojson"));
        assert!(why.contains("has a corner at") || why.contains("out of range"), "{why}");
    }
    // And the store is as it was.
    let reader = Reader::open(recorded.folder.path()).unwrap();
    assert_eq!(reader.models_of(recorded.session).unwrap().len(), 2);
}

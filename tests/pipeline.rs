//! The whole way, on real images where there are some.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::Path;

use serde_json::Value;

mod common;

use common::{Daemon, PATIENCE, Start, data_dir, free_port, reticle, wait_at_most, wait_for};

fn json_of(command: &mut std::process::Command) -> Value {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn segment(images: &Path, out: &Path, jobs: &str) -> Value {
    json_of(
        reticle().arg("segment").arg(images).arg("--out").arg(out).args(["--jobs", jobs, "--json"]),
    )
}

#[test]
fn unseen_real_images_are_segmented_as_well_as_promised() {
    let Some(data) = data_dir() else { return };
    let out = tempfile::tempdir().unwrap();
    let done = segment(&data.join("test/images"), out.path(), "2");
    assert_eq!(done["images"].as_array().unwrap().len(), 50);
    let result = json_of(
        reticle()
            .args(["eval", "--json", "--truth"])
            .arg(data.join("test/labels"))
            .arg("--pred")
            .arg(out.path()),
    );
    let ap50 = result["pooled"]["at"][0]["ap"].as_f64().unwrap();
    eprintln!("pooled AP at IoU 0.5: {ap50:.4}");
    assert!(ap50 >= 0.78, "pooled AP at IoU 0.5 is {ap50}");
}

#[test]
fn a_bench_of_images_does_the_work_that_segmenting_them_does() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nuclei/golden.png");
    let out = tempfile::tempdir().unwrap();
    let segmented = segment(&image, out.path(), "1");
    let bench = json_of(
        reticle().args(["bench", "--json", "--frames", "2", "--images"]).args([&image, &image]),
    );
    let rows = bench["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["image"], "golden.png");
        assert_eq!(row["objects"], segmented["images"][0]["objects"]);
        for time in ["wall_ms", "cpu_ms", "decode_cpu_ms", "network_cpu_ms"] {
            assert!(row[time].as_f64().unwrap() > 0.0, "{time}: {row}");
        }
    }
}

#[test]
fn a_bench_of_drawn_frames_has_a_row_for_each_size_number_of_objects_and_threads() {
    let arguments = "bench --json --frames 1 --sizes 320,256 --objects 40,10 --threads 1,2";
    let bench = json_of(reticle().args(arguments.split(' ')));
    let rows = bench["rows"].as_array().unwrap();
    let asked: Vec<[u64; 3]> = rows
        .iter()
        .map(|row| ["width", "drawn_objects", "threads"].map(|key| row[key].as_u64().unwrap()))
        .collect();
    let wanted = [256, 320].iter().flat_map(|&size| {
        [10, 40].iter().flat_map(move |&objects| [[size, objects, 1], [size, objects, 2]])
    });
    assert_eq!(asked, wanted.collect::<Vec<_>>());
    for row in rows {
        let [drawn, found] = ["drawn_objects", "objects"].map(|key| row[key].as_f64().unwrap());
        assert!((0.5..1.5).contains(&(found / drawn)), "{row}");
    }
    // Not every machine has sensors, but the keys are there.
    for key in ["temperature", "throttled"] {
        assert!(bench.get(key).is_some(), "{key}: {bench}");
    }
    assert_eq!(bench["threads"], 2);
}

/// So few that the percentiles of the frame know nothing of them.
#[test]
fn a_few_objects_in_a_large_frame_are_found_once_each() {
    let arguments = "bench --json --frames 1 --sizes 2048 --objects 1,8,20";
    let bench = json_of(reticle().args(arguments.split(' ')));
    let rows = bench["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(row["objects"], row["drawn_objects"], "{row}");
    }
}

#[test]
fn a_bench_of_layers_has_every_layer_and_a_whole_that_is_their_sum() {
    let bench = json_of(reticle().args("bench --json --layers 128,64 --frames 5".split(' ')));
    assert!(bench["peak_gflops"].as_f64().unwrap() > 0.1, "{bench}");
    let tiles = bench["tiles"].as_array().unwrap();
    let edges: Vec<_> = tiles.iter().map(|tile| tile["edge"].as_u64().unwrap()).collect();
    assert_eq!(edges, [64, 128]);
    for tile in tiles {
        let layers = tile["layers"].as_array().unwrap();
        let sum: f64 = layers.iter().map(|layer| layer["cpu_ms"].as_f64().unwrap()).sum();
        let whole = tile["cpu_ms"].as_f64().unwrap();
        // Medians of each and the median of sums, on a machine that does other things.
        assert!(layers.len() > 10 && (0.3..3.0).contains(&(sum / whole)), "{tile}");
    }

    let output = reticle().args("bench --frames 1 --layers".split(' ')).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("tile 256×256") && text.contains("GFLOP/s at most"), "{text}");

    let refused = reticle().args("bench --layers 128,100".split(' ')).output().unwrap();
    let words = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), refused.stdout), (Some(1), vec![]), "{words}");
    assert!(words.contains("tiles of 100×100"), "{words}");
}

#[test]
fn a_bench_says_how_warm_the_box_was_or_that_it_does_not_tell() {
    let output =
        reticle().args("bench --sizes 64 --frames 1 --threads 1".split(' ')).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let last = text.lines().last().unwrap();
    let told = ["the box tells no temperature; ", " °C at the start, "];
    assert!(told.iter().any(|words| last.contains(words)), "{text}");
}

#[test]
fn a_bench_refuses_more_objects_than_a_frame_holds_before_it_measures() {
    let output =
        reticle().args("bench --sizes 256,8192 --objects 20000".split(' ')).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("20000 objects do not fit side by side in a frame of 256×256"), "{why}");
}

#[test]
fn the_number_of_jobs_changes_no_byte() {
    let Some(data) = data_dir() else { return };
    let images: Vec<_> = std::fs::read_dir(data.join("val/images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .take(6)
        .collect();
    let outs = ["1", "3"].map(|jobs| {
        let out = tempfile::tempdir().unwrap();
        let mut command = reticle();
        command.arg("segment").args(&images).arg("--out").arg(out.path()).args(["--jobs", jobs]);
        assert!(command.output().unwrap().status.success());
        out
    });
    let [one, three] = outs.each_ref().map(|out| {
        let mut files: Vec<_> = std::fs::read_dir(out.path().join("labels"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.push(out.path().join("objects.csv"));
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(one.len(), 7);
    assert_eq!(one, three);
}

#[test]
fn a_folder_of_images_is_segmented_saved_and_shown_to_its_last_one() {
    let Some(data) = data_dir() else { return };
    let drop = tempfile::tempdir().unwrap();
    let images: Vec<_> = std::fs::read_dir(data.join("val/images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .take(8)
        .collect();
    let daemon = Daemon::start(&format!("folder:{}", drop.path().display()));
    for image in &images {
        std::fs::copy(image, drop.path().join(image.file_name().unwrap())).unwrap();
    }
    let status = wait_for("eight saved frames", || {
        let status = daemon.json("/api/v1/status");
        (status["counters"]["saved"] == 8).then_some(status)
    });
    assert_eq!(status["counters"]["skipped"], 0, "every file is segmented: {status}");
    assert_eq!(status["save"]["state"], "saved");
    let frames = daemon.json("/api/v1/frames?limit=100");
    let frames = frames["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 8);
    assert!(frames.iter().any(|frame| frame["objects"].as_u64().unwrap() > 5));
    let labels =
        daemon.bytes(&format!("/api/v1/frames/{}/labels.png", frames[0]["id"].as_str().unwrap()));
    assert!(labels.starts_with(b"\x89PNG"));
}

#[test]
fn a_paused_daemon_takes_no_frame_and_goes_on_in_the_same_session() {
    let daemon = Daemon::start("virtual");
    let command = |what: &str| {
        ureq::post(daemon.url(&format!("/api/v1/commands/{what}"))).send_empty().unwrap();
    };
    let state = |wanted: &str| {
        wait_for(wanted, || {
            let status = daemon.json("/api/v1/status");
            (status["run"] == wanted).then_some(status)
        })
    };
    let session = state("running")["session"].clone();
    command("pause");
    state("paused");
    command("start");
    let status = state("running");
    assert_eq!(status["session"], session);
    command("stop");
    assert_eq!(state("stopped")["session"], Value::Null);
    command("start");
    assert_ne!(state("running")["session"], session, "a start after a stop is a new session");
}

#[test]
fn a_data_folder_has_one_daemon_and_the_second_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = Start::default().data(folder.path()).start();
    let output = reticle()
        .args(["run", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains(&first.pid().to_string()), "names the other process: {errors}");
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = reticle()
        .args(["run", "--listen", &address, "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(errors.contains(&port) && errors.contains("--listen"), "{errors}");
}

#[test]
fn a_wrong_model_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["model.toml", "model.onnx"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nuclei").join(file);
        std::fs::copy(from, model.join(file)).unwrap();
    }
    let mut bytes = std::fs::read(model.join("model.onnx")).unwrap();
    bytes[5000] ^= 0xff;
    #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
    std::fs::write(model.join("model.onnx"), bytes).unwrap();
    let output = reticle()
        .args(["run", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"))
        .arg("--model")
        .arg(&model)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("model.onnx") && errors.contains("copy the whole package"), "{errors}");
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    // Root may write anywhere but into a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::File::create(&file).unwrap();
    let output = reticle()
        .args(["run", "--listen", "127.0.0.1:0", "--data"])
        .arg(file.join("data"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains(&file.display().to_string()), "{errors}");
}

#[test]
fn a_camera_that_is_not_there_is_said_and_the_daemon_waits_for_it() {
    let daemon = Daemon::start("v4l:/dev/video97");
    let status = wait_for("the camera to be reported lost", || {
        let status = daemon.json("/api/v1/status");
        (status["source"]["state"] == "lost").then_some(status)
    });
    assert!(status["source"]["reason"].as_str().unwrap().contains("/dev/video97"), "{status}");
    assert!(daemon.stop().success());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("reticle.toml");
    std::fs::File::create(&config).unwrap();
    let (reader, log) = std::io::pipe().unwrap();
    drop(reader);
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = reticle();
    command.args(["run", "--listen", &address, "--config"]).arg(&config);
    command.arg("--data").arg(folder.path().join("data")).stderr(log);
    let mut daemon = command.spawn().unwrap();
    let healthz = format!("http://{address}/healthz");
    let answer = wait_at_most(PATIENCE, || ureq::get(&healthz).call().ok());
    let pid = rustix::process::Pid::from_child(&daemon);
    // It has not been waited for, so the number is still its own.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = daemon.wait().unwrap();
    assert!(answer.is_some() && ended.success(), "{ended}");
}

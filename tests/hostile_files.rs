//! Files that somebody planted: model packages that never end, links where the box writes, names
//! that a terminal obeys. Each is refused by name; nothing hangs, nothing else is overwritten, and
//! what the box keeps is for its owner alone.
//!
//! What hung is run under a watchdog: a child that does not end in time is killed, and its exit
//! code is none.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{PATIENCE, Start, reticle, wait_for};
use rustix::fs::{CWD, Mode, mkfifoat};

/// The output of a child that ends in time; panics where it does not.
fn within_patience(command: std::process::Command) -> Output {
    let shown = format!("{command:?}");
    let mut command = assert_cmd::Command::from_std(command);
    let output = command.timeout(PATIENCE).output().unwrap();
    assert!(output.status.code().is_some(), "it did not end by itself: {shown}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn image() -> PathBuf {
    root().join("tests/golden/images/grey8.png")
}

fn pipe(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

/// The files of a built-in model in a folder of their own.
fn package(folder: &Path, model: &str) {
    fs::create_dir_all(folder).unwrap();
    for file in ["model.toml", "model.onnx", "golden.png", "golden-labels.png"] {
        fs::copy(root().join("models").join(model).join(file), folder.join(file)).unwrap();
    }
}

fn replace_in(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn segment(folder: &Path, model: &str) -> Output {
    let mut command = reticle();
    command.current_dir(folder).args(["segment", "--json", "--model", model, "--out", "out"]);
    command.arg(image());
    within_patience(command)
}

/// What is said of a package, and what is done to it before.
type Plant = (&'static str, fn(&Path));

#[test]
fn a_model_package_that_never_ends_or_cannot_be_meant_is_refused_by_name() {
    let plants: [Plant; 7] = [
        ("`network.file` is \"/dev/zero\"", |package| {
            replace_in(&package.join("model.toml"), "\"model.onnx\"", "\"/dev/zero\"");
        }),
        ("`network.file` is \"../package/model.onnx\"", |package| {
            let (from, to) = ("\"model.onnx\"", "\"../package/model.onnx\"");
            replace_in(&package.join("model.toml"), from, to);
        }),
        ("model.onnx: is no regular file", |package| {
            fs::remove_file(package.join("model.onnx")).unwrap();
            pipe(&package.join("model.onnx"));
        }),
        ("model.onnx: is no regular file", |package| {
            fs::remove_file(package.join("model.onnx")).unwrap();
            symlink("/dev/zero", package.join("model.onnx")).unwrap();
        }),
        ("model.toml: is no regular file", |package| {
            fs::remove_file(package.join("model.toml")).unwrap();
            symlink("/dev/zero", package.join("model.toml")).unwrap();
        }),
        ("`postprocessing.smoothing_passes` is 4294967295", |package| {
            let (from, to) = ("smoothing_passes = 2", "smoothing_passes = 4294967295");
            replace_in(&package.join("model.toml"), from, to);
        }),
        ("`postprocessing.foreground_threshold` is NaN", |package| {
            let (from, to) = ("foreground_threshold = 0.55", "foreground_threshold = nan");
            replace_in(&package.join("model.toml"), from, to);
        }),
    ];
    for (expected, plant) in plants {
        let folder = tempfile::tempdir().unwrap();
        package(&folder.path().join("package"), "nuclei");
        plant(&folder.path().join("package"));
        let output = segment(folder.path(), "package");
        assert_eq!(output.status.code(), Some(1), "{expected}");
        assert!(said(&output).contains(expected), "{expected}: {}", said(&output));
    }
}

#[test]
fn a_pipe_as_golden_frame_is_told_and_nobody_waits_for_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("package");
    package(&model, "nuclei");
    fs::remove_file(model.join("golden.png")).unwrap();
    pipe(&model.join("golden.png"));
    let config = folder.path().join("reticle.toml");
    fs::write(&config, format!("[segment]\nmodel = {:?}\n", model.to_str().unwrap())).unwrap();
    let mut command = reticle();
    command.args(["check", "--json", "--config"]).arg(&config).arg("--data");
    command.arg(folder.path().join("data"));
    let report: serde_json::Value =
        serde_json::from_slice(&within_patience(command).stdout).unwrap();
    let items = report["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == "model").unwrap();
    assert_eq!(item["verdict"], "warn", "{item}");
    let found = item["found"].as_str().unwrap();
    assert!(found.contains("golden.png") && found.contains("is no regular file"), "{found}");
    // The daemon starts, too.
    let daemon = Start::default().source("virtual").config(config).start();
    daemon.wait_for_log("the model has no usable golden frame");
}

#[test]
fn a_folder_of_a_built_in_name_does_not_stand_in_for_the_built_in_model() {
    let folder = tempfile::tempdir().unwrap();
    package(&folder.path().join("nuclei"), "phase");
    let name = |model: &str| {
        let output = segment(folder.path(), model);
        assert!(output.status.success(), "{}", said(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["model"].as_str().unwrap().to_owned()
    };
    assert_eq!(name("nuclei"), "nuclei");
    assert_eq!(name("./nuclei"), "phase");
    let mut command = reticle();
    command.current_dir(folder.path()).args(["train", ".", "--out", "nuclei"]);
    let output = within_patience(command);
    assert!(said(&output).contains("is the name of a built-in model; write ./nuclei"));
}

/// Every file and folder below, with its mode.
fn modes(folder: &Path, into: &mut Vec<(PathBuf, u32, bool)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // The daemon is at work: some are gone by now.
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        into.push((entry.path(), meta.permissions().mode() & 0o777, meta.is_dir()));
        if meta.is_dir() {
            modes(&entry.path(), into);
        }
    }
}

#[test]
fn what_the_box_keeps_is_for_its_owner_alone_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Its children inherit it, and a test has a process of its own.
    rustix::process::umask(Mode::empty());
    let config = folder.path().join("reticle.toml");
    fs::write(&config, "[sync.archive]\npixels = \"all\"\nmax_delay_s = 1\n").unwrap();
    let daemon = Start::default().source("virtual").data(&data).config(config).start();
    let archive = data.join("archive");
    wait_for("a frame file and something in the archive", || {
        let mut found = Vec::new();
        modes(&data, &mut found);
        let ends = |end: &str| found.iter().any(|(path, ..)| path.to_string_lossy().ends_with(end));
        let is_archived = found.iter().any(|(path, ..)| path.starts_with(archive.join("sessions")));
        (ends(".tif") && ends("-wal") && is_archived).then_some(())
    });
    let mut found = vec![(data.clone(), fs::metadata(&data).unwrap().permissions().mode(), true)];
    modes(&data, &mut found);
    for name in [
        "reticle.sock",
        "reticle.db",
        "reticle.db-wal",
        "reticle.db-shm",
        "lock",
        "reserve",
        "frames",
    ] {
        assert!(found.iter().any(|(path, ..)| *path == data.join(name)), "{name}: {found:?}");
    }
    // The archive is for others, and follows the umask; nobody gets to it but through the folder.
    for (path, mode, is_folder) in found.iter().filter(|(path, ..)| !path.starts_with(&archive)) {
        let expected = if *is_folder { 0o700 } else { 0o600 };
        assert_eq!(mode & 0o777, expected, "{}: {mode:o}", path.display());
    }
    // What a person takes along follows the umask.
    drop(daemon);
    let out = folder.path().join("out");
    let mut export = reticle();
    export.args(["export", "--session", "latest", "--format", "csv", "--out"]).arg(&out);
    let output = within_patience({
        export.arg("--data").arg(&data);
        export
    });
    assert!(output.status.success(), "{}", said(&output));
    let mode = fs::metadata(out.join("objects.csv")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn a_planted_link_is_never_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let target = folder.path().join("precious");
    fs::write(&target, "precious").unwrap();
    let planted = ["check-trial", "check-trial.tmp", "reserve", "reticle.sock", "reticle.sock.tmp"];
    for name in planted {
        symlink(&target, data.join(name)).unwrap();
    }
    let config = folder.path().join("reticle.toml");
    fs::write(&config, "").unwrap();
    let mut check = reticle();
    check.args(["check", "--json", "--config"]).arg(&config).arg("--data").arg(&data);
    let report: serde_json::Value = serde_json::from_slice(&within_patience(check).stdout).unwrap();
    let items = report["items"].as_array().unwrap();
    let permissions = items.iter().find(|item| item["name"] == "permissions").unwrap();
    assert_eq!(permissions["verdict"], "fail", "{permissions}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");

    let daemon = Start::default().source("virtual").data(&data).config(config).start();
    wait_for("a reserve of the daemon's own", || {
        fs::symlink_metadata(data.join("reserve")).ok().filter(fs::Metadata::is_file)
    });
    for verb in ["drain", "retry"] {
        let mut sync = reticle();
        sync.args(["sync", verb, "--data"]).arg(&data);
        let output = within_patience(sync);
        assert!(output.status.success(), "{verb}: {}", said(&output));
    }
    drop(daemon);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(fs::metadata(&target).unwrap().len(), 8);

    // The lock is what everybody opens: a link there is no lock.
    fs::remove_file(data.join("lock")).unwrap();
    symlink(&target, data.join("lock")).unwrap();
    let mut run = reticle();
    run.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let output = within_patience(run);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("lock"), "{}", said(&output));
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn names_that_a_terminal_obeys_are_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}gnp\nreticle: forged.png";
    fs::write(folder.path().join(name), "no image").unwrap();
    fs::copy(image(), folder.path().join("\u{1b}[31mred.png")).unwrap();
    let mut command = reticle();
    command.arg("segment").arg(folder.path()).arg("--out").arg(folder.path().join("\u{1b}[2Jout"));
    let output = within_patience(command);
    let is_active =
        |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
    for said in [&output.stdout, &output.stderr] {
        let said = std::str::from_utf8(said).unwrap();
        assert!(!said.contains(is_active), "{said:?}");
    }
    let said = said(&output);
    assert!(
        said.contains("a\\u001b]0;owned\\u0007\\u009b2J\\u202egnp\\nreticle: forged.png"),
        "{said}"
    );
    assert!(!said.lines().any(|line| line.starts_with("reticle: forged")), "{said}");
    // Errors that end a verb go the same way.
    let mut command = reticle();
    command.args(["segment", "--out", "x", "no\u{1b}[2Jthing.png"]).current_dir(folder.path());
    let output = within_patience(command);
    assert!(!String::from_utf8_lossy(&output.stderr).contains('\u{1b}'), "{output:?}");
}

#[test]
fn a_configuration_without_end_is_refused() {
    let mut command = reticle();
    command.args(["config", "check", "/dev/zero"]);
    let output = within_patience(command);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("more than 1048576 bytes"), "{}", said(&output));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reticle.toml");
    File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let mut command = reticle();
    command.args(["config", "check"]).arg(&file);
    assert_eq!(within_patience(command).status.code(), Some(1));
}

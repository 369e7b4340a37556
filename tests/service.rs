//! The service as it is installed: staged below a folder, and judged by systemd's own tools.
//! Nothing is started here.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

mod common;

/// The most that `systemd-analyze security` may say, in tenths.
const MOST_EXPOSED: &str = "15";

/// An installed system below a folder, by the script that `make install` and `make dist` use.
fn staged(prefix: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    stage(root.path(), prefix);
    root
}

fn stage(root: &Path, prefix: &str) {
    // Not the program itself, which has a hundred megabytes.
    let program = root.join("program");
    let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_reticle"));
    #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut script = Command::new(repository().join("scripts/stage"));
    let output = script.arg(&program).arg(root).arg(prefix).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A tool of systemd, which `scripts/setup test` installs, on the tree below `root`.
fn tool(name: &str, root: &Path, args: &[&str]) -> Output {
    let root = format!("--root={}", root.display());
    let mut command = Command::new(name);
    command.arg(root).args(args).env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0");
    command
        .output()
        .unwrap_or_else(|error| panic!("{name} is missing ({error}): scripts/setup test"))
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path))
        .unwrap_or_else(|error| panic!("{path} is not installed: {error}"))
}

#[test]
fn the_unit_is_sound_and_its_sandbox_tight() {
    let root = staged("/usr");
    let units = root.path().join("usr/lib/systemd/system");
    // What every unit depends on comes from systemd itself.
    for target in ["sysinit", "basic", "shutdown", "network", "time-set", "multi-user"] {
        std::fs::copy(
            repository().join("tests/service/any.target"),
            units.join(format!("{target}.target")),
        )
        .unwrap();
    }
    let verified = tool("systemd-analyze", root.path(), &["verify", "--man=no", "reticle.service"]);
    assert!(verified.status.success() && said(&verified).is_empty(), "{}", said(&verified));

    let threshold = format!("--threshold={MOST_EXPOSED}");
    let args = ["security", "--offline=true", "--no-pager", &threshold, "reticle.service"];
    let judged = tool("systemd-analyze", root.path(), &args);
    let words = said(&judged);
    let verdict = words.lines().find(|line| line.contains("Overall exposure level"));
    let verdict = verdict.unwrap_or_else(|| panic!("no verdict:\n{words}"));
    eprintln!("{verdict}");
    assert!(judged.status.success(), "{words}");
}

#[test]
fn the_unit_is_watched_and_never_given_up() {
    let root = staged("/usr");
    let unit = read(root.path(), "usr/lib/systemd/system/reticle.service");
    for line in [
        "Type=notify",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "WatchdogSec=30",
        "TimeoutStopSec=3min",
        "User=reticle",
        // A fault here must not take the box with it, on boards of 2 GB and of 8 GB alike.
        "MemoryMax=75%",
        "TasksMax=512",
        "ExecStart=/usr/bin/reticle run --data /var/lib/reticle",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line} is missing in:\n{unit}");
    }
}

#[test]
fn the_daemon_ends_by_itself_before_the_unit_kills_it_and_not_before_a_slow_disk_is_done() {
    let unit_kills = std::time::Duration::from_secs(3 * 60);
    // Threads are joined, the page and the broker take leave: some seconds are enough for it.
    let leave = std::time::Duration::from_secs(15);
    assert!(reticle::app::WRITER_LIMIT + leave <= reticle::app::STOP_WITHIN);
    assert!(reticle::app::STOP_WITHIN + leave <= unit_kills);
}

#[test]
fn under_another_prefix_the_unit_starts_the_program_from_there() {
    let root = staged("/usr/local");
    let unit = read(root.path(), "usr/local/lib/systemd/system/reticle.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/reticle run"), "{unit}");
}

#[test]
fn the_user_and_the_folders_are_made_as_the_unit_wants_them() {
    let root = staged("/usr");
    // systemd-sysusers locks files there, as a system has them.
    for file in ["passwd", "group"] {
        std::fs::File::create(root.path().join("etc").join(file)).unwrap();
    }
    let made = tool("systemd-sysusers", root.path(), &["reticle.conf"]);
    assert!(made.status.success(), "{}", said(&made));
    let (users, groups) = (read(root.path(), "etc/passwd"), read(root.path(), "etc/group"));
    let user = users.lines().find(|line| line.starts_with("reticle:"));
    let user = user.unwrap_or_else(|| panic!("no user in {users:?}"));
    assert!(user.contains(":/var/lib/reticle:") && user.ends_with("nologin"), "{user}");
    let video = groups.lines().find(|line| line.starts_with("video:"));
    assert!(video.is_some_and(|line| line.ends_with(":reticle")), "{groups}");

    let folders = read(root.path(), "usr/lib/tmpfiles.d/reticle.conf");
    let wanted: BTreeSet<&str> = folders
        .lines()
        .filter(|line| line.starts_with('d'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert!(wanted.contains("/var/lib/reticle") && wanted.contains("/etc/reticle"), "{wanted:?}");
    if rustix::process::geteuid().is_root() {
        let created = tool("systemd-tmpfiles", root.path(), &["--create", "reticle.conf"]);
        assert!(created.status.success(), "{}", said(&created));
        for folder in wanted {
            let path = root.path().join(folder.trim_start_matches('/'));
            assert!(path.is_dir(), "{folder} was not made");
        }
    } else {
        eprintln!("skipped: only root can let systemd-tmpfiles make folders for others");
    }
}

#[test]
fn cameras_are_given_to_the_group_that_the_service_is_in() {
    let root = staged("/usr");
    let rules = read(root.path(), "usr/lib/udev/rules.d/60-reticle-camera.rules");
    let rules: Vec<&str> =
        rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(rules.first(), Some(&r#"SUBSYSTEM!="video4linux", GOTO="reticle_camera_end""#));
    assert_eq!(rules.last(), Some(&r#"LABEL="reticle_camera_end""#));
    assert!(rules.iter().any(|rule| rule.starts_with(r#"GROUP="video", MODE="0660""#)));
    // Each part of a rule is KEY OPERATOR "VALUE"; udev passes over a whole line that is not.
    for part in rules.iter().flat_map(|rule| rule.split(", ")) {
        let (key, value) = part.split_once('=').unwrap_or_else(|| panic!("{part:?}"));
        assert!(key.starts_with(|c: char| c.is_ascii_uppercase()), "{part:?}");
        let value = value.trim_start_matches('=');
        let quotes = value.matches('"').count();
        assert!(value.starts_with('"') && value.ends_with('"') && quotes == 2, "{part:?}");
    }
}

#[test]
fn the_installed_configuration_is_one_that_the_program_takes() {
    let root = staged("/usr");
    let config = root.path().join("etc/reticle/reticle.toml");
    let shown =
        common::reticle().args(["config", "show", "--config"]).arg(&config).output().unwrap();
    assert!(shown.status.success(), "{}", said(&shown));
    let settings = said(&shown);
    assert!(settings.contains("/var/lib/reticle"), "{settings}");
    assert!(settings.contains(r#"format = "journal""#), "{settings}");
}

#[test]
fn a_configuration_that_is_there_is_left_alone() {
    let root = staged("/usr");
    let drop_in = root.path().join("etc/reticle/reticle.toml.d/10-service.toml");
    std::fs::copy(repository().join("tests/service/changed.toml"), &drop_in).unwrap();
    stage(root.path(), "/usr");
    let kept = read(root.path(), "etc/reticle/reticle.toml.d/10-service.toml");
    assert_eq!(
        kept,
        std::fs::read_to_string(repository().join("tests/service/changed.toml")).unwrap()
    );
}

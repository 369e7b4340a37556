//! `reticle check`, as a person and a program meet it: each thing that is wrong is named with what
//! to do, nothing else is, and a running daemon is not disturbed.

#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::mosquitto::{self, Mosquitto};
use common::{Daemon, free_port, reticle};
use serde_json::Value;
use tempfile::TempDir;

/// A box of its own: a configuration, and a place for its data.
struct Bench {
    folder: TempDir,
    port: u16,
}

impl Bench {
    /// With this after the table `[web]`, and a port that is free.
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        // A few bytes, so that the disk of the machine under test does not count.
        let store = "[store.frames]\nmin_free_bytes = 1000\nmax_bytes = 1000000\n";
        let store = if text.contains("[store.frames]") { "" } else { store };
        let text = format!("[web]\nlisten = \"127.0.0.1:{port}\"\n{store}{text}\n");
        fs::write(folder.path().join("reticle.toml"), text).unwrap();
        Self { folder, port }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The exit code and the report.
    fn check(&self, arguments: &[&str]) -> (i32, Value) {
        self.check_in(&self.data(), arguments, &[])
    }

    fn check_in(
        &self,
        data: &Path,
        arguments: &[&str],
        environment: &[(&str, &Path)],
    ) -> (i32, Value) {
        let config = self.folder.path().join("reticle.toml");
        let mut command = reticle();
        command.arg("check").arg("--json").arg("--config").arg(config).arg("--data").arg(data);
        command.env_remove("RETICLE_CENTRAL_PASSWORD").env_remove("RETICLE_MQTT_PASSWORD");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "box").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.args(arguments).envs(environment.iter().copied());
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
        (output.status.code().unwrap(), report)
    }
}

fn item<'a>(report: &'a Value, name: &str) -> &'a Value {
    let items = report["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

/// The names of what is wrong. Heat and memory are those of the machine that tests.
fn wrong(report: &Value) -> Vec<&str> {
    let items = report["items"].as_array().unwrap();
    let wrong = items.iter().filter(|item| item["verdict"] == "fail");
    let names = wrong.map(|item| item["name"].as_str().unwrap());
    names.filter(|name| !["temperature", "memory"].contains(name)).collect()
}

/// That this alone is wrong, that it says so and what to do.
fn assert_wrong((code, report): &(i32, Value), name: &str, found: &str) {
    assert_eq!(wrong(report), [name], "{report:#}");
    assert_eq!(*code, 1);
    assert_eq!(report["verdict"], "fail");
    let item = item(report, name);
    let text = item["found"].as_str().unwrap();
    assert!(text.contains(found), "{text}");
    assert!(item["todo"].as_str().is_some_and(|todo| !todo.is_empty()), "{item}");
    assert_eq!(item["runbook"], format!("docs/runbook.md#check-{name}"));
}

#[test]
fn a_fresh_box_with_the_virtual_microscope_is_fit_and_nothing_is_made() {
    let bench = Bench::with("");
    let (code, report) = bench.check(&["--source", "virtual"]);
    assert_eq!(wrong(&report), [""; 0], "{report:#}");
    if report["verdict"] != "fail" {
        assert_eq!(code, 0);
    }
    assert_eq!(report["running"], false);
    for name in ["configuration", "source", "model", "data", "archive", "permissions", "port"] {
        assert_eq!(item(&report, name)["verdict"], "ok", "{report:#}");
        assert_eq!(item(&report, name)["todo"], Value::Null, "{report:#}");
    }
    for name in ["central", "mqtt", "certificates"] {
        assert_eq!(item(&report, name)["verdict"], "skipped", "{report:#}");
    }
    assert!(!bench.data().exists(), "a check makes no data folder");
}

#[test]
fn the_fields_of_the_report_and_the_names_of_its_items_stay() {
    let (_, report) = Bench::with("").check(&[]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut fields = keys(&report);
    fields.sort();
    assert_eq!(fields, ["folder", "items", "running", "verdict"]);
    let items = report["items"].as_array().unwrap();
    for item in items {
        let mut fields = keys(item);
        fields.sort();
        assert_eq!(fields, ["found", "name", "runbook", "todo", "verdict"]);
    }
    let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, reticle::check::NAMES);
}

#[test]
fn a_configuration_that_cannot_be_read_is_wrong_and_the_box_itself_is_still_told() {
    let (code, report) = Bench::with("[source]\nfsp = 5").check(&[]);
    assert_eq!((code, wrong(&report)), (1, vec!["configuration"]));
    assert!(item(&report, "configuration")["found"].as_str().unwrap().contains("fsp"));
    assert_eq!(item(&report, "data")["verdict"], "skipped");
    assert!(item(&report, "clock")["found"].as_str().unwrap().contains('T'));
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let report = Bench::with("[segment]\nmodel = \"/nowhere/model\"").check(&[]);
    assert_wrong(&report, "model", "/nowhere/model");
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let bench = Bench::with("");
    let report = bench.check(&["--source", "v4l:/dev/video-none"]);
    assert_wrong(&report, "source", "/dev/video-none");
    let report = bench.check(&["--source", "folder:/nowhere/images"]);
    assert_wrong(&report, "source", "/nowhere/images");
}

#[test]
fn an_empty_folder_is_to_be_looked_at_and_not_wrong() {
    let bench = Bench::with("");
    let images = bench.folder.path().join("images");
    fs::create_dir(&images).unwrap();
    let (_, report) = bench.check(&["--source", &format!("folder:{}", images.display())]);
    assert_eq!(item(&report, "source")["verdict"], "warn", "{report:#}");
    assert_eq!(wrong(&report), [""; 0]);
}

#[test]
fn a_data_folder_that_is_a_file_is_named() {
    let bench = Bench::with("");
    fs::write(bench.data(), "").unwrap();
    let (code, report) = bench.check(&[]);
    assert_eq!(code, 1);
    assert!(wrong(&report).contains(&"data"), "{report:#}");
    assert!(item(&report, "data")["found"].as_str().unwrap().contains("is no folder"));
}

#[test]
fn a_disk_with_less_than_is_to_stay_free_is_named() {
    let bench = Bench::with("[store.frames]\nmin_free_bytes = 4000000000000000");
    assert_wrong(&bench.check(&[]), "disk", "are to stay free");
}

#[test]
fn a_data_folder_that_everybody_may_write_is_named() {
    let bench = Bench::with("");
    fs::create_dir(bench.data()).unwrap();
    fs::set_permissions(bench.data(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_wrong(&bench.check(&[]), "permissions", "everybody may write");
    let left: Vec<_> = fs::read_dir(bench.data()).unwrap().collect();
    let names: Vec<_> = left.into_iter().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "check-trial"), "{names:?}");
}

#[test]
fn a_secret_that_everybody_may_read_is_named() {
    let bench = Bench::with("");
    let credentials = bench.folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let secret = credentials.join("central-password");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let environment = [("CREDENTIALS_DIRECTORY", credentials.as_path())];
    let report = bench.check_in(&bench.data(), &[], &environment);
    assert_wrong(&report, "permissions", "central-password");
    assert!(!report.1.to_string().contains("\"secret\""));
}

#[test]
fn an_archive_that_does_not_answer_is_named() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let text = format!("[sync.archive]\nto = \"s3://lab/box-1\"\nendpoint = \"{endpoint}\"");
    assert_wrong(&Bench::with(&text).check(&[]), "archive", "s3://lab/box-1");
}

#[test]
fn a_central_database_that_does_not_answer_or_cannot_be_meant_is_named() {
    let url = format!("postgresql://box@127.0.0.1:{}/lab", free_port());
    let report = Bench::with(&format!("[sync.central]\nurl = \"{url}\"")).check(&[]);
    assert_wrong(&report, "central", "127.0.0.1");
    let report = Bench::with("[sync.central]\nurl = \"mysql://box@host/lab\"").check(&[]);
    assert_wrong(&report, "central", "must be like postgresql://");
}

#[test]
fn a_broker_that_does_not_answer_or_cannot_be_meant_is_named() {
    let url = format!("mqtt://127.0.0.1:{}", free_port());
    let report = Bench::with(&format!("[mqtt]\nurl = \"{url}\"")).check(&[]);
    assert_wrong(&report, "mqtt", &url);
    let report = Bench::with("[mqtt]\nurl = \"http://127.0.0.1\"").check(&[]);
    assert_wrong(&report, "mqtt", "it must be like mqtt://");
}

#[test]
fn a_broker_that_lets_us_in_is_told_and_one_that_refuses_is_named() {
    if !mosquitto::is_installed() {
        return;
    }
    let plain = Mosquitto::plain(false);
    let (_, report) = Bench::with(&format!("[mqtt]\nurl = \"{}\"", plain.url())).check(&[]);
    assert_eq!(item(&report, "mqtt")["verdict"], "ok", "{report:#}");
    assert_eq!(wrong(&report), [""; 0], "{report:#}");

    let secure = Mosquitto::secure("user box\ntopic readwrite #\n");
    let (url, ca) = (secure.url(), secure.ca());
    let ca = ca.display();
    // Without the password.
    let text = format!("[mqtt]\nurl = \"{url}\"\nusername = \"box\"\nca_file = \"{ca}\"");
    assert_wrong(&Bench::with(&text).check(&[]), "mqtt", &url);
}

/// A key, and a certificate of that name that ran out a day ago.
fn expired(folder: &Path) -> (PathBuf, PathBuf) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let output = command.current_dir(folder).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout old.key -out old.csr \
         -subj /CN=old-ca",
    );
    openssl("x509 -req -in old.csr -signkey old.key -days -1 -out old.crt");
    (folder.join("old.key"), folder.join("old.crt"))
}

#[test]
fn a_certificate_that_has_run_out_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_, certificate) = expired(folder.path());
    let shown = certificate.display();
    for key in ["[mqtt]\nca_file", "[mqtt]\ncert_file", "[sync.central]\nca_file"] {
        let report = Bench::with(&format!("{key} = \"{shown}\"")).check(&[]);
        assert_wrong(&report, "certificates", "CN=old-ca has run out");
        let found = item(&report.1, "certificates")["found"].as_str().unwrap();
        let (table, name) = key.split_once('\n').unwrap();
        let key = format!("{}.{name}", table.trim_matches(['[', ']']));
        assert!(found.contains(&key), "{found}");
    }
}

#[test]
fn a_key_that_everybody_may_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (key, _) = expired(folder.path());
    let bench = Bench::with(&format!("[mqtt]\nkey_file = \"{}\"", key.display()));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(wrong(&bench.check(&[]).1), [""; 0]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_wrong(&bench.check(&[]), "certificates", "everybody may read");
}

#[test]
fn a_page_that_is_open_to_the_network_is_to_be_looked_at_and_not_wrong() {
    for listen in ["0.0.0.0", "[::]"] {
        let bench = Bench::with("");
        let config = bench.folder.path().join("reticle.toml");
        let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1", listen);
        fs::write(&config, text).unwrap();
        let (_, report) = bench.check(&["--source", "virtual"]);
        let port = item(&report, "port");
        assert_eq!(port["verdict"], "warn", "{report:#}");
        assert!(port["found"].as_str().unwrap().contains("without accounts"), "{port}");
        let todo = port["todo"].as_str().unwrap();
        let named = format!("{listen}:{}", bench.port);
        assert!(todo.contains(&named) && todo.contains("set `listen`"), "{todo}");
    }
}

#[test]
fn a_port_that_another_program_holds_is_named() {
    let bench = Bench::with("");
    let _held = TcpListener::bind(("127.0.0.1", bench.port)).unwrap();
    assert_wrong(&bench.check(&[]), "port", "held by another program");
}

#[test]
fn a_running_daemon_is_told_of_and_not_disturbed() {
    let mut daemon = Daemon::start("virtual");
    let bench = Bench::with("");
    let (_, report) = bench.check_in(daemon.data(), &["--source", "v4l:/dev/video0"], &[]);
    assert_eq!(report["running"], true, "{report:#}");
    assert_eq!(item(&report, "source")["verdict"], "skipped");
    assert_eq!(item(&report, "data")["verdict"], "ok");
    assert!(item(&report, "data")["found"].as_str().unwrap().contains("a daemon is at work"));
    assert!(daemon.is_running());
    let data = daemon.data().to_owned();
    let mut command = reticle();
    let listen = format!("[web]\nlisten = \"{}\"\n", daemon.address());
    fs::write(bench.folder.path().join("same.toml"), listen).unwrap();
    command.arg("check").arg("--config").arg(bench.folder.path().join("same.toml"));
    let output = command.arg("--data").arg(&data).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("A daemon is running on "), "{text}");
    assert!(text.contains("is held by the running daemon"), "{text}");
    daemon.stop();
}

#[test]
fn the_status_of_a_running_box_tells_its_health() {
    let daemon = Daemon::start("virtual");
    let health = common::wait_for("the first measurement", || {
        let health = daemon.json("/api/v1/status")["health"].clone();
        (health["at"] != "").then_some(health)
    });
    assert!(health["memory_total_bytes"].as_u64().unwrap() > 0, "{health}");
    assert!(health["storage_free_bytes"].as_u64().unwrap() > 0, "{health}");
}

#[test]
fn what_cannot_be_meant_on_the_command_line_is_exit_code_2() {
    let output = reticle().args(["check", "--source", "usb"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

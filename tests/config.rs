//! `reticle config` and `reticle version`, as a person meets them: exact messages, exit codes,
//! and what they do when nobody reads them.

#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn reticle(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_reticle"))
        .args(arguments)
        .env_remove("RETICLE_LOG")
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder with a `reticle.toml` in it.
struct Files(TempDir);

impl Files {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("reticle.toml"), text).unwrap();
        Self(folder)
    }

    fn drop_in(self, name: &str, text: &str) -> Self {
        let folder = self.0.path().join("reticle.toml.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
        self
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("reticle.toml")
    }

    fn run(&self, verb: &str) -> Said {
        let said = reticle(&["config", verb, self.file().to_str().unwrap()]);
        let folder = format!("{}/", self.0.path().display());
        Said {
            code: said.code,
            out: said.out.replace(&folder, ""),
            err: said.err.replace(&folder, ""),
        }
    }

    /// What `config check` complains of; nothing else may be said.
    fn complaint(&self) -> String {
        let said = self.run("check");
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
        said.err
    }
}

#[test]
fn an_empty_file_is_fine_and_runs_the_virtual_microscope_on_loopback() {
    let config = Files::with("");
    let said = config.run("check");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "reticle.toml: fine\n", ""));
    let file = config.file();
    let said = reticle(&["config", "show", "--json", file.to_str().unwrap()]);
    let settings: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(settings["source"]["spec"], "virtual");
    assert_eq!(settings["web"]["listen"], "127.0.0.1:8080");
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_known_one() {
    let complaint = |text: &str| Files::with(text).complaint();
    assert_eq!(
        complaint("[source]\nspec = \"virtual\"\nexposure = 5\n"),
        "reticle.toml:3: `source.exposure` is not a known key; did you mean `source.exposure_us`?\n"
    );
    assert_eq!(
        complaint("[soruce]\nfps = 5\n"),
        "reticle.toml:1: `soruce` is not a known key; did you mean `source`?\n"
    );
    assert_eq!(
        complaint("[store.frames]\nkepe = \"all\"\n"),
        "reticle.toml:2: `store.frames.kepe` is not a known key; did you mean `store.frames.keep`?\n"
    );
}

#[test]
fn a_known_key_in_the_wrong_table_is_told_its_place() {
    assert_eq!(
        Files::with("fps = 5\n[web]\n").complaint(),
        "reticle.toml:1: `fps` is not a known key; did you mean `source.fps`?\n"
    );
    assert_eq!(
        Files::with("[session]\nlisten = \"127.0.0.1:0\"\n").complaint(),
        "reticle.toml:2: `session.listen` is not a known key; did you mean `web.listen`?\n"
    );
}

#[test]
fn an_unknown_key_like_no_other_is_answered_with_all_there_are() {
    assert_eq!(
        Files::with("[log]\nxyzzy = 1\n").complaint(),
        "reticle.toml:2: `log.xyzzy` is not a known key; in [log] there are `level`, `format`, `otlp_endpoint`, \
         `otlp_trace_every`\n"
    );
}

#[test]
fn a_wrong_type_or_value_says_what_is_allowed() {
    let complaint = |text: &str| Files::with(text).complaint();
    assert_eq!(
        complaint("[source]\nfps = \"fast\"\n"),
        "reticle.toml:2: `source.fps` is \"fast\", but must be a number from 0.001 to 10000 \
         (Frames a second)\n"
    );
    assert_eq!(
        complaint("[source]\n\nfps = 0\n"),
        "reticle.toml:3: `source.fps` is 0, but must be a number from 0.001 to 10000 \
         (Frames a second)\n"
    );
    assert_eq!(
        complaint("[source]\nreplay = \"yes\"\n"),
        "reticle.toml:2: `source.replay` is \"yes\", but must be true or false \
         (Folder: replay it without end, beginning again with the first image after the last)\n"
    );
    assert_eq!(
        complaint("[log]\nformat = \"xml\"\n"),
        "reticle.toml:2: `log.format` is \"xml\", but must be one of \"text\", \"json\", \
         \"journal\" (`text` for people, `json` for one JSON object a line, `journal` for the \
         journal of systemd with its fields)\n"
    );
    assert_eq!(
        complaint("web = 5\n"),
        "reticle.toml:1: `web` is 5, but must be a table: write [web] and its keys below\n"
    );
}

#[test]
fn a_quality_beyond_what_jpeg_has_is_refused() {
    for (quality, refused) in [(0, true), (1, false), (100, false), (101, true)] {
        let config = Files::with(format!("[web]\npreview_quality = {quality}\n"));
        if refused {
            assert_eq!(
                config.complaint(),
                format!(
                    "reticle.toml:2: `web.preview_quality` is {quality}, but must be a whole \
                     number from 1 to 100 (JPEG quality of the live image, 1 to 100)\n"
                )
            );
        } else {
            assert_eq!(config.run("check").code, 0, "{quality}");
        }
    }
}

#[test]
fn a_port_is_not_an_address() {
    assert_eq!(
        Files::with("[web]\nlisten = 8080\n").complaint(),
        "reticle.toml:2: `web.listen` is 8080, but must be a text in quotes \
         (Address and port to listen on)\n"
    );
    assert_eq!(
        Files::with("[web]\nlisten = \"8080\"\n").complaint(),
        "reticle.toml:2: `web.listen` is \"8080\", but that cannot be used: \
         invalid socket address syntax (Address and port to listen on)\n"
    );
}

#[test]
fn a_source_that_is_none_is_answered_by_the_source_itself() {
    let complaint = Files::with("[source]\nspec = \"/dev/video0\"\n").complaint();
    assert!(
        complaint.starts_with(
            "reticle.toml:2: `source.spec` is \"/dev/video0\", but that cannot be used: \
             `/dev/video0` is no source (did you mean `v4l:/dev/video0`?)"
        ),
        "{complaint}"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_lines() {
    let complaint = Files::with("[web]\nlisten = 1\n[source]\nfps = true\nwdith = 5\n")
        .drop_in("10.toml", "[log]\nlevel = 3\n")
        .complaint();
    let starts: Vec<&str> =
        complaint.lines().map(|line| line.split(" is ").next().unwrap()).collect();
    assert_eq!(
        starts,
        [
            "reticle.toml:2: `web.listen`",
            "reticle.toml:4: `source.fps`",
            "reticle.toml:5: `source.wdith`",
            "reticle.toml.d/10.toml:2: `log.level`",
        ]
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let complaint = Files::with("[source]\nspec = \"virtual\nfps = 5\n").complaint();
    assert!(complaint.starts_with("reticle.toml:2: this is not TOML: "), "{complaint}");
    assert_eq!(complaint.lines().count(), 1);
    let complaint = Files::with("[web]\n[web]\n").complaint();
    assert!(
        complaint.starts_with("reticle.toml:2: this is not TOML: duplicate key"),
        "{complaint}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
    let config = Files::with("");
    fs::remove_file(config.file()).unwrap();
    assert_eq!(
        config.complaint(),
        "reticle.toml: is not there; name another file with --config, or write this one: \
         `reticle config default` prints a documented start\n"
    );
    fs::create_dir(config.file()).unwrap();
    assert_eq!(config.complaint(), "reticle.toml: is a folder; name the TOML file in it\n");
    assert_eq!(
        Files::with([0xff, 0xfe, b'a']).complaint(),
        "reticle.toml: is not UTF-8 text; save it as UTF-8\n"
    );
}

#[test]
fn keys_that_must_fit_each_other_are_judged_after_merging() {
    assert_eq!(
        Files::with("[source]\nwidth = 640\n").complaint(),
        "reticle.toml:2: `source.width` stands alone; give both width and height, or neither\n"
    );
    let said = Files::with("[source]\nwidth = 640\n")
        .drop_in("a.toml", "[source]\nheight = 480\n")
        .run("check");
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out, "reticle.toml: fine\nreticle.toml.d/a.toml: fine\n");
    assert_eq!(
        Files::with("[session]\noperator = \" \"\n").complaint(),
        "reticle.toml:2: `session.operator` is empty; write something or leave the key out\n"
    );
}

#[test]
fn show_says_where_each_value_came_from_and_can_be_read_back() {
    let config =
        Files::with("[source]\nfps = 2.5\nseed = 3\n").drop_in("a.toml", "source.seed = 4\n");
    let said = config.run("show");
    assert_eq!(said.code, 0, "{}", said.err);
    let line = |start: &str| {
        let line = said.out.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("fps"), "fps = 2.5 # reticle.toml:2");
    assert_eq!(line("seed"), "seed = 4 # reticle.toml.d/a.toml:1");
    assert_eq!(line("spec"), "spec = \"virtual\" # default");

    let again = Files::with(&said.out);
    let both = [&config, &again].map(|config| {
        let file = config.file();
        reticle(&["config", "show", "--json", file.to_str().unwrap()]).out
    });
    assert_eq!(both[0], both[1]);
}

#[test]
fn check_says_of_a_page_that_is_open_to_the_network_what_that_means() {
    let config = Files::with("[web]\nlisten = \"0.0.0.0:8080\"\n");
    let said = config.run("check");
    assert_eq!((said.code, said.out.as_str()), (0, "reticle.toml: fine\n"));
    for part in ["web.listen: ", "0.0.0.0:8080", "without an account", "127.0.0.1:8080"] {
        assert!(said.err.contains(part), "{}", said.err);
    }
    let file = config.file();
    let said = reticle(&["config", "check", "--json", file.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["warnings"].as_array().map(Vec::len), Some(1), "{report}");
}

#[test]
fn check_can_answer_in_json() {
    let config = Files::with("[log]\nlevel = 3\n");
    let file = config.file();
    let said = reticle(&["config", "check", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!(said.code, 1);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][0]["line"], 2);
    assert_eq!(report["problems"][0]["key"], "log.level");
    assert_eq!(report["problems"][0]["file"].as_str().map(Path::new), Some(file.as_path()));
}

#[test]
fn the_schema_is_for_editors_and_wrong_usage_is_exit_code_2() {
    let said = reticle(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(schema["title"], "Settings");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(reticle(&["config", "shout"]).code, 2);
    assert_eq!(reticle(&["config", "check", "a", "--config", "b"]).code, 2);
}

#[test]
fn the_default_file_is_a_valid_configuration() {
    let said = Files::with(reticle(&["config", "default"]).out).run("check");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn the_guide_shows_the_default_file_as_it_is() {
    let guide = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/configuration.md"),
    )
    .unwrap();
    let shown = guide.split("```toml default\n").nth(1).unwrap().split("```").next().unwrap();
    let is = reticle(&["config", "default"]).out;
    assert!(
        shown == is,
        "docs/guide/configuration.md is behind the code: put what `reticle config default` \
         prints between ```toml default and ```"
    );
}

#[test]
fn version_says_what_runs() {
    let said = reticle(&["version", "--json"]);
    let version: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["numerics"], serde_json::json!(["f32-fma-1"]));
    assert!(version["sqlite"].as_str().unwrap().starts_with("3."));
    assert!(version["target"].as_str().unwrap().starts_with(std::env::consts::ARCH));
    let said = reticle(&["version"]);
    assert_eq!(said.code, 0);
    assert!(said.out.starts_with(&format!("reticle {}\n", env!("CARGO_PKG_VERSION"))));
}

/// Every key that takes an address, with a value that holds a secret. The secret is `hush` in each
/// of its parts, so that a part of it is found as well.
const WITH_SECRETS: [(&str, &str); 15] = [
    ("sync.archive.to", "s3://AKIA:hush@lab/box-1"),
    ("sync.archive.to", "s3://AKIA:hush/hush@lab"),
    ("sync.archive.to", "s3:/AKIA:hush@lab"),
    ("sync.archive.to", "s3://AKIA:hush"),
    ("sync.archive.endpoint", "https://k:hush@minio.lab:9000"),
    ("sync.archive.endpoint", "k:hush@minio.lab"),
    ("sync.central.url", "postgresql://box:hush@db.lab/lab"),
    ("sync.central.url", "postgresql://box:x?hush#hush@db.lab/lab"),
    ("sync.central.url", "postgresql://db.lab/lab?user=box&password=hush"),
    ("sync.central.url", "host=db user=box password=hush"),
    ("mqtt.url", "mqtts://box:hush@broker.lab:8883"),
    ("mqtt.url", "mqtts://box:hush"),
    ("mqtt.url", "box:hush@broker"),
    ("log.otlp_endpoint", "http://box:hush@collector:4318"),
    ("log.otlp_endpoint", "grpc://box:hush@collector:4318"),
];

#[test]
fn no_secret_in_an_address_is_ever_shown() {
    for (key, address) in WITH_SECRETS {
        let other =
            if key == "sync.archive.endpoint" { "sync.archive.to = \"s3://lab\"\n" } else { "" };
        let config = Files::with(format!("{other}{key} = \"{address}\"\n"));
        let file = config.file();
        let file = file.to_str().unwrap();
        let data = config.0.path().join("data");
        let data = data.to_str().unwrap();
        let verbs: [&[&str]; 6] = [
            &["config", "show", file],
            &["config", "show", "--json", file],
            &["config", "check", file],
            &["config", "check", "--json", file],
            &["check", "--json", "--config", file, "--data", data],
            &["run", "--config", file, "--data", data, "--listen", "127.0.0.1:0"],
        ];
        for verb in verbs {
            let said = reticle(verb);
            let all = format!("{}{}", said.out, said.err);
            assert!(!all.contains("hush"), "{verb:?} of {key} = {address}:\n{all}");
            // What is right about it is still told.
            let is_shown = verb[1] == "show" && address.contains("@lab");
            assert!(!is_shown || all.contains("***@lab"), "{verb:?}: {all}");
        }
    }
}

#[test]
fn a_secret_under_a_wrong_key_or_in_a_broken_file_is_not_shown_either() {
    let long = format!("s3://AKIA:{}hush@lab", "h".repeat(80));
    for text in [
        "[mqtt]\nurll = \"mqtts://u:hush@broker\"\n".to_owned(),
        "[source]\nspec = \"http://u:hush@camera/stream\"\n".to_owned(),
        "[web]\nlisten = \"http://u:hush@0.0.0.0:80\"\n".to_owned(),
        format!("[source]\nspec = \"{long}\"\n"),
        "[source]\nspec = \"\"\"\nrtsp://u:hush\n@camera\"\"\"\n".to_owned(),
        "[sync.archive]\nto = [\"s3://AKIA:hush@lab\"]\n".to_owned(),
        "[sync.archive]\nto = s3://AKIA:hush@lab\n".to_owned(),
        "[sync.archive]\nto = \"s3://AKIA:hush@lab\n".to_owned(),
    ] {
        let said = Files::with(&text).run("check");
        assert_eq!(said.code, 1, "{text}");
        assert!(!said.err.contains("hush") && !said.err.contains("hhhh"), "{text}{}", said.err);
    }
}

#[test]
fn check_refuses_whatever_run_would_refuse_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let no_pem = folder.path().join("no.pem");
    fs::write(&no_pem, "no PEM").unwrap();
    let pem = no_pem.display();
    for (key, text) in [
        ("segment.model", "segment.model = \"nuclie\"".to_owned()),
        ("web.listen", "web.listen = \"203.0.113.7:8080\"".to_owned()),
        ("store.folder", format!("store.folder = \"{pem}\"")),
        ("sync.archive.to", "sync.archive.to = \"ftp://lab\"".to_owned()),
        ("sync.archive.to", "sync.archive.to = \"s3://la b\"".to_owned()),
        (
            "sync.archive.endpoint",
            "sync.archive.to = \"s3://lab\"\nsync.archive.endpoint = \"minio.lab\"".to_owned(),
        ),
        (
            "sync.archive.ca_file",
            format!("sync.archive.to = \"s3://lab\"\nsync.archive.ca_file = \"{pem}\""),
        ),
        ("sync.central.url", "sync.central.url = \"mysql://box@db/lab\"".to_owned()),
        ("sync.central.url", "sync.central.url = \"postgresql://box@db\"".to_owned()),
        (
            "sync.central.ca_file",
            format!(
                "sync.central.url = \"postgresql://b@db/lab\"\nsync.central.ca_file = \"{pem}\""
            ),
        ),
        ("mqtt.url", "mqtt.url = \"http://broker\"".to_owned()),
        ("mqtt.keep_alive_s", "mqtt.url = \"mqtt://broker\"\nmqtt.keep_alive_s = 1".to_owned()),
        ("mqtt.key_file", format!("mqtt.url = \"mqtts://broker\"\nmqtt.cert_file = \"{pem}\"")),
        ("mqtt.ca_file", format!("mqtt.url = \"mqtts://broker\"\nmqtt.ca_file = \"{pem}\"")),
        ("mqtt.client_id", "mqtt.url = \"mqtt://broker\"\nmqtt.client_id = \"\"".to_owned()),
    ] {
        let config = Files::with(format!("{text}\n"));
        let checked = config.run("check");
        assert_eq!(checked.code, 1, "{text}: {}", checked.out);
        let line = text.lines().count();
        let expected = format!("reticle.toml:{line}: `{key}` ");
        let is_named = checked.err.starts_with(&expected)
            // Not in the file: what is missing has no line.
            || checked.err.starts_with(&format!("reticle.toml: `{key}` "));
        assert!(is_named, "{expected}: {}", checked.err);
        let file = config.file();
        let mut run = vec!["run", "--config", file.to_str().unwrap()];
        let data = folder.path().join("data");
        if key != "store.folder" {
            run.extend(["--data", data.to_str().unwrap()]);
        }
        if key != "web.listen" {
            run.extend(["--listen", "127.0.0.1:0"]);
        }
        let ran = reticle(&run);
        assert_eq!(ran.code, 1, "{text}");
        let why = checked.err.trim_end().rsplit("` ").next().unwrap();
        let words = why.split(' ').take(3).collect::<Vec<_>>().join(" ");
        // To make the data folder is to find out in another way that it is none.
        let same = if key == "store.folder" { "Not a directory" } else { &words };
        assert!(ran.err.contains(same), "{text}: {} against {}", checked.err, ran.err);
    }
}

#[test]
fn check_leaves_a_port_alone_that_is_in_use_and_makes_nothing() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.display();
    let config =
        Files::with(format!("web.listen = \"127.0.0.1:{port}\"\nstore.folder = \"{data}\"\n"));
    let said = config.run("check");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_that_has_had_enough_ends_no_verb_badly() {
    let config = Files::with("");
    let file = config.file();
    let file = file.to_str().unwrap();
    let verbs: [&[&str]; 7] = [
        &["config", "schema"],
        &["config", "default"],
        &["config", "show", file],
        &["config", "show", "--json", file],
        &["config", "check", file],
        &["version"],
        &["version", "--json"],
    ];
    for verb in verbs {
        // Gone before the first word, as `head` is at some point.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut reticle = Command::new(env!("CARGO_BIN_EXE_reticle"));
        let ended = reticle.args(verb).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.as_str()), (Some(0), ""), "{verb:?}");
    }
}

#[test]
fn complaints_that_nobody_reads_are_still_told_by_the_exit_code() {
    let config = Files::with("[log]\nlevel = 3\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut reticle = Command::new(env!("CARGO_BIN_EXE_reticle"));
    let ended = reticle.arg("config").arg("check").arg(config.file()).stderr(writer).status();
    assert_eq!(ended.unwrap().code(), Some(1));
}

//! What an administrator does after the worst day: backups, restores, and an archive that is all
//! that is left. A ledger holds what the box had acknowledged; what comes back is counted.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not last")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

mod common;

use common::lab::all_files as files;
use common::postgres::Postgres;
use common::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use common::{Daemon, Start, reticle, wait_for};

/// A box of a test, its archive beside it, and room for other data folders of the same box.
struct Lab {
    folder: tempfile::TempDir,
    /// Where there is one.
    central: Option<Postgres>,
}

/// What the API had acknowledged: frame → (pixel hash, label hash, objects).
type Ledger = BTreeMap<String, (String, String, u64)>;

impl Lab {
    fn new(archive: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap(), central: None };
        std::fs::create_dir(lab.folder.path().join("archive")).unwrap();
        let archive = archive.replace("FOLDER", &lab.archive().display().to_string());
        let text = format!(
            "[box]\nsite = \"test\"\nname = \"box-1\"\n\
             [source]\nwidth = 128\nheight = 128\nfps = 20.0\n\
             [store.frames]\nmin_free_bytes = 0\n[sync.archive]\n{archive}"
        );
        std::fs::write(lab.config(), text).unwrap();
        lab
    }

    fn with_folder() -> Self {
        Self::new("to = \"file:FOLDER\"\npixels = \"all\"\n")
    }

    /// An archive and a PostgreSQL.
    fn with_central() -> Self {
        let central = Postgres::new();
        let lab = Self::new(&format!(
            "to = \"file:FOLDER\"\n[sync.central]\nurl = \"{}\"\n",
            central.url()
        ));
        Self { central: Some(central), ..lab }
    }

    /// What is in the environment of each daemon and verb.
    fn environment(&self) -> Vec<(&'static str, &'static str)> {
        let password =
            self.central.as_ref().map(|central| ("RETICLE_CENTRAL_PASSWORD", central.password()));
        let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
        keys.into_iter().chain(password).collect()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("reticle.toml")
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// The data folder with this name.
    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, data: &str) -> Daemon {
        Start::default()
            .config(self.config())
            .data(self.data(data))
            .environment(&self.environment())
            .start()
    }

    /// Takes this many results and more.
    fn take(&self, data: &str, results: u64) -> Daemon {
        let daemon = self.start(data);
        wait_for("results to be saved", || {
            (daemon.json("/api/v1/totals")["segmentations"].as_u64()? >= results).then_some(())
        });
        daemon
    }

    /// Takes results, stops, delivers all of it; the ledger of what had been acknowledged.
    fn take_and_deliver(&self, data: &str, results: u64) -> Ledger {
        let daemon = self.take(data, results);
        assert!(daemon.stop().success());
        self.json(data, &["sync", "drain"], 0);
        self.acknowledged(data)
    }

    fn run(&self, data: &str, arguments: &[&str]) -> Output {
        reticle()
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .arg("--data")
            .arg(self.data(data))
            .envs(self.environment())
            .output()
            .unwrap()
    }

    /// The JSON of a verb that must end with this exit code.
    fn json(&self, data: &str, arguments: &[&str], code: i32) -> Value {
        let output = self.run(data, &[arguments, &["--json"]].concat());
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{error}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{error}"))
    }

    /// fsck finds nothing, and the archive is what the store says.
    fn is_sound(&self, data: &str) {
        let output = reticle().args(["fsck", "--data"]).arg(self.data(data)).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stdout));
        let verified = self.json(data, &["sync", "verify"], 0);
        assert_eq!(verified["differences"], serde_json::json!([]));
    }

    fn database(&self, data: &str) -> Connection {
        Connection::open(self.data(data).join("reticle.db")).unwrap()
    }

    /// What the store has, as the API had told it.
    fn acknowledged(&self, data: &str) -> Ledger {
        let db = self.database(data);
        let mut statement = db
            .prepare(
                "SELECT lower(hex(frame.id)), lower(hex(sha256)), lower(hex(labels_sha256)), objects
                 FROM segmentation JOIN frame ON frame.pk = segmentation.frame",
            )
            .unwrap();
        let rows = statement
            .query_map([], |row| {
                let objects = row.get::<_, i64>(3)? as u64;
                Ok((row.get(0)?, (row.get(1)?, row.get(2)?, objects)))
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Every row that an archive can bring back, without the store's own keys and files: a digest
    /// of each table.
    fn rows(&self, data: &str) -> BTreeMap<&'static str, (u64, String)> {
        let db = self.database(data);
        [
            (
                "session",
                "SELECT hex(session.id), name, source, channel, operator, pixel_size_um,
                        started_wall_ns, started_mono_ns, hex(boot.id), ended_wall_ns, ended_mono_ns,
                        frames, segmentations, objects, archive_date
                 FROM session JOIN boot ON boot.pk = started_boot ORDER BY 1",
            ),
            (
                "frame",
                "SELECT hex(frame.id), hex(session.id), series.number, position, sequence,
                        captured_wall_ns, captured_mono_ns, hex(boot.id), exposure_us, frame.width,
                        frame.height, bit_depth, hex(sha256), frame.pixel_size_um, plate, well,
                        field, origin, segmented
                 FROM frame JOIN session ON session.pk = frame.session
                 JOIN series ON series.pk = frame.series
                 JOIN boot ON boot.pk = captured_boot ORDER BY 1",
            ),
            (
                "segmentation",
                "SELECT hex(frame.id), model.name, model.sha256, parameters, software, objects,
                        focus, normalise_us, network_us, instances_us, measure_us,
                        committed_wall_ns, committed_mono_ns, hex(boot.id), hex(labels_sha256),
                        hex(labels)
                 FROM segmentation JOIN frame ON frame.pk = segmentation.frame
                 JOIN model ON model.pk = segmentation.model
                 JOIN boot ON boot.pk = committed_boot ORDER BY 1, 2",
            ),
            (
                "object",
                "SELECT hex(frame.id), object.* FROM object
                 JOIN segmentation ON segmentation.pk = object.segmentation
                 JOIN frame ON frame.pk = segmentation.frame ORDER BY 1, label",
            ),
        ]
        .map(|(table, query)| {
            let mut statement = db.prepare(query).unwrap();
            let columns = statement.column_count();
            // object.segmentation is the store's own key.
            let own = (table == "object").then_some(1);
            let mut hash = Sha256::new();
            let mut count = 0;
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                count += 1;
                for column in (0..columns).filter(|column| Some(*column) != own) {
                    hash.update(format!("{:?}|", row.get_ref(column).unwrap()));
                }
            }
            (table, (count, hex::encode(hash.finalize())))
        })
        .into()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The objects of an archive that hold results, without what describes them.
fn parts(folder: &Path) -> BTreeMap<String, String> {
    let mut files = files(folder);
    // Nor what was being written when a daemon was stopped.
    files.retain(|name, _| !name.ends_with(".json") && !name.ends_with(".tmp"));
    files
}

/// A restart goes on delivering: more results, all of them in the archive.
fn goes_on(lab: &Lab, data: &str) {
    let before = lab.acknowledged(data);
    let archived = parts(&lab.archive());
    let now = lab.take_and_deliver(data, before.len() as u64 + 5);
    assert!(before.iter().all(|(frame, told)| now.get(frame) == Some(told)));
    lab.is_sound(data);
    if !archived.is_empty() {
        let after = parts(&lab.archive());
        for (name, hash) in &archived {
            assert_eq!(after.get(name), Some(hash), "{name} was written again");
        }
        assert!(after.len() > archived.len());
    }
}

#[test]
fn a_new_machine_with_only_the_archive_gets_all_that_was_acknowledged() {
    let lab = Lab::with_folder();
    lab.take_and_deliver("old", 6);
    let ledger = lab.take_and_deliver("old", 14);
    let rows = lab.rows("old");
    // Nothing of the old machine is left but the archive.
    std::fs::remove_dir_all(lab.data("old")).unwrap();
    let error = lab.run("new", &["sync", "adopt"]);
    assert!(text(&error.stderr).contains("say --box"), "{}", text(&error.stderr));

    let adopted = lab.json("new", &["sync", "adopt", "--box"], 0);
    assert_eq!(adopted["missing"], serde_json::json!([]));
    assert_eq!(adopted["sessions"], 2);
    assert_eq!(adopted["taken"]["frames"], rows["frame"].0);
    assert_eq!(adopted["taken"]["results"], ledger.len());
    let objects: u64 = ledger.values().map(|(_, _, objects)| objects).sum();
    assert_eq!(adopted["taken"]["objects"], objects);
    assert_eq!(lab.acknowledged("new"), ledger);
    assert_eq!(lab.rows("new"), rows, "bit by bit");
    lab.is_sound("new");
    // Once more changes nothing, and nothing is delivered that the archive has.
    let archived = parts(&lab.archive());
    let again = lab.json("new", &["sync", "adopt"], 0);
    assert_eq!((&again["changed"], &again["epoch"]), (&false.into(), &adopted["epoch"]));
    lab.json("new", &["sync", "drain"], 0);
    assert_eq!(parts(&lab.archive()), archived);
    goes_on(&lab, "new");
}

#[test]
fn a_manifest_that_is_yet_to_be_delivered_is_nothing_that_is_missing() {
    let lab = Lab::with_folder();
    lab.take_and_deliver("data", 6);
    // As when the box ended after the first objects of a session.
    let manifests = files(&lab.archive()).into_keys().filter(|key| key.ends_with("manifest.json"));
    let manifests: Vec<String> = manifests.collect();
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    std::fs::remove_file(lab.archive().join(&manifests[0])).unwrap();
    let adopted = lab.json("data", &["sync", "adopt"], 0);
    assert_eq!(adopted["missing"], serde_json::json!([]));
    lab.json("data", &["sync", "retry", "--everything"], 0);
    lab.json("data", &["sync", "drain"], 0);
    lab.is_sound("data");
    // Nobody knows what it was where the store is gone as well.
    std::fs::remove_file(lab.archive().join(&manifests[0])).unwrap();
    let error = lab.run("new", &["sync", "adopt", "--box"]);
    assert!(text(&error.stderr).contains("no manifest"), "{}", text(&error.stderr));
}

#[test]
fn a_table_that_is_not_what_the_archive_took_is_named_and_not_read_back() {
    let server = S3Server::start();
    let lab = Lab::new(&format!(
        "to = \"s3://{BUCKET}/box-1\"\nendpoint = \"{}\"\npixels = \"all\"\n",
        server.endpoint()
    ));
    let ledger = lab.take_and_deliver("old", 6);
    let objects = files(&server.bucket()).into_keys();
    let table = objects.into_iter().find(|key| key.contains("/objects/"));
    let table = table.unwrap_or_else(|| panic!("{:?}", files(&server.bucket()).keys()));
    let path = server.bucket().join(&table);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, bytes).unwrap();
    let adopted = lab.json("new", &["sync", "adopt", "--box"], 0);
    assert_eq!(adopted["taken"]["frames"], ledger.len());
    assert_eq!(adopted["taken"]["results"], 0, "no result without its objects: {adopted}");
    let what = adopted["missing"][0]["what"].as_str().unwrap();
    assert!(what.contains("the archive's own checksum"), "{adopted}");
}

#[test]
fn an_archive_that_is_not_mounted_or_has_nothing_of_the_box_is_not_taken_for_one_read_back() {
    let lab = Lab::with_folder();
    let said = |arguments: &[&str]| {
        let output = lab.run("new", arguments);
        (output.status.code(), text(&output.stderr))
    };
    let (code, error) = said(&["sync", "adopt", "--box"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("has no session of test/box-1"), "{error}");
    std::fs::remove_dir(lab.archive()).unwrap();
    let (code, error) = said(&["sync", "adopt", "--box"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("is no folder; mount it"), "{error}");
}

#[test]
fn a_new_machine_with_only_a_backup_gets_what_the_backup_has() {
    let lab = Lab::new("to = \"none\"\n");
    let daemon = lab.take("old", 8);
    let backups = lab.data("backups");
    std::fs::create_dir(&backups).unwrap();
    let to = backups.display().to_string();
    let backup = lab.json("old", &["backup", "--to", &to], 0);
    assert!(daemon.stop().success());
    let path = backup["path"].as_str().unwrap().to_owned();
    let ledger = lab.acknowledged("old");
    std::fs::remove_dir_all(lab.data("old")).unwrap();

    let restored = lab.json("new", &["restore", "--from", &path, "--yes"], 0);
    assert_eq!(restored["plan"]["present"]["state"], "nothing");
    let results = backup["contents"]["results"].as_u64().unwrap();
    assert!(results >= 8);
    let now = lab.acknowledged("new");
    assert_eq!(now.len() as u64, results);
    assert!(now.iter().all(|(frame, told)| ledger.get(frame) == Some(told)));
    // The files went with the machine; each row says so.
    assert_eq!(restored["restored"]["files_missing"], backup["contents"]["files"]);
    let db = lab.database("new");
    let named: i64 = db
        .query_row("SELECT count(*) FROM frame WHERE no_file = 'not_restored'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(restored["restored"]["files_missing"], named);
    drop(db);
    let output = reticle().args(["fsck", "--data"]).arg(lab.data("new")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
    goes_on(&lab, "new");
}

#[test]
fn an_old_backup_says_what_will_be_missing_and_the_archive_gives_it_back() {
    let lab = Lab::with_folder();
    lab.take_and_deliver("data", 5);
    let backup = lab.data("old.db").display().to_string();
    let old = lab.json("data", &["backup", "--to", &backup], 0);
    let old = old["contents"]["results"].as_u64().unwrap();
    let daemon = lab.take("data", old + 10);
    let cursor = daemon.json("/api/v1/frames")["next"].as_str().unwrap().to_owned();
    let running = lab.run("data", &["restore", "--from", &backup, "--yes"]);
    assert!(text(&running.stderr).contains("in use by process"), "{}", text(&running.stderr));
    assert!(daemon.stop().success());
    lab.json("data", &["sync", "drain"], 0);
    let (ledger, rows) = (lab.acknowledged("data"), lab.rows("data"));
    let kept = files(&lab.data("data").join("frames"));
    let archived = parts(&lab.archive());

    // Nobody can be asked, so nothing happens; what would is said.
    let output = lab.run("data", &["restore", "--from", &backup]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let missing = ledger.len() as u64 - old;
    assert!(
        said.contains(&format!(
            "WILL BE MISSING, as far as the archive does not have it: \
                                    {missing} results"
        )),
        "{said}"
    );
    assert_eq!(lab.acknowledged("data"), ledger);

    let restored = lab.json("data", &["restore", "--from", &backup, "--yes"], 0);
    assert_eq!(restored["plan"]["present"]["missing"]["results"], missing);
    assert_eq!(restored["restored"]["contents"]["results"], old);
    assert_eq!(restored["adopted"]["taken"]["results"], missing);
    assert_eq!(restored["adopted"]["missing"], serde_json::json!([]));
    assert_eq!(lab.acknowledged("data"), ledger);
    assert_eq!(lab.rows("data"), rows, "bit by bit");
    // Every frame file found its row again.
    assert_eq!(files(&lab.data("data").join("frames")), kept);
    let aside = restored["restored"]["set_aside"].as_str().unwrap();
    assert!(Path::new(aside).join("reticle.db").is_file());
    assert_eq!(parts(&lab.archive()), archived);
    lab.is_sound("data");

    // A client's cursor from before is refused, with what to do.
    let daemon = lab.start("data");
    let answer = ureq::get(daemon.url(&format!("/api/v1/frames?after={cursor}")))
        .config()
        .http_status_as_error(false)
        .build()
        .call();
    let mut answer = answer.unwrap();
    assert_eq!(answer.status(), 409);
    let problem: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(problem["type"], "urn:reticle:problem:old-cursor");
    assert!(problem["detail"].as_str().unwrap().contains("start again"), "{problem}");
    assert!(daemon.stop().success());
    goes_on(&lab, "data");
}

#[test]
fn a_restore_without_the_archive_is_made_whole_by_adopting_later() {
    let lab = Lab::with_folder();
    lab.take_and_deliver("data", 4);
    let backup = lab.data("old.db").display().to_string();
    lab.json("data", &["backup", "--to", &backup], 0);
    let ledger = lab.take_and_deliver("data", 12);
    let restored =
        lab.json("data", &["restore", "--from", &backup, "--yes", "--without-archive"], 0);
    assert_eq!(restored["adopted"], Value::Null);
    assert!(lab.acknowledged("data").len() < ledger.len());
    // It knows less than the archive: it saves, and delivers nothing.
    let archived = files(&lab.archive());
    let more = lab.take("data", 8);
    assert!(more.stop().success());
    let status = lab.json("data", &["sync", "drain"], 1);
    assert!(status["destinations"][0]["conflict"].is_string(), "{status}");
    let without = |mut files: BTreeMap<String, String>| {
        files.retain(|name, _| !name.starts_with(".reticle/"));
        files
    };
    assert_eq!(without(files(&lab.archive())), without(archived));
    let adopted = lab.json("data", &["sync", "adopt"], 0);
    assert_eq!(adopted["changed"], true);
    let now = lab.acknowledged("data");
    assert!(ledger.iter().all(|(frame, told)| now.get(frame) == Some(told)));
    assert!(now.len() > ledger.len(), "what it took meanwhile stays");
    lab.is_sound("data");
    goes_on(&lab, "data");
}

#[test]
fn a_copy_that_is_to_live_beside_its_original_leaves_it_its_sessions() {
    let lab = Lab::with_folder();
    let ledger = lab.take_and_deliver("original", 6);
    let copy = lab.data("copy.db").display().to_string();
    lab.json("original", &["backup", "--to", &copy], 0);
    lab.json("copy", &["restore", "--from", &copy, "--yes", "--without-archive"], 0);
    let adopted = lab.json("copy", &["sync", "adopt", "--as-new-store"], 0);
    assert_eq!(adopted["left"], 1);
    assert_eq!(lab.acknowledged("copy"), ledger, "it keeps its data");
    // What the copy takes it delivers, under its own name; the original's stays untouched.
    let archived = files(&lab.archive());
    lab.take_and_deliver("copy", ledger.len() as u64 + 5);
    let after = files(&lab.archive());
    for (name, hash) in archived.iter().filter(|(name, _)| name.starts_with("sessions/")) {
        assert_eq!(after.get(name), Some(hash), "{name}");
    }
    lab.is_sound("copy");
    let manifests = |files: &BTreeMap<String, String>| {
        files.keys().filter(|name| name.ends_with("manifest.json")).count()
    };
    assert_eq!(manifests(&after), manifests(&archived) + 1);
    // And the original goes on with its own.
    goes_on(&lab, "original");
}

#[test]
fn what_only_the_central_database_has_is_named_and_left() {
    let lab = Lab::with_central();
    let ledger = lab.take_and_deliver("data", 6);
    let central = lab.central.as_ref().unwrap();
    assert_eq!(central.psql("SELECT count(*) FROM reticle.segmentation"), ledger.len().to_string());
    let adopted = lab.json("data", &["sync", "adopt"], 0);
    assert_eq!((&adopted["missing"], &adopted["changed"]), (&serde_json::json!([]), &false.into()));

    // A copy of the database ran elsewhere, reached nothing but PostgreSQL, and is gone: a
    // session of its own with one frame, and another frame in a session that both know.
    let session = |id: &str| {
        format!(
            "INSERT INTO reticle.session SELECT (jsonb_populate_record(old, '{{\"id\": \"{id}\"}}')).*
             FROM reticle.session old LIMIT 1;"
        )
    };
    let frame = |id: &str, session: &str| {
        format!(
            "INSERT INTO reticle.frame SELECT (jsonb_populate_record(old,
               jsonb_build_object('id', '{id}', 'session', {session}, 'position', 1000))).*
             FROM reticle.frame old LIMIT 1;"
        )
    };
    let twin = "01900000-0000-7000-8000-000000000001";
    let known = central.psql("SELECT id FROM reticle.session");
    central.psql(&session(twin));
    central.psql(&frame("01900000-0000-7000-8000-000000000002", &format!("'{twin}'")));
    central.psql(&frame("01900000-0000-7000-8000-000000000003", &format!("'{known}'")));
    // Another box's are not looked at.
    central.psql("INSERT INTO reticle.box (site, name) VALUES ('test', 'box-2')");
    central.psql(
        "INSERT INTO reticle.session SELECT (jsonb_populate_record(old,
           '{\"id\": \"01900000-0000-7000-8000-000000000004\", \"box\": \"box-2\"}')).*
         FROM reticle.session old LIMIT 1",
    );

    let rows = || {
        central.psql("SELECT (SELECT count(*) FROM reticle.session), count(*) FROM reticle.frame")
    };
    let before = rows();
    let adopted = lab.json("data", &["sync", "adopt"], 0);
    let missing = adopted["missing"].as_array().unwrap();
    let named: Vec<&str> = missing.iter().map(|one| one["session"].as_str().unwrap()).collect();
    assert_eq!(named, [twin, known.as_str()], "{missing:?}");
    let what = missing[0]["what"].as_str().unwrap();
    assert!(what.contains("has 1 frames of it, this store has 0"), "{what}");
    assert_eq!(adopted["changed"], false);
    assert_eq!(rows(), before, "a measurement that was made is not taken back");
    // The box goes on to deliver there.
    let now = lab.take_and_deliver("data", ledger.len() as u64 + 5);
    assert_eq!(central.psql("SELECT count(*) FROM reticle.segmentation"), now.len().to_string());
}

#[test]
fn a_backup_of_a_box_at_full_speed_is_sound() {
    let lab = Lab::new("to = \"none\"\n");
    let daemon = lab.take("data", 3);
    for number in 0..5 {
        let before = daemon.json("/api/v1/totals")["segmentations"].as_u64().unwrap();
        let file = lab.data(&format!("{number}.db"));
        let backup = lab.json("data", &["backup", "--to", &file.display().to_string()], 0);
        assert!(backup["contents"]["results"].as_u64().unwrap() >= before);
        let folder = lab.data(&format!("copy-{number}"));
        lab.json(
            &format!("copy-{number}"),
            &["restore", "--from", &file.display().to_string(), "--yes"],
            0,
        );
        let output = reticle().args(["fsck", "--data"]).arg(&folder).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stdout));
        // Nobody's file is replaced.
        let again = lab.run("data", &["backup", "--to", &file.display().to_string()]);
        assert_eq!(again.status.code(), Some(1));
        wait_for("frames to go on", || {
            (daemon.json("/api/v1/totals")["segmentations"].as_u64()? > before).then_some(())
        });
    }
    assert!(daemon.stop().success());
}

#[test]
fn what_the_archive_lost_is_named_and_never_made_up() {
    let lab = Lab::with_folder();
    let ledger = lab.take_and_deliver("old", 70);
    let archive = lab.archive();
    let names: Vec<String> = parts(&archive).into_keys().collect();
    let find = |what: &str| {
        let found = names.iter().find(|name| name.starts_with(what)).unwrap();
        archive.join(found)
    };
    // A table of frames of the first part, and the table of results of another.
    std::fs::remove_file(find("frames/")).unwrap();
    let last = names.iter().rev().find(|name| name.starts_with("results/")).unwrap();
    std::fs::remove_file(archive.join(last)).unwrap();
    let adopted = lab.json("new", &["sync", "adopt", "--box"], 0);
    let missing = adopted["missing"].to_string();
    assert!(missing.contains("there is no table of its frames"), "{missing}");
    assert!(missing.contains("focus, timings and time of commit"), "{missing}");
    let came = lab.acknowledged("new");
    let (lost, results): (i64, i64) = lab
        .database("old")
        .query_row(
            "SELECT count(*), count(segmentation.pk) FROM frame
             LEFT JOIN segmentation ON segmentation.frame = frame.pk WHERE position < 64",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(came.len() as i64, ledger.len() as i64 - results);
    assert!(came.iter().all(|(frame, told)| ledger.get(frame) == Some(told)));
    // Positions that are lost stay free: no array in the archive gets shorter.
    let free: i64 = lab
        .database("new")
        .query_row("SELECT sum(last - first + 1) FROM lost_position", [], |row| row.get(0))
        .unwrap();
    assert_eq!(free, lost);
    let manifests = |files: BTreeMap<String, String>| {
        Vec::from_iter(files.into_iter().filter(|(name, _)| name.ends_with("manifest.json")))
    };
    let described = manifests(files(&archive));
    lab.is_sound("new");
    goes_on(&lab, "new");
    let now = manifests(files(&archive));
    assert!(described.iter().all(|manifest| now.contains(manifest)), "a manifest never forgets");
}

#[test]
fn a_bucket_brings_a_box_back_too() {
    let server = S3Server::start();
    let lab = Lab::new(&format!(
        "to = \"s3://{BUCKET}/lab-7\"\nendpoint = \"{}\"\npixels = \"all\"\n",
        server.endpoint()
    ));
    let ledger = lab.take_and_deliver("old", 8);
    let rows = lab.rows("old");
    std::fs::remove_dir_all(lab.data("old")).unwrap();
    let adopted = lab.json("new", &["sync", "adopt", "--box", "test/box-1"], 0);
    assert_eq!(adopted["missing"], serde_json::json!([]));
    assert_eq!(lab.acknowledged("new"), ledger);
    assert_eq!(lab.rows("new"), rows);
    lab.is_sound("new");
    goes_on(&lab, "new");
}

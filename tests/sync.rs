//! Results leave the box, on real servers: an S3 server and PostgreSQL, there, gone, and back.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not last")]

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

mod common;

use common::fault_proxy::{Fault, FaultProxy};
use common::lab::{Lab, central, files, s3, waiting};
use common::postgres::Postgres;
use common::s3_server::S3Server;
use common::wait_for;

/// Frames, results and objects in the central database, and a digest of all its rows.
fn rows(postgres: &Postgres) -> ([u64; 3], String) {
    let counts = ["frame", "segmentation", "object"].map(|table| {
        postgres.psql(&format!("SELECT count(*) FROM reticle.{table}")).parse().unwrap()
    });
    let digest = postgres.psql(
        "SELECT md5(string_agg(row, '' ORDER BY row)) FROM (
             SELECT frame::text AS row FROM reticle.frame
             UNION ALL SELECT segmentation::text FROM reticle.segmentation
             UNION ALL SELECT object::text FROM reticle.object) AS rows",
    );
    (counts, digest)
}

#[test]
fn without_any_configuration_results_are_archived_into_a_folder() {
    let lab = Lab::new("");
    let daemon = lab.take(10);
    // A running daemon is asked to.
    let status = lab.json(&["sync", "drain"], 0);
    assert_eq!(status["destinations"][0]["destination"], "archive");
    assert!(daemon.stop().success());
    lab.json(&["sync", "drain"], 0);
    let verified = lab.json(&["sync", "verify"], 0);
    assert_eq!(verified["differences"], serde_json::json!([]));
    assert!(verified["objects"].as_u64().unwrap() >= 9, "{verified}");
    let archived = files(&lab.data().join("archive"));
    let manifests: Vec<_> =
        archived.keys().filter(|name| name.ends_with("/manifest.json")).collect();
    assert_eq!(manifests.len(), 1, "{archived:?}");
    let manifest = std::fs::read(lab.data().join("archive").join(manifests[0])).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["complete"], true, "{manifest}");
    let [frames, segmentations, objects] = lab.counts();
    let session = &manifest["session"];
    assert_eq!(
        [&session["frames"], &session["segmentations"], &session["objects"]],
        [frames, segmentations, objects]
    );
    // The manifest names everything that is there but itself, with its hash.
    for object in manifest["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        assert_eq!(archived.get(key).map(String::as_str), object["sha256"].as_str(), "{key}");
    }
    assert_eq!(manifest["objects"].as_array().unwrap().len() + 1, archived.len());
    lab.is_sound();
}

#[test]
fn a_replay_changes_nothing_in_s3_or_postgresql() {
    let server = S3Server::start();
    let postgres = Postgres::new();
    let lab = Lab::new(&(s3(&server.endpoint(), "all") + &central(&postgres)));
    // More than one part.
    assert!(lab.take(70).stop().success());
    let status = lab.json(&["sync", "drain"], 0);
    assert_eq!(waiting(&status), 0, "{status}");
    let counts = lab.counts();
    let (there, digest) = rows(&postgres);
    assert_eq!(there, counts);
    let objects = files(&server.bucket());
    assert!(objects.keys().any(|name| name.contains("/labels/")), "{objects:?}");
    for replay in 1..=3 {
        lab.json(&["sync", "retry", "--everything"], 0);
        assert!(waiting(&lab.json(&["sync", "status"], 0)) >= 8);
        lab.json(&["sync", "drain"], 0);
        assert_eq!(rows(&postgres), (counts, digest.clone()), "replay {replay}");
        assert_eq!(files(&server.bucket()), objects, "replay {replay}");
    }
    let verified = lab.json(&["sync", "verify"], 0);
    assert_eq!(verified["differences"], serde_json::json!([]));
    assert_eq!(verified["rows"].as_u64().unwrap(), counts[0] + counts[1]);
    lab.is_sound();
}

#[test]
fn who_ordered_what_and_why_is_recorded_whichever_way_the_order_came() {
    let lab = Lab::new("[sync.archive]\npixels = \"none\"\n");
    let daemon = lab.take(1);
    lab.json(&["sync", "retry", "--reason", "the bucket was full"], 0);
    ureq::post(daemon.url("/api/v1/commands/pause"))
        .send_json(serde_json::json!({ "reason": "the lamp is changed" }))
        .unwrap();
    assert!(daemon.stop().success());
    let db = lab.database();
    let recorded = |operation: &str| -> [String; 3] {
        let row = "SELECT actor, reason, answer ->> '$.status' FROM command WHERE operation = ?1";
        db.query_row(row, [operation], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).unwrap()
    };
    let user = format!("user:{}", rustix::process::getuid().as_raw());
    let by_user = [user.as_str(), "the bucket was full", "successful"];
    assert_eq!(recorded("retry_deliveries"), by_user);
    assert_eq!(recorded("pause"), ["local", "the lamp is changed", "successful"]);
    let all: i64 = db.query_row("SELECT count(*) FROM command", [], |row| row.get(0)).unwrap();
    assert_eq!(all, 2, "nobody else ordered anything");
    lab.is_sound();
}

/// One view's rows as text cells, by the order of `keys`; columns by name.
type Table = Vec<BTreeMap<String, String>>;

fn view_here(lab: &Lab, view: &str, keys: &str) -> Table {
    let db = lab.database();
    let mut statement = db.prepare(&format!("SELECT * FROM {view} ORDER BY {keys}")).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let cell = |value: rusqlite::types::Value| match value {
        rusqlite::types::Value::Null => String::new(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(bytes) => hex::encode(bytes),
    };
    let rows = statement.query_map([], |row| {
        let cells = names
            .iter()
            .enumerate()
            .map(|(at, name)| row.get(at).map(|value| (name.clone(), cell(value))));
        cells.collect()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn view_there(postgres: &Postgres, view: &str, keys: &str, columns: &[String]) -> Table {
    let list = columns
        .iter()
        .map(|column| match column.as_str() {
            "minute" => {
                "to_char(minute AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')".into()
            }
            column => column.to_owned(),
        })
        .collect::<Vec<String>>()
        .join(", ");
    let answer = postgres.psql(&format!("SELECT {list} FROM reticle.{view} ORDER BY {keys}"));
    let row =
        |line: &str| columns.iter().cloned().zip(line.split('|').map(str::to_owned)).collect();
    answer.lines().map(row).collect()
}

/// Equal as text, or as numbers to within rounding.
fn same(a: &str, b: &str) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs())),
        _ => a == b,
    }
}

#[test]
fn the_views_of_the_box_and_of_the_lab_say_the_same() {
    let postgres = Postgres::new();
    let lab = Lab::new(&central(&postgres));
    assert!(lab.take(40).stop().success());
    lab.json(&["sync", "drain"], 0);
    for (view, keys) in [
        ("session_aggregate", "session"),
        ("plate_aggregate", "session, plate"),
        ("well_aggregate", "session, plate, well"),
        ("field_aggregate", "session, plate, well, field"),
        ("minute_aggregate", "session, minute"),
    ] {
        let here = view_here(&lab, view, keys);
        assert!(!here.is_empty(), "{view}");
        // The model has a key of its own in each database.
        let columns: Vec<String> =
            here[0].keys().filter(|column| *column != "model").cloned().collect();
        let there = view_there(&postgres, view, keys, &columns);
        assert_eq!(here.len(), there.len(), "{view}");
        for (ours, theirs) in here.iter().zip(&there) {
            for column in &columns {
                let (a, b) = (&ours[column], &theirs[column]);
                assert!(same(a, b), "{view}.{column}: {a} here, {b} there");
            }
        }
        let medians: Vec<_> = here.iter().filter(|row| !row["area_p50"].is_empty()).collect();
        assert!(!medians.is_empty(), "{view}: {here:?}");
        // What is only there: which lab and which box.
        let all: u64 = postgres
            .psql(&format!(
                "SELECT count(*) FROM information_schema.columns
                 WHERE table_schema = 'reticle' AND table_name = '{view}'"
            ))
            .parse()
            .unwrap();
        assert_eq!(all as usize, here[0].len() + 2, "{view}");
    }
}

#[test]
fn a_box_without_network_goes_on_and_catches_up_by_itself() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let mut postgres = Postgres::new();
    let lab = Lab::new(&(s3(&proxy.endpoint(), "none") + &central(&postgres)));
    proxy.set("", Fault::Refuse);
    postgres.stop();
    let daemon = lab.take(10);
    // It says what waits and why, and goes on.
    let status = wait_for("both destinations to have failed", || {
        let status = daemon.json("/api/v1/status");
        let sync = status["sync"].as_array()?.clone();
        (sync.len() == 2 && sync[1]["reason"].is_string()).then_some(sync)
    });
    assert!(status[1]["waiting"].as_u64().unwrap() > 0, "{status:?}");
    let before = daemon.json("/api/v1/totals")["segmentations"].as_u64();
    wait_for("results to be saved meanwhile", || {
        (daemon.json("/api/v1/totals")["segmentations"].as_u64() > before).then_some(())
    });
    // A person asks for what cannot be done now: told so, and nothing is lost.
    daemon.kill();
    let left = lab.json(&["sync", "drain"], 1);
    assert!(waiting(&left) > 0);
    lab.is_sound();

    proxy.clear();
    postgres.start();
    let daemon = lab.start();
    lab.json(&["sync", "drain"], 0);
    assert!(daemon.stop().success());
    lab.json(&["sync", "drain"], 0);
    let verified = lab.json(&["sync", "verify"], 0);
    assert_eq!(verified["differences"], serde_json::json!([]));
    assert_eq!(rows(&postgres).0, lab.counts());
}

#[test]
fn verify_finds_what_somebody_did_to_the_archive() {
    let lab = Lab::new("");
    assert!(lab.take(5).stop().success());
    lab.json(&["sync", "drain"], 0);
    let archive = lab.data().join("archive");
    let archived = files(&archive);
    let find = |part: &str| archived.keys().find(|name| name.contains(part)).unwrap();
    let (shard, table) = (find("/labels/"), find("objects/"));
    let mut bytes = std::fs::read(archive.join(shard)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(archive.join(shard), bytes).unwrap();
    std::fs::remove_file(archive.join(table)).unwrap();
    let stray = find("/manifest.json").replace("manifest.json", "stray");
    std::fs::write(archive.join(&stray), b"?").unwrap();
    let verified = lab.json(&["sync", "verify"], 1);
    let mut different: Vec<_> = verified["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| difference["key"].as_str().unwrap().to_owned())
        .collect();
    different.sort();
    let mut expected = vec![shard.clone(), table.clone(), stray.clone()];
    expected.sort();
    assert_eq!(different, expected);
    // And this is how it is mended.
    std::fs::remove_file(archive.join(stray)).unwrap();
    lab.json(&["sync", "retry", "--everything"], 0);
    lab.json(&["sync", "drain"], 0);
    assert_eq!(files(&archive), archived);
}

#[test]
fn objects_that_are_not_what_the_archive_took_are_put_anew() {
    let server = S3Server::start();
    let lab = Lab::new(&s3(&server.endpoint(), "all"));
    assert!(lab.take(10).stop().success());
    lab.json(&["sync", "drain"], 0);
    let there = files(&server.bucket());
    // As a server does that is killed between the bytes of an object and their checksum.
    let parts = there.keys().filter(|key| key.contains("/c/0/") || key.ends_with(".parquet"));
    let parts: Vec<_> = parts.map(|key| server.bucket().join(key)).collect();
    assert!(parts.len() >= 5, "{parts:?}");
    for part in &parts {
        let mut bytes = std::fs::read(part).unwrap();
        bytes.push(0);
        std::fs::write(part, bytes).unwrap();
    }
    lab.json(&["sync", "retry", "--everything"], 0);
    let status = lab.json(&["sync", "drain"], 0);
    assert_eq!(status["destinations"][0]["quarantined"], 0, "{status}");
    assert_eq!(files(&server.bucket()), there);
    assert_eq!(lab.json(&["sync", "verify"], 0)["differences"], serde_json::json!([]));
}

#[test]
fn a_damaged_result_is_named_and_holds_nobody_up() {
    let lab = Lab::new("[sync.archive]\nto = \"none\"\n");
    assert!(lab.take(10).stop().success());
    let damage = "UPDATE segmentation SET labels = x'00ff' WHERE pk = 3";
    lab.database().execute(damage, []).unwrap();
    let frame: Vec<u8> = lab
        .database()
        .query_row(
            "SELECT id FROM frame WHERE pk = (SELECT frame FROM segmentation WHERE pk = 3)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    lab.configure("");
    let left = lab.json(&["sync", "drain"], 1);
    assert_eq!(waiting(&left), 0, "everything else is delivered: {left}");
    assert_eq!(left["destinations"][0]["refused"], 1);
    let quarantine = lab.json(&["outbox", "quarantine"], 0);
    let named = quarantine["single"][0]["frame"].as_str().unwrap().replace('-', "");
    assert_eq!(named, hex::encode(frame));
    let verified = lab.json(&["sync", "verify"], 1);
    assert!(verified["objects"].as_u64().unwrap() > 5);
    // What the box has of it is damaged, wherever it was delivered or not.
    assert_eq!(verified["differences"].as_array().unwrap().len(), 1, "{verified}");
    let retried = lab.json(&["sync", "retry"], 0);
    assert_eq!(retried["retried"], 1);
}

#[test]
fn without_room_the_live_view_goes_on_and_recording_resumes_by_itself() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let sync = s3(&proxy.endpoint(), "all");
    let lab = Lab::new(&sync);
    // About 30 frames of 128 × 128 at 16 bits, which is less than a part.
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let text = text.replace("[store.frames]\n", "[store.frames]\nmax_bytes = 1000000\n");
    std::fs::write(lab.config(), text).unwrap();
    proxy.set("", Fault::Refuse);
    let daemon = lab.start();
    let status = wait_for("frames to be held", || {
        let status = daemon.json("/api/v1/status");
        (status["counters"]["unrecorded"].as_u64()? > 5).then_some(status)
    });
    let reason = status["recording_paused"].as_str().unwrap();
    assert!(reason.contains("wait for the archive"), "{reason}");
    assert_eq!(status["counters"]["evicted"], 0, "nothing that was promised is gone");
    let recorded = daemon.json("/api/v1/totals")["frames"].as_u64().unwrap();
    // The live view goes on.
    let newest = status["newest"]["sequence"].as_u64();
    wait_for("the live view to go on", || {
        (daemon.json("/api/v1/status")["newest"]["sequence"].as_u64() > newest).then_some(())
    });
    assert_eq!(daemon.json("/api/v1/totals")["frames"].as_u64(), Some(recorded));

    proxy.clear();
    wait_for("frames to be taken again", || {
        let held = daemon.json("/api/v1/status")["recording_paused"].is_string();
        let frames = daemon.json("/api/v1/totals")["frames"].as_u64()?;
        (!held && frames > recorded).then_some(())
    });
    // What was delivered to make room was evicted; frames are added to the same part later.
    wait_for("files to have made room", || {
        let status = daemon.json("/api/v1/status");
        (status["counters"]["evicted"].as_u64()? > 0).then_some(())
    });
    assert!(daemon.stop().success());
    let status = lab.json(&["sync", "drain"], 0);
    assert_eq!(status["destinations"][0]["quarantined"], 0, "{status}");
    assert_eq!(lab.json(&["sync", "verify"], 0)["differences"], serde_json::json!([]));
    lab.is_sound();
    pixels_are_archived(&lab, &server);
}

/// Every frame that was to be archived has its pixels there, whether they are still here or not.
fn pixels_are_archived(lab: &Lab, server: &S3Server) {
    use reticle_exchange::zarr::{ShardReader, ShardShape};
    let shards: Vec<_> =
        files(&server.bucket()).into_keys().filter(|name| name.contains(".zarr/0/c/")).collect();
    let frames: Vec<(u32, Vec<u8>)> = lab
        .database()
        .prepare("SELECT position, sha256 FROM frame WHERE archived > 0 ORDER BY position")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let shape = ShardShape { frames: 64, width: 128, height: 128, bytes_per_pixel: 2 };
    for (position, sha256) in frames {
        let end = format!(".zarr/0/c/{}/0/0", position / 64);
        let shard = shards.iter().find(|name| name.ends_with(&end)).unwrap();
        let mut shard = ShardReader::open(&server.bucket().join(shard), shape).unwrap();
        let pixels = shard.read(position % 64).unwrap();
        let pixels = pixels.unwrap_or_else(|| panic!("frame {position} is not there"));
        assert_eq!(Sha256::digest(pixels).as_slice(), sha256, "frame {position}");
    }
}

//! A box that knows less than its archive or its database, whatever the reason, takes nothing
//! away from them; and two boxes of one database both notice.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not last")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

mod common;

use common::lab::{Lab, central, files, s3, waiting};
use common::postgres::Postgres;
use common::s3_server::S3Server;
use common::{Daemon, wait_for};

/// Bytes of every object of an archive, but for what says who delivers.
fn objects(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files(folder)
        .into_keys()
        .map(|name| {
            let bytes = std::fs::read(folder.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// Asserts that everything of `before` is there as it was.
fn nothing_was_taken(folder: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let now = objects(folder);
    for (name, bytes) in before {
        let found = now.get(name).unwrap_or_else(|| panic!("{name} is gone"));
        assert!(found == bytes, "{name} had {} bytes and has {}", bytes.len(), found.len());
    }
}

/// A copy of a data folder as an administrator makes one: of the files, with no command of ours.
fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).ok();
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn alarm(daemon: &Daemon, kind: &str) -> Option<String> {
    let status = daemon.json("/api/v1/status");
    let alarms = status["alarms"].as_array()?;
    let alarm = alarms.iter().find(|alarm| alarm["kind"] == kind)?;
    Some(alarm["reason"].as_str()?.to_owned())
}

fn conflict(lab: &Lab, destination: &str) -> Option<String> {
    let status = lab.json(&["sync", "status"], 0);
    let all = status["destinations"].as_array()?;
    let one = all.iter().find(|one| one["destination"] == destination)?;
    Some(one["conflict"].as_str()?.to_owned())
}

fn differences(verified: &Value) -> Vec<String> {
    let all = verified["differences"].as_array().unwrap();
    all.iter().map(|one| one["key"].as_str().unwrap_or("the rows").to_owned()).collect()
}

/// Another box's data folder and configuration, with the same destinations.
fn twin(lab: &Lab, sync: &str) -> Lab {
    let twin = Lab::new(sync);
    copy(&lab.data(), &twin.data());
    twin
}

#[test]
fn an_older_database_put_back_takes_nothing_from_archive_and_database() {
    let server = S3Server::start();
    let postgres = Postgres::new();
    let lab = Lab::new(&(s3(&server.endpoint(), "all") + &central(&postgres)));
    assert!(lab.take(20).stop().success());
    lab.json(&["sync", "drain"], 0);
    let backup = tempfile::tempdir().unwrap();
    copy(&lab.data(), &backup.path().join("data"));
    assert!(lab.take(90).stop().success());
    lab.json(&["sync", "drain"], 0);
    let (before, counts) = (objects(&server.bucket()), lab.counts());
    let rows = || {
        ["frame", "segmentation", "object"].map(|table| {
            postgres.psql(&format!(
                "SELECT count(*), md5(string_agg(t::text, '~' ORDER BY t::text))
                 FROM reticle.{table} AS t"
            ))
        })
    };
    let rows_before = rows();

    copy(&backup.path().join("data"), &lab.data());
    assert!(lab.counts()[1] < counts[1], "it knows less now");
    // A person asks for all of it, and the box goes on to capture.
    lab.json(&["sync", "retry", "--everything"], 0);
    let daemon = lab.take(lab.counts()[1] + 10);
    let reason = wait_for("the alarm for both", || {
        alarm(&daemon, "archive_ahead").filter(|reason| {
            reason.contains("archive (s3://lab/lab-7)") && reason.contains("central (postgresql://")
        })
    });
    assert!(reason.contains("its database is an older copy"), "{reason}");
    assert!(reason.contains("test/box-1") && reason.contains("sync adopt"), "{reason}");
    assert_eq!(daemon.log().matches("deliveries stop").count(), 2, "said once for each");
    let saved = daemon.json("/api/v1/totals")["segmentations"].as_u64();
    wait_for("results to be saved all the same", || {
        (daemon.json("/api/v1/totals")["segmentations"].as_u64() > saved).then_some(())
    });
    assert!(daemon.stop().success());
    // Not by another try either, and not after another start.
    for _ in 0..3 {
        assert!(waiting(&lab.json(&["sync", "drain"], 1)) > 0);
        assert!(lab.take(1).stop().success());
    }
    for destination in ["archive", "central"] {
        assert!(conflict(&lab, destination).unwrap().contains("deliveries"), "{destination}");
    }
    nothing_was_taken(&server.bucket(), &before);
    assert_eq!(rows(), rows_before);
    let disputed = "SELECT disputed_high_water < high_water FROM reticle.store";
    assert_eq!(postgres.psql(disputed), "t");
    lab.is_sound();
}

#[test]
fn two_boxes_of_one_database_both_notice_and_both_stop() {
    let server = S3Server::start();
    let postgres = Postgres::new();
    let sync = s3(&server.endpoint(), "none") + &central(&postgres);
    let lab = Lab::new(&sync);
    assert!(lab.take(20).stop().success());
    lab.json(&["sync", "drain"], 0);
    let twin = twin(&lab, &sync);
    let (one, other) = (lab.start(), twin.start());
    for (box_, daemon) in [(&lab, &one), (&twin, &other)] {
        wait_for("the alarm for both destinations", || {
            // What is delivered only now and then is asked for.
            box_.run(&["sync", "drain"]);
            alarm(daemon, "archive_ahead").filter(|reason| {
                reason.contains("archive (s3:") && reason.contains("central (postgresql:")
            })
        });
    }
    let (before, rows) = (objects(&server.bucket()), postgres.psql("TABLE reticle.segmentation"));
    for (box_, daemon) in [(&lab, one), (&twin, other)] {
        let saved = daemon.json("/api/v1/totals")["segmentations"].as_u64();
        wait_for("results to be saved all the same", || {
            (daemon.json("/api/v1/totals")["segmentations"].as_u64() > saved).then_some(())
        });
        assert!(daemon.stop().success());
        assert!(waiting(&box_.json(&["sync", "drain"], 1)) > 0);
        box_.is_sound();
    }
    nothing_was_taken(&server.bucket(), &before);
    assert_eq!(postgres.psql("TABLE reticle.segmentation"), rows);
}

/// Flips a bit of a file in its middle.
fn rot(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

/// A box with 70 results and more, all delivered with their pixels, and its archive.
fn delivered() -> (Lab, PathBuf) {
    let lab = Lab::new("[sync.archive]\npixels = \"all\"\n");
    assert!(lab.take(70).stop().success());
    lab.json(&["sync", "drain"], 0);
    assert_eq!(differences(&lab.json(&["sync", "verify"], 0)), [""; 0]);
    let archive = lab.data().join("archive");
    (lab, archive)
}

#[test]
fn what_rotted_here_does_not_replace_what_is_good_there() {
    let (lab, archive) = delivered();
    let before = objects(&archive);
    // A label image, the objects of another result, and a file with pixels.
    let db = lab.database();
    db.execute("UPDATE segmentation SET labels = x'00ff' WHERE pk = 3", []).unwrap();
    let objects_of = "SELECT segmentation FROM object GROUP BY 1 ORDER BY count(*) DESC LIMIT 1";
    let result: i64 = db.query_row(objects_of, [], |row| row.get(0)).unwrap();
    db.execute("DELETE FROM object WHERE segmentation = ?1 AND label = 1", [result]).unwrap();
    let file: String =
        db.query_row("SELECT file FROM frame WHERE pk = 5", [], |row| row.get(0)).unwrap();
    drop(db);
    rot(&lab.data().join(file));

    lab.json(&["sync", "retry", "--everything"], 0);
    let status = lab.json(&["sync", "drain"], 1);
    assert_eq!(waiting(&status), 0, "{status}");
    assert_eq!(status["destinations"][0]["refused"], 3, "each is named: {status}");
    assert_eq!(status["destinations"][0]["quarantined"], 0, "{status}");
    nothing_was_taken(&archive, &before);
    let verified = lab.json(&["sync", "verify"], 1);
    let different = differences(&verified);
    assert_eq!(different.len(), 2, "{verified}");
    assert!(different[0].contains(".zarr/0/c/0/") && different[1].contains("/labels/"));
}

#[test]
fn what_the_box_forgot_stays_in_the_archive() {
    // Rows are gone, and so is what told the archive and the box how far they had come.
    let (lab, archive) = delivered();
    let before = objects(&archive);
    let db = lab.database();
    db.execute_batch(
        "DELETE FROM object WHERE segmentation IN
             (SELECT segmentation.pk FROM segmentation JOIN frame ON frame.pk = frame
              WHERE position >= 40);
         DELETE FROM segmentation WHERE frame IN (SELECT pk FROM frame WHERE position >= 40);
         DELETE FROM frame WHERE position >= 40;
         UPDATE series SET frames = 40;
         UPDATE session SET frames = 40;
         DELETE FROM receipt;",
    )
    .unwrap();
    drop(db);
    std::fs::remove_dir_all(archive.join(".reticle")).unwrap();
    lab.json(&["sync", "retry", "--everything"], 0);
    assert!(waiting(&lab.json(&["sync", "drain"], 1)) > 0);
    let found = conflict(&lab, "archive").unwrap();
    assert!(found.contains("which this box does not know"), "{found}");
    nothing_was_taken(&archive, &before);
}

#[test]
fn a_manifest_that_names_more_is_not_replaced() {
    let (lab, archive) = delivered();
    let name = objects(&archive).into_keys().find(|name| name.ends_with("manifest.json")).unwrap();
    let manifest = archive.join(name);
    let text = std::fs::read_to_string(&manifest).unwrap();
    let more = text.replacen(
        "\"objects\": [",
        "\"objects\": [ {\"key\": \"sessions/x/part\", \
        \"bytes\": 1, \"sha256\": \"00\", \"kind\": \"label-shard\"},",
        1,
    );
    assert_ne!(more, text);
    std::fs::write(&manifest, &more).unwrap();
    lab.json(&["sync", "retry", "--everything"], 0);
    lab.json(&["sync", "drain"], 1);
    let found = conflict(&lab, "archive").unwrap();
    assert!(found.contains("sessions/x/part"), "{found}");
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), more);
}

#[test]
fn a_destination_that_was_left_out_for_a_while_is_no_older_copy() {
    let lab = Lab::new("");
    assert!(lab.take(10).stop().success());
    lab.json(&["sync", "drain"], 0);
    lab.configure("[sync.archive]\nto = \"none\"\n");
    assert!(lab.take(15).stop().success());
    lab.configure("");
    lab.json(&["sync", "drain"], 0);
    assert_eq!(conflict(&lab, "archive"), None);
    assert_eq!(differences(&lab.json(&["sync", "verify"], 0)), [""; 0]);
    // Nor is a bucket that somebody emptied.
    std::fs::remove_dir_all(lab.data().join("archive")).unwrap();
    lab.json(&["sync", "retry", "--everything"], 0);
    assert_eq!(waiting(&lab.json(&["sync", "drain"], 0)), 0);
    assert_eq!(differences(&lab.json(&["sync", "verify"], 0)), [""; 0]);
}

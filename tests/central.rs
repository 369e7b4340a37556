//! Delivery into a real PostgreSQL: what is there afterwards, what a replay changes (nothing),
//! and what each failure is told to mean.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod common;

use reticle_base::remedy::Remedy;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::postgres::{Postgres, give_to_owner};
use common::{PATIENCE, wait_for};
use reticle::sync::central::{Batch, Central, CentralCounts, SessionDigest};
use reticle::sync::{CentralOptions, Claimant, SyncError, Writer};
use reticle_base::clock::Clock;
use reticle_base::ids::{EpochId, FrameId, SessionId, StoreId};
use reticle_domain::facts::{BoxName, Dated, FrameFacts, ModelFacts, ResultFacts, SessionFacts};
use reticle_domain::frame::Place;
use reticle_domain::look::{Look, ScaleFrom, Unlike};
use reticle_domain::object::Object;
use reticle_domain::segmentation::{IN_FOCUS, ModelRef, Timings};
use reticle_store::Identity;
use tokio::task::JoinSet;
use uuid::Uuid;

/// 2026-03-01T12:00:30Z.
const NOON_NS: i64 = 1_772_366_430_000_000_000;

const TABLES: [&str; 6] = ["box", "session", "frame", "model", "segmentation", "object"];

fn connect(url: String, password: &str, ca_file: Option<&Path>) -> Central {
    connect_as("box-1", url, password, ca_file)
}

fn connect_as(name: &str, url: String, password: &str, ca_file: Option<&Path>) -> Central {
    let options = CentralOptions { url: Some(url), ca_file: ca_file.map(Path::to_owned) };
    let box_name = BoxName { site: "lab".to_owned(), name: name.to_owned() };
    let central = Central::with_password(&options, box_name, Some(password.to_owned()));
    central.expect("the URL can be meant").expect("there is a URL")
}

fn central(postgres: &Postgres) -> Central {
    connect(postgres.url(), postgres.password(), None)
}

fn dated(at_ns: i64) -> Dated {
    Dated { at_ns, recorded_ns: at_ns, mono_ns: 5_000, boot: Uuid::from_u128(7) }
}

fn session() -> SessionFacts {
    SessionFacts {
        id: SessionId::new(),
        name: "plate 7, day 2".to_owned(),
        source: "virtual".to_owned(),
        channel: Some("DAPI".to_owned()),
        operator: None,
        pixel_size_um: Some(0.5),
        started: dated(NOON_NS),
        ended: None,
        frames: 0,
        segmentations: 0,
        objects: 0,
        archive_date: "2026-03-01".to_owned(),
    }
}

fn frame(session: &SessionFacts, well: &str, position: u64) -> FrameFacts {
    FrameFacts {
        pk: 0,
        id: FrameId::new(),
        session: session.id,
        series: 0,
        position,
        sequence: position,
        captured: dated(NOON_NS + i64::try_from(position).unwrap() * 200_000_000),
        exposure_us: Some(100_000),
        width: 100,
        height: 50,
        bit_depth: 8,
        sha256: [u8::try_from(position % 251).unwrap(); 32],
        pixel_size_um: None,
        pixel_size_source: None,
        pixel_size_note: None,
        place: Place { plate: Some("P7".to_owned()), well: Some(well.to_owned()), field: Some(1) },
        origin: None,
        segmented: true,
        has_pixels: false,
    }
}

fn object(label: u32, area: u32) -> Object {
    Object {
        label,
        area,
        centroid_0: 1.5,
        centroid_1: 2.5,
        bbox_0: 0,
        bbox_1: 1,
        bbox_2: 3,
        bbox_3: 4,
        perimeter: 12.0,
        eccentricity: 0.5,
        solidity: f64::NAN,
        major_axis_length: 4.0,
        minor_axis_length: 2.0,
        orientation: 0.1,
        intensity_mean: f64::from(area) * 2.0,
        intensity_max: 255.0,
        intensity_min: 0.0,
        touches_border: false,
    }
}

fn result(frame: &Arc<FrameFacts>, focus: f32, areas: &[u32]) -> (ResultFacts, Vec<Object>) {
    let model = ModelRef {
        name: "nuclei".to_owned(),
        sha256: "ab".repeat(32),
        parameters: "{}".to_owned(),
        software: "0.1.0".to_owned(),
    };
    let facts = ResultFacts {
        pk: 0,
        frame: Arc::clone(frame),
        model: Arc::new(ModelFacts { pk: 0, model }),
        objects: u32::try_from(areas.len()).unwrap(),
        focus,
        look: (focus > 0.5).then_some(Look {
            scale_from: ScaleFrom::Session,
            scale: 0.5,
            size_ratio: Some(2.5),
            unlike: Some(Unlike::DarkOnBright),
        }),
        timings: Timings { normalise_us: 1, network_us: 2, instances_us: 3, measure_us: 4 },
        committed: dated(frame.captured.at_ns + 50_000_000),
        labels_sha256: frame.sha256,
    };
    (facts, areas.iter().zip(1..).map(|(&area, label)| object(label, area)).collect())
}

/// A store that nobody has heard of, with this mark.
fn claimant(box_name: &str, mark: i64) -> Claimant {
    let identity = Identity { store: StoreId::new(), epoch: EpochId::new() };
    let box_name = BoxName { site: "lab".to_owned(), name: box_name.to_owned() };
    Claimant { identity, writer: Writer::of_this_process(&box_name, Clock::system()), mark }
}

/// Frames of one session, each with its result.
fn batch(session: &Arc<SessionFacts>, frames: &[(FrameFacts, f32, &[u32])]) -> Batch {
    let mut batch = Batch {
        session: Arc::clone(session),
        frames: Vec::new(),
        results: Vec::new(),
        claimant: claimant("box-1", 1),
    };
    for (facts, focus, areas) in frames {
        let facts = Arc::new(facts.clone());
        batch.results.push(result(&facts, *focus, areas));
        batch.frames.push(facts);
    }
    batch
}

/// A session with three frames that have results and one that has none.
fn usual() -> Batch {
    let session = Arc::new(session());
    let mut usual = batch(
        &session,
        &[
            (frame(&session, "A01", 0), 0.9, &[10, 20, 30]),
            (frame(&session, "A01", 1), f32::NAN, &[]),
            (frame(&session, "A02", 2), 0.2, &[40]),
        ],
    );
    usual.frames.push(Arc::new(frame(&session, "A03", 3)));
    usual
}

/// A hash over every value of every row of every table, with the numbers of rows.
fn fingerprint(postgres: &Postgres) -> String {
    let of = |table: &str| {
        postgres.psql(&format!(
            "SELECT '{table}', count(*), md5(string_agg(t::text, '~' ORDER BY t::text))
             FROM reticle.{table} AS t"
        ))
    };
    TABLES.map(of).join("\n")
}

fn digest_of(batch: &Batch) -> SessionDigest {
    let mut digest = SessionDigest::default();
    for frame in &batch.frames {
        digest.frame(frame.id, &frame.sha256);
    }
    for (result, objects) in &batch.results {
        let objects = objects.len() as u64;
        digest.result(result.frame.id, &result.model.key(), &result.labels_sha256, objects);
    }
    digest
}

fn refused(outcome: Result<(), SyncError>, remedy: Remedy, text: &str) {
    let error = outcome.expect_err("it is refused");
    assert_eq!(error.remedy, remedy, "{error}");
    assert!(error.to_string().contains(text), "{error}\nhas no {text:?}");
    assert!(!error.to_string().contains("open sesame"), "{error}");
}

#[tokio::test]
async fn the_schema_is_made_from_nothing_and_found_again() {
    let postgres = Postgres::new();
    central(&postgres).check().await.unwrap();
    let history = postgres.psql("SELECT * FROM reticle.schema_history ORDER BY version");
    assert_eq!(history.lines().count(), 1, "{history}");
    central(&postgres).check().await.unwrap();
    assert_eq!(postgres.psql("SELECT * FROM reticle.schema_history ORDER BY version"), history);
}

#[tokio::test]
async fn boxes_that_come_at_once_make_one_schema_and_share_it() {
    let postgres = Postgres::new();
    let mut boxes = JoinSet::new();
    for _ in 0..4 {
        let central = central(&postgres);
        boxes.spawn(async move { central.deliver(&usual()).await });
    }
    for delivered in boxes.join_all().await {
        delivered.unwrap();
    }
    assert_eq!(postgres.psql("SELECT count(*) FROM reticle.schema_history"), "1");
    assert_eq!(postgres.psql("SELECT count(*) FROM reticle.frame"), "16");
    assert_eq!(postgres.psql("SELECT count(*) FROM reticle.model"), "1");
}

#[tokio::test]
async fn what_is_delivered_is_there_and_a_replay_changes_nothing() {
    let postgres = Postgres::new();
    let central = central(&postgres);
    let batch = usual();
    central.deliver(&batch).await.unwrap();
    let session = batch.session.id;
    let counts = CentralCounts { frames: 4, segmentations: 3, objects: 4 };
    assert_eq!(central.counts(session).await.unwrap(), counts);
    assert_eq!(central.digest(session).await.unwrap(), digest_of(&batch));
    let first = postgres.psql(
        "SELECT captured_at, captured_mono_ns, encode(sha256, 'hex'), well, focus, label, area,
                solidity IS NULL, intensity_mean, ended_at IS NULL, segmentation.model
         FROM reticle.session
         JOIN reticle.frame ON frame.session = session.id
         JOIN reticle.segmentation ON segmentation.frame = frame.id
         JOIN reticle.object ON object.segmentation = segmentation.pk
         WHERE well = 'A02'",
    );
    let key = batch.results[0].0.model.key();
    let sha256 = "02".repeat(32);
    assert_eq!(first, format!("2026-03-01 12:00:30.4+00|5000|{sha256}|A02|0.2|1|40|t|80|t|{key}"));
    let nothing = postgres.psql("SELECT focus IS NULL FROM reticle.segmentation WHERE objects = 0");
    assert_eq!(nothing, "t", "a focus that could not be told is null");

    let before = fingerprint(&postgres);
    for _ in 0..3 {
        central.deliver(&batch).await.unwrap();
    }
    let part = Batch {
        session: Arc::clone(&batch.session),
        frames: Vec::new(),
        results: batch.results.iter().take(1).cloned().collect(),
        claimant: batch.claimant.clone(),
    };
    central.deliver(&part).await.unwrap();
    assert_eq!(fingerprint(&postgres), before);
}

#[tokio::test]
async fn a_result_that_is_computed_again_replaces_its_objects_as_a_whole() {
    let postgres = Postgres::new();
    let central = central(&postgres);
    let session = Arc::new(session());
    let facts = frame(&session, "A01", 0);
    central.deliver(&batch(&session, &[(facts.clone(), 0.9, &[10, 20, 30])])).await.unwrap();
    central.deliver(&batch(&session, &[(facts, 0.8, &[11, 21])])).await.unwrap();
    assert_eq!(postgres.psql("SELECT label, area FROM reticle.object ORDER BY 1"), "1|11\n2|21");
    let looked =
        "SELECT objects, focus, scale_from, scale, size_ratio, unlike FROM reticle.segmentation";
    assert_eq!(postgres.psql(looked), "2|0.8|session|0.5|2.5|dark-on-bright");
}

#[tokio::test]
async fn times_are_dated_again_and_what_a_session_gained_stays() {
    let postgres = Postgres::new();
    let central = central(&postgres);
    let mut facts = session();
    let mut shot = frame(&facts, "A01", 0);
    facts.frames = 5;
    facts.ended = Some(dated(NOON_NS + 60_000_000_000));
    central.deliver(&batch(&Arc::new(facts.clone()), &[(shot.clone(), 0.9, &[10])])).await.unwrap();
    shot.captured.at_ns += 3_600_000_000_000;
    facts.frames = 3;
    facts.ended = None;
    central.deliver(&batch(&Arc::new(facts), &[(shot, 0.9, &[10])])).await.unwrap();
    assert_eq!(
        postgres.psql("SELECT captured_at, captured_recorded_at FROM reticle.frame"),
        "2026-03-01 13:00:30+00|2026-03-01 12:00:30+00"
    );
    assert_eq!(
        postgres.psql("SELECT ended_at, frames_recorded FROM reticle.session"),
        "2026-03-01 12:01:30+00|5"
    );
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_and_stops() {
    let postgres = Postgres::new();
    let stranger = connect(postgres.url(), "wrong", None);
    refused(stranger.check().await, Remedy::Stop, "28P01");
    refused(stranger.deliver(&usual()).await, Remedy::Stop, "RETICLE_CENTRAL_PASSWORD");
    let elsewhere = postgres.url().replace("/lab", "/nowhere");
    let lost = connect(elsewhere, postgres.password(), None);
    refused(lost.check().await, Remedy::Stop, "database \"nowhere\" does not exist");
    let tls = format!("{}?sslmode=require", postgres.url());
    let demanding = connect(tls, postgres.password(), None);
    refused(demanding.check().await, Remedy::Stop, "server does not support TLS");
}

#[tokio::test]
async fn a_server_that_was_restarted_is_found_again() {
    let mut postgres = Postgres::new();
    let central = central(&postgres);
    let batch = usual();
    central.deliver(&batch).await.unwrap();
    let before = fingerprint(&postgres);
    // It may have heard of the end or not; both are well, and nothing is written twice.
    postgres.restart();
    if let Err(error) = central.deliver(&batch).await {
        assert_eq!(error.remedy, Remedy::Retry, "{error}");
        central.deliver(&batch).await.unwrap();
    }
    assert_eq!(fingerprint(&postgres), before);

    postgres.stop();
    refused(central.counts(batch.session.id).await.map(drop), Remedy::Retry, "");
    refused(central.deliver(&usual()).await, Remedy::Retry, "Connection refused");
    postgres.start();
    central.deliver(&usual()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_waited_for() {
    let postgres = Postgres::new();
    let central = central(&postgres);
    central.deliver(&usual()).await.unwrap();
    let before = fingerprint(&postgres);
    let read_only = |value: &str| {
        postgres.psql(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        postgres.psql("SELECT pg_reload_conf()");
        wait_for("the setting", || {
            (postgres.psql("SHOW default_transaction_read_only") == value).then_some(())
        });
    };
    read_only("on");
    for _ in 0..2 {
        refused(central.deliver(&usual()).await, Remedy::Retry, "the server takes no writes");
    }
    assert_eq!(fingerprint(&postgres), before);
    read_only("off");
    central.deliver(&usual()).await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_tried_again() {
    // Three of five are the administrator's.
    let postgres = Postgres::with_settings(&["max_connections=5"]);
    let (first, second) = (central(&postgres), central(&postgres));
    // The server gives a slot back a moment after its backend is out of pg_stat_activity.
    let connected = async |central: &Central| {
        while let Err(error) = central.check().await {
            assert_eq!(error.remedy, Remedy::Retry, "{error}");
        }
    };
    tokio::time::timeout(PATIENCE, connected(&first)).await.unwrap();
    tokio::time::timeout(PATIENCE, connected(&second)).await.unwrap();
    let third = central(&postgres);
    refused(third.deliver(&usual()).await, Remedy::Retry, "max_connections");
    second.close().await;
    tokio::time::timeout(PATIENCE, connected(&third)).await.unwrap();
    third.deliver(&usual()).await.unwrap();
}

#[tokio::test]
async fn a_frame_that_can_never_be_written_is_named_and_stops_no_other() {
    let postgres = Postgres::new();
    let central = central(&postgres);
    let session = Arc::new(session());
    let sound = frame(&session, "A01", 0);
    let with = |poison: &FrameFacts| {
        batch(&session, &[(sound.clone(), 0.9, &[10]), (poison.clone(), 0.9, &[20])])
    };
    let mut text = frame(&session, "A\0", 1);
    refused(central.deliver(&with(&text)).await, Remedy::GiveUp, &text.id.to_string());
    text.place.well = None;
    let mut size = text.clone();
    size.width = 0;
    refused(central.deliver(&with(&size)).await, Remedy::GiveUp, &size.id.to_string());
    let mut miscounted = with(&text);
    miscounted.results[1].0.objects = 9;
    refused(central.deliver(&miscounted).await, Remedy::GiveUp, &text.id.to_string());
    assert_eq!(postgres.psql("SELECT count(*) FROM reticle.frame"), "0");
    central.deliver(&with(&text)).await.unwrap();
    assert_eq!(postgres.psql("SELECT count(*) FROM reticle.frame"), "2");
}

#[tokio::test]
async fn a_role_that_may_not_make_the_schema_uses_one_that_is_there() {
    let postgres = Postgres::new();
    postgres.psql("CREATE ROLE guest LOGIN PASSWORD 'open sesame'");
    let guest = connect(postgres.url_of("guest"), postgres.password(), None);
    refused(guest.check().await, Remedy::Stop, "there is no schema reticle yet");

    central(&postgres).check().await.unwrap();
    refused(guest.check().await, Remedy::Stop, "permission denied for schema reticle");
    postgres.psql("GRANT USAGE ON SCHEMA reticle TO guest");
    postgres.psql("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA reticle TO guest");
    refused(guest.check().await, Remedy::Stop, "DELETE on reticle.object");
    postgres.psql("GRANT UPDATE, DELETE ON ALL TABLES IN SCHEMA reticle TO guest");
    guest.check().await.unwrap();
    guest.deliver(&usual()).await.unwrap();

    postgres.psql("DELETE FROM reticle.schema_history");
    let late = connect(postgres.url_of("guest"), postgres.password(), None);
    refused(late.check().await, Remedy::Stop, "this Reticle needs version 1");
}

#[tokio::test]
async fn a_schema_from_before_the_first_release_is_refused_with_a_clear_word() {
    let postgres = Postgres::new();
    central(&postgres).check().await.unwrap();
    // As those programs called it.
    let old = "ALTER TABLE reticle.compatibility RENAME COLUMN oldest_reader TO oldest_writer";
    postgres.psql(old);
    let late = central(&postgres);
    refused(late.deliver(&usual()).await, Remedy::Stop, "from before version 0.1.0");
    assert_eq!(postgres.psql("SELECT count(*) FROM reticle.frame"), "0");
}

#[tokio::test]
async fn a_newer_schema_is_written_to_until_it_says_no() {
    let postgres = Postgres::new();
    central(&postgres).check().await.unwrap();
    postgres.psql(
        "INSERT INTO reticle.schema_history VALUES (9, 'later', '2031-01-01T00:00:00Z', '1')",
    );
    postgres.psql("ALTER TABLE reticle.frame ADD COLUMN objective text NOT NULL DEFAULT ''");
    central(&postgres).deliver(&usual()).await.unwrap();
    postgres.psql("UPDATE reticle.compatibility SET oldest_reader = 9");
    refused(central(&postgres).deliver(&usual()).await, Remedy::Stop, "update Reticle on this box");
}

#[tokio::test]
async fn rows_that_somebody_swallows_are_missed_before_the_commit() {
    let tables = ["session", "frame", "segmentation", "object", "store"];
    // Of a swallowed session or frame the foreign keys of what belongs to it speak.
    for (table, named) in [
        ("segmentation", "3 rows were sent for the table reticle.segmentation and 0 of them"),
        ("object", "4 rows were sent for the table reticle.object and 0 of them"),
        ("store", "who delivers was not written"),
    ] {
        let postgres = Postgres::new();
        let central = central(&postgres);
        central.check().await.unwrap();
        postgres.psql(&format!(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN RETURN NULL; END';
             CREATE TRIGGER swallow BEFORE INSERT ON reticle.{table}
                 FOR EACH ROW EXECUTE FUNCTION swallow()"
        ));
        refused(central.deliver(&usual()).await, Remedy::Stop, named);
        for table in tables {
            let rows = postgres.psql(&format!("SELECT count(*) FROM reticle.{table}"));
            assert_eq!(rows, "0", "{table}");
        }
        postgres.psql(&format!("DROP TRIGGER swallow ON reticle.{table}"));
        central.deliver(&usual()).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_knows_less_than_was_delivered_is_refused_and_its_twin_told() {
    let postgres = Postgres::new();
    let (original, copy) = (central(&postgres), central(&postgres));
    let with = |mark: i64, of: &Claimant| {
        let mut batch = usual();
        batch.claimant = Claimant { mark, ..of.clone() };
        batch
    };
    let first = claimant("box-1", 0);
    for mark in [1, 2, 5] {
        original.deliver(&with(mark, &first)).await.unwrap();
    }
    let standing = original.standing(first.identity.store).await.unwrap().unwrap();
    assert_eq!((standing.high_water, standing.disputed), (5, None));
    assert_eq!(standing.box_name, "lab/box-1");
    let before = fingerprint(&postgres);
    let box_name = first.writer.box_name.clone();
    let writer = Writer::of_this_process(&box_name, Clock::system());
    let second = Claimant { writer, ..first.clone() };
    let outcome = copy.deliver(&with(4, &second)).await;
    assert_eq!(outcome.as_ref().unwrap_err().conflict, Some(5));
    refused(outcome, Remedy::Stop, "it was given 5 deliveries by this box's store");
    let outcome = original.deliver(&with(6, &first)).await;
    assert_eq!(outcome.as_ref().unwrap_err().conflict, Some(5));
    refused(outcome, Remedy::Stop, "two boxes deliver");
    assert_eq!(fingerprint(&postgres), before);
    let standing = original.standing(first.identity.store).await.unwrap().unwrap();
    assert_eq!(standing.disputed.unwrap().high_water, 4);
    // A person has decided: a new epoch, counted on from above what is known there.
    let identity = Identity { epoch: EpochId::new(), ..first.identity };
    let adopted = Claimant { identity, ..first.clone() };
    original.deliver(&with(7, &adopted)).await.unwrap();
    let standing = original.standing(first.identity.store).await.unwrap().unwrap();
    assert_eq!((standing.epoch, standing.disputed), (identity.epoch, None));
}

#[tokio::test]
async fn a_box_writes_its_own_rows_and_reads_all() {
    let postgres = Postgres::new();
    central(&postgres).check().await.unwrap();
    for _ in 0..2 {
        postgres.psql(include_str!("../docs/guide/central-rights.sql"));
    }
    for (role, name) in [("scope_1", "box-1"), ("scope_2", "box-2")] {
        postgres.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'open sesame'"));
        postgres.psql(&format!("SELECT reticle.admit('{role}', 'lab', '{name}')"));
    }
    let at =
        |role: &str, name: &str| connect_as(name, postgres.url_of(role), postgres.password(), None);
    let (one, two) = (at("scope_1", "box-1"), at("scope_2", "box-2"));
    let (first, mut second) = (usual(), usual());
    second.claimant = claimant("box-2", 1);
    for _ in 0..2 {
        one.check().await.unwrap();
        one.deliver(&first).await.unwrap();
        two.deliver(&second).await.unwrap();
    }
    assert_eq!(two.digest(first.session.id).await.unwrap(), digest_of(&first), "all is read");
    let before = fingerprint(&postgres);
    // In another's name, and into another's session.
    let mut stolen = usual();
    stolen.claimant.writer.box_name.name = "box-1".to_owned();
    refused(at("scope_2", "box-1").deliver(&stolen).await, Remedy::Stop, "row-level security");
    let shot = frame(&first.session, "A01", 9);
    let mut stolen = batch(&first.session, &[(shot, 0.9, &[10])]);
    stolen.claimant = claimant("box-2", 2);
    refused(two.deliver(&stolen).await, Remedy::Stop, "row-level security");
    // And by hand.
    let refusals = [
        ("UPDATE reticle.frame SET well = 'Z99'", "UPDATE 4"),
        ("UPDATE reticle.segmentation SET objects = 0", "UPDATE 3"),
        ("DELETE FROM reticle.object", "DELETE 4"),
        ("UPDATE reticle.store SET high_water = 0", "UPDATE 1"),
    ];
    for (sql, own) in refusals {
        let answer = postgres.psql_as("scope_2", &format!("BEGIN; {sql}; ROLLBACK"));
        assert!(answer.contains(own), "{sql}: {answer}");
    }
    for sql in ["DELETE FROM reticle.frame", "INSERT INTO reticle.admitted VALUES ('a', 'b', 'c')"]
    {
        assert!(postgres.psql_as("scope_2", sql).contains("permission denied"), "{sql}");
    }
    assert_eq!(fingerprint(&postgres), before);
}

#[tokio::test]
async fn the_views_give_the_numbers_that_are_computed_by_hand() {
    let postgres = Postgres::new();
    let central = central(&postgres);
    let session = Arc::new(session());
    let mut later = frame(&session, "A01", 1);
    later.captured.at_ns += 60_000_000_000;
    let delivered = batch(
        &session,
        &[
            (frame(&session, "A01", 0), 0.9, &[10, 20, 30, 40]),
            (later, 0.29, &[150]),
            (frame(&session, "A02", 2), IN_FOCUS, &[]),
        ],
    );
    central.deliver(&delivered).await.unwrap();
    let three = |columns: &[&str], rest: &str| {
        let list: Vec<_> =
            columns.iter().map(|column| format!("round({column}::numeric, 3)")).collect();
        postgres.psql(&format!("SELECT {} FROM reticle.{rest}", list.join(", ")))
    };
    let all = ["frames", "objects", "objects_per_frame", "area_mean", "area_p5", "area_p25"];
    let rest =
        ["area_p50", "area_p75", "area_p95", "intensity_mean", "intensity_p5", "area_fraction"];
    let well = "well_aggregate WHERE well = 'A01'";
    // Of 10, 20, 30, 40 and 150: p5 is a fifth of the way from the first to the second, p95 four
    // fifths from the fourth to the fifth.
    assert_eq!(three(&all, well), "2.000|5.000|2.500|50.000|12.000|20.000");
    assert_eq!(three(&rest, well), "30.000|40.000|128.000|100.000|24.000|0.025");
    // Without the blurred frame: 10, 20, 30, 40 on 5,000 pixels.
    let in_focus = |columns: &[&'static str]| -> Vec<String> {
        columns.iter().map(|column| format!("{column}_in_focus")).collect()
    };
    let (all, rest) = (in_focus(&all), in_focus(&rest));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    assert_eq!(three(&all, well), "1.000|4.000|4.000|25.000|11.500|17.500");
    assert_eq!(three(&rest, well), "25.000|32.500|38.500|50.000|23.000|0.020");
    // 0.25 µm² a pixel.
    let um = ["area_um2_mean", "area_um2_p5", "area_um2_p50_in_focus"];
    assert_eq!(three(&um, well), "12.500|3.000|6.250");
    // A well without objects is a row, in focus from the floor on.
    let empty = "well_aggregate WHERE well = 'A02'";
    let counts = ["frames", "objects", "frames_in_focus", "area_fraction", "area_mean"];
    assert_eq!(three(&counts, empty), "1.000|0.000|1.000|0.000|");
    for (view, rows) in [
        ("session_aggregate", "3|5"),
        ("plate_aggregate", "3|5"),
        ("field_aggregate WHERE well = 'A01' AND field = 1", "2|5"),
        ("minute_aggregate WHERE minute = '2026-03-01 12:00:00Z'", "2|4"),
        ("minute_aggregate WHERE minute = '2026-03-01 12:01:00Z'", "1|1"),
    ] {
        let counted = postgres.psql(&format!("SELECT frames, objects FROM reticle.{view}"));
        assert_eq!(counted, rows, "{view}");
    }
    let measured =
        three(&["area_um2", "centroid_0_um", "perimeter_um"], "measurement ORDER BY area LIMIT 1");
    assert_eq!(measured, "2.500|0.750|6.000");
}

#[tokio::test]
async fn in_focus_means_the_same_in_the_database_and_on_the_page() {
    let postgres = Postgres::new();
    central(&postgres).check().await.unwrap();
    assert_eq!(postgres.psql("SELECT reticle.focus_floor()"), IN_FOCUS.to_string());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/src/lib/describe.ts");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("const BLURRED = {IN_FOCUS};")), "describe.ts has another");
}

#[tokio::test]
async fn the_server_is_who_its_certificate_says_or_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output()
            .expect("openssl can be started");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for authority in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority}"
        ));
    }
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=db \
         -addext subjectAltName=DNS:localhost"
    ));
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy \
         -out server.pem",
    );
    let path = |name: &str| folder.path().join(name);
    give_to_owner(folder.path());
    give_to_owner(&path("server.key"));
    let postgres = Postgres::with_settings(&[
        "ssl=on",
        &format!("ssl_cert_file={}", path("server.pem").display()),
        &format!("ssl_key_file={}", path("server.key").display()),
    ]);
    let by_name = postgres.url().replace("127.0.0.1", "localhost");
    let password = postgres.password();

    let trusting = connect(by_name.clone(), password, Some(&path("ca.pem")));
    trusting.deliver(&usual()).await.unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE usename = 'box' AND ssl";
    assert_eq!(postgres.psql(encrypted), "1");

    let not_trusted = "certificate is not trusted";
    let stranger = connect(by_name.clone(), password, Some(&path("other.pem")));
    refused(stranger.check().await, Remedy::Stop, not_trusted);
    let misnamed = connect(postgres.url(), password, Some(&path("ca.pem")));
    refused(misnamed.check().await, Remedy::Stop, not_trusted);
    let unknown = connect(format!("{by_name}?sslmode=verify-full"), password, None);
    refused(unknown.check().await, Remedy::Stop, not_trusted);

    connect(format!("{by_name}?sslmode=require"), password, None).check().await.unwrap();
    connect(format!("{by_name}?sslmode=disable"), password, None).check().await.unwrap();
}

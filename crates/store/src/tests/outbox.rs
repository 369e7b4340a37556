//! What is to be delivered: noted with the commit, claimed once, done on a receipt.

use std::time::Duration;

use super::clean;
use crate::fixture::{self, Bench};
use crate::*;

fn kinds(items: &[Item]) -> Vec<Kind> {
    items.iter().map(|item| item.kind).collect()
}

fn delivery(bench: &Bench, destination: Destination) -> Delivery {
    let all = bench.reader().deliveries().unwrap();
    all.into_iter().find(|delivery| delivery.destination == destination).unwrap()
}

#[test]
fn a_committed_result_is_wanted_by_each_destination_most_urgent_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    let answer = bench.take(0, 4);
    let archive = bench.claim(Destination::Archive);
    // The session's description waits for what it describes.
    assert_eq!(kinds(&archive), [Kind::Frames, Kind::Results, Kind::Pixels]);
    assert!(archive.iter().all(|item| item.session == bench.session.id && item.delivered == 0));
    let part = archive[1].part.unwrap();
    assert_eq!((part.part, part.model.is_some()), (0, true));
    let central = bench.claim(Destination::Central);
    assert_eq!(kinds(&central), [Kind::Session, Kind::Frames, Kind::Results]);

    for item in archive.iter().chain(&central) {
        bench.deliver(item);
    }
    assert_eq!(kinds(&bench.claim(Destination::Archive)), [Kind::Session]);
    assert_eq!(delivery(&bench, Destination::Central).waiting, 0);
    let receipts = bench.reader().receipts(Destination::Archive, bench.session.id).unwrap();
    assert_eq!(receipts.len(), 3);
    let facts = bench.reader().session_facts(bench.session.id).unwrap().unwrap();
    assert_eq!((facts.frames, facts.objects), (1, u64::from(answer.labels.count())));
    bench.close();
    clean(folder.path());
}

#[test]
fn what_is_committed_during_a_delivery_is_delivered_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    bench.take(0, 4);
    let first = bench.claim(Destination::Central);
    bench.take(1, 4);
    first.iter().for_each(|item| bench.deliver(item));
    let next = bench.claim(Destination::Central);
    assert_eq!(kinds(&next), [Kind::Frames, Kind::Results]);
    for (item, before) in next.iter().zip(&first[1..]) {
        assert_eq!((item.pk, item.delivered), (before.pk, before.requested));
        assert!(item.requested > before.requested);
        bench.deliver(item);
    }
    assert_eq!(bench.claim(Destination::Central), []);
    bench.close();
    clean(folder.path());
}

#[test]
fn a_claimed_delivery_is_nobody_elses_until_its_owner_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    bench.take(0, 4);
    assert_eq!(bench.claim(Destination::Central).len(), 3);
    assert_eq!(bench.claim(Destination::Central), []);
    bench.close();
    // Another owner of the folder.
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    assert_eq!(bench.claim(Destination::Central).len(), 4, "and the new session");
}

#[test]
fn a_failed_delivery_waits_and_a_retry_waits_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    bench.take(0, 4);
    let items = bench.claim(Destination::Central);
    let reason = "no route to host".to_owned();
    for (item, wait) in items.iter().zip([Duration::ZERO, Duration::from_secs(3600)]) {
        let reason = reason.clone();
        bench.report(Report::Failed { item: item.pk, wait, reason });
    }
    let again = bench.claim(Destination::Central);
    assert_eq!((again.len(), again[0].pk, again[0].attempts), (1, items[0].pk, 1));
    assert_eq!(delivery(&bench, Destination::Central).reason, Some(reason));
    assert_eq!(bench.writer.ask(Ask::Retry).unwrap(), Answer::Retried(0));
    assert_eq!(bench.claim(Destination::Central).len(), 1, "the one that waited an hour");
}

#[test]
fn what_can_never_be_taken_blocks_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    let bad = bench.take(0, 4);
    bench.take(1, 4);
    let items = bench.claim(Destination::Archive);
    let [frames, results, pixels] = &items[..] else { panic!("{items:?}") };
    let reason = "its labels are damaged".to_owned();
    let subject = results.requested - 1;
    bench.report(Report::Refused { item: results.pk, subject, reason: reason.clone() });
    bench.report(Report::Quarantined { item: pixels.pk, reason: "too large".into() });
    bench.deliver(frames);

    let again = bench.claim(Destination::Archive);
    assert_eq!(again.iter().map(|item| item.pk).collect::<Vec<_>>(), [results.pk]);
    assert_eq!(bench.reader().refused_of(&again[0]).unwrap(), [subject]);
    bench.deliver(&again[0]);
    let reader = bench.reader();
    let refused = reader.refused().unwrap();
    assert_eq!((refused[0].frame, &refused[0].reason), (bad.frame.id, &reason));
    let quarantined = reader.quarantined().unwrap();
    assert_eq!((quarantined.len(), quarantined[0].kind), (1, Kind::Pixels));
    let state = delivery(&bench, Destination::Archive);
    assert_eq!((state.quarantined, state.refused), (1, 1));

    assert_eq!(bench.writer.ask(Ask::Retry).unwrap(), Answer::Retried(2));
    let retried = bench.claim(Destination::Archive);
    assert!(kinds(&retried).contains(&Kind::Results), "{retried:?}");
    assert!(kinds(&retried).contains(&Kind::Pixels), "{retried:?}");
    assert_eq!(bench.reader().refused().unwrap(), []);
    bench.close();
    clean(folder.path());
}

#[test]
fn a_destination_that_is_new_or_elsewhere_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::open(&options);
    bench.take(0, 4);
    bench.take(1, 0);
    bench.writer.deliver_to(fixture::deliveries()).unwrap();
    let items = bench.claim(Destination::Central);
    assert_eq!(kinds(&items), [Kind::Session, Kind::Frames, Kind::Results]);
    items.iter().for_each(|item| bench.deliver(item));
    assert_eq!(bench.claim(Destination::Central), []);

    // The same place again wants nothing again; another one wants all.
    bench.writer.deliver_to(fixture::deliveries()).unwrap();
    assert_eq!(bench.claim(Destination::Central), []);
    let elsewhere =
        Deliveries { central: Some("postgresql://lab/other".into()), ..fixture::deliveries() };
    bench.writer.deliver_to(elsewhere).unwrap();
    let items = bench.claim(Destination::Central);
    assert_eq!(kinds(&items), [Kind::Session, Kind::Frames, Kind::Results]);
    assert!(items.iter().all(|item| item.delivered == 0));
    bench.close();
    clean(folder.path());
}

#[test]
fn an_upload_in_parts_is_given_back_with_the_next_claim() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    bench.take(0, 4);
    let item = bench.claim(Destination::Archive).remove(0);
    let progress = Some("{\"upload\":1}".to_owned());
    bench.report(Report::Progress { item: item.pk, progress: progress.clone() });
    let wait = Duration::ZERO;
    bench.report(Report::Failed { item: item.pk, wait, reason: "cut".into() });
    let again = bench.claim(Destination::Archive).remove(0);
    assert_eq!((again.pk, again.progress), (item.pk, progress));
}

#[test]
fn files_go_in_the_written_order_and_what_is_promised_never() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    let safe = bench.take(0, 4);
    let pixels = |items: Vec<Item>| items.into_iter().find(|item| item.kind == Kind::Pixels);
    let item = pixels(bench.claim(Destination::Archive)).unwrap();
    bench.deliver(&item);
    let promised = bench.take(1, 4);
    // From here on the archive does not want pixels.
    bench.writer.deliver_to(fixture::without_pixels()).unwrap();
    let backlog = bench.take(2, 0);
    let segmented = bench.take(3, 4);
    let order = [&safe, &segmented, &backlog];
    let has = |bench: &Bench, answer: &reticle_domain::segmentation::Segmentation| {
        bench.reader().pixels(answer.frame.id).unwrap().is_some()
    };
    for (gone, next) in order.iter().enumerate() {
        assert!(has(&bench, next));
        bench.writer.evict_one().unwrap();
        assert!(!has(&bench, next), "number {gone} in the order");
    }
    bench.writer.evict_one().unwrap();
    assert!(has(&bench, &promised), "nothing else may go");
    bench.close();
    clean(folder.path());
}

#[test]
fn without_room_frames_are_held_until_a_receipt_makes_some() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = fixture::options(folder.path());
    // Room for a few frames of 64 × 64 at 16 bits, each about 9 kB.
    options.frames.max_bytes = 40_000;
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    let mut sequence = 0;
    while !bench.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Held { .. })) {
        bench.take(sequence, 4);
        sequence += 1;
        assert!(sequence < 20, "{:?}", bench.outcomes);
    }
    let held = bench.outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Held { reason } => Some(reason.clone()),
        _ => None,
    });
    assert!(held.unwrap().contains("wait for the archive"));
    assert!(!bench.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Evicted { .. })));
    // Nothing is taken while frames are held, so the part is not full: it is delivered as it is.
    let items = bench.claim(Destination::Archive);
    let pixels = items.iter().find(|item| item.kind == Kind::Pixels).unwrap().clone();
    assert!(bench.writer.held.is_some());
    bench.deliver(&pixels);
    assert!(bench.writer.held.is_none(), "the receipt made room");
    bench.outcomes.clear();
    bench.take(sequence, 4);
    assert!(matches!(bench.outcomes[0], Outcome::Kept { .. }), "{:?}", bench.outcomes);
    bench.close();
    clean(folder.path());
}

#[test]
fn the_day_of_the_archive_is_chosen_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    let session = bench.session.id;
    for date in ["2026-11-23", "2031-01-01"] {
        let ask = Ask::ArchiveDate { session, date: date.into() };
        let chosen = Answer::ArchiveDate("2026-11-23".into());
        assert_eq!(bench.writer.ask(ask).unwrap(), chosen);
    }
    let facts = bench.reader().session_facts(session).unwrap().unwrap();
    assert_eq!(facts.archive_date, "2026-11-23");
}

#[test]
fn imported_labels_are_a_result_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    let answer = bench.take(0, 4);
    let session = bench.session.id;
    bench.close();
    let (mut store, _) = Store::open(&options, reticle_base::clock::Clock::system()).unwrap();
    let drawn = fixture::segmentation(&answer.frame, 7);
    let imported = Imported {
        frame: answer.frame.id,
        model: reticle_domain::segmentation::ModelRef {
            name: "import".into(),
            ..(*fixture::model()).clone()
        },
        labels: (*drawn.labels).clone(),
        objects: (*drawn.objects).clone(),
        focus: f32::NAN,
    };
    let Ok(Outcome::Saved(record)) = store.import(imported.clone()) else { panic!("not saved") };
    assert_eq!((record.frame(), record.session()), (answer.frame.id, session));
    let again = store.import(imported.clone()).unwrap();
    assert!(matches!(again, Outcome::AlreadySaved { same: true, .. }), "{again:?}");
    let other = fixture::segmentation(&answer.frame, 3);
    let corrected = Imported {
        labels: (*other.labels).clone(),
        objects: (*other.objects).clone(),
        ..imported.clone()
    };
    match store.import(corrected).unwrap() {
        Outcome::AlreadySaved { record, same: false } => assert_eq!(record.objects(), 7),
        said => panic!("a correction was dropped, and {said:?} was said"),
    }
    let reader = store.reader();
    let series = reader.series(session).unwrap().remove(0);
    let models = reader.models_of(session).unwrap();
    assert_eq!(models.len(), 2);
    let results = reader.results_of(&series, &models[1], 0..10).unwrap();
    assert_eq!(results.len(), 1, "the second time changed nothing");
    let keys = rusqlite::Connection::open(folder.path().join("reticle.db")).unwrap();
    let keys: Vec<i64> = [
        "SELECT seq FROM sqlite_sequence WHERE name = 'segmentation'",
        "SELECT count(*) FROM segmentation",
    ]
    .map(|query| keys.query_row(query, [], |row| row.get(0)).unwrap())
    .to_vec();
    assert_eq!(keys, [2, 2], "nor used up a key");
    assert_eq!(reader.labels_of(&results[0]).unwrap(), *drawn.labels);
    assert_eq!(reader.objects_of(&results[0]).unwrap(), *drawn.objects);

    let foreign = Imported { frame: reticle_base::ids::FrameId::new(), ..imported };
    let error = store.import(foreign).unwrap_err().to_string();
    assert!(error.contains("not in this store"), "{error}");
    drop(store);
    clean(folder.path());
}

#[test]
fn marks_only_grow_and_a_conflict_ends_the_deliveries_of_its_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    bench.take(0, 4);
    let marks = |items: &[Item]| items.iter().map(|item| item.mark).collect::<Vec<_>>();
    let archive = bench.claim(Destination::Archive);
    assert_eq!(marks(&archive), [1, 2, 3]);
    let central = bench.claim(Destination::Central);
    assert_eq!(marks(&central), [1, 2, 3], "each has its own");
    central.iter().chain(&archive[..1]).for_each(|item| bench.deliver(item));
    let found = "it was given 9 deliveries".to_owned();
    bench.report(Report::Conflict { item: archive[1].pk, reason: found.clone(), high_water: 9 });
    bench.take(1, 4);
    assert_eq!(bench.claim(Destination::Archive), []);
    assert_eq!(bench.claim(Destination::Central).len(), 2, "the other one goes on");
    let delivery = delivery(&bench, Destination::Archive);
    assert!(delivery.waiting > 0);
    assert_eq!((delivery.reason, delivery.conflict), (Some(found.clone()), Some(found)));
    bench.close();

    // Not by a restart; and a destination that is left out for a while keeps its mark.
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    assert_eq!(bench.claim(Destination::Archive), []);
    bench.close();
    let central = Deliveries { archive: None, ..fixture::deliveries() };
    Bench::delivering(&options, central).close();
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    assert_eq!(bench.claim(Destination::Archive)[0].mark, 4);
    bench.close();

    // By a new epoch, which counts on from above what was found.
    let db = rusqlite::Connection::open(crate::sql::schema::database_path(folder.path())).unwrap();
    let conflict = "UPDATE destination SET conflict = 'ahead', conflict_mark = 40";
    db.execute(conflict, []).unwrap();
    crate::sql::identity::begin_epoch(&db, None).unwrap();
    drop(db);
    let mut bench = Bench::delivering(&options, fixture::deliveries());
    assert_eq!(bench.claim(Destination::Archive)[0].mark, 41);
    bench.close();
    clean(folder.path());
}

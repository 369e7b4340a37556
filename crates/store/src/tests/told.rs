//! What is told: in order, from a cursor, again until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use super::super::fixture::{self, Bench};
use super::super::*;
use super::clean;
use reticle_base::clock::Clock;
use reticle_base::ids::{EventId, SessionId};
use reticle_domain::event::{Event, What};

const BROKER: &str = "mqtt://broker.lab:1883";

fn paused(bench: &Bench, session: Option<SessionId>) -> Event {
    let what = What::Paused { paused: true };
    Event { id: EventId::new(), at: bench.clock.now(), session, what }
}

/// Records events of the bench's session; their ids.
fn happen(bench: &mut Bench, count: usize) -> Vec<EventId> {
    let session = Some(bench.session.id);
    let events: Vec<Event> = (0..count).map(|_| paused(bench, session)).collect();
    bench.work(events.iter().cloned().map(Job::Event).collect());
    events.iter().map(|event| event.id).collect()
}

fn told(bench: &mut Bench, stream: Stream, upto: i64) {
    assert_eq!(bench.writer.ask(Ask::Told { stream, upto }).unwrap(), Answer::Written);
}

fn untold(bench: &Bench) -> Vec<EventId> {
    bench.reader().untold_events(100).unwrap().iter().map(|event| event.id).collect()
}

fn sql(bench: &mut Bench, text: &str) {
    bench.writer.connection().unwrap().execute_batch(text).unwrap();
}

#[test]
fn what_is_committed_waits_in_order_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let ids = happen(&mut bench, 3);
    let (first, second) = (bench.take(0, 4), bench.take(1, 5));

    let reader = bench.reader();
    let events = reader.untold_events(2).unwrap();
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!(events[0].session, Some(bench.session.id));
    assert_eq!(events[0].what, What::Paused { paused: true });
    let results = reader.untold_results(10).unwrap();
    let frames: Vec<_> = results.iter().map(|result| result.frame.id).collect();
    assert_eq!(frames, [first.frame.id, second.frame.id]);
    // The same facts as those that leave by the other ways.
    let series = reader.series(bench.session.id).unwrap().remove(0);
    assert_eq!(reader.results_of(&series, &results[0].model, 0..10).unwrap(), results);

    told(&mut bench, Stream::Events, events[1].pk);
    told(&mut bench, Stream::Results, results[0].pk);
    assert_eq!(untold(&bench), ids[2..]);
    assert_eq!(reader.untold_results(10).unwrap(), results[1..]);
    let state = reader.told().unwrap();
    assert_eq!((state[0].stream, state[0].place.as_str()), (Stream::Events, BROKER));
    assert_eq!((state[0].done, state[0].last, state[0].waiting), (events[1].pk, 3, 1));
    assert_eq!((state[1].stream, state[1].waiting), (Stream::Results, 1));
    assert_eq!(state[1].oldest, Some(results[1].committed.rfc3339()));

    // A late acknowledgement takes nothing back, and one of what is not there passes nothing.
    told(&mut bench, Stream::Events, 1);
    assert_eq!(untold(&bench), ids[2..]);
    told(&mut bench, Stream::Events, i64::MAX);
    told(&mut bench, Stream::Results, i64::MAX);
    assert_eq!(untold(&bench), []);
    assert_eq!(reader.told().unwrap()[0].oldest, None);
    let later = happen(&mut bench, 1);
    assert_eq!(untold(&bench), later);
    let page = reader.events(Some(1), 2).unwrap();
    assert_eq!(page.iter().map(|event| event.id).collect::<Vec<_>>(), ids[1..]);
    bench.close();
    clean(folder.path());
}

/// What was counted is counted on, so that millions that wait are not counted every two seconds.
#[test]
fn what_waits_is_counted_on_as_it_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let reader = bench.reader();
    let waiting = |reader: &Reader| -> Vec<u64> {
        reader.told().unwrap().iter().map(|told| told.waiting).collect()
    };
    assert_eq!(waiting(&reader), [0, 0]);
    let mut expected = [0, 0];
    for round in 0..6 {
        // Holes of all sizes between them.
        sql(&mut bench, &format!("UPDATE sqlite_sequence SET seq = seq + {}", round * 7_000));
        happen(&mut bench, 3);
        bench.take(2 * round, 2);
        bench.take(2 * round + 1, 2);
        expected = [expected[0] + 3, expected[1] + 2];
        assert_eq!(waiting(&reader), expected);
        if round % 2 == 1 {
            let events = reader.untold_events(2).unwrap();
            told(&mut bench, Stream::Events, events[1].pk);
            let results = reader.untold_results(1).unwrap();
            told(&mut bench, Stream::Results, results[0].pk);
            expected = [expected[0] - 2, expected[1] - 1];
        }
        assert_eq!(waiting(&reader), expected);
        assert_eq!(waiting(&bench.reader()), expected, "as one that counts for the first time");
    }
    // Another broker begins at the end.
    bench.writer.tell_to(Some("mqtt://elsewhere:1883")).unwrap();
    assert_eq!(waiting(&reader), [0, 0]);
    bench.writer.tell_to(None).unwrap();
    bench.writer.tell_to(Some(BROKER)).unwrap();
    happen(&mut bench, 1);
    assert_eq!(waiting(&reader), [1, 0]);
}

#[test]
fn the_same_event_given_twice_is_one_and_leaves_no_hole() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let event = paused(&bench, Some(SessionId::new()));
    for _ in 0..3 {
        bench.work(vec![Job::Event(event.clone())]);
    }
    happen(&mut bench, 1);
    let events = bench.reader().events(None, 10).unwrap();
    assert_eq!(events.iter().map(|event| event.pk).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((events[0].id, events[0].session), (event.id, None), "of an unknown session");
    assert_eq!(super::failures(&bench.outcomes).len(), 0, "{:?}", bench.outcomes);
    bench.close();
    clean(folder.path());
}

#[test]
fn what_was_not_acknowledged_is_told_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let options = fixture::options(folder.path());
    let mut bench = Bench::open(&options);
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let ids = happen(&mut bench, 3);
    let answer = bench.take(0, 4);
    told(&mut bench, Stream::Events, 1);
    // As a crash leaves it.
    drop(bench);
    let mut bench = Bench::open(&options);
    assert!(bench.recovery.unclean);
    bench.writer.tell_to(Some(BROKER)).unwrap();
    assert_eq!(untold(&bench), ids[1..]);
    let results = bench.reader().untold_results(10).unwrap();
    assert_eq!(results.iter().map(|result| result.frame.id).collect::<Vec<_>>(), [answer.frame.id]);
    bench.close();
    clean(folder.path());
}

#[test]
fn a_broker_that_is_new_is_told_what_comes_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    happen(&mut bench, 2);
    bench.take(0, 4);
    assert_eq!(bench.reader().told().unwrap(), []);
    assert_eq!(untold(&bench), [], "nobody is told");
    assert_eq!(bench.reader().untold_results(10).unwrap(), []);

    bench.writer.tell_to(Some(BROKER)).unwrap();
    assert_eq!(untold(&bench), []);
    assert_eq!(bench.reader().untold_results(10).unwrap(), []);
    let ids = happen(&mut bench, 2);
    bench.take(1, 4);
    bench.writer.tell_to(Some(BROKER)).unwrap();
    assert_eq!(untold(&bench), ids, "the same place again changes nothing");
    assert_eq!(bench.reader().untold_results(10).unwrap().len(), 1);

    bench.writer.tell_to(Some("mqtt://elsewhere:1883")).unwrap();
    assert_eq!(untold(&bench), []);
    assert_eq!(bench.reader().untold_results(10).unwrap(), []);
    assert!(bench.reader().told().unwrap().iter().all(|told| told.waiting == 0));
    happen(&mut bench, 1);
    bench.writer.tell_to(None).unwrap();
    assert_eq!(bench.reader().told().unwrap(), []);
    told(&mut bench, Stream::Events, 1);
    bench.writer.tell_to(Some(BROKER)).unwrap();
    assert_eq!(untold(&bench), []);
    bench.close();
    clean(folder.path());
}

#[test]
fn what_a_wrong_clock_dated_is_told_with_the_right_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    bench.use_clock(Clock::manual(0));
    let start = bench.clock.now();
    bench.work(vec![Job::Clock { now: start, trusted: false }]);
    happen(&mut bench, 1);
    bench.take(0, 4);
    bench.clock.advance(Duration::from_secs(3600));
    let mut right = bench.clock.now();
    right.wall_ns = 1_790_000_000_000_000_000;
    bench.work(vec![Job::Clock { now: right, trusted: true }]);
    let then = right.wall_ns - 3_600_000_000_000;
    let event = bench.reader().untold_events(1).unwrap().remove(0);
    assert_eq!((event.at.at_ns, event.at.recorded_ns), (then, start.wall_ns));
    let result = bench.reader().untold_results(1).unwrap().remove(0);
    assert_eq!((result.committed.at_ns, result.frame.captured.at_ns), (then, then));
    let oldest = Some(reticle_base::clock::rfc3339(then));
    let told = bench.reader().told().unwrap();
    assert!(told.iter().all(|told| told.oldest == oldest), "{told:?}");
}

#[test]
fn an_event_that_cannot_be_read_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let ids = happen(&mut bench, 5);
    sql(&mut bench, r#"UPDATE event SET body = '{"type":"of_a_newer_version"}' WHERE pk <= 2"#);
    sql(&mut bench, "UPDATE event SET body = 'half' WHERE pk = 4");
    // Even where a whole page of them comes first.
    let events = bench.reader().untold_events(2).unwrap();
    let found: Vec<_> = events.iter().map(|event| (event.pk, event.id)).collect();
    assert_eq!(found, [(3, ids[2]), (5, ids[4])]);
    told(&mut bench, Stream::Events, 5);
    assert_eq!(bench.reader().told().unwrap()[0].waiting, 0);
}

#[test]
fn old_events_go_once_they_were_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    happen(&mut bench, 3);
    told(&mut bench, Stream::Events, 2);
    // A hundred thousand later.
    sql(&mut bench, "UPDATE sqlite_sequence SET seq = 100010 WHERE name = 'event'");
    happen(&mut bench, 1);
    let keys = |bench: &Bench| -> Vec<i64> {
        bench.reader().events(None, 10).unwrap().iter().map(|event| event.pk).collect()
    };
    assert_eq!(keys(&bench), [3, 100_011], "the third was not told yet");
    told(&mut bench, Stream::Events, 100_011);
    happen(&mut bench, 1);
    assert_eq!(keys(&bench), [100_011, 100_012]);
    // Keys of what is gone are not given again, so no cursor is beyond what comes.
    told(&mut bench, Stream::Events, 100_012);
    sql(&mut bench, "DELETE FROM event");
    let next = happen(&mut bench, 1);
    assert_eq!((untold(&bench), keys(&bench)), (next, vec![100_013]));
}

#[test]
fn an_event_that_met_a_full_disk_is_recorded_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let db = bench.writer.connection().unwrap();
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let big = fixture::segmentation(&fixture::frame(&bench.clock, 0, 512, 512), 400);
    let event = paused(&bench, None);
    let jobs = vec![bench.commit(&big), Job::Event(event.clone())];
    bench.work(jobs);
    assert_eq!(super::failures(&bench.outcomes).len(), 2, "{:?}", bench.outcomes);
    assert_eq!(untold(&bench), []);
    let db = bench.writer.connection().unwrap();
    db.pragma_update_and_check(None, "max_page_count", 1 << 30, |_| Ok(())).unwrap();
    bench.take(1, 4);
    assert_eq!(untold(&bench), [event.id]);
    bench.close();
    clean(folder.path());
}

#[test]
fn a_well_is_told_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    bench.writer.tell_to(Some(BROKER)).unwrap();
    let sharp = bench.take(0, 4);
    let mut other_field = fixture::frame(&bench.clock, 1, fixture::EDGE, fixture::EDGE);
    Arc::get_mut(&mut other_field).unwrap().place.field = Some(4);
    let mut blurred = fixture::segmentation(&other_field, 7);
    blurred.focus = 0.25;
    let mut nowhere = fixture::frame(&bench.clock, 2, fixture::EDGE, fixture::EDGE);
    Arc::get_mut(&mut nowhere).unwrap().place.well = None;
    let nowhere = fixture::segmentation(&nowhere, 3);
    let jobs = vec![bench.commit(&blurred), bench.commit(&nowhere)];
    bench.work(jobs);

    let results = bench.reader().untold_results(10).unwrap();
    assert_eq!(results.len(), 3);
    let wells = bench.reader().wells_of(&results).unwrap();
    let [well] = &wells[..] else { panic!("{wells:?}") };
    assert_eq!((well.session, &well.model), (bench.session.id, &results[0].model));
    assert_eq!((well.plate.as_deref(), well.well.as_str()), (Some("P1"), "C07"));
    let count =
        |answer: &reticle_domain::segmentation::Segmentation| u64::from(answer.labels.count());
    assert_eq!((well.fields, well.frames, well.frames_in_focus), (2, 2, 1));
    assert_eq!(well.objects, count(&sharp) + count(&blurred));
    assert_eq!(well.objects_in_focus, count(&sharp));
    let area: u32 = sharp.objects.iter().map(|object| object.area).sum();
    assert_eq!(well.mean_area_px, Some(f64::from(area) / count(&sharp) as f64));
    assert_eq!(well.area_fraction, Some(f64::from(area) / f64::from(fixture::EDGE.pow(2))));
    assert_eq!((well.mean_intensity, well.mean_focus), (Some(300.125), Some(0.5)));
    // The numbers that people read in the view.
    let view: (u64, f64, f64, f64) = bench
        .writer
        .connection()
        .unwrap()
        .query_row(
            "SELECT objects, area_mean_in_focus, intensity_mean_in_focus, confluence_in_focus
             FROM well_aggregate WHERE well = 'C07'",
            [],
            |row| {
                let objects: i64 = row.get(0)?;
                Ok((objects.cast_unsigned(), row.get(1)?, row.get(2)?, row.get(3)?))
            },
        )
        .unwrap();
    let found = (well.mean_area_px, well.mean_intensity, well.area_fraction);
    assert_eq!((well.objects, found), (view.0, (Some(view.1), Some(view.2), Some(view.3))));
    assert_eq!(bench.reader().wells_of(&results[2..]).unwrap(), []);
}

#[test]
fn what_waits_is_found_by_its_key_without_sorting() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&fixture::options(folder.path()));
    let db = bench.writer.connection().unwrap();
    let results = super::super::told::results_query();
    for (table, query) in [("event", super::super::told::EVENTS), ("segmentation", &results)] {
        let plan: Vec<String> = db
            .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
            .unwrap()
            .query_map(
                rusqlite::params_from_iter([0; 2].iter().take(query.matches('?').count())),
                |row| row.get(3),
            )
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let first = format!("SEARCH {table} USING INTEGER PRIMARY KEY (rowid>?)");
        assert_eq!(plan[0], first, "{plan:#?}");
        let is_by_key = |step: &String| {
            // The steps of a subquery follow its name.
            step.contains("INTEGER PRIMARY KEY") || step.starts_with("CORRELATED SCALAR SUBQUERY")
        };
        assert!(plan.iter().all(is_by_key), "{plan:#?}");
    }
}

//! A way back from an update: this program works on a database that a newer one has changed and
//! written, and the newer one on what this one wrote then. `make prove-way-back` shows the same with
//! two builds of the program.

use rusqlite::Connection;

use super::clean;
use crate::fixture::{self, Bench};
use crate::sql::schema;
use crate::*;
use reticle_domain::event::{Event, What};

/// Frames of a turn: some of them in a part that the turn before has begun.
const FRAMES: u64 = 40;

/// Every result with what identifies it, in the order of commits.
fn results(folder: &std::path::Path) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let db = Connection::open(schema::database_path(folder)).unwrap();
    let mut rows = db
        .prepare(
            "SELECT segmentation.pk, frame.id, labels_sha256
             FROM segmentation JOIN frame ON frame.pk = segmentation.frame ORDER BY segmentation.pk",
        )
        .unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A day of this program: frames are kept, evicted, segmented, delivered, imported; events are
/// published; a file of a watched folder is taken; a command is done.
fn turn(options: &Options) {
    let mut bench = Bench::delivering(options, fixture::without_pixels());
    bench.writer.publish_to(Some("mqtt://broker")).unwrap();
    for sequence in 0..FRAMES {
        let answer = bench.take(sequence, 5);
        let id = reticle_base::ids::EventId::new();
        let event = Event { id, at: bench.clock.now(), session: None, what: What::Stopping {} };
        let drawn = fixture::segmentation(&answer.frame, 3);
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
        bench.work(vec![Job::Event(event), Job::Import(imported)]);
    }
    for destination in Destination::ALL {
        for item in bench.claim(destination) {
            bench.deliver(&item);
        }
    }
    let upto = bench.reader().unpublished_events(1_000).unwrap().last().unwrap().pk;
    bench.writer.ask(Ask::Published { stream: Stream::Events, upto }).unwrap();
    let (actor, reason) = ("mqtt".into(), None);
    let noting = Noting { operation: "stop".into(), id: upto.to_string(), actor, reason };
    let ask = Ask::Command(noting);
    assert_eq!(bench.writer.ask(ask).unwrap(), Answer::Command(Noted::First));
    let image = IntakeFile {
        folder: "/drop".into(),
        path: format!("{upto}.tif"),
        bytes: 10,
        mtime_ns: 1,
        identity: reticle_domain::taken::FileIdentity { device: 1, inode: 2, born_ns: None },
        sha256: [upto.cast_unsigned() as u8; 32],
    };
    let first_frame = reticle_base::ids::FrameId::new();
    let begin = Change::Begin { file: image, row: None, run: [1; 16], first_frame };
    assert!(matches!(bench.writer.ask(Ask::Intake(begin)).unwrap(), Answer::Intake(_)));
    let failed = bench
        .outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::KeepFailed { .. }))
        .count();
    assert_eq!((failed, super::saved(&bench.outcomes)), (0, 2 * FRAMES as usize));
    assert!(bench.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Evicted { .. })));
    let job = Job::Close { session: bench.session.id, at: bench.clock.now() };
    bench.work(vec![job]);
    bench.close();
}

#[test]
fn an_update_has_a_way_back_and_nothing_is_lost_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = fixture::options(folder.path());
    // Less than a turn takes, so that files are evicted in each.
    options.frames.max_bytes = 24 * (fixture::EDGE * fixture::EDGE * 2 + 4096) as u64;
    turn(&options);
    let mut before = results(folder.path());
    assert_eq!(before.len() as u64, 2 * FRAMES);

    // The newer program: it changes the schema, and writes into what it added.
    let database = schema::database_path(folder.path());
    schema::bring_to_next(&database);
    let newer = Connection::open(&database).unwrap();
    newer
        .execute_batch(
            "INSERT INTO next_note SELECT pk, 'of the newer program' FROM segmentation;
             UPDATE frame SET next_note = 'new'; UPDATE field_sum SET next_note = 'new';
             UPDATE outbox SET next_note = 'new'; UPDATE session SET next_note = 'new';",
        )
        .unwrap();
    drop(newer);

    // Back to this one, twice: the second time on what it wrote itself.
    for back in 1..=2 {
        turn(&options);
        let after = results(folder.path());
        assert_eq!(after[..before.len()], before[..], "back {back}: nothing changed");
        assert_eq!(after.len(), before.len() + 2 * FRAMES as usize, "back {back}");
        before = after;
        clean(folder.path());
    }
    let db = Connection::open(&database).unwrap();
    let kept: i64 =
        db.query_row("SELECT count(*) FROM noted_result", [], |row| row.get(0)).unwrap();
    assert_eq!(kept.cast_unsigned(), 2 * FRAMES, "what the newer program noted is still there");
    let version: u32 = schema::version(&db).unwrap();
    assert_eq!(version, 2, "the schema stays as the newer program made it");
    drop(db);

    // And there again: nothing is left to do.
    schema::bring_to_next(&database);
    assert_eq!(results(folder.path()), before);

    // A backup of such a database can be put back, too.
    let copy = folder.path().join("copy.db");
    backup(folder.path(), &copy).unwrap();
    assert!(check_backup(&copy).is_ok());
}

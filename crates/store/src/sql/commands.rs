//! Which commands were given, and by whom: an id is noted before its command is done, in a
//! transaction of its own, so that no crash, restart or repetition makes it be done twice.
//!
//! What it promises
//! 1. [`note`] says [`Noted::First`] once for an operation and id, as long as its row is there.
//! 2. A row stays for at least [`KEPT`], ten times as long as a command is accepted after it was
//!    asked, and in any case until [`KEPT_ROWS`] newer ones are there: a clock that is set back
//!    some minutes makes no old command new.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use reticle_base::clock::{Stamp, rfc3339};

/// How long an id is remembered at least.
const KEPT: Duration = Duration::from_secs(600);

/// Ids that are remembered whatever their age. A row has some hundred bytes.
const KEPT_ROWS: i64 = 1_000;

/// Rows that go with one new one at most, so that no command is held up by all that may go.
const GOING: i64 = 100;

/// A command that is about to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noting {
    /// What is to be done.
    pub operation: String,
    /// The id of it that the sender gave.
    pub id: String,
    /// Who gave it.
    pub actor: String,
    /// Why, where the actor said so.
    pub reason: Option<String>,
}

/// Whether a command may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Its id was never used; now it is.
    First,
    /// Its id was used before: it must not be done.
    Before {
        /// When, RFC 3339 in UTC.
        at: String,
        /// What was answered at its end, where the box lived to know it.
        answer: Option<String>,
    },
}

/// Notes that a command is about to be done, inside the transaction of its caller.
pub(crate) fn note(db: &Connection, noting: &Noting, now: &Stamp) -> rusqlite::Result<Noted> {
    let Noting { operation, id, actor, reason } = noting;
    let known = db
        .prepare_cached("SELECT wall_ns, answer FROM command WHERE operation = ?1 AND id = ?2")?
        .query_row([operation, id], |row| {
            Ok(Noted::Before { at: rfc3339(row.get(0)?), answer: row.get(1)? })
        })
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let old = now.wall_ns.saturating_sub(i64::try_from(KEPT.as_nanos()).unwrap_or(i64::MAX));
    db.prepare_cached(
        "DELETE FROM command WHERE (operation, id) IN (
             SELECT operation, id FROM command
             WHERE wall_ns < ?1 AND (SELECT count(*) FROM command) >= ?2
             ORDER BY wall_ns LIMIT min(?3, (SELECT count(*) FROM command) - ?2 + 1))",
    )?
    .execute(params![old, KEPT_ROWS, GOING])?;
    db.prepare_cached(
        "INSERT INTO command (operation, id, wall_ns, actor, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![operation, id, now.wall_ns, actor, reason])?;
    Ok(Noted::First)
}

/// Notes what was answered at a command's end.
pub(crate) fn ended(
    db: &Connection,
    operation: &str,
    id: &str,
    answer: &str,
) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE command SET answer = ?3 WHERE operation = ?1 AND id = ?2")?
        .execute([operation, id, answer])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Bench};
    use crate::{Answer, Ask, Depth, StoreError, fsck};
    use reticle_base::clock::Clock;

    fn noting(operation: &str, id: &str) -> Ask {
        Ask::Command(Noting {
            operation: operation.to_owned(),
            id: id.to_owned(),
            actor: "mqtt".to_owned(),
            reason: Some("the lamp failed".to_owned()),
        })
    }

    fn note(bench: &mut Bench, id: &str) -> Noted {
        match bench.writer.ask(noting("stop", id)).unwrap() {
            Answer::Command(noted) => noted,
            other => panic!("{other:?}"),
        }
    }

    fn end(bench: &mut Bench, id: &str, answer: &str) {
        let (operation, id, answer) = ("stop".to_owned(), id.to_owned(), answer.to_owned());
        bench.writer.ask(Ask::Commanded { operation, id, answer }).unwrap();
    }

    fn rows(bench: &mut Bench) -> i64 {
        let db = bench.writer.connection().unwrap();
        db.query_row("SELECT count(*) FROM command", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_id_is_new_once_also_after_a_crash_between_noting_and_doing() {
        let folder = tempfile::tempdir().unwrap();
        let options = fixture::options(folder.path());
        let mut bench = Bench::open(&options);
        assert_eq!(note(&mut bench, "1"), Noted::First);
        // As kill -9 leaves it.
        drop(bench);
        let mut bench = Bench::open(&options);
        assert!(bench.recovery.unclean);
        let Noted::Before { answer, .. } = note(&mut bench, "1") else { panic!("done twice") };
        assert_eq!(answer, None, "the box did not live to know");
        assert_eq!(note(&mut bench, "2"), Noted::First);
        end(&mut bench, "2", "{}");
        drop(bench);
        let mut bench = Bench::open(&options);
        let Noted::Before { answer, .. } = note(&mut bench, "2") else { panic!("done twice") };
        assert_eq!(answer.as_deref(), Some("{}"));
        // Of another operation it is another command.
        assert_eq!(bench.writer.ask(noting("start", "1")).unwrap(), Answer::Command(Noted::First));
        bench.close();
        assert!(fsck(folder.path(), Depth::Full, |_, _| {}).unwrap().is_clean());
    }

    #[test]
    fn who_gave_a_command_and_why_stands_beside_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(&fixture::options(folder.path()));
        assert_eq!(note(&mut bench, "1"), Noted::First);
        let db = bench.writer.connection().unwrap();
        let row: (String, String) = db
            .query_row("SELECT actor, reason FROM command", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(row, ("mqtt".to_owned(), "the lamp failed".to_owned()));
    }

    #[test]
    fn old_ids_go_and_neither_young_ones_nor_the_last_thousand() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(&fixture::options(folder.path()));
        bench.use_clock(Clock::manual(1_790_000_000_000_000_000));
        for n in 0..KEPT_ROWS {
            assert_eq!(note(&mut bench, &n.to_string()), Noted::First);
        }
        bench.clock.advance(KEPT + Duration::from_secs(1));
        assert_ne!(note(&mut bench, "0"), Noted::First, "the last thousand stay");
        assert_eq!(note(&mut bench, "new"), Noted::First);
        assert_eq!(rows(&mut bench), KEPT_ROWS);
        for n in 0..50 {
            assert_eq!(note(&mut bench, &format!("young-{n}")), Noted::First);
        }
        assert_eq!(rows(&mut bench), KEPT_ROWS);
        for n in 0..50 {
            assert_ne!(note(&mut bench, &format!("young-{n}")), Noted::First);
        }
    }

    #[test]
    fn what_cannot_be_noted_is_said_and_not_taken_for_new() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(&fixture::options(folder.path()));
        bench.take(0, 4);
        let db = bench.writer.connection().unwrap();
        db.execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON command
             BEGIN SELECT raise(ABORT, 'the disk is full'); END",
        )
        .unwrap();
        let refused: Result<Answer, StoreError> = bench.writer.ask(noting("stop", "1"));
        assert!(refused.is_err(), "{refused:?}");
        bench.writer.connection().unwrap().execute_batch("DROP TRIGGER full").unwrap();
        assert_eq!(note(&mut bench, "1"), Noted::First);
    }
}

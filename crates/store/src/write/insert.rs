//! What one job of a batch becomes in the database.

use rusqlite::Connection;

use crate::delivery::Deliveries;
use crate::error::StoreError;
use crate::frames;
use crate::gap::NoFile;
use crate::job::{Answer, Ask, Imported};
use crate::record::Record;
use crate::sql::rows::{self, Answered, NewResult, Pixels};
use crate::sql::{claims, clock_correction, commands, cursor, intake, keys};
use crate::write::prepared::{Added, Ledger, Prepared, Trouble};
use reticle_base::clock::Stamp;
use reticle_base::crash;
use reticle_base::ids::SessionId;
use reticle_domain::segmentation::Timings;

/// Writes the rows of a job.
pub(crate) fn insert(
    db: &Connection,
    job: &Prepared,
    (deliveries, now): (&Deliveries, &Stamp),
) -> Result<Added, Trouble> {
    let session_pk = |id: SessionId| {
        keys::session(db, id)?
            .ok_or_else(|| Trouble::Job(StoreError::UnknownSession { session: id }))
    };
    let when = (deliveries, now);
    match job {
        Prepared::Ledger(Ledger::Open(session)) => rows::open_session(db, session, when)?,
        Prepared::Ledger(Ledger::Close { session, at }) => {
            rows::close_session(db, session_pk(*session)?, at, when)?;
        }
        Prepared::Ledger(Ledger::Gap(gap)) => rows::gap(db, session_pk(gap.session)?, gap)?,
        Prepared::Ledger(Ledger::Clock { now, trusted }) => {
            clock_correction::clock(db, now, *trusted)?
        }
        Prepared::Ledger(Ledger::Event(event)) => cursor::record(db, event)?,
        Prepared::Ledger(Ledger::Intake(change)) => {
            intake::change(db, change, now)?;
        }
        Prepared::Keep { session, frame, pixels, .. } => {
            let name = frames::file_name(*session, frame.id);
            let file = matches!(pixels, Pixels::Filed { .. }).then_some(name.as_str());
            rows::frame(db, session_pk(*session)?, frame, file, *pixels, when)?;
            crash::point("frame inserted");
        }
        Prepared::Commit { session, segmentation, labels } => {
            // A page that is read again after a crash is a frame of the session that took it.
            let session = match keys::recorded(db, segmentation.frame.id)? {
                Some(recorded) => recorded.session_pk,
                None => session_pk(*session)?,
            };
            // Its keep went before; if that failed, the frame is recorded now, without pixels.
            let without = Pixels::Without(NoFile::WriteFailed);
            let frame = rows::frame(db, session, &segmentation.frame, None, without, when)?;
            let result = NewResult {
                model: &segmentation.model,
                count: segmentation.labels.count(),
                labels_sha256: segmentation.labels.sha256(),
                packed: labels,
                objects: &segmentation.objects,
                focus: segmentation.focus,
                timings: segmentation.timings,
                look: Some(segmentation.look),
            };
            return Ok(Added::Result(rows::segmentation(db, session, frame, &result, when)?));
        }
        Prepared::Import { imported, labels } => {
            let (record, answered) = import(db, imported, labels, when)?;
            return Ok(Added::Imported(record, answered));
        }
        Prepared::Ask { ask, .. } => return Ok(Added::Answer(answer(db, ask, now)?)),
        Prepared::Unfit { .. } => {}
    }
    Ok(Added::Rows)
}

fn import(
    db: &Connection,
    imported: &Imported,
    packed: &[u8],
    when: (&Deliveries, &Stamp),
) -> Result<(Record, Answered), Trouble> {
    let unfit = |why: String| {
        let (what, frame) = ("import the labels", imported.frame);
        Trouble::Job(StoreError::Unfit { what, frame, why })
    };
    let Some(frame) = keys::recorded(db, imported.frame)? else {
        return Err(unfit("the frame is not in this store; import into the store it is in".into()));
    };
    let labels = &imported.labels;
    if (labels.width(), labels.height()) != frame.size {
        return Err(unfit(format!(
            "they are {}×{} pixels but the frame {}×{}; import labels of the frame's own size",
            labels.width(),
            labels.height(),
            frame.size.0,
            frame.size.1
        )));
    }
    let result = NewResult {
        model: &imported.model,
        count: labels.count(),
        labels_sha256: labels.sha256(),
        packed,
        objects: &imported.objects,
        focus: imported.focus,
        timings: Timings::default(),
        look: None,
    };
    let answered = rows::segmentation(db, frame.session_pk, frame.pk, &result, when)?;
    let objects = answered.objects(labels.count());
    Ok((Record::committed(imported.frame, frame.session, frame.sequence, objects), answered))
}

/// Answers one question, inside the transaction of its caller.
pub(crate) fn answer(db: &Connection, ask: &Ask, now: &Stamp) -> rusqlite::Result<Answer> {
    match ask {
        Ask::Claim(claim) => claims::take(db, claim, now).map(Answer::Claimed),
        Ask::Report(report) => claims::note(db, report, now).map(|()| Answer::Written),
        Ask::DeliverNow => claims::deliver_now(db).map(|()| Answer::Written),
        Ask::Retry => claims::retry(db).map(Answer::Retried),
        Ask::Again => claims::again(db, now).map(Answer::Retried),
        Ask::Published { stream, upto } => {
            cursor::acknowledge(db, *stream, *upto).map(|()| Answer::Written)
        }
        Ask::Command(noting) => commands::note(db, noting, now).map(Answer::Command),
        Ask::Commanded { operation, id, answer } => {
            commands::ended(db, operation, id, answer).map(|()| Answer::Written)
        }
        Ask::Intake(change) => intake::change(db, change, now).map(Answer::Intake),
        Ask::ArchiveDate { session, date } => {
            claims::archive_date(db, *session, date).map(Answer::ArchiveDate)
        }
    }
}

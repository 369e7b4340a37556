//! What one job of a batch becomes in the database.

use rusqlite::Connection;

use super::clock_correction;
use super::cursor;
use super::error::StoreError;
use super::frames;
use super::intake;
use super::job::{Imported, NoFile};
use super::outbox::{self, Deliveries};
use super::rows::{self, Answered, NewResult, Pixels};
use super::writer::{Added, Ledger, Prepared};
use crate::record::Record;
use reticle_base::clock::Stamp;
use reticle_base::crash;
use reticle_base::ids::SessionId;
use reticle_domain::segmentation::Timings;

/// What one job met: its own fault, or the database's.
pub(super) enum Trouble {
    Job(StoreError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Writes the rows of a job.
pub(super) fn insert(
    db: &Connection,
    job: &Prepared,
    (deliveries, now): (&Deliveries, &Stamp),
) -> Result<Added, Trouble> {
    let session_pk = |id: SessionId| {
        rows::session(db, id)?
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
            let session = match rows::recorded(db, segmentation.frame.id)? {
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
        Prepared::Ask { ask, .. } => return Ok(Added::Answer(outbox::answer(db, ask, now)?)),
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
    let Some(frame) = rows::recorded(db, imported.frame)? else {
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

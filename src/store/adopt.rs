//! What the archive knows and this store forgot becomes rows again.
//!
//! The caller has read the archive and compared every byte that can be compared; here it becomes
//! rows, one transaction for each session and each part of a series, so that adopting can be
//! broken off at any moment and begun again. What is there already stays as it is.
//!
//! 1. A frame comes back with its id and its position; one that is here at another position, or
//!    another one at its position, is a [`Refusal`]: two stores went on under one name, and a
//!    person has to say which of them counts.
//! 2. Positions of which nothing came back are kept free (`lost`), so that arrays in the archive
//!    never get shorter.
//! 3. A frame whose pixels the archive has is `archived`, without a file and with the reason
//!    `not_restored`.
//! 4. A part is noted as delivered only when the archive has all rows of it that the store has
//!    now; otherwise it is wanted.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, named_params, params};

use super::error::StoreError;
use super::identity::{self, Identity};
use super::job::NoFile;
use super::outbox::{self, Deliveries, Destination, Kind, PartRef, Receipt, Want};
use super::rows::{self, NewResult};
use super::schema::damaged_or;
use super::writer::Writer;
use super::{Store, aggregates, blobs, orphans};
use crate::base::clock::Stamp;
use crate::base::crash;
use crate::base::ids::{FrameId, SessionId, StoreId};
use crate::domain::facts::FrameFacts;
use crate::domain::label_image::LabelImage;
use crate::domain::object::Object;
use crate::domain::segmentation::{ModelRef, Timings};
use crate::domain::session::Session;

/// A session as the archive describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedSession {
    /// Its begin.
    pub session: Session,
    /// Its end, where the archive knows one.
    pub ended: Option<Stamp>,
    /// Day under which its tables are archived.
    pub archive_date: String,
    /// Its arrays.
    pub series: Vec<AdoptedSeries>,
}

/// An array of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptedSeries {
    /// Its number in the session.
    pub number: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 or 2.
    pub bytes_per_pixel: u8,
    /// Frames in one part.
    pub part_frames: u32,
    /// Positions that the array has in the archive.
    pub frames: u64,
}

/// A frame of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedFrame {
    /// What its table says.
    pub facts: FrameFacts,
    /// Whether the archive has its pixels, compared with the recorded hash.
    pub in_archive: bool,
}

/// A result of a part.
#[derive(Clone, Debug)]
pub struct AdoptedResult {
    /// The frame.
    pub frame: FrameId,
    /// Its labels, as the database holds them: a part's label images would fill the memory.
    packed: Vec<u8>,
    count: u32,
    labels_sha256: [u8; 32],
    objects: Vec<Object>,
    focus: f32,
    timings: Timings,
    committed: Option<Stamp>,
}

impl AdoptedResult {
    /// A result, if these are the objects of these labels.
    ///
    /// # Errors
    /// Why they are not.
    pub fn new(
        frame: FrameId,
        labels: &LabelImage,
        objects: Vec<Object>,
        (focus, timings, committed): (f32, Timings, Option<Stamp>),
    ) -> Result<Self, String> {
        let packed = blobs::encode_with(labels, &objects)?;
        let (count, labels_sha256) = (labels.count(), labels.sha256());
        Ok(Self { frame, packed, count, labels_sha256, objects, focus, timings, committed })
    }
}

/// All results of one model in a part.
#[derive(Clone, Debug)]
pub struct AdoptedResults {
    /// The model.
    pub model: ModelRef,
    /// Those that could be read.
    pub results: Vec<AdoptedResult>,
    /// How many the archive has, whether they could be read or not.
    pub there: u64,
    /// The objects of the archive that hold them.
    pub receipts: Vec<Receipt>,
}

/// What the archive has of one part of a series.
#[derive(Clone, Debug, Default)]
pub struct AdoptedPart {
    /// Number of the series.
    pub series: u32,
    /// Number of the part.
    pub part: u64,
    /// Its frames.
    pub frames: Vec<AdoptedFrame>,
    /// Their table; none where the archive has none.
    pub table: Option<Receipt>,
    /// Results by model.
    pub results: Vec<AdoptedResults>,
    /// The shard of its pixels, with how many frames are in it.
    pub pixels: Option<Receipt>,
}

impl AdoptedPart {
    /// Everything that was read for it.
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        let results = self.results.iter().flat_map(|results| &results.receipts);
        self.table.iter().chain(&self.pixels).chain(results)
    }
}

/// What was not here and is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PartTaken {
    /// Frames.
    pub frames: u64,
    /// Results.
    pub results: u64,
    /// Objects in them.
    pub objects: u64,
    /// Frames of which it is known now that the archive has their pixels.
    pub pixels: u64,
}

impl PartTaken {
    /// Whether nothing was taken.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Why something of the archive cannot be taken beside what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// How an adoption ends.
#[derive(Clone, Copy, Debug)]
pub struct Adoption {
    /// Another name for this store, where it is to have one.
    pub store: Option<StoreId>,
    /// The mark of deliveries that the archive knows.
    pub archive_mark: i64,
    /// The one that the central database knows.
    pub central_mark: i64,
    /// Whether the broker had everything that was here before.
    pub told_all: bool,
}

type When<'a> = (&'a Deliveries, &'a Stamp);

/// Undoes a transaction: its own fault, or the database's.
enum Broken {
    Refused(Refusal),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl Writer {
    /// One transaction, undone as a whole when it fails.
    fn adopt<T>(
        &mut self,
        what: &'static str,
        write: impl FnOnce(&Connection, When<'_>) -> Result<T, Broken>,
    ) -> Result<Result<T, Refusal>, StoreError> {
        let (now, database) = (self.clock.now(), self.database.clone());
        let deliveries = self.deliveries.clone();
        let run = |db: &mut Connection| -> Result<T, Broken> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let written = write(&transaction, (&deliveries, &now))?;
            crash::point("adopted rows inserted");
            transaction.commit()?;
            Ok(written)
        };
        match run(self.connection()?) {
            Ok(written) => Ok(Ok(written)),
            Err(Broken::Refused(refusal)) => Ok(Err(refusal)),
            Err(Broken::Database(error)) => Err(damaged_or(what, &database)(error)),
        }
    }
}

impl Store {
    /// Takes on a session and its arrays; true if anything of it was not here.
    ///
    /// # Errors
    /// When the database cannot be written. Inside: when an array here has another shape.
    pub fn adopt_session(
        &mut self,
        session: &AdoptedSession,
    ) -> Result<Result<bool, Refusal>, StoreError> {
        self.0.adopt("take on a session", |db, when| take_session(db, session, when))
    }

    /// Takes on a part of a series of a session that was taken on.
    ///
    /// # Errors
    /// When the database cannot be written. Inside: when a frame here is at its place.
    pub fn adopt_part(
        &mut self,
        session: SessionId,
        part: &AdoptedPart,
    ) -> Result<Result<PartTaken, Refusal>, StoreError> {
        self.0.adopt("take on a part", |db, when| take_part(db, session, part, when))
    }

    /// Notes the documents that the archive has of a session, and whether it is to be described
    /// again: where `describe` is true; `None` is never, because the archive knows more of it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn adopt_documents(
        &mut self,
        session: SessionId,
        receipts: &[Receipt],
        describe: Option<bool>,
    ) -> Result<(), StoreError> {
        let written = self.0.adopt("note what an archive has", |db, when| {
            let Some(pk) = rows::session(db, session)? else { return Ok(()) };
            if describe == Some(true) {
                rows::want_session(db, pk, when)?;
            }
            let Some(item) = item(db, Kind::Session, pk, None)? else { return Ok(()) };
            for receipt in receipts {
                outbox::put_receipt(db, item, receipt, when.1)?;
            }
            if describe.is_none() {
                db.execute(
                    "UPDATE outbox SET done = wanted, state = 'done', attempts = 0, reason = NULL
                     WHERE pk = ?1 AND state = 'waiting'
                       AND EXISTS (SELECT 1 FROM receipt WHERE outbox = outbox.pk)",
                    [item],
                )?;
            }
            Ok(())
        })?;
        Ok(written.unwrap_or(()))
    }

    /// Holds back what this store would deliver of a session that another one went on with, until
    /// a person has decided.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn hold_back(&mut self, session: SessionId, why: &str) -> Result<(), StoreError> {
        let written = self.0.adopt("hold a session back", |db, _| {
            db.execute(
                "UPDATE outbox SET state = 'quarantined', reason = ?2
                 WHERE state <> 'quarantined'
                   AND session = (SELECT pk FROM session WHERE id = ?1)",
                params![session.as_bytes(), why],
            )?;
            Ok(())
        })?;
        Ok(written.unwrap_or(()))
    }

    /// Leaves sessions to the store that they are of: nothing of them is delivered from here.
    /// How many that changed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn leave_to(
        &mut self,
        original: StoreId,
        sessions: &[SessionId],
    ) -> Result<u64, StoreError> {
        let written = self.0.adopt("leave sessions to another store", |db, _| {
            let mut left = 0;
            for session in sessions {
                let Some(pk) = rows::session(db, *session)? else { continue };
                left += db.execute(
                    "UPDATE session SET delivered_by = ?2
                     WHERE pk = ?1 AND delivered_by IS NULL",
                    params![pk, original.as_bytes()],
                )?;
                db.execute(
                    "DELETE FROM receipt WHERE outbox IN (SELECT pk FROM outbox WHERE session = ?1)",
                    [pk],
                )?;
                db.execute("DELETE FROM outbox WHERE session = ?1", [pk])?;
                // Its files may go by the rule, as those that no archive is to have.
                db.execute("UPDATE frame SET archived = 0 WHERE session = ?1 AND archived = 1", [pk])?;
            }
            Ok(left as u64)
        })?;
        Ok(written.unwrap_or(0))
    }

    /// Gives frames without a file those that `orphans/` has for them; how many. Those that the
    /// archive is to have by the rule and has not are wanted there.
    ///
    /// # Errors
    /// When a file cannot be moved, or the database not be written.
    pub fn take_back_orphans(&mut self) -> Result<u64, StoreError> {
        let (folder, database) = (self.0.folder.clone(), self.0.database.clone());
        let back = orphans::bring_all_back(&folder, self.0.connection()?, &database)?;
        let written = self.0.adopt("give frames their files again", |db, when| {
            for file in &back {
                orphans::give_file(db, file)?;
                want_pixels(db, file.frame, when)?;
            }
            Ok(back.len() as u64)
        })?;
        Ok(written.unwrap_or(0))
    }

    /// Begins a new epoch, with marks above those of the destinations.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn finish_adoption(
        &mut self,
        adoption: &Adoption,
    ) -> Result<(Identity, i64, i64), StoreError> {
        let written = self.0.adopt("begin an epoch", |db, (_, now)| {
            let identity = identity::begin_epoch(db, adoption.store)?;
            let mut marks = [0; 2];
            let told = [
                (Destination::Archive, adoption.archive_mark),
                (Destination::Central, adoption.central_mark),
            ];
            for (mark, (destination, known)) in marks.iter_mut().zip(told) {
                db.execute(
                    "UPDATE destination SET high_water = max(high_water, ?2) + 1 WHERE name = ?1",
                    params![destination, known],
                )?;
                *mark = mark_of(db, destination)?;
            }
            if adoption.told_all {
                // What came back was told before it was forgotten, or is in the archive.
                db.execute(
                    "UPDATE told SET done = (SELECT coalesce(max(pk), 0) FROM segmentation)
                     WHERE stream = 'results'",
                    [],
                )?;
            }
            let detail = serde_json::json!({ "store": identity.store, "epoch": identity.epoch });
            rows::event(db, now, "adopted", &detail)?;
            Ok((identity, marks[0], marks[1]))
        })?;
        // Nothing in there refuses.
        written.map_err(|Refusal(detail)| StoreError::Damaged {
            path: self.0.database.clone(),
            detail,
        })
    }

    /// Takes the name of a store whose database is gone.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn become_store(&mut self, store: StoreId) -> Result<(), StoreError> {
        let written = self.0.adopt("take a name", |db, _| {
            identity::begin_epoch(db, Some(store))?;
            Ok(())
        })?;
        Ok(written.unwrap_or(()))
    }
}

/// Deliveries that were claimed for a destination so far.
pub(super) fn mark_of(db: &Connection, destination: Destination) -> rusqlite::Result<i64> {
    db.query_row("SELECT high_water FROM destination WHERE name = ?1", [destination], |row| {
        row.get(0)
    })
    .optional()
    .map(|mark| mark.unwrap_or(0))
}

impl super::Reader {
    /// Deliveries that were claimed for the archive so far.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn mark(&self, destination: Destination) -> Result<i64, StoreError> {
        self.with("read a mark", |db| mark_of(db, destination))
    }

    /// Whether a destination was found to know more than this store, and nobody has decided yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_in_conflict(&self) -> Result<bool, StoreError> {
        self.with("read the destinations", |db| {
            db.query_row(
                "SELECT EXISTS (SELECT 1 FROM destination WHERE conflict IS NOT NULL)",
                [],
                |row| row.get(0),
            )
        })
    }

    /// Who delivers this session, where it is not this store.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn delivered_by(&self, session: SessionId) -> Result<Option<StoreId>, StoreError> {
        self.with("read who delivers a session", |db| {
            db.query_row(
                "SELECT delivered_by FROM session WHERE id = ?1",
                [session.as_bytes()],
                |row| Ok(row.get::<_, Option<[u8; 16]>>(0)?.map(StoreId::from_bytes)),
            )
            .optional()
            .map(Option::flatten)
        })
    }
}

fn take_session(db: &Connection, adopted: &AdoptedSession, when: When<'_>) -> Result<bool, Broken> {
    let id = adopted.session.id;
    let mut changed = false;
    let pk = match rows::session(db, id)? {
        Some(pk) => pk,
        None => {
            changed = true;
            rows::open_session(db, &adopted.session, when)?;
            rows::session(db, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?
        }
    };
    let open: bool =
        db.query_row("SELECT ended_wall_ns IS NULL FROM session WHERE pk = ?1", [pk], |row| {
            row.get(0)
        })?;
    if let Some(ended) = adopted.ended.filter(|_| open) {
        changed = true;
        rows::close_session(db, pk, &ended, when)?;
    }
    db.execute(
        "UPDATE session SET archive_date = ?2 WHERE pk = ?1 AND archive_date IS NULL",
        params![pk, adopted.archive_date],
    )?;
    for series in &adopted.series {
        changed |= take_series(db, pk, series)?;
    }
    Ok(changed)
}

fn take_series(db: &Connection, session: i64, series: &AdoptedSeries) -> Result<bool, Broken> {
    let AdoptedSeries { number, width, height, bytes_per_pixel, part_frames, frames } = *series;
    let here = db
        .query_row(
            "SELECT pk, width, height, bytes_per_pixel, part_frames, frames FROM series
             WHERE session = ?1 AND number = ?2",
            params![session, number],
            |row| {
                let shape: (u32, u32, u8, u32) =
                    (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get::<_, i64>(0)?, shape, row.get::<_, i64>(5)?.cast_unsigned()))
            },
        )
        .optional()?;
    let (pk, had) = match here {
        Some((pk, shape, had)) if shape == (width, height, bytes_per_pixel, part_frames) => {
            (pk, had)
        }
        Some(_) => {
            return Err(Broken::Refused(Refusal(format!(
                "series {number} has another shape here than in the archive"
            ))));
        }
        None => {
            db.execute(
                "INSERT INTO series (session, number, width, height, bytes_per_pixel, part_frames)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![session, number, width, height, bytes_per_pixel, part_frames],
            )?;
            (db.last_insert_rowid(), 0)
        }
    };
    if frames <= had {
        return Ok(here.is_none());
    }
    db.execute("UPDATE series SET frames = ?2 WHERE pk = ?1", params![pk, frames.cast_signed()])?;
    let per_part = u64::from(part_frames);
    for part in had / per_part..frames.div_ceil(per_part) {
        note_lost(db, pk, part, per_part, frames)?;
    }
    Ok(true)
}

/// Notes which positions of a part have no frame.
fn note_lost(
    db: &Connection,
    series: i64,
    part: u64,
    part_frames: u64,
    frames: u64,
) -> rusqlite::Result<()> {
    let (from, to) = (part * part_frames, ((part + 1) * part_frames).min(frames));
    let range = params![series, from.cast_signed(), to.cast_signed()];
    db.prepare_cached("DELETE FROM lost WHERE series = ?1 AND first >= ?2 AND first < ?3")?
        .execute(range)?;
    let there: Vec<i64> = db
        .prepare_cached(
            "SELECT position FROM frame WHERE series = ?1 AND position >= ?2 AND position < ?3
             ORDER BY position",
        )?
        .query_map(range, |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut next = from.cast_signed();
    for position in there.into_iter().chain([to.cast_signed()]) {
        if position > next {
            db.prepare_cached("INSERT INTO lost (series, first, last) VALUES (?1, ?2, ?3)")?
                .execute(params![series, next, position - 1])?;
        }
        next = position + 1;
    }
    Ok(())
}

fn take_part(
    db: &Connection,
    session: SessionId,
    part: &AdoptedPart,
    when: When<'_>,
) -> Result<PartTaken, Broken> {
    let refused = |why: &str| Broken::Refused(Refusal(why.to_owned()));
    let session_pk =
        rows::session(db, session)?.ok_or_else(|| refused("its session was not taken on"))?;
    let (series, part_frames, frames): (i64, u64, u64) = db
        .query_row(
            "SELECT pk, part_frames, frames FROM series WHERE session = ?1 AND number = ?2",
            params![session_pk, part.series],
            |row| {
                let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                Ok((row.get(0)?, count(1)?, count(2)?))
            },
        )
        .optional()?
        .ok_or_else(|| refused("its series was not taken on"))?;
    let place = PartRef { series, part: part.part, model: None };
    let mut taken = PartTaken::default();
    for frame in &part.frames {
        take_frame(db, session_pk, place, frame, &mut taken, when)?;
    }
    note_lost(db, series, part.part, part_frames, frames)?;
    if let Some(table) = &part.table {
        settle(
            db,
            Kind::Frames,
            session_pk,
            place,
            part.frames.len() as u64,
            (&[table.clone()], when.1),
        )?;
    }
    if let Some(shard) = &part.pixels {
        settle(db, Kind::Pixels, session_pk, place, shard.rows, (&[shard.clone()], when.1))?;
    }
    for results in &part.results {
        take_results(db, session_pk, results, &mut taken, when)?;
        let model = rows::model(db, &results.model)?;
        let place = PartRef { model: Some(model), ..place };
        settle(db, Kind::Results, session_pk, place, results.there, (&results.receipts, when.1))?;
    }
    Ok(taken)
}

fn take_frame(
    db: &Connection,
    session: i64,
    place: PartRef,
    adopted: &AdoptedFrame,
    taken: &mut PartTaken,
    when: When<'_>,
) -> Result<(), Broken> {
    let facts = &adopted.facts;
    let here = db
        .prepare_cached(
            "SELECT pk, series = ?2 AND position = ?3 AND sha256 = ?4, archived
             FROM frame WHERE id = ?1",
        )?
        .query_row(
            params![facts.id.as_bytes(), place.series, facts.position.cast_signed(), facts.sha256],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?)),
        )
        .optional()?;
    if let Some((pk, is_same, archived)) = here {
        if !is_same {
            return Err(Broken::Refused(Refusal(format!(
                "frame {} has another place or other pixels here than in the archive",
                facts.id
            ))));
        }
        if adopted.in_archive && archived != 2 {
            taken.pixels += 1;
            db.prepare_cached("UPDATE frame SET archived = 2 WHERE pk = ?1")?.execute([pk])?;
        }
        return Ok(());
    }
    let other: Option<[u8; 16]> = db
        .prepare_cached("SELECT id FROM frame WHERE series = ?1 AND position = ?2")?
        .query_row(params![place.series, facts.position.cast_signed()], |row| row.get(0))
        .optional()?;
    if let Some(other) = other {
        return Err(Broken::Refused(Refusal(format!(
            "position {} of series {} is frame {} in the archive and frame {} here",
            facts.position,
            facts.series,
            facts.id,
            FrameId::from_bytes(other)
        ))));
    }
    let pk = insert_frame(db, session, place, adopted)?;
    db.prepare_cached("UPDATE session SET frames = frames + 1 WHERE pk = ?1")?
        .execute([session])?;
    let want = Want { kind: Kind::Frames, session, part: Some(place), key: pk };
    outbox::want(db, when.0, want, when.1)?;
    taken.frames += 1;
    taken.pixels += u64::from(adopted.in_archive);
    Ok(())
}

fn insert_frame(
    db: &Connection,
    session: i64,
    place: PartRef,
    adopted: &AdoptedFrame,
) -> rusqlite::Result<i64> {
    let facts = &adopted.facts;
    let captured = Stamp {
        wall_ns: facts.captured.recorded_ns,
        mono_ns: facts.captured.mono_ns,
        boot_id: facts.captured.boot,
    };
    let boot = rows::boot(db, &captured)?;
    if facts.captured.at_ns != facts.captured.recorded_ns {
        // That boot was dated again: see dating.rs.
        let mended = db
            .prepare_cached(
                "UPDATE boot SET untrusted = 1, offset_ns = ?2
                 WHERE pk = ?1 AND offset_ns IS NULL",
            )?
            .execute(params![boot, facts.captured.at_ns - facts.captured.mono_ns.cast_signed()])?;
        if mended > 0 {
            aggregates::sum_minutes_again(db, boot)?;
        }
    }
    db.prepare_cached(
        "INSERT INTO frame (id, session, sequence, captured_wall_ns, captured_mono_ns,
                            captured_boot, exposure_us, width, height, bit_depth, sha256,
                            pixel_size_um, plate, well, field, origin, no_file,
                            series, position, archived)
         VALUES (:id, :session, :sequence, :wall, :mono, :boot, :exposure, :width, :height,
                 :bit_depth, :sha256, :pixel_size, :plate, :well, :field, :origin, :no_file,
                 :series, :position, :archived)",
    )?
    .execute(named_params! {
        ":id": facts.id.as_bytes(),
        ":session": session,
        ":sequence": facts.sequence.cast_signed(),
        ":wall": captured.wall_ns,
        ":mono": captured.mono_ns.cast_signed(),
        ":boot": boot,
        ":exposure": facts.exposure_us,
        ":width": facts.width,
        ":height": facts.height,
        ":bit_depth": facts.bit_depth,
        ":sha256": facts.sha256,
        ":pixel_size": facts.pixel_size_um,
        ":plate": facts.place.plate,
        ":well": facts.place.well,
        ":field": facts.place.field,
        ":origin": facts.origin,
        ":no_file": NoFile::NotRestored,
        ":series": place.series,
        ":position": facts.position.cast_signed(),
        ":archived": if adopted.in_archive { 2 } else { 0 },
    })?;
    Ok(db.last_insert_rowid())
}

fn take_results(
    db: &Connection,
    session: i64,
    adopted: &AdoptedResults,
    taken: &mut PartTaken,
    when: When<'_>,
) -> Result<(), Broken> {
    let model = rows::model(db, &adopted.model)?;
    let mut range: Option<(i64, i64)> = None;
    for result in &adopted.results {
        let Some(frame) = rows::frame_pk(db, result.frame)? else { continue };
        let known = db
            .prepare_cached(
                "SELECT labels_sha256 FROM segmentation WHERE frame = ?1 AND model = ?2",
            )?
            .query_row([frame, model], |row| row.get::<_, [u8; 32]>(0))
            .optional()?;
        if let Some(known) = known {
            if known != result.labels_sha256 {
                return Err(Broken::Refused(Refusal(format!(
                    "the labels of frame {} here are not those of the archive",
                    result.frame
                ))));
            }
            continue;
        }
        let new = NewResult {
            model: &adopted.model,
            count: result.count,
            labels_sha256: result.labels_sha256,
            packed: &result.packed,
            objects: &result.objects,
            focus: result.focus,
            timings: result.timings,
        };
        // Where the archive does not say when it was committed: now is when this store did.
        let committed = result.committed.as_ref().unwrap_or(when.1);
        rows::segmentation(db, session, frame, &new, (when.0, committed))?;
        let pk: i64 = db
            .prepare_cached("SELECT pk FROM segmentation WHERE frame = ?1 AND model = ?2")?
            .query_row([frame, model], |row| row.get(0))?;
        range = Some(range.map_or((pk, pk), |(first, _)| (first, pk)));
        taken.results += 1;
        taken.objects += u64::from(result.count);
    }
    if let Some((first, last)) = range {
        db.execute("INSERT INTO adopted (first, last) VALUES (?1, ?2)", [first, last])?;
    }
    Ok(())
}

/// The row of the outbox that delivers this to the archive.
fn item(
    db: &Connection,
    kind: Kind,
    session: i64,
    part: Option<PartRef>,
) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(
        "SELECT pk FROM outbox
         WHERE destination = 'archive' AND kind = ?1 AND session = ?2 AND series IS ?3
           AND part IS ?4 AND model IS ?5",
    )?
    .query_row(
        params![
            kind,
            session,
            part.map(|part| part.series),
            part.map(|part| part.part.cast_signed()),
            part.and_then(|part| part.model)
        ],
        |row| row.get(0),
    )
    .optional()
}

/// Notes what the archive has of a part, and that it is delivered, if that is all there is here.
fn settle(
    db: &Connection,
    kind: Kind,
    session: i64,
    place: PartRef,
    there: u64,
    (receipts, now): (&[Receipt], &Stamp),
) -> rusqlite::Result<()> {
    let part = place.part.cast_signed();
    let in_part = "frame.series = ?1 AND frame.position / series.part_frames = ?2";
    let frames = "frame JOIN series ON series.pk = frame.series";
    let count = match kind {
        Kind::Pixels => format!(
            "SELECT count(*), coalesce(max(frame.pk), 0), total(archived = 1), ?3 IS NULL
             FROM {frames} WHERE {in_part} AND archived > 0"
        ),
        Kind::Results => format!(
            "SELECT count(*), coalesce(max(segmentation.pk), 0), 0, 1
             FROM segmentation JOIN frame ON frame.pk = segmentation.frame
             JOIN series ON series.pk = frame.series
             WHERE {in_part} AND segmentation.model = ?3"
        ),
        Kind::Frames | Kind::Session => format!(
            "SELECT count(*), coalesce(max(frame.pk), 0), 0, ?3 IS NULL FROM {frames}
             WHERE {in_part}"
        ),
    };
    let (here, newest, open): (i64, i64, f64) =
        db.prepare_cached(&count)?.query_row(params![place.series, part, place.model], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let known = item(db, kind, session, Some(place))?;
    let pk = match known {
        Some(pk) => pk,
        None => {
            let boot = rows::boot(db, now)?;
            db.prepare_cached(
                "INSERT INTO outbox (destination, kind, session, series, part, model, wanted,
                                     wanted_rows, since_mono_ns, since_boot, since_wall_ns,
                                     changed_mono_ns)
                 SELECT 'archive', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8
                 WHERE EXISTS (SELECT 1 FROM session WHERE pk = ?2 AND delivered_by IS NULL)",
            )?
            .execute(params![
                kind,
                session,
                place.series,
                part,
                place.model,
                newest,
                here,
                now.mono_ns.cast_signed(),
                boot,
                now.wall_ns
            ])?;
            match item(db, kind, session, Some(place))? {
                Some(pk) => pk,
                None => return Ok(()),
            }
        }
    };
    for receipt in receipts {
        outbox::put_receipt(db, pk, receipt, now)?;
    }
    let is_all = here.cast_unsigned() == there && open == 0.0 && !receipts.is_empty();
    if is_all {
        db.prepare_cached(
            "UPDATE outbox SET wanted = max(wanted, ?2), done = max(wanted, ?2), done_rows = ?3,
                               wanted_rows = ?3, state = 'done', attempts = 0, reason = NULL,
                               due_boot = NULL, due_mono_ns = NULL, lease_boot = NULL,
                               lease_mono_ns = NULL, progress = NULL, hurry = 0
             WHERE pk = ?1",
        )?
        .execute(params![pk, newest, here])?;
    } else {
        db.prepare_cached(
            "UPDATE outbox SET wanted = max(wanted, ?2), done = 0, done_rows = 0,
                               state = iif(state = 'quarantined', state, 'waiting'),
                               progress = NULL
             WHERE pk = ?1",
        )?
        .execute(params![pk, newest])?;
    }
    Ok(())
}

/// A frame that has its file again: the archive gets it, if the rule says so and it has not.
fn want_pixels(db: &Connection, frame: i64, (deliveries, now): When<'_>) -> rusqlite::Result<()> {
    let (session, series, part, sequence, archived): (i64, i64, i64, i64, i64) = db.query_row(
        "SELECT frame.session, frame.series, frame.position / series.part_frames, frame.sequence,
                frame.archived
         FROM frame JOIN series ON series.pk = frame.series WHERE frame.pk = ?1",
        [frame],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
    )?;
    let is_wanted = deliveries.archive.is_some()
        && archived == 0
        && deliveries.pixels.includes(sequence.cast_unsigned());
    if is_wanted {
        db.execute("UPDATE frame SET archived = 1 WHERE pk = ?1", [frame])?;
        let part = PartRef { series, part: part.cast_unsigned(), model: None };
        let want = Want { kind: Kind::Pixels, session, part: Some(part), key: frame };
        outbox::want(db, deliveries, want, now)?;
    }
    Ok(())
}

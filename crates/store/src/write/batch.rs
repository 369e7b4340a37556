//! The only thread that writes.
//!
//! # Keep and commit, in order
//!
//! What waits in the queue is taken together, up to [`BATCH_JOBS`] jobs or [`BATCH_BYTES`], so
//! that one fsync of the log serves all of it.
//! 1. Room is made for each frame file (`retention.rs`).
//! 2. Each frame file is written: `.tmp` → fsync → rename → fsync of its folder.
//! 3. One transaction takes all rows of the batch. Each job has a savepoint: one that cannot
//!    be stored is undone alone.
//! 4. The transaction is committed, which fsyncs the log.
//! 5. The names of the store must still lead to the files that are open (`reach.rs`).
//! 6. Only now is anything reported: kept, saved, failed.
//!
//! So a row never names a file that is not whole on the disk, and a file without a row was
//! never promised to anyone.
//!
//! # When it fails
//!
//! A commit that failed is tried a second time at once, with room made or the database opened
//! again. If that fails too, every job of the batch is reported as failed, and the next batch
//! starts afresh: saving resumes by itself when the disk is back. Begins and ends of sessions,
//! gaps and events are few and small; they are owed and tried again first.
//!
//! Frame files of a failed batch are removed after the *next* commit, not at once: after an
//! I/O error at the fsync nobody knows whether the commit is on the disk, and a power cut could
//! bring its rows back. When the database is opened again, what its log holds is made durable
//! before anything else (`schema::reopen`), so that after the next commit there is no doubt.

use std::time::Duration;

use rusqlite::TransactionBehavior;

use crate::error::StoreError;
use crate::gap::NoFile;
use crate::job::{Answer, Ask, Job, Outcome};
use crate::record::Record;
use crate::sql::intake::{self, Change};
use crate::sql::rows::{self, Answered, Pixels};
use crate::sql::schema;
use crate::write::insert::insert;
use crate::write::prepared::{Added, Ledger, Prepared, Trouble};
use crate::write::writer::Writer;
use crate::{blobs, frames};
use reticle_base::crash;
use reticle_base::ids::SessionId;
use reticle_base::queue::{Received, Receiver};
use reticle_base::remedy::Remedy;
use reticle_domain::frame::Frame;

/// Jobs that share a commit at most: bounds what one failure can touch.
const BATCH_JOBS: usize = 32;

/// Pixel and label bytes that share a commit at most: bounds how long a result waits for
/// files of later frames (64 MiB is about a second on a slow SD card).
const BATCH_BYTES: usize = 64 << 20;

/// How often the writer looks after owed jobs and free room when there is nothing to do.
const IDLE: Duration = Duration::from_secs(5);

/// Begins, ends, gaps and events that wait for the disk at most. A day of a camera that is lost every
/// minute has fewer.
const OWED_JOBS: usize = 4096;

impl Writer {
    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>, mut outcomes: impl FnMut(Outcome)) {
        loop {
            match jobs.recv_timeout(IDLE) {
                Received::Item(first) => {
                    let batch = gather(first, jobs);
                    let _busy = self.progress.work();
                    self.progress.pass();
                    self.work(batch, &mut outcomes);
                }
                Received::Timeout => {
                    let _busy = self.progress.work();
                    self.idle(&mut outcomes);
                }
                Received::Closed => break,
            }
        }
        self.close(&mut outcomes);
    }

    /// One batch: files, rows, commit, and then the news.
    pub(crate) fn work(&mut self, batch: Vec<Job>, outcomes: &mut impl FnMut(Outcome)) {
        // Not a file is made in a folder that is another one.
        if let Err(error) = self.reached(outcomes) {
            for job in batch {
                self.refuse(job, &error, outcomes);
            }
            return;
        }
        let mut prepared: Vec<Prepared> = self.owed.drain(..).map(Prepared::Ledger).collect();
        for job in batch {
            let job = self.prepare(job, outcomes);
            prepared.push(job);
        }
        crash::point("batch prepared");
        let mut committed = self.commit(&prepared);
        if let Err(error) = &committed
            && error.remedy() == Remedy::Retry
        {
            tracing::debug!(%error, "commit failed; trying once more");
            self.mend(error, outcomes);
            committed = self.commit(&prepared);
        }
        match committed.and_then(|results| self.reached(outcomes).map(|()| results)) {
            Ok(results) => {
                crash::point("committed");
                for (job, result) in prepared.into_iter().zip(results) {
                    self.report(job, result, outcomes);
                }
                self.remove_leftovers();
                self.look_for_room(outcomes);
            }
            Err(error) => {
                if error.is_disk_full() {
                    let largest = prepared.iter().map(Prepared::file_bytes).max();
                    self.hold(largest.unwrap_or_default(), NoFile::WriteFailed, outcomes);
                } else if error.remedy() == Remedy::Retry {
                    self.let_go(outcomes);
                }
                for job in prepared {
                    self.report_failed(job, &error, outcomes);
                }
            }
        }
    }

    /// Asks the outbox without the queue.
    pub(crate) fn ask(&mut self, ask: Ask) -> Result<Answer, StoreError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.work(vec![Job::Ask { ask, reply }], &mut |_| {});
        answer.recv().unwrap_or_else(|_| {
            Err(StoreError::Damaged {
                path: self.database.clone(),
                detail: "the writer gave no answer".to_owned(),
            })
        })
    }

    pub(crate) fn idle(&mut self, outcomes: &mut impl FnMut(Outcome)) {
        if self.reached(outcomes).is_err() {
            return;
        }
        if !self.owed.is_empty() || !self.leftovers.is_empty() {
            self.work(Vec::new(), outcomes);
        }
        if let Err(error) = self.keep_room(outcomes) {
            tracing::warn!(%error, "cannot make room");
        }
    }

    /// After a batch: a delivery may have made room, which the idle writer would find late.
    fn look_for_room(&mut self, outcomes: &mut impl FnMut(Outcome)) {
        if let Err(error) = self.resume_if_room(outcomes) {
            tracing::debug!(%error, "cannot look for room");
        }
    }

    /// Last attempt at what is owed; then the log is folded into the database and the folder
    /// is marked as closed in order.
    pub(crate) fn close(mut self, outcomes: &mut impl FnMut(Outcome)) {
        if !self.owed.is_empty() || !self.leftovers.is_empty() {
            self.work(Vec::new(), outcomes);
        }
        for job in &self.owed {
            tracing::error!(?job, "not recorded: the disk did not come back before the end");
        }
        if self.unlinked.is_some() {
            // Not closed in order, and the lock says so: the next start looks twice.
            return;
        }
        self.reach.closed();
        let closed = match self.connection.take() {
            Some(connection) => {
                if let Some(run) = self.run
                    && let Err(error) = intake::end_in_order(&connection, &run)
                {
                    tracing::debug!(%error, "images that were begun count as attempted");
                }
                // Folded now, even if a reader still holds the log open.
                if let Err(error) = schema::fold_log(&connection) {
                    tracing::debug!(%error, "the log stays beside the database, as durable there");
                }
                connection
                    .close()
                    .map_err(|(_, error)| StoreError::database("close", &self.database)(error))
            }
            None => Ok(()),
        };
        match closed.and_then(|()| self.lock.release_clean(&self.folder)) {
            Ok(()) => tracing::info!(folder = %self.folder.display(), "store closed"),
            // Nothing is lost: the next start finds the folder as after a crash.
            Err(error) => tracing::warn!(%error, "store not closed in order"),
        }
    }

    pub(crate) fn prepare(&mut self, job: Job, outcomes: &mut impl FnMut(Outcome)) -> Prepared {
        match job {
            Job::Open(session) => Prepared::Ledger(Ledger::Open(session)),
            Job::Close { session, at } => Prepared::Ledger(Ledger::Close { session, at }),
            Job::Gap(gap) => Prepared::Ledger(Ledger::Gap(gap)),
            Job::Clock { now, trusted } => Prepared::Ledger(Ledger::Clock { now, trusted }),
            Job::Event(event) => Prepared::Ledger(Ledger::Event(event)),
            Job::Intake(change) => Prepared::Ledger(Ledger::Intake(change)),
            Job::Ask { mut ask, reply } => {
                if let Ask::Claim(claim) = &mut ask {
                    // A part that waits to be full would wait for ever: nothing is added to it.
                    claim.drain |= self.held.is_some();
                }
                if let Ask::Intake(Change::Begin { run, .. }) = &ask {
                    self.run = Some(*run);
                }
                Prepared::Ask { ask, reply }
            }
            Job::Import(imported) => {
                let frame = imported.frame;
                match blobs::encode_with(&imported.labels, &imported.objects) {
                    Ok(labels) => Prepared::Import { imported: Box::new(imported), labels },
                    Err(why) => Prepared::Unfit {
                        frame,
                        error: StoreError::Unfit { what: "import the labels", frame, why },
                    },
                }
            }
            Job::Keep { session, frame } => {
                let (pixels, fresh, trouble) = match self.keep_pixels(session, &frame, outcomes) {
                    Ok((pixels, fresh)) => (pixels, fresh, None),
                    Err(error) => (Pixels::Without(NoFile::WriteFailed), false, Some(error)),
                };
                Prepared::Keep { session, frame, pixels, fresh, trouble }
            }
            Job::Commit { session, segmentation } => {
                let frame = segmentation.frame.id;
                match blobs::encode_result(&segmentation) {
                    Ok(labels) => Prepared::Commit { session, segmentation, labels },
                    Err(why) => Prepared::Unfit {
                        frame,
                        error: StoreError::Unfit { what: "save the result", frame, why },
                    },
                }
            }
        }
    }

    /// Writes the frame's file where the rule wants one and there is room; and whether it was
    /// written now.
    fn keep_pixels(
        &mut self,
        session: SessionId,
        frame: &Frame,
        outcomes: &mut impl FnMut(Outcome),
    ) -> Result<(Pixels, bool), StoreError> {
        let database = self.database.clone();
        let known = rows::pixels_of(self.connection()?, frame.id)
            .map_err(schema::damaged_or("look up a frame", &database))?;
        if let Some(pixels) = known {
            return Ok((pixels, false));
        }
        if !self.options.frames.keep.includes(frame.sequence) {
            return Ok((Pixels::Without(NoFile::Rule), false));
        }
        let incoming = frames::expected_bytes(frame);
        if self.has_its_share(session, frame, incoming)? {
            return Ok((Pixels::Without(NoFile::MaxBytes), false));
        }
        if let Some(reason) = self.room_for(incoming, outcomes)? {
            // One that could never fit is no reason to hold the others.
            if incoming <= self.options.frames.max_bytes {
                self.hold(incoming, reason, outcomes);
            }
            return Ok((Pixels::Without(reason), false));
        }
        let bytes = match frames::write(&self.folder, session, frame) {
            // Somebody else filled the disk between the look and the write.
            Err(error) if error.is_disk_full() => {
                self.mend(&error, outcomes);
                frames::write(&self.folder, session, frame)?
            }
            other => other?,
        };
        self.kept_bytes += bytes;
        self.takes_of_its_share(session, frame, bytes);
        Ok((Pixels::Filed { bytes }, true))
    }

    /// All rows of the batch in one transaction.
    fn commit(&mut self, batch: &[Prepared]) -> Result<Vec<Result<Added, StoreError>>, StoreError> {
        let now = self.clock.now();
        let database = self.database.clone();
        let deliveries = self.deliveries.clone();
        let failed = |error| schema::damaged_or("commit", &database)(error);
        let connection = self.connection()?;
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut results = Vec::with_capacity(batch.len());
        for job in batch {
            let savepoint = transaction.savepoint().map_err(failed)?;
            match insert(&savepoint, job, (&deliveries, &now)) {
                Ok(added) => {
                    savepoint.commit().map_err(failed)?;
                    results.push(Ok(added));
                }
                Err(Trouble::Job(error)) => results.push(Err(error)),
                Err(Trouble::Database(error)) => {
                    let error = failed(error);
                    if error.remedy() != Remedy::GiveUp {
                        return Err(error);
                    }
                    results.push(Err(error));
                }
            }
        }
        crash::point("rows inserted");
        transaction.commit().map_err(failed)?;
        Ok(results)
    }

    fn report(
        &mut self,
        job: Prepared,
        result: Result<Added, StoreError>,
        outcomes: &mut impl FnMut(Outcome),
    ) {
        let added = match result {
            Ok(added) => added,
            Err(error) => {
                self.report_failed(job, &error, outcomes);
                return;
            }
        };
        outcomes(match job {
            Prepared::Ledger(_) => return,
            Prepared::Import { .. } => match added {
                Added::Imported(record, Answered::Now) => Outcome::Saved(record),
                Added::Imported(record, answered) => {
                    Outcome::AlreadySaved { record, same: answered == Answered::Before }
                }
                Added::Rows | Added::Result(_) | Added::Answer(_) => return,
            },
            Prepared::Ask { reply, .. } => {
                if let Added::Answer(answer) = added {
                    // Who asked may have gone meanwhile; the lease sees to that.
                    reply.send(Ok(answer)).ok();
                }
                return;
            }
            Prepared::Keep { frame, trouble: Some(error), .. } => {
                Outcome::KeepFailed { frame: frame.id, error }
            }
            Prepared::Keep { frame, pixels: Pixels::Filed { .. }, .. } => {
                Outcome::Kept { frame: frame.id }
            }
            Prepared::Keep { frame, pixels: Pixels::Without(reason), .. } => {
                Outcome::NotKept { frame: frame.id, reason }
            }
            Prepared::Commit { session, segmentation, .. } => {
                let Added::Result(answered) = added else { return };
                let (frame, given) = (&segmentation.frame, segmentation.labels.count());
                let objects = answered.objects(given);
                let record = Record::committed(frame.id, session, frame.sequence, objects);
                match answered {
                    Answered::Now | Answered::Before => Outcome::Saved(record),
                    Answered::Otherwise { .. } => Outcome::AlreadySaved { record, same: false },
                }
            }
            Prepared::Unfit { frame, error } => Outcome::Failed { frame: Some(frame), error },
        });
    }

    pub(crate) fn report_failed(
        &mut self,
        job: Prepared,
        error: &StoreError,
        outcomes: &mut impl FnMut(Outcome),
    ) {
        let frame = match job {
            Prepared::Ledger(job) => {
                if error.remedy() != Remedy::GiveUp && self.owed.len() < OWED_JOBS {
                    self.owed.push_back(job);
                }
                None
            }
            Prepared::Keep { session, frame, pixels, fresh, .. } => {
                if let Pixels::Filed { bytes } = pixels
                    && fresh
                {
                    self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
                    self.leftovers.push(self.folder.join(frames::file_name(session, frame.id)));
                }
                outcomes(Outcome::KeepFailed { frame: frame.id, error: error.clone() });
                return;
            }
            Prepared::Commit { segmentation, .. } => Some(segmentation.frame.id),
            Prepared::Import { imported, .. } => Some(imported.frame),
            Prepared::Ask { reply, .. } => {
                reply.send(Err(error.clone())).ok();
                return;
            }
            Prepared::Unfit { frame, .. } => Some(frame),
        };
        outcomes(Outcome::Failed { frame, error: error.clone() });
    }

    /// Reports a job as failed without having begun it.
    pub(crate) fn refuse(
        &mut self,
        job: Job,
        error: &StoreError,
        outcomes: &mut impl FnMut(Outcome),
    ) {
        let frame = match &job {
            Job::Keep { frame, .. } => Some(frame.id),
            Job::Commit { segmentation, .. } => Some(segmentation.frame.id),
            _ => None,
        };
        let job = match frame {
            Some(frame) => Prepared::Unfit { frame, error: error.clone() },
            None => self.prepare(job, outcomes),
        };
        self.report_failed(job, error, outcomes);
    }

    /// What can be done at once against `error`.
    fn mend(&mut self, error: &StoreError, outcomes: &mut impl FnMut(Outcome)) {
        if error.is_disk_full() {
            if let Err(error) = self.evict_for_full_disk(outcomes) {
                tracing::debug!(%error, "cannot make room on a full disk");
            }
        } else {
            self.let_go(outcomes);
        }
    }

    /// Removes files that no row names. Safe only after a commit; see the module's head.
    fn remove_leftovers(&mut self) {
        for path in std::mem::take(&mut self.leftovers) {
            if let Err(error) = self.remove_unless_named(&path) {
                tracing::debug!(%error, "a left-over frame file stays for now");
                self.leftovers.push(path);
            }
        }
    }

    fn remove_unless_named(&mut self, path: &std::path::Path) -> Result<(), StoreError> {
        let name = path.strip_prefix(&self.folder).unwrap_or(path).to_string_lossy().into_owned();
        let database = self.database.clone();
        let named: bool = self
            .connection()?
            .query_row("SELECT EXISTS (SELECT 1 FROM frame WHERE file = ?1)", [name], |row| {
                row.get(0)
            })
            .map_err(StoreError::database("look up a file", &database))?;
        if named {
            return Ok(());
        }
        reticle_base::durable::remove(path).map_err(StoreError::file("remove", path))
    }
}

/// The first job and what waits behind it already, within the batch's bounds.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = weight(&first);
    let mut batch = vec![first];
    while batch.len() < BATCH_JOBS && bytes < BATCH_BYTES {
        let Received::Item(job) = jobs.recv_timeout(Duration::ZERO) else { break };
        bytes += weight(&job);
        batch.push(job);
    }
    batch
}

/// Bytes that a job writes, roughly.
fn weight(job: &Job) -> usize {
    match job {
        Job::Keep { frame, .. } => frame.pixels.len() * frame.pixels.bytes_per_pixel(),
        Job::Commit { segmentation, .. } => 256 * segmentation.objects.len() + 4096,
        Job::Import(imported) => 256 * imported.objects.len() + 4096,
        Job::Open(_)
        | Job::Close { .. }
        | Job::Gap(_)
        | Job::Clock { .. }
        | Job::Event(_)
        | Job::Intake(_)
        | Job::Ask { .. } => 256,
    }
}

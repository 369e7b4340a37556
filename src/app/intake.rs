//! Keeps the ledger of the watched folder: between the source, which asks, the store, which
//! remembers, and the stages, which say what became of each frame.
//!
//! - A file is begun in the store before it is opened, and taken after the store has reported the
//!   result of each of its frames as saved (or segmentation has refused it).
//! - A process that ends in between leaves the file begun. Several may be on their way then, and one
//!   of them may be what ended it. So whatever the next process finds begun is read alone: a second
//!   death accuses one file and no other, and that one goes into quarantine.
//! - This module's state is what is on its way. The thread `capture` alone writes to the store's
//!   queue: others, the writer above all, must not wait for room in it.

use reticle_base::remedy::Remedy;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::monitor::Monitor;
use crate::capture::SourceSpec;
use crate::capture::folder::ledger::{Answer, Begun, Candidate, End, Ledger, LedgerError};
use crate::config::Settings;
use reticle_base::ids::{EventId, FrameId};
use reticle_base::queue::{Sender, Sent};
use reticle_domain::order::Done;
use reticle_domain::taken::TakenPage;
use reticle_store::{
    Ask, Change, IntakeEntry, IntakeFile, IntakeRow, IntakeState, Job, Outcome, Reader, StoreError,
};

/// Processes that may end while they read a file before it is left alone.
const DEATHS: u32 = 2;

/// Equal images whose files are looked for at most: a rename among more is taken for a new image.
const EQUALS: u32 = 1000;

/// What is on its way, and what is known of it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Intake(Arc<Inner>);

struct Inner {
    reader: Reader,
    /// The watched folder, as the ledger names it; empty where none is watched.
    folder: String,
    monitor: Monitor,
    /// Which process this is.
    run: [u8; 16],
    on_the_way: Mutex<OnTheWay>,
    changed: Condvar,
}

#[derive(Default)]
struct OnTheWay {
    files: HashMap<i64, Reading>,
    frames: HashMap<FrameId, i64>,
    /// Files that are to be taken after all.
    again: Vec<OsString>,
    /// Ends that are in the store's queue, and may not be seen by a reader yet.
    unseen: HashMap<i64, IntakeState>,
    /// Rows whose files were not there when the folder was listed last.
    missing: HashSet<i64>,
}

/// A file that was begun.
struct Reading {
    name: OsString,
    /// Frames that were given and have no end yet.
    frames: HashSet<FrameId>,
    /// Frames that were saved or refused.
    ended: HashSet<FrameId>,
    /// How reading it ended, once it has.
    end: Option<End>,
    /// What is not committed of it, and why it is begun again.
    lost: Lost,
    /// An earlier process ended while it read this.
    suspect: bool,
}

/// What became of frames that were given and not committed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Nothing,
    /// Their session was closed while they were on their way.
    Dropped,
    /// The store could not save them.
    NotSaved,
}

impl Intake {
    pub(super) fn new(settings: &Settings, reader: Reader, monitor: Monitor) -> Self {
        let folder = match &settings.source.spec {
            SourceSpec::Folder(folder) => text(&absolute(folder)),
            _ => String::new(),
        };
        let intake = Self(Arc::new(Inner {
            reader,
            folder,
            monitor,
            run: *EventId::new().as_bytes(),
            on_the_way: Mutex::default(),
            changed: Condvar::new(),
        }));
        intake.tell_quarantine();
        intake
    }

    /// What the source asks, which writes into the store's queue.
    pub(super) fn ledger(&self, to_store: Sender<Job>) -> Arc<dyn Ledger> {
        Arc::new(Asker { intake: self.clone(), to_store })
    }

    fn on_the_way(&self) -> MutexGuard<'_, OnTheWay> {
        self.0.on_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store reported.
    pub(super) fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Saved(record) | Outcome::AlreadySaved { record, .. } => {
                self.finished(record.frame(), Lost::Nothing);
            }
            Outcome::Failed { frame: Some(frame), error } => {
                let lost = match error.remedy() {
                    // It can never be saved, and that was said: reading it again helps nobody.
                    Remedy::GiveUp => Lost::Nothing,
                    Remedy::Retry | Remedy::Stop => Lost::NotSaved,
                };
                self.finished(*frame, lost);
            }
            _ => {}
        }
    }

    /// Segmentation has refused a frame, which was said.
    pub(super) fn refused(&self, frame: FrameId) {
        self.finished(frame, Lost::Nothing);
    }

    /// A frame goes nowhere: there is no session for it, or no room.
    pub(super) fn dropped(&self, frame: FrameId) {
        self.finished(frame, Lost::Dropped);
    }

    fn finished(&self, frame: FrameId, lost: Lost) {
        let mut on_the_way = self.on_the_way();
        let Some(file) = on_the_way.frames.remove(&frame) else { return };
        if let Some(reading) = on_the_way.files.get_mut(&file) {
            reading.frames.remove(&frame);
            if lost == Lost::Nothing {
                reading.ended.insert(frame);
            } else {
                reading.lost = lost;
            }
        }
        drop(on_the_way);
        self.0.changed.notify_all();
    }

    /// Whether all of a file was given, and no frame of it has come to nothing. It is called so now.
    fn is_all_given(&self, row: i64, name: &OsStr) -> bool {
        let mut on_the_way = self.on_the_way();
        let Some(reading) = on_the_way.files.get_mut(&row) else { return false };
        let all = reading.lost == Lost::Nothing && matches!(reading.end, Some(End::Given { .. }));
        if all {
            reading.name = name.to_owned();
        }
        all
    }

    /// What was not taken of the watched folder.
    fn passed_over(&self) -> Result<Vec<IntakeEntry>, StoreError> {
        let mut entries = self.0.reader.intake_passed_over()?;
        entries.retain(|entry| entry.folder == self.0.folder);
        Ok(entries)
    }

    /// For an order to read again what was passed over: an end of it that has the source take those
    /// images, once the store has taken the order.
    ///
    /// # Errors
    /// With the end as it was, when it is not known what was passed over.
    pub(super) fn retrying(&self, done: Done) -> Result<Done, (Done, StoreError)> {
        let entries = match self.passed_over() {
            Ok(entries) => entries,
            Err(error) => return Err((done, error)),
        };
        let intake = self.clone();
        Ok(Box::new(move |result| {
            if result.is_ok() {
                let names = entries.into_iter().map(|entry| OsString::from(entry.path));
                let mut on_the_way = intake.on_the_way();
                on_the_way.again.extend(names);
                // Whatever was refused before is begun again, also where no reader sees it yet.
                on_the_way.unseen.retain(|_, state| *state == IntakeState::Taken);
                drop(on_the_way);
                intake.0.monitor.images_in_quarantine(&[]);
            }
            done(result);
        }))
    }

    fn tell_quarantine(&self) {
        match self.passed_over() {
            Ok(entries) => {
                let names: Vec<String> = entries
                    .into_iter()
                    .filter(|entry| entry.state == IntakeState::Quarantined)
                    .map(|entry| entry.path)
                    .collect();
                self.0.monitor.images_in_quarantine(&names);
            }
            Err(error) => tracing::debug!(%error, "the images in quarantine are not known"),
        }
    }
}

/// The thread `capture`'s end of it.
struct Asker {
    intake: Intake,
    to_store: Sender<Job>,
}

fn unknown(error: StoreError) -> LedgerError {
    LedgerError(error.to_string())
}

impl Asker {
    /// Makes a change, and returns when it is committed.
    fn commit(&self, change: Change) -> Result<i64, LedgerError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let ended = || LedgerError("the store has ended".to_owned());
        let job = Job::Ask { ask: Ask::Intake(change), reply };
        if let Sent::Closed(_) = self.to_store.send(job) {
            return Err(ended());
        }
        match answer.recv() {
            Ok(Ok(reticle_store::Answer::Intake(row))) => {
                // The queue keeps its order: what was sent before is committed, too.
                self.intake.on_the_way().unseen.clear();
                Ok(row)
            }
            Ok(Ok(other)) => Err(LedgerError(format!("the store answered {other:?}"))),
            Ok(Err(error)) => Err(unknown(error)),
            Err(_) => Err(ended()),
        }
    }

    /// Tells the store of files of which every frame has come to its end.
    fn settle(&self) {
        let mut changes = Vec::new();
        let mut on_the_way = self.intake.on_the_way();
        let done: Vec<i64> = on_the_way
            .files
            .iter()
            .filter(|(_, reading)| reading.end.is_some() && reading.frames.is_empty())
            .map(|(file, _)| *file)
            .collect();
        for row in done {
            let Some(reading) = on_the_way.files.remove(&row) else { continue };
            let refused = |state, reason| Change::Refused { row, state, reason };
            changes.push(match (reading.lost, reading.end) {
                (Lost::Nothing, Some(End::Given { pages })) => Change::Taken { row, pages },
                (Lost::Nothing, Some(End::Unfit(why))) => refused(IntakeState::Refused, why),
                (Lost::Nothing, Some(End::AboveLimit(why))) => refused(IntakeState::TooLarge, why),
                (lost, _) => {
                    if lost == Lost::Dropped {
                        on_the_way.again.push(reading.name);
                    }
                    Change::LetGo { row }
                }
            });
        }
        drop(on_the_way);
        for change in changes {
            let unseen = match &change {
                Change::Taken { row, .. } => Some((*row, IntakeState::Taken)),
                Change::Refused { row, state, .. } => Some((*row, *state)),
                _ => None,
            };
            self.intake.on_the_way().unseen.extend(unseen);
            self.to_store.send(Job::Intake(change));
        }
    }

    /// The row of the same image, or of the one that this was before it was written to: the file at
    /// its path is the same and holds something else. Whether it is the same image.
    fn row_of(
        &self,
        file: &IntakeFile,
        holds: &dyn Fn(&OsStr, (u64, i64)) -> bool,
    ) -> Result<Option<(IntakeRow, bool)>, LedgerError> {
        let reader = &self.intake.0.reader;
        let at = reader.intake_at(&file.folder, &file.path).map_err(unknown)?;
        let like = reader
            .intake_like(&file.folder, &file.sha256, file.mtime_ns, EQUALS)
            .map_err(unknown)?;
        let known = like.iter().find(|row| at.as_ref().is_some_and(|at| at.pk == row.pk));
        let known =
            known.or_else(|| like.iter().find(|row| is_same_file(row, file))).or_else(|| {
                like.iter().find(|row| {
                    let is_back =
                        !row.here && row.path == file.path && row.mtime_ns == file.mtime_ns;
                    // Taken by a version that did not write down which file it was.
                    let is_old = row.identity.is_none() && row.mtime_ns == file.mtime_ns;
                    is_back || is_old && !holds(OsStr::new(&row.path), (row.bytes, row.mtime_ns))
                })
            });
        Ok(match known {
            Some(row) => Some((row.clone(), true)),
            None => at.filter(|at| is_same_file(at, file)).map(|at| (at, false)),
        })
    }

    /// Leaves a file alone at which two processes ended.
    fn quarantine(&self, file: IntakeFile, row: &IntakeRow) -> Result<Answer, LedgerError> {
        let reason = format!(
            "was being read when the daemon ended, {} times in a row, and is left alone; look at it, and \
             have it tried again with `reticle intake retry`",
            row.attempts
        );
        let row = row.pk;
        self.commit(Change::Known { file, row })?;
        let state = IntakeState::Quarantined;
        self.commit(Change::Refused { row, state, reason: reason.clone() })?;
        self.intake.tell_quarantine();
        Ok(Answer::Quarantined(reason))
    }

    /// Whether a file may be read beside those that are.
    fn may_begin(&self, suspect: bool, patience: Duration) -> bool {
        let on_the_way = self.intake.on_the_way();
        let must_wait = |state: &mut OnTheWay| {
            if suspect {
                !state.frames.is_empty()
            } else {
                state.files.values().any(|reading| reading.suspect && !reading.frames.is_empty())
            }
        };
        let (mut state, _) = self
            .intake
            .0
            .changed
            .wait_timeout_while(on_the_way, patience, must_wait)
            .unwrap_or_else(PoisonError::into_inner);
        !must_wait(&mut state)
    }
}

impl Ledger for Asker {
    fn settled(
        &self,
        folder: &Path,
        each: &mut dyn FnMut(&OsStr, u64, i64),
    ) -> Result<(), LedgerError> {
        let each = |path: &str, bytes, mtime_ns| each(OsStr::new(path), bytes, mtime_ns);
        self.intake.0.reader.intake_settled(&text(&absolute(folder)), each).map_err(unknown)
    }

    fn begin(
        &self,
        candidate: Candidate<'_>,
        holds: &dyn Fn(&OsStr, (u64, i64)) -> bool,
        patience: Duration,
    ) -> Result<Answer, LedgerError> {
        self.settle();
        let (bytes, mtime_ns) = candidate.version;
        let file = IntakeFile {
            folder: text(&absolute(candidate.folder)),
            path: text(candidate.name),
            bytes,
            mtime_ns,
            identity: candidate.identity,
            sha256: candidate.sha256,
        };
        let run = self.intake.0.run;
        let (mut row, is_known) = match self.row_of(&file, holds)? {
            Some((row, is_known)) => (Some(row), is_known),
            None => (None, false),
        };
        if let Some(row) = &mut row {
            row.state = *self.intake.on_the_way().unseen.get(&row.pk).unwrap_or(&row.state);
        }
        let is_ours = row.as_ref().is_some_and(|row| row.run == Some(run));
        let mut suspect = false;
        if let Some(row) = row.as_ref().filter(|_| is_known) {
            match row.state {
                // A limit may have been raised, but not since this process began.
                IntakeState::TooLarge if !is_ours => {}
                IntakeState::Begun if !self.intake.is_all_given(row.pk, candidate.name) => {
                    if row.attempts >= DEATHS && !is_ours {
                        return self.quarantine(file, row);
                    }
                    suspect = row.attempts > 0 && !is_ours;
                }
                _ => {
                    let stands = row.here
                        && (&row.path, row.bytes, row.mtime_ns, row.identity)
                            == (&file.path, file.bytes, file.mtime_ns, Some(file.identity));
                    if !stands {
                        self.commit(Change::Known { file, row: row.pk })?;
                    }
                    return Ok(Answer::Known);
                }
            }
        } else if let Some(row) = &row
            && candidate.is_open
            && file.bytes <= row.bytes
        {
            return Ok(Answer::WrittenOver);
        }
        if !self.may_begin(suspect, patience) {
            return Ok(Answer::Later);
        }
        // Another content has frames of its own, under ids that none had before.
        let first_frame =
            row.as_ref().filter(|_| is_known).map_or_else(FrameId::new, |row| row.first_frame);
        let row = row.map(|row| row.pk);
        let file = self.commit(Change::Begin { file, row, run, first_frame })?;
        let mut pages = self.intake.0.reader.intake_pages(file).map_err(unknown)?;
        let name = candidate.name.to_owned();
        let mut on_the_way = self.intake.on_the_way();
        let state = &mut *on_the_way;
        let reading = state.files.entry(file).or_insert_with(|| Reading {
            name,
            frames: HashSet::new(),
            ended: HashSet::new(),
            end: None,
            lost: Lost::Nothing,
            suspect,
        });
        for page in &mut pages {
            // Of the file that its path held before, too.
            page.done |=
                state.frames.contains_key(&page.frame) || reading.ended.contains(&page.frame);
        }
        // Begun again before its frames had come to their ends: those count still.
        reading.end = None;
        Ok(Answer::Read(Begun { file, first_frame, pages }))
    }

    fn gives(&self, file: i64, page: &TakenPage) {
        let mut on_the_way = self.intake.on_the_way();
        if let Some(reading) = on_the_way.files.get_mut(&file) {
            reading.frames.insert(page.frame);
            on_the_way.frames.insert(page.frame, file);
        }
        drop(on_the_way);
        self.to_store.send(Job::Intake(Change::Page { row: file, page: *page }));
    }

    fn moved(&self, file: i64, page: &TakenPage) {
        self.to_store.send(Job::Intake(Change::Page { row: file, page: *page }));
    }

    fn ends(&self, file: i64, end: End) {
        let mut on_the_way = self.intake.on_the_way();
        if let Some(reading) = on_the_way.files.get_mut(&file) {
            reading.end = Some(end);
        }
    }

    fn is_idle(&self, patience: Duration) -> bool {
        self.may_begin(true, patience)
    }

    fn listed(&self, folder: &Path, is_there: &dyn Fn(&OsStr) -> bool) -> Result<(), LedgerError> {
        let is_there = |path: &str| is_there(OsStr::new(path));
        let folder = text(&absolute(folder));
        let missing = self.intake.0.reader.intake_missing(&folder, is_there).map_err(unknown)?;
        let mut on_the_way = self.intake.on_the_way();
        // Twice in a row: what was renamed between two looks has been read meanwhile.
        let gone: Vec<i64> =
            missing.iter().copied().filter(|row| on_the_way.missing.contains(row)).collect();
        on_the_way.missing = missing.into_iter().collect();
        drop(on_the_way);
        if !gone.is_empty() {
            self.commit(Change::Gone { rows: gone })?;
            self.intake.tell_quarantine();
        }
        Ok(())
    }

    fn again(&self) -> Vec<OsString> {
        self.settle();
        std::mem::take(&mut self.intake.on_the_way().again)
    }
}

/// Whether a file is the one of a row: it was renamed, or written to. Where its file system does not
/// know when files were made, its time of change has to be the same, because numbers are given again.
fn is_same_file(row: &IntakeRow, file: &IntakeFile) -> bool {
    row.identity.is_some_and(|then| {
        let now = file.identity;
        then.inode == now.inode
            && match (then.born_ns, now.born_ns) {
                (Some(then), Some(now)) => then == now,
                _ => then.device == now.device && row.mtime_ns == file.mtime_ns,
            }
    })
}

/// The folder as the ledger names it, however it was written: `drop`, `./drop` and `/data/drop/`.
fn absolute(folder: &Path) -> OsString {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    folder.components().collect::<PathBuf>().into_os_string()
}

/// A name as text; bytes that are none are written as `\xNN`.
fn text(name: &OsStr) -> String {
    name.to_str().map_or_else(|| name.as_encoded_bytes().escape_ascii().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;

//! Room for new frame files: which old ones go, and in what order it is done.
//!
//! # Evict, in order
//!
//! 1. The files to go are chosen: first those that an archive has, by its own word; then those
//!    of segmented frames that no archive is to have; then the rest of these (the backlog).
//!    Each kind the oldest first. What an archive is to have and has not never goes, nor do
//!    records, label images and measurements.
//! 2. One transaction takes the file's name out of each frame's row, writes the reason there,
//!    and counts it.
//! 3. The transaction is committed, which fsyncs the log.
//! 4. Each file is unlinked, and its folder is fsynced.
//!
//! A crash after 3 leaves files that no row names, of frames that are recorded as evicted: the
//! next start completes 4. The other order would leave rows that name files that are gone.
//!
//! # A file's share
//!
//! The pages of one image file push no other frame out once [`SHARE`] of `max_bytes` is theirs: a
//! stack of ten thousand pages would otherwise leave nothing but itself. Beyond it a page for which
//! something would have to go is recorded without pixels, which are in the file that it came from.
//! Pages that an archive is to have are not counted: they wait for it, and it has them then.
//!
//! # When nothing may go
//!
//! Then frames are no longer taken ([`Outcome::Held`]): the alternative would be to break a
//! promise, or to record results of frames that nobody can look at any more. As soon as there is
//! room for [`ROOM_AFTER_HOLD`] frames, they are taken again ([`Outcome::Resumed`]); nobody
//! needs to do anything but make room, and deliveries make room by themselves.
//!
//! # When the disk is full to the last byte
//!
//! Step 2 needs a little room in the log itself. A reserve of [`RESERVE_BYTES`] is kept aside
//! for that. It is given up when an eviction, or the opening of the store, fails for want of
//! room, and is made again once there is some.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{TransactionBehavior, params};

use crate::error::StoreError;
use crate::frames;
use crate::gap::NoFile;
use crate::job::Outcome;
use crate::sql::schema;
use crate::write::writer::{Stack, Writer};
use reticle_base::crash;
use reticle_base::durable::{self, Access};
use reticle_base::ids::SessionId;
use reticle_domain::frame::Frame;

/// Files that go in one transaction at most.
const EVICT_FILES: u32 = 64;

/// Part of `max_bytes` that is freed at once, so that a full store does not pay a commit of its
/// own for each new frame.
const EVICT_PART: u64 = 64;

/// Part of `max_bytes` that the pages of one file may take from others: a quarter.
const SHARE: u64 = 4;

/// Frames that must fit before they are taken again: not one by one.
const ROOM_AFTER_HOLD: u64 = 16;

/// Name of the reserve in the data folder.
pub(crate) const RESERVE: &str = "reserve";

/// Many times the log pages that an eviction of [`EVICT_FILES`] rows writes: at most one page of
/// 4 KiB for the row and a few for the index, each.
const RESERVE_BYTES: u64 = 4 << 20;

struct Candidate {
    pk: i64,
    name: String,
    bytes: u64,
}

/// The file of which a frame is a page; `None` where it has no others.
fn stack_of(frame: &Frame) -> Option<&str> {
    let (file, page) = frame.origin.as_ref()?.rsplit_once('#')?;
    page.parse::<u64>().is_ok().then_some(file)
}

impl Writer {
    /// Whether a page of `incoming` bytes is to be recorded without pixels, because its file has its
    /// share and another frame would have to go for it.
    pub(crate) fn has_its_share(
        &self,
        session: SessionId,
        frame: &Frame,
        incoming: u64,
    ) -> Result<bool, StoreError> {
        let Some(file) = stack_of(frame) else { return Ok(false) };
        let is_same = |(of, name): &(SessionId, String)| *of == session && name == file;
        let taken =
            if self.stack.file.as_ref().is_some_and(is_same) { self.stack.bytes } else { 0 };
        let goes_away =
            self.deliveries.archive.is_some() && self.deliveries.pixels.includes(frame.sequence);
        if goes_away || taken + incoming <= self.options.frames.max_bytes / SHARE {
            return Ok(false);
        }
        let is_full = self.kept_bytes + incoming > self.options.frames.max_bytes;
        Ok(is_full || self.over_budget(incoming)? > 0 || self.short_of_free(incoming)? > 0)
    }

    /// A frame's file was written: it counts for the image file of which it is a page.
    pub(crate) fn takes_of_its_share(&mut self, session: SessionId, frame: &Frame, bytes: u64) {
        let Some(file) = stack_of(frame) else { return };
        let is_same = |(of, name): &(SessionId, String)| *of == session && name == file;
        if !self.stack.file.as_ref().is_some_and(is_same) {
            self.stack = Stack { file: Some((session, file.to_owned())), bytes: 0 };
        }
        self.stack.bytes += bytes;
    }

    /// Makes room for a file of `incoming` bytes; the reason if there can be none.
    pub(crate) fn room_for(
        &mut self,
        incoming: u64,
        outcomes: &mut impl FnMut(Outcome),
    ) -> Result<Option<NoFile>, StoreError> {
        if !self.has_reserve(outcomes)? {
            return Ok(Some(NoFile::MinFree));
        }
        let max_bytes = self.options.frames.max_bytes;
        let over = (self.kept_bytes + incoming).saturating_sub(max_bytes);
        if over > 0 {
            if incoming > max_bytes {
                return Ok(Some(NoFile::MaxBytes));
            }
            let freed =
                self.evict(over.max(max_bytes / EVICT_PART), NoFile::EvictedMaxBytes, outcomes)?;
            if freed < over {
                return Ok(Some(NoFile::MaxBytes));
            }
        }
        let over = self.over_budget(incoming)?;
        if over > 0 {
            let part = self.options.max_bytes / EVICT_PART;
            let freed = self.evict(over.max(part), NoFile::EvictedMaxBytes, outcomes)?;
            if freed < over {
                return Ok(Some(NoFile::MaxBytes));
            }
        }
        let short = self.short_of_free(incoming)?;
        if short > 0 {
            self.evict(short, NoFile::EvictedMinFree, outcomes)?;
            if self.short_of_free(incoming)? > 0 {
                return Ok(Some(NoFile::MinFree));
            }
        }
        Ok(None)
    }

    /// Makes the reserve again where it was given up, with files making room for it: without it
    /// nothing could be evicted from a disk that is full to the last byte. False where no room
    /// can be made.
    fn has_reserve(&mut self, outcomes: &mut impl FnMut(Outcome)) -> Result<bool, StoreError> {
        match self.restore_reserve() {
            Err(error) if error.is_disk_full() => {
                self.evict(RESERVE_BYTES, NoFile::EvictedMinFree, outcomes)?;
                Ok(!self.restore_reserve().is_err_and(|error| error.is_disk_full()))
            }
            // A file system that cannot set room aside: said at the start.
            _ => Ok(true),
        }
    }

    /// Nothing may go, and a file of `incoming` bytes does not fit: frames are no longer taken.
    pub(crate) fn hold(&mut self, incoming: u64, why: NoFile, outcomes: &mut impl FnMut(Outcome)) {
        if self.held.replace(incoming).is_some() {
            return;
        }
        let waiting: i64 = self
            .connection()
            .ok()
            .and_then(|db| {
                db.query_row("SELECT count(*) FROM frame WHERE archived = 1", [], |row| row.get(0))
                    .ok()
            })
            .unwrap_or_default();
        let reason = match why {
            NoFile::WriteFailed => format!(
                "the disk of {} is full, and no frame file may go ({waiting} wait for the \
                 archive): free some room",
                self.folder.display()
            ),
            NoFile::MinFree => format!(
                "the disk of {} has less than store.frames.min_free_bytes left, and no frame file \
                 may go ({waiting} wait for the archive): free some room",
                self.folder.display()
            ),
            _ => format!(
                "the frame files have reached their limit in {}, and none may go ({waiting} wait \
                 for the archive): see that it can be reached, or raise store.max_bytes or \
                 store.frames.max_bytes",
                self.folder.display()
            ),
        };
        tracing::error!(reason, "no room: frames are not taken until there is some");
        outcomes(Outcome::Held { reason });
    }

    /// Takes frames again if there is room.
    pub(crate) fn resume_if_room(
        &mut self,
        outcomes: &mut impl FnMut(Outcome),
    ) -> Result<(), StoreError> {
        let Some(frame) = self.held else { return Ok(()) };
        let max = [self.options.frames.max_bytes, self.options.max_bytes]
            .into_iter()
            .filter(|max| *max > 0)
            .min()
            .unwrap_or(u64::MAX);
        // Not more than could ever be: half of what there may be.
        let wanted = (frame * ROOM_AFTER_HOLD).min(max / 2).max(frame);
        if self.room_for(wanted, outcomes)?.is_none() {
            self.held = None;
            tracing::info!("there is room: frames are taken again");
            outcomes(Outcome::Resumed);
        }
        Ok(())
    }

    /// Bytes above `store.max_bytes` with a file of `incoming` bytes more.
    fn over_budget(&self, incoming: u64) -> Result<u64, StoreError> {
        if self.options.max_bytes == 0 {
            return Ok(0);
        }
        let mut taken = self.kept_bytes + incoming;
        for suffix in ["", "-wal"] {
            let mut path = self.database.clone().into_os_string();
            path.push(suffix);
            match std::fs::metadata(&path) {
                Ok(meta) => taken += meta.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(StoreError::file("ask for the size of", Path::new(&path))(error));
                }
            }
        }
        Ok(taken.saturating_sub(self.options.max_bytes))
    }

    /// Gives room back that others took meanwhile, and restores the reserve.
    pub(crate) fn keep_room(
        &mut self,
        outcomes: &mut impl FnMut(Outcome),
    ) -> Result<(), StoreError> {
        let short = self.short_of_free(0)?;
        if short > 0 {
            self.evict(short, NoFile::EvictedMinFree, outcomes)?;
        }
        self.resume_if_room(outcomes)?;
        self.restore_reserve()
    }

    /// There was no room for a write: the oldest files go, however much is said to be free.
    pub(crate) fn evict_for_full_disk(
        &mut self,
        outcomes: &mut impl FnMut(Outcome),
    ) -> Result<(), StoreError> {
        let part = (self.options.frames.max_bytes / EVICT_PART).max(1);
        if self.evict(part, NoFile::EvictedMinFree, outcomes)? == 0 {
            // No file is left to go. The log is, once it is in the database, for which the reserve
            // has the room.
            give_up_reserve(&self.folder);
            let database = self.database.clone();
            schema::fold_log(self.connection()?)
                .map_err(schema::damaged_or("fold the log of a full disk", &database))?;
        }
        Ok(())
    }

    /// The next file in the order goes, if any may.
    #[cfg(test)]
    pub(crate) fn evict_one(&mut self) -> Result<u64, StoreError> {
        self.evict(1, NoFile::EvictedMaxBytes, &mut |_| {})
    }

    /// Evicts until `wanted` bytes are freed or nothing is left; gives the bytes freed.
    fn evict(
        &mut self,
        wanted: u64,
        reason: NoFile,
        outcomes: &mut impl FnMut(Outcome),
    ) -> Result<u64, StoreError> {
        let mut freed = 0;
        while freed < wanted {
            let chosen = self.choose(wanted - freed)?;
            if chosen.is_empty() {
                break;
            }
            let bytes = chosen.iter().map(|file| file.bytes).sum();
            if let Err(error) = self.forget(&chosen, reason) {
                if !(error.is_disk_full() && give_up_reserve(&self.folder)) {
                    return Err(error);
                }
                self.forget(&chosen, reason)?;
            }
            crash::point("eviction committed");
            self.unlink(&chosen);
            self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
            freed += bytes;
            let frames = chosen.len() as u64;
            tracing::debug!(frames, bytes, reason = reason.word(), "frame files evicted");
            outcomes(Outcome::Evicted { frames, bytes, reason });
        }
        Ok(freed)
    }

    /// Step 1.
    fn choose(&mut self, wanted: u64) -> Result<Vec<Candidate>, StoreError> {
        let database = self.database.clone();
        let query = |db: &rusqlite::Connection| -> rusqlite::Result<Vec<Candidate>> {
            let mut statement = db.prepare_cached(
                "SELECT pk, file, file_bytes FROM frame
                 WHERE file IS NOT NULL
                   AND CASE archived WHEN 2 THEN 0 WHEN 0 THEN 2 - segmented ELSE 9 END < 9
                 ORDER BY CASE archived WHEN 2 THEN 0 WHEN 0 THEN 2 - segmented ELSE 9 END, pk
                 LIMIT ?1",
            )?;
            let rows = statement.query_map([EVICT_FILES], |row| {
                Ok(Candidate {
                    pk: row.get(0)?,
                    name: row.get(1)?,
                    bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                })
            })?;
            rows.collect()
        };
        let mut chosen = query(self.connection()?)
            .map_err(schema::damaged_or("choose frame files to evict", &database))?;
        let mut sum = 0;
        let enough = chosen.iter().take_while(|file| {
            let needed = sum < wanted;
            sum += file.bytes;
            needed
        });
        let enough = enough.count();
        chosen.truncate(enough);
        Ok(chosen)
    }

    /// Steps 2 and 3.
    fn forget(&mut self, chosen: &[Candidate], reason: NoFile) -> Result<(), StoreError> {
        let now = self.clock.now();
        let database = self.database.clone();
        let run = |db: &mut rusqlite::Connection| -> rusqlite::Result<()> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for file in chosen {
                transaction
                    .prepare_cached(
                        "UPDATE frame SET file = NULL, file_bytes = NULL, no_file = ?2
                         WHERE pk = ?1",
                    )?
                    .execute(params![file.pk, reason])?;
                transaction
                    .prepare_cached(
                        "INSERT INTO tally (kind, reason, count, bytes, last_wall_ns)
                         VALUES ('evicted', ?1, 1, ?2, ?3)
                         ON CONFLICT (kind, reason) DO UPDATE SET count = count + 1,
                             bytes = bytes + excluded.bytes, last_wall_ns = excluded.last_wall_ns",
                    )?
                    .execute(params![reason, file.bytes.cast_signed(), now.wall_ns])?;
            }
            crash::point("eviction written");
            transaction.commit()
        };
        run(self.connection()?).map_err(schema::damaged_or("evict frame files", &database))
    }

    /// Step 4. A file that will not go stays a left-over, to be tried again.
    fn unlink(&mut self, chosen: &[Candidate]) {
        let mut folders = BTreeSet::new();
        for file in chosen {
            let path = self.folder.join(&file.name);
            tracing::debug!(file = file.name, bytes = file.bytes, "frame file evicted");
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = file.name, "cannot remove; will try again");
                    self.leftovers.push(path);
                }
                _ => {
                    folders.extend(path.parent().map(PathBuf::from));
                }
            }
            crash::point("evicted file unlinked");
        }
        for folder in folders {
            if let Err(error) = durable::sync_dir(&folder) {
                tracing::warn!(%error, folder = %folder.display(), "cannot fsync");
            }
        }
    }

    /// Bytes missing to leave `min_free_bytes` free beside a file of `incoming` bytes.
    fn short_of_free(&self, incoming: u64) -> Result<u64, StoreError> {
        let free = frames::free_bytes(&self.folder)
            .map_err(StoreError::file("ask for the free room of", &self.folder))?;
        Ok(self.options.frames.min_free_bytes.saturating_add(incoming).saturating_sub(free))
    }

    /// Sets room aside, if it is not there and there is some.
    pub(crate) fn restore_reserve(&self) -> Result<(), StoreError> {
        let path = self.folder.join(RESERVE);
        // A link that somebody planted is no reserve, and what it points to is not written.
        let is_there = |meta: std::fs::Metadata| meta.is_file() && meta.len() == RESERVE_BYTES;
        if path.symlink_metadata().is_ok_and(is_there) {
            return Ok(());
        }
        let reserve = || -> std::io::Result<()> {
            let file = durable::create(&path, Access::Owner)?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?;
            Ok(())
        };
        reserve().map_err(|error| {
            // Half a reserve would pass for a whole one's absence; better none.
            std::fs::remove_file(&path).ok();
            StoreError::file("set room aside in", &path)(error)
        })
    }
}

/// Whether there was a reserve to give up.
pub(crate) fn give_up_reserve(folder: &Path) -> bool {
    let gone = std::fs::remove_file(folder.join(RESERVE)).is_ok();
    if gone {
        tracing::warn!(folder = %folder.display(), "the disk is full: the reserve is given up");
    }
    gone
}

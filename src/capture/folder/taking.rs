//! From a file that is whole to one that may be read: its content is hashed and the ledger asked.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::arrival::{Arrival, version_of};
use super::ledger::{Answer, Begun, Candidate, End, Ledger};
use super::pages::{Found, Known};
use super::whole::{Doubt, Scan};
use super::{Event, Folder, Mode, SourceError};
use reticle_base::ids::FrameId;
use reticle_domain::taken::FileIdentity;
use reticle_imagefile::Problem;

/// Bytes that are hashed between two looks at the time.
const PIECE_BYTES: usize = 1 << 20;

/// A file that is being asked for.
pub(super) struct Asked {
    arrival: Arrival,
    file: File,
    scan: Scan,
    /// SHA-256 of all its bytes and what is to be thought of them, once they were read.
    read: Option<([u8; 32], Doubt)>,
}

/// What asking for a file came to.
pub(super) enum Asking {
    /// Read it.
    Read(Arrival, Option<Begun>),
    /// There is nothing to read.
    Passed,
    /// There is nothing to read, and this is to be said.
    Said(Event),
    /// The time is over; go on with it next time.
    NotYet,
}

/// What there is to say to the ledger of the file that is being read.
pub(super) struct Entry {
    begun: Begun,
    /// Pages that were given before, and were not met again.
    known: Known,
    ledger: Arc<dyn Ledger>,
    /// Whether any page is fit.
    any: bool,
    refused: Option<End>,
    ended: bool,
}

impl Entry {
    /// A page was read: the id of its frame, or `None` where it was given before.
    pub(super) fn gives(&mut self, index: usize, sha256: [u8; 32]) -> Option<FrameId> {
        self.any = true;
        let usual = self.begun.first_frame.later_by(index as u64);
        match self.known.find(index, sha256, usual) {
            Found::Known => None,
            Found::Moved(page) => {
                self.ledger.moved(self.begun.file, &page);
                None
            }
            Found::New(page) => {
                self.ledger.gives(self.begun.file, &page);
                Some(page.frame)
            }
        }
    }

    /// Its key in the ledger.
    pub(super) fn file(&self) -> i64 {
        self.begun.file
    }

    /// A page of it was refused.
    pub(super) fn refused(&mut self, problem: &Problem) {
        let why = problem.to_string();
        let end = if problem.is_limit() { End::AboveLimit(why) } else { End::Unfit(why) };
        self.refused.get_or_insert(end);
    }

    /// All of it was read: it has so many pages.
    pub(super) fn ends(mut self, pages: usize) {
        let unfit = self.refused.take().filter(|_| !self.any);
        self.end(unfit.unwrap_or(End::Given { pages }));
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.ledger.ends(self.begun.file, end);
    }
}

impl Drop for Entry {
    /// What has no end was interrupted: the folder was lost, the file grows, or it is time to stop.
    fn drop(&mut self) {
        if !self.ended {
            self.end(End::Interrupted);
        }
    }
}

impl Folder {
    /// Begins to ask for a file.
    pub(super) fn ask_for(&mut self, mut arrival: Arrival) -> Result<Asking, SourceError> {
        let Mode::Watching(watch) = &mut self.mode else {
            return Ok(Asking::Read(arrival, None));
        };
        std::thread::sleep(watch.reopened_within(&arrival));
        watch.hear_of(&mut arrival)?;
        if !watch.is_unchanged(&arrival) {
            watch.wait_for(arrival);
            return Ok(Asking::Passed);
        }
        if self.ledger.is_none() {
            return Ok(Asking::Read(arrival, None));
        }
        if let Some((bytes, _)) = arrival.facts()
            && let Err(problem) = self.limits.check_bytes(bytes)
        {
            return self.cannot_ask(arrival, &problem);
        }
        let opened = File::open(self.path.join(&arrival.name));
        match opened.and_then(|file| Ok((Scan::of(&file)?, file))) {
            Ok((scan, file)) => {
                self.asked = Some(Asked { arrival, file, scan, read: None });
                Ok(Asking::NotYet)
            }
            Err(error) => self.cannot_ask(arrival, &Problem::Unreadable(error)),
        }
    }

    /// Goes on with the file that is being asked for, up to `until`.
    pub(super) fn ask_on(&mut self, until: u64) -> Result<Asking, SourceError> {
        let Some(mut asked) = self.asked.take() else { return Ok(Asking::Passed) };
        let (sha256, doubt) = match asked.read {
            Some(read) => read,
            None => match self.scan(&mut asked, until) {
                Ok(Some(read)) => read,
                Ok(None) => {
                    self.asked = Some(asked);
                    return Ok(Asking::NotYet);
                }
                Err(error) => {
                    return self.cannot_ask(asked.arrival, &Problem::Unreadable(error));
                }
            },
        };
        let patience = Duration::from_nanos(until.saturating_sub(self.clock.now().mono_ns));
        let (Mode::Watching(watch), Some(ledger)) = (&mut self.mode, &self.ledger) else {
            return Ok(Asking::Passed);
        };
        watch.hear_of(&mut asked.arrival)?;
        let Some(version) = asked.arrival.facts().filter(|_| watch.is_unchanged(&asked.arrival))
        else {
            watch.wait_for(asked.arrival);
            return Ok(Asking::Passed);
        };
        watch.can_be_read(&asked.arrival);
        let left = asked.arrival.left;
        let still_for = watch.still_for(&asked.arrival);
        if still_for < doubt.takes(left) {
            watch.doubt(asked.arrival, doubt);
            return Ok(Asking::Passed);
        }
        let identity = match asked.file.metadata() {
            Ok(metadata) => identity_of(&metadata),
            Err(error) => return self.cannot_ask(asked.arrival, &Problem::Unreadable(error)),
        };
        let candidate = Candidate {
            folder: &self.path,
            name: &asked.arrival.name,
            version,
            identity,
            sha256,
            is_open: still_for < Doubt::WrittenOver.takes(left),
        };
        let path = &self.path;
        let holds = |name: &std::ffi::OsStr, version| version_of(&path.join(name)) == Some(version);
        let answer = ledger
            .begin(candidate, &holds, patience)
            .map_err(|error| SourceError::Lost(error.to_string()))?;
        match answer {
            Answer::Read(begun) => Ok(Asking::Read(asked.arrival, Some(begun))),
            Answer::Known => {
                let name = asked.arrival.name.display();
                tracing::debug!(file = %name, "this image was taken before");
                watch.was_read(&asked.arrival);
                Ok(Asking::Passed)
            }
            Answer::Quarantined(why) => {
                watch.was_read(&asked.arrival);
                let what = asked.arrival.name.to_string_lossy().into_owned();
                Ok(Asking::Said(Event::Refused { what, why }))
            }
            Answer::WrittenOver => {
                watch.doubt(asked.arrival, Doubt::WrittenOver);
                Ok(Asking::Passed)
            }
            Answer::Later => {
                asked.read = Some((sha256, doubt));
                self.asked = Some(asked);
                Ok(Asking::NotYet)
            }
        }
    }

    /// Reads on; `None` when the time is over.
    fn scan(&self, asked: &mut Asked, until: u64) -> std::io::Result<Option<([u8; 32], Doubt)>> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = asked.file.read(&mut piece)?;
            if read == 0 {
                return Ok(Some(std::mem::take(&mut asked.scan).finish(&asked.file)));
            }
            asked.scan.read(&piece[..read]);
            if self.clock.now().mono_ns >= until {
                return Ok(None);
            }
        }
    }

    fn cannot_ask(&mut self, arrival: Arrival, problem: &Problem) -> Result<Asking, SourceError> {
        let refused = self.refuse(arrival.clone(), None, problem)?;
        if refused.is_some() && super::is_for_good(problem) {
            self.was_read(&arrival);
        }
        Ok(refused.map_or(Asking::Passed, Asking::Said))
    }

    /// What the ledger is to hear of a file that was begun.
    pub(super) fn entry(&self, begun: Option<Begun>) -> Option<Entry> {
        let ledger = Arc::clone(self.ledger.as_ref()?);
        let begun = begun?;
        let known = Known::of(&begun.pages);
        Some(Entry { begun, known, ledger, any: false, refused: None, ended: false })
    }

    /// Files that are to be taken after all.
    pub(super) fn take_again(&mut self) {
        if let (Mode::Watching(watch), Some(ledger)) = (&mut self.mode, &self.ledger) {
            for name in ledger.again() {
                watch.take_again(name);
            }
        }
    }
}

/// Which file it is, whatever its name.
fn identity_of(metadata: &std::fs::Metadata) -> FileIdentity {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        born_ns: born.and_then(|born| i64::try_from(born.as_nanos()).ok()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests;

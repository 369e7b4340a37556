//! `folder:PATH`: images as another program drops them.
//!
//! **Watching** (no `fps`, no `replay`): the images that are there come first, in natural
//! order of their names; then each new one once it is whole, for ever. None is missed between
//! the listing and the watch and none comes twice: see [`watch`], and [`whole`] for files that
//! may not be whole. Of a file that is written again those pages are new that it did not hold
//! before: see [`pages`].
//!
//! **Replaying** (`fps` or `replay`): the images that are there, in the same order, as if a
//! camera took them: at `fps` on a schedule that does not drift, or else as fast as they are
//! taken. With `replay` the folder is listed again after the last image and the sequence
//! counts on; without, that is the end.
//!
//! Pages of a file become frames named `file.tif#page`. An image that cannot be read is
//! refused by name and the next one follows. One page is in memory at a time.
//!
//! A folder that is not there, goes away or (when replaying) has no readable image is
//! [`SourceError::Lost`]: it may be a network drive that is not mounted yet, and opening it
//! again later finds it. What was given before is then not given again: see [`memory`]. Only
//! what waiting cannot mend is [`SourceError::Unusable`].
//!
//! Where there is a [`ledger`], a watched folder asks it before it opens a file, and what was taken
//! is not taken again by the next process either. A replay never asks it: as a camera, it gives its
//! images whenever it is started.

mod arrival;
mod events;
pub mod ledger;
mod memory;
mod pages;
mod place;
mod taking;
mod watch;
mod whole;

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Options, Source, SourceError};
use arrival::Arrival;
use ledger::Ledger;
pub use memory::Memory;
use reticle_base::clock::{Clock, Stamp};
use reticle_base::ids::FrameId;
use reticle_domain::frame::{Frame, Shot};
use reticle_imagefile::{Limits, Page, Pages, Problem, Selection};
use taking::{Asked, Asking, Entry};
use watch::Watch;

/// A replay that is later than this (after a pause) sets its schedule anew instead of racing
/// to catch up; up to this much it catches up, so that the mean rate is kept.
const LATE: Duration = Duration::from_secs(1);

/// Refused pages that are remembered, so that each is said once however its file grows.
const SAID: usize = 10_000;

/// Images in a folder, as frames.
pub struct Folder {
    path: PathBuf,
    identity: Identity,
    clock: Clock,
    limits: Limits,
    /// Channel and z plane that are taken of a file that holds several.
    selection: Selection,
    pixel_size_um: Option<f64>,
    mode: Mode,
    /// Where there is one, a watched folder asks it before it opens a file.
    ledger: Option<Arc<dyn Ledger>>,
    /// The file for which the ledger is being asked.
    asked: Option<Asked>,
    /// The file whose pages are being read.
    reading: Option<Reading>,
    /// Pages of which it was said that they are refused: file of the ledger, and page.
    said: HashSet<(i64, usize)>,
    sequence: u64,
}

enum Mode {
    Watching(Box<Watch>),
    Replaying(Box<Replay>),
}

struct Replay {
    files: VecDeque<OsString>,
    again: bool,
    period: Option<Duration>,
    /// When the next frame is due, in monotonic nanoseconds.
    due_ns: Option<u64>,
    /// Read, and not due yet.
    ready: Option<Shot>,
    given_this_round: bool,
}

struct Reading {
    arrival: Arrival,
    pages: Pages,
    entry: Option<Entry>,
}

/// Which folder it is, so that one that was taken away and made anew is noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(path: &Path) -> Result<Self, SourceError> {
        let shown = path.display();
        let metadata = std::fs::metadata(path).map_err(|error| {
            SourceError::Lost(format!(
                "the folder {shown} cannot be opened ({error}); make it, or mount its drive"
            ))
        })?;
        if !metadata.is_dir() {
            return Err(SourceError::Unusable(format!(
                "{shown} is not a folder; give the folder that holds the images"
            )));
        }
        Ok(Self(metadata.dev(), metadata.ino()))
    }

    /// Lost, if the folder is no longer the one that was opened.
    fn check(self, path: &Path) -> Result<(), SourceError> {
        if Self::of(path)? != self {
            let shown = path.display();
            return Err(SourceError::Lost(format!("the folder {shown} was replaced by another")));
        }
        Ok(())
    }
}

/// What reading on gave.
enum Step {
    /// A shot, and the id that it is to get, where that is written down.
    Shot(Box<Shot>, Option<FrameId>),
    Refused(Event),
    /// The page was given before; go on with the next one.
    KnownPage,
    /// The next page is so large that it is read alone; go on with it next time.
    Later,
    /// The file has no more pages, or is read later; go on with the next file.
    FileDone,
}

impl Folder {
    /// Opens the folder and, when watching, begins to watch it before it is listed. What
    /// `memory` and the ledger know is passed over then, and what is given is noted there.
    ///
    /// # Errors
    /// [`SourceError::Lost`] when the folder is not there or cannot be listed,
    /// [`SourceError::Unusable`] when it is not a folder or cannot be watched.
    pub fn open(
        path: &Path,
        options: &Options,
        limits: Limits,
        (memory, ledger): (Memory, Option<Arc<dyn Ledger>>),
        clock: Clock,
    ) -> Result<Self, SourceError> {
        let identity = Identity::of(path)?;
        let period = options.fps.map(period).transpose()?;
        let mode = if options.fps.is_some() || options.replay {
            Mode::Replaying(Box::new(Replay {
                files: list(path)?,
                again: options.replay,
                period,
                due_ns: None,
                ready: None,
                given_this_round: false,
            }))
        } else {
            let known = (memory, ledger.clone());
            Mode::Watching(Box::new(Watch::begin(path, identity, known, clock.clone())?))
        };
        Ok(Self {
            path: path.to_owned(),
            identity,
            clock,
            limits,
            selection: Selection { channel: options.channel.clone(), z: options.z.clone() },
            pixel_size_um: options.pixel_size_um,
            mode,
            ledger,
            asked: None,
            reading: None,
            said: HashSet::new(),
            sequence: 0,
        })
    }

    fn check_folder(&self) -> Result<(), SourceError> {
        self.identity.check(&self.path)
    }

    /// Begins to read a file. `None` where it is gone again or changes right now.
    fn begin(
        &mut self,
        arrival: Arrival,
        mut entry: Option<Entry>,
    ) -> Result<Option<Event>, SourceError> {
        let path = self.path.join(&arrival.name);
        match reticle_imagefile::open_chosen(&path, self.limits, &self.selection) {
            Ok(mut pages) => {
                for note in pages.notes() {
                    tracing::info!(file = ?arrival.name, note, "an image file is read in part");
                }
                // The ledger knows pages by their pixels. Without one they are counted; as many as
                // before or fewer: it did not grow by pages, it is another.
                if entry.is_none() && arrival.skip_pages < pages.total() {
                    pages.skip_to(arrival.skip_pages);
                }
                self.reading = Some(Reading { arrival, pages, entry });
                Ok(None)
            }
            Err(error) => {
                let refused = self.refuse(arrival.clone(), None, error.problem())?;
                if refused.is_some() && is_for_good(error.problem()) {
                    self.was_read(&arrival);
                    if let Some(mut entry) = entry.take() {
                        entry.refused(error.problem());
                        entry.ends(0);
                    }
                }
                Ok(refused)
            }
        }
    }

    /// Reads the next page of the file at hand.
    fn step(&mut self, patience: Duration) -> Result<Step, SourceError> {
        let Some(mut reading) = self.reading.take() else { return Ok(Step::FileDone) };
        if let Some(ledger) = &self.ledger
            && reading.pages.next_is_heavy()
            && !ledger.is_idle(patience)
        {
            self.reading = Some(reading);
            return Ok(Step::Later);
        }
        let several = reading.pages.total() > 1;
        match reading.pages.next() {
            None => {
                self.was_read(&reading.arrival);
                if let Some(entry) = reading.entry {
                    entry.ends(reading.pages.total());
                }
                Ok(Step::FileDone)
            }
            Some(Ok(page)) => {
                if let Mode::Watching(watch) = &mut self.mode
                    && !watch.is_unchanged(&reading.arrival)
                {
                    // Somebody wrote to it while it was read: the page may be half of another.
                    watch.wait_for(reading.arrival);
                    return Ok(Step::FileDone);
                }
                reading.arrival.skip_pages = page.index + 1;
                if reading.arrival.skip_pages == reading.pages.total() {
                    self.was_read(&reading.arrival);
                } else if let Mode::Watching(watch) = &self.mode {
                    watch.was_begun(&reading.arrival);
                }
                let id = match &mut reading.entry {
                    None => None,
                    Some(entry) => {
                        let Page { width, height, bit_depth, ref pixels, .. } = page;
                        let sha256 = pages::sha256_of(width, height, bit_depth, pixels);
                        let Some(id) = entry.gives(page.index, sha256) else {
                            self.reading = Some(reading);
                            return Ok(Step::KnownPage);
                        };
                        Some(id)
                    }
                };
                let shot = self.shot(&reading.arrival.name, page, several);
                self.reading = Some(reading);
                Ok(Step::Shot(Box::new(shot), id))
            }
            Some(Err(error)) => {
                let page = error.page();
                if let (Some(entry), Some(page)) = (&mut reading.entry, page)
                    && is_for_good(error.problem())
                    && self.said.contains(&(entry.file(), page))
                {
                    // It was said when the file was read before it grew.
                    entry.refused(error.problem());
                    self.reading = Some(reading);
                    return Ok(Step::KnownPage);
                }
                let refused = self.refuse(reading.arrival.clone(), page, error.problem())?;
                if refused.is_some() && is_for_good(error.problem()) {
                    if let Some(entry) = &mut reading.entry {
                        entry.refused(error.problem());
                        if self.said.len() >= SAID {
                            self.said.clear();
                        }
                        self.said.extend(page.map(|page| (entry.file(), page)));
                    }
                    self.reading = Some(reading);
                }
                Ok(refused.map_or(Step::FileDone, Step::Refused))
            }
        }
    }

    fn was_read(&mut self, arrival: &Arrival) {
        if let Mode::Watching(watch) = &mut self.mode {
            watch.was_read(arrival);
        }
    }

    /// What to say about a file or page that could not be read; `None` where it is read again
    /// later or is simply gone.
    fn refuse(
        &mut self,
        arrival: Arrival,
        page: Option<usize>,
        problem: &Problem,
    ) -> Result<Option<Event>, SourceError> {
        // The folder's end explains its files' errors.
        self.check_folder()?;
        if let Problem::Unreadable(error) = problem
            && error.kind() == std::io::ErrorKind::NotFound
        {
            return Ok(None);
        }
        let name = arrival.name.to_string_lossy().into_owned();
        if let Mode::Watching(watch) = &mut self.mode
            && matches!(problem, Problem::Unreadable(_))
            && !watch.cannot_be_read(&arrival)
        {
            return Ok(None);
        }
        if let Mode::Watching(watch) = &mut self.mode
            && matches!(problem, Problem::Damaged(_) | Problem::Empty | Problem::NotAnImage)
            && watch.may_become_whole(arrival)
        {
            return Ok(None);
        }
        let what = page.map_or_else(|| name.clone(), |page| format!("{name}#{page}"));
        Ok(Some(Event::Refused { what, why: problem.to_string() }))
    }

    /// The page as a shot; its number and its time come when it is given.
    fn shot(&self, name: &OsStr, page: Page, several: bool) -> Shot {
        let name = name.to_string_lossy();
        let origin = if several { format!("{name}#{}", page.index) } else { name.to_string() };
        let shot = page.into_shot(self.clock.now(), origin);
        Shot { place: place::from_name(&name), ..shot }
            .with_configured_pixel_size(self.pixel_size_um)
    }

    /// Numbers a shot and gives it its time, and its id where that is written down.
    fn frame(&mut self, mut shot: Shot, id: Option<FrameId>) -> Result<Event, SourceError> {
        shot.sequence = self.sequence;
        shot.captured = self.clock.now();
        self.sequence += 1;
        let mut frame: Frame =
            shot.into_frame().map_err(|error| SourceError::Unusable(error.to_string()))?;
        frame.id = id.unwrap_or(frame.id);
        Ok(Event::Frame(Box::new(frame)))
    }

    fn next_watched(&mut self, patience: Duration) -> Result<Event, SourceError> {
        let until = after(self.clock.now(), patience);
        self.take_again();
        loop {
            let left = Duration::from_nanos(until.saturating_sub(self.clock.now().mono_ns));
            if self.reading.is_some() {
                match self.step(left)? {
                    Step::Shot(shot, id) => return self.frame(*shot, id),
                    Step::Refused(event) => return Ok(event),
                    Step::Later => return Ok(Event::Nothing),
                    Step::KnownPage if self.clock.now().mono_ns >= until => {
                        return Ok(Event::Nothing);
                    }
                    Step::KnownPage | Step::FileDone => continue,
                }
            }
            let asking = if self.asked.is_some() {
                self.ask_on(until)?
            } else {
                let Mode::Watching(watch) = &mut self.mode else { return Ok(Event::End) };
                match watch.next(left)? {
                    Some(arrival) => self.ask_for(arrival)?,
                    None => {
                        self.check_folder()?;
                        return Ok(Event::Nothing);
                    }
                }
            };
            match asking {
                Asking::Read(arrival, begun) => {
                    let entry = self.entry(begun);
                    if let Some(event) = self.begin(arrival, entry)? {
                        return Ok(event);
                    }
                }
                Asking::Said(event) => return Ok(event),
                Asking::NotYet if self.clock.now().mono_ns >= until => return Ok(Event::Nothing),
                Asking::NotYet | Asking::Passed => {}
            }
        }
    }

    fn next_replayed(&mut self, patience: Duration) -> Result<Event, SourceError> {
        loop {
            let Mode::Replaying(replay) = &mut self.mode else { return Ok(Event::End) };
            if replay.ready.is_some() {
                if !replay.is_due(&self.clock, patience) {
                    return Ok(Event::Nothing);
                }
                if let Some(shot) = replay.ready.take() {
                    replay.given_this_round = true;
                    return self.frame(shot, None);
                }
            }
            if self.reading.is_some() {
                match self.step(patience)? {
                    Step::Shot(shot, _) => self.make_ready(*shot),
                    Step::Refused(event) => return Ok(event),
                    Step::Later => return Ok(Event::Nothing),
                    Step::KnownPage | Step::FileDone => {}
                }
                continue;
            }
            if let Some(name) = replay.files.pop_front() {
                if let Some(event) = self.begin(Arrival::whole(name), None)? {
                    return Ok(event);
                }
                continue;
            }
            if !std::mem::take(&mut replay.given_this_round) {
                self.check_folder()?;
                let path = self.path.display();
                return Err(SourceError::Lost(format!(
                    "the folder {path} has no image that can be read; put TIFF, PNG or JPEG \
                     files there"
                )));
            }
            if !replay.again {
                // Asked again, the answer is the same.
                replay.given_this_round = true;
                return Ok(Event::End);
            }
            replay.files = list(&self.path)?;
        }
    }

    fn make_ready(&mut self, shot: Shot) {
        if let Mode::Replaying(replay) = &mut self.mode {
            replay.ready = Some(shot);
        }
    }
}

impl Source for Folder {
    fn next(&mut self, patience: Duration) -> Result<Event, SourceError> {
        match self.mode {
            Mode::Watching(_) => self.next_watched(patience),
            Mode::Replaying(_) => self.next_replayed(patience),
        }
    }

    fn rest(&mut self) {
        // A camera that was held does not owe the frames of that time.
        if let Mode::Replaying(replay) = &mut self.mode {
            replay.due_ns = None;
        }
    }
}

impl Replay {
    /// Waits up to `patience` for the next frame's time; true once it has come, and then the
    /// frame after it is due one period later.
    fn is_due(&mut self, clock: &Clock, patience: Duration) -> bool {
        let Some(period) = self.period else { return true };
        let mut now = clock.now().mono_ns;
        let due = *self.due_ns.get_or_insert(now);
        if now < due {
            std::thread::sleep(patience.min(Duration::from_nanos(due - now)));
            now = clock.now().mono_ns;
            if now < due {
                return false;
            }
        }
        let late = Duration::from_nanos(now - due) > LATE;
        let base = if late { now } else { due };
        self.due_ns = Some(base.saturating_add(nanos(period)));
        true
    }
}

/// Whether the file itself is at fault. Where it could not be read, it is tried again: a share often
/// fails file by file before it is gone, and rights are often given afterwards.
fn is_for_good(problem: &Problem) -> bool {
    !matches!(problem, Problem::Unreadable(_))
}

/// The images of a folder by name, in natural order.
fn list(path: &Path) -> Result<VecDeque<OsString>, SourceError> {
    let images = reticle_imagefile::list_images(&[path.to_owned()])
        .map_err(|error| SourceError::Lost(format!("the folder {error}")))?;
    let names = images.iter().filter_map(|image| image.file_name());
    Ok(names.filter(|name| events::is_taken_name(name)).map(OsString::from).collect())
}

fn natural(a: &OsStr, b: &OsStr) -> std::cmp::Ordering {
    reticle_imagefile::natural_order(Path::new(a), Path::new(b))
}

/// Time between two frames.
fn period(fps: f64) -> Result<Duration, SourceError> {
    let period = Duration::try_from_secs_f64(fps.recip()).ok().filter(|time| !time.is_zero());
    period.ok_or_else(|| {
        SourceError::Unusable(format!("fps = {fps} is no rate; give frames a second, above 0"))
    })
}

fn after(now: Stamp, patience: Duration) -> u64 {
    now.mono_ns.saturating_add(nanos(patience))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests;

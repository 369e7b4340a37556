//! Which files of a folder are new and whole.
//!
//! 1. The watch (inotify) begins before the folder is listed, so nothing falls between.
//! 2. A file is whole once its writer closed it or renamed it into place.
//! 3. A file that is found by listing is whole if nobody changed it for [`SETTLED`], which is
//!    also the rule for writers that keep their file open: unchanged for [`SETTLED`], it is
//!    read. If that finds it damaged, it is read again each [`SETTLED`] until its writer goes
//!    on, or [`GIVEN_UP`] has passed. Where its bytes look unfinished, it is waited for longer
//!    ([`super::whole`]).
//! 4. A file is one version: name, inode, size and time of change. No version is given twice,
//!    whether it was noticed by an event or by listing; another version is looked at. Where there
//!    is a ledger, it knows by the content what of it is new, and it is asked whenever a file is
//!    closed or renamed into place: the kernel counts the time of change in ticks of some
//!    milliseconds, so a file overwritten within one is the same version.
//! 5. When the kernel's queue overflows, and every [`RELISTED`] for network drives, whose
//!    other users' writes make no events here, the folder is listed again.
//! 6. What was given before the folder was lost and opened again is not given again, as far as
//!    [`Memory`] goes back: only the first listing asks it, because later this watch knows
//!    better, by the inode, too.
//! 7. A file that cannot be read is tried again when its rights change and with each listing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{debug, info, warn};

use super::arrival::{Arrival, Version, lasting_key};
use super::events::{Notice, notices_of};
use super::ledger::Ledger;
use super::memory::{Memory, Remembered};
use super::whole::{Doubt, Left};
use super::{Identity, SourceError, nanos};
use reticle_base::clock::{Clock, Stamp};
use reticle_base::queue::{self, Received, WhenFull};

/// How long a file that nobody closed has to stand still before it is read.
pub(super) const SETTLED: Duration = Duration::from_secs(2);

/// How long a file that stands still but is damaged may yet be finished by its writer.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// A program that opens a file again after closing it has written on by then.
const REOPENED: Duration = Duration::from_millis(100);

/// How often the folder is listed when there is nothing else to do.
const RELISTED: Duration = Duration::from_secs(10);

/// Listing takes at most this share of the time (1/50), however large the folder.
const LISTING_SHARE: u32 = 50;

/// Events that wait to be looked at. When this is full the kernel's queue fills, and when that
/// is full the kernel says so and the folder is listed again: a bound without a loss.
const EVENTS: usize = 1024;

/// A file that is not known to be whole.
struct Growing {
    version: Version,
    /// Since when it is so, in monotonic nanoseconds.
    since_ns: u64,
    /// How long it has to stand still.
    wait: Duration,
    /// How its writer left it.
    left: Left,
    /// When it was first read although nobody had closed it.
    first_read_ns: Option<u64>,
    /// Whether this version was handed out.
    taken: bool,
    /// Pages that were given, and what the file was then.
    given: Option<(usize, Version)>,
}

/// Which listing of the folder it is.
#[derive(Clone, Copy)]
enum Listing {
    /// The one with which the watch begins.
    First,
    /// A later one.
    Again,
}

/// See the module.
pub(super) struct Watch {
    path: PathBuf,
    identity: Identity,
    clock: Clock,
    notices: queue::Receiver<Notice>,
    /// Names of the files that are to be read, in order.
    waiting: VecDeque<OsString>,
    /// What is known of those.
    arrivals: HashMap<OsString, Arrival>,
    growing: HashMap<OsString, Growing>,
    /// The file that was handed out last, and whether somebody has written it since it was found
    /// whole: it was closed and opened again.
    asked: Option<(OsString, bool)>,
    /// Files that could not be read, which was said.
    unreadable: HashSet<OsString>,
    /// Versions that were handed out and are still in the folder.
    given: HashSet<u64>,
    memory: Memory,
    ledger: Option<Arc<dyn Ledger>>,
    relist_at_ns: u64,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch, then lists what is there and was not given before.
    pub(super) fn begin(
        path: &Path,
        identity: Identity,
        (memory, ledger): (Memory, Option<Arc<dyn Ledger>>),
        clock: Clock,
    ) -> Result<Self, SourceError> {
        let shown = path.display();
        let unusable = |error: notify::Error| {
            SourceError::Unusable(format!(
                "the folder {shown} cannot be watched ({error}); raise \
                 fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl"
            ))
        };
        let (sender, notices) = queue::bounded("folder-events", EVENTS, WhenFull::Wait);
        let root = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut watcher = notify::recommended_watcher(move |event| {
            for notice in notices_of(event, &root) {
                sender.send(notice);
            }
        })
        .map_err(unusable)?;
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(unusable)?;
        let mut watch = Self {
            path: path.to_owned(),
            identity,
            relist_at_ns: 0,
            clock,
            notices,
            waiting: VecDeque::new(),
            arrivals: HashMap::new(),
            growing: HashMap::new(),
            asked: None,
            unreadable: HashSet::new(),
            given: HashSet::new(),
            memory,
            ledger,
            _watcher: watcher,
        };
        watch.remember_settled()?;
        watch.list(Listing::First)?;
        Ok(watch)
    }

    /// What the ledger says was taken by an earlier process is remembered as given.
    fn remember_settled(&self) -> Result<(), SourceError> {
        let Some(ledger) = self.ledger.as_ref().filter(|_| self.memory.is_to_be_filled()) else {
            return Ok(());
        };
        let mut remember = |name: &OsStr, size, modified_ns| {
            self.memory.done(lasting_key(name, size, modified_ns));
        };
        ledger
            .settled(&self.path, &mut remember)
            .map_err(|error| SourceError::Lost(error.to_string()))?;
        self.memory.was_filled();
        Ok(())
    }

    /// A file that was given, or passed over, is to be given after all, if it is there.
    pub(super) fn take_again(&mut self, name: OsString) {
        if let Some(version) = self.version(&name) {
            self.memory.forget(version.lasting_key(&name));
            self.given.remove(&version.key(&name));
            self.arrive(name, version, 0, Left::Closed);
        }
    }

    /// Waits up to `patience` for a file that is whole.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Option<Arrival>, SourceError> {
        let until = self.now_ns().saturating_add(nanos(patience));
        let mut looked = false;
        // A file is often closed, then touched, then closed again: what is known of it by now counts.
        self.hear()?;
        loop {
            if let Some(name) = self.waiting.pop_front() {
                let Some(arrival) = self.arrivals.remove(&name) else { continue };
                self.asked = Some((name, false));
                return Ok(Some(arrival));
            }
            let now = self.now_ns();
            let settles = self.next_settled_ns().unwrap_or(u64::MAX);
            if now >= self.relist_at_ns {
                self.list(Listing::Again)?;
                continue;
            }
            if now >= settles {
                self.settle();
                continue;
            }
            // A stream of events must not keep the caller longer than it wanted to wait.
            if looked && now >= until {
                return Ok(None);
            }
            looked = true;
            let wake = settles.min(self.relist_at_ns).min(until);
            match self.notices.recv_timeout(Duration::from_nanos(wake.saturating_sub(now))) {
                Received::Item(notice) => self.notice(notice)?,
                Received::Timeout => {}
                Received::Closed => {
                    let path = self.path.display();
                    return Err(SourceError::Lost(format!("the watch on {path} ended")));
                }
            }
        }
    }

    /// Takes all events that wait, as many as there may be at once.
    fn hear(&mut self) -> Result<(), SourceError> {
        for _ in 0..EVENTS {
            match self.notices.recv_timeout(Duration::ZERO) {
                Received::Item(notice) => self.notice(notice)?,
                Received::Timeout | Received::Closed => break,
            }
        }
        Ok(())
    }

    /// What has been heard of a file since it was handed out: one that was written after it was closed
    /// is open again, even if it was found in the state that it is in now.
    pub(super) fn hear_of(&mut self, arrival: &mut Arrival) -> Result<(), SourceError> {
        self.hear()?;
        if self.asked.as_ref().is_some_and(|(name, written)| *name == arrival.name && *written) {
            arrival.left = Left::Open;
        }
        Ok(())
    }

    /// Whether the file is still the version that was found whole.
    pub(super) fn is_unchanged(&self, arrival: &Arrival) -> bool {
        arrival.version == self.version(&arrival.name)
    }

    /// How long it is too early to read a file that was closed a moment ago. Its writer may have opened it
    /// again at once, to write into it what it did not know before, and be at it: then the time of
    /// change tells when that is over. Only the first of several files is waited for.
    pub(super) fn reopened_within(&self, arrival: &Arrival) -> Duration {
        let (Left::Closed, Some(version)) = (arrival.left, arrival.version) else {
            return Duration::ZERO;
        };
        let age = self.clock.now().wall_ns.checked_sub(version.modified_ns);
        // Of a file server whose clock is another nothing is known.
        let age = age.and_then(|age| u64::try_from(age).ok()).map(Duration::from_nanos);
        age.and_then(|age| REOPENED.checked_sub(age)).unwrap_or_default()
    }

    /// The file changed after it was found whole: it is looked at again when its writer closes
    /// it or it stands still.
    pub(super) fn wait_for(&mut self, arrival: Arrival) {
        // What is newer waits to be read already.
        if self.arrivals.contains_key(&arrival.name) {
            return;
        }
        if let Some(version) = self.version(&arrival.name) {
            // Whoever wrote it may have put its old time of change back: then it looks like what was
            // given before, and is not.
            self.given.remove(&version.key(&arrival.name));
            let given = arrival.version.map(|version| (arrival.skip_pages, version));
            self.grows(arrival.name, version, (self.now_ns(), arrival.left), given);
        }
    }

    /// For how long nobody has changed the file.
    pub(super) fn still_for(&self, arrival: &Arrival) -> Duration {
        let still = i128::from(self.now_ns()).saturating_sub(arrival.still_since_ns);
        Duration::from_nanos(u64::try_from(still.max(0)).unwrap_or(u64::MAX))
    }

    /// The file may not be whole: it is looked at again when its writer says more, or it has stood
    /// still for as long as that takes.
    pub(super) fn doubt(&mut self, arrival: Arrival, doubt: Doubt) {
        let Some(version) = arrival.version else { return };
        let wait = doubt.takes(arrival.left);
        let (file, seconds) = (arrival.name.display(), wait.as_secs());
        info!(%file, seconds, "this file {}; it is waited for", doubt.what());
        self.given.remove(&version.key(&arrival.name));
        let since_ns = self.now_ns().saturating_sub(nanos(self.still_for(&arrival)));
        let left = arrival.left;
        let growing = self.growing.entry(arrival.name).or_insert(Growing {
            version,
            since_ns,
            wait,
            left,
            first_read_ns: None,
            taken: false,
            given: None,
        });
        // Another version is on its way by itself.
        if growing.version == version {
            growing.taken = false;
            growing.wait = wait;
        }
    }

    /// The file cannot be read, and is tried again; whether that is news.
    pub(super) fn cannot_be_read(&mut self, arrival: &Arrival) -> bool {
        if let Some(version) = arrival.version {
            self.given.remove(&version.key(&arrival.name));
        }
        if let Some(growing) = self.growing.get(&arrival.name)
            && growing.taken
        {
            self.growing.remove(&arrival.name);
        }
        self.unreadable.insert(arrival.name.clone())
    }

    /// The file can be read.
    pub(super) fn can_be_read(&mut self, arrival: &Arrival) {
        self.unreadable.remove(&arrival.name);
    }

    /// Another page of a file was given; the arrival says how many there were.
    pub(super) fn was_begun(&self, arrival: &Arrival) {
        if let Some(version) = arrival.version {
            self.memory.begun(version.lasting_key(&arrival.name), arrival.skip_pages);
        }
    }

    /// All pages of a file were given or refused.
    pub(super) fn was_read(&mut self, arrival: &Arrival) {
        if let Some(version) = arrival.version {
            self.memory.done(version.lasting_key(&arrival.name));
        }
        if let Some(growing) = self.growing.get_mut(&arrival.name) {
            growing.given = arrival.version.map(|version| (arrival.skip_pages, version));
        }
    }

    /// Whether a file that cannot be read now may be whole later; it is watched then. Pages of
    /// it that were given stay given.
    pub(super) fn may_become_whole(&mut self, arrival: Arrival) -> bool {
        let Some(version) = self.version(&arrival.name) else {
            // Gone again: nothing to refuse, nothing to wait for.
            return true;
        };
        let now = self.now_ns();
        let changed = arrival.version != Some(version);
        let first_read_ns =
            self.growing.get(&arrival.name).and_then(|growing| growing.first_read_ns);
        let patient = first_read_ns.is_none_or(|first| now - first < nanos(GIVEN_UP));
        let may_go_on = match arrival.left {
            Left::Open => true,
            Left::Listed => self.still_for(&arrival) < GIVEN_UP,
            Left::Closed | Left::Renamed => false,
        };
        if changed || (may_go_on && patient) {
            self.given.remove(&version.key(&arrival.name));
            let given = arrival.version.map(|version| (arrival.skip_pages, version));
            self.growing.insert(
                arrival.name,
                Growing {
                    version,
                    since_ns: now,
                    wait: SETTLED,
                    left: arrival.left,
                    first_read_ns: first_read_ns.or(Some(now)),
                    taken: false,
                    given,
                },
            );
            return true;
        }
        false
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().mono_ns
    }

    fn version(&self, name: &OsStr) -> Option<Version> {
        let metadata = std::fs::metadata(self.path.join(name)).ok()?;
        metadata.is_file().then(|| Version::of(&metadata))
    }

    fn notice(&mut self, notice: Notice) -> Result<(), SourceError> {
        match notice {
            Notice::Closed(name) => {
                self.is_whole(name, Left::Closed);
                Ok(())
            }
            Notice::Renamed(name) => {
                self.is_whole(name, Left::Renamed);
                Ok(())
            }
            Notice::Made(name) | Notice::Touched(name) => {
                self.is_open_again(&name);
                if let Some(version) = self.version(&name)
                    && !self.given.contains(&version.key(&name))
                {
                    self.grows(name, version, (self.now_ns(), Left::Open), None);
                }
                Ok(())
            }
            Notice::Attributes(name) => {
                if let Some(version) = self.version(&name)
                    && !self.given.contains(&version.key(&name))
                {
                    match self.growing.get(&name).map(|growing| growing.left) {
                        Some(left @ (Left::Open | Left::Listed)) => {
                            self.grows(name, version, (self.now_ns(), left), None);
                        }
                        _ => self.is_whole(name, Left::Closed),
                    }
                }
                Ok(())
            }
            Notice::Overflow => {
                warn!(folder = %self.path.display(), "too many changes at once; listing the folder");
                self.list(Listing::Again)
            }
            Notice::FolderGone => {
                let path = self.path.display();
                Err(SourceError::Lost(format!("the folder {path} was removed or renamed")))
            }
        }
    }

    /// A file was written, and not closed since. Events come in their order, so what waits to be read
    /// was closed before, and is open again.
    fn is_open_again(&mut self, name: &OsStr) {
        if let Some(arrival) = self.arrivals.get_mut(name) {
            arrival.left = Left::Open;
        }
        if let Some((asked, written)) = &mut self.asked
            && asked == name
        {
            *written = true;
        }
    }

    /// Its writer is done with a file.
    fn is_whole(&mut self, name: OsString, left: Left) {
        if let Some((asked, written)) = &mut self.asked
            && *asked == name
        {
            *written = false;
        }
        let growing = self.growing.remove(&name);
        if let Some(version) = self.version(&name) {
            let skip = growing.map_or(0, |growing| skip_pages(growing.given, version));
            if self.ledger.is_some() {
                self.given.remove(&version.key(&name));
            }
            self.arrive(name, version, skip, left);
        }
    }

    fn arrive(&mut self, name: OsString, version: Version, skip_pages: usize, left: Left) {
        let still_since_ns = i128::from(self.now_ns());
        self.hand_out(Arrival { name, skip_pages, version: Some(version), left, still_since_ns });
    }

    /// Hands a version out, once. Of a file that waits to be read the newest version is.
    fn hand_out(&mut self, arrival: Arrival) {
        let Some(version) = arrival.version else { return };
        if self.given.insert(version.key(&arrival.name)) {
            let name = arrival.name.clone();
            if self.arrivals.insert(name.clone(), arrival).is_none() {
                self.waiting.push_back(name);
            }
        }
    }

    fn grows(
        &mut self,
        name: OsString,
        version: Version,
        (since_ns, left): (u64, Left),
        given: Option<(usize, Version)>,
    ) {
        let growing = self.growing.entry(name).or_insert(Growing {
            version,
            since_ns,
            wait: SETTLED,
            left,
            first_read_ns: None,
            taken: false,
            given,
        });
        growing.left = growing.left.min(left);
        if growing.version != version {
            *growing = Growing { version, since_ns, wait: SETTLED, taken: false, ..*growing };
        }
    }

    fn next_settled_ns(&self) -> Option<u64> {
        let open = self.growing.values().filter(|growing| !growing.taken);
        open.map(|growing| growing.since_ns.saturating_add(nanos(growing.wait))).min()
    }

    /// Hands out what stood still long enough.
    fn settle(&mut self) {
        let Stamp { mono_ns: now, wall_ns, .. } = self.clock.now();
        let mut settled = Vec::new();
        let path = &self.path;
        self.growing.retain(|name, growing| {
            if growing.taken || now.saturating_sub(growing.since_ns) < nanos(growing.wait) {
                return true;
            }
            let Ok(metadata) = std::fs::metadata(path.join(name)) else { return false };
            let version = Version::of(&metadata);
            if version == growing.version {
                growing.taken = true;
                growing.first_read_ns.get_or_insert(now);
                let seen = i128::from(now.saturating_sub(growing.since_ns));
                // Where no writer was seen, it stood still before it was looked at, too.
                let changed = i128::from(wall_ns) - i128::from(version.modified_ns);
                let still = if growing.left == Left::Open { seen } else { seen.max(changed) };
                settled.push(Arrival {
                    name: name.clone(),
                    skip_pages: skip_pages(growing.given, version),
                    version: Some(version),
                    left: growing.left,
                    still_since_ns: i128::from(now) - still,
                });
            } else {
                *growing = Growing { version, since_ns: now, wait: SETTLED, ..*growing };
            }
            true
        });
        settled.sort_by(|a, b| super::natural(&a.name, &b.name));
        for arrival in settled {
            debug!(file = %arrival.name.display(), "nobody closed this file, but it stands still");
            self.hand_out(arrival);
        }
    }

    /// Lists the folder, takes what is whole and forgets what is gone.
    fn list(&mut self, listing: Listing) -> Result<(), SourceError> {
        let begun = self.clock.now();
        let mut present = HashSet::new();
        let mut names = HashSet::new();
        let mut to_remember = self.memory.is_crowded().then(HashSet::new);
        for name in super::list(&self.path)? {
            let Some(version) = self.version(&name) else { continue };
            let key = version.key(&name);
            present.insert(key);
            names.insert(name_key(&name));
            if let Some(keys) = &mut to_remember {
                keys.insert(version.lasting_key(&name));
            }
            if self.given.contains(&key) {
                continue;
            }
            if let Some(growing) = self.growing.get(&name) {
                // Where other machines write, no event says so.
                if growing.version != version {
                    self.grows(name, version, (begun.mono_ns, Left::Listed), None);
                }
                continue;
            }
            let remembered = match listing {
                Listing::First => self.memory.of(version.lasting_key(&name)),
                Listing::Again => Remembered::Nothing,
            };
            let given = match remembered {
                Remembered::Nothing => None,
                Remembered::Pages(pages) => Some((pages, version)),
                Remembered::Everything => {
                    self.given.insert(key);
                    continue;
                }
            };
            let age = i128::from(begun.wall_ns) - i128::from(version.modified_ns);
            if age >= i128::from(nanos(SETTLED)) {
                self.hand_out(Arrival {
                    name,
                    skip_pages: skip_pages(given, version),
                    version: Some(version),
                    left: Left::Listed,
                    still_since_ns: i128::from(begun.mono_ns) - age,
                });
            } else {
                self.grows(name, version, (begun.mono_ns, Left::Listed), given);
            }
        }
        // The files of another folder, as of the same share mounted again, would all be new here.
        self.identity.check(&self.path)?;
        self.given.retain(|key| present.contains(key));
        self.unreadable.retain(|name| names.contains(&name_key(name)));
        // An empty folder may be where a share is not mounted.
        if let Some(keys) = to_remember.filter(|keys| !keys.is_empty()) {
            self.memory.keep_only(&keys);
        }
        let path = &self.path;
        self.growing.retain(|name, growing| !growing.taken || path.join(name).exists());
        // A file that waits to be read may be one that another was renamed to.
        let all_read = self.waiting.is_empty() && self.growing.values().all(|it| it.taken);
        if let Some(ledger) = self.ledger.as_ref().filter(|_| all_read) {
            ledger
                .listed(&self.path, &|name| names.contains(&name_key(name)))
                .map_err(|error| SourceError::Lost(error.to_string()))?;
        }
        let took = self.clock.now().since(&begun);
        let pause = RELISTED.max(took * LISTING_SHARE);
        self.relist_at_ns = self.now_ns().saturating_add(nanos(pause));
        Ok(())
    }
}

/// Stands for a name in a set: 8 bytes, however long it is.
fn name_key(name: &OsStr) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// A file that only grew since some of its pages were given has those pages still; any other
/// change made it a new one.
fn skip_pages(given: Option<(usize, Version)>, version: Version) -> usize {
    given.map_or(
        0,
        |(pages, then)| {
            if version == then || version.size > then.size { pages } else { 0 }
        },
    )
}

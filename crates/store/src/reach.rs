//! Whether the names of the store still lead to the files that are open.
//!
//! A file that is open is written on as before when its name is taken from it: by `rm -rf`, by
//! `umount -l`, by a database that is renamed or replaced, by a log that is deleted. Each commit
//! succeeds, and no start will ever find it. So before anything is reported, device and inode of
//! what is open are compared with what the names lead to now.
//!
//! # What is compared
//!
//! The data folder, its lock, the database, the database's log (`-wal`) and index (`-shm`), and the
//! folder of the frame files: six calls of `stat`, some microseconds a batch. What is open is
//! found by its descriptor (`/proc/self/fd`), not by its name a second time. Log and index are the
//! same files as long as the writer's connection is open: a checkpoint empties the log and keeps
//! it. They are looked up anew when the database is opened again, and the database must then be
//! the one that it was.
//!
//! Link counts need no look of their own: a name that leads to the same inode is one of its links.
//! What is not noticed is a database that is *overwritten* in its place, as by `cp`.
//!
//! # After a difference
//!
//! 1. Nothing is reported as saved or kept any more, also if the names are put right: what was
//!    written in between may be elsewhere. The daemon raises `store_unlinked` and ends.
//! 2. The log is copied into the database that is open, wherever that is, and emptied. So a log
//!    that was deleted costs nothing, a database that was moved away is whole by itself, and one
//!    that was put in its place does not get the log of another. (Not where the lock is another
//!    one: then somebody else may be at work in this database.)
//! 3. Closing removes nothing by name: what is there now is not ours.
//! 4. Where the data folder is another one, but the old one was not removed, it was moved, or its
//!    file system is no longer mounted there. A note ([`NOTE`]) is left in the folder that is there
//!    now, and no start makes a new store beside it. Mounted again, the note is hidden, and all goes
//!    on.

use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::error::StoreError;
use crate::frames::FRAMES;
use crate::sql::schema;

/// Name of the file that says that the store is elsewhere.
const NOTE: &str = "store-is-elsewhere";

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }

    /// What this process has open under `path`.
    fn opened(path: &Path) -> io::Result<Self> {
        let resolved = fs::canonicalize(path)?;
        for descriptor in fs::read_dir("/proc/self/fd").into_iter().flatten() {
            let link = descriptor?.path();
            if fs::read_link(&link).is_ok_and(|target| target == resolved) {
                return fs::metadata(&link).map(|found| Self::of(&found));
            }
        }
        // Without /proc the name has to do: it led there a moment ago.
        fs::metadata(path).map(|found| Self::of(&found))
    }
}

/// A name, and the file that it has to lead to.
#[derive(Debug)]
struct Place {
    what: &'static str,
    path: PathBuf,
    id: FileId,
}

/// The names of one open store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Reach(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    database: PathBuf,
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    /// Keeps the folder's number from being given to another; none for those who only read.
    held: Option<OwnedFd>,
    fixed: Vec<Place>,
    /// Log and index, while the writer has them open.
    opened: Vec<Place>,
    /// There from the first frame file on.
    frames: Option<Place>,
}

impl Reach {
    /// Of a store that was just opened to write, whose lock is `lock`.
    pub(crate) fn of(folder: &Path, database: &Path, lock: &File) -> Result<Self, StoreError> {
        // A working folder may be on a file system that is no longer mounted: names are whole.
        let folder = std::path::absolute(folder).map_err(unseen(folder))?;
        let database = std::path::absolute(database).map_err(unseen(database))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = rustix::fs::open(&folder, flags, Mode::empty())
            .map_err(|error| unseen(&folder)(error.into()))?;
        let place = |what, path: PathBuf, id: io::Result<FileId>| -> Result<Place, StoreError> {
            let id = id.map_err(unseen(&path))?;
            Ok(Place { what, path, id })
        };
        let named = |path: &Path| fs::metadata(path).map(|found| FileId::of(&found));
        let fixed = vec![
            place("the data folder", folder.clone(), named(&folder))?,
            place("the database", database.clone(), FileId::opened(&database))?,
            place("the lock", folder.join("lock"), lock.metadata().map(|lock| FileId::of(&lock)))?,
        ];
        let places = Places { held: Some(held), fixed, opened: Vec::new(), frames: None };
        let reach = Self(Arc::new(Shared { folder, database, places: Mutex::new(places) }));
        reach.opened()?;
        Ok(reach)
    }

    /// Of a database that was just opened by somebody who only reads.
    pub(crate) fn of_database(database: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(database).map_err(unseen(database))?;
        let folder = path.parent().unwrap_or(&path).to_owned();
        let id = FileId::opened(&path).map_err(unseen(&path))?;
        let fixed = vec![Place { what: "the database", path: path.clone(), id }];
        let places = Places { held: None, fixed, opened: Vec::new(), frames: None };
        Ok(Self(Arc::new(Shared { folder, database: path, places: Mutex::new(places) })))
    }

    /// The writer has a connection, and with it a log and an index.
    pub(crate) fn opened(&self) -> Result<(), StoreError> {
        let mut opened = Vec::new();
        for (what, suffix) in [("the database's log", "-wal"), ("the database's index", "-shm")] {
            let path = self.beside(suffix);
            match FileId::opened(&path) {
                Ok(id) => opened.push(Place { what, path, id }),
                // In a journal of another kind there is none.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unseen(&path)(error)),
            }
        }
        self.with(|places| places.opened = opened);
        self.check()
    }

    /// The writer's connection is gone; the last one of a process takes log and index with it.
    pub(crate) fn closed(&self) {
        self.with(|places| places.opened.clear());
    }

    /// Whether all names lead where they have to.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.with(|places| {
            let frames = places.frames.iter();
            for place in places.fixed.iter().chain(&places.opened).chain(frames) {
                place.check()?;
            }
            if places.frames.is_none() && places.held.is_some() {
                let path = self.0.folder.join(FRAMES);
                if let Ok(found) = fs::metadata(&path) {
                    let id = FileId::of(&found);
                    places.frames = Some(Place { what: "the folder of frame files", path, id });
                }
            }
            Ok(())
        })
    }

    /// Whether nobody else can be at work in the database that is open.
    pub(crate) fn is_ours_alone(&self) -> bool {
        self.with(|places| {
            let leads = |what| {
                let place = places.fixed.iter().find(|place| place.what == what);
                place.is_some_and(|place| place.check().is_ok())
            };
            leads("the lock") || !leads("the database")
        })
    }

    /// Leaves a note where the folder was, if it is still somewhere else.
    pub(crate) fn leave_note(&self, why: &StoreError) -> io::Result<()> {
        let (folder, database) = (&self.0.folder, &self.0.database);
        let is_elsewhere = self.with(|places| {
            let links = places.held.as_ref().map(rustix::fs::fstat);
            let was_removed = !links.is_some_and(|found| found.is_ok_and(|it| it.st_nlink > 0));
            let is_there = places.fixed.first().is_some_and(|place| place.check().is_ok());
            !was_removed && !is_there
        });
        if !is_elsewhere || !folder.is_dir() || database.exists() {
            return Ok(());
        }
        let mut note = File::create(folder.join(NOTE))?;
        writeln!(
            note,
            "Reticle worked in a data folder that was here and is now elsewhere: moved, or its file \
             system is no longer mounted.\n{why}\nMount it or put it back. To begin a new store \
             here, remove this file."
        )?;
        note.sync_all()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.database.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Places) -> T) -> T {
        look(&mut self.0.places.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    fn check(&self) -> Result<(), StoreError> {
        let why = match fs::metadata(&self.path) {
            Ok(found) if FileId::of(&found) == self.id => return Ok(()),
            Ok(_) => "leads to another file now",
            Err(error) if is_gone(&error) => "is gone",
            Err(error) => return Err(unseen(&self.path)(error)),
        };
        Err(StoreError::Unlinked { what: self.what, path: self.path.clone(), why })
    }
}

fn unseen(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    StoreError::file("look at", path)
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle)
}

/// Refuses to make a new store where there was one whose database is not there now.
pub(crate) fn refuse_to_forget(folder: &Path) -> Result<(), StoreError> {
    let database = schema::database_path(folder);
    let note = folder.join(NOTE);
    if database.exists() {
        // Whoever put it there has answered the note.
        fs::remove_file(&note).ok();
        return Ok(());
    }
    let lost = |why| Err(StoreError::Lost { folder: folder.to_owned(), why });
    if note.exists() {
        return lost(format!(
            "it was moved away, or its file system is not mounted: mount it or put it back; to \
             begin a new store there, remove {}",
            note.display()
        ));
    }
    let mut log = database.clone().into_os_string();
    log.push("-wal");
    let has_log = fs::metadata(log).is_ok_and(|log| log.len() > 0);
    let has_frames = crate::frames::list(folder).is_ok_and(|(files, _)| !files.is_empty());
    if has_log || has_frames {
        let left = if has_log { "its log is" } else { "frame files of it are" };
        return lost(format!(
            "{} is gone and {left} there: put the database or a backup of it back; to \
             begin a new store, move what is there away",
            database.display()
        ));
    }
    Ok(())
}

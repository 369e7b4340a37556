//! A backup takes the database's place.
//!
//! # In order
//!
//! 1. The folder's lock is taken: no daemon works here, and none begins.
//! 2. The backup is read to its end and compared with what is here ([`Restoring::plan`]). Whoever
//!    asked for it decides with that in hand; nothing has changed yet.
//! 3. A copy is made beside the database (`reticle.db.restored`) and made ready there: the schema
//!    is brought up to date, a new epoch begins, each file that a row names is looked for, under
//!    `frames/` and `orphans/`, and hashed. One that is not there any more is taken out of its row
//!    (`not_restored`). Killed until here: nothing has changed but that files of `orphans/` may be
//!    back under `frames/`, which the next start reverses.
//! 4. The file `restoring` is written. From here on the copy counts.
//! 5. The old database and its log go into `set-aside/<time>/`, whole; nothing is deleted.
//! 6. The copy gets the database's name; `restoring` is removed. Killed between 4 and here: the
//!    next start goes on with 5 ([`finish`]).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

use crate::backup::{self, Contents};
use crate::error::StoreError;
use crate::lock::FolderLock;
use crate::orphans;
use crate::sql::identity::{self, Identity};
use crate::sql::schema::{self, damaged_or};
use crate::sql::{cursor, log};
use reticle_base::clock::{Clock, Stamp, rfc3339};
use reticle_base::crash;
use reticle_base::durable;

/// Folder for databases that a restore took out of use.
const SET_ASIDE: &str = "set-aside";

/// There between the decision and the end of a restore.
const MARKER: &str = "restoring";

/// Ending of the copy while it is made ready.
const READY: &str = ".restored";

/// What will happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The backup.
    pub backup: PathBuf,
    /// What it holds.
    pub contents: Contents,
    /// Whether a checksum beside it was compared.
    pub checksum: bool,
    /// What is in the data folder now.
    pub present: Present,
}

/// What a backup is put in the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Present {
    /// No database.
    Nothing,
    /// One that cannot be read: what is in it and not in the backup cannot be told.
    Unreadable {
        /// Why.
        why: String,
    },
    /// A sound one.
    Store {
        /// What it holds.
        contents: Contents,
        /// What of it the backup does not have.
        missing: Missing,
    },
}

/// What is here and not in the backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Whether the backup is of another store than the one here.
    pub other_store: bool,
    /// Sessions.
    pub sessions: u64,
    /// Frames.
    pub frames: u64,
    /// Results.
    pub results: u64,
    /// Objects in them.
    pub objects: u64,
    /// When the first of these frames was captured, RFC 3339 in UTC.
    pub first: Option<String>,
    /// When the last of them was.
    pub last: Option<String>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Who the store is now.
    #[serde(flatten)]
    pub identity: Identity,
    /// What it holds.
    pub contents: Contents,
    /// Where the old database is, where there was one.
    pub set_aside: Option<PathBuf>,
    /// Frame files that are there as their rows say.
    pub files: u64,
    /// Of those, the ones that came back from `orphans/`.
    pub from_orphans: u64,
    /// Frames whose file is not there any more.
    pub files_missing: u64,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    set_aside: PathBuf,
}

/// A restore that was looked at and not yet decided. Holds the folder.
#[derive(Debug)]
pub struct Restoring {
    folder: PathBuf,
    lock: FolderLock,
    plan: Plan,
}

impl Restoring {
    /// Steps 1 and 2.
    ///
    /// # Errors
    /// When a daemon works in the folder, or the backup cannot be read, is damaged, or is of a
    /// newer Reticle.
    pub fn prepare(folder: &Path, backup: &Path) -> Result<Self, StoreError> {
        durable::create_dir(folder).map_err(StoreError::file("make the data folder", folder))?;
        let (lock, _) = FolderLock::take(folder)?;
        finish(folder)?;
        let (contents, checksum) = backup::check(backup)?;
        let present = present(folder, backup, &contents);
        let plan = Plan { backup: backup.to_owned(), contents, checksum, present };
        Ok(Self { folder: folder.to_owned(), lock, plan })
    }

    /// What it will come to.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves everything as it is.
    ///
    /// # Errors
    /// When the lock cannot be written.
    pub fn give_up(self) -> Result<(), StoreError> {
        self.lock.release_clean(&self.folder)
    }

    /// Steps 3 to 6.
    ///
    /// # Errors
    /// When the disk is full or fails. Before step 4 nothing has changed; after it, the same again
    /// or the next start of the daemon goes on.
    pub fn put_in_place(self, clock: &Clock) -> Result<Restored, StoreError> {
        let Self { folder, lock, plan } = self;
        let database = schema::database_path(&folder);
        let ready = ready(&database);
        remove_ready(&ready)?;
        let source = schema::open_as_it_lies(&plan.backup)?;
        backup::copy(&source, &plan.backup, &ready)?;
        drop(source);
        let mut restored = make_ready(&folder, &ready, clock)?;
        crash::point("restore ready");
        if database.exists() {
            let aside = free_folder(&folder, &clock.now());
            restored.set_aside = Some(folder.join(&aside));
            let marker = serde_json::to_vec(&Marker { set_aside: aside }).unwrap_or_default();
            let path = folder.join(MARKER);
            durable::write(&path, &marker).map_err(StoreError::file("write", &path))?;
            crash::point("restore decided");
            finish(&folder)?;
        } else {
            put(&ready, &database, &folder)?;
        }
        lock.release_clean(&folder)?;
        Ok(restored)
    }
}

/// Whether a restore was broken off behind the step from which on it is finished.
pub(crate) fn is_begun(folder: &Path) -> bool {
    folder.join(MARKER).exists()
}

/// Goes on with a restore that was decided and broken off, and forgets one that was not. The caller
/// has the folder's lock.
pub(crate) fn finish(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(MARKER);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let ready = ready(&schema::database_path(folder));
            return if ready.exists() { remove_ready(&ready) } else { Ok(()) };
        }
        Err(error) => return Err(StoreError::file("read", &path)(error)),
    };
    let marker: Marker = serde_json::from_slice(&text)
        .map_err(|error| StoreError::file("read", &path)(io::Error::other(error)))?;
    let database = schema::database_path(folder);
    let ready = ready(&database);
    // Once the copy has the database's name, what is there must not be set aside any more.
    if ready.exists() {
        let aside = folder.join(&marker.set_aside);
        durable::create_dir(&aside).map_err(StoreError::file("make the folder", &aside))?;
        for file in [database.clone(), beside(&database, "-wal"), beside(&database, "-shm")] {
            let target = aside.join(file.file_name().unwrap_or_default());
            match fs::rename(&file, &target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::file("set aside", &file)(error));
                }
                _ => {}
            }
            crash::point("part of the old database set aside");
        }
        durable::sync_dir(&aside).map_err(StoreError::file("fsync", &aside))?;
        put(&ready, &database, folder)?;
        crash::point("restored database in place");
        tracing::info!(set_aside = %aside.display(), "a backup took the database's place");
    }
    durable::remove(&path).map_err(StoreError::file("remove", &path))
}

fn put(ready: &Path, database: &Path, folder: &Path) -> Result<(), StoreError> {
    fs::rename(ready, database).map_err(StoreError::file("put in place", ready))?;
    durable::sync_dir(folder).map_err(StoreError::file("fsync", folder))
}

fn ready(database: &Path) -> PathBuf {
    beside(database, READY)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn remove_ready(ready: &Path) -> Result<(), StoreError> {
    for file in [ready.to_owned(), beside(ready, "-wal"), beside(ready, "-shm")] {
        durable::remove(&file).map_err(StoreError::file("remove", &file))?;
    }
    Ok(())
}

/// `set-aside/2026-11-28T23-59-01Z`, with a number behind it where that is taken.
fn free_folder(folder: &Path, now: &Stamp) -> PathBuf {
    let time: String = now.rfc3339().chars().take("YYYY-MM-DDThh:mm:ss".len()).collect();
    let name = format!("{}Z", time.replace(':', "-"));
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone())
        .chain(numbered)
        .map(|name| Path::new(SET_ASIDE).join(name))
        .find(|path| !folder.join(path).exists())
        .unwrap_or_else(|| Path::new(SET_ASIDE).join(name))
}

/// Step 3: everything about the copy that can be done before it counts.
fn make_ready(folder: &Path, ready: &Path, clock: &Clock) -> Result<Restored, StoreError> {
    let failed = || damaged_or("make the copy ready", ready);
    let mut db = schema::open_and_migrate(ready)?;
    let found = orphans::of_rows(folder, &db, ready)?;
    let now = clock.now();
    let write = |db: &mut Connection| -> rusqlite::Result<(Identity, Contents)> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let identity = identity::begin_epoch(&transaction, None)?;
        orphans::without_file(&transaction, &found.missing)?;
        cursor::not_beyond(&transaction)?;
        let detail = serde_json::json!({
            "epoch": identity.epoch, "files": found.there, "from_orphans": found.from_orphans,
            "files_missing": found.missing.len(),
        });
        log::note(&transaction, &now, "restored", &detail)?;
        let contents = backup::contents(&transaction)?;
        transaction.commit()?;
        Ok((identity, contents))
    };
    let (identity, contents) = write(&mut db).map_err(failed())?;
    schema::fold_log(&db).map_err(failed())?;
    db.close().map_err(|(_, error)| StoreError::database("close the copy", ready)(error))?;
    Ok(Restored {
        identity,
        contents,
        set_aside: None,
        files: found.there,
        from_orphans: found.from_orphans,
        files_missing: found.missing.len() as u64,
    })
}

fn present(folder: &Path, backup: &Path, contents: &Contents) -> Present {
    let database = schema::database_path(folder);
    if !database.exists() {
        return Present::Nothing;
    }
    let compared = || -> Result<Present, StoreError> {
        let here = schema::open_read_only(&database)?;
        let there = schema::open_as_it_lies(backup)?;
        let failed = || damaged_or("read the database", &database);
        if schema::version(&here).map_err(failed())? == 0 {
            return Ok(Present::Nothing);
        }
        let found = backup::contents(&here).map_err(failed())?;
        let mut missing = missing(&here, &there).map_err(failed())?;
        missing.other_store = match (&found.identity, &contents.identity) {
            (Some(here), Some(there)) => here.store != there.store,
            _ => false,
        };
        Ok(Present::Store { contents: found, missing })
    };
    compared().unwrap_or_else(|error| Present::Unreadable { why: error.to_string() })
}

/// What is here and not there, by the names that things have for ever.
fn missing(here: &Connection, there: &Connection) -> rusqlite::Result<Missing> {
    let mut missing = Missing::default();
    let known = ids(there, "session")?;
    missing.sessions = ids(here, "session")?.difference(&known).count() as u64;
    let known = ids(there, "frame")?;
    let mut range: Option<(i64, i64)> = None;
    let mut frames = here.prepare("SELECT id, captured_wall_ns FROM frame")?;
    let mut rows = frames.query([])?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(1)?;
        if !known.contains(&row.get::<_, [u8; 16]>(0)?) {
            missing.frames += 1;
            let (first, last) = range.unwrap_or((at, at));
            range = Some((first.min(at), last.max(at)));
        }
    }
    let mut models = HashMap::new();
    let known: HashSet<_> = results(there, &mut models)?.into_keys().collect();
    for (result, objects) in results(here, &mut models)? {
        if !known.contains(&result) {
            missing.results += 1;
            missing.objects += objects;
        }
    }
    missing.first = range.map(|(first, _)| rfc3339(first));
    missing.last = range.map(|(_, last)| rfc3339(last));
    Ok(missing)
}

fn ids(db: &Connection, table: &str) -> rusqlite::Result<HashSet<[u8; 16]>> {
    db.prepare(&format!("SELECT id FROM {table}"))?.query_map([], |row| row.get(0))?.collect()
}

/// Objects of each result, by its frame and its model; models get numbers that both databases
/// share.
fn results(
    db: &Connection,
    models: &mut HashMap<[String; 4], usize>,
) -> rusqlite::Result<HashMap<([u8; 16], usize), u64>> {
    let mut numbers = HashMap::new();
    let mut statement = db.prepare("SELECT pk, name, sha256, parameters, software FROM model")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let model = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        let next = models.len();
        numbers.insert(row.get::<_, i64>(0)?, *models.entry(model).or_insert(next));
    }
    db.prepare(
        "SELECT frame.id, segmentation.model, segmentation.objects
         FROM segmentation JOIN frame ON frame.pk = segmentation.frame",
    )?
    .query_map([], |row| {
        let model = numbers.get(&row.get(1)?).copied().unwrap_or(usize::MAX);
        Ok(((row.get(0)?, model), row.get::<_, i64>(2)?.cast_unsigned()))
    })?
    .collect()
}

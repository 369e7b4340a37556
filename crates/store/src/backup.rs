//! A copy of the database, made while the daemon works, and what a copy holds.
//!
//! # Making one, in order
//!
//! 1. An empty file `<name>.tmp` is made, for its owner alone (0600), where none was.
//! 2. `VACUUM INTO` writes the database into it from one read transaction: one moment of the
//!    store, whatever the writer commits meanwhile.
//! 3. It is fsynced, then opened as any database: all pages and indexes, all references, and the
//!    counts are read ([`examine`]). Only now it may be called a backup.
//! 4. Its SHA-256 is taken. It gets its name, which nobody had; the folder is fsynced.
//! 5. The checksum is written beside it, as `sha256sum` does.
//!
//! Killed before 4, a `.tmp` is left, which is nobody's backup.
//!
//! `VACUUM INTO` and not SQLite's backup API: that API, where another process writes, begins again
//! at each commit, and under ten commits a second it never ends; in one step it copies pages, the
//! free and the damaged ones with them. `VACUUM INTO` reads each row, so damage is met here, and
//! what it writes is compact and needs no log beside it. Both keep the log from being emptied while
//! they read: it grows by what is committed in that time.
//!
//! A backup holds no frame files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
use crate::sql::identity::{self, Identity};
use crate::sql::schema::{self, damaged_or};
use reticle_base::clock::rfc3339;
use reticle_base::durable;
use reticle_base::foreign_file::{self, SMALL_BYTES};

/// What a database holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    /// Schema version.
    pub schema: u32,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    /// Sessions.
    pub sessions: u64,
    /// Frames recorded.
    pub frames: u64,
    /// Results.
    pub results: u64,
    /// Objects in them.
    pub objects: u64,
    /// When the newest result was committed, RFC 3339 in UTC.
    pub newest_commit: Option<String>,
    /// Frames that it says have a file. The files themselves are not in it.
    pub files: u64,
}

/// A backup that was made, and is good.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of it, in hex; also in the file beside it.
    pub sha256: String,
    /// What it holds.
    pub contents: Contents,
}

/// Copies the database of the store in `folder` into the new file `to`, and checks the copy. A
/// daemon may be writing it.
///
/// # Errors
/// When there is no store, the file exists, the disk is full, or what was read or written is
/// damaged; there is no backup then.
pub fn backup(folder: &Path, to: &Path) -> Result<Backup, StoreError> {
    let exists = |error: io::Error| StoreError::file("make the backup", to)(error);
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists(io::ErrorKind::AlreadyExists.into()));
    }
    let database = schema::database_path(folder);
    fs::metadata(&database).map_err(StoreError::file("find the store", &database))?;
    let draft = beside(to, durable::TEMPORARY);
    match fs::remove_file(&draft) {
        // What an earlier attempt left.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::file("remove", &draft)(error));
        }
        _ => {}
    }
    let made = schema::open_read_only(&database)
        .and_then(|source| copy(&source, &database, &draft))
        .and_then(|()| finish(&draft, to));
    if made.is_err() {
        fs::remove_file(&draft).ok();
    }
    made
}

/// Steps 1 to 3, without the look at it. `database` is where `source` is, for the errors.
pub(crate) fn copy(source: &Connection, database: &Path, draft: &Path) -> Result<(), StoreError> {
    let Some(name) = draft.to_str() else {
        let error = io::Error::new(io::ErrorKind::InvalidFilename, "its name is not UTF-8");
        return Err(StoreError::file("make the copy", draft)(error));
    };
    private(draft).map_err(StoreError::file("make the copy", draft))?;
    source.execute("VACUUM INTO ?1", [name]).map_err(damaged_or("copy the database", database))?;
    File::open(draft)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::file("fsync the backup", draft))
}

fn finish(draft: &Path, to: &Path) -> Result<Backup, StoreError> {
    let contents = examine(draft)?;
    let (bytes, sha256) = hash(draft).map_err(StoreError::file("read back the backup", draft))?;
    name(draft, to).map_err(StoreError::file("name the backup", to))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    durable::sync_dir(parent).map_err(StoreError::file("fsync", parent))?;
    let sha256 = hex::encode(sha256);
    let file = to.file_name().unwrap_or_default().to_string_lossy();
    let line = format!("{sha256}  {file}\n");
    let checksum = checksum_file(to);
    durable::write(&checksum, line.as_bytes())
        .map_err(StoreError::file("write the checksum", &checksum))?;
    Ok(Backup { path: to.to_owned(), bytes, sha256, contents })
}

/// Gives the file its name, unless somebody has it.
fn name(draft: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags};
    match rustix::fs::renameat_with(CWD, draft, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not know the flag.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => {
            fs::rename(draft, to)
        }
        other => Ok(other?),
    }
}

/// An empty file that only its owner may read, where none was.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Where the checksum of a backup is.
pub(crate) fn checksum_file(backup: &Path) -> PathBuf {
    beside(backup, ".sha256")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Reads a backup as [`examine`], after comparing it with the checksum beside it, where there is
/// one; and whether there is.
///
/// # Errors
/// When it cannot be read, is not what its checksum says, or is damaged.
pub fn check(backup: &Path) -> Result<(Contents, bool), StoreError> {
    let checksum = checksum_file(backup);
    let told = match foreign_file::read_text(&checksum, SMALL_BYTES) {
        Ok(text) => text.split_whitespace().next().map(str::to_owned),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(StoreError::file("read the checksum", &checksum)(error)),
    };
    if let Some(told) = &told {
        let (_, found) = hash(backup).map_err(StoreError::file("read the backup", backup))?;
        if *told != hex::encode(found) {
            return Err(StoreError::Damaged {
                path: backup.to_owned(),
                detail: "it is not what the checksum beside it says".to_owned(),
            });
        }
    }
    Ok((examine(backup)?, told.is_some()))
}

/// Reads a database that nobody writes to its end: its pages, indexes and references, and what it
/// holds.
///
/// # Errors
/// When it cannot be read, is damaged, is not of Reticle, or is of a newer one.
pub(crate) fn examine(path: &Path) -> Result<Contents, StoreError> {
    // Nobody writes it, and it may lie where nothing can be written: no log, no lock.
    let db = schema::open_as_it_lies(path)?;
    let damaged = |detail: String| StoreError::Damaged { path: path.to_owned(), detail };
    let failed = || damaged_or("check the backup", path);
    let fault: String =
        db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed())?;
    if fault != "ok" {
        return Err(damaged(fault));
    }
    let dangling: Option<String> = db
        .query_row("PRAGMA foreign_key_check", [], |row| row.get(0))
        .optional()
        .map_err(failed())?;
    if let Some(table) = dangling {
        return Err(damaged(format!("a row of {table} names one that is not there")));
    }
    if schema::version(&db).map_err(failed())? == 0 {
        return Err(damaged("it holds nothing of Reticle".to_owned()));
    }
    contents(&db).map_err(failed())
}

/// What a database holds.
pub(crate) fn contents(db: &Connection) -> rusqlite::Result<Contents> {
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let schema = schema::version(db)?;
    let newest: Option<i64> =
        db.query_row("SELECT max(committed_wall_ns) FROM segmentation", [], |row| row.get(0))?;
    Ok(Contents {
        schema,
        identity: Some(identity::identity(db)?),
        sessions: count("SELECT count(*) FROM session")?.cast_unsigned(),
        frames: count("SELECT count(*) FROM frame")?.cast_unsigned(),
        results: count("SELECT count(*) FROM segmentation")?.cast_unsigned(),
        objects: count("SELECT count(*) FROM object")?.cast_unsigned(),
        newest_commit: newest.map(rfc3339),
        files: count("SELECT count(*) FROM frame WHERE file IS NOT NULL")?.cast_unsigned(),
    })
}

fn hash(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = File::open(path)?;
    let (mut bytes, mut sha256, mut buffer) = (0, Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok((bytes, sha256.finalize().into()));
        };
        bytes += piece.len() as u64;
        sha256.update(piece);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::fixture::{self, Bench};

    fn bench(folder: &Path, frames: u64) -> Bench {
        let mut bench = Bench::open(&fixture::options(folder));
        for sequence in 0..frames {
            bench.take(sequence, 3);
        }
        bench
    }

    #[test]
    fn a_backup_holds_what_the_store_holds_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let bench = bench(folder.path(), 3);
        let to = folder.path().join("copy.db");
        let made = backup(folder.path(), &to).unwrap();
        assert_eq!((made.contents.frames, made.contents.results), (3, 3));
        assert!(made.contents.objects > 0 && made.contents.newest_commit.is_some());
        assert_eq!(made.contents.identity, Some(bench.reader().identity().unwrap()));
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!beside(&to, "-wal").exists() && !beside(&to, durable::TEMPORARY).exists());
        assert_eq!(check(&to).unwrap(), (made.contents, true));
        bench.close();
    }

    #[test]
    fn a_backup_never_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        bench(folder.path(), 1).close();
        let to = folder.path().join("copy.db");
        durable::write(&to, b"somebody's").unwrap();
        let error = backup(folder.path(), &to).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
        assert_eq!(fs::read(&to).unwrap(), b"somebody's");
    }

    #[test]
    fn a_backup_that_was_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        bench(folder.path(), 2).close();
        let to = folder.path().join("copy.db");
        backup(folder.path(), &to).unwrap();
        let mut bytes = fs::read(&to).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        durable::write(&to, &bytes).unwrap();
        let error = check(&to).unwrap_err().to_string();
        assert!(error.contains("checksum"), "{error}");
        fs::remove_file(checksum_file(&to)).unwrap();
        durable::write(&to, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(check(&to), Err(StoreError::Damaged { .. })));
    }
}

//! Connections and migrations.
//!
//! The schema is `sql/`, in order, frozen once released. Every update has a way back: a migration only
//! adds, and `compatibility.oldest_reader` says which programs a database still suits. So a program
//! opens a database of a newer one as long as that number is not above the schema it knows itself.
//! (`next-migration`, a cargo feature for tests, adds a further migration to show it.)
//!
//! Every connection of this program is made here, so that all have the same settings:
//! - WAL: readers never wait for the writer, nor it for them.
//! - `synchronous=FULL`: a commit returns after the fsync of the log. (NORMAL would lose the
//!   last commits in a power cut, and "saved" would be a lie.)
//! - `foreign_keys`: off in SQLite unless asked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use refinery::{Migration, Runner};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::error::StoreError;
use reticle_base::durable::{self, Access};

/// Name of the database in the data folder.
pub(crate) const DATABASE: &str = "reticle.db";

/// Marks a database file as ours ("RTCL"); `file` and we can tell it from others.
const APPLICATION_ID: i32 = 0x5254_434c;

/// How long a statement waits for a lock. Nobody else writes, so only a checkpoint of a
/// foreign tool or a backup can hold one.
const BUSY: Duration = Duration::from_secs(5);

/// Log bytes kept on disk after a checkpoint: a large burst gives its room back.
const WAL_LIMIT_BYTES: i64 = 16 << 20;

/// All migrations, oldest first. Frozen once released: mend by adding one that only adds.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__schema", concat!(include_str!("V1__schema.sql"), include_str!("V1__views.sql"))),
    #[cfg(feature = "next-migration")]
    NEXT,
];

/// What a later release may add, for the tests that show the way back from it.
#[cfg(any(test, feature = "next-migration"))]
const NEXT: (&str, &str) = ("V2__next", include_str!("V2__next.sql"));

/// Path of the database of a data folder.
pub(crate) fn database_path(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// The newest schema version that this program knows.
pub(crate) fn newest_version() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Opens the database to write, makes it where there is none, and brings it up to date.
pub(crate) fn open_and_migrate(path: &Path) -> Result<Connection, StoreError> {
    let is_new = !path.exists();
    if is_new {
        // SQLite would make it for everybody to read. Log and index take the mode from it.
        durable::create(path, Access::Owner).map_err(StoreError::file("make", path))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(damaged_or("open the database", path))?;
    // First: what is not for this program is left as it is.
    connection.busy_timeout(BUSY).map_err(damaged_or("open the database", path))?;
    if !is_new {
        check_ours(&connection, path)?;
    }
    configure_writer(&connection).map_err(damaged_or("open the database", path))?;
    migrate(&mut connection, path, MIGRATIONS)?;
    if is_new && let Some(folder) = path.parent() {
        durable::sync_dir(folder)
            .map_err(StoreError::file("make the database durable in", folder))?;
    }
    Ok(connection)
}

/// Opens the database again after an error, to write. It must be there and up to date.
pub(crate) fn reopen(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(damaged_or("open the database again", path))?;
    configure_writer(&connection).map_err(damaged_or("open the database again", path))?;
    check_ours(&connection, path)?;
    // After an fsync that failed, SQLite may find the commit in the log, in memory only, and
    // give it out as done; the kernel will not write those pages again. Copied into the
    // database they are fresh pages, and their fsync counts.
    let folded = fold_log(&connection).map_err(damaged_or("make the log durable", path))?;
    if !folded {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let error = rusqlite::Error::SqliteFailure(busy, None);
        return Err(StoreError::database("make the log durable", path)(error));
    }
    Ok(connection)
}

/// Copies the log into the database, fsyncs it and empties the log; false if a reader was in
/// the way for longer than anyone should be.
pub(crate) fn fold_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0).map(|busy| busy == 0)
    })
}

/// Opens the database to read only.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    let connection = match opened {
        // Without the right to write the folder SQLite cannot make the shared-memory index of
        // the log. With no log there is nothing in it, and the file can be read as it lies.
        Err(error) if is_unwritable(&error) && path.exists() && log_is_empty(path) => {
            let uri = format!("file:{}?immutable=1", percent_encoded(path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        other => other,
    }
    .map_err(damaged_or("read the database", path))?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(damaged_or("read the database", path))?;
    check_ours(&connection, path)?;
    Ok(connection)
}

/// Opens a database that nobody writes, as it lies: without a lock, a log or anything else beside
/// it, so that it may be where nothing can be written.
pub(crate) fn open_as_it_lies(path: &Path) -> Result<Connection, StoreError> {
    if !log_is_empty(path) {
        // A copy of a database with its log, as `cp` makes it: the newest commits are in there.
        return open_read_only(path);
    }
    std::fs::metadata(path).map_err(StoreError::file("find the backup", path))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?immutable=1", percent_encoded(path));
    let connection =
        Connection::open_with_flags(uri, flags).map_err(damaged_or("read the database", path))?;
    check_ours(&connection, path)?;
    Ok(connection)
}

/// The schema version of a database: 0 when nothing was migrated yet.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    let has_history: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history')",
        [],
        |row| row.get(0),
    )?;
    if !has_history {
        return Ok(0);
    }
    connection.query_row(
        "SELECT coalesce(max(version), 0) FROM refinery_schema_history",
        [],
        |row| row.get(0),
    )
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The oldest schema that a program must know to open a database; `None` where it does not say, as
/// those of programs before the first release.
fn oldest_reader(connection: &Connection) -> rusqlite::Result<Option<u32>> {
    let says: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'compatibility')",
        [],
        |row| row.get(0),
    )?;
    if !says {
        return Ok(None);
    }
    connection
        .query_row("SELECT oldest_reader FROM compatibility WHERE pk = 1", [], |row| row.get(0))
        .optional()
}

/// Refuses a database that is not ours, that is from before the first release, or that needs a newer
/// program.
fn check_ours(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let read = || -> rusqlite::Result<(i32, i64, u32, Option<u32>)> {
        let id = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((id, tables, version(connection)?, oldest_reader(connection)?))
    };
    let (id, tables, found, oldest_reader) =
        read().map_err(damaged_or("read the schema version", path))?;
    // An empty one is what a crash in the very first moment leaves.
    if id != APPLICATION_ID && tables > 0 && found == 0 {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            detail: "it was not made by Reticle".to_owned(),
        });
    }
    let known = newest_version();
    match oldest_reader {
        None if found > 0 => Err(StoreError::Unreleased { path: path.to_owned() }),
        Some(needed) if needed > known => {
            Err(StoreError::Newer { path: path.to_owned(), found, needed, known })
        }
        _ => Ok(()),
    }
}

fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[(&str, &str)],
) -> Result<(), StoreError> {
    let found = version(connection).map_err(damaged_or("read the schema version", path))?;
    if found as usize > migrations.len() {
        // Of a newer program, which this one may follow: `check_ours` has read so. The runner would
        // miss the migrations that it does not know.
        tracing::info!(
            database = %path.display(),
            found,
            known = migrations.len(),
            "the schema is of a newer Reticle; this one works with it"
        );
        return Ok(());
    }
    let broken = |error: refinery::Error| StoreError::Damaged {
        path: path.to_owned(),
        detail: format!("its schema cannot be brought up to date: {error}"),
    };
    connection
        .pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(damaged_or("write to the database", path))?;
    let migrations = migrations
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(broken)?;
    // Grouped: one transaction for the tables and the rows that say they are there. By itself
    // refinery commits them one after the other, and who is killed in between finds tables that
    // no history names.
    let report = Runner::new(&migrations).set_grouped(true).run(connection).map_err(|error| {
        match sqlite_cause(&error) {
            Some(code) => damaged_or("bring the schema up to date", path)(code),
            None => broken(error),
        }
    })?;
    for migration in report.applied_migrations() {
        tracing::info!(database = %path.display(), %migration, "schema brought up to date");
    }
    Ok(())
}

/// What the next release's first start does to a database.
#[cfg(test)]
pub(crate) fn bring_to_next(path: &Path) {
    let mut connection = Connection::open(path).expect("the test made it");
    configure_writer(&connection).expect("the test made it");
    let mut next = MIGRATIONS.to_vec();
    if !cfg!(feature = "next-migration") {
        next.push(NEXT);
    }
    migrate(&mut connection, path, &next).expect("it only adds");
}

/// The SQLite error inside a migration error: a full disk there is no damage.
fn sqlite_cause(error: &refinery::Error) -> Option<rusqlite::Error> {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(rusqlite::Error::SqliteFailure(code, text)) = inner.downcast_ref() {
            return Some(rusqlite::Error::SqliteFailure(*code, text.clone()));
        }
        cause = inner.source();
    }
    None
}

/// Damage is told apart from all that may pass.
pub(crate) fn damaged_or(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), detail: error.to_string() }
        }
        _ => StoreError::database(what, path)(error),
    }
}

fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure)
    )
}

fn log_is_empty(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(PathBuf::from(log)).map_or(true, |meta| meta.len() == 0)
}

/// A path as SQLite's URI form wants it.
fn percent_encoded(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(text, "%{byte:02X}").ok();
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::remedy::Remedy;

    fn schema_of(connection: &Connection) -> Vec<(String, String)> {
        connection
            .prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn each_older_schema_migrates_to_what_a_fresh_store_has() {
        let folder = tempfile::tempdir().unwrap();
        let fresh = open_and_migrate(&folder.path().join("fresh.db")).unwrap();
        for steps in 0..=MIGRATIONS.len() {
            let path = folder.path().join(format!("from-{steps}.db"));
            let mut old = Connection::open(&path).unwrap();
            configure_writer(&old).unwrap();
            migrate(&mut old, &path, &MIGRATIONS[..steps]).unwrap();
            drop(old);
            let new = open_and_migrate(&path).unwrap();
            assert_eq!(schema_of(&new), schema_of(&fresh), "from version {steps}");
            assert_eq!(version(&new).unwrap(), newest_version());
        }
    }

    #[test]
    fn a_migration_that_is_broken_off_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let mut connection = Connection::open(&path).unwrap();
        configure_writer(&connection).unwrap();
        let broken = [MIGRATIONS[0], ("V2__broken", "CREATE TABLE half (a); no such statement;")];
        migrate(&mut connection, &path, &broken).unwrap_err();
        let left: Vec<String> = schema_of(&connection).into_iter().map(|(name, _)| name).collect();
        assert!(!left.iter().any(|name| name == "boot" || name == "half"), "{left:?}");
        assert_eq!(version(&connection).unwrap(), 0);
        drop(connection);
        open_and_migrate(&path).unwrap();
    }

    #[test]
    fn a_newer_schema_is_opened_as_long_as_it_allows_this_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let mut connection = open_and_migrate(&path).unwrap();
        let mut later = MIGRATIONS.to_vec();
        later.push(("V3__later", "CREATE TABLE later (pk INTEGER PRIMARY KEY)"));
        if !cfg!(feature = "next-migration") {
            later.insert(MIGRATIONS.len(), NEXT);
        }
        migrate(&mut connection, &path, &later).unwrap();
        assert_eq!(version(&connection).unwrap(), 3);
        drop(connection);
        for connection in [open_and_migrate(&path).unwrap(), open_read_only(&path).unwrap()] {
            assert_eq!(version(&connection).unwrap(), 3, "it stays as the newer program made it");
        }
    }

    #[test]
    fn a_schema_that_needs_a_newer_program_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let connection = open_and_migrate(&path).unwrap();
        connection
            .execute(
                "INSERT INTO refinery_schema_history VALUES (99, 'future', '2031-01-01T00:00:00Z', '1')",
                [],
            )
            .unwrap();
        connection.execute("UPDATE compatibility SET oldest_reader = 98", []).unwrap();
        drop(connection);
        for error in [open_and_migrate(&path).unwrap_err(), open_read_only(&path).unwrap_err()] {
            assert!(matches!(error, StoreError::Newer { found: 99, needed: 98, .. }), "{error:?}");
            assert!(error.to_string().contains("made by a newer Reticle"), "{error}");
            assert_eq!(error.remedy(), Remedy::Stop);
        }
    }

    #[test]
    fn a_data_folder_from_before_the_first_release_is_refused_with_a_clear_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let mut old = Connection::open(&path).unwrap();
        // As those programs made it: their first table, and no word of compatibility.
        let first = ("V1__store", "CREATE TABLE boot (pk INTEGER PRIMARY KEY)");
        migrate(&mut old, &path, &[first]).unwrap();
        drop(old);
        let before = std::fs::read(&path).unwrap();
        for error in [open_and_migrate(&path).unwrap_err(), open_read_only(&path).unwrap_err()] {
            assert!(matches!(error, StoreError::Unreleased { .. }), "{error:?}");
            assert!(error.to_string().contains("choose another data folder"), "{error}");
            assert_eq!(error.remedy(), Remedy::Stop);
        }
        assert!(std::fs::read(&path).unwrap() == before, "it is left as it is");
    }

    #[test]
    fn a_database_of_another_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
        drop(other);
        let error = open_and_migrate(&path).unwrap_err();
        assert!(error.to_string().contains("not made by Reticle"), "{error}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a broken file need not last")]
    fn a_file_that_is_no_database_is_damage_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let error = open_and_migrate(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("reticle fsck"), "{error}");
    }

    #[test]
    fn a_commit_is_fsynced() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_and_migrate(&folder.path().join(DATABASE)).unwrap();
        let mode: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i32 =
            connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }
}

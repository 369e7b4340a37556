//! What each place holds, read without the program under test: SQLite by rusqlite, the bucket by
//! listing and downloading all of it, PostgreSQL by SQL.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use reticle_domain::facts::ModelFacts;
use reticle_domain::segmentation::ModelRef;
use rusqlite::{Connection, OpenFlags, Row};
use tokio::task::JoinSet;
use tokio_postgres::{Config, NoTls};
use uuid::Uuid;

use crate::agree::{Held, Place};

mod archive;
pub(crate) mod facts;
mod shard;

pub(crate) use archive::{archive, client, folder};

/// The box's own database.
pub(crate) fn store(database: &Path) -> anyhow::Result<Place> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("open {}", database.display()))?;
    let mut results = db.prepare(
        "SELECT frame.id, session.id, model.name, model.sha256, model.parameters, model.software,
                frame.sha256, segmentation.labels_sha256, segmentation.objects,
                (SELECT count(*) FROM object WHERE object.segmentation = segmentation.pk)
         FROM segmentation
         JOIN frame ON frame.pk = segmentation.frame
         JOIN session ON session.pk = frame.session
         JOIN model ON model.pk = segmentation.model
         ORDER BY segmentation.pk",
    )?;
    let results = results.query_map([], held)?.collect::<Result<_, _>>()?;
    let mut sessions = db.prepare("SELECT id FROM session")?;
    let sessions = sessions.query_map([], |row| id(row, 0))?.collect::<Result<_, _>>()?;
    let mut frames = db.prepare("SELECT id, sha256 FROM frame ORDER BY pk")?;
    let frames = frames.query_map([], |row| Ok((id(row, 0)?, digits(row, 1)?)))?;
    let frames = frames.collect::<Result<_, _>>()?;
    Ok(Place { name: "the store", results, sessions, frames })
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    let model = ModelRef {
        name: row.get(2)?,
        sha256: row.get(3)?,
        parameters: row.get(4)?,
        software: row.get(5)?,
    };
    Ok(Held {
        frame: id(row, 0)?,
        session: id(row, 1)?,
        model: ModelFacts { pk: 0, model }.key(),
        sha256: digits(row, 6)?,
        labels_sha256: digits(row, 7)?,
        objects: row.get::<_, i64>(8)?.unsigned_abs(),
        rows: row.get::<_, i64>(9)?.unsigned_abs(),
    })
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    row.get(column).map(|bytes| Uuid::from_bytes(bytes).to_string())
}

fn digits(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    row.get(column).map(|bytes: Vec<u8>| hex::encode(bytes))
}

/// The wall time that the store wrote into its newest result, in seconds since 1970.
pub(crate) fn newest_commit(database: &Path) -> rusqlite::Result<Option<i64>> {
    use rusqlite::OptionalExtension as _;
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let newest = "SELECT committed_wall_ns / 1000000000 FROM segmentation ORDER BY pk DESC LIMIT 1";
    db.query_row(newest, [], |row| row.get(0)).optional()
}

/// How many frames and results the box's database has.
pub(crate) fn recorded(database: &Path) -> rusqlite::Result<(u64, u64)> {
    let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let counts = "SELECT (SELECT count(*) FROM frame), (SELECT count(*) FROM segmentation)";
    db.query_row(counts, [], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
    })
}

/// The lab's PostgreSQL, without what only it has of the sessions of a twin that is `gone`: the
/// twin's store accounted for that, and `sync adopt` named it.
pub(crate) async fn central(
    url: &str,
    password: &str,
    gone: &BTreeSet<String>,
    store: &Place,
) -> anyhow::Result<Place> {
    let here: BTreeSet<&str> = store.frames.iter().map(|(frame, _)| frame.as_str()).collect();
    let is_gone = |frame: &str, session: &str| gone.contains(session) && !here.contains(frame);
    let mut config: Config = url.parse()?;
    let (client, connection) = config.password(password).connect(NoTls).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let rows = client
        .query(
            "SELECT frame.id::text, frame.session::text, segmentation.model,
                    encode(frame.sha256, 'hex'), encode(segmentation.labels_sha256, 'hex'),
                    segmentation.objects::bigint,
                    (SELECT count(*) FROM reticle.object
                     WHERE object.segmentation = segmentation.pk)
             FROM reticle.segmentation
             JOIN reticle.frame ON frame.id = segmentation.frame",
            &[],
        )
        .await?;
    let results = rows.iter().map(|row| Held {
        frame: row.get(0),
        session: row.get(1),
        model: row.get(2),
        sha256: row.get(3),
        labels_sha256: row.get(4),
        objects: row.get::<_, i64>(5).unsigned_abs(),
        rows: row.get::<_, i64>(6).unsigned_abs(),
    });
    let results = results.filter(|held: &Held| !is_gone(&held.frame, &held.session)).collect();
    let sessions = client.query("SELECT id::text FROM reticle.session", &[]).await?;
    let sessions = sessions.iter().map(|row| row.get(0));
    let is_here = |session: &String| !gone.contains(session) || store.sessions.contains(session);
    let sessions = sessions.filter(is_here).collect();
    let frames = "SELECT id::text, encode(sha256, 'hex'), session::text FROM reticle.frame";
    let frames = client.query(frames, &[]).await?;
    let frames = frames.iter().filter(|row| !is_gone(row.get(0), row.get(2)));
    let frames = frames.map(|row| (row.get(0), row.get(1))).collect();
    Ok(Place { name: "the database", results, sessions, frames })
}

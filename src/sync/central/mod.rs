//! Delivery into the lab's central PostgreSQL.
//!
//! Owns the schema `reticle` there (`sql/`, described for people in
//! `docs/guide/database.md`) and one connection, which is opened when it is first needed and
//! again after anything but the data went wrong. Knows nothing of what is still to be delivered,
//! when, or how often it was tried: that is the scheduler's.
//!
//! What it promises
//! 1. What [`Central::deliver`] returned `Ok` for is committed on the server, as durably as the
//!    server itself promises.
//! 2. A batch is there as a whole or not at all.
//! 3. A batch that is delivered again, in whole or in parts, any number of times and from any
//!    moment of a failure on, changes nothing.
//! 4. A server that is gone without a word is noticed within 30 s (`connect.rs`).
//! 5. A store that knows less than was delivered in its name, or has a twin, delivers nothing
//!    (`stand.rs`).
//! 6. Each failure says whether the same may work later, never will, or wants a person
//!    (`fault.rs`).

mod connect;
mod digest;
mod fault;
mod plan;
mod schema;
mod stand;
mod tls;
mod upsert;

use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel};

use self::connect::{LONG_STEP, Link, STEP, Target};
use self::fault::{Failure, within};
use super::error::SyncError;
use super::options::CentralOptions;
use super::standing::{Claimant, Memory};
use reticle_base::foreign_file::{self, SMALL_BYTES};
use reticle_base::ids::{FrameId, SessionId, StoreId};
use reticle_domain::facts::{BoxName, FrameFacts, ResultFacts, SessionFacts};
use reticle_domain::object::Object;
use reticle_exchange::standing::Standing;

pub use self::digest::SessionDigest;

/// Environment variable with the password.
pub const PASSWORD_VARIABLE: &str = "RETICLE_CENTRAL_PASSWORD";

/// Name of the systemd credential with the password, where the variable is not set.
pub const PASSWORD_CREDENTIAL: &str = "central-password";

/// What is delivered in one transaction, all of one session. Some 64 frames are a good size.
pub struct Batch {
    /// The session; its row is written with every batch.
    pub session: Arc<SessionFacts>,
    /// Frames, whether they have a result or not.
    pub frames: Vec<Arc<FrameFacts>>,
    /// Results with their objects by label from 1. Their frames are written with them.
    pub results: Vec<(ResultFacts, Vec<Object>)>,
    /// Who delivers. A store that the database knows more of is refused.
    pub claimant: Claimant,
}

/// What the central database holds of one session, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CentralCounts {
    /// Frames.
    pub frames: u64,
    /// Results.
    pub segmentations: u64,
    /// Objects.
    pub objects: u64,
}

/// The central database.
pub struct Central {
    target: Target,
    box_name: BoxName,
    link: Mutex<Option<Link>>,
    /// What this process has said of itself there.
    memory: Memory,
}

impl Central {
    /// From the settings, with the password of the environment variable
    /// [`PASSWORD_VARIABLE`] or the systemd credential [`PASSWORD_CREDENTIAL`]; without either
    /// it is for the server to let this box in. Does not connect yet. `None` where no
    /// `sync.central.url` is set.
    ///
    /// # Errors
    /// A setting that cannot be meant, by its key.
    pub fn open(options: &CentralOptions, box_name: BoxName) -> Result<Option<Self>, SyncError> {
        if options.url.is_none() {
            return Ok(None);
        }
        let password = password(
            std::env::var_os(PASSWORD_VARIABLE),
            std::env::var_os("CREDENTIALS_DIRECTORY"),
        )?;
        Self::with_password(options, box_name, password)
    }

    /// The same with a password that the caller has.
    ///
    /// # Errors
    /// As [`Central::open`].
    pub fn with_password(
        options: &CentralOptions,
        box_name: BoxName,
        password: Option<String>,
    ) -> Result<Option<Self>, SyncError> {
        let Some(url) = &options.url else { return Ok(None) };
        for (key, text) in [("box.site", &box_name.site), ("box.name", &box_name.name)] {
            if text.contains('\0') {
                return Err(SyncError::stop(key, "it holds the character U+0000"));
            }
        }
        let target = Target::new(url, options, password, &box_name)?;
        Ok(Some(Self { target, box_name, link: Mutex::new(None), memory: Memory::default() }))
    }

    /// `postgresql://host:port/database`, without user and password.
    pub fn name(&self) -> String {
        self.target.name().to_owned()
    }

    /// Writes a batch in one transaction, and returns after its commit. In the same transaction
    /// the database keeps who delivered, and the rows that were sent are counted.
    ///
    /// # Errors
    /// [`SyncError::conflict`] where the database knows more than the store that delivers.
    /// [`Remedy::GiveUp`](reticle_base::remedy::Remedy::GiveUp) where the batch holds what the database can never take: nothing
    /// of it was written, the frame is named where it is known, and smaller batches find it
    /// where it is not. Otherwise as everywhere.
    pub async fn deliver(&self, batch: &Batch) -> Result<(), SyncError> {
        let mut slot = self.link.lock().await;
        let done = match self.connected(&mut slot).await {
            Ok(link) => {
                upsert::deliver(&mut link.client, &self.box_name, &self.memory, batch).await
            }
            Err(failure) => Err(failure),
        };
        self.settle(&mut slot, done, || {
            format!(
                "deliver {} frames and {} results of session {} into {}",
                batch.frames.len(),
                batch.results.len(),
                batch.session.id,
                self.name()
            )
        })
        .await
    }

    /// What the database knows of a store: who delivered last, and how far it had come.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn standing(&self, store: StoreId) -> Result<Option<Standing>, SyncError> {
        let mut slot = self.link.lock().await;
        let done = match self.connected(&mut slot).await {
            Ok(link) => stand::find(&link.client, store).await,
            Err(failure) => Err(failure),
        };
        self.settle(&mut slot, done, || format!("read the standing of a store in {}", self.name()))
            .await
    }

    /// The sessions that the database has of a box, whichever of its stores delivered them, each
    /// with the number of its frames; oldest first.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn sessions(&self, of: &BoxName) -> Result<Vec<(SessionId, u64)>, SyncError> {
        let mut slot = self.link.lock().await;
        let done = match self.connected(&mut slot).await {
            Ok(link) => sessions(&link.client, of).await,
            Err(failure) => Err(failure),
        };
        self.settle(&mut slot, done, || format!("list the sessions of a box in {}", self.name()))
            .await
    }

    /// How many rows the database holds of a session.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn counts(&self, session: SessionId) -> Result<CentralCounts, SyncError> {
        let mut slot = self.link.lock().await;
        let done = match self.connected(&mut slot).await {
            Ok(link) => counts(&link.client, session).await,
            Err(failure) => Err(failure),
        };
        self.settle(&mut slot, done, || format!("count session {session} in {}", self.name())).await
    }

    /// What the database holds of a session, as one number; see [`SessionDigest`]. The objects of
    /// a result are those that are there, not those that its row counts.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn digest(&self, session: SessionId) -> Result<SessionDigest, SyncError> {
        let mut slot = self.link.lock().await;
        let done = match self.connected(&mut slot).await {
            Ok(link) => digest(&mut link.client, session).await,
            Err(failure) => Err(failure),
        };
        self.settle(&mut slot, done, || format!("read session {session} from {}", self.name()))
            .await
    }

    /// Connects, brings the schema up to date where this box may, and asks for the rights that a
    /// delivery needs.
    ///
    /// # Errors
    /// The first thing that a delivery would fail of.
    pub async fn check(&self) -> Result<(), SyncError> {
        let mut slot = self.link.lock().await;
        let done = match self.connected(&mut slot).await {
            Ok(link) => check(&link.client).await,
            Err(failure) => Err(failure),
        };
        self.settle(&mut slot, done, || format!("check {}", self.name())).await
    }

    /// As [`Central::check`], on a connection of its own, and without changing the schema: whether
    /// it is there and up to date. Where it is not, the first delivery makes it.
    ///
    /// # Errors
    /// What keeps a delivery from being made, as far as it can be known without changing anything.
    pub async fn probe(&self) -> Result<bool, SyncError> {
        let what = || format!("check {}", self.name());
        let link = self.target.connect().await.map_err(|failure| failure.into_sync(what()))?;
        let asked = async {
            let is_ready = schema::is_ready(&link.client).await?;
            if is_ready {
                check(&link.client).await?;
            }
            Ok(is_ready)
        };
        let answer = asked.await.map_err(|failure: Failure| failure.into_sync(what()));
        link.close().await;
        answer
    }

    /// Logs out. What comes next connects again.
    pub async fn close(&self) {
        if let Some(link) = self.link.lock().await.take() {
            link.close().await;
        }
    }

    /// The connection, opened where there is none or where it has ended since it was last used.
    async fn connected<'a>(&self, slot: &'a mut Option<Link>) -> Result<&'a mut Link, Failure> {
        if slot.as_ref().is_some_and(Link::is_closed) {
            *slot = None;
        }
        let link = match slot.take() {
            Some(link) => link,
            None => {
                let mut link = self.target.connect().await?;
                schema::ready(&mut link.client).await?;
                upsert::stage(&link.client).await?;
                tracing::debug!(database = self.target.name(), "connected");
                link
            }
        };
        Ok(slot.insert(link))
    }

    /// Turns a failure into what the caller is told, and lets go of a connection that must not
    /// be used again.
    async fn settle<T>(
        &self,
        slot: &mut Option<Link>,
        done: Result<T, Failure>,
        what: impl FnOnce() -> String,
    ) -> Result<T, SyncError> {
        let mut failure = match done {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        if !failure.spares_the_connection()
            && let Some(link) = slot.take()
        {
            let ended = link.close().await;
            // "Closed" is all that a step hears when the server said good-bye and why.
            if let Some(error) = ended.filter(|_| failure.is_closed()) {
                failure = Failure::of("the connection ended", &error);
            }
        }
        Err(failure.into_sync(what()))
    }
}

async fn sessions(client: &Client, of: &BoxName) -> Result<Vec<(SessionId, u64)>, Failure> {
    let of: [&(dyn ToSql + Sync); 2] = [&of.site, &of.name];
    let ask = client.query(
        "SELECT session.id, count(frame.id)
         FROM reticle.session LEFT JOIN reticle.frame ON frame.session = session.id
         WHERE site = $1 AND box = $2 GROUP BY session.id ORDER BY session.id",
        &of,
    );
    let rows = within(LONG_STEP, "list the sessions", ask).await?;
    let session = |row: &tokio_postgres::Row| {
        let id = row.get::<_, uuid::Uuid>(0).into_bytes();
        (SessionId::from_bytes(id), row.get::<_, i64>(1).unsigned_abs())
    };
    Ok(rows.iter().map(session).collect())
}

async fn counts(client: &Client, session: SessionId) -> Result<CentralCounts, Failure> {
    let session = plan::uuid(session.as_bytes());
    let row = within(
        LONG_STEP,
        "count",
        client.query_one(
            "SELECT (SELECT count(*) FROM reticle.frame WHERE session = $1),
                (SELECT count(*) FROM reticle.frame
                 JOIN reticle.segmentation ON segmentation.frame = frame.id
                 WHERE session = $1),
                (SELECT count(*) FROM reticle.frame
                 JOIN reticle.segmentation ON segmentation.frame = frame.id
                 JOIN reticle.object ON object.segmentation = segmentation.pk
                 WHERE session = $1)",
            &[&session],
        ),
    )
    .await?;
    let count = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
    Ok(CentralCounts { frames: count(0), segmentations: count(1), objects: count(2) })
}

async fn digest(client: &mut Client, session: SessionId) -> Result<SessionDigest, Failure> {
    let session = plan::uuid(session.as_bytes());
    let mut digest = SessionDigest::default();
    // One moment for both questions.
    let begin = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start();
    let transaction = within(STEP, "begin", begin).await?;
    let ask =
        transaction.query_raw("SELECT id, sha256 FROM reticle.frame WHERE session = $1", [session]);
    let mut frames = pin!(within(LONG_STEP, "read the frames", ask).await?);
    while let Some(row) = within(LONG_STEP, "read the frames", frames.try_next()).await? {
        digest.frame(frame_id(row.get(0)), &hash(row.get(1))?);
    }
    let ask = transaction.query_raw(
        "SELECT segmentation.frame, model, labels_sha256,
                (SELECT count(*) FROM reticle.object WHERE object.segmentation = segmentation.pk)
         FROM reticle.frame
         JOIN reticle.segmentation ON segmentation.frame = frame.id
         WHERE session = $1",
        [session],
    );
    let mut results = pin!(within(LONG_STEP, "read the results", ask).await?);
    while let Some(row) = within(LONG_STEP, "read the results", results.try_next()).await? {
        let objects = u64::try_from(row.get::<_, i64>(3)).unwrap_or_default();
        digest.result(frame_id(row.get(0)), row.get(1), &hash(row.get(2))?, objects);
    }
    within(STEP, "end", transaction.commit()).await?;
    Ok(digest)
}

fn frame_id(id: uuid::Uuid) -> FrameId {
    FrameId::from_bytes(id.into_bytes())
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], Failure> {
    bytes.try_into().map_err(|_error| Failure::stop("a hash there has not 32 bytes"))
}

async fn check(client: &Client) -> Result<(), Failure> {
    let missing = schema::missing_rights(client).await?;
    if !missing.is_empty() {
        return Err(Failure::stop(format!(
            "the role has not the rights {}: grant them, see \"Rights\" in docs/guide/database.md",
            missing.join(", ")
        )));
    }
    let asking = client.query_one("SELECT current_setting('transaction_read_only')", &[]);
    let read_only: String = within(STEP, "ask for writes", asking).await?.get(0);
    if read_only == "on" {
        return Err(Failure::retry(
            "the server takes no writes (a standby, or default_transaction_read_only is on)",
        ));
    }
    Ok(())
}

/// The password of the variable, else of the credential; `None` where there is neither.
fn password(
    variable: Option<OsString>,
    credentials: Option<OsString>,
) -> Result<Option<String>, SyncError> {
    if let Some(password) = variable.filter(|password| !password.is_empty()) {
        return password
            .into_string()
            .map(Some)
            .map_err(|_password| SyncError::stop(PASSWORD_VARIABLE, "it is not UTF-8"));
    }
    let Some(folder) = credentials else { return Ok(None) };
    let file = Path::new(&folder).join(PASSWORD_CREDENTIAL);
    match foreign_file::read_text(&file, SMALL_BYTES) {
        // An editor ends the line; a password does not.
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SyncError::stop(
            format!("read the password of sync.central from {}", file.display()),
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
    fn the_variable_goes_before_the_credential() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = || Some(folder.path().as_os_str().to_owned());
        assert_eq!(password(None, None).unwrap(), None);
        assert_eq!(password(None, credentials()).unwrap(), None, "no such credential");
        std::fs::write(folder.path().join(PASSWORD_CREDENTIAL), "from a file\n").unwrap();
        assert_eq!(password(None, credentials()).unwrap().as_deref(), Some("from a file"));
        assert_eq!(
            password(Some("".into()), credentials()).unwrap().as_deref(),
            Some("from a file")
        );
        assert_eq!(password(Some("said".into()), credentials()).unwrap().as_deref(), Some("said"));
    }

    #[test]
    fn without_a_url_there_is_no_central_database() {
        let box_name = BoxName { site: "lab".to_owned(), name: "box-1".to_owned() };
        assert!(Central::open(&CentralOptions::default(), box_name).unwrap().is_none());
    }
}

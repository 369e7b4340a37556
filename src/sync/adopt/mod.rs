//! `reticle sync adopt`: what the archive knows and the box forgot is read back into the store.
//!
//! Manifests say which sessions there are; the objects themselves say what is in them. Each is
//! read to its end, and what can be compared is: pixels with the hash in the table of frames,
//! labels with the hash in the table of results and with the areas in the table of objects.
//! What the archive does not have is named ([`Adopted::missing`]), also where the central database
//! has rows of it; nothing is made up.
//!
//! # In order
//!
//! 1. Of a box whose database is gone, the empty store takes the name.
//! 2. Session by session, part by part: what was read becomes rows, in one transaction each, with
//!    the receipts of the objects that it was read from ([`reticle_store`], `adopt.rs`). A part
//!    whose objects are the ones that the store has receipts for is passed over.
//! 3. Frame files that were orphans find their rows.
//! 4. A new epoch begins, with marks above those that the destinations know.
//! 5. The store's document in the archive is written: this epoch, this mark, no dispute. From here
//!    on deliveries are taken again.
//!
//! Killed at any moment, the same again goes on; done again after its end, it changes nothing.
//!
//! A store that is to live beside its original ([`Whose::New`]) gets another name instead, and
//! leaves the sessions that the archive has to the original.

mod part;
mod session;

use reticle_base::remedy::Remedy;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::archive::Archiving;
use super::central::Central;
use super::destinations::Destinations;
use super::engine;
use super::error::SyncError;
use reticle_base::clock::Clock;
use reticle_base::ids::{SessionId, StoreId};
use reticle_domain::facts::BoxName;
use reticle_exchange::layout;
use reticle_exchange::manifest::{self, Manifest};
use reticle_exchange::standing::{self, Standing};
use reticle_object_storage::{Copied, ObjectStorage};
use reticle_store::{
    Adoption, Destination, Identity, PartTaken, Reader, Store, StoreError, Stream,
};

const WHAT: &str = "read back from the archive";

/// Folder in the data folder for what is being read.
const SPOOL: &str = "spool";

/// Bytes of a document that is read into memory at most: a manifest has some 300 a part.
const LONGEST_DOCUMENT: u64 = 256 << 20;

/// Whose sessions are read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of the store in the data folder.
    Same,
    /// Those of a store whose database is gone; the data folder is empty.
    Store(StoreId),
    /// The same, of the one store that delivered under this box's name.
    Box,
    /// None: this store is a copy of another one and gets a name of its own.
    New,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose sessions.
    pub whose: Whose,
    /// The box under whose name they were delivered.
    pub box_name: BoxName,
}

/// Something that did not come back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Lacking {
    /// Of which session.
    pub session: SessionId,
    /// What, and why.
    pub what: String,
}

/// What was read back.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Adopted {
    /// Who the store is now.
    #[serde(flatten)]
    pub identity: Identity,
    /// Which archive was read.
    pub place: String,
    /// Sessions that the archive has of this box.
    pub sessions: u64,
    /// Of those, the ones that were not here.
    pub new_sessions: u64,
    /// What was not here and is now.
    pub taken: PartTaken,
    /// Frames that found their file in `orphans/`.
    pub files: u64,
    /// What the archive does not have.
    pub missing: Vec<Lacking>,
    /// Sessions that another store went on with: nothing of them is delivered until somebody has
    /// decided.
    pub conflicts: Vec<Lacking>,
    /// Sessions that are left to the store that they are of.
    pub left: u64,
    /// Whether anything changed, here or in the archive.
    pub changed: bool,
}

/// Reads back what is asked, and closes the store. `tell` is told how many of how many sessions
/// are done.
///
/// # Errors
/// When no archive is configured, it cannot be read, or the store cannot be written. What was read
/// until then stays.
pub fn adopt(
    destinations: &Destinations,
    mut store: Store,
    request: &Request,
    clock: &Clock,
    tell: impl FnMut(u64, u64),
) -> Result<Adopted, SyncError> {
    let archive = destinations.archive.clone().ok_or_else(|| {
        SyncError::stop(WHAT, "no archive is configured; say in sync.archive.to where it is")
    })?;
    let runtime = engine::runtime().map_err(|error| SyncError::retry(WHAT, error))?;
    store.deliver_to(destinations.deliveries()).map_err(failed)?;
    let reader = store.reader();
    let mut adopting = Adopting {
        archive,
        central: destinations.central.as_deref(),
        data_folder: destinations.data_folder.clone(),
        spool: destinations.data_folder.join(SPOOL),
        box_name: request.box_name.clone(),
        reader,
        store,
        clock: clock.clone(),
    };
    let adopted = runtime.block_on(adopting.run(&request.whose, tell));
    Archiving::clean_spool(&adopting.data_folder);
    adopting.store.close();
    adopted
}

/// What is needed on the way.
struct Adopting<'a> {
    archive: ObjectStorage,
    central: Option<&'a Central>,
    data_folder: PathBuf,
    spool: PathBuf,
    box_name: BoxName,
    reader: Reader,
    store: Store,
    clock: Clock,
}

impl Adopting<'_> {
    async fn run(
        &mut self,
        whose: &Whose,
        mut tell: impl FnMut(u64, u64),
    ) -> Result<Adopted, SyncError> {
        Archiving::clean_spool(&self.data_folder);
        std::fs::create_dir_all(&self.spool).map_err(|error| {
            SyncError::retry(format!("make the folder {}", self.spool.display()), error)
        })?;
        let standings = self.standings().await?;
        if *whose == Whose::New {
            return self.live_beside().await;
        }
        let mut missing = Vec::new();
        let mut manifests = self.manifests(&mut missing).await?;
        self.take_name(whose, &standings, &manifests)?;
        let archived: BTreeSet<SessionId> =
            manifests.iter().map(|manifest| manifest.session.id).collect();
        let identity = self.reader.identity().map_err(failed)?;
        manifests.retain(|manifest| manifest.store.is_none_or(|store| store == identity.store));
        if manifests.is_empty() && matches!(whose, Whose::Store(_) | Whose::Box) {
            return Err(self.found_nothing(&missing));
        }
        let told = self.reader.publish_cursors().map_err(failed)?;
        let published_all =
            told.iter().all(|told| told.stream != Stream::Results || told.waiting == 0);
        let mut adopted = Adopted { missing, ..self.nothing_yet(identity) };
        for (done, manifest) in manifests.iter().enumerate() {
            tell(done as u64, manifests.len() as u64);
            self.take_session(manifest, &mut adopted).await?;
        }
        adopted.sessions = manifests.len() as u64;
        adopted.files = self.store.take_back_orphans().map_err(failed)?;
        let standing = standings.get(&identity.store);
        let central = match self.central {
            Some(central) => {
                let only_there = self.only_in_central(central, &archived).await;
                adopted.missing.extend(reached(only_there)?.unwrap_or_default());
                let standing = reached(central.standing(identity.store).await)?.flatten();
                central.close().await;
                standing
            }
            None => None,
        };
        let mut is_behind = false;
        for (destination, standing) in
            [(Destination::Archive, standing), (Destination::Central, central.as_ref())]
        {
            let mark = self.reader.mark(destination).map_err(failed)?;
            is_behind |= standing.is_some_and(|standing| {
                standing.high_water > mark
                    || (standing.disputed.is_some() && standing.epoch == identity.epoch)
            });
        }
        let deliveries = self.reader.deliveries().map_err(failed)?;
        is_behind |= deliveries.iter().any(|delivery| delivery.conflict.is_some());
        let took = !adopted.taken.is_nothing() || adopted.files > 0 || adopted.new_sessions > 0;
        adopted.changed |= took || is_behind;
        if adopted.changed {
            let adoption = Adoption {
                store: None,
                archive_mark: standing.map_or(0, |standing| standing.high_water),
                central_mark: central.map_or(0, |standing| standing.high_water),
                published_all,
            };
            let (identity, mark, _) = self.store.finish_adoption(&adoption).map_err(failed)?;
            adopted.identity = identity;
            self.stand(identity, mark).await?;
        }
        Ok(adopted)
    }

    fn nothing_yet(&self, identity: Identity) -> Adopted {
        Adopted {
            identity,
            place: self.archive.name(),
            sessions: 0,
            new_sessions: 0,
            taken: PartTaken::default(),
            files: 0,
            missing: Vec::new(),
            conflicts: Vec::new(),
            left: 0,
            changed: false,
        }
    }

    /// Somebody wants a box back, and there is nothing of it.
    fn found_nothing(&self, missing: &[Lacking]) -> SyncError {
        let BoxName { site, name } = &self.box_name;
        let mut why = format!(
            "{} has no session of {site}/{name}; is that the archive, and the name under which the box \
             delivered? Another one is said with --box SITE/NAME",
            self.archive.name()
        );
        for Lacking { session, what } in missing {
            why.push_str(&format!("; session {session}: {what}"));
        }
        SyncError::stop(WHAT, why)
    }

    /// Step 1.
    fn take_name(
        &mut self,
        whose: &Whose,
        standings: &BTreeMap<StoreId, Standing>,
        manifests: &[Manifest],
    ) -> Result<(), SyncError> {
        let identity = self.reader.identity().map_err(failed)?;
        let wanted = match whose {
            Whose::Same | Whose::New => return Ok(()),
            Whose::Store(store) => *store,
            Whose::Box => {
                let name = format!("{}/{}", self.box_name.site, self.box_name.name);
                let standing = standings.values().filter(|standing| standing.box_name == name);
                let of_box: BTreeSet<StoreId> = standing
                    .map(|standing| standing.store)
                    .chain(manifests.iter().filter_map(|manifest| manifest.store))
                    .collect();
                let of_box = Vec::from_iter(of_box);
                match of_box.as_slice() {
                    // An archive of a version that did not say so.
                    [] => return Ok(()),
                    [only] => *only,
                    several if several.contains(&identity.store) => return Ok(()),
                    several => {
                        let several: Vec<String> =
                            several.iter().map(ToString::to_string).collect();
                        return Err(SyncError::stop(
                            WHAT,
                            format!(
                                "several stores delivered as {name}: {}; say which with --store",
                                several.join(", ")
                            ),
                        ));
                    }
                }
            }
        };
        if identity.store == wanted {
            return Ok(());
        }
        if !self.reader.sessions().map_err(failed)?.is_empty() {
            return Err(SyncError::stop(
                WHAT,
                format!(
                    "the data folder holds the store {} with sessions of its own; read back the \
                     store {wanted} into an empty data folder (--data)",
                    identity.store
                ),
            ));
        }
        self.store.become_store(wanted).map_err(failed)
    }

    /// What stores say of themselves, by store.
    async fn standings(&self) -> Result<BTreeMap<StoreId, Standing>, SyncError> {
        let mut keys = Vec::new();
        self.archive.list(layout::STANDINGS, &mut |listed| keys.push(listed.key)).await?;
        let mut standings = BTreeMap::new();
        for key in keys {
            let Some(text) = self.document(&key).await? else { continue };
            match serde_json::from_slice::<Standing>(&text) {
                Ok(standing) => {
                    standings.insert(standing.store, standing);
                }
                Err(error) => tracing::warn!(key, %error, "a store's document cannot be read"),
            }
        }
        Ok(standings)
    }

    /// The manifests of this box's sessions, oldest session first.
    async fn manifests(&self, missing: &mut Vec<Lacking>) -> Result<Vec<Manifest>, SyncError> {
        let (with, without) = self.sessions_there().await?;
        let mut manifests = Vec::new();
        let mut lacking = |session, what: String| {
            missing.push(Lacking { session, what });
        };
        for session in with {
            let key = layout::manifest(session);
            let Some(text) = self.document(&key).await? else { continue };
            match serde_json::from_slice::<Manifest>(&text) {
                Ok(manifest) if manifest.format > manifest::FORMAT => lacking(
                    session,
                    format!("{key} is of a newer Reticle (format {})", manifest.format),
                ),
                Ok(manifest) => {
                    let is_ours = manifest.box_name == self.box_name.name
                        && manifest.site == self.box_name.site;
                    if is_ours && manifest.session.id == session {
                        manifests.push(manifest);
                    }
                }
                Err(error) => lacking(session, format!("{key} cannot be read: {error}")),
            }
        }
        for session in without {
            // Of a session that this store knows, the manifest is yet to be delivered.
            if self.reader.session_facts(session).map_err(failed)?.is_some() {
                continue;
            }
            lacking(
                session,
                "the archive has objects of it and no manifest, so nothing says what it is".into(),
            );
        }
        Ok(manifests)
    }

    /// Sessions that the archive has with a manifest, and without one.
    async fn sessions_there(
        &self,
    ) -> Result<(BTreeSet<SessionId>, BTreeSet<SessionId>), SyncError> {
        let (mut with, mut all) = (BTreeSet::new(), BTreeSet::new());
        self.archive
            .list(layout::SESSIONS, &mut |listed| {
                with.extend(layout::session_of_manifest(&listed.key));
                let folder = listed.key.strip_prefix(layout::SESSIONS);
                let folder = folder.and_then(|rest| rest.split_once('/'));
                all.extend(folder.and_then(|(session, _)| session.parse::<SessionId>().ok()));
            })
            .await?;
        let without = all.difference(&with).copied().collect();
        Ok((with, without))
    }

    /// A small object; `None` where there is none.
    async fn document(&self, key: &str) -> Result<Option<Vec<u8>>, SyncError> {
        let file = self.spool.join("document");
        let Some(Copied { found, .. }) = self.archive.fetch(key, &file).await? else {
            return Ok(None);
        };
        if found.bytes > LONGEST_DOCUMENT {
            return Err(SyncError::give_up(
                format!("read {key}"),
                format!("it has {} bytes; {LONGEST_DOCUMENT} are the most", found.bytes),
            ));
        }
        let text = std::fs::read(&file).map_err(|error| SyncError::retry(WHAT, error))?;
        std::fs::remove_file(&file).ok();
        Ok(Some(text))
    }

    /// Step 5.
    async fn stand(&self, identity: Identity, high_water: i64) -> Result<(), SyncError> {
        let standing = Standing {
            version: standing::VERSION,
            store: identity.store,
            epoch: identity.epoch,
            box_name: format!("{}/{}", self.box_name.site, self.box_name.name),
            writer: format!("reticle sync adopt, epoch {}", identity.epoch),
            high_water,
            written: self.clock.now().rfc3339(),
            disputed: None,
        };
        self.archive.put_bytes(&layout::standing(identity.store), standing.to_json()).await?;
        Ok(())
    }

    /// What the central database has of this box and neither the archive nor this store: a twin
    /// delivered it there and nowhere else. Masks are only in the archive, so it cannot come back;
    /// its rows are a measurement that was made, so they stay, and whoever counts is told.
    async fn only_in_central(
        &self,
        central: &Central,
        archived: &BTreeSet<SessionId>,
    ) -> Result<Vec<Lacking>, SyncError> {
        let mut only_there = Vec::new();
        for (session, frames_there) in central.sessions(&self.box_name).await? {
            let here = self.reader.session_facts(session).map_err(failed)?;
            // One that the archive has and this store has not is another store's.
            if here.is_none() && archived.contains(&session) {
                continue;
            }
            let frames_here = here.as_ref().map_or(0, |facts| facts.frames);
            if here.is_some() && frames_there <= frames_here {
                continue;
            }
            let what = format!(
                "{} has {frames_there} frames of it, this store has {frames_here}, and the archive \
                 has no more: a copy of this box's database delivered them there and nowhere \
                 else. They are left as they are",
                central.name()
            );
            tracing::warn!(%session, what, "the central database knows more than the archive");
            only_there.push(Lacking { session, what });
        }
        Ok(only_there)
    }

    /// A copy gets a name of its own, and leaves the original what is the original's.
    async fn live_beside(&mut self) -> Result<Adopted, SyncError> {
        let original = self.reader.identity().map_err(failed)?.store;
        let (with, without) = self.sessions_there().await?;
        let there: Vec<SessionId> = with.union(&without).copied().collect();
        let left = self.store.leave_to(original, &there).map_err(failed)?;
        let adoption = Adoption {
            store: Some(StoreId::new()),
            archive_mark: 0,
            central_mark: 0,
            published_all: false,
        };
        let (identity, ..) = self.store.finish_adoption(&adoption).map_err(failed)?;
        Ok(Adopted { left, changed: true, ..self.nothing_yet(identity) })
    }
}

/// What the central database says. One that does not answer holds nobody up: the first delivery
/// finds what it knows.
fn reached<T>(answer: Result<T, SyncError>) -> Result<Option<T>, SyncError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.remedy == Remedy::Retry => {
            tracing::warn!(%error, "the central database does not say what it has of this box");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn failed(error: StoreError) -> SyncError {
    SyncError::retry(WHAT, error)
}

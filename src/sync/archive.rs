//! Deliveries into the archive: one part of a series at a time, and what describes a session.
//!
//! A part is built from the store into files in the folder `spool`, each frame after the other,
//! so that memory does not grow with the part. The same part gives the same bytes, so an upload
//! that was broken off goes on after a restart, and a replay overwrites an object with itself.
//!
//! Order: that this store is the one to deliver here ([`super::standing`]), and what is there
//! already ([`super::there`]); then objects of parts ([`super::parts`]), then the documents that
//! describe them, the manifest last ([`super::describe`]). So the manifest never names what is
//! not there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::built::Built;
use super::error::SyncError;
use super::outbox::{NoAnswer, Outbox};
use super::parts::{Building, Part, Subject};
use super::standing::{Claimant, Memory, Writer};
use super::there::{Fetched, There};
use super::undelivered::{Undelivered, closing, gone};
use reticle_base::durable;
use reticle_base::ids::EpochId;
use reticle_domain::facts::{BoxName, SessionFacts};
use reticle_exchange::layout;
use reticle_exchange::standing::Standing;
use reticle_object_storage::{ObjectReceipt, ObjectStorage, UploadState};
use reticle_store::{Answer, Ask, Destination, Item, PartRef, Reader, Receipt, Report};

/// Bytes that a [`Standing`] never has.
const MOST_STANDING: u64 = 1 << 16;

/// Folder in the data folder for what is being sent.
const SPOOL: &str = "spool";

/// What delivers into one archive.
#[derive(Clone)]
pub(super) struct Archiving {
    pub(super) archive: ObjectStorage,
    pub(super) reader: Reader,
    pub(super) outbox: Outbox,
    pub(super) box_name: BoxName,
    pub(super) data_folder: PathBuf,
    pub(super) writer: Writer,
    /// What this process has said of itself here.
    pub(super) memory: Arc<Memory>,
    /// The epoch in which it found a conflict here.
    pub(super) disputed: Arc<Mutex<Option<EpochId>>>,
}

impl Archiving {
    /// Makes one delivery, if this store is the one to make it.
    pub(super) async fn deliver(&self, item: &Item) -> Result<Report, Undelivered> {
        let made = self.make(item).await;
        if matches!(&made, Err(Undelivered::Whole(error)) if error.is_conflict()) {
            *self.disputed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.keep_dispute(item).await;
        }
        made
    }

    /// Notes the dispute, again where the other one has written over it meanwhile.
    pub(super) async fn keep_dispute(&self, item: &Item) {
        if let Err(error) = self.dispute(item).await {
            tracing::debug!(?error, "the dispute cannot be noted in the archive");
        }
    }

    async fn make(&self, item: &Item) -> Result<Report, Undelivered> {
        let session = self.session(item).await?;
        let Some(part) = item.part else {
            self.stand(item).await?;
            return self.describe(item, session).await;
        };
        let subject = self.subject(session, part).await?;
        let keys = subject.keys(item.kind, &self.box_name.name);
        // What the archive is asked and what is built here do not wait for each other.
        let building = self.build(item, &subject, Vec::new());
        let (stood, there, built) = tokio::join!(self.stand(item), self.look(&keys), building);
        stood?;
        let (there, mut built) = (there?, built?);
        let copies = self.copies(item, &there, &built).await?;
        if !copies.is_empty() {
            let read: Vec<PathBuf> = copies.iter().map(|copy| copy.path.clone()).collect();
            let rebuilt = self.build(item, &subject, copies).await;
            for copy in read {
                std::fs::remove_file(copy).ok();
            }
            built = rebuilt?;
        }
        let mut receipts = Vec::with_capacity(built.objects.len());
        for object in &built.objects {
            let receipt = self.send(item, object).await?;
            receipts.push(self.receipt(receipt, object.rows));
        }
        for object in &built.objects {
            // Made again when it is wanted again; what stays is removed at the next start.
            std::fs::remove_file(&object.path).ok();
        }
        Ok(Report::Done { item: item.pk, upto: built.upto, rows: built.rows, receipts })
    }

    /// Removes what an earlier process left in the spool.
    pub(super) fn clean_spool(data_folder: &Path) {
        if let Err(error) = std::fs::remove_dir_all(data_folder.join(SPOOL))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the spool of an earlier run cannot be removed");
        }
    }

    /// The item's session, with the day under which it is archived for ever.
    async fn session(&self, item: &Item) -> Result<SessionFacts, Undelivered> {
        let (reader, id) = (self.reader.clone(), item.session);
        let session = blocking(move || reader.session_facts(id).map_err(Undelivered::from)).await?;
        let mut session = session.ok_or_else(|| gone("its session"))?;
        let date = session.archive_date.clone();
        let asked = self.outbox.ask(Ask::ArchiveDate { session: id, date }).await;
        match asked {
            Ok(Answer::ArchiveDate(date)) => session.archive_date = date,
            Ok(_) => {}
            Err(NoAnswer::Store(error)) => return Err(error.into()),
            Err(NoAnswer::Closed) => return Err(closing()),
        }
        Ok(session)
    }

    async fn send(&self, item: &Item, object: &Built) -> Result<ObjectReceipt, Undelivered> {
        let begun: HashMap<String, UploadState> = item
            .progress
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let resume = begun.get(&object.key).cloned();
        let (outbox, pk, key) = (self.outbox.clone(), item.pk, object.key.clone());
        let mut on_state = move |state: Option<&UploadState>| {
            let progress =
                state.and_then(|state| serde_json::to_string(&HashMap::from([(&key, state)])).ok());
            outbox.tell(Ask::Report(Report::Progress { item: pk, progress }));
        };
        let sent = self
            .archive
            .put_file(&object.key, &object.path, object.written.sha256, resume, &mut on_state)
            .await?;
        Ok(sent)
    }

    pub(super) fn receipt(&self, receipt: ObjectReceipt, rows: u64) -> Receipt {
        let ObjectReceipt { key, etag, bytes, sha256, checksum } = receipt;
        Receipt { place: self.archive.name(), key, bytes, sha256, etag, checksum, rows }
    }

    /// Reads what a part is of, and makes the spool.
    async fn subject(&self, session: SessionFacts, part: PartRef) -> Result<Subject, Undelivered> {
        let this = self.clone();
        blocking(move || {
            let series = this
                .reader
                .series(session.id)?
                .into_iter()
                .find(|series| series.pk == part.series)
                .ok_or_else(|| gone("its series"))?;
            let model = match part.model {
                Some(pk) => Some(this.reader.model(pk)?.ok_or_else(|| gone("its model"))?),
                None => None,
            };
            let spool = this.data_folder.join(SPOOL);
            durable::create_dir_private(&spool, &spool).map_err(|error| {
                SyncError::retry(format!("make the folder {}", spool.display()), error)
            })?;
            Ok(Subject { session, series, part: part.part, model })
        })
        .await
    }

    fn spooled(&self, item: &Item, what: &str) -> PathBuf {
        self.data_folder.join(SPOOL).join(format!("{}-{what}", item.pk))
    }

    /// The part in files of the spool; with what is there where that must be read.
    async fn build(
        &self,
        item: &Item,
        subject: &Subject,
        copies: Vec<Fetched>,
    ) -> Result<Part, Undelivered> {
        let (this, item, subject) = (self.clone(), item.clone(), subject.clone());
        blocking(move || {
            let building = Building {
                reader: &this.reader,
                box_name: &this.box_name,
                item: &item,
                subject: &subject,
                copies: &copies,
                spooled: &|name| this.spooled(&item, name),
            };
            building.build()
        })
        .await
    }

    /// What is under these keys, and what this store knows of it.
    async fn look(&self, keys: &[String]) -> Result<Vec<There>, Undelivered> {
        futures_util::future::try_join_all(keys.iter().map(|key| self.there(key))).await
    }

    pub(super) async fn there(&self, key: &str) -> Result<There, Undelivered> {
        let (reader, owned) = (self.reader.clone(), key.to_owned());
        let receipt = blocking(move || Ok(reader.receipt(Destination::Archive, &owned)?)).await?;
        Ok(There { stat: self.archive.stat(key).await?, receipt })
    }

    /// Copies of those objects that must be read before they are replaced.
    async fn copies(
        &self,
        item: &Item,
        there: &[There],
        part: &Part,
    ) -> Result<Vec<Fetched>, Undelivered> {
        let mut copies = Vec::new();
        for (number, (there, built)) in there.iter().zip(&part.objects).enumerate() {
            if !there.must_be_read(built) {
                continue;
            }
            let path = self.spooled(item, &format!("there-{number}"));
            // Gone between two questions: then nothing is there.
            if let Some(copied) = self.archive.fetch(&built.key, &path).await? {
                copies.push(Fetched {
                    key: built.key.clone(),
                    path,
                    receipted_rows: there.receipt.as_ref().map(|receipt| receipt.rows),
                    as_receipted: there.is_as_receipted(),
                    is_vouched_for: copied.is_vouched_for,
                });
            }
        }
        Ok(copies)
    }

    /// Makes sure that this store is the one to deliver here, and says so here.
    async fn stand(&self, item: &Item) -> Result<(), Undelivered> {
        let claimant = self.claimant(item).await?;
        let key = layout::standing(claimant.identity.store);
        let found = self.standing(&key).await?;
        if let Some(why) = self.memory.conflict(found.as_ref(), &claimant) {
            let what = format!("deliver into {}", self.archive.name());
            let high_water = found.map_or(0, |found| found.high_water);
            return Err(SyncError::conflict(what, why, high_water).into());
        }
        self.memory.writes(&claimant, found.as_ref());
        self.archive.put_note(&key, claimant.standing().to_json()).await?;
        self.memory.has_written();
        Ok(())
    }

    /// Notes that this store may not deliver here, so that its twin finds it as well.
    async fn dispute(&self, item: &Item) -> Result<(), Undelivered> {
        let claimant = self.claimant(item).await?;
        let key = layout::standing(claimant.identity.store);
        let Some(mut found) = self.standing(&key).await? else { return Ok(()) };
        // In another epoch than the disputed one a person has decided already.
        if self.is_decided(found.epoch) || found.disputed.is_some() {
            return Ok(());
        }
        found.disputed = Some(claimant.dispute());
        Ok(self.archive.put_note(&key, found.to_json()).await?)
    }

    fn is_decided(&self, epoch: EpochId) -> bool {
        let mut disputed = self.disputed.lock().unwrap_or_else(PoisonError::into_inner);
        *disputed.get_or_insert(epoch) != epoch
    }

    async fn standing(&self, key: &str) -> Result<Option<Standing>, Undelivered> {
        let Some(bytes) = self.archive.get_bytes(key, MOST_STANDING).await? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&bytes).map(Some);
        let unreadable = |error| {
            let what = format!("read {key} from {}", self.archive.name());
            SyncError::stop(what, format!("{error}; it says who delivers here: move it away"))
        };
        Ok(read.map_err(unreadable)?)
    }

    async fn claimant(&self, item: &Item) -> Result<Claimant, Undelivered> {
        let reader = self.reader.clone();
        let identity = blocking(move || Ok(reader.identity()?)).await?;
        Ok(Claimant { identity, writer: self.writer.clone(), mark: item.mark })
    }
}

/// Work that blocks: the database, files, compression.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Undelivered> + Send + 'static,
) -> Result<T, Undelivered> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        // A panic in there is a defect; the item must not be tried for ever.
        Err(SyncError::give_up("build a delivery", format!("{error}; report this as a defect"))
            .into())
    })
}

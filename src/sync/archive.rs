//! Deliveries into the archive: one part of a series at a time, and what describes a session.
//!
//! A part is built from the store into files in the folder `spool`, each frame after the other,
//! so that memory does not grow with the part. The same part gives the same bytes, so an upload
//! that was broken off goes on after a restart, and a replay overwrites an object with itself.
//!
//! Order: objects of parts first, then the documents that describe them, the manifest last. So
//! the manifest never names what is not there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::SyncError;
use super::objects::{Archive, ObjectReceipt, UploadState};
use super::outbox::{NoAnswer, Outbox};
use super::undelivered::Undelivered;
use crate::domain::facts::{BoxName, ModelFacts, Series, SessionFacts};
use crate::exchange::layout::{self, SeriesKeys};
use crate::exchange::manifest::{Manifest, ObjectEntry, ObjectKind};
use crate::exchange::output::{Output, WriteError, Written};
use crate::exchange::tables::{Frames, ModelKey, ObjectRow, Objects, ParquetTable, Results, Table};
use crate::exchange::zarr::{self, ShardReader, ShardShape, ShardWriter};
use crate::store::{
    Answer, Ask, Destination, Item, Kind, PartRef, Reader, Receipt, Report, StoredReceipt,
};

/// Folder in the data folder for what is being sent.
const SPOOL: &str = "spool";

/// What delivers into one archive.
#[derive(Clone)]
pub(super) struct Archiving {
    pub(super) archive: Archive,
    pub(super) reader: Reader,
    pub(super) outbox: Outbox,
    pub(super) box_name: BoxName,
    pub(super) data_folder: PathBuf,
}

/// A file that is to be an object.
struct Built {
    key: String,
    path: PathBuf,
    written: Written,
    rows: u64,
}

/// A part, ready to be sent.
struct Part {
    objects: Vec<Built>,
    /// Greatest key in it.
    upto: i64,
    /// Frames or results in it.
    rows: u64,
}

/// What a part is of.
struct Subject {
    session: SessionFacts,
    series: Series,
    part: u64,
    model: Option<ModelFacts>,
}

impl Subject {
    fn positions(&self) -> std::ops::Range<u64> {
        self.series.part_positions(self.part)
    }

    fn in_part(&self, position: u64) -> u32 {
        u32::try_from(position - self.positions().start).unwrap_or(u32::MAX)
    }

    fn shard(&self, bytes_per_pixel: u8) -> ShardShape {
        let Series { part_frames, width, height, .. } = self.series;
        ShardShape { frames: part_frames, width, height, bytes_per_pixel }
    }
}

impl Archiving {
    /// Makes one delivery.
    pub(super) async fn deliver(&self, item: &Item) -> Result<Report, Undelivered> {
        let session = self.session(item).await?;
        let Some(part) = item.part else { return self.describe(item, session).await };
        let subject = self.subject(session, part).await?;
        let there = self.already_there(item, &subject).await?;
        let built = self.build(item, subject, there).await?;
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

    fn receipt(&self, receipt: ObjectReceipt, rows: u64) -> Receipt {
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
            std::fs::create_dir_all(&spool).map_err(|error| {
                SyncError::retry(format!("make the folder {}", spool.display()), error)
            })?;
            Ok(Subject { session, series, part: part.part, model })
        })
        .await
    }

    fn spooled(&self, item: &Item, what: &str) -> PathBuf {
        self.data_folder.join(SPOOL).join(format!("{}-{what}", item.pk))
    }

    /// The shard that the archive has of this part, where it has the only copy of some of its
    /// pixels: the part was delivered before it was full, because there was no room here.
    async fn already_there(
        &self,
        item: &Item,
        subject: &Subject,
    ) -> Result<Option<PathBuf>, Undelivered> {
        if item.kind != Kind::Pixels {
            return Ok(None);
        }
        let (reader, series) = (self.reader.clone(), subject.series.clone());
        let positions = subject.positions();
        let evicted = blocking(move || {
            let frames = reader.archived_frames_of(&series, positions)?;
            Ok(frames.iter().any(|frame| !frame.has_pixels))
        })
        .await?;
        if !evicted {
            return Ok(None);
        }
        let key = SeriesKeys::archived(&subject.series).image_shard(subject.part);
        let file = self.spooled(item, "there");
        Ok(self.archive.fetch(&key, &file).await?.map(|_| file))
    }

    async fn build(
        &self,
        item: &Item,
        subject: Subject,
        there: Option<PathBuf>,
    ) -> Result<Part, Undelivered> {
        let (this, item) = (self.clone(), item.clone());
        blocking(move || {
            let file = |what: &str| this.spooled(&item, what);
            let refused = this.reader.refused_of(&item)?;
            match item.kind {
                Kind::Frames => this.frames(&item, &subject, &refused, &file("frames")),
                Kind::Results => {
                    let files = [file("labels"), file("objects"), file("results")];
                    this.results(&item, &subject, &refused, files)
                }
                Kind::Pixels => {
                    let built = this.pixels(&item, &subject, &refused, &file("pixels"), &there);
                    if let Some(there) = there {
                        std::fs::remove_file(there).ok();
                    }
                    built
                }
                Kind::Session => Err(gone("its part")),
            }
        })
        .await
    }

    /// The table of the part's frames.
    fn frames(
        &self,
        item: &Item,
        subject: &Subject,
        refused: &[i64],
        file: &Path,
    ) -> Result<Part, Undelivered> {
        let frames = self.reader.frames_of(&subject.series, subject.positions())?;
        let upto = frames.iter().map(|frame| frame.pk).max().unwrap_or(item.wanted);
        let mut table = table::<Frames>(file)?;
        for frame in frames.iter().filter(|frame| !refused.contains(&frame.pk)) {
            table.push(&(Some(&self.box_name), frame)).map_err(unwritten)?;
        }
        let rows = table.rows();
        let date = &subject.session.archive_date;
        let key = layout::frames_table(&self.box_name.name, date, &subject.series, subject.part);
        let written = table.finish().map_err(unwritten)?;
        let built = Built { key, path: file.to_owned(), written, rows };
        Ok(Part { objects: vec![built], upto, rows: frames.len() as u64 })
    }

    /// The label images of one model, and the tables of their results and objects.
    fn results(
        &self,
        item: &Item,
        subject: &Subject,
        refused: &[i64],
        [labels_file, objects_file, results_file]: [PathBuf; 3],
    ) -> Result<Part, Undelivered> {
        let Some(model) = &subject.model else { return Err(gone("its model")) };
        let results = self.reader.results_of(&subject.series, model, subject.positions())?;
        let upto = results.iter().map(|result| result.pk).max().unwrap_or(item.wanted);
        let mut shard = ShardWriter::create(&labels_file, subject.shard(4)).map_err(unwritten)?;
        let mut summary = table::<Results>(&results_file)?;
        let mut table = table::<Objects>(&objects_file)?;
        let key = ModelKey::of(model);
        let mut images = 0;
        for result in results.iter().filter(|result| !refused.contains(&result.pk)) {
            let labels = self.reader.labels_of(result).map_err(Undelivered::reading(result.pk))?;
            let measured =
                self.reader.objects_of(result).map_err(Undelivered::reading(result.pk))?;
            shard
                .push_labels(subject.in_part(result.frame.position), labels.labels())
                .map_err(unwritten)?;
            summary.push(&(&key, result)).map_err(unwritten)?;
            for object in &measured {
                let row = ObjectRow { frame: &result.frame, model: &key, object };
                table.push(&row).map_err(unwritten)?;
            }
            images += 1;
        }
        let keys = SeriesKeys::archived(&subject.series);
        let date = &subject.session.archive_date;
        let table_key =
            layout::objects_table(&self.box_name.name, date, &subject.series, model, subject.part);
        let shard = Built {
            key: keys.label_shard(model, subject.part),
            path: labels_file,
            written: shard.finish().map_err(unwritten)?.written,
            rows: images,
        };
        let rows = table.rows();
        let written = table.finish().map_err(unwritten)?;
        let table = Built { key: table_key, path: objects_file, written, rows };
        let summary_key =
            layout::results_table(&self.box_name.name, date, &subject.series, model, subject.part);
        let written = summary.finish().map_err(unwritten)?;
        let summary = Built { key: summary_key, path: results_file, written, rows: images };
        Ok(Part { objects: vec![shard, table, summary], upto, rows: results.len() as u64 })
    }

    /// The pixels that the archive is to have: from here, or what it has already.
    fn pixels(
        &self,
        item: &Item,
        subject: &Subject,
        refused: &[i64],
        file: &Path,
        there: &Option<PathBuf>,
    ) -> Result<Part, Undelivered> {
        let frames = self.reader.archived_frames_of(&subject.series, subject.positions())?;
        let upto = frames.iter().map(|frame| frame.pk).max().unwrap_or(item.wanted);
        let key = SeriesKeys::archived(&subject.series).image_shard(subject.part);
        let shape = subject.shard(subject.series.bytes_per_pixel);
        let not_again = |why: String| {
            let why = format!("{why}; it is left as it is");
            Undelivered::from(SyncError::give_up(format!("add frames to {key}"), why))
        };
        let mut there = match there {
            Some(there) => {
                let opened = ShardReader::open(there, shape);
                Some(opened.map_err(|error| not_again(error.to_string()))?)
            }
            None => None,
        };
        let mut shard = ShardWriter::create(file, shape).map_err(unwritten)?;
        let mut rows = 0;
        for frame in frames.iter().filter(|frame| !refused.contains(&frame.pk)) {
            let position = subject.in_part(frame.position);
            let pixels = match (&mut there, frame.has_pixels) {
                (_, true) => {
                    let stored =
                        self.reader.pixels(frame.id).map_err(Undelivered::reading(frame.pk))?;
                    let Some(stored) = stored else {
                        let id = frame.id;
                        let reason = format!("the pixels of frame {id} are gone: run reticle fsck");
                        return Err(Undelivered::One { subject: frame.pk, reason });
                    };
                    stored.pixels.to_le_bytes()
                }
                (Some(there), false) => {
                    let kept =
                        there.read(position).map_err(|error| not_again(error.to_string()))?;
                    let kept = kept.filter(|kept| Sha256::digest(kept).as_slice() == frame.sha256);
                    kept.ok_or_else(|| {
                        not_again(format!("its frame {} is not the recorded one", frame.id))
                    })?
                }
                // Another archive than the one that it was evicted for.
                (None, false) => continue,
            };
            shard.push(position, &pixels).map_err(unwritten)?;
            rows += 1;
        }
        let written = shard.finish().map_err(unwritten)?.written;
        let built = Built { key, path: file.to_owned(), written, rows };
        Ok(Part { objects: vec![built], upto, rows: frames.len() as u64 })
    }

    /// The documents that describe a session's arrays, where they changed, and its manifest.
    async fn describe(&self, item: &Item, session: SessionFacts) -> Result<Report, Undelivered> {
        let (reader, id) = (self.reader.clone(), session.id);
        let (behind, series, models, receipts, store) = blocking(move || {
            // In this order: what is found afterwards is at least as new.
            let behind = reader.is_behind(Destination::Archive, id)?;
            let receipts = reader.receipts(Destination::Archive, id)?;
            let store = reader.identity()?.store;
            Ok((behind, reader.series(id)?, reader.models_of(id)?, receipts, store))
        })
        .await?;
        let known: HashMap<&str, &StoredReceipt> =
            receipts.iter().map(|receipt| (receipt.key.as_str(), receipt)).collect();
        let manifest_key = layout::manifest(session.id);
        let mut entries: Vec<ObjectEntry> =
            receipts.iter().filter(|receipt| receipt.kind != Kind::Session).map(entry).collect();
        let mut sent = Vec::new();
        for (key, bytes) in documents(&session, &series, &models) {
            let sha256: [u8; 32] = Sha256::digest(&bytes).into();
            entries.push(ObjectEntry {
                key: key.clone(),
                bytes: bytes.len() as u64,
                sha256: hex::encode(sha256),
                kind: ObjectKind::ZarrMetadata,
                rows: None,
            });
            // A replay asks for everything again: then nothing of this session is done yet.
            if item.done > 0 && known.get(key.as_str()).is_some_and(|old| old.sha256 == sha256) {
                continue;
            }
            sent.push(self.receipt(self.archive.put_bytes(&key, bytes).await?, 0));
        }
        let complete = session.ended.is_some() && !behind;
        let manifest = Manifest::new(&self.box_name, &session, &series, &models, complete, entries)
            .of_store(store);
        let put = self.archive.put_bytes(&manifest_key, manifest.to_json()).await?;
        sent.push(self.receipt(put, 0));
        Ok(Report::Done { item: item.pk, upto: item.wanted, rows: 0, receipts: sent })
    }
}

/// Keys and contents of a session's `zarr.json` documents.
fn documents(
    session: &SessionFacts,
    series: &[Series],
    models: &[ModelFacts],
) -> Vec<(String, Vec<u8>)> {
    let um = session.pixel_size_um;
    let mut documents = Vec::new();
    for series in series {
        let keys = SeriesKeys::archived(series);
        documents.push((keys.image_array(), zarr::image_array(series)));
        for model in models {
            documents.push((keys.label_array(model), zarr::label_array(series)));
            documents.push((keys.label_group(model), zarr::label_group(series, model, um)));
        }
        documents.push((keys.labels(), zarr::labels_group(models)));
        documents.push((keys.group(), zarr::image_group(&session.name, series, um)));
    }
    documents
}

fn entry(receipt: &StoredReceipt) -> ObjectEntry {
    let kind = match receipt.kind {
        Kind::Frames => ObjectKind::FramesTable,
        Kind::Pixels => ObjectKind::ImageShard,
        Kind::Results if receipt.key.starts_with("objects/") => ObjectKind::ObjectsTable,
        Kind::Results if receipt.key.starts_with("results/") => ObjectKind::ResultsTable,
        Kind::Results => ObjectKind::LabelShard,
        Kind::Session => ObjectKind::ZarrMetadata,
    };
    let is_table = matches!(
        kind,
        ObjectKind::FramesTable | ObjectKind::ObjectsTable | ObjectKind::ResultsTable
    );
    ObjectEntry {
        key: receipt.key.clone(),
        bytes: receipt.bytes,
        sha256: hex::encode(receipt.sha256),
        kind,
        rows: is_table.then_some(receipt.rows),
    }
}

/// A table that is sent, not kept.
fn table<T: Table>(file: &Path) -> Result<ParquetTable<T>, Undelivered> {
    Output::scratch(file).and_then(ParquetTable::new).map_err(unwritten)
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

pub(super) fn gone(what: &str) -> Undelivered {
    let why = format!("{what} is not in the store: run `reticle fsck`");
    SyncError::give_up("build a delivery", why).into()
}

pub(super) fn closing() -> Undelivered {
    SyncError::retry("make a delivery", "the store is closed").into()
}

fn unwritten(error: WriteError) -> Undelivered {
    SyncError::retry("build a delivery", error).into()
}

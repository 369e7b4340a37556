//! One session of the archive: what its manifest and its keys say there is, and what of it is to
//! be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Adopted, Adopting, Lacking, failed};
use crate::sync::error::SyncError;
use reticle_base::clock::Stamp;
use reticle_base::ids::SessionId;
use reticle_domain::facts::{ModelFacts, Series};
use reticle_domain::segmentation::ModelRef;
use reticle_domain::session::Session;
use reticle_exchange::layout::{self, Holds, PartOf};
use reticle_exchange::manifest::{Manifest, Mono, ObjectKind, SeriesEntry};
use reticle_imagefile::MAX_PIXELS;
use reticle_object_storage::ObjectStorage;
use reticle_store::{
    AdoptedPart, AdoptedSeries, AdoptedSession, Destination, Receipt, StoredReceipt,
};

/// Frames in a part at most, as the store makes them.
const PART_FRAMES: u32 = 64;

/// What lies under the keys of a session.
pub(super) struct There {
    /// Keys of the `zarr.json` documents and of the manifest.
    documents: Vec<String>,
    /// Keys of each part.
    parts: BTreeMap<(u32, u64), BTreeMap<PartOf, String>>,
    /// Size of each object.
    bytes: HashMap<String, u64>,
}

/// A session on its way.
pub(super) struct Reading<'a> {
    pub(super) session: SessionId,
    pub(super) models: HashMap<String, ModelFacts>,
    pub(super) adopted: &'a mut Adopted,
}

impl Reading<'_> {
    /// Something of it does not come back.
    pub(super) fn lacks(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::warn!(session = %self.session, what, "does not come back from the archive");
        self.adopted.missing.push(Lacking { session: self.session, what });
    }
}

impl Adopting<'_> {
    /// Takes on what of a session is not here.
    pub(super) async fn take_session(
        &mut self,
        manifest: &Manifest,
        adopted: &mut Adopted,
    ) -> Result<(), SyncError> {
        let id = manifest.session.id;
        if self.reader.delivered_by(id).map_err(failed)?.is_some() {
            return Ok(());
        }
        let there = self.there(manifest).await?;
        let is_new = self.reader.session_facts(id).map_err(failed)?.is_none();
        let receipts = self.reader.receipts(Destination::Archive, id).map_err(failed)?;
        let receipts: HashMap<&str, &StoredReceipt> =
            receipts.iter().map(|receipt| (receipt.key.as_str(), receipt)).collect();
        let told: HashMap<&str, &str> = manifest
            .objects
            .iter()
            .map(|entry| (entry.key.as_str(), entry.sha256.as_str()))
            .collect();
        // A receipt for exactly what the manifest names and the archive has: nothing to read.
        let is_known = |key: &String| {
            receipts.get(key.as_str()).is_some_and(|receipt| {
                there.bytes.get(key) == Some(&receipt.bytes)
                    && told.get(key.as_str()) == Some(&hex::encode(receipt.sha256).as_str())
            })
        };
        let open: BTreeMap<_, _> =
            there.parts.iter().filter(|(_, keys)| !keys.values().all(is_known)).collect();
        let mut reading = Reading { session: id, models: models(manifest), adopted };
        reading.name_lost(manifest, &there);
        let mut changed = false;
        // Frames first: their positions say how long each series is.
        let mut frames = HashMap::new();
        for (place, keys) in &open {
            if let Some(key) = keys.get(&PartOf::Frames) {
                frames.insert(**place, self.frames_table(key, &mut reading).await?);
            } else {
                reading.lacks(format!(
                    "part {} of series {}: there is no table of its frames",
                    place.1, place.0
                ));
            }
        }
        let mut session = match session_of(manifest, &mut reading) {
            Some(session) => session,
            None => return Ok(()),
        };
        for (frames, _) in frames.values().flatten() {
            for frame in frames {
                stretch(&mut session.series, frame);
            }
        }
        match self.store.adopt_session(&session).map_err(failed)? {
            Ok(new) => changed |= new,
            Err(refusal) => return self.conflict(&mut reading, refusal.0),
        }
        reading.adopted.new_sessions += u64::from(is_new);
        let mut taken_keys = BTreeSet::new();
        for (place, keys) in open {
            let Some(shape) = session.series.iter().find(|series| series.number == place.0) else {
                continue;
            };
            let series = series_of(id, shape);
            let (frames, table) = match frames.remove(place).flatten() {
                Some((frames, table)) => (frames, Some(table)),
                None => continue,
            };
            let part =
                AdoptedPart { series: place.0, part: place.1, table, ..AdoptedPart::default() };
            let part = self.part(&series, part, frames, keys, &mut reading).await?;
            match self.store.adopt_part(id, &part).map_err(failed)? {
                Ok(taken) => {
                    taken_keys.extend(part.receipts().map(|receipt| receipt.key.clone()));
                    changed |= !taken.is_nothing();
                    let all = &mut reading.adopted.taken;
                    all.frames += taken.frames;
                    all.results += taken.results;
                    all.objects += taken.objects;
                    all.pixels += taken.pixels;
                }
                Err(refusal) => return self.conflict(&mut reading, refusal.0),
            }
        }
        let facts = self.reader.session_facts(id).map_err(failed)?;
        let is_whole = facts.is_some_and(|facts| {
            facts.frames >= manifest.session.frames
                && facts.segmentations >= manifest.session.segmentations
                && facts.objects >= manifest.session.objects
        });
        self.documents(&there, &receipts, &taken_keys, (id, changed, is_whole)).await?;
        reading.adopted.changed |= changed;
        Ok(())
    }

    /// Another store went on with this session: nothing of it is delivered from here.
    fn conflict(&mut self, reading: &mut Reading<'_>, what: String) -> Result<(), SyncError> {
        let why = format!(
            "{what}: another store went on with this session; the archive's is left as it is"
        );
        self.store.hold_back(reading.session, &why).map_err(failed)?;
        tracing::error!(session = %reading.session, why, "a session cannot be read back");
        reading.adopted.conflicts.push(Lacking { session: reading.session, what: why });
        Ok(())
    }

    async fn there(&self, manifest: &Manifest) -> Result<There, SyncError> {
        let session = &manifest.session;
        let mut there =
            There { documents: Vec::new(), parts: BTreeMap::new(), bytes: HashMap::new() };
        for prefix in layout::prefixes(&manifest.box_name, session.id, &session.archive_date) {
            self.archive
                .list(&prefix, &mut |listed| {
                    match layout::holds(session.id, &listed.key) {
                        Some(Holds::Manifest | Holds::Document) => {
                            there.documents.push(listed.key.clone());
                        }
                        Some(Holds::Part { series, part, of }) => {
                            let keys = there.parts.entry((series, part)).or_default();
                            keys.insert(of, listed.key.clone());
                        }
                        None => return,
                    }
                    there.bytes.insert(listed.key, listed.bytes);
                })
                .await?;
        }
        Ok(there)
    }

    /// Notes the documents that describe the session, as they are there, and what could not be
    /// taken. A session of which something is lost is not described again: its manifest says more
    /// than this store could.
    async fn documents(
        &mut self,
        there: &There,
        known: &HashMap<&str, &StoredReceipt>,
        taken: &BTreeSet<String>,
        (session, changed, is_whole): (SessionId, bool, bool),
    ) -> Result<(), SyncError> {
        let mut receipts = Vec::new();
        let parts = there.parts.values().flat_map(BTreeMap::values);
        let left = parts.filter(|key| !taken.contains(*key) && !known.contains_key(key.as_str()));
        for key in there.documents.iter().chain(left) {
            let Some(found) = self.archive.read_back(key).await? else { continue };
            if known.get(key.as_str()).is_some_and(|old| old.sha256 == found.sha256) {
                continue;
            }
            receipts.push(self.receipt(key, found.bytes, found.sha256).await?);
        }
        let describe = is_whole.then_some(changed);
        self.store.adopt_documents(session, &receipts, describe).map_err(failed)
    }

    /// That an object was read to its end, now.
    pub(super) async fn receipt(
        &self,
        key: &str,
        bytes: u64,
        sha256: [u8; 32],
    ) -> Result<Receipt, SyncError> {
        let digits = hex::encode(sha256);
        // A folder's tag is the hash; asked for it, it would read the file once more.
        let etag = match &self.archive {
            ObjectStorage::Folder(_) => digits.clone(),
            ObjectStorage::S3(_) => {
                self.archive.stat(key).await?.map(|stat| stat.etag).unwrap_or_default()
            }
        };
        Ok(Receipt {
            location: self.archive.name(),
            key: key.to_owned(),
            bytes,
            sha256,
            etag,
            checksum: format!("sha256:{digits} (read back)"),
            rows: 0,
        })
    }
}

impl Reading<'_> {
    /// What the manifest names and the archive does not have any more.
    fn name_lost(&mut self, manifest: &Manifest, there: &There) {
        for entry in &manifest.objects {
            if entry.kind != ObjectKind::ZarrMetadata && !there.bytes.contains_key(&entry.key) {
                self.lacks(format!("{} is in the manifest and not in the archive", entry.key));
            }
        }
        let without: Vec<String> = there
            .parts
            .values()
            .flat_map(BTreeMap::keys)
            .filter_map(|of| match of {
                PartOf::Labels(model) if !self.models.contains_key(model) => Some(model.clone()),
                _ => None,
            })
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        for model in without {
            self.lacks(format!(
                "the results of the model {model}: the manifest does not say what it is"
            ));
        }
    }
}

fn models(manifest: &Manifest) -> HashMap<String, ModelFacts> {
    let facts = |model: &reticle_exchange::manifest::Model| ModelFacts {
        pk: 0,
        model: ModelRef {
            name: model.name.clone(),
            sha256: model.sha256.clone(),
            parameters: model.parameters.clone(),
            software: model.software.clone(),
        },
    };
    manifest.models.iter().map(facts).map(|model| (model.key(), model)).collect()
}

/// The session as the manifest describes it; `None`, and said, where that makes no sense.
fn session_of(manifest: &Manifest, reading: &mut Reading<'_>) -> Option<AdoptedSession> {
    let told = &manifest.session;
    let Some(started) = stamp(&told.started_recorded, told.started_mono) else {
        reading.lacks(format!("\"{}\" in its manifest is no time", told.started_recorded));
        return None;
    };
    let ended = told.ended_recorded.as_deref().and_then(|time| stamp(time, told.ended_mono));
    let mut series = Vec::with_capacity(manifest.series.len());
    for entry in &manifest.series {
        match shape(entry) {
            Some(shape) => series.push(shape),
            None => reading.lacks(format!("series {} has an impossible shape", entry.number)),
        }
    }
    Some(AdoptedSession {
        session: Session {
            id: told.id,
            name: told.name.clone(),
            source: told.source.clone(),
            channel: told.channel.clone(),
            operator: told.operator.clone(),
            pixel_size_um: told.pixel_size_um,
            started,
        },
        ended,
        archive_date: told.archive_date.clone(),
        series,
    })
}

/// Documents of older versions do not say which boot it was: then it is none of those known.
fn stamp(recorded: &str, mono: Option<Mono>) -> Option<Stamp> {
    let time = OffsetDateTime::parse(recorded, &Rfc3339).ok()?;
    let wall_ns = i64::try_from(time.unix_timestamp_nanos()).ok()?;
    let (mono_ns, boot_id) = mono.map_or((0, Uuid::nil()), |mono| (mono.ns, mono.boot));
    Some(Stamp { wall_ns, mono_ns, boot_id })
}

fn shape(entry: &SeriesEntry) -> Option<AdoptedSeries> {
    let [frames, height, width] = entry.shape;
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let bytes_per_pixel = match entry.dtype.as_str() {
        "uint8" => 1,
        "uint16" => 2,
        _ => return None,
    };
    let is_possible = (1..=MAX_PIXELS).contains(&(u64::from(width) * u64::from(height)))
        && (1..=PART_FRAMES).contains(&entry.part_frames)
        && i64::try_from(frames).is_ok();
    is_possible.then_some(AdoptedSeries {
        number: entry.number,
        width,
        height,
        bytes_per_pixel,
        part_frames: entry.part_frames,
        frames,
    })
}

/// A part may be newer than the manifest: then the series is longer than that says.
fn stretch(series: &mut [AdoptedSeries], frame: &reticle_domain::facts::FrameFacts) {
    if let Some(series) = series.iter_mut().find(|series| series.number == frame.series) {
        series.frames = series.frames.max(frame.position + 1);
    }
}

fn series_of(session: SessionId, shape: &AdoptedSeries) -> Series {
    Series {
        pk: 0,
        session,
        number: shape.number,
        width: shape.width,
        height: shape.height,
        bytes_per_pixel: shape.bytes_per_pixel,
        part_frames: shape.part_frames,
        frames: shape.frames,
    }
}

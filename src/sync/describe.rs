//! What describes a session in the archive: the `zarr.json` documents of its arrays, and its
//! manifest, which names every object.
//!
//! They grow and never shrink. One that is not what this store put there is read before it is
//! replaced: what it names and this store has not delivered yet stays named; what this store does
//! not know at all is a conflict.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::archive::{Archiving, blocking};
use super::error::SyncError;
use super::standing;
use super::undelivered::Undelivered;
use reticle_domain::facts::{ModelFacts, Series, SessionFacts};
use reticle_exchange::layout::{self, SeriesKeys};
use reticle_exchange::manifest::{Manifest, ObjectEntry, ObjectKind};
use reticle_exchange::zarr;
use reticle_store::{Destination, Item, Kind, Report, StoredReceipt};

/// Bytes that a `zarr.json` of ours never has: some 10,000 models.
const MOST_ZARR: u64 = 1 << 20;

/// Bytes that a manifest never has: some 4 million objects.
const MOST_MANIFEST: u64 = 1 << 30;

impl Archiving {
    /// The documents that describe a session's arrays, where they changed, and its manifest.
    pub(super) async fn describe(
        &self,
        item: &Item,
        session: SessionFacts,
    ) -> Result<Report, Undelivered> {
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
        let complete = session.ended.is_some() && !behind;
        let new = |entries| {
            Manifest::new(&self.box_name, &session, &series, &models, complete, entries)
                .of_store(store)
        };
        let named = self.manifest_there(&manifest_key).await?;
        let documents = documents(&session, &series, &models);
        if let Some(named) = &named {
            let mut ours = self.own_keys(&session, &series, &models);
            ours.extend(documents.iter().map(|(key, _)| key.clone()));
            ours.extend(receipts.iter().map(|receipt| receipt.key.clone()));
            let unknown = named.objects.iter().find(|entry| !ours.contains(&entry.key));
            let more = named
                .knows_more_than(&new(Vec::new()))
                .or_else(|| Some(format!("it names {}", unknown?.key)));
            if let Some(more) = more {
                return Err(self.conflict(&manifest_key, &more));
            }
        }
        let mut sent = Vec::new();
        for (key, bytes) in documents {
            let sha256: [u8; 32] = Sha256::digest(&bytes).into();
            entries.push(ObjectEntry {
                key: key.clone(),
                bytes: bytes.len() as u64,
                sha256: hex::encode(sha256),
                kind: ObjectKind::ZarrMetadata,
                rows: None,
            });
            // A replay asks for everything again: then nothing of this session is done yet.
            if item.delivered > 0 && known.get(key.as_str()).is_some_and(|old| old.sha256 == sha256)
            {
                continue;
            }
            self.may_replace(&key, &bytes).await?;
            sent.push(self.receipt(self.archive.put_bytes(&key, bytes).await?, 0));
        }
        if let Some(named) = named {
            // This store has yet to deliver these; until then they are what they were.
            let names: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            entries.extend(named.objects.into_iter().filter(|entry| !names.contains(&entry.key)));
        }
        let manifest = new(entries);
        let put = self.archive.put_bytes(&manifest_key, manifest.to_json()).await?;
        sent.push(self.receipt(put, 0));
        Ok(Report::Delivered { item: item.pk, upto: item.requested, rows: 0, receipts: sent })
    }

    /// The manifest that is there, if it is not the one that this store put.
    async fn manifest_there(&self, key: &str) -> Result<Option<Manifest>, Undelivered> {
        let there = self.there(key).await?;
        if there.stat.is_none() || there.is_as_receipted() {
            return Ok(None);
        }
        let Some(bytes) = self.archive.get_bytes(key, MOST_MANIFEST).await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(manifest) => Ok(Some(manifest)),
            // Damaged since this store put it: made anew.
            Err(_) if there.receipt.is_some() => Ok(None),
            Err(error) => {
                let why = format!("{error}; it is no manifest, and this box did not put it there");
                Err(SyncError::give_up(format!("replace {key}"), why + ": move it away").into())
            }
        }
    }

    /// Makes sure that a document that is there does not say more than the one that replaces it.
    async fn may_replace(&self, key: &str, new: &[u8]) -> Result<(), Undelivered> {
        let there = self.there(key).await?;
        if there.stat.is_none() || there.is_as_receipted() {
            return Ok(());
        }
        let Some(old) = self.archive.get_bytes(key, MOST_ZARR).await? else { return Ok(()) };
        match says_more(&old, new) {
            Some(more) => Err(self.conflict(key, &more)),
            None => Ok(()),
        }
    }

    fn conflict(&self, key: &str, more: &str) -> Undelivered {
        let what = format!("replace {key} in {}", self.archive.name());
        standing::unknown(what, more).into()
    }

    /// All keys that parts of this session have, delivered or not.
    fn own_keys(
        &self,
        session: &SessionFacts,
        series: &[Series],
        models: &[ModelFacts],
    ) -> HashSet<String> {
        let (name, date) = (&self.box_name.name, &session.archive_date);
        let mut own = HashSet::new();
        for series in series {
            let keys = SeriesKeys::archived(series);
            for part in 0..series.parts() {
                own.insert(layout::frames_table(name, date, series, part));
                own.insert(keys.image_shard(part));
                for model in models {
                    own.insert(keys.label_shard(model, part));
                    own.insert(layout::objects_table(name, date, series, model, part));
                    own.insert(layout::results_table(name, date, series, model, part));
                }
            }
        }
        own
    }
}

/// What a `zarr.json` says that the one that is to replace it does not: frames, label images. One
/// that cannot be read says nothing.
fn says_more(old: &[u8], new: &[u8]) -> Option<String> {
    let old: Value = serde_json::from_slice(old).ok()?;
    let new: Value = serde_json::from_slice(new).ok()?;
    let frames = |value: &Value| value.pointer("/shape/0").and_then(Value::as_u64).unwrap_or(0);
    if frames(&old) > frames(&new) {
        return Some(format!("it is of {} frames", frames(&old)));
    }
    let labels = |value: &Value| -> Vec<Value> {
        let labels = value.pointer("/attributes/ome/labels").and_then(Value::as_array);
        labels.cloned().unwrap_or_default()
    };
    let known = labels(&new);
    let unknown = labels(&old).into_iter().find(|label| !known.contains(label))?;
    Some(format!("it lists the label images {unknown}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_says_more_is_noticed() {
        let array = |frames: u64| format!(r#"{{"shape": [{frames}, 4, 6]}}"#).into_bytes();
        assert_eq!(says_more(&array(3), &array(3)), None);
        assert_eq!(says_more(&array(2), &array(3)), None);
        assert_eq!(says_more(&array(4), &array(3)).unwrap(), "it is of 4 frames");
        let labels = |keys: &str| {
            format!(r#"{{"attributes": {{"ome": {{"labels": [{keys}]}}}}}}"#).into_bytes()
        };
        assert_eq!(says_more(&labels(r#""a""#), &labels(r#""a", "b""#)), None);
        let more = says_more(&labels(r#""a", "b""#), &labels(r#""a""#)).unwrap();
        assert_eq!(more, "it lists the label images \"b\"");
        assert_eq!(says_more(b"torn", &array(3)), None);
    }
}

//! `reticle sync verify`: the destinations are read again and compared with the store.

use reticle_base::remedy::Remedy;
use std::collections::{BTreeMap, BTreeSet};

use super::central::{Central, SessionDigest};
use super::destinations::Destinations;
use super::engine;
use super::error::SyncError;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{BoxName, SessionFacts};
use reticle_exchange::layout::{self, SeriesKeys};
use reticle_object_storage::ObjectStorage;
use reticle_store::{Destination, Reader, StoreError};

const WHAT: &str = "compare with the store";

/// Something that is not as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// `archive` or `central`.
    pub destination: Destination,
    /// Which session.
    pub session: SessionId,
    /// The object, where it is one.
    pub key: Option<String>,
    /// What is different, and what to do.
    pub what: String,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Sessions.
    pub sessions: u64,
    /// Objects of the archive that were read to their end and hashed.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Frames and results whose rows in the central database were compared.
    pub rows: u64,
    /// Deliveries that still wait; what they carry is not compared.
    pub waiting: u64,
    /// What is not as it should be.
    pub differences: Vec<Difference>,
}

/// Reads every object and every row that a destination has acknowledged, and what lies there
/// besides under the keys of this store's sessions; and hashes here what the archive has. `tell` is told how many of how many sessions
/// are done.
///
/// # Errors
/// When the store or a destination cannot be read.
pub fn verify(
    destinations: &Destinations,
    reader: &Reader,
    tell: impl FnMut(u64, u64),
) -> Result<Verified, SyncError> {
    let runtime = engine::runtime().map_err(|error| SyncError::retry(WHAT, error))?;
    runtime.block_on(compare(destinations, reader, tell))
}

async fn compare(
    destinations: &Destinations,
    reader: &Reader,
    mut tell: impl FnMut(u64, u64),
) -> Result<Verified, SyncError> {
    let mut verified = Verified::default();
    let sessions = reader.sessions().map_err(unread)?;
    let deliveries = reader.deliveries().map_err(unread)?;
    verified.waiting = deliveries.iter().map(|delivery| delivery.waiting).sum();
    for (done, session) in sessions.iter().enumerate() {
        tell(done as u64, sessions.len() as u64);
        let Some(facts) = reader.session_facts(session.id).map_err(unread)? else { continue };
        if reader.delivered_by(session.id).map_err(unread)?.is_some() {
            // Another store's to compare.
            continue;
        }
        if let Some(archive) = &destinations.archive {
            of_archive(archive, &destinations.box_name, reader, &facts, &mut verified).await?;
            of_this_box(reader, &facts, &mut verified)?;
        }
        if let Some(central) = &destinations.central {
            of_central(central, reader, &facts, &mut verified).await?;
        }
        verified.sessions += 1;
    }
    Ok(verified)
}

async fn of_archive(
    archive: &ObjectStorage,
    box_name: &BoxName,
    reader: &Reader,
    session: &SessionFacts,
    verified: &mut Verified,
) -> Result<(), SyncError> {
    let destination = Destination::Archive;
    let receipts = reader.receipts(destination, session.id).map_err(unread)?;
    let mut differ = |key: &str, what: &str| {
        verified.differences.push(Difference {
            destination,
            session: session.id,
            key: Some(key.to_owned()),
            what: what.to_owned(),
        });
    };
    let mut known = BTreeSet::new();
    for receipt in &receipts {
        known.insert(receipt.key.clone());
        match archive.read_back(&receipt.key).await? {
            None => differ(&receipt.key, "is not there any more"),
            Some(found) if found.sha256 != receipt.sha256 || found.bytes != receipt.bytes => {
                differ(&receipt.key, "holds something else than what was put there");
            }
            Some(found) => {
                verified.objects += 1;
                verified.bytes += found.bytes;
            }
        }
    }
    let mut strays = BTreeMap::new();
    for prefix in layout::prefixes(&box_name.name, session.id, &session.archive_date) {
        archive
            .list(&prefix, &mut |listed| {
                if !known.contains(&listed.key) {
                    strays.insert(listed.key, listed.bytes);
                }
            })
            .await?;
    }
    for (key, bytes) in strays {
        differ(&key, &format!("({bytes} bytes) is there, and nothing here knows of it"));
    }
    Ok(())
}

/// Label images and pixels that the archive has, hashed here: what rotted on this box is not
/// delivered again, so the archive's copy is the good one.
fn of_this_box(
    reader: &Reader,
    session: &SessionFacts,
    verified: &mut Verified,
) -> Result<(), SyncError> {
    let mut rotten = |key: String, frame: FrameId, error: StoreError| {
        if error.remedy() != Remedy::GiveUp {
            return Err(unread(error));
        }
        verified.differences.push(Difference {
            destination: Destination::Archive,
            session: session.id,
            key: Some(key),
            what: format!(
                "is not replaced by what this box has of frame {frame}, which is damaged here \
                 ({error})"
            ),
        });
        Ok(())
    };
    for series in reader.series(session.id).map_err(unread)? {
        let keys = SeriesKeys::archived(&series);
        let models = reader.models_of(session.id).map_err(unread)?;
        for part in 0..series.parts() {
            let positions = series.part_positions(part);
            let frames = reader.archived_frames_of(&series, positions.clone()).map_err(unread)?;
            for frame in frames.iter().filter(|frame| frame.has_pixels) {
                if let Err(error) = reader.pixels(frame.id) {
                    rotten(keys.image_shard(part), frame.id, error)?;
                }
            }
            for model in &models {
                let results = reader.results_of(&series, model, positions.clone());
                for result in results.map_err(unread)? {
                    if let Err(error) = reader.labels_of(&result) {
                        rotten(keys.label_shard(model, part), result.frame.id, error)?;
                    }
                }
            }
        }
    }
    Ok(())
}

async fn of_central(
    central: &Central,
    reader: &Reader,
    session: &SessionFacts,
    verified: &mut Verified,
) -> Result<(), SyncError> {
    let destination = Destination::Central;
    if reader.is_behind(destination, session.id).map_err(unread)? {
        // What still waits is no difference.
        return Ok(());
    }
    let (here, rows) = digest(reader, session.id).map_err(unread)?;
    let there = central.digest(session.id).await?;
    verified.rows += rows;
    if here != there {
        verified.differences.push(Difference {
            destination,
            session: session.id,
            key: None,
            what: format!("the box has {here}, the database {there}"),
        });
    }
    Ok(())
}

/// The session as the central database should have it: all but what it can never take.
fn digest(reader: &Reader, session: SessionId) -> Result<(SessionDigest, u64), StoreError> {
    let refused = reader.refused_keys(Destination::Central)?;
    let mut digest = SessionDigest::default();
    let mut rows = 0;
    for series in reader.series(session)? {
        for part in 0..series.parts() {
            for frame in reader.frames_of(&series, series.part_positions(part))? {
                if !refused.frames.contains(&frame.pk) {
                    digest.frame(frame.id, &frame.sha256);
                    rows += 1;
                }
            }
        }
        for model in reader.models_of(session)? {
            let key = model.key();
            for part in 0..series.parts() {
                for result in reader.results_of(&series, &model, series.part_positions(part))? {
                    if !refused.results.contains(&result.pk) {
                        let objects = u64::from(result.objects);
                        digest.result(result.frame.id, &key, &result.labels_sha256, objects);
                        rows += 1;
                    }
                }
            }
        }
    }
    Ok((digest, rows))
}

fn unread(error: StoreError) -> SyncError {
    SyncError::retry(WHAT, error)
}

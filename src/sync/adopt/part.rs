//! One part of a series, read from the archive and compared with itself.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::Adopting;
use super::session::Reading;
use crate::sync::error::SyncError;
use crate::sync::there::NOT_VOUCHED_FOR;
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;
use reticle_domain::facts::{Dated, FrameFacts, ModelFacts, Series};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::segmentation::Timings;
use reticle_exchange::layout::PartOf;
use reticle_exchange::tables::read::{self, ResultRow};
use reticle_exchange::zarr::{ShardReader, ShardShape};
use reticle_object_storage::Copied;
use reticle_store::{AdoptedFrame, AdoptedPart, AdoptedResult, AdoptedResults, Receipt};

/// Focus, timings and time of a result of which the archive has no row.
const UNKNOWN: (f32, Timings, Option<Look>, Option<Stamp>) = (
    f32::NAN,
    Timings { normalise_us: 0, network_us: 0, instances_us: 0, measure_us: 0 },
    None,
    None,
);

impl Adopting<'_> {
    /// The frames of a part with the receipt of their table; `None`, and said, where it cannot be
    /// read.
    pub(super) async fn frames_table(
        &self,
        key: &str,
        reading: &mut Reading<'_>,
    ) -> Result<Option<(Vec<FrameFacts>, Receipt)>, SyncError> {
        let Some((file, receipt)) = self.fetch_table(key, "frames", reading).await? else {
            return Ok(None);
        };
        let frames = match read::frames(&file) {
            Ok(frames) => frames,
            Err(error) => {
                reading.lacks(format!("{key} cannot be read: {error}"));
                return Ok(None);
            }
        };
        if frames.iter().any(|frame| frame.session != reading.session) {
            reading.lacks(format!("{key} holds frames of another session"));
            return Ok(None);
        }
        let rows = frames.len() as u64;
        Ok(Some((frames, Receipt { rows, ..receipt })))
    }

    /// Reads the rest of a part whose frames were read.
    pub(super) async fn part(
        &self,
        series: &Series,
        mut part: AdoptedPart,
        frames: Vec<FrameFacts>,
        keys: &BTreeMap<PartOf, String>,
        reading: &mut Reading<'_>,
    ) -> Result<AdoptedPart, SyncError> {
        let positions = series.part_positions(part.part);
        let is_of_part = |frame: &FrameFacts| {
            frame.series == series.number
                && positions.contains(&frame.position)
                && (frame.width, frame.height) == (series.width, series.height)
                && frame.bit_depth.div_ceil(8) == series.bytes_per_pixel
        };
        let (frames, others): (Vec<FrameFacts>, Vec<FrameFacts>) =
            frames.into_iter().partition(is_of_part);
        for frame in others {
            reading.lacks(format!("frame {}: its row is not one of this part", frame.id));
        }
        let in_part = |frame: &FrameFacts| (frame.position - positions.start) as u32;
        let there = self.pixels(series, &mut part, (&frames, &in_part), keys, reading).await?;
        for of in keys.keys() {
            let PartOf::Labels(model) = of else { continue };
            let Some(model) = reading.models.get(model).cloned() else { continue };
            let results = self.results(series, &model, (&frames, &in_part), keys, reading).await?;
            part.results.extend(results);
        }
        part.frames = frames
            .into_iter()
            .zip(there)
            .map(|(facts, in_archive)| AdoptedFrame { facts, in_archive })
            .collect();
        Ok(part)
    }

    /// Which frames' pixels the archive has, compared with their hashes.
    async fn pixels(
        &self,
        series: &Series,
        part: &mut AdoptedPart,
        (frames, in_part): (&[FrameFacts], &impl Fn(&FrameFacts) -> u32),
        keys: &BTreeMap<PartOf, String>,
        reading: &mut Reading<'_>,
    ) -> Result<Vec<bool>, SyncError> {
        let nothing = vec![false; frames.len()];
        let Some(key) = keys.get(&PartOf::Pixels) else { return Ok(nothing) };
        let Some((file, receipt)) = self.fetch(key, "pixels").await? else { return Ok(nothing) };
        let mut shard = match ShardReader::open(&file, shape(series, series.bytes_per_pixel)) {
            Ok(shard) => shard,
            Err(error) => {
                reading.lacks(format!("{key} cannot be read: {error}"));
                return Ok(nothing);
            }
        };
        let mut there = Vec::with_capacity(frames.len());
        for frame in frames {
            let is_there = match shard.read(in_part(frame)) {
                Ok(Some(pixels)) if Sha256::digest(&pixels).as_slice() == frame.sha256 => true,
                Ok(None) => false,
                Ok(Some(_)) => {
                    reading.lacks(format!(
                        "the pixels of frame {}: those in {key} are not the recorded ones",
                        frame.id
                    ));
                    false
                }
                Err(error) => {
                    reading.lacks(format!("the pixels of frame {}: {key}: {error}", frame.id));
                    false
                }
            };
            there.push(is_there);
        }
        part.pixels = Some(Receipt { rows: shard.positions(), ..receipt });
        Ok(there)
    }

    /// The results of one model, with their objects.
    async fn results(
        &self,
        series: &Series,
        model: &ModelFacts,
        (frames, in_part): (&[FrameFacts], &impl Fn(&FrameFacts) -> u32),
        keys: &BTreeMap<PartOf, String>,
        reading: &mut Reading<'_>,
    ) -> Result<Option<AdoptedResults>, SyncError> {
        let key = model.key();
        let Some(shard_key) = keys.get(&PartOf::Labels(key.clone())) else { return Ok(None) };
        let Some(table_key) = keys.get(&PartOf::Objects(key.clone())) else {
            reading.lacks(format!("the results in {shard_key}: the table of their objects"));
            return Ok(None);
        };
        let mut receipts = Vec::new();
        let summary = match keys.get(&PartOf::Results(key)) {
            Some(key) => self.summary(key, &mut receipts, reading).await?,
            None => None,
        };
        let Some((file, receipt)) = self.fetch_table(table_key, "objects", reading).await? else {
            return Ok(None);
        };
        let mut objects: HashMap<FrameId, Vec<Object>> = HashMap::new();
        let mut rows = 0;
        let read = read::objects(&file, |frame, object| {
            rows += 1;
            objects.entry(frame).or_default().push(object);
        });
        if let Err(error) = read {
            reading.lacks(format!("the results in {table_key}: {error}"));
            return Ok(None);
        }
        receipts.push(Receipt { rows, ..receipt });
        let Some((file, receipt)) = self.fetch(shard_key, "labels").await? else {
            return Ok(None);
        };
        let mut shard = match ShardReader::open(&file, shape(series, 4)) {
            Ok(shard) => shard,
            Err(error) => {
                reading.lacks(format!("the results in {shard_key}: {error}"));
                return Ok(None);
            }
        };
        let there = shard.positions();
        receipts.push(Receipt { rows: there, ..receipt });
        if summary.is_none() && there > 0 {
            reading.lacks(format!(
                "focus, timings and time of commit of the {there} results in {shard_key}: the \
                 archive has no table of them"
            ));
        }
        let mut results = Vec::new();
        for frame in frames {
            let labels = match shard.read(in_part(frame)) {
                Ok(Some(labels)) => labels,
                Ok(None) => continue,
                Err(error) => {
                    reading
                        .lacks(format!("the result of frame {}: {shard_key}: {error}", frame.id));
                    continue;
                }
            };
            let row = summary.as_ref().and_then(|rows| rows.get(&frame.id));
            let objects = objects.remove(&frame.id).unwrap_or_default();
            match result(frame, &labels, objects, row) {
                Ok(result) => results.push(result),
                Err(why) => reading.lacks(format!("the result of frame {}: {why}", frame.id)),
            }
        }
        Ok(Some(AdoptedResults { model: model.model.clone(), results, there, receipts }))
    }

    /// The table of results, by frame.
    async fn summary(
        &self,
        key: &str,
        receipts: &mut Vec<Receipt>,
        reading: &mut Reading<'_>,
    ) -> Result<Option<HashMap<FrameId, ResultRow>>, SyncError> {
        let Some((file, receipt)) = self.fetch_table(key, "results", reading).await? else {
            return Ok(None);
        };
        match read::results(&file) {
            Ok(rows) => {
                receipts.push(Receipt { rows: rows.len() as u64, ..receipt });
                Ok(Some(rows.into_iter().map(|row| (row.frame, row)).collect()))
            }
            Err(error) => {
                reading.lacks(format!("{key} cannot be read: {error}"));
                Ok(None)
            }
        }
    }

    /// Copies an object here, and says what was read; `None` where it went meanwhile. Each frame
    /// and each result in it is to be compared with its hash.
    async fn fetch(&self, key: &str, name: &str) -> Result<Option<(PathBuf, Receipt)>, SyncError> {
        let file = self.spool.join(format!("adopt-{name}"));
        let Some(Copied { found, .. }) = self.archive.fetch(key, &file).await? else {
            return Ok(None);
        };
        Ok(Some((file, self.receipt(key, found.bytes, found.sha256).await?)))
    }

    /// The same of a table, whose rows have no hash of their own: it must be what the archive
    /// took once.
    async fn fetch_table(
        &self,
        key: &str,
        name: &str,
        reading: &mut Reading<'_>,
    ) -> Result<Option<(PathBuf, Receipt)>, SyncError> {
        let file = self.spool.join(format!("adopt-{name}"));
        let Some(Copied { found, is_vouched_for }) = self.archive.fetch(key, &file).await? else {
            return Ok(None);
        };
        if !is_vouched_for {
            reading.lacks(format!("{key} cannot be read: {NOT_VOUCHED_FOR}"));
            return Ok(None);
        }
        Ok(Some((file, self.receipt(key, found.bytes, found.sha256).await?)))
    }
}

fn shape(series: &Series, bytes_per_pixel: u8) -> ShardShape {
    ShardShape {
        frames: series.part_frames,
        width: series.width,
        height: series.height,
        bytes_per_pixel,
    }
}

/// A result, if everything that the archive says of it agrees.
fn result(
    frame: &FrameFacts,
    labels: &[u8],
    objects: Vec<Object>,
    row: Option<&ResultRow>,
) -> Result<AdoptedResult, String> {
    let labels: Vec<u32> =
        labels.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    // A label above the number of pixels is damage; it would be counted up to.
    if labels.iter().any(|label| *label as usize > labels.len()) {
        return Err("its label image holds numbers that are no labels".to_owned());
    }
    let labels =
        LabelImage::new(frame.width, frame.height, labels).map_err(|error| error.to_string())?;
    let known = match row {
        Some(row) if row.labels_sha256 != labels.sha256() => {
            return Err("its label image is not the recorded one".to_owned());
        }
        Some(row) => (row.focus, row.timings, row.look, Some(stamp(&row.committed))),
        None => UNKNOWN,
    };
    AdoptedResult::new(frame.id, &labels, objects, known)
}

fn stamp(dated: &Dated) -> Stamp {
    Stamp { wall_ns: dated.recorded_ns, mono_ns: dated.mono_ns, boot_id: dated.boot }
}

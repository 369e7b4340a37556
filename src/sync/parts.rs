//! A part as objects of the archive, built from the store into files of the spool: one frame
//! after the other, so that memory does not grow with the part.
//!
//! The same part gives the same bytes. What the store cannot supply any more (pixels that were
//! evicted, a label image whose hash is not the recorded one) is taken from what the archive has,
//! hash against hash, where [`super::there`] found that it must be read.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::built::Built;
use super::there::{Fetched, ShardThere, TableThere, unwritten};
use super::undelivered::{Undelivered, gone};
use reticle_domain::facts::{BoxName, FrameFacts, ModelFacts, ResultFacts, Series, SessionFacts};
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_exchange::layout::{self, SeriesKeys};
use reticle_exchange::output::Output;
use reticle_exchange::tables::{
    Frames, ModelKey, ObjectRow, Objects, ParquetTable, Results, Table,
};
use reticle_exchange::zarr::{ShardShape, ShardWriter};
use reticle_store::{Item, Kind, Reader};

/// A part, ready to be sent.
pub(super) struct Part {
    pub(super) objects: Vec<Built>,
    /// Greatest key in it.
    pub(super) upto: i64,
    /// Frames or results in it.
    pub(super) rows: u64,
}

/// What a part is of.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) session: SessionFacts,
    pub(super) series: Series,
    pub(super) part: u64,
    pub(super) model: Option<ModelFacts>,
}

impl Subject {
    /// Keys of the objects that a delivery of this kind puts, in the order of
    /// [`Part::objects`].
    pub(super) fn keys(&self, kind: Kind, box_name: &str) -> Vec<String> {
        let Self { session, series, part, model } = self;
        let date = &session.archive_date;
        let keys = SeriesKeys::archived(series);
        match (kind, model) {
            (Kind::Frames, _) => vec![layout::frames_table(box_name, date, series, *part)],
            (Kind::Pixels, _) => vec![keys.image_shard(*part)],
            (Kind::Results, Some(model)) => vec![
                keys.label_shard(model, *part),
                layout::objects_table(box_name, date, series, model, *part),
                layout::results_table(box_name, date, series, model, *part),
            ],
            (Kind::Results, None) | (Kind::Session, _) => Vec::new(),
        }
    }

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

/// Builds one part.
pub(super) struct Building<'a> {
    pub(super) reader: &'a Reader,
    pub(super) box_name: &'a BoxName,
    pub(super) item: &'a Item,
    pub(super) subject: &'a Subject,
    /// Copies of what is there, where it must be read; by key.
    pub(super) copies: &'a [Fetched],
    /// Where the files go.
    pub(super) spooled: &'a dyn Fn(&str) -> PathBuf,
}

impl Building<'_> {
    /// The part, as the item's kind has it.
    pub(super) fn build(&self) -> Result<Part, Undelivered> {
        let refused = self.reader.refused_of(self.item)?;
        let mut keys = self.subject.keys(self.item.kind, &self.box_name.name).into_iter();
        let mut object = |name: &str| {
            let key = keys.next().ok_or_else(|| gone("its model"))?;
            Ok::<_, Undelivered>((key, (self.spooled)(name)))
        };
        match self.item.kind {
            Kind::Frames => self.frames(object("frames")?, &refused),
            Kind::Results => {
                let objects = [object("labels")?, object("objects")?, object("results")?];
                self.results(objects, &refused)
            }
            Kind::Pixels => self.pixels(object("pixels")?, &refused),
            Kind::Session => Err(gone("its part")),
        }
    }

    fn copy(&self, key: &str) -> Option<&Fetched> {
        self.copies.iter().find(|copy| copy.key == key)
    }

    fn table_there(
        &self,
        key: &str,
        known: &HashSet<String>,
    ) -> Result<Option<TableThere>, Undelivered> {
        self.copy(key).map(|copy| TableThere::open(copy, known)).transpose()
    }

    fn shard_there(
        &self,
        key: &str,
        shape: ShardShape,
        known: &HashSet<u32>,
    ) -> Result<Option<ShardThere>, Undelivered> {
        self.copy(key).map(|copy| ShardThere::open(copy, shape, known)).transpose()
    }

    /// The table of the part's frames.
    fn frames(&self, (key, path): (String, PathBuf), refused: &[i64]) -> Result<Part, Undelivered> {
        let frames = self.reader.frames_of(&self.subject.series, self.subject.positions())?;
        let upto = frames.iter().map(|frame| frame.pk).max().unwrap_or(self.item.wanted);
        let known = frames.iter().map(|frame| frame.id.to_string()).collect();
        let there = self.table_there(&key, &known)?;
        let mut table = table::<Frames>(&path)?;
        let mut lacks = false;
        for frame in &frames {
            if !refused.contains(&frame.pk) {
                table.push(&(Some(self.box_name), frame)).map_err(unwritten)?;
            } else if !take(there.as_ref(), frame, 1, &mut table)? {
                lacks = true;
            }
        }
        let rows = table.rows();
        there.map_or(Ok(()), |there| there.may_go(rows, lacks))?;
        let written = table.finish().map_err(unwritten)?;
        let built = Built { key, path, written, rows, lacks };
        Ok(Part { objects: vec![built], upto, rows: frames.len() as u64 })
    }

    /// The label images of one model, and the tables of their objects and of the results
    /// themselves.
    fn results(
        &self,
        [(shard_key, shard_path), (table_key, table_path), (summary_key, summary_path)]: [(String, PathBuf);
            3],
        refused: &[i64],
    ) -> Result<Part, Undelivered> {
        let subject = self.subject;
        let Some(model) = &subject.model else { return Err(gone("its model")) };
        let results = self.reader.results_of(&subject.series, model, subject.positions())?;
        let upto = results.iter().map(|result| result.pk).max().unwrap_or(self.item.wanted);
        let shape = subject.shard(4);
        let at = |result: &ResultFacts| subject.in_part(result.frame.position);
        let known = results.iter().map(at).collect();
        let mut shard_there = self.shard_there(&shard_key, shape, &known)?;
        let known = results.iter().map(|result| result.frame.id.to_string()).collect();
        let table_there = self.table_there(&table_key, &known)?;
        let summary_there = self.table_there(&summary_key, &known)?;
        let mut shard = ShardWriter::create(&shard_path, shape).map_err(unwritten)?;
        let mut summary = table::<Results>(&summary_path)?;
        let mut table = table::<Objects>(&table_path)?;
        let model_key = ModelKey::of(model);
        let (mut images, mut lacks_images, mut lacks_objects) = (0, false, false);
        for result in &results {
            // Of a result whose labels are damaged, all the rest is known.
            summary.push(&(&model_key, result)).map_err(unwritten)?;
            let is_whole = !refused.contains(&result.pk);
            let has_image = if is_whole {
                let labels =
                    self.reader.labels_of(result).map_err(Undelivered::reading(result.pk))?;
                shard.push_labels(at(result), labels.labels()).map_err(unwritten)?;
                true
            } else {
                // Its name stands in the quarantine. What the archive has of it stays.
                let kept = shard_there
                    .as_mut()
                    .map_or(Ok(None), |there| there.read(at(result), |kept| is_of(kept, result)))?;
                if let Some(kept) = &kept {
                    shard.push(at(result), kept).map_err(unwritten)?;
                }
                kept.is_some()
            };
            images += u64::from(has_image);
            lacks_images |= !has_image;
            match self.objects_of(result) {
                Ok(measured) if has_image => {
                    for object in &measured {
                        let row = ObjectRow { frame: &result.frame, model: &model_key, object };
                        table.push(&row).map_err(unwritten)?;
                    }
                }
                Err(error) if is_whole => return Err(error),
                Ok(_) | Err(_) => {
                    let recorded = u64::from(result.objects);
                    let took = take(table_there.as_ref(), &result.frame, recorded, &mut table)?;
                    lacks_objects |= !took;
                }
            }
        }
        shard_there.map_or(Ok(()), |there| there.may_go(images, lacks_images))?;
        let rows = table.rows();
        table_there.map_or(Ok(()), |there| there.may_go(rows, lacks_objects))?;
        let shard = Built {
            key: shard_key,
            path: shard_path,
            written: shard.finish().map_err(unwritten)?.written,
            rows: images,
            lacks: lacks_images,
        };
        let written = table.finish().map_err(unwritten)?;
        let table = Built { key: table_key, path: table_path, written, rows, lacks: lacks_objects };
        let rows = summary.rows();
        summary_there.map_or(Ok(()), |there| there.may_go(rows, false))?;
        let written = summary.finish().map_err(unwritten)?;
        let summary = Built { key: summary_key, path: summary_path, written, rows, lacks: false };
        Ok(Part { objects: vec![shard, table, summary], upto, rows: results.len() as u64 })
    }

    /// The objects of a result, as many as were recorded.
    fn objects_of(&self, result: &ResultFacts) -> Result<Vec<Object>, Undelivered> {
        let measured = self.reader.objects_of(result).map_err(Undelivered::reading(result.pk))?;
        if measured.len() as u64 == u64::from(result.objects) {
            return Ok(measured);
        }
        let (found, recorded, frame) = (measured.len(), result.objects, result.frame.id);
        let reason = format!(
            "{found} of the {recorded} objects of frame {frame} are here: run reticle fsck"
        );
        Err(Undelivered::One { subject: result.pk, reason })
    }

    /// The pixels that the archive is to have: from here, or what it has already.
    fn pixels(&self, (key, path): (String, PathBuf), refused: &[i64]) -> Result<Part, Undelivered> {
        let (reader, subject) = (self.reader, self.subject);
        let series = &subject.series;
        let frames = reader.frames_of(series, subject.positions())?;
        let archived = reader.archived_frames_of(series, subject.positions())?;
        let upto = archived.iter().map(|frame| frame.pk).max().unwrap_or(self.item.wanted);
        let wanted: HashSet<i64> = archived.iter().map(|frame| frame.pk).collect();
        let shape = subject.shard(series.bytes_per_pixel);
        let known = frames.iter().map(|frame| subject.in_part(frame.position)).collect();
        let mut there = self.shard_there(&key, shape, &known)?;
        let mut shard = ShardWriter::create(&path, shape).map_err(unwritten)?;
        let (mut rows, mut lacks) = (0, false);
        for frame in &frames {
            let position = subject.in_part(frame.position);
            let is_wanted = wanted.contains(&frame.pk);
            let pixels = if is_wanted && frame.has_pixels && !refused.contains(&frame.pk) {
                Some(self.pixels_of(frame)?)
            } else {
                // Evicted because the archive has it, or damaged here, or no longer asked for.
                let is_it = |kept: &[u8]| Sha256::digest(kept).as_slice() == frame.sha256;
                let kept = there.as_mut().map_or(Ok(None), |there| there.read(position, is_it))?;
                if kept.is_none() && is_wanted {
                    // Another archive than the one that it was evicted for never had it.
                    if let Some(copy) = self.copy(&key)
                        && !frame.has_pixels
                        && there.as_ref().is_some_and(ShardThere::was_changed)
                    {
                        return Err(copy.left(format!("the pixels of frame {} are gone", frame.id)));
                    }
                    lacks = true;
                }
                kept
            };
            if let Some(pixels) = pixels {
                shard.push(position, &pixels).map_err(unwritten)?;
                rows += 1;
            }
        }
        there.map_or(Ok(()), |there| there.may_go(rows, lacks))?;
        let written = shard.finish().map_err(unwritten)?.written;
        let built = Built { key, path, written, rows, lacks };
        Ok(Part { objects: vec![built], upto, rows: archived.len() as u64 })
    }

    fn pixels_of(&self, frame: &FrameFacts) -> Result<Vec<u8>, Undelivered> {
        let stored = self.reader.pixels(frame.id).map_err(Undelivered::reading(frame.pk))?;
        let stored = stored.ok_or_else(|| Undelivered::One {
            subject: frame.pk,
            reason: format!("the pixels of frame {} are gone: run reticle fsck", frame.id),
        })?;
        Ok(stored.pixels.to_le_bytes())
    }
}

/// Whether these are the labels that were recorded for the result.
fn is_of(labels: &[u8], result: &ResultFacts) -> bool {
    let labels = labels.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    LabelImage::new(result.frame.width, result.frame.height, labels)
        .is_ok_and(|image| image.sha256() == result.labels_sha256)
}

/// Takes the rows of a frame from a table that is there; false where there are none.
fn take<T: Table>(
    there: Option<&TableThere>,
    frame: &FrameFacts,
    recorded: u64,
    table: &mut ParquetTable<T>,
) -> Result<bool, Undelivered> {
    there.map_or(Ok(false), |there| there.take(&frame.id.to_string(), recorded, table))
}

/// A table that is sent, not kept.
fn table<T: Table>(file: &Path) -> Result<ParquetTable<T>, Undelivered> {
    Output::scratch(file).and_then(ParquetTable::new).map_err(unwritten)
}

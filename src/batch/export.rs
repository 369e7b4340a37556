//! Exports one session in a form that other programs read. Works beside a running daemon. What each
//! form holds is in `docs/guide/formats.md`.

use reticle_base::remedy::Remedy;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Cancelled, Observer, step};
use reticle_base::ids::SessionId;
use reticle_domain::facts::{FrameFacts, ModelFacts, ResultFacts, Series, SessionFacts};
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_exchange::coco::CocoWriter;
use reticle_exchange::layout::SeriesKeys;
use reticle_exchange::made::{self, Made};
use reticle_exchange::tables::{
    CsvTable, Frames, ModelKey, ObjectRow, Objects, ParquetTable, Results,
};
use reticle_exchange::zarr::{self, ShardShape, ShardWriter};
use reticle_exchange::{geojson, ome_tiff};
use reticle_store::{Reader, StoreError};

/// Positions whose facts are in memory at a time: some hundred kilobytes.
const BATCH: u64 = 1_000;

/// What is exported, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Session: its id, or "latest".
    pub session: String,
    /// What to write.
    pub format: Format,
    /// Folder for the files; made if it is not there.
    pub out: PathBuf,
    /// Results of this model only: its key or its name.
    pub model: Option<String>,
    /// Whether what an earlier export made in the folder may be removed.
    pub force: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Which session.
    pub session: SessionId,
    /// Keys of the models whose results were asked for.
    pub models: Vec<String>,
    /// Frames of the session.
    pub frames: u64,
    /// Frames written with their pixels.
    pub frames_with_pixels: u64,
    /// Label images, or results whose objects are in a table.
    pub results: u64,
    /// Objects in them.
    pub objects: u64,
    /// What could not be read, each as a sentence that names it.
    pub failed: Vec<String>,
    /// Whether it was ended before all was done.
    pub is_cancelled: bool,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OME-Zarr 0.5: pixels and label images of all models, one image for each series.
    OmeZarr,
    /// OME-TIFF: pixels and labels of each frame, as two files.
    OmeTiff,
    /// TIFF: labels of each frame.
    LabelTiff,
    /// COCO: masks of all frames in one document.
    Coco,
    /// GeoJSON for QuPath: polygons and measurements of each frame.
    Geojson,
    /// CSV tables of objects, results and frames.
    Csv,
    /// Parquet tables of objects, results and frames.
    Parquet,
}

impl Format {
    /// Whether there is room for the results of one model only.
    fn is_of_one_model(self) -> bool {
        matches!(self, Self::OmeTiff | Self::LabelTiff | Self::Coco | Self::Geojson)
    }

    /// Whether there is nothing to write without results.
    fn needs_results(self) -> bool {
        matches!(self, Self::LabelTiff | Self::Coco | Self::Geojson)
    }
}

/// Exports a session; a frame that cannot be read is reported by name and passed over.
///
/// # Errors
/// When there is no such session or model, when the output folder holds something, and when the
/// store cannot be read or the output not be written.
pub fn export(
    request: &Request,
    reader: Reader,
    observer: &dyn Observer,
) -> anyhow::Result<Report> {
    let session = find_session(&reader, &request.session)?;
    let models = reader.models_of(session.id)?;
    let models = choose_models(models, request.model.as_deref(), request.format)?;
    let series = reader.series(session.id)?;
    let made = prepare(&request.out, request.force)?;
    let frames: u64 = series.iter().map(|series| series.frames).sum();
    observer.begin(match request.format {
        Format::OmeZarr => frames * (1 + models.len() as u64),
        Format::OmeTiff => frames * 2,
        _ => frames * models.len().max(1) as u64,
    });
    let done = Done::default();
    let mut export = Export { reader, session, series, models, made, observer, done };
    let written = match request.format {
        Format::OmeZarr => export.ome_zarr(),
        Format::OmeTiff => export.ome_tiff(),
        Format::LabelTiff => export.label_tiff(),
        Format::Coco => export.coco(),
        Format::Geojson => export.geojson(),
        Format::Csv => export.csv(),
        Format::Parquet => export.parquet(),
    };
    let is_cancelled = match written {
        Ok(()) => false,
        Err(error) if error.is::<Cancelled>() => true,
        Err(error) => return Err(error),
    };
    let Done { pixels, results, objects, failed } = export.done;
    Ok(Report {
        session: export.session.id,
        models: export.models.iter().map(ModelFacts::key).collect(),
        frames: export.session.frames,
        frames_with_pixels: pixels,
        results,
        objects,
        failed,
        is_cancelled,
    })
}

/// What was written.
#[derive(Default)]
struct Done {
    /// Frames with their pixels.
    pixels: u64,
    /// Label images, or results whose objects are in a table.
    results: u64,
    /// Objects in them.
    objects: u64,
    failed: Vec<String>,
}

/// What ends an export at once, apart from a person who wants it to end: then the tables that were
/// begun are written to their end first.
fn or_cancelled(ended: anyhow::Result<()>) -> anyhow::Result<anyhow::Result<()>> {
    match ended {
        Err(error) if !error.is::<Cancelled>() => Err(error),
        ended => Ok(ended),
    }
}

struct Export<'a> {
    reader: Reader,
    session: SessionFacts,
    series: Vec<Series>,
    models: Vec<ModelFacts>,
    made: Made,
    observer: &'a dyn Observer,
    done: Done,
}

impl Export<'_> {
    fn ome_zarr(&mut self) -> anyhow::Result<()> {
        for series in self.series.clone() {
            let keys = SeriesKeys::exported(&series);
            for part in 0..series.parts() {
                self.image_shard(&series, &keys, part)?;
            }
            for model in self.models.clone() {
                for part in 0..series.parts() {
                    self.label_shard(&series, &model, &keys, part)?;
                }
            }
            // Readers begin at the group: it comes last, when all that it leads to is there.
            let pixel_size_um = self.pixel_size_um(&series)?;
            self.write(&keys.image_array(), &zarr::image_array(&series))?;
            for model in &self.models {
                let group = zarr::label_group(&series, model, pixel_size_um);
                self.write(&keys.label_array(model), &zarr::label_array(&series))?;
                self.write(&keys.label_group(model), &group)?;
            }
            self.write(&keys.labels(), &zarr::labels_group(&self.models))?;
            let group = zarr::image_group(&self.session.name, &series, pixel_size_um);
            self.write(&keys.group(), &group)?;
        }
        Ok(())
    }

    fn image_shard(&mut self, series: &Series, keys: &SeriesKeys, part: u64) -> anyhow::Result<()> {
        let range = part_range(series, part);
        let mut shard = None;
        for frame in self.reader.frames_of(series, range.clone())? {
            if let Some(pixels) = self.pixels(&frame)? {
                let writer = match &mut shard {
                    Some(writer) => writer,
                    none => none.insert(self.shard(
                        &keys.image_shard(part),
                        series,
                        series.bytes_per_pixel,
                    )?),
                };
                writer.push((frame.position - range.start) as u32, &pixels.to_le_bytes())?;
            }
            step(self.observer)?;
        }
        shard.map(ShardWriter::finish).transpose()?;
        Ok(())
    }

    fn label_shard(
        &mut self,
        series: &Series,
        model: &ModelFacts,
        keys: &SeriesKeys,
        part: u64,
    ) -> anyhow::Result<()> {
        let range = part_range(series, part);
        let mut shard = None;
        for result in self.reader.results_of(series, model, range.clone())? {
            if let Some(labels) = self.labels(&result)? {
                let writer = match &mut shard {
                    Some(writer) => writer,
                    none => none.insert(self.shard(&keys.label_shard(model, part), series, 4)?),
                };
                let position = result.frame.position - range.start;
                writer.push_labels(position as u32, labels.labels())?;
            }
            step(self.observer)?;
        }
        shard.map(ShardWriter::finish).transpose()?;
        Ok(())
    }

    fn shard(
        &self,
        key: &str,
        series: &Series,
        bytes_per_pixel: u8,
    ) -> anyhow::Result<ShardWriter> {
        let shape = ShardShape {
            frames: series.part_frames,
            width: series.width,
            height: series.height,
            bytes_per_pixel,
        };
        Ok(ShardWriter::new(self.made.begin(key)?, shape)?)
    }

    /// That of the first frame that knows one, else the session's.
    fn pixel_size_um(&self, series: &Series) -> Result<Option<f64>, StoreError> {
        let first = self.reader.frames_of(series, 0..1)?;
        let known = first.first().and_then(|frame| frame.pixel_size_um);
        Ok(known.or(self.session.pixel_size_um))
    }

    fn ome_tiff(&mut self) -> anyhow::Result<()> {
        for series in self.series.clone() {
            for range in batches(&series) {
                for frame in self.reader.frames_of(&series, range.clone())? {
                    if let Some(pixels) = self.pixels(&frame)? {
                        let bytes = ome_tiff::encode_frame(&frame, pixels)?;
                        self.write(&ome_tiff::frame_name(frame.id), &bytes)?;
                    }
                    step(self.observer)?;
                }
            }
        }
        self.each_result(|this, result| {
            let Some(labels) = this.labels(result)? else { return Ok(()) };
            let bytes = ome_tiff::encode_labels(&result.frame, &labels)?;
            this.write(&ome_tiff::labels_name(result.frame.id), &bytes)
        })
    }

    fn label_tiff(&mut self) -> anyhow::Result<()> {
        self.each_result(|this, result| {
            let Some(labels) = this.labels(result)? else { return Ok(()) };
            this.write(
                &format!("{}.tif", result.frame.id),
                &reticle_imagefile::encode_labels_tiff(&labels),
            )
        })
    }

    fn coco(&mut self) -> anyhow::Result<()> {
        let [model] = self.models.as_slice() else { return Ok(()) };
        let output = self.made.begin("coco.json")?;
        let mut coco = CocoWriter::new(output, &self.session, model)?;
        let ended = self.each_result(|this, result| {
            let Some(labels) = this.labels(result)? else { return Ok(()) };
            Ok(coco.add(&result.frame, &labels)?)
        });
        let ended = or_cancelled(ended)?;
        coco.finish()?;
        ended
    }

    fn geojson(&mut self) -> anyhow::Result<()> {
        self.each_result(|this, result| {
            let Some(labels) = this.labels(result)? else { return Ok(()) };
            let objects = this.reader.objects_of(result)?;
            let bytes = geojson::encode(&result.frame, &labels, &objects);
            this.write(&format!("{}.geojson", result.frame.id), &bytes)
        })
    }

    fn csv(&mut self) -> anyhow::Result<()> {
        let mut frames = CsvTable::<Frames>::new(self.made.begin("frames.csv")?)?;
        let mut objects = CsvTable::<Objects>::new(self.made.begin("objects.csv")?)?;
        self.each_frame(|frame| Ok(frames.push(&(None, frame))?))?;
        let mut results = CsvTable::<Results>::new(self.made.begin("results.csv")?)?;
        let ended = or_cancelled(self.each_model_result(
            |row| Ok(objects.push(&row)?),
            |model, result| Ok(results.push(&(model, result))?),
        ))?;
        frames.finish()?;
        objects.finish()?;
        results.finish()?;
        ended
    }

    fn parquet(&mut self) -> anyhow::Result<()> {
        let mut frames = ParquetTable::<Frames>::new(self.made.begin("frames.parquet")?)?;
        let mut objects = ParquetTable::<Objects>::new(self.made.begin("objects.parquet")?)?;
        self.each_frame(|frame| Ok(frames.push(&(None, frame))?))?;
        let mut results = ParquetTable::<Results>::new(self.made.begin("results.parquet")?)?;
        let ended = or_cancelled(self.each_model_result(
            |row| Ok(objects.push(&row)?),
            |model, result| Ok(results.push(&(model, result))?),
        ))?;
        frames.finish()?;
        objects.finish()?;
        results.finish()?;
        ended
    }

    fn each_frame(
        &self,
        mut each: impl FnMut(&FrameFacts) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for series in &self.series {
            for range in batches(series) {
                self.reader.frames_of(series, range)?.iter().try_for_each(&mut each)?;
            }
        }
        Ok(())
    }

    /// Hands out each object, and each result after its objects.
    fn each_model_result(
        &mut self,
        mut each_object: impl FnMut(ObjectRow<'_>) -> anyhow::Result<()>,
        mut each_result: impl FnMut(&ModelKey, &ResultFacts) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let keys: Vec<ModelKey> = self.models.iter().map(ModelKey::of).collect();
        self.each_result(|this, result| {
            let key = result.model.key();
            let model = keys.iter().find(|model| model.key() == key);
            let model = model.context("a result came of a model that was not asked for")?;
            for object in this.reader.objects_of(result)? {
                each_object(ObjectRow { frame: &result.frame, model, object: &object })?;
            }
            each_result(model, result)?;
            this.done.results += 1;
            this.done.objects += u64::from(result.objects);
            Ok(())
        })
    }

    /// All results of the chosen models, by series, model and position.
    fn each_result(
        &mut self,
        mut each: impl FnMut(&mut Self, &ResultFacts) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for series in self.series.clone() {
            for model in self.models.clone() {
                for range in batches(&series) {
                    for result in self.reader.results_of(&series, &model, range)? {
                        each(self, &result)?;
                        step(self.observer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The frame's pixels, if they are on the box and sound.
    fn pixels(&mut self, frame: &FrameFacts) -> anyhow::Result<Option<Pixels>> {
        if !frame.has_pixels {
            return Ok(None);
        }
        let stored = self.reader.pixels(frame.id).map(|stored| stored.map(|stored| stored.pixels));
        let pixels = self.unless_damaged(stored)?.flatten();
        self.done.pixels += u64::from(pixels.is_some());
        Ok(pixels)
    }

    /// The label image, if it is sound.
    fn labels(&mut self, result: &ResultFacts) -> anyhow::Result<Option<LabelImage>> {
        let labels = self.reader.labels_of(result);
        let labels = self.unless_damaged(labels)?;
        if labels.is_some() {
            self.done.results += 1;
            self.done.objects += u64::from(result.objects);
        }
        Ok(labels)
    }

    /// What is wrong with one frame is reported; what is wrong with the store ends the export.
    fn unless_damaged<T>(&mut self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.remedy() == Remedy::GiveUp => {
                let why = error.to_string();
                self.observer.say(&why);
                self.done.failed.push(why);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&self, key: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.made.put(key, None, bytes)?;
        Ok(())
    }
}

fn batches(series: &Series) -> impl Iterator<Item = Range<u64>> + use<> {
    let frames = series.frames;
    (0..frames).step_by(BATCH as usize).map(move |start| start..(start + BATCH).min(frames))
}

/// Positions of a part at which there were frames when the export began.
fn part_range(series: &Series, part: u64) -> Range<u64> {
    let Range { start, end } = series.part_positions(part);
    start..end.min(series.frames)
}

/// The session that people mean: an id, or the newest.
pub(super) fn find_session(reader: &Reader, text: &str) -> anyhow::Result<SessionFacts> {
    let sessions = reader.sessions()?;
    let Some(newest) = sessions.first() else {
        bail!("there is no session in this store yet; `reticle run` takes one");
    };
    let id = if text == "latest" {
        newest.id
    } else {
        text.parse().with_context(|| format!("\"{text}\" is neither a session's id nor latest"))?
    };
    reader.session_facts(id)?.with_context(|| {
        format!("there is no session {id}; the newest is {} ({})", newest.id, newest.name)
    })
}

fn choose_models(
    models: Vec<ModelFacts>,
    wanted: Option<&str>,
    format: Format,
) -> anyhow::Result<Vec<ModelFacts>> {
    let keys =
        |models: &[ModelFacts]| models.iter().map(ModelFacts::key).collect::<Vec<_>>().join(", ");
    let chosen = match wanted {
        None => models,
        Some(wanted) => {
            let is_wanted =
                |model: &ModelFacts| model.key() == wanted || model.model.name == wanted;
            let chosen: Vec<ModelFacts> =
                models.iter().filter(|model| is_wanted(model)).cloned().collect();
            if chosen.is_empty() {
                bail!(
                    "no model {wanted} has results in this session; there are: {}",
                    keys(&models)
                );
            }
            chosen
        }
    };
    if format.is_of_one_model() && chosen.len() > 1 {
        bail!("several models have results; choose one by --model: {}", keys(&chosen));
    }
    if format.needs_results() && chosen.is_empty() {
        bail!("the session has no results, so there is nothing to write");
    }
    Ok(chosen)
}

/// Takes the output folder; one that holds something is refused unless forced. What an earlier
/// export made in it goes, so that frames of another session are not among those of this one.
fn prepare(out: &Path, force: bool) -> anyhow::Result<Made> {
    let mut made = Made::open(out)?;
    let is_ours = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == made::LIST)
    };
    let holds_something = std::fs::read_dir(out).is_ok_and(|mut entries| !entries.all(is_ours));
    if holds_something && !force {
        bail!("{} holds something; choose another folder, or --force", out.display());
    }
    made.clear()?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(frames: u64) -> Series {
        Series {
            pk: 1,
            session: SessionId::new(),
            number: 0,
            width: 4,
            height: 4,
            bytes_per_pixel: 1,
            part_frames: 3,
            frames,
        }
    }

    #[test]
    fn parts_and_batches_cover_each_position_once() {
        for frames in [0, 1, 3, 4, 2_500] {
            let series = series(frames);
            let in_parts = (0..series.parts()).flat_map(|part| part_range(&series, part));
            assert!(in_parts.eq(0..frames), "{frames}");
            assert!(batches(&series).flatten().eq(0..frames), "{frames}");
        }
    }
}

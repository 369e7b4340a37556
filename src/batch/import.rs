//! Imports label images of other programs: they become results of a session, as if a model of the
//! given name had found them.

use reticle_base::remedy::Remedy;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::export::find_session;
use super::{Cancelled, Observer, step};
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{FrameFacts, ModelFacts, Series, SessionFacts};
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::segmentation::ModelRef;
use reticle_exchange::import::{self as exchange, Clue, Found, Kind, Source};
use reticle_segment::measure;
use reticle_store::{Imported, Outcome, Reader, StoreError};

/// Positions whose facts are in memory at a time.
const BATCH: u64 = 1_000;

/// What is imported, and under which name.
#[derive(Clone, Debug)]
pub struct Request {
    /// Label images, documents, and folders of them.
    pub paths: Vec<PathBuf>,
    /// Session that the frames belong to: its id, or "latest".
    pub session: String,
    /// Name under which the results are saved, as a model's.
    pub name: String,
    /// What the files are; as they look unless said.
    pub kind: Option<Kind>,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Which session.
    pub session: SessionId,
    /// Key of the model under which the results are saved.
    pub model: String,
    /// Label images that were saved.
    pub imported: u64,
    /// Objects in them.
    pub objects: u64,
    /// Frames that had these labels already, under the same model.
    pub already_saved: u64,
    /// Of those imported, measured without pixels.
    pub without_pixels: u64,
    /// What was not imported, each as a sentence that names it.
    pub failed: Vec<String>,
    /// Whether it was ended before all was done.
    pub is_cancelled: bool,
}

/// Saves one label image as a result: by a store that nobody else has, or through the queue of a
/// daemon.
pub type Save<'a> = &'a mut dyn FnMut(Imported) -> Result<Outcome, StoreError>;

/// An import of which is known that it makes sense: there are files, and their session.
pub struct Import {
    session: SessionFacts,
    sources: Vec<Source>,
    model: ModelRef,
}

impl Import {
    /// Looks at what is to be imported. Reads the store, and writes nothing.
    ///
    /// # Errors
    /// When there is no such session, or no file that could be read.
    pub fn plan(request: &Request, reader: &Reader) -> anyhow::Result<Self> {
        let session = find_session(reader, &request.session)?;
        let mut sources = exchange::sources(&request.paths)?;
        if let Some(kind) = request.kind {
            sources.iter_mut().for_each(|source| source.kind = kind);
        }
        if sources.is_empty() {
            bail!("nothing to import; PNG, TIFF, OME-Zarr, COCO and GeoJSON are read");
        }
        let model = model(request, &sources)?;
        Ok(Self { session, sources, model })
    }

    /// Imports the label images; one that cannot be read, or belongs to no frame of the session, is
    /// reported by name and passed over.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn run(
        self,
        reader: &Reader,
        save: Save<'_>,
        observer: &dyn Observer,
    ) -> anyhow::Result<Report> {
        let Self { session, sources, model } = self;
        let frames = Frames::of(reader, &session)?;
        observer.begin(0);
        let (seen, done) = (HashSet::new(), Done::default());
        let mut importing = Importing { reader, save, observer, frames, model, seen, done };
        let mut stopped = None;
        for source in &sources {
            if stopped.is_some() {
                break;
            }
            exchange::read(source, session.frames, &mut |found| {
                if stopped.is_none() {
                    stopped = importing.one(found).err();
                }
            });
        }
        let is_cancelled = match stopped {
            None => false,
            Some(error) if error.is::<Cancelled>() => true,
            Some(error) => return Err(error),
        };
        let Importing { model, done, .. } = importing;
        let Done { imported, objects, already_saved, without_pixels, failed } = done;
        Ok(Report {
            session: session.id,
            model: ModelFacts { pk: 0, model }.key(),
            imported,
            objects,
            already_saved,
            without_pixels,
            failed,
            is_cancelled,
        })
    }
}

/// What the results are saved under: the same files give the same model.
fn model(request: &Request, sources: &[Source]) -> anyhow::Result<ModelRef> {
    let files: Vec<_> = request.paths.iter().map(|path| path.to_string_lossy()).collect();
    let mut formats: Vec<String> =
        sources.iter().map(|source| format!("{:?}", source.kind).to_lowercase()).collect();
    formats.sort();
    formats.dedup();
    Ok(ModelRef {
        name: request.name.clone(),
        sha256: hex::encode(exchange::digest(sources)?),
        parameters: json!({ "imported": { "files": files, "formats": formats } }).to_string(),
        software: concat!("reticle ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

#[derive(Default)]
struct Done {
    imported: u64,
    objects: u64,
    already_saved: u64,
    /// Of those imported, measured without pixels.
    without_pixels: u64,
    failed: Vec<String>,
}

struct Importing<'a> {
    reader: &'a Reader,
    save: Save<'a>,
    observer: &'a dyn Observer,
    frames: Frames,
    model: ModelRef,
    seen: HashSet<FrameId>,
    done: Done,
}

impl Importing<'_> {
    /// Saves one label image, or reports why not. An error ends the import.
    fn one(&mut self, found: Result<Found, reticle_exchange::ReadError>) -> anyhow::Result<()> {
        match found {
            Ok(found) => {
                let name = found.name();
                match self.frame_of(&found)? {
                    Ok(frame) if self.seen.contains(&frame.id) => self.fail(format!(
                        "{name}: frame {} has got another label image before it",
                        frame.id
                    )),
                    Ok(frame) => match found.labels((frame.width, frame.height)) {
                        Ok(labels) => self.save(&name, &frame, labels)?,
                        Err(error) => self.fail(error.to_string()),
                    },
                    Err(why) => self.fail(format!("{name}: {why}")),
                }
            }
            Err(error) => self.fail(error.to_string()),
        }
        Ok(step(self.observer)?)
    }

    fn fail(&mut self, why: String) {
        self.observer.say(&why);
        self.done.failed.push(why);
    }

    fn frame_of(&self, found: &Found) -> anyhow::Result<Result<FrameFacts, String>> {
        let place = match self.frames.place(found.clue(), found.size()) {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let series = &self.frames.series[place.series];
        let facts = self.reader.frames_of(series, place.position..place.position + 1)?;
        Ok(facts.into_iter().next().ok_or_else(|| "its frame is not there any more".to_owned()))
    }

    fn save(&mut self, name: &str, frame: &FrameFacts, labels: LabelImage) -> anyhow::Result<()> {
        let labels = if labels.is_contiguous() { labels } else { labels.relabelled() };
        let pixels = match self.reader.pixels(frame.id) {
            Ok(stored) => stored.map(|stored| stored.pixels),
            Err(error) if error.remedy() == Remedy::GiveUp => {
                self.fail(format!("{name}: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let objects = measured(&labels, pixels.as_ref());
        let count = objects.len() as u64;
        let imported = Imported {
            frame: frame.id,
            model: self.model.clone(),
            labels,
            objects,
            // Not told: the score needs the grey values' span that a segmenter normalised by.
            focus: f32::NAN,
        };
        match (self.save)(imported) {
            Ok(Outcome::AlreadySaved { same: false, record }) => self.fail(format!(
                "{name}: frame {} has other labels under this name already, with {} objects, and \
                 they stay; import under another --name",
                frame.id,
                record.objects()
            )),
            Ok(Outcome::AlreadySaved { .. }) => {
                self.seen.insert(frame.id);
                self.done.already_saved += 1;
            }
            Ok(_) => {
                self.seen.insert(frame.id);
                self.done.imported += 1;
                self.done.objects += count;
                self.done.without_pixels += u64::from(pixels.is_none());
            }
            Err(error) if error.remedy() == Remedy::GiveUp => self.fail(format!("{name}: {error}")),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Measures objects; where the pixels are gone, grey values are not numbers.
fn measured(labels: &LabelImage, pixels: Option<&Pixels>) -> Vec<Object> {
    if let Some(pixels) = pixels {
        return measure::objects(labels, pixels);
    }
    let black = Pixels::U8(vec![0; labels.labels().len()]);
    let mut objects = measure::objects(labels, &black);
    for object in &mut objects {
        object.intensity_mean = f64::NAN;
        object.intensity_max = f64::NAN;
        object.intensity_min = f64::NAN;
    }
    objects
}

/// Where a frame is in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Index of its series.
    series: usize,
    position: u64,
}

/// The frames of a session, by what label images may say of them.
struct Frames {
    session: SessionFacts,
    series: Vec<Series>,
    by_id: HashMap<FrameId, Place>,
    /// By the name of the file they came from; `None` where several came from one.
    by_name: HashMap<String, Option<Place>>,
}

impl Frames {
    fn of(reader: &Reader, session: &SessionFacts) -> anyhow::Result<Self> {
        let mut frames = Self {
            session: session.clone(),
            series: reader.series(session.id)?,
            by_id: HashMap::new(),
            by_name: HashMap::new(),
        };
        for number in 0..frames.series.len() {
            let series = frames.series[number].clone();
            for start in (0..series.frames).step_by(BATCH as usize) {
                for frame in reader.frames_of(&series, start..start + BATCH)? {
                    frames.add(number, &frame);
                }
            }
        }
        Ok(frames)
    }

    fn add(&mut self, series: usize, frame: &FrameFacts) {
        let place = Place { series, position: frame.position };
        self.by_id.insert(frame.id, place);
        if let Some(origin) = &frame.origin {
            self.by_name
                .entry(exchange::name_of_origin(origin))
                .and_modify(|several| *several = None)
                .or_insert(Some(place));
        }
    }

    /// Which frame is meant, or why that is not known.
    fn place(&self, clue: &Clue, size: Option<(u32, u32)>) -> Result<Place, String> {
        if let Some(place) = clue.frame.and_then(|id| self.by_id.get(&id)) {
            return Ok(*place);
        }
        let named = clue.name.as_ref().and_then(|name| Some((name, self.by_name.get(name)?)));
        match named {
            Some((_, Some(place))) => return Ok(*place),
            Some((name, None)) => {
                return Err(format!(
                    "several frames came from a file {name}; name the file after the frame's id"
                ));
            }
            None => {}
        }
        let session = &self.session;
        let Some(position) = clue.position else {
            return Err(format!(
                "belongs to no frame of session {} ({}); name it after the frame's id or its file",
                session.id, session.name
            ));
        };
        let fits = |(_, series): &(usize, &Series)| match clue.series {
            Some(number) => series.number == number,
            None => size == Some((series.width, series.height)),
        };
        let mut fitting = self.series.iter().enumerate().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some((number, series)), None) if position < series.frames => {
                Ok(Place { series: number, position })
            }
            (Some((_, series)), None) => {
                Err(format!("the series has {} frames only", series.frames))
            }
            (Some(_), Some(_)) => {
                Err("several series are of this size; name the folder series-N.ome.zarr".to_owned())
            }
            (None, _) => Err(format!("session {} has no such series", session.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use reticle_base::ids::SessionId;
    use reticle_domain::facts::Dated;

    const DATED: Dated = Dated { at_ns: 0, recorded_ns: 0, mono_ns: 0, boot: Uuid::nil() };

    fn series(number: u32, width: u32) -> Series {
        Series {
            pk: number.into(),
            session: SessionId::from_bytes([1; 16]),
            number,
            width,
            height: 4,
            bytes_per_pixel: 1,
            part_frames: 3,
            frames: 2,
        }
    }

    fn frame(position: u64, origin: &str) -> FrameFacts {
        FrameFacts {
            pk: 1,
            id: FrameId::new(),
            session: SessionId::from_bytes([1; 16]),
            series: 0,
            position,
            sequence: 0,
            captured: DATED,
            exposure_us: None,
            width: 4,
            height: 4,
            bit_depth: 8,
            sha256: [0; 32],
            pixel_size_um: None,
            pixel_size_source: None,
            pixel_size_note: None,
            place: reticle_domain::frame::Place::default(),
            origin: Some(origin.to_owned()),
            segmented: false,
            has_pixels: false,
        }
    }

    fn frames(series: Vec<Series>) -> Frames {
        let session = SessionFacts {
            id: SessionId::from_bytes([1; 16]),
            name: "plate 7".into(),
            source: "virtual".into(),
            channel: None,
            operator: None,
            pixel_size_um: None,
            started: DATED,
            ended: None,
            frames: 2,
            segmentations: 0,
            objects: 0,
            archive_date: "2026-01-01".into(),
        };
        Frames { session, series, by_id: HashMap::new(), by_name: HashMap::new() }
    }

    #[test]
    fn a_frame_is_found_by_id_then_by_its_file_then_by_position() {
        let mut frames = frames(vec![series(0, 4), series(1, 5)]);
        let (first, second) = (frame(0, "drop/t1.tif"), frame(1, "drop/t2.tif"));
        frames.add(0, &first);
        frames.add(0, &second);
        let at = |series, position| Ok(Place { series, position });
        let by_id = Clue { frame: Some(second.id), name: Some("t1".into()), ..Clue::default() };
        assert_eq!(frames.place(&by_id, None), at(0, 1));
        let by_name = Clue { frame: Some(FrameId::new()), ..by_id };
        assert_eq!(frames.place(&by_name, None), at(0, 0));
        let by_series = Clue { position: Some(1), series: Some(1), ..Clue::default() };
        assert_eq!(frames.place(&by_series, Some((9, 9))), at(1, 1));
        let by_size = Clue { position: Some(1), ..Clue::default() };
        assert_eq!(frames.place(&by_size, Some((5, 4))), at(1, 1));
    }

    #[test]
    fn what_is_not_certain_is_refused_with_what_to_do() {
        let mut frames = frames(vec![series(0, 4), series(1, 4)]);
        frames.add(0, &frame(0, "monday/t1.tif"));
        frames.add(0, &frame(1, "tuesday/t1.tif"));
        let refused = |clue: Clue, size| frames.place(&clue, size).unwrap_err();
        let name = Clue { name: Some("t1".into()), ..Clue::default() };
        assert!(refused(name, None).contains("several frames came from a file t1"));
        let none = Clue { name: Some("t9".into()), ..Clue::default() };
        assert!(refused(none, None).contains("name it after the frame's id"));
        let position = Clue { position: Some(0), ..Clue::default() };
        assert!(refused(position.clone(), Some((4, 4))).contains("several series"));
        assert!(refused(position, Some((7, 7))).contains("no such series"));
        let far = Clue { position: Some(2), series: Some(1), ..Clue::default() };
        assert!(refused(far, None).contains("2 frames only"));
    }

    #[test]
    fn without_pixels_shapes_are_measured_and_grey_values_are_not_numbers() {
        let labels = LabelImage::new(3, 1, vec![0, 1, 1]).unwrap();
        let object = &measured(&labels, None)[0];
        assert_eq!((object.area, object.bbox_1, object.touches_border), (2, 1, true));
        assert!(object.intensity_mean.is_nan() && object.intensity_max.is_nan());
        let object = &measured(&labels, Some(&Pixels::U8(vec![1, 2, 4])))[0];
        assert_eq!(object.intensity_mean, 3.0);
    }
}

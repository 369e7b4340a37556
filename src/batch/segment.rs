//! Segments a set of image files: label images and tables in a folder.
//!
//! 1. A broken image, and a second one of the same name, is reported by name and passed over.
//! 2. The tables grow as images are done, in the order of the images: an image that was counted as
//!    done stands in them, also after a kill. They are the same whatever order the workers end in.
//! 3. Cancelled, it ends after the images that are being segmented; the tables hold what was done.

mod plan;
mod results;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use serde::Serialize;

use self::plan::{Input, Planned, plan};
use self::results::{Results, Tables};
use super::Observer;
use reticle_base::clock::Clock;
use reticle_base::queue::{self, WhenFull};
use reticle_domain::look::{Look, ScaleFrom, Unlike};
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_exchange::tables::{ImageRef, ImageRow};
use reticle_imagefile::{Limits, Page, Selection, Survey};
use reticle_segment::package::ModelPackage;
use reticle_segment::{Options, Segmenter};

/// What is segmented, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Images, and folders of images.
    pub paths: Vec<PathBuf>,
    /// Folder for the results.
    pub out: PathBuf,
    /// Whether results of images that are not given now may be removed.
    pub force: bool,
    /// Model package: a built-in name or a folder.
    pub model: String,
    /// Images at a time; one for each processor core unless said.
    pub jobs: Option<NonZeroUsize>,
    /// Typical diameter of the objects.
    pub object_diameter_px: Option<f32>,
    /// Images of more megapixels are refused.
    pub max_megapixels: Option<f64>,
    /// Which channel and plane of images that hold several.
    pub selection: Selection,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Each page that was segmented.
    pub images: Vec<ImageReport>,
    /// Objects in all of them.
    pub objects: usize,
    /// What could not be segmented, each as a sentence that names it.
    pub failed: Vec<String>,
    /// What is in the folders that were given and was not taken for an image.
    pub left_out: Vec<String>,
    /// Whether it was ended before all was done.
    pub is_cancelled: bool,
}

/// One page of one image.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the JSON document of `reticle segment`")]
pub struct ImageReport {
    pub image: String,
    pub page: u32,
    pub labels: PathBuf,
    pub objects: usize,
    pub focus: f32,
    pub scale_from: ScaleFrom,
    pub scale: f32,
    pub size_ratio: Option<f32>,
    pub unlike: Option<Unlike>,
    pub milliseconds: f64,
    pub pixel_size_um: Option<f64>,
    pub pixel_size_source: Option<PixelSizeSource>,
    pub pixel_size_note: Option<String>,
}

/// Everything made of one page of one image.
struct Done {
    image: String,
    page: u32,
    pixel_size_um: Option<f64>,
    pixel_size_source: Option<PixelSizeSource>,
    pixel_size_note: Option<String>,
    labels: PathBuf,
    objects: Arc<Vec<Object>>,
    focus: f32,
    look: Look,
    model: String,
    milliseconds: f64,
}

/// What a worker tells the collector; `last` ends an image.
struct Told {
    index: usize,
    page: Result<Option<Done>, String>,
}

/// Segments all images.
///
/// # Errors
/// When nothing can be done at all: no image, no model, no room for results.
pub fn segment(
    request: &Request,
    clock: &Clock,
    observer: &dyn Observer,
) -> anyhow::Result<Report> {
    let Survey { images, failed, left_out } =
        reticle_imagefile::survey(&request.paths, Some(&request.out));
    let mut failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    for said in left_out.iter().chain(&failed) {
        observer.say(said);
    }
    if images.is_empty() {
        bail!(
            "no image found in {}; TIFF, PNG and JPEG are read{}",
            display_all(&request.paths),
            if left_out.is_empty() { "" } else { ", and what was left out is named above" }
        );
    }
    let pages = |path: &Path| {
        let pages = reticle_imagefile::open_chosen(path, Limits::default(), &request.selection);
        pages.map_or(1, |pages| pages.total())
    };
    let Planned { images, passed_over } = plan(images, pages);
    for why in &passed_over {
        observer.say(why);
    }
    failed.extend(passed_over);
    let mut results = Results::take(&request.out, &images, request.force)?;

    let package = ModelPackage::find(&request.model)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = request.jobs.map_or(cores, NonZeroUsize::get).min(images.len());
    let options = Options {
        model: request.model.clone(),
        // Cores are shared out between images; a single large image gets all of them.
        threads: NonZeroUsize::new(cores / jobs),
        object_diameter_px: request.object_diameter_px,
        max_megapixels: request.max_megapixels.unwrap_or(Options::default().max_megapixels),
    };
    let segmenters = (0..jobs)
        .map(|_| Segmenter::with_package(package.clone(), &options, clock.clone()))
        .collect::<Result<Vec<_>, _>>()?;

    // Nothing is in the way of segmenting now.
    results.clear()?;
    let mut tables = results.tables()?;
    observer.begin(images.len() as u64);
    let next = AtomicUsize::new(0);
    let (told, listen) = queue::bounded("results", 2 * jobs, WhenFull::Wait);
    let model = package.manifest().name.clone();
    let report = Report { model, failed, left_out, ..Report::default() };
    let mut collected = Collected { report, noted: BTreeSet::new() };
    std::thread::scope(|scope| {
        for segmenter in segmenters {
            let told = told.clone();
            let work = Work {
                images: &images,
                next: &next,
                results: &results,
                limits: limits(&options, jobs),
                selection: &request.selection,
                clock,
                observer,
            };
            scope.spawn(move || work.run(segmenter, &told));
        }
        drop(told);
        // Dropping `listen` on an error lets the workers end.
        collected.collect(listen, &mut tables, observer)
    })?;
    tables.finish()?;
    collected.report.is_cancelled = observer.is_cancelled();
    Ok(collected.report)
}

/// Limits of one worker: each of them may have an image as large as this one.
fn limits(options: &Options, jobs: usize) -> Limits {
    let limits = options.limits();
    let bytes_a_pixel = limits.bytes_a_pixel.saturating_mul(jobs as u64);
    Limits { to_raise: Some("--max-megapixels"), bytes_a_pixel, ..limits }
}

struct Work<'a> {
    images: &'a [Input],
    next: &'a AtomicUsize,
    results: &'a Results,
    limits: Limits,
    selection: &'a Selection,
    clock: &'a Clock,
    observer: &'a dyn Observer,
}

impl Work<'_> {
    fn run(&self, mut segmenter: Segmenter, told: &queue::Sender<Told>) {
        while !self.observer.is_cancelled() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(input) = self.images.get(index) else { return };
            let tell = |page| matches!(told.send(Told { index, page }), queue::Sent::Queued);
            match reticle_imagefile::open_chosen(&input.path, self.limits, self.selection) {
                Err(error) => {
                    tell(Err(error.to_string()));
                }
                Ok(pages) => {
                    for note in pages.notes() {
                        self.observer.say(&format!("{} {note}", input.path.display()));
                    }
                    let several = pages.total() > 1;
                    for page in pages {
                        let done = page
                            .map_err(anyhow::Error::from)
                            .and_then(|page| self.page(input, several, page, &mut segmenter));
                        let told = tell(done.map(Some).map_err(|error| format!("{error:#}")));
                        if !told {
                            return;
                        }
                    }
                }
            }
            if !tell(Ok(None)) {
                return;
            }
        }
    }

    fn page(
        &self,
        input: &Input,
        several: bool,
        page: Page,
        segmenter: &mut Segmenter,
    ) -> anyhow::Result<Done> {
        let path = &input.path;
        let image = reticle_imagefile::shown_name(path);
        let start = self.clock.now();
        let number = u32::try_from(page.index)?;
        let (pixel_size_um, pixel_size_source) = (page.pixel_size_um, page.pixel_size_source);
        let pixel_size_note = page.pixel_size_note.clone();
        let frame = page
            .into_shot(start, image.clone())
            .into_frame()
            .with_context(|| path.display().to_string())?;
        let segmentation =
            segmenter.segment(&Arc::new(frame)).with_context(|| path.display().to_string())?;
        let page = several.then_some(number);
        let labels = self.results.labels(input, page, &segmentation.labels)?;
        Ok(Done {
            image,
            page: number,
            pixel_size_um,
            pixel_size_source,
            pixel_size_note,
            labels,
            objects: segmentation.objects,
            focus: segmentation.focus,
            look: segmentation.look,
            model: segmentation.model.name.clone(),
            milliseconds: self.clock.now().since(&start).as_secs_f64() * 1e3,
        })
    }
}

/// What was done so far, on the one thread that hears of all of it.
struct Collected {
    report: Report,
    /// What was said of pixel sizes.
    noted: BTreeSet<String>,
}

impl Collected {
    /// Writes the tables in the order of the images, whatever order they are done in.
    fn collect(
        &mut self,
        listen: queue::Receiver<Told>,
        tables: &mut Tables,
        observer: &dyn Observer,
    ) -> anyhow::Result<()> {
        let mut waiting: BTreeMap<usize, (Vec<Done>, bool)> = BTreeMap::new();
        let mut next = 0;
        while let Some(Told { index, page }) = listen.recv() {
            let image = waiting.entry(index).or_default();
            match page {
                Ok(Some(done)) => image.0.push(done),
                Ok(None) => image.1 = true,
                Err(why) => {
                    observer.say(&why);
                    self.report.failed.push(why);
                }
            }
            while waiting.get(&next).is_some_and(|(_, is_complete)| *is_complete) {
                let pages = waiting.remove(&next).map(|(pages, _)| pages).unwrap_or_default();
                self.image(pages, tables, observer)?;
                next += 1;
            }
        }
        // Cancelled, an image may be missing before some that are done.
        for (pages, _) in waiting.into_values().filter(|(_, is_complete)| *is_complete) {
            self.image(pages, tables, observer)?;
        }
        Ok(())
    }

    /// One image is done: it is in the tables before it is counted.
    fn image(
        &mut self,
        pages: Vec<Done>,
        tables: &mut Tables,
        observer: &dyn Observer,
    ) -> anyhow::Result<()> {
        for done in pages {
            for doubt in done.look.doubts(&done.model) {
                observer.say(&format!("{}: {doubt}", done.image));
            }
            let image =
                ImageRef { image: &done.image, page: done.page, pixel_size_um: done.pixel_size_um };
            let row = ImageRow {
                image,
                pixel_size_source: done.pixel_size_source,
                pixel_size_note: done.pixel_size_note.as_deref(),
                objects: u32::try_from(done.objects.len())?,
                focus: done.focus,
                look: done.look,
            };
            tables.append(row, &done.objects)?;
            self.report.objects += done.objects.len();
            if let Some(note) = &done.pixel_size_note
                && self.noted.insert(note.clone())
            {
                // Once for all images of which it is true: a folder is of one microscope.
                observer.say(&format!("{}: {note}", done.image));
            }
            self.report.images.push(ImageReport {
                image: done.image,
                page: done.page,
                labels: done.labels,
                objects: done.objects.len(),
                focus: done.focus,
                scale_from: done.look.scale_from,
                scale: done.look.scale,
                size_ratio: done.look.size_ratio,
                unlike: done.look.unlike,
                milliseconds: done.milliseconds,
                pixel_size_um: done.pixel_size_um,
                pixel_size_source: done.pixel_size_source,
                pixel_size_note: done.pixel_size_note,
            });
        }
        observer.advance();
        Ok(())
    }
}

fn display_all(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Cancels after so many steps.
    struct Impatient {
        after: usize,
        steps: AtomicUsize,
        said: Mutex<Vec<String>>,
        began: AtomicBool,
    }

    impl Observer for Impatient {
        fn begin(&self, steps: u64) {
            assert_eq!(steps, 8);
            self.began.store(true, Ordering::SeqCst);
        }

        fn advance(&self) {
            self.steps.fetch_add(1, Ordering::SeqCst);
        }

        fn say(&self, words: &str) {
            self.said.lock().unwrap().push(words.to_owned());
        }

        fn is_cancelled(&self) -> bool {
            self.steps.load(Ordering::SeqCst) >= self.after
        }
    }

    #[test]
    fn a_set_that_is_cancelled_has_whole_tables_of_what_was_done_and_says_what_was_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let disc = image::GrayImage::from_fn(64, 64, |x, y| {
            image::Luma([if x.abs_diff(30).pow(2) + y.abs_diff(30).pow(2) <= 64 {
                220
            } else {
                20
            }])
        });
        for number in 1..8 {
            disc.save(at(&format!("{number}.png"))).unwrap();
        }
        std::fs::File::create(at("0.png")).unwrap();
        let request = Request {
            paths: (0..8).map(|number| at(&format!("{number}.png"))).collect(),
            out: at("out"),
            force: false,
            model: "nuclei".to_owned(),
            jobs: NonZeroUsize::new(1),
            object_diameter_px: None,
            max_megapixels: None,
            selection: Selection::default(),
        };
        let observer = |after| Impatient {
            after,
            steps: AtomicUsize::new(0),
            said: Mutex::default(),
            began: AtomicBool::new(false),
        };
        let impatient = observer(3);
        let report = segment(&request, &Clock::system(), &impatient).unwrap();
        assert!(report.is_cancelled && impatient.began.load(Ordering::SeqCst));
        assert!((2..7).contains(&report.images.len()), "{} were done", report.images.len());
        let said = impatient.said.lock().unwrap().join("; ");
        assert!(said.contains("0.png") && report.failed.len() == 1, "{said}");
        let table = std::fs::read_to_string(at("out/images.csv")).unwrap();
        assert_eq!(table.lines().count(), 1 + report.images.len());
        assert!(at("out/objects.parquet").exists());
        // The next run does all of it.
        let report = segment(&request, &Clock::system(), &observer(usize::MAX)).unwrap();
        assert_eq!((report.is_cancelled, report.images.len()), (false, 7));
    }
}

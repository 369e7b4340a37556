//! `reticle segment`: images in, label images and tables out.

mod plan;
mod results;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use self::plan::{Input, Planned, plan};
use self::results::{Results, Tables};
use super::Outcome;
use super::out::{self, progress_bar};
use reticle_base::clock::Clock;
use reticle_base::queue::{self, WhenFull};
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_exchange::tables::{ImageRef, ImageRow};
use reticle_imagefile::{Limits, Page, Pick, Selection, Survey};
use reticle_segment::package::ModelPackage;
use reticle_segment::{Options, Segmenter};

/// Segments image files
#[derive(clap::Args)]
pub struct Args {
    /// Images (TIFF, PNG, JPEG) and folders of images; of two images of one name (in two folders,
    /// or a.tif and a.png), which would write the same label image, only the first is segmented
    #[arg(required = true, value_name = "PATHS")]
    paths: Vec<PathBuf>,
    /// Folder for labels/, objects.csv, objects.parquet and images.csv; made if it is not there. Results of an
    /// earlier run of the same images are replaced; files that this program did not make there,
    /// or that were changed since, never are
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Remove results of an earlier run from --out, also those of images that are not given now
    #[arg(long)]
    force: bool,
    /// Model package: a built-in name or a folder
    #[arg(long, default_value = "nuclei")]
    model: String,
    /// Images at a time [default: one for each processor core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Typical diameter of the objects in pixels [default: from the pixel size, where image and
    /// model know it, else estimated from each image alone, whatever the others are]
    #[arg(long, value_name = "PX", value_parser = diameter)]
    object_diameter: Option<f32>,
    /// Images of more megapixels are refused
    #[arg(long, value_name = "MP", value_parser = megapixels)]
    max_megapixels: Option<f64>,
    /// Channel of the images that hold several: its name, or its number from 1; `red`, `green` or
    /// `blue` of a colour image [default: such an image is refused, with the names]
    #[arg(long, value_name = "NAME|N")]
    channel: Option<Pick>,
    /// z plane of the images that hold several: its number from 1, or `middle` [default: each plane
    /// is segmented by itself]
    #[arg(long, value_name = "N|middle")]
    z: Option<Pick>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

fn diameter(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|pixels| (1.0..=1000.0).contains(pixels))
        .ok_or_else(|| "must be a number of pixels from 1 to 1000".to_owned())
}

fn megapixels(text: &str) -> Result<f64, String> {
    // The same bounds as `max_megapixels` in [segment] has.
    text.parse()
        .ok()
        .filter(|megapixels: &f64| (0.001..=10_000.0).contains(megapixels))
        .ok_or_else(|| "must be a number of megapixels from 0.001 to 10000".to_owned())
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

/// Segments all images; a broken one, and a second one of the same name, is reported by name
/// and passed over.
///
/// # Errors
/// When nothing can be done at all: no image, no model, no room for results.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let Survey { images, failed, left_out } =
        reticle_imagefile::survey(&args.paths, Some(&args.out));
    let mut failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    for said in left_out.iter().chain(&failed) {
        out::tell(format_args!("reticle: {said}"));
    }
    if images.is_empty() {
        bail!(
            "no image found in {}; TIFF, PNG and JPEG are read{}",
            display_all(&args.paths),
            if left_out.is_empty() { "" } else { ", and what was left out is named above" }
        );
    }
    let selection = Selection { channel: args.channel.clone(), z: args.z.clone() };
    let pages = |path: &Path| {
        let pages = reticle_imagefile::open_chosen(path, Limits::default(), &selection);
        pages.map_or(1, |pages| pages.total())
    };
    let Planned { images, passed_over } = plan(images, pages);
    for why in &passed_over {
        out::tell(format_args!("reticle: {why}"));
    }
    failed.extend(passed_over);
    let mut results = Results::take(&args.out, &images, args.force)?;

    let package = ModelPackage::find(&args.model)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = args.jobs.map_or(cores, NonZeroUsize::get).min(images.len());
    let options = Options {
        model: args.model.clone(),
        // Cores are shared out between images; a single large image gets all of them.
        threads: NonZeroUsize::new(cores / jobs),
        object_diameter_px: args.object_diameter,
        max_megapixels: args.max_megapixels.unwrap_or(Options::default().max_megapixels),
    };
    let clock = Clock::system();
    let segmenters = (0..jobs)
        .map(|_| Segmenter::with_package(package.clone(), &options, clock.clone()))
        .collect::<Result<Vec<_>, _>>()?;

    // Nothing is in the way of segmenting now.
    results.clear()?;
    let mut tables = results.tables()?;
    let template = "{bar:32} {pos}/{len} images, {eta} left";
    let progress = progress_bar(images.len() as u64, template);
    let next = AtomicUsize::new(0);
    let (told, listen) = queue::bounded("results", 2 * jobs, WhenFull::Wait);
    let mut collected = Collected { failed, left_out, ..Collected::default() };
    let written = std::thread::scope(|scope| {
        for segmenter in segmenters {
            let told = told.clone();
            let work = Work {
                images: &images,
                next: &next,
                results: &results,
                limits: limits(&options, jobs),
                selection: &selection,
                clock: &clock,
            };
            scope.spawn(move || work.run(segmenter, &told));
        }
        drop(told);
        // Dropping `listen` on an error lets the workers end.
        collect(listen, &mut collected, &mut tables, &progress)
    });
    progress.finish_and_clear();
    written?;
    tables.finish()?;
    collected.report(&args, package.manifest().name.as_str())
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
}

impl Work<'_> {
    fn run(&self, mut segmenter: Segmenter, told: &queue::Sender<Told>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(input) = self.images.get(index) else { return };
            let tell = |page| matches!(told.send(Told { index, page }), queue::Sent::Queued);
            match reticle_imagefile::open_chosen(&input.path, self.limits, self.selection) {
                Err(error) => {
                    tell(Err(error.to_string()));
                }
                Ok(pages) => {
                    for note in pages.notes() {
                        out::tell(format_args!("reticle: {} {note}", input.path.display()));
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

#[derive(Default)]
struct Collected {
    images: Vec<Value>,
    objects: usize,
    /// What could not be segmented, each as a sentence that names it.
    failed: Vec<String>,
    /// What was said of pixel sizes.
    noted: BTreeSet<String>,
    /// What is in the folders that were given and was not taken for an image.
    left_out: Vec<String>,
}

/// Writes the tables in the order of the images, whatever order they are done in.
fn collect(
    listen: queue::Receiver<Told>,
    collected: &mut Collected,
    tables: &mut Tables,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut waiting: BTreeMap<usize, (Vec<Done>, bool)> = BTreeMap::new();
    let mut next = 0;
    while let Some(Told { index, page }) = listen.recv() {
        let image = waiting.entry(index).or_default();
        match page {
            Ok(Some(done)) => image.0.push(done),
            Ok(None) => {
                image.1 = true;
                progress.inc(1);
            }
            Err(why) => {
                progress.suspend(|| out::tell(format_args!("reticle: {why}")));
                collected.failed.push(why);
            }
        }
        while waiting.get(&next).is_some_and(|(_, is_complete)| *is_complete) {
            for done in waiting.remove(&next).map(|(pages, _)| pages).unwrap_or_default() {
                for doubt in done.look.doubts(&done.model) {
                    progress
                        .suspend(|| out::tell(format_args!("reticle: {}: {doubt}", done.image)));
                }
                let image = ImageRef {
                    image: &done.image,
                    page: done.page,
                    pixel_size_um: done.pixel_size_um,
                };
                let row = ImageRow {
                    image,
                    pixel_size_source: done.pixel_size_source,
                    pixel_size_note: done.pixel_size_note.as_deref(),
                    objects: u32::try_from(done.objects.len())?,
                    focus: done.focus,
                    look: done.look,
                };
                tables.append(row, &done.objects)?;
                collected.objects += done.objects.len();
                if let Some(note) = &done.pixel_size_note
                    && collected.noted.insert(note.clone())
                {
                    // Once for all images of which it is true: a folder is of one microscope.
                    let image = &done.image;
                    progress.suspend(|| out::tell(format_args!("reticle: {image}: {note}")));
                }
                collected.images.push(json!({
                    "image": done.image,
                    "page": done.page,
                    "labels": done.labels,
                    "objects": done.objects.len(),
                    "focus": done.focus,
                    "scale_from": done.look.scale_from,
                    "scale": done.look.scale,
                    "size_ratio": done.look.size_ratio,
                    "unlike": done.look.unlike,
                    "milliseconds": done.milliseconds,
                    "pixel_size_um": done.pixel_size_um,
                    "pixel_size_source": done.pixel_size_source,
                    "pixel_size_note": done.pixel_size_note,
                }));
            }
            next += 1;
        }
    }
    Ok(())
}

impl Collected {
    fn report(self, args: &Args, model: &str) -> anyhow::Result<Outcome> {
        let mut out = out::stdout();
        let outcome = if self.failed.is_empty() { Outcome::Fine } else { Outcome::WithFailures };
        if args.json {
            let document = json!({
                "model": model,
                "out": args.out,
                "images": self.images,
                "objects": self.objects,
                "failed": self.failed,
                "left_out": self.left_out,
            });
            serde_json::to_writer_pretty(&mut out, &document)?;
            writeln!(out)?;
        } else {
            writeln!(
                out,
                "{} objects in {} images → {}",
                self.objects,
                self.images.len(),
                args.out.display()
            )?;
            if !self.failed.is_empty() {
                writeln!(out, "{} could not be segmented, see above", self.failed.len())?;
            }
            if !self.left_out.is_empty() {
                writeln!(out, "other files or folders were left out, see above")?;
            }
        }
        Ok(outcome)
    }
}

fn display_all(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

//! `reticle segment`: images in, label images and tables out.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::Outcome;
use super::out::{self, progress_bar};
use crate::base::clock::Clock;
use crate::base::durable;
use crate::base::queue::{self, WhenFull};
use crate::domain::object::Object;
use crate::exchange::tables::{ImageRef, ObjectsCsv, ObjectsParquet};
use crate::imagefile::{self, Limits, Page, Pick, Selection};
use crate::segment::package::ModelPackage;
use crate::segment::{Options, Segmenter};

/// Segments image files
#[derive(clap::Args)]
pub struct Args {
    /// Images (TIFF, PNG, JPEG) and folders of images; of two images of one name (in two folders,
    /// or a.tif and a.png), which would write the same label image, only the first is segmented
    #[arg(required = true, value_name = "PATHS")]
    paths: Vec<PathBuf>,
    /// Folder for labels/, objects.csv and objects.parquet; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Model package: a built-in name or a folder
    #[arg(long, default_value = "nuclei")]
    model: String,
    /// Images at a time [default: one for each processor core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Typical diameter of the objects in pixels [default: from the pixel size, where image and
    /// model know it, else estimated from each image]
    #[arg(long, value_name = "PX", value_parser = diameter)]
    object_diameter: Option<f32>,
    /// Images of more megapixels are refused
    #[arg(long, value_name = "MP")]
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

/// Everything made of one page of one image.
struct Done {
    image: String,
    page: u32,
    pixel_size_um: Option<f64>,
    labels: PathBuf,
    objects: Arc<Vec<Object>>,
    focus: f32,
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
    let images = imagefile::list_images(&args.paths)?;
    if images.is_empty() {
        bail!("no image found in {}; TIFF, PNG and JPEG are read", display_all(&args.paths));
    }
    let Planned { images, passed_over } = plan(images);
    let labels_folder = args.out.join("labels");
    durable::create_dir(&labels_folder)
        .with_context(|| format!("cannot make {}", labels_folder.display()))?;
    let mut csv = ObjectsCsv::create(&args.out.join("objects.csv"))?;
    let mut parquet = ObjectsParquet::create(&args.out.join("objects.parquet"))?;

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
    let selection = Selection { channel: args.channel.clone(), z: args.z.clone() };
    let clock = Clock::system();
    let segmenters = (0..jobs)
        .map(|_| Segmenter::with_package(package.clone(), &options, clock.clone()))
        .collect::<Result<Vec<_>, _>>()?;

    for why in &passed_over {
        out::tell(format_args!("reticle: {why}"));
    }
    let template = "{bar:32} {pos}/{len} images, {eta} left";
    let progress = progress_bar(images.len() as u64, template);
    let next = AtomicUsize::new(0);
    let (told, listen) = queue::bounded("results", 2 * jobs, WhenFull::Wait);
    let mut collected = Collected { failed: passed_over, ..Collected::default() };
    let written = std::thread::scope(|scope| {
        for segmenter in segmenters {
            let told = told.clone();
            let work = Work {
                images: &images,
                next: &next,
                labels_folder: &labels_folder,
                limits: limits(&options, jobs),
                selection: &selection,
                clock: &clock,
            };
            scope.spawn(move || work.run(segmenter, &told));
        }
        drop(told);
        // Dropping `listen` on an error lets the workers end.
        collect(listen, &mut collected, &mut csv, &mut parquet, &progress)
    });
    progress.finish_and_clear();
    written?;
    csv.finish()?;
    parquet.finish()?;
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
    labels_folder: &'a Path,
    limits: Limits,
    selection: &'a Selection,
    clock: &'a Clock,
}

impl Work<'_> {
    fn run(&self, mut segmenter: Segmenter, told: &queue::Sender<Told>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(Input { path, name }) = self.images.get(index) else { return };
            let tell = |page| matches!(told.send(Told { index, page }), queue::Sent::Queued);
            match imagefile::open_chosen(path, self.limits, self.selection) {
                Err(error) => {
                    tell(Err(error.to_string()));
                }
                Ok(pages) => {
                    for note in pages.notes() {
                        out::tell(format_args!("reticle: {} {note}", path.display()));
                    }
                    let several = pages.total() > 1;
                    for page in pages {
                        let done = page
                            .map_err(anyhow::Error::from)
                            .and_then(|page| self.page(path, name, several, page, &mut segmenter));
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
        path: &Path,
        name: &str,
        several: bool,
        page: Page,
        segmenter: &mut Segmenter,
    ) -> anyhow::Result<Done> {
        let image = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = self.clock.now();
        let number = u32::try_from(page.index)?;
        let pixel_size_um = page.pixel_size_um;
        let frame = page
            .into_shot(start, image.clone())
            .into_frame()
            .with_context(|| path.display().to_string())?;
        let segmentation =
            segmenter.segment(&Arc::new(frame)).with_context(|| path.display().to_string())?;
        let file =
            if several { format!("{name}-page{number:04}.png") } else { format!("{name}.png") };
        let labels = imagefile::write_labels(&self.labels_folder.join(file), &segmentation.labels)?;
        Ok(Done {
            image,
            page: number,
            pixel_size_um,
            labels,
            objects: segmentation.objects,
            focus: segmentation.focus,
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
}

/// Writes the tables in the order of the images, whatever order they are done in.
fn collect(
    listen: queue::Receiver<Told>,
    collected: &mut Collected,
    csv: &mut ObjectsCsv,
    parquet: &mut ObjectsParquet,
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
                let image = ImageRef {
                    image: &done.image,
                    page: done.page,
                    pixel_size_um: done.pixel_size_um,
                };
                csv.append(image, &done.objects)?;
                parquet.append(image, &done.objects)?;
                collected.objects += done.objects.len();
                collected.images.push(json!({
                    "image": done.image,
                    "page": done.page,
                    "labels": done.labels,
                    "objects": done.objects.len(),
                    "focus": done.focus,
                    "milliseconds": done.milliseconds,
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
        }
        Ok(outcome)
    }
}

/// One image to segment.
#[derive(Debug, PartialEq, Eq)]
struct Input {
    path: PathBuf,
    /// Name of its label image, without ending: its stem.
    name: String,
}

/// What is done, and what is not.
struct Planned {
    images: Vec<Input>,
    /// One sentence for each image whose label image would replace that of another.
    passed_over: Vec<String>,
}

/// Names the label images. An image that is given twice (in its folder, and by itself) is
/// segmented once.
fn plan(paths: Vec<PathBuf>) -> Planned {
    let mut taken: HashMap<String, PathBuf> = HashMap::new();
    let mut planned = Planned { images: Vec::new(), passed_over: Vec::new() };
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match taken.get(&name) {
            None => {
                taken.insert(name.clone(), path.clone());
                planned.images.push(Input { path, name });
            }
            Some(first) if *first == path => {}
            Some(first) => planned.passed_over.push(format!(
                "{} is passed over: its labels/{name}.png would replace that of {}; rename it, or \
                 segment it with another --out",
                path.display(),
                first.display()
            )),
        }
    }
    planned
}

fn display_all(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_image_is_written_twice() {
        let paths = ["x/a.png", "x/b.png", "y/a.png", "x/b.tif", "x/a.png"].map(PathBuf::from);
        let planned = plan(paths.to_vec());
        let input = |path: &str, name: &str| Input { path: path.into(), name: name.into() };
        assert_eq!(planned.images, [input("x/a.png", "a"), input("x/b.png", "b")]);
        assert_eq!(
            planned.passed_over,
            [
                "y/a.png is passed over: its labels/a.png would replace that of x/a.png; rename \
                 it, or segment it with another --out",
                "x/b.tif is passed over: its labels/b.png would replace that of x/b.png; rename \
                 it, or segment it with another --out",
            ]
        );
    }
}

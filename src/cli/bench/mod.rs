//! `reticle bench`: how fast this box segments.
//!
//! Frames are drawn ([`drawn`]) or come from files; each is segmented again and again without store
//! or page, and [`report`] prints the medians. [`warmth`] watches the processor's temperature
//! meanwhile. [`layers`] measures the network alone.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::Outcome;
use crate::telemetry;
use reticle_base::clock::{Clock, process_cpu};
use reticle_domain::frame::Frame;
use reticle_domain::segmentation::ModelRef;
use reticle_imagefile::Limits;
use reticle_segment::{Options, Segmenter, Stage};

mod drawn;
mod layers;
mod report;
mod warmth;

use warmth::Warmth;

/// Measures frames a second, CPU time by stage and memory on this box
#[derive(clap::Args)]
pub struct Args {
    /// Edges of the square frames to measure
    #[arg(long, value_delimiter = ',', default_values_t = [256_u32, 512, 1024, 2048])]
    sizes: Vec<u32>,
    /// Objects in the drawn frames, spread evenly; one row for each number [default: as dense as in
    /// an untreated well]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    objects: Vec<u32>,
    /// Images (TIFF, PNG, JPEG) and folders of images to measure instead of drawn frames, each from
    /// its file to its measured objects
    #[arg(long, value_name = "PATHS", num_args = 1.., conflicts_with_all = ["sizes", "objects"])]
    images: Vec<PathBuf>,
    /// Measure the network alone on tiles of these edges (256 where none are named), layer by layer on
    /// one thread, beside the most that the processor can do
    #[arg(
        long, value_name = "EDGES", value_delimiter = ',', num_args = 0..=1, default_missing_value = "256",
        value_parser = clap::value_parser!(u32).range(16..=4096),
        conflicts_with_all = ["sizes", "objects", "images", "threads"]
    )]
    layers: Vec<u32>,
    /// Frames of each row, after one that is not counted; with --images, repetitions of each image
    /// [default: 10, and 3 above 4096×4096 pixels]; with --layers, runs [default: 30]
    #[arg(long)]
    frames: Option<NonZeroUsize>,
    /// Numbers of threads; one row for each [default: one thread for each processor core]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,
    /// Model package: a built-in name or a folder
    #[arg(long, default_value = "nuclei")]
    model: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Medians over the frames of one size, number of objects and number of threads, or over the
/// repetitions of one image.
#[derive(serde::Serialize)]
struct Row {
    /// File name; none for drawn frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    width: u32,
    height: u32,
    threads: usize,
    /// Frames that were measured.
    frames: usize,
    /// Objects that were drawn, the most of all frames; none for images.
    #[serde(skip_serializing_if = "Option::is_none")]
    drawn_objects: Option<u32>,
    /// Objects that were found, the most of all frames.
    objects: u32,
    frames_per_second: f64,
    wall_ms: f64,
    cpu_ms: f64,
    /// Opening, reading and decoding the file; next to nothing for drawn frames.
    decode_cpu_ms: f64,
    normalise_cpu_ms: f64,
    network_cpu_ms: f64,
    instances_cpu_ms: f64,
    measure_cpu_ms: f64,
    peak_memory_mb: f64,
}

/// Segments frames of the virtual microscope, sizes in rising order, so that the peak memory
/// of each row is that of its size; or images, as they are given.
///
/// # Errors
/// When the model, a size or an image cannot be used.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    if !args.layers.is_empty() {
        layers::run(&args.model, &risen(args.layers), args.frames, args.json)?;
        return Ok(Outcome::Fine);
    }
    let clock = Clock::system();
    let threads = if args.threads.is_empty() {
        vec![Options::default().threads()]
    } else {
        risen(args.threads)
    };
    let mut bench = Bench {
        warmth: Warmth::new(clock.clone()),
        clock,
        model_name: args.model,
        model: None,
        frames: args.frames,
        rows: Vec::new(),
    };
    if args.images.is_empty() {
        bench.measure_drawn(&risen(args.sizes), &risen(args.objects), &threads)?;
    } else {
        bench.measure_images(&reticle_imagefile::list_images(&args.images)?, &threads)?;
    }
    report::print(&bench, &threads, args.json)?;
    Ok(Outcome::Fine)
}

/// What is being measured, and what was.
struct Bench {
    clock: Clock,
    warmth: Warmth,
    /// As the user wrote it.
    model_name: String,
    /// Of the last segmenter; `None` before the first.
    model: Option<Arc<ModelRef>>,
    /// As the user wishes, for every row.
    frames: Option<NonZeroUsize>,
    rows: Vec<Row>,
}

impl Bench {
    fn measure_drawn(
        &mut self,
        sizes: &[u32],
        objects: &[u32],
        threads: &[NonZeroUsize],
    ) -> anyhow::Result<()> {
        // A size or a number that is refused is known before minutes of measuring.
        let kinds = drawn::kinds(sizes, objects)?;
        for kind in kinds {
            let drawn = drawn::frames(kind)?;
            for &threads in threads {
                // A new one for each row: what it keeps for other sizes is not this row's memory.
                let mut segmenter = self.segmenter(threads)?;
                // The first frame pays for the plan of its tile size.
                segmenter.segment(&drawn.frames[0])?;
                let size = (kind.edge, kind.edge);
                let repetitions = repetitions(self.frames, size);
                let frames = drawn.frames.iter().cycle().skip(1).take(repetitions);
                let samples = frames
                    .map(|frame| self.sample(&mut segmenter, || Ok(Arc::clone(frame))))
                    .collect::<anyhow::Result<Vec<Sample>>>()?;
                let drawn_objects = Some(drawn.objects);
                self.rows.push(Row { drawn_objects, ..Row::of(size, threads, &samples) });
            }
        }
        Ok(())
    }

    fn measure_images(
        &mut self,
        paths: &[PathBuf],
        threads: &[NonZeroUsize],
    ) -> anyhow::Result<()> {
        for &threads in threads {
            let mut segmenter = self.segmenter(threads)?;
            // The first frame of a size pays for the plan of its tiles, and is not counted.
            let mut met = HashSet::new();
            for path in paths {
                let row = self.measure_image(&mut segmenter, threads, path, &mut met);
                self.rows.push(row.with_context(|| path.display().to_string())?);
            }
        }
        Ok(())
    }

    /// `met` holds the sizes of frames that were segmented before.
    fn measure_image(
        &mut self,
        segmenter: &mut Segmenter,
        threads: NonZeroUsize,
        path: &Path,
        met: &mut HashSet<(u32, u32)>,
    ) -> anyhow::Result<Row> {
        let clock = self.clock.clone();
        let read = || read(path, Options::default().limits(), &clock);
        let frame = read()?;
        let size = (frame.width, frame.height);
        if met.insert(size) {
            segmenter.segment(&frame)?;
        }
        let samples = (0..repetitions(self.frames, size))
            .map(|_| self.sample(segmenter, read))
            .collect::<anyhow::Result<Vec<Sample>>>()?;
        Ok(Row { image: frame.origin.clone(), ..Row::of(size, threads, &samples) })
    }

    fn segmenter(&mut self, threads: NonZeroUsize) -> anyhow::Result<Segmenter> {
        let options = Options {
            model: self.model_name.clone(),
            threads: Some(threads),
            ..Options::default()
        };
        let segmenter = Segmenter::new(&options, self.clock.clone())?;
        self.model = Some(Arc::clone(segmenter.model()));
        Ok(segmenter)
    }

    fn sample(
        &mut self,
        segmenter: &mut Segmenter,
        frame: impl FnOnce() -> anyhow::Result<Arc<Frame>>,
    ) -> anyhow::Result<Sample> {
        let sample = Sample::take(segmenter, frame, &self.clock)?;
        self.warmth.look();
        Ok(sample)
    }
}

/// In rising order, each once.
fn risen<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
}

/// Frames of a row unless the user says how many.
const FRAMES: usize = 10;

/// The same for frames that take seconds each: three are enough for a median.
const LARGE_FRAMES: usize = 3;

/// Frames of more pixels than this are large: 4096².
const LARGE_PIXELS: u64 = 1 << 24;

/// How many frames of this size are measured.
fn repetitions(asked: Option<NonZeroUsize>, (width, height): (u32, u32)) -> usize {
    let is_large = u64::from(width) * u64::from(height) > LARGE_PIXELS;
    asked.map_or(if is_large { LARGE_FRAMES } else { FRAMES }, NonZeroUsize::get)
}

/// The first image of a file.
fn read(path: &Path, limits: Limits, clock: &Clock) -> anyhow::Result<Arc<Frame>> {
    let page = reticle_imagefile::open(path, limits)?.next().context("it holds no image")??;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Arc::new(page.into_shot(clock.now(), name).into_frame()?))
}

/// Stages of a frame: decoding, and those of segmentation.
const STAGES: usize = 5;

/// What one frame took.
struct Sample {
    wall_ms: f64,
    cpu_ms: [f64; STAGES],
    objects: u32,
}

impl Sample {
    fn take(
        segmenter: &mut Segmenter,
        frame: impl FnOnce() -> anyhow::Result<Arc<Frame>>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let start = clock.now();
        let mut last = process_cpu();
        let mut cpu_ms = [0.0; STAGES];
        let mut lap = |slot: usize| {
            let now = process_cpu();
            cpu_ms[slot] += (now - last).as_secs_f64() * 1e3;
            last = now;
        };
        let frame = frame()?;
        lap(0);
        let segmentation = segmenter.segment_observed(&frame, |stage| lap(slot(stage)))?;
        let wall_ms = clock.now().since(&start).as_secs_f64() * 1e3;
        Ok(Self { wall_ms, cpu_ms, objects: segmentation.labels.count() })
    }
}

impl Row {
    fn of((width, height): (u32, u32), threads: NonZeroUsize, samples: &[Sample]) -> Self {
        let cpu = |slot: usize| median(samples.iter().map(|sample| sample.cpu_ms[slot]));
        let wall_ms = median(samples.iter().map(|sample| sample.wall_ms));
        Self {
            image: None,
            width,
            height,
            threads: threads.get(),
            frames: samples.len(),
            drawn_objects: None,
            objects: samples.iter().map(|sample| sample.objects).max().unwrap_or(0),
            frames_per_second: 1e3 / wall_ms,
            wall_ms,
            cpu_ms: (0..STAGES).map(cpu).sum(),
            decode_cpu_ms: cpu(0),
            normalise_cpu_ms: cpu(1),
            network_cpu_ms: cpu(2),
            instances_cpu_ms: cpu(3),
            measure_cpu_ms: cpu(4),
            peak_memory_mb: telemetry::peak_resident_bytes() as f64 / 1e6,
        }
    }
}

fn slot(stage: Stage) -> usize {
    match stage {
        Stage::Normalise => 1,
        Stage::Network => 2,
        Stage::Instances => 3,
        Stage::Measure | Stage::Judge => 4,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(wall_ms: f64, objects: u32) -> Sample {
        Sample { wall_ms, cpu_ms: [0.5, 1.0, wall_ms, 2.0, 1.0], objects }
    }

    #[test]
    fn large_frames_are_repeated_less_often_unless_the_user_says_how_often() {
        assert_eq!(repetitions(None, (4096, 4096)), 10);
        assert_eq!(repetitions(None, (4097, 4096)), 3);
        assert_eq!(repetitions(NonZeroUsize::new(7), (8192, 8192)), 7);
    }

    #[test]
    fn a_row_has_medians_and_says_what_it_is_of() {
        let samples = [sample(30.0, 4), sample(10.0, 6), sample(20.0, 5)];
        let row = Row::of((64, 32), NonZeroUsize::MIN, &samples);
        assert_eq!((row.width, row.height, row.threads, row.frames), (64, 32, 1, 3));
        assert_eq!((row.objects, row.drawn_objects), (6, None));
        assert!((row.wall_ms - 20.0).abs() < 1e-9 && (row.frames_per_second - 50.0).abs() < 1e-9);
        assert!((row.cpu_ms - 24.5).abs() < 1e-9, "{}", row.cpu_ms);
    }

    #[test]
    fn numbers_are_measured_in_rising_order_and_once() {
        assert_eq!(risen(vec![2048, 256, 1024, 256]), [256, 1024, 2048]);
    }
}

//! `reticle bench`: how fast this box segments.

use std::collections::HashSet;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use super::{Outcome, out};
use crate::base::clock::{Clock, process_cpu};
use crate::capture::{self, Event};
use crate::domain::frame::Frame;
use crate::imagefile::{self, Limits};
use crate::segment::{Options, Segmenter, Stage};
use crate::telemetry;

/// Measures frames a second, CPU time by stage and memory on this box
#[derive(clap::Args)]
pub struct Args {
    /// Edges of the square frames to measure
    #[arg(long, value_delimiter = ',', default_values_t = [256_u32, 512, 1024, 2048])]
    sizes: Vec<u32>,
    /// Images (TIFF, PNG, JPEG) and folders of images to measure instead of drawn frames, each from
    /// its file to its measured objects
    #[arg(long, value_name = "PATHS", num_args = 1.., conflicts_with = "sizes")]
    images: Vec<PathBuf>,
    /// Frames of each size, after one that is not counted; with --images, repetitions of each image
    #[arg(long, default_value_t = 10)]
    frames: usize,
    /// Threads [default: one for each processor core]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Model package: a built-in name or a folder
    #[arg(long, default_value = "nuclei")]
    model: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Medians over the frames of one size, or over the repetitions of one image.
#[derive(serde::Serialize)]
struct Row {
    /// File name; none for drawn frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    width: u32,
    height: u32,
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
pub fn run(mut args: Args) -> anyhow::Result<Outcome> {
    args.sizes.sort_unstable();
    if args.frames == 0 {
        bail!("--frames must be at least 1");
    }
    let clock = Clock::system();
    let options =
        Options { model: args.model.clone(), threads: args.threads, ..Options::default() };
    let mut segmenter = Segmenter::new(&options, clock.clone())?;
    let rows = if args.images.is_empty() {
        args.sizes
            .iter()
            .map(|&size| measure_drawn(&mut segmenter, size, args.frames, &clock))
            .collect::<anyhow::Result<Vec<Row>>>()?
    } else {
        let mut met = HashSet::new();
        imagefile::list_images(&args.images)?
            .iter()
            .map(|path| {
                let read = || read(path, options.limits(), &clock);
                measure_image(&mut segmenter, read, args.frames, &clock, &mut met)
                    .with_context(|| path.display().to_string())
            })
            .collect::<anyhow::Result<Vec<Row>>>()?
    };
    let processor = processor();
    let mut out = out::stdout();
    if args.json {
        let document = json!({
            "processor": processor,
            "threads": options.threads(),
            "model": &**segmenter.model(),
            "rows": rows,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    writeln!(
        out,
        "{processor}, {} threads, model {}; medians of {} frames",
        options.threads(),
        segmenter.model().name,
        args.frames
    )?;
    writeln!(
        out,
        "    frame   objects   frames/s   wall ms   CPU ms | decode  normalise  network  instances  measure | peak MB"
    )?;
    for row in rows {
        let size = format!("{}×{}", row.width, row.height);
        writeln!(
            out,
            "{size:>9}   {:>7}   {:>8.1}   {:>7.1}   {:>6.1} | {:>6.1}  {:>9.1}  {:>7.1}  {:>9.1}  {:>7.1} | {:>7.0}  {}",
            row.objects,
            row.frames_per_second,
            row.wall_ms,
            row.cpu_ms,
            row.decode_cpu_ms,
            row.normalise_cpu_ms,
            row.network_cpu_ms,
            row.instances_cpu_ms,
            row.measure_cpu_ms,
            row.peak_memory_mb,
            row.image.unwrap_or_default()
        )?;
    }
    Ok(Outcome::Fine)
}

fn measure_drawn(
    segmenter: &mut Segmenter,
    size: u32,
    frames: usize,
    clock: &Clock,
) -> anyhow::Result<Row> {
    let options =
        capture::Options { width: Some(size), height: Some(size), ..capture::Options::default() };
    let scope_clock = Clock::manual(0);
    let mut scope = capture::open(&options, &scope_clock)?;
    // The first frame pays for the plan of its tile size.
    segmenter.segment(&next_frame(scope.as_mut(), &scope_clock)?)?;
    let samples = (0..frames)
        .map(|_| {
            let frame = next_frame(scope.as_mut(), &scope_clock)?;
            Sample::take(segmenter, || Ok(frame), clock)
        })
        .collect::<anyhow::Result<Vec<Sample>>>()?;
    Ok(Row::of(None, (size, size), &samples))
}

/// `met` holds the sizes of frames that were segmented before: the first frame of a size pays for
/// the plan of its tiles, and is not counted.
fn measure_image(
    segmenter: &mut Segmenter,
    read: impl Fn() -> anyhow::Result<Arc<Frame>>,
    repetitions: usize,
    clock: &Clock,
    met: &mut HashSet<(u32, u32)>,
) -> anyhow::Result<Row> {
    let frame = read()?;
    let size = (frame.width, frame.height);
    if met.insert(size) {
        segmenter.segment(&frame)?;
    }
    let samples = (0..repetitions)
        .map(|_| Sample::take(segmenter, &read, clock))
        .collect::<anyhow::Result<Vec<Sample>>>()?;
    Ok(Row::of(frame.origin.clone(), size, &samples))
}

/// The first image of a file.
fn read(path: &Path, limits: Limits, clock: &Clock) -> anyhow::Result<Arc<Frame>> {
    let page = imagefile::open(path, limits)?.next().context("it holds no image")??;
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
            cpu_ms[slot] = (now - last).as_secs_f64() * 1e3;
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
    fn of(image: Option<String>, (width, height): (u32, u32), samples: &[Sample]) -> Self {
        let cpu = |slot: usize| median(samples.iter().map(|sample| sample.cpu_ms[slot]));
        let wall_ms = median(samples.iter().map(|sample| sample.wall_ms));
        Self {
            image,
            width,
            height,
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
        Stage::Measure => 4,
    }
}

fn next_frame(scope: &mut dyn capture::Source, clock: &Clock) -> anyhow::Result<Arc<Frame>> {
    for _ in 0..100 {
        clock.advance(Duration::from_millis(200));
        if let Event::Frame(frame) = scope.next(Duration::from_millis(1))? {
            return Ok(Arc::new(*frame));
        }
    }
    bail!("the virtual microscope gave no frame; this is a fault in Reticle")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn processor() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?.to_owned();
            line.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

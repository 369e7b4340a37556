//! `reticle bench`: how fast this box segments.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use super::{Outcome, out};
use crate::base::clock::{Clock, process_cpu};
use crate::capture::{self, Event};
use crate::domain::frame::Frame;
use crate::segment::{Options, Segmenter, Stage};
use crate::telemetry;

/// Measures frames a second, CPU time by stage and memory on this box
#[derive(clap::Args)]
pub struct Args {
    /// Edges of the square frames to measure
    #[arg(long, value_delimiter = ',', default_values_t = [256_u32, 512, 1024, 2048])]
    sizes: Vec<u32>,
    /// Frames of each size, after one that is not counted
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

/// Medians over the frames of one size.
#[derive(serde::Serialize)]
struct Row {
    size: u32,
    objects: u32,
    frames_per_second: f64,
    wall_ms: f64,
    cpu_ms: f64,
    normalise_cpu_ms: f64,
    network_cpu_ms: f64,
    instances_cpu_ms: f64,
    measure_cpu_ms: f64,
    peak_memory_mb: f64,
}

/// Segments frames of the virtual microscope, sizes in rising order, so that the peak memory
/// of each row is that of its size.
///
/// # Errors
/// When the model or a size cannot be used.
pub fn run(mut args: Args) -> anyhow::Result<Outcome> {
    args.sizes.sort_unstable();
    if args.frames == 0 {
        bail!("--frames must be at least 1");
    }
    let clock = Clock::system();
    let options =
        Options { model: args.model.clone(), threads: args.threads, ..Options::default() };
    let mut segmenter = Segmenter::new(&options, clock.clone())?;
    let rows = args
        .sizes
        .iter()
        .map(|&size| measure(&mut segmenter, size, args.frames, &clock))
        .collect::<anyhow::Result<Vec<Row>>>()?;
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
        "frame   objects   frames/s   wall ms   CPU ms | normalise  network  instances  measure | peak MB"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:>4}²   {:>7}   {:>8.1}   {:>7.1}   {:>6.1} | {:>9.1}  {:>7.1}  {:>9.1}  {:>7.1} | {:>7.0}",
            row.size,
            row.objects,
            row.frames_per_second,
            row.wall_ms,
            row.cpu_ms,
            row.normalise_cpu_ms,
            row.network_cpu_ms,
            row.instances_cpu_ms,
            row.measure_cpu_ms,
            row.peak_memory_mb
        )?;
    }
    Ok(Outcome::Fine)
}

fn measure(
    segmenter: &mut Segmenter,
    size: u32,
    frames: usize,
    clock: &Clock,
) -> anyhow::Result<Row> {
    let options =
        capture::Options { width: Some(size), height: Some(size), ..capture::Options::default() };
    let scope_clock = Clock::manual(0);
    let mut scope = capture::open(&options, &scope_clock)?;
    let mut walls = Vec::new();
    let mut stages: [Vec<f64>; 4] = Default::default();
    let mut objects = 0;
    // The first frame pays for the plan of its tile size.
    for index in 0..=frames {
        let frame = next_frame(scope.as_mut(), &scope_clock)?;
        let start = clock.now();
        let mut last = process_cpu();
        let mut laps = [0.0; 4];
        let segmentation = segmenter.segment_observed(&frame, |stage| {
            let now = process_cpu();
            laps[slot(stage)] = (now - last).as_secs_f64() * 1e3;
            last = now;
        })?;
        if index > 0 {
            walls.push(clock.now().since(&start).as_secs_f64() * 1e3);
            for (times, lap) in stages.iter_mut().zip(laps) {
                times.push(lap);
            }
            objects = objects.max(segmentation.labels.count());
        }
    }
    let wall_ms = median(&mut walls);
    let [normalise, network, instances, measuring] = stages.map(|mut times| median(&mut times));
    Ok(Row {
        size,
        objects,
        frames_per_second: 1e3 / wall_ms,
        wall_ms,
        cpu_ms: normalise + network + instances + measuring,
        normalise_cpu_ms: normalise,
        network_cpu_ms: network,
        instances_cpu_ms: instances,
        measure_cpu_ms: measuring,
        peak_memory_mb: telemetry::peak_resident_bytes() as f64 / 1e6,
    })
}

fn slot(stage: Stage) -> usize {
    match stage {
        Stage::Normalise => 0,
        Stage::Network => 1,
        Stage::Instances => 2,
        Stage::Measure => 3,
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

fn median(values: &mut [f64]) -> f64 {
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

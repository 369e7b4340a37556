//! Every stage of a frame alone, one thread each, in turn.
//!
//! ```text
//! RETICLE_STAGES_EDGE=1024 RETICLE_STAGES_ROUNDS=15 cargo bench --bench stages
//! ```
//! A frame of the virtual microscope goes through each stage by that stage's own function, with what
//! the stages before gave. A round runs every stage once, one after the other, so that a machine that
//! gets slower or faster does so for all; printed is the CPU time, its median and its p10 and p90
//! over the rounds, and nanoseconds a pixel. Without the variables: 1024², 15 rounds.
//!
//! | stage | function |
//! |---|---|
//! | decode TIFF, decode PNG | `reticle_imagefile::open` and reading its page |
//! | hash | `Pixels::sha256`: what a frame costs before anybody looks at it |
//! | normalise | `Normalisation::span`, `Plane::fill` |
//! | network | `Network::run`: the frame in tiles |
//! | one tile, ours; one tile, tract | the same tile by `reticle_nn::engine` and by stock tract |
//! | instances | `instances::from_maps` |
//! | measure | `measure::objects`, `focus::score` |
//! | label encoding | `reticle_store::pack_labels`: what a result keeps in the database |
//! | label PNG | `reticle_imagefile::encode_labels_png`: what `reticle segment` writes |
//! | live message | `LiveFeed::message`: preview as JPEG, contours, colours |
//! | snapshot | `LiveFeed::snapshot`: JPEG with outlines burnt in |
//! | segmenter | `Segmenter::segment`: normalise to measure in one, with the estimate of the scale |
//!
//! The commit of a result is in `store_at_scale`, delivery in `offline_month`, growth with size and
//! objects in `growth`.

#![expect(clippy::print_stdout, reason = "it is what a benchmark is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails should end")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rayon::ThreadPoolBuilder;
use reticle::capture::{self, Event, Source, VirtualScope};
use reticle::web;
use reticle::web::{LiveFeed, LiveFrame};
use reticle_base::clock::{Clock, process_cpu};
use reticle_base::durable;
use reticle_domain::frame::Frame;
use reticle_imagefile::Limits;
use reticle_nn::planes::Planes;
use reticle_nn::runner::Runner;
use reticle_segment::instances::{self, Maps, Workspace};
use reticle_segment::network::Network;
use reticle_segment::normalise::Span;
use reticle_segment::package::ModelPackage;
use reticle_segment::scale::Plane;
use reticle_segment::tile::Grid;
use reticle_segment::{Segmenter, focus, golden, measure};

/// Rounds that are not counted: the first pays for memory and for plans.
const UNCOUNTED: usize = 1;

/// A stage, and what it took in each round.
struct Stage<'a> {
    name: &'static str,
    /// Pixels that it is about.
    pixels: usize,
    run: Box<dyn FnMut() + 'a>,
    cpu_ms: Vec<f64>,
}

impl<'a> Stage<'a> {
    fn new(name: &'static str, pixels: usize, run: impl FnMut() + 'a) -> Self {
        Self { name, pixels, run: Box::new(run), cpu_ms: Vec::new() }
    }
}

fn main() {
    let edge = number("RETICLE_STAGES_EDGE", 1024);
    let rounds = number("RETICLE_STAGES_ROUNDS", 15);
    let clock = Clock::system();
    let frame = frame(u32::try_from(edge).unwrap());
    let pixels = edge * edge;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (tiff, png) = (folder.path().join("frame.tif"), folder.path().join("frame.png"));
    durable::write(&tiff, &reticle_imagefile::encode_frame_tiff(&frame).unwrap()).unwrap();
    durable::write(&png, &golden::frame_png(&frame).unwrap()).unwrap();

    let package = ModelPackage::find("nuclei").unwrap();
    let parameters = package.manifest().postprocessing;
    let normalisation = package.manifest().normalisation;
    let network = Network::new(package.network().to_vec()).unwrap();
    let alone = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut segmenter = segmenter(&clock);
    let segmentation = segmenter.segment(&frame).unwrap();
    let grey = normalisation.span(&frame.pixels, edge);
    let plane = plane(&frame, grey);
    let mut maps = Maps::default();
    alone.install(|| network.run(&plane, &mut maps)).unwrap();
    let labels = Arc::clone(&segmentation.labels);
    let feed = LiveFeed::new();
    feed.publish(Arc::new(LiveFrame {
        segmentation: segmentation.clone(),
        ap50: None,
        true_objects: None,
    }));
    let preview_px = web::Options::default().preview_px;

    let mut stages = vec![
        Stage::new("decode TIFF", pixels, || read(&tiff)),
        Stage::new("decode PNG", pixels, || read(&png)),
        Stage::new("hash", pixels, || {
            black_box(frame.pixels.sha256());
        }),
        Stage::new("normalise", pixels, {
            let mut plane = Plane::default();
            let frame = &frame;
            move || plane.fill(frame, normalisation.span(&frame.pixels, edge))
        }),
        Stage::new("network", pixels, {
            let (mut maps, network, plane, alone) = (Maps::default(), &network, &plane, &alone);
            move || alone.install(|| network.run(plane, &mut maps)).unwrap()
        }),
    ];
    stages.extend(one_tile(&package, &plane));
    stages.extend([
        Stage::new("instances", pixels, {
            let (mut reading, maps, alone) = (Workspace::default(), &maps, &alone);
            move || {
                alone.install(|| black_box(instances::from_maps(maps, &parameters, &mut reading)));
            }
        }),
        Stage::new("measure", pixels, || {
            let objects = measure::objects(&labels, &frame.pixels);
            black_box(focus::score(&labels, &objects, &frame.pixels, grey));
        }),
        Stage::new("label encoding", pixels, || {
            black_box(reticle_store::pack_labels(&labels).unwrap());
        }),
        Stage::new("label PNG", pixels, || {
            black_box(reticle_imagefile::encode_labels_png(&labels).unwrap());
        }),
        Stage::new("live message", pixels, || {
            black_box(feed.message(preview_px).unwrap());
        }),
        Stage::new("snapshot", pixels, || {
            black_box(feed.snapshot(preview_px).unwrap());
        }),
        Stage::new("segmenter", pixels, || {
            black_box(segmenter.segment(&frame).unwrap());
        }),
    ]);
    for round in 0..UNCOUNTED + rounds {
        for stage in &mut stages {
            let before = process_cpu();
            (stage.run)();
            if round >= UNCOUNTED {
                stage.cpu_ms.push((process_cpu() - before).as_secs_f64() * 1e3);
            }
        }
    }
    println!("{edge}² with {} objects; CPU ms, one thread, {rounds} rounds", labels.count());
    println!("stage             median      p10      p90   ns/pixel");
    for Stage { name, pixels, cpu_ms, .. } in &mut stages {
        let [median, low, high] = [0.5, 0.1, 0.9].map(|share| at(cpu_ms, share));
        let ns = median * 1e6 / *pixels as f64;
        println!("{name:<16} {median:>7.2}  {low:>7.2}  {high:>7.2}   {ns:>8.2}");
    }
}

/// One tile by our engine and by stock tract. Its pixels are those of the frame's upper left.
fn one_tile(package: &ModelPackage, plane: &Plane) -> [Stage<'static>; 2] {
    let edge = Grid::for_frame(plane.width, plane.height).edge;
    let tile: Vec<f32> = (0..edge * edge)
        .map(|at| {
            let (y, x) = ((at / edge).min(plane.height - 1), (at % edge).min(plane.width - 1));
            plane.values[y * plane.width + x]
        })
        .collect();
    let stage = |name: &'static str, runner: Runner| {
        let image = tile.clone();
        Stage::new(name, edge * edge, move || {
            let fill = |pixels: &mut [f32]| pixels.copy_from_slice(&image);
            let keep = |maps: &Planes| {
                black_box(maps);
            };
            runner.run(edge, fill, keep).unwrap();
        })
    };
    let onnx = || package.network().to_vec();
    let ours = stage("one tile, ours", Runner::new(onnx()).unwrap());
    let tract = stage("one tile, tract", Runner::with_tract(onnx()));
    [ours, tract]
}

/// A frame of the virtual microscope, without its true labels.
fn frame(edge: u32) -> Arc<Frame> {
    let clock = Clock::manual(0);
    let options =
        capture::Options { width: Some(edge), height: Some(edge), ..capture::Options::default() };
    let mut scope = VirtualScope::new(&options, clock).unwrap();
    let Event::Frame(mut frame) = scope.next(Duration::ZERO).unwrap() else {
        panic!("the virtual microscope gave no frame")
    };
    frame.truth = None;
    Arc::new(*frame)
}

fn segmenter(clock: &Clock) -> Segmenter {
    let options = reticle_segment::Options {
        threads: NonZeroUsize::new(1),
        ..reticle_segment::Options::default()
    };
    Segmenter::new(&options, clock.clone()).unwrap()
}

fn plane(frame: &Frame, grey: Span) -> Plane {
    let mut plane = Plane::default();
    plane.fill(frame, grey);
    plane
}

fn read(path: &Path) {
    black_box(reticle_imagefile::open(path, Limits::default()).unwrap().next().unwrap().unwrap());
}

/// A quantile, by nearest rank.
fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// What the environment says, or else `usual`.
fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| {
        let number: NonZeroUsize =
            text.parse().unwrap_or_else(|_| panic!("{variable} is a number above 0"));
        number.get()
    })
}

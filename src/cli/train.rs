//! `reticle train`: from images and label images to a model package.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::{Outcome, out, training};
use crate::learn::evaluate::Comparison;
use crate::learn::net::{GRANULE, Widths};
use crate::learn::train::Recipe;
use crate::learn::{card, dataset, export, tune};
use reticle_base::clock::Clock;
use reticle_base::durable;
use reticle_domain::frame::Frame;
use reticle_domain::label_image::LabelImage;
use reticle_exchange::made::Made;
use reticle_segment::golden;
use reticle_segment::normalise::Normalisation;
use reticle_segment::numerics;
use reticle_segment::package::{
    self, FORMAT, MANIFEST, Manifest, Metrics, ModelPackage, NetworkFile, Training,
};
use reticle_segment::{Options, Segmenter};

/// How grey values are scaled for new models. Percentiles as in the proven recipes for these
/// data; the least span keeps the noise of an empty well at a tenth of full scale.
const NORMALISATION: Normalisation =
    Normalisation { low_percentile: 1.0, high_percentile: 99.8, min_span_sigmas: 10.0 };

/// Written beside a network that is trained but not yet packaged.
const TRAINED: &str = "training.json";

const NETWORK: &str = "model.onnx";
const CARD: &str = "README.md";

/// All that a training writes.
const FILES: [&str; 7] = [
    NETWORK,
    TRAINED,
    training::CHECKPOINT,
    MANIFEST,
    golden::FRAME_FILE,
    golden::LABELS_FILE,
    CARD,
];

/// Trains a model from images and label images and writes a model package
#[derive(clap::Args)]
pub struct Args {
    /// Folder with images/ and labels/, files of the same names
    data: PathBuf,
    /// Folder for the package; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the model [default: the name of --out]
    #[arg(long)]
    name: Option<String>,
    /// What the model segments, in one line
    #[arg(long, default_value = "Trained with reticle train.")]
    description: String,
    /// Where the images are from and under which licence, for the card
    #[arg(long, value_name = "TEXT", default_value = "Not stated.")]
    data_description: String,
    /// Folder with images/ and labels/ to choose post-processing and to evaluate on
    /// [default: every tenth image of the data is held out]
    #[arg(long, value_name = "DIR")]
    held_out: Option<PathBuf>,
    /// Image for the package's golden frame [default: the first held-out image]
    #[arg(long, value_name = "IMAGE")]
    golden: Option<PathBuf>,
    /// Model package to start from, by name or folder [default: random weights]
    #[arg(long, value_name = "MODEL")]
    start: Option<String>,
    /// Optimiser steps
    #[arg(long, default_value_t = Recipe::default().steps)]
    steps: usize,
    /// Crops in each step
    #[arg(long, default_value_t = Recipe::default().batch)]
    batch: usize,
    /// Edge of a crop in pixels, a multiple of 16
    #[arg(long, default_value_t = Recipe::default().crop)]
    crop: usize,
    /// Largest learning rate
    #[arg(long, default_value_t = Recipe::default().learning_rate)]
    learning_rate: f64,
    /// Start of all randomness
    #[arg(long, default_value_t = Recipe::default().seed)]
    seed: u64,
    /// Diameter in pixels that objects are brought to: the scale the model is made for
    /// [default: that of --start, else 20]
    #[arg(long, value_name = "PIXELS")]
    object_diameter: Option<f32>,
    /// Edge of a pixel at that scale, in µm, where such objects have a known size: frames of a
    /// known pixel size are then brought to it without a look at their objects [default: that of
    /// --start]
    #[arg(long, value_name = "UM")]
    pixel_size_um: Option<f64>,
    /// Channels at 1/2, 1/4, 1/8 and 1/16 of the frame's resolution, multiples of 16: more see
    /// more and take longer [default: those of --start, else 16,32,64,96]
    #[arg(long, value_name = "N,N,N,N", conflicts_with = "start")]
    widths: Option<Widths>,
    /// Threads that train; the result is the same with any number [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
}

/// Trains, chooses post-processing on held-out images, and writes the package.
///
/// A training that was interrupted goes on when it is started again in the same way: from the
/// last checkpoint in --out, or, if the network was trained already, with what comes after.
/// Ctrl-C ends the training and makes a package of what it has; a second one ends all.
///
/// # Errors
/// When the data set cannot be used or the package cannot be written.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    if args.crop == 0 || !args.crop.is_multiple_of(GRANULE) {
        bail!("--crop {} is no multiple of {GRANULE}, which the network needs", args.crop);
    }
    if args.out.to_str().is_some_and(package::is_built_in) {
        // `--model NAME` would be the built-in one for ever after.
        let name = args.out.display();
        bail!("--out {name} is the name of a built-in model; write ./{name}, or another name");
    }
    let start = args.start.as_deref().map(ModelPackage::find).transpose()?;
    let recipe = recipe(&args, start.as_ref())?;
    let clock = Clock::system();
    let mut made = take(&args.out)?;
    let mut pairs = dataset::read(&args.data, &NORMALISATION)?;
    if let Some((first, others)) = dataset::labels_alone(&args.data)?.split_first() {
        let more = if others.is_empty() { String::new() } else { format!(" and {}", others.len()) };
        out::tell(format_args!(
            "{}{more} without an image of that name: left out",
            first.display()
        ));
    }
    let mut held_out = match &args.held_out {
        Some(folder) => frames(&dataset::paired_paths(folder)?, &clock)?,
        None => Vec::new(),
    };
    if args.held_out.is_none() {
        let paths = dataset::paired_paths(&args.data)?;
        let tenth: Vec<_> = paths.into_iter().step_by(10).collect();
        held_out = frames(&tenth, &clock)?;
        let mut index = 0;
        pairs.retain(|_| {
            index += 1;
            (index - 1) % 10 != 0
        });
        if pairs.is_empty() {
            bail!(
                "{} has too few images to hold some out; add images or use --held-out",
                args.data.display()
            );
        }
    }
    let objects: usize =
        pairs.iter().map(|pair| pair.labels.iter().copied().max().unwrap_or(0) as usize).sum();
    let images = pairs.len();
    let data_sha256 = dataset::sha256(&pairs);
    let trained = serde_json::json!({"recipe": recipe, "data_sha256": data_sha256});
    let mut recipe_table = toml::Table::try_from(&recipe)?;
    let network = match trained_before(&args.out, &trained) {
        Some(network) => {
            out::tell(format_args!(
                "{} holds this network already; finishing it",
                args.out.display()
            ));
            network
        }
        None => {
            let start = start.as_ref().map(ModelPackage::network);
            let work = training::Work { recipe: &recipe, pairs: &pairs, start, key: &trained };
            let learner = training::in_threads(args.threads, || work.run(&mut made, &clock))?;
            let network = export::onnx_bytes(&learner.average);
            made.replace(NETWORK, &network)?;
            if learner.step < recipe.steps {
                recipe_table.insert("stopped_at".to_owned(), (learner.step as i64).into());
            } else {
                made.replace(TRAINED, trained.to_string().as_bytes())?;
                durable::remove(&args.out.join(training::CHECKPOINT))?;
            }
            network
        }
    };
    drop(pairs);

    let manifest = Manifest {
        format: FORMAT,
        name: args.name.clone().unwrap_or_else(|| {
            args.out.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }),
        description: args.description.clone(),
        network: NetworkFile {
            file: NETWORK.to_owned(),
            sha256: hex::encode(Sha256::digest(&network)),
            object_diameter_px: recipe.object_diameter_px,
            pixel_size_um: pixel_size_um(&args, start.as_ref())?,
            numerics: numerics::F32_FMA_1.to_owned(),
        },
        normalisation: NORMALISATION,
        postprocessing: tune::START,
        training: Training {
            data: args.data_description.clone(),
            data_sha256,
            images,
            objects,
            made: clock.now().rfc3339(),
            software: concat!("reticle ", env!("CARGO_PKG_VERSION")).to_owned(),
            recipe: recipe_table,
        },
        metrics: Metrics {
            split: split_name(&args),
            images: held_out.len(),
            ap50: 0.0,
            ap70: 0.0,
            ap90: 0.0,
        },
    };
    finish(&args, &mut made, manifest, &held_out, &clock)
}

/// Takes the folder of the package, where each file of a package is free or of an earlier
/// training. A folder of images, or a package that somebody changed, is refused before an hour is
/// spent.
fn take(out: &Path) -> anyhow::Result<Made> {
    let made = Made::open(out)?;
    FILES.iter().try_for_each(|name| made.check(name))?;
    Ok(made)
}

/// What the arguments ask for. A model that goes on from another one keeps its scale and its
/// channels.
fn recipe(args: &Args, start: Option<&ModelPackage>) -> anyhow::Result<Recipe> {
    let defaults = Recipe::default();
    let object_diameter_px = args
        .object_diameter
        .or_else(|| start.map(|package| package.manifest().network.object_diameter_px))
        .unwrap_or(defaults.object_diameter_px);
    if !(4.0..=200.0).contains(&object_diameter_px) {
        bail!(
            "objects of {object_diameter_px} pixels cannot be learnt; give --object-diameter 4 to 200"
        );
    }
    let widths = match start {
        Some(package) => export::load_weights(package.network())?.widths,
        None => args.widths.unwrap_or(defaults.widths),
    };
    Ok(Recipe {
        steps: args.steps,
        batch: args.batch.max(1),
        crop: args.crop,
        learning_rate: args.learning_rate,
        seed: args.seed,
        widths,
        object_diameter_px,
        start: start.map(|package| package.manifest().network.sha256.clone()),
    })
}

/// Edge of a pixel at the model's own scale. One that goes on at another scale than its start
/// has none of that start.
fn pixel_size_um(args: &Args, start: Option<&ModelPackage>) -> anyhow::Result<Option<f64>> {
    match args.pixel_size_um {
        Some(size) if !(0.001..=1000.0).contains(&size) => {
            bail!("--pixel-size-um {size} is no edge of a pixel; give 0.001 to 1000")
        }
        None if args.object_diameter.is_none() => {
            Ok(start.and_then(|package| package.manifest().network.pixel_size_um))
        }
        given => Ok(given),
    }
}

/// Chooses post-processing, measures, and writes manifest, golden frame and card.
fn finish(
    args: &Args,
    made: &mut Made,
    mut manifest: Manifest,
    held_out: &[(Arc<Frame>, LabelImage)],
    clock: &Clock,
) -> anyhow::Result<Outcome> {
    made.replace(MANIFEST, toml::to_string(&manifest)?.as_bytes())?;
    let options = Options::default();
    let mut segmenter =
        Segmenter::with_package(ModelPackage::load(&args.out)?, &options, clock.clone())?;
    let (postprocessing, result) = tune::choose(&mut segmenter, held_out)?;
    manifest.postprocessing = postprocessing;
    manifest.metrics.ap50 = rounded(&result, 0);
    manifest.metrics.ap70 = rounded(&result, 4);
    manifest.metrics.ap90 = rounded(&result, 8);
    made.replace(MANIFEST, toml::to_string(&manifest)?.as_bytes())?;

    let mut segmenter =
        Segmenter::with_package(ModelPackage::load(&args.out)?, &options, clock.clone())?;
    let fits = |frame: &Frame| frame.width.max(frame.height) <= golden::MAX_EDGE;
    let golden_frame = match &args.golden {
        Some(path) => read_frame(path, clock)?,
        None => {
            let mut frames = held_out.iter().map(|(frame, _)| frame);
            let fitting = frames.clone().find(|frame| fits(frame));
            Arc::clone(fitting.or(frames.next()).context("nothing was held out")?)
        }
    };
    if !fits(&golden_frame) {
        bail!(
            "the golden frame has {}×{} pixels, and {} are the most along an edge; name a smaller \
             one with --golden",
            golden_frame.width,
            golden_frame.height,
            golden::MAX_EDGE
        );
    }
    let segmentation = segmenter.segment(&golden_frame)?;
    made.replace(golden::FRAME_FILE, &golden::frame_png(&golden_frame)?)?;
    let labels = reticle_imagefile::encode_labels_png(&segmentation.labels)
        .context("the golden frame has too many objects for a 16-bit PNG; use a smaller one")?;
    made.replace(golden::LABELS_FILE, &labels)?;
    made.replace(CARD, card::text(&manifest).as_bytes())?;
    durable::remove(&args.out.join(TRAINED))?;
    let mut out = out::stdout();
    writeln!(
        out,
        "{}: AP at IoU 0.5 / 0.7 / 0.9 on {}: {:.3} / {:.3} / {:.3}",
        args.out.display(),
        manifest.metrics.split,
        manifest.metrics.ap50,
        manifest.metrics.ap70,
        manifest.metrics.ap90
    )?;
    Ok(Outcome::Fine)
}

/// Pooled AP at one of the thresholds, to four digits.
fn rounded(result: &Comparison, threshold: usize) -> f64 {
    (result.at[threshold].ap() * 1e4).round() / 1e4
}

fn split_name(args: &Args) -> String {
    match &args.held_out {
        Some(folder) => format!(
            "held-out split `{}`, which also chose the post-processing",
            folder.file_name().unwrap_or_default().to_string_lossy()
        ),
        None => "every tenth image, held out; they also chose the post-processing".to_owned(),
    }
}

fn trained_before(out: &Path, trained: &serde_json::Value) -> Option<Vec<u8>> {
    let before = std::fs::read_to_string(out.join(TRAINED)).ok()?;
    (serde_json::from_str::<serde_json::Value>(&before).ok()? == *trained)
        .then(|| std::fs::read(out.join(NETWORK)).ok())
        .flatten()
}

fn frames(
    paths: &[(PathBuf, PathBuf)],
    clock: &Clock,
) -> anyhow::Result<Vec<(Arc<Frame>, LabelImage)>> {
    paths
        .iter()
        .map(|(image, labels)| {
            Ok((read_frame(image, clock)?, reticle_imagefile::read_drawn_labels(labels)?))
        })
        .collect()
}

fn read_frame(path: &Path, clock: &Clock) -> anyhow::Result<Arc<Frame>> {
    let page = dataset::read_image(path)?;
    let shot = page.into_shot(clock.now(), path.display().to_string());
    Ok(Arc::new(shot.into_frame().with_context(|| path.display().to_string())?))
}

//! `reticle eval`: how good predicted label images are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{Outcome, out};
use reticle_domain::label_image::LabelImage;
use reticle_segment::scoring::{Comparison, THRESHOLDS};

/// Compares predicted label images with true ones
#[derive(clap::Args)]
pub struct Args {
    /// Folder of true label images
    #[arg(long, value_name = "DIR")]
    truth: PathBuf,
    /// Folder of predicted label images of the same names, or the --out of `reticle segment`
    #[arg(long, value_name = "DIR")]
    pred: PathBuf,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// Compares every true label image with the prediction of the same name.
///
/// # Errors
/// When a folder cannot be listed or holds no label image. A label image that is missing or
/// cannot be read is reported and makes the exit code 1; a missing prediction counts as one
/// that found nothing.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut failed = Vec::new();
    let truths = by_name(&args.truth, &mut failed)?;
    let inner = args.pred.join("labels");
    let inner = if inner.is_dir() { &inner } else { &args.pred };
    let predictions = by_name(inner, &mut failed)?;
    let mut images: Vec<(String, Comparison)> = Vec::new();
    for (name, truth) in &truths {
        let Some(predicted) = predictions.get(name) else {
            failed.push(format!("{name}: no prediction of this name in {}", args.pred.display()));
            match reticle_imagefile::read_drawn_labels(truth) {
                Ok(truth) => {
                    let nothing = LabelImage::empty(truth.width(), truth.height());
                    images.push((name.clone(), Comparison::of(&truth, &nothing)?));
                }
                Err(error) => failed.push(format!("{name}: {error:#}")),
            }
            continue;
        };
        match compare(truth, predicted) {
            Ok(comparison) => images.push((name.clone(), comparison)),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    for failure in &failed {
        out::tell(format_args!("reticle: {failure}"));
    }
    let alone: Vec<&str> =
        predictions.keys().filter(|name| !truths.contains_key(*name)).map(String::as_str).collect();
    if let Some((first, others)) = alone.split_first() {
        let more = if others.is_empty() { String::new() } else { format!(" and {}", others.len()) };
        out::tell(format_args!(
            "reticle: {first}{more} in {} without a true label image of that name: left out",
            inner.display()
        ));
    }
    if images.is_empty() {
        bail!("no label image could be compared");
    }
    let mut pooled = Comparison::default();
    for (_, comparison) in &images {
        pooled.add(comparison);
    }
    let mut out = out::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &document(&images, &pooled, &failed))?;
        writeln!(out)?;
    } else {
        table(&mut out, &images, &pooled)?;
    }
    Ok(if failed.is_empty() { Outcome::Fine } else { Outcome::WithFailures })
}

fn compare(truth: &Path, predicted: &Path) -> anyhow::Result<Comparison> {
    let truth = reticle_imagefile::read_drawn_labels(truth)?;
    let predicted = reticle_imagefile::read_drawn_labels(predicted)?;
    Ok(Comparison::of(&truth, &predicted)?)
}

/// The label images of a folder by their names, as `reticle segment` gives them. Of two of one
/// name the first is taken; the other is reported.
fn by_name(folder: &Path, failed: &mut Vec<String>) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let files = reticle_imagefile::list_images(&[folder.to_owned()])
        .with_context(|| format!("cannot list the label images in {}", folder.display()))?;
    if files.is_empty() {
        bail!("{} holds no label image (png or tiff)", folder.display());
    }
    let mut named: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files {
        match named.entry(reticle_imagefile::label_stem(&path)) {
            Entry::Vacant(free) => drop(free.insert(path)),
            Entry::Occupied(first) => failed.push(format!(
                "{}: {} has the same name and is taken; remove one",
                path.display(),
                first.get().display()
            )),
        }
    }
    Ok(named)
}

fn mean(images: &[(String, Comparison)], of: impl Fn(&Comparison) -> f64) -> f64 {
    images.iter().map(|(_, comparison)| of(comparison)).sum::<f64>() / images.len() as f64
}

fn document(images: &[(String, Comparison)], pooled: &Comparison, failed: &[String]) -> Value {
    let one = |comparison: &Comparison| {
        let at: Vec<Value> = THRESHOLDS
            .iter()
            .zip(&comparison.at)
            .map(|(threshold, counts)| {
                json!({
                    "iou": threshold,
                    "ap": counts.ap(),
                    "precision": counts.precision(),
                    "recall": counts.recall(),
                    "true_positives": counts.true_positives,
                    "false_positives": counts.false_positives,
                    "false_negatives": counts.false_negatives,
                })
            })
            .collect();
        json!({
            "true_objects": comparison.true_objects,
            "predicted_objects": comparison.predicted_objects,
            "count_error": comparison.count_error(),
            "panoptic_quality": comparison.at_half().panoptic_quality(),
            "at": at,
        })
    };
    let per_image: Vec<Value> = images
        .iter()
        .map(|(name, comparison)| {
            let mut value = one(comparison);
            value["image"] = json!(name);
            value
        })
        .collect();
    let means: Vec<Value> = THRESHOLDS
        .iter()
        .enumerate()
        .map(|(index, threshold)| {
            json!({"iou": threshold, "ap": mean(images, |comparison| comparison.at[index].ap())})
        })
        .collect();
    json!({
        "pooled": one(pooled),
        "per_image_mean": {
            "at": means,
            "count_error": mean(images, Comparison::count_error),
            "panoptic_quality": mean(images, |c| c.at_half().panoptic_quality()),
        },
        "images": per_image,
        "failed": failed,
    })
}

fn table(
    out: &mut impl Write,
    images: &[(String, Comparison)],
    pooled: &Comparison,
) -> std::io::Result<()> {
    writeln!(
        out,
        "{} images, {} true and {} predicted objects (count error {:.3} pooled, {:.3} mean)",
        images.len(),
        pooled.true_objects,
        pooled.predicted_objects,
        pooled.count_error(),
        mean(images, Comparison::count_error),
    )?;
    writeln!(out, " IoU   AP pooled   AP image mean   precision   recall")?;
    for (index, (threshold, counts)) in THRESHOLDS.iter().zip(&pooled.at).enumerate() {
        writeln!(
            out,
            "{threshold:.2}   {:>9.3}   {:>13.3}   {:>9.3}   {:>6.3}",
            counts.ap(),
            mean(images, |comparison| comparison.at[index].ap()),
            counts.precision(),
            counts.recall(),
        )?;
    }
    writeln!(out, "panoptic quality {:.3}", pooled.at_half().panoptic_quality())
}

//! `reticle segment`: images in, label images and tables out.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::json;

use super::Outcome;
use super::out::{self, Terminal};
use crate::batch::segment::{Report, Request, segment};
use reticle_base::clock::Clock;
use reticle_imagefile::{Pick, Selection};

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

/// Segments all images.
///
/// # Errors
/// When nothing can be done at all: no image, no model, no room for results.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let Args { paths, out, force, model, jobs, object_diameter, max_megapixels, .. } = args;
    let request = Request {
        paths,
        out,
        force,
        model,
        jobs,
        object_diameter_px: object_diameter,
        max_megapixels,
        selection: Selection { channel: args.channel, z: args.z },
    };
    let terminal = Terminal::new("{bar:32} {pos}/{len} images, {eta} left");
    let report = segment(&request, &Clock::system(), &terminal);
    terminal.finish();
    let report = report?;
    let outcome = print(&report, &request, args.json)?;
    terminal.end(report.is_cancelled);
    Ok(outcome)
}

fn print(report: &Report, request: &Request, json: bool) -> anyhow::Result<Outcome> {
    let mut out = out::stdout();
    if json {
        let document = json!({
            "model": report.model,
            "out": request.out,
            "images": report.images,
            "objects": report.objects,
            "failed": report.failed,
            "left_out": report.left_out,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "{} objects in {} images → {}",
            report.objects,
            report.images.len(),
            request.out.display()
        )?;
        if !report.failed.is_empty() {
            writeln!(out, "{} could not be segmented, see above", report.failed.len())?;
        }
        if !report.left_out.is_empty() {
            writeln!(out, "other files or folders were left out, see above")?;
        }
    }
    Ok(if report.failed.is_empty() { Outcome::Fine } else { Outcome::WithFailures })
}

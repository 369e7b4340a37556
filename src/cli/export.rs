//! `reticle export`: one session in a form that other programs read.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Outcome;
use super::out::{self, Terminal};
use crate::batch::export::{self, Report, Request, export};
use crate::config;
use reticle_store::Reader;

/// Writes a session's frames, label images and tables for other programs
#[derive(clap::Args)]
pub struct Args {
    /// Session: its id, or "latest"
    #[arg(long, value_name = "ID")]
    session: String,
    /// What to write
    #[arg(long)]
    format: Format,
    /// Folder for the files; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Results of this model only: its key or its name
    #[arg(long, value_name = "KEY")]
    model: Option<String>,
    /// Write into a folder that holds something: what an earlier export made there is removed
    /// first. Files that this program did not make, or that were changed since, are never replaced
    #[arg(long)]
    force: bool,
    /// Data folder; a daemon may be writing it [default: as configured]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file that names the data folder
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// OME-Zarr 0.5: pixels and label images of all models, one image for each series
    OmeZarr,
    /// OME-TIFF: pixels and labels of each frame, as two files
    OmeTiff,
    /// TIFF: labels of each frame
    LabelTiff,
    /// COCO: masks of all frames in one document
    Coco,
    /// GeoJSON for QuPath: polygons and measurements of each frame
    Geojson,
    /// CSV tables of objects, results and frames
    Csv,
    /// Parquet tables of objects, results and frames
    Parquet,
}

impl From<Format> for export::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::OmeZarr => Self::OmeZarr,
            Format::OmeTiff => Self::OmeTiff,
            Format::LabelTiff => Self::LabelTiff,
            Format::Coco => Self::Coco,
            Format::Geojson => Self::Geojson,
            Format::Csv => Self::Csv,
            Format::Parquet => Self::Parquet,
        }
    }
}

/// Exports a session; a frame that cannot be read is reported by name and passed over.
///
/// # Errors
/// When there is no such session or model, when the output folder holds something, and when the
/// store cannot be read or the output not be written.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let options = store_options(args.data.as_deref(), args.config.as_deref())?;
    let reader = Reader::open(&options.folder)?;
    let Args { session, format, out, model, force, .. } = args;
    let request = Request { session, format: format.into(), out, model, force };
    let terminal = Terminal::new("{bar:32} {pos}/{len} images, {eta} left");
    let report = export(&request, reader, &terminal);
    terminal.finish();
    let report = report?;
    let outcome = print(&report, &request, args.json)?;
    terminal.end(report.is_cancelled);
    Ok(outcome)
}

/// Options of the store that the command line names, else the configuration's.
pub(super) fn store_options(
    data: Option<&Path>,
    config: Option<&Path>,
) -> anyhow::Result<reticle_store::Options> {
    let mut options = match (data, config) {
        (Some(_), None) => reticle_store::Options::default(),
        _ => config::load(config)?.store,
    };
    if let Some(folder) = data {
        options.folder = folder.to_owned();
    }
    Ok(options)
}

fn print(report: &Report, request: &Request, json: bool) -> anyhow::Result<Outcome> {
    let mut out = out::stdout();
    let Report { frames_with_pixels, results, objects, failed, .. } = report;
    if json {
        let document = json!({
            "session": report.session,
            "models": report.models,
            "out": request.out,
            "frames": report.frames,
            "frames_with_pixels": frames_with_pixels,
            "results": results,
            "objects": objects,
            "failed": failed,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "{frames_with_pixels} frames with pixels and {results} results with {objects} objects → {}",
            request.out.display()
        )?;
        if !failed.is_empty() {
            writeln!(out, "{} could not be read, see above", failed.len())?;
        }
    }
    Ok(if failed.is_empty() { Outcome::Fine } else { Outcome::WithFailures })
}

//! `reticle import`: label images of other programs become results of a session. The daemon must not
//! be running: it has the store.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::Outcome;
use super::export::store_options;
use super::out::{self, Terminal};
use crate::batch::import::{Import, Report, Request};
use reticle_base::clock::Clock;
use reticle_exchange::import::Kind;
use reticle_store::{Reader, Store};

/// Saves label images of other programs as results of a session
#[derive(clap::Args)]
pub struct Args {
    /// Label images, documents, and folders of them
    #[arg(required = true, value_name = "PATHS")]
    paths: Vec<PathBuf>,
    /// Session that the frames belong to: its id, or "latest"
    #[arg(long, value_name = "ID")]
    session: String,
    /// Name under which the results are saved, as a model's
    #[arg(long, default_value = "import")]
    name: String,
    /// What the files are [default: as they look]
    #[arg(long)]
    format: Option<Format>,
    /// Data folder [default: as configured]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file that names the data folder
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// PNG or TIFF with labels as grey values
    #[value(aliases = ["label-tiff", "ome-tiff"])]
    Image,
    /// OME-Zarr, or a bare Zarr array
    OmeZarr,
    /// COCO
    Coco,
    /// GeoJSON, as from QuPath
    Geojson,
}

impl From<Format> for Kind {
    fn from(format: Format) -> Self {
        match format {
            Format::Image => Self::Image,
            Format::OmeZarr => Self::OmeZarr,
            Format::Coco => Self::Coco,
            Format::Geojson => Self::GeoJson,
        }
    }
}

/// Imports label images; one that cannot be read, or belongs to no frame of the session, is
/// reported by name and passed over.
///
/// # Errors
/// When nothing can be done at all: no store, no session, a daemon at work on it, no file.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let options = store_options(args.data.as_deref(), args.config.as_deref())?;
    let Args { paths, session, name, .. } = args;
    let request = Request { paths, session, name, kind: args.format.map(Kind::from) };
    // Asked before the store is opened for writing, which would make one where there is none.
    let import = Import::plan(&request, &Reader::open(&options.folder)?)?;
    let (mut store, _recovery) = Store::open(&options, Clock::system())?;
    let terminal = Terminal::new("{spinner} {pos} label images");
    let reader = store.reader();
    let report = import.run(&reader, &mut |imported| store.import(imported), &terminal);
    terminal.finish();
    store.close();
    let report = report?;
    let outcome = print(&report, args.json)?;
    terminal.end(report.is_cancelled);
    Ok(outcome)
}

fn print(report: &Report, json: bool) -> anyhow::Result<Outcome> {
    let mut out = out::stdout();
    let Report { session, model, imported, objects, already_saved, without_pixels, failed, .. } =
        report;
    if json {
        let document = json!({
            "session": session,
            "model": model,
            "imported": imported,
            "objects": objects,
            "already_saved": already_saved,
            "without_pixels": without_pixels,
            "failed": failed,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{imported} label images with {objects} objects saved as {model}")?;
        if *already_saved > 0 {
            writeln!(out, "{already_saved} were saved as {model} before, and stay as they are")?;
        }
        if *without_pixels > 0 {
            writeln!(out, "{without_pixels} measured without grey values: their pixels are gone")?;
        }
        if !failed.is_empty() {
            writeln!(out, "{} not imported, see above", failed.len())?;
        }
    }
    Ok(if failed.is_empty() { Outcome::Fine } else { Outcome::WithFailures })
}

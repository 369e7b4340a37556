//! `reticle fsck`: checks every invariant of the store and says what to do about each fault.
//!
//! With `--json` the report is one object: `folder`, `running`, `quick`, `checked` (counts),
//! `broken` and `notes` (each `invariant`, `place`, `what`), `broken_counts`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::Outcome;
use super::out::{self, progress_bar};
use crate::config;
use reticle_store::{Depth, Finding, FsckReport};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Data folder to check; a daemon may be writing it [default: as configured]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file that names the data folder
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Leave out what reads every pixel and every label image
    #[arg(long)]
    quick: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Checks the store.
///
/// # Errors
/// When there is no store, or it cannot be read at all.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let folder = match args.data {
        Some(folder) => folder,
        None => config::load(args.config.as_deref())?.store.folder,
    };
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let bar = progress_bar(0, "{bar:40} {pos}/{len} frames and results, {eta} left");
    let report = reticle_store::fsck(&folder, depth, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    let mut out = out::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)
    } else {
        print(&mut out, &report)
    }
    .context("cannot write to standard output")?;
    Ok(if report.is_clean() { Outcome::Fine } else { Outcome::WithFailures })
}

fn print(out: &mut impl Write, report: &FsckReport) -> std::io::Result<()> {
    let checked = &report.checked;
    writeln!(
        out,
        "{}: {} sessions, {} frames, {} frame files, {} results, {} objects{}{}",
        report.folder.display(),
        checked.sessions,
        checked.frames,
        checked.files,
        checked.segmentations,
        checked.objects,
        if report.running { "; a daemon is at work" } else { "" },
        if report.quick { "; pixels and label images not read" } else { "" },
    )?;
    for Finding { invariant, place, what } in &report.notes {
        writeln!(out, "note   {invariant}: {place}: {what}")?;
    }
    for Finding { invariant, place, what } in &report.broken {
        writeln!(out, "BROKEN {invariant}: {place}: {what}")?;
    }
    let mut told = Vec::new();
    for Finding { invariant, .. } in &report.broken {
        if !told.contains(invariant) {
            told.push(*invariant);
        }
    }
    for invariant in told {
        let count = report.broken_counts.get(&invariant.to_string()).copied().unwrap_or(0);
        writeln!(
            out,
            "{invariant} ({}) is broken in {count} {}. What to do: {}.",
            invariant.text(),
            if count == 1 { "place" } else { "places" },
            invariant.remedy()
        )?;
    }
    if report.is_clean() {
        writeln!(out, "All is well.")?;
    }
    Ok(())
}

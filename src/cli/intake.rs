//! `reticle intake`: what became of the images of a watched folder.
//!
//! With `--json`: `list` prints `counts` (images by what became of them) and `passed_over` (each
//! `folder`, `path`, `bytes`, `sha256`, `attempts`, `state`, `reason`, `at`); `retry` prints
//! `retried`.

use std::io::Write;

use anyhow::Context;

use super::sync::{About, Why};
use super::{Outcome, daemon, out};
use crate::config::Settings;
use reticle_base::clock::Clock;
use reticle_store::{Answer, Ask, Change, Reader, Store, StoreError};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    about: About,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// How many images were taken, and which were passed over and why
    ///
    /// In quarantine is an image during whose reading the daemon ended twice in a row.
    List,
    /// Give another chance to the images that were refused or quarantined
    ///
    /// A running daemon takes them at once, otherwise the next one does.
    Retry(Why),
}

/// Does what the verb says.
///
/// # Errors
/// When the store cannot be read, or asked.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let settings = args.about.settings()?;
    match args.verb {
        Verb::List => list(&Reader::open(&settings.store.folder)?, args.about.json)?,
        Verb::Retry(why) => retry(&settings, why.reason.as_deref(), args.about.json)?,
    }
    Ok(Outcome::Fine)
}

fn list(reader: &Reader, json: bool) -> anyhow::Result<()> {
    let (counts, passed_over) = (reader.intake_counts()?, reader.intake_passed_over()?);
    let mut out = out::stdout();
    if json {
        let counts: serde_json::Map<String, serde_json::Value> = counts
            .into_iter()
            .map(|(state, count)| (state.word().to_owned(), count.into()))
            .collect();
        let answer = serde_json::json!({ "counts": counts, "passed_over": passed_over });
        serde_json::to_writer_pretty(&mut out, &answer)?;
        writeln!(out)?;
        return Ok(());
    }
    if counts.is_empty() {
        writeln!(out, "No image of a watched folder was taken yet.")?;
    }
    for (state, count) in counts {
        writeln!(out, "{:<12} {count}", state.word())?;
    }
    for image in passed_over {
        let reason = image.reason.unwrap_or_default();
        let path = std::path::Path::new(&image.folder).join(&image.path);
        // A name is another's, and may hold what a terminal obeys.
        let path = path.display().to_string();
        let path = path.escape_debug();
        writeln!(out, "{} {path}, {}: {reason}", image.state.word(), image.at)?;
    }
    Ok(())
}

fn retry(settings: &Settings, reason: Option<&str>, json: bool) -> anyhow::Result<()> {
    let retried = Reader::open(&settings.store.folder)?.intake_passed_over()?.len();
    match Store::open(&settings.store, Clock::system()) {
        Ok((mut store, _)) => {
            if let Answer::Intake(images) = store.ask(Ask::Intake(Change::Retry))? {
                tracing::debug!(images, "given another chance");
            }
            store.close();
        }
        Err(StoreError::Locked { .. }) => {
            daemon::order(&settings.store.folder, "retry_images", reason)?;
        }
        Err(error) => return Err(error.into()),
    }
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::json!({ "retried": retried }))
    } else {
        writeln!(out, "{retried} images were passed over; they are tried again.")
    }
    .context("cannot write to standard output")
}

//! `reticle outbox`: what waits to be delivered, and what was never taken.
//!
//! With `--json`: `list` prints what `reticle sync status` prints; `quarantine` prints `parts`
//! (each `destination`, `kind`, `session`, `series`, `part`, `attempts`, `reason`) and `single`
//! (each `destination`, `kind`, `frame`, `reason`, `at`).

use std::io::Write;

use super::sync::{About, print_deliveries};
use super::{Outcome, out};
use reticle_store::Reader;

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
    /// What waits, by destination
    List,
    /// What was never taken, and why
    ///
    /// `reticle sync retry` gives it another chance.
    Quarantine,
}

/// Prints it.
///
/// # Errors
/// When the store cannot be read.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let reader = Reader::open(&args.about.settings()?.store.folder)?;
    match args.verb {
        Verb::List => print_deliveries(&reader.deliveries()?, args.about.json)?,
        Verb::Quarantine => quarantine(&reader, args.about.json)?,
    }
    Ok(Outcome::Fine)
}

fn quarantine(reader: &Reader, json: bool) -> anyhow::Result<()> {
    let (parts, single) = (reader.quarantined()?, reader.refused()?);
    let mut out = out::stdout();
    if json {
        let answer = serde_json::json!({ "parts": parts, "single": single });
        serde_json::to_writer_pretty(&mut out, &answer)?;
        writeln!(out)?;
        return Ok(());
    }
    if parts.is_empty() && single.is_empty() {
        writeln!(out, "Nothing is in quarantine.")?;
    }
    for part in parts {
        let which = match (part.series, part.part) {
            (Some(series), Some(number)) => format!("series {series}, part {number}, "),
            _ => String::new(),
        };
        writeln!(
            out,
            "{} {} of session {}, {which}{} attempts: {}",
            part.destination.word(),
            part.kind.word(),
            part.session,
            part.attempts,
            part.reason
        )?;
    }
    for one in single {
        let (destination, kind) = (one.destination.word(), one.kind.word());
        writeln!(out, "{destination} {kind} of frame {}, {}: {}", one.frame, one.at, one.reason)?;
    }
    Ok(())
}

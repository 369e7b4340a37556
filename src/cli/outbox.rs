//! `reticle outbox`: what waits to be delivered, and what was never taken.
//!
//! With `--json`: `list` prints what `reticle sync status` prints; `quarantine` prints `parts`
//! (each `destination`, `kind`, `session`, `series`, `part`, `attempts`, `reason`) and `single`
//! (each `destination`, `kind`, `frame`, `reason`, `at`).

use std::io::Write;
use std::path::PathBuf;

use super::sync::{print_deliveries, settings};
use super::{Outcome, out};
use crate::store::Reader;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Configuration file [default: /etc/reticle/reticle.toml, where there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Data folder [default: as configured]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
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
    let settings = settings(args.config.as_deref(), args.data)?;
    let reader = Reader::open(&settings.store.folder)?;
    match args.verb {
        Verb::List => print_deliveries(&reader.deliveries()?, args.json)?,
        Verb::Quarantine => quarantine(&reader, args.json)?,
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

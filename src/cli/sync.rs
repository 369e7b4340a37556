//! `reticle sync`: how far the deliveries to the archive and the central database are, and what
//! to do about them.
//!
//! With `--json`: `status` and `drain` print `destinations`, a list (`destination`, `location`,
//! `waiting`, `waiting_rows`, `quarantined`, `refused`, `done`, `oldest`, `reason`); `verify`
//! prints `sessions`, `objects`, `bytes`, `rows`, `waiting` and `differences` (each
//! `destination`, `session`, `key`, `what`); `retry` prints `retried`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;

use super::out::{self, progress_bar};
use super::{Outcome, adopt, daemon};
use crate::config::{self, Settings};
use crate::sync::{self, Destinations};
use reticle_base::clock::Clock;
use reticle_base::shutdown::Shutdown;
use reticle_store::{Answer, Ask, Delivery, Reader, Store, StoreError};

/// How often a running daemon's progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Looks without any progress after which waiting for a daemon ends: two minutes.
const PATIENCE: u32 = 240;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    about: About,
}

/// Which box is asked, and how the answer is printed.
#[derive(clap::Args)]
pub struct About {
    /// Configuration file [default: /etc/reticle/reticle.toml, where there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Data folder [default: as configured]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl About {
    /// The configuration, with the data folder of the command line.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = config::load(self.config.as_deref())?;
        if let Some(folder) = &self.data {
            settings.store.folder.clone_from(folder);
        }
        Ok(settings)
    }
}

/// Why something is asked of the daemon.
#[derive(clap::Args)]
pub struct Why {
    /// Why, for the record of a running daemon: a sentence or two
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// How far each destination is
    Status,
    /// Deliver everything that waits, and return when it is there
    ///
    /// Without a daemon this process delivers; a running one is asked to. Ends with exit code 1
    /// when something is left: in quarantine, or because a destination does not answer.
    Drain(Why),
    /// Give another chance to what was refused or quarantined
    Retry {
        /// And deliver everything again that was taken: for a bucket or database that somebody
        /// emptied. What is still there stays as it is
        #[arg(long)]
        everything: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Read back from the archive what this store has forgotten
    ///
    /// After a restore, a snapshot, or a new disk: sessions, frames, results and objects come back
    /// with their ids, and a new epoch begins. Needs the daemon stopped. Done again, it changes
    /// nothing. Ends with exit code 1 where another store went on with a session.
    Adopt(adopt::Args),
    /// Read everything that the destinations have, and compare it with the store
    ///
    /// Every object of the archive is read to its end and hashed, which costs what reading it
    /// costs. Ends with exit code 1 on any difference.
    Verify,
}

/// Does what the verb says.
///
/// # Errors
/// When the store or a destination cannot be read.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let settings = args.about.settings()?;
    let json = args.about.json;
    match args.verb {
        Verb::Status => {
            let deliveries = Reader::open(&settings.store.folder)?.deliveries()?;
            print_deliveries(&deliveries, json)?;
            Ok(Outcome::Fine)
        }
        Verb::Drain(why) => {
            let (deliveries, running) = drain(&settings, why.reason.as_deref())?;
            print_deliveries(&deliveries, json)?;
            // A running daemon has taken more meanwhile, which waits for its own time.
            let left = |delivery: &Delivery| {
                let waiting = if running { 0 } else { delivery.waiting };
                waiting + delivery.quarantined + delivery.refused > 0 || delivery.conflict.is_some()
            };
            let any = deliveries.iter().any(left);
            Ok(if any { Outcome::WithFailures } else { Outcome::Fine })
        }
        Verb::Retry { everything, why } => {
            retry(&settings, everything, why.reason.as_deref(), json)
        }
        Verb::Adopt(args) => adopt::run(&args, &settings, json),
        Verb::Verify => verify(&settings, json),
    }
}

fn destinations(settings: &Settings) -> anyhow::Result<Destinations> {
    let name = settings.r#box.name();
    Ok(Destinations::open(&settings.sync, &name, &settings.store, Clock::system())?)
}

/// How far the destinations are afterwards, and whether a daemon did it.
fn drain(settings: &Settings, reason: Option<&str>) -> anyhow::Result<(Vec<Delivery>, bool)> {
    let reader = Reader::open(&settings.store.folder)?;
    let bar = spinner();
    let done = match Store::open(&settings.store, Clock::system()) {
        Ok((store, _)) => {
            (sync::drain(&destinations(settings)?, store, |now| show(&bar, now))?, false)
        }
        Err(StoreError::Locked { .. }) => {
            daemon::order(&settings.store.folder, "deliver", reason)?;
            wait_for_daemon(&reader, &bar)?;
            (reader.deliveries()?, true)
        }
        Err(error) => return Err(error.into()),
    };
    bar.finish_and_clear();
    Ok(done)
}

/// Returns when the daemon has delivered what waited when it was asked, or when nothing has
/// moved for a while. What it takes meanwhile waits for its own time.
fn wait_for_daemon(reader: &Reader, bar: &ProgressBar) -> anyhow::Result<()> {
    let (mut last, mut still) = (None, 0);
    loop {
        let hurried = reader.urgent()?;
        show(bar, &reader.deliveries()?);
        still = if last == Some(hurried) { still + 1 } else { 0 };
        if hurried == 0 {
            return Ok(());
        }
        if still >= PATIENCE {
            anyhow::bail!(
                "the daemon gets on with nothing for {} s; see `reticle sync status`",
                (LOOK * PATIENCE).as_secs()
            );
        }
        last = Some(hurried);
        // Nobody asks to stop: a signal ends this process, and the daemon goes on.
        Shutdown::new().wait(LOOK);
    }
}

fn retry(
    settings: &Settings,
    everything: bool,
    reason: Option<&str>,
    json: bool,
) -> anyhow::Result<Outcome> {
    let (ask, command) =
        if everything { (Ask::Again, "deliver_again") } else { (Ask::Retry, "retry_deliveries") };
    let reader = Reader::open(&settings.store.folder)?;
    let count = |deliveries: Vec<Delivery>| -> u64 {
        deliveries.iter().map(|delivery| delivery.quarantined + delivery.refused).sum()
    };
    let before = count(reader.deliveries()?);
    match Store::open(&settings.store, Clock::system()) {
        Ok((mut store, _)) => {
            if let Answer::Retried(items) = store.ask(ask)? {
                tracing::debug!(items, "given another chance");
            }
            store.close();
        }
        Err(StoreError::Locked { .. }) => {
            daemon::order(&settings.store.folder, command, reason)?;
        }
        Err(error) => return Err(error.into()),
    }
    let mut out = out::stdout();
    if json {
        writeln!(out, "{}", serde_json::json!({ "retried": before }))
    } else {
        writeln!(out, "{before} refused or quarantined; they are tried again.")
    }
    .context("cannot write to standard output")?;
    Ok(Outcome::Fine)
}

fn verify(settings: &Settings, json: bool) -> anyhow::Result<Outcome> {
    let reader = Reader::open(&settings.store.folder)?;
    let destinations = destinations(settings)?;
    let bar = spinner();
    let verified = sync::verify(&destinations, &reader, |done, sessions| {
        bar.set_message(format!("session {} of {sessions}", done + 1));
    })?;
    bar.finish_and_clear();
    let mut out = out::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, &verified)?;
        writeln!(out)?;
    } else {
        for difference in &verified.differences {
            let key = difference.key.as_deref().unwrap_or("the rows");
            writeln!(
                out,
                "DIFFERENT {} session {}: {key} {}",
                difference.destination.word(),
                difference.session,
                difference.what
            )?;
        }
        writeln!(
            out,
            "{} sessions: {} objects ({} bytes) and {} rows compared, {} differences, {} \
             deliveries wait.",
            verified.sessions,
            verified.objects,
            verified.bytes,
            verified.rows,
            verified.differences.len(),
            verified.waiting
        )?;
    }
    let fine = verified.differences.is_empty();
    Ok(if fine { Outcome::Fine } else { Outcome::WithFailures })
}

pub(super) fn print_deliveries(deliveries: &[Delivery], json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    if json {
        let answer = serde_json::json!({ "destinations": deliveries });
        serde_json::to_writer_pretty(&mut out, &answer)?;
        writeln!(out)?;
        return Ok(());
    }
    if deliveries.is_empty() {
        writeln!(out, "No destination is configured, or no daemon has run with one yet.")?;
    }
    for delivery in deliveries {
        let Delivery { destination, location, waiting, waiting_rows, done, .. } = delivery;
        writeln!(out, "{} {location}", destination.word())?;
        writeln!(out, "  delivered    {done} parts")?;
        let oldest = delivery
            .oldest
            .as_ref()
            .map(|oldest| format!(", the oldest since {oldest}"))
            .unwrap_or_default();
        writeln!(out, "  waiting      {waiting} parts with {waiting_rows} new rows{oldest}")?;
        if delivery.quarantined + delivery.refused > 0 {
            writeln!(
                out,
                "  quarantined  {} parts, {} single frames or results; see `reticle outbox \
                 quarantine`",
                delivery.quarantined, delivery.refused
            )?;
        }
        if let Some(reason) = &delivery.reason {
            writeln!(out, "  last failure {reason}")?;
        }
    }
    Ok(())
}

fn show(bar: &ProgressBar, deliveries: &[Delivery]) {
    let waiting: u64 = deliveries.iter().map(|delivery| delivery.waiting).sum();
    bar.set_message(format!("{waiting} parts wait"));
}

fn spinner() -> ProgressBar {
    let bar = progress_bar(0, "{spinner} {msg}  {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

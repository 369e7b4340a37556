//! `reticle restore`: a backup takes the place of the database, and what came after it is named.
//!
//! With `--json`: `plan` (`backup`, `contents`, `checksum`, `present` with `state` and, for a
//! store, `contents` and `missing`), `restored` (`store`, `epoch`, `contents`, `set_aside`,
//! `files`, `from_orphans`, `files_missing`), `adopted` (as `reticle sync adopt`; null where
//! nothing could be read back) and `not_adopted` (why).

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::Outcome;
use super::adopt;
use super::out;
use super::sync::About;
use reticle_base::clock::Clock;
use reticle_store::{Missing, Plan, Present, Restored, Restoring};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The backup, as `reticle backup` made it
    #[arg(long, value_name = "BACKUP")]
    from: PathBuf,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Do not read back from the archive what the backup does not have
    #[arg(long)]
    without_archive: bool,
    #[command(flatten)]
    about: About,
}

/// Restores a backup.
///
/// # Errors
/// When a daemon works in the data folder, the backup is not sound, or nobody agreed.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let settings = args.about.settings()?;
    let restoring = Restoring::prepare(&settings.store.folder, &args.from)?;
    let plan = restoring.plan().clone();
    if !args.about.json {
        tell_plan(&plan);
    }
    if !args.yes && !is_agreed()? {
        restoring.give_up()?;
        bail!("nothing was changed");
    }
    let restored = restoring.put_in_place(&Clock::system())?;
    if !args.about.json {
        print(&mut out::stdout(), &restored).context("cannot write to standard output")?;
    }
    let (adopted, not_adopted) = if args.without_archive {
        (None, Some("it was not asked for".to_owned()))
    } else if settings.sync.archive.to.trim() == "none" {
        (None, Some("no archive is configured".to_owned()))
    } else {
        match adopt::same(&settings) {
            Ok(adopted) => (Some(adopted), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        }
    };
    let mut out = out::stdout();
    if args.about.json {
        let answer = serde_json::json!({
            "plan": plan, "restored": restored, "adopted": adopted, "not_adopted": not_adopted,
        });
        serde_json::to_writer_pretty(&mut out, &answer)?;
        writeln!(out)?;
    } else if let Some(adopted) = &adopted {
        adopt::print(&mut out, adopted).context("cannot write to standard output")?;
    } else if let Some(why) = &not_adopted {
        writeln!(
            out,
            "Nothing was read back from the archive: {why}.\nBefore anything is delivered again, \
             run `reticle sync adopt`."
        )?;
    }
    let is_fine = adopted.as_ref().is_none_or(|adopted| adopted.conflicts.is_empty())
        && (not_adopted.is_none()
            || args.without_archive
            || settings.sync.archive.to.trim() == "none");
    Ok(if is_fine { Outcome::Fine } else { Outcome::WithFailures })
}

fn is_agreed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "nobody can be asked here; say --yes to put the backup in place. Nothing was changed"
        );
    }
    out::tell("Put it in place? [y/N]");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn tell_plan(plan: &Plan) {
    let held = &plan.contents;
    let compared = if plan.checksum {
        "it is what its checksum says"
    } else {
        "there is no checksum beside it"
    };
    out::tell(format_args!(
        "{}: sound; {compared}. It holds {} sessions, {} frames, {} results, {} objects{}.",
        plan.backup.display(),
        held.sessions,
        held.frames,
        held.results,
        held.objects,
        held.newest_commit.as_ref().map(|at| format!(", up to {at}")).unwrap_or_default()
    ));
    match &plan.present {
        Present::Nothing => out::tell("There is no database in the data folder."),
        Present::Unreadable { why } => out::tell(format_args!(
            "The database in the data folder cannot be read, so what it has and the backup has not \
             cannot be told ({why}). It will be set aside, whole."
        )),
        Present::Store { missing, .. } => tell_missing(missing),
    }
}

fn tell_missing(missing: &Missing) {
    if missing.other_store {
        out::tell("The database in the data folder is of ANOTHER store than the backup.");
    }
    let range = match (&missing.first, &missing.last) {
        (Some(first), Some(last)) => format!(", captured from {first} to {last}"),
        _ => String::new(),
    };
    out::tell(format_args!(
        "WILL BE MISSING, as far as the archive does not have it: {} results with {} objects, {} \
         frames{range}, {} sessions. The database here will be set aside, whole.",
        missing.results, missing.objects, missing.frames, missing.sessions
    ));
}

fn print(out: &mut impl Write, restored: &Restored) -> io::Result<()> {
    let held = &restored.contents;
    writeln!(
        out,
        "Restored: {} sessions, {} frames, {} results, {} objects; store {}, epoch {}.",
        held.sessions,
        held.frames,
        held.results,
        held.objects,
        restored.identity.store,
        restored.identity.epoch
    )?;
    writeln!(
        out,
        "Frame files: {} are there ({} came back from orphans/), {} are not there any more.",
        restored.files, restored.from_orphans, restored.files_missing
    )?;
    if let Some(aside) = &restored.set_aside {
        writeln!(out, "The old database is in {}.", aside.display())?;
    }
    Ok(())
}

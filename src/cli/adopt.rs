//! `reticle sync adopt`, also at the end of `reticle restore`: what the archive knows is read
//! back.
//!
//! With `--json`: `store`, `epoch`, `place`, `sessions`, `new_sessions`, `taken` (`frames`,
//! `results`, `objects`, `pixels`), `files`, `missing` and `conflicts` (each `session`, `what`),
//! `left`, `changed`.

use std::io::{self, Write};

use anyhow::bail;

use super::Outcome;
use super::out::{self, progress_bar};
use crate::config::Settings;
use crate::sync::{self, Adopted, Destinations, Request, Whose};
use reticle_base::clock::Clock;
use reticle_base::ids::StoreId;
use reticle_domain::facts::BoxName;
use reticle_store::Store;

/// Lines of one kind that are printed; with `--json` all are there.
const SHOWN: usize = 20;

/// Arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The data folder is empty: bring back the store with this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["box", "as_new_store"])]
    store: Option<StoreId>,
    /// The data folder is empty: bring back the store that delivered as this box, by its
    /// configured name or the one given
    #[arg(
        long, value_name = "SITE/NAME", num_args = 0..=1, default_missing_value = "",
        conflicts_with = "as_new_store"
    )]
    r#box: Option<String>,
    /// This store is a copy that is to live beside its original: give it a name of its own, and
    /// leave the sessions in the archive to the original
    #[arg(long)]
    as_new_store: bool,
}

/// What the arguments ask for.
fn request(args: &Args, settings: &Settings) -> anyhow::Result<Request> {
    let mut box_name = settings.r#box.name();
    if let Some(given) = args.r#box.as_deref().filter(|given| !given.is_empty()) {
        let Some((site, name)) = given.split_once('/') else {
            bail!("--box wants SITE/NAME, as lab/box-1; \"{given}\" is none");
        };
        box_name = BoxName { site: site.to_owned(), name: name.to_owned() };
    }
    let whose = match (args.store, &args.r#box, args.as_new_store) {
        (Some(store), ..) => Whose::Store(store),
        (None, Some(_), _) => Whose::Box,
        (None, None, true) => Whose::New,
        (None, None, false) => Whose::Same,
    };
    Ok(Request { whose, box_name })
}

/// Reads back, and prints what came.
pub(super) fn run(args: &Args, settings: &Settings, json: bool) -> anyhow::Result<Outcome> {
    let request = request(args, settings)?;
    let is_empty = !settings.store.folder.join("reticle.db").exists();
    if is_empty && matches!(request.whose, Whose::Same | Whose::New) {
        bail!(
            "there is no store in {}; to bring one back into an empty folder, say --box (the store \
             of this box) or --store ID",
            settings.store.folder.display()
        );
    }
    let adopted = adopt(settings, &request)?;
    let mut out = out::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, &adopted)?;
        writeln!(out)?;
    } else {
        print(&mut out, &adopted)?;
    }
    Ok(if adopted.conflicts.is_empty() { Outcome::Fine } else { Outcome::WithFailures })
}

/// Reads back the store in the data folder.
pub(super) fn same(settings: &Settings) -> anyhow::Result<Adopted> {
    adopt(settings, &Request { whose: Whose::Same, box_name: settings.r#box.name() })
}

fn adopt(settings: &Settings, request: &Request) -> anyhow::Result<Adopted> {
    let clock = Clock::system();
    let destinations =
        Destinations::open(&settings.sync, &settings.r#box.name(), &settings.store, clock.clone())?;
    let (store, _) = Store::open(&settings.store, clock.clone())?;
    let bar = progress_bar(0, "{bar:40} {pos}/{len} sessions, {eta} left");
    let adopted = sync::adopt(&destinations, store, request, &clock, |done, sessions| {
        bar.set_length(sessions);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(adopted?)
}

pub(super) fn print(out: &mut impl Write, adopted: &Adopted) -> io::Result<()> {
    let taken = &adopted.taken;
    writeln!(
        out,
        "{}: {} sessions of this box; came back: {} sessions, {} frames, {} results, {} objects; \
         the archive has the pixels of {} more frames; {} files came back from orphans/.",
        adopted.place,
        adopted.sessions,
        adopted.new_sessions,
        taken.frames,
        taken.results,
        taken.objects,
        taken.pixels,
        adopted.files
    )?;
    for (word, list) in [("MISSING", &adopted.missing), ("CONFLICT", &adopted.conflicts)] {
        for lacking in list.iter().take(SHOWN) {
            writeln!(out, "{word} session {}: {}", lacking.session, lacking.what)?;
        }
        if list.len() > SHOWN {
            writeln!(out, "{word} … and {} more; --json has all", list.len() - SHOWN)?;
        }
    }
    if adopted.left > 0 {
        writeln!(out, "{} sessions are left to the store that they are of.", adopted.left)?;
    }
    if adopted.changed {
        writeln!(out, "Store {}, epoch {}.", adopted.identity.store, adopted.identity.epoch)
    } else {
        writeln!(out, "Nothing was forgotten; nothing changed.")
    }
}

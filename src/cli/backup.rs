//! `reticle backup`: a copy of the database, made while the daemon works, and checked.
//!
//! With `--json`: `path`, `bytes`, `sha256`, `contents` (`schema`, `store`, `epoch`, `sessions`,
//! `frames`, `results`, `objects`, `newest_commit`, `files`), `removed` (list of paths, with
//! `--keep`).

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::Outcome;
use super::out;
use super::sync::About;
use reticle_base::clock::Clock;
use reticle_base::durable;
use reticle_store::Backup;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// A folder, in which the backup gets a name with the box and the time; or a new file
    #[arg(long, value_name = "FOLDER|FILE")]
    to: PathBuf,
    /// Remove the oldest backups of this box in the folder, so that this many are left
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroUsize>,
    #[command(flatten)]
    about: About,
}

/// Makes a backup.
///
/// # Errors
/// When there is no store, the backup's name is taken, or it could not be written or is not sound.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let settings = args.about.settings()?;
    let is_folder = args.to.is_dir();
    if args.keep.is_some() && !is_folder {
        bail!("--keep works on a folder of backups, and {} is none", args.to.display());
    }
    let prefix = prefix(&settings.r#box.name().name);
    let to = if is_folder {
        let time: String = Clock::system().now().rfc3339();
        let digits: String =
            time.chars().filter(|c| c.is_ascii_digit() || *c == 'T').take(15).collect();
        args.to.join(format!("{prefix}{digits}Z.db"))
    } else {
        args.to.clone()
    };
    let backup = reticle_store::backup(&settings.store.folder, &to)?;
    let removed = match args.keep {
        Some(keep) => rotate(&args.to, &prefix, keep.get())?,
        None => Vec::new(),
    };
    let mut out = out::stdout();
    if args.about.json {
        let mut answer = serde_json::to_value(&backup)?;
        answer["removed"] = serde_json::to_value(&removed)?;
        serde_json::to_writer_pretty(&mut out, &answer)?;
        writeln!(out)
    } else {
        print(&mut out, &backup, &removed)
    }
    .context("cannot write to standard output")?;
    Ok(Outcome::Fine)
}

/// What the names of a box's backups begin with.
fn prefix(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!("reticle-{}-", name.chars().map(plain).collect::<String>())
}

/// Removes the oldest backups with this prefix: those whose names we make, and whose checksum is
/// there.
fn rotate(folder: &Path, prefix: &str, keep: usize) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list the backups in {}", folder.display()))?;
    let mut backups: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_backup(name, prefix))
        .filter(|name| folder.join(format!("{name}.sha256")).is_file())
        .collect();
    // Their names sort by time.
    backups.sort();
    backups.truncate(backups.len().saturating_sub(keep));
    let mut removed = Vec::new();
    for name in backups {
        let path = folder.join(&name);
        for file in [path.clone(), folder.join(format!("{name}.sha256"))] {
            durable::remove(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        removed.push(path);
    }
    Ok(removed)
}

fn is_backup(name: &str, prefix: &str) -> bool {
    let time = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("Z.db"));
    time.is_some_and(|time| {
        time.len() == "20261128T235959".len()
            && time
                .chars()
                .enumerate()
                .all(|(at, c)| if at == 8 { c == 'T' } else { c.is_ascii_digit() })
    })
}

fn print(out: &mut impl Write, backup: &Backup, removed: &[PathBuf]) -> std::io::Result<()> {
    let held = &backup.contents;
    writeln!(out, "{} ({} bytes, checked)", backup.path.display(), backup.bytes)?;
    writeln!(out, "  sha256   {}", backup.sha256)?;
    writeln!(
        out,
        "  holds    {} sessions, {} frames, {} results, {} objects",
        held.sessions, held.frames, held.results, held.objects
    )?;
    if let Some(newest) = &held.newest_commit {
        writeln!(out, "  up to    {newest}")?;
    }
    if let Some(identity) = &held.identity {
        writeln!(out, "  store    {}, epoch {}", identity.store, identity.epoch)?;
    }
    writeln!(
        out,
        "  without  {} frame files: they are under frames/, and in the archive as configured",
        held.files
    )?;
    for path in removed {
        writeln!(out, "  removed  {}", path.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_oldest_backups_of_this_box_go() {
        let folder = tempfile::tempdir().unwrap();
        let name = |day: u32| format!("reticle-box_1-202611{day:02}T030000Z.db");
        let mut others = vec![
            "reticle-box-2-20261101T030000Z.db".to_owned(),
            "reticle-box_1-notes.db".to_owned(),
            "reticle-box_1-20261100T030000Z.db".to_owned(),
        ];
        for day in 1..=4 {
            durable::write(&folder.path().join(name(day)), b"").unwrap();
            durable::write(&folder.path().join(format!("{}.sha256", name(day))), b"").unwrap();
        }
        for other in &others {
            durable::write(&folder.path().join(other), b"").unwrap();
        }
        let removed = rotate(folder.path(), &prefix("box 1"), 2).unwrap();
        assert_eq!(removed, [folder.path().join(name(1)), folder.path().join(name(2))]);
        let mut left: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.ends_with(".db"))
            .collect();
        left.sort();
        others.extend([name(3), name(4)]);
        others.sort();
        assert_eq!(left, others);
    }
}

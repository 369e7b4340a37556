//! `reticle version`: what exactly is running, for a bug report or an audit.

use std::io::Write;

use super::{Outcome, out};
use reticle_segment::numerics;

/// Arguments of `reticle version`.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object with stable fields
    #[arg(long)]
    json: bool,
}

/// What was built. The field names are those of `--json`.
#[derive(Debug, serde::Serialize)]
pub struct Version {
    /// Version of the program.
    pub version: &'static str,
    /// Commit it was built from, where the build said so (`RETICLE_GIT_COMMIT`).
    pub git_commit: Option<&'static str>,
    /// Machine it was built for, as `x86_64-linux-gnu`.
    pub target: String,
    /// How it computes results: what a package may ask for.
    pub numerics: &'static [&'static str],
    /// Version of the SQLite library within.
    pub sqlite: &'static str,
}

/// The version of this program.
pub fn version() -> Version {
    let c_library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    Version {
        version: env!("CARGO_PKG_VERSION"),
        // From the environment of the build, so that building needs neither git nor a clone.
        git_commit: option_env!("RETICLE_GIT_COMMIT").filter(|commit| !commit.is_empty()),
        target: format!("{}-{}-{c_library}", std::env::consts::ARCH, std::env::consts::OS),
        numerics: &numerics::KNOWN,
        sqlite: rusqlite::version(),
    }
}

/// Runs `reticle version`.
///
/// # Errors
/// When stdout is gone.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let version = version();
    let mut out = out::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &version)?;
        writeln!(out)?;
    } else {
        writeln!(out, "reticle {}", version.version)?;
        writeln!(out, "commit: {}", version.git_commit.unwrap_or("not recorded in this build"))?;
        writeln!(out, "target: {}", version.target)?;
        writeln!(out, "numerics: {}", version.numerics.join(", "))?;
        writeln!(out, "SQLite: {}", version.sqlite)?;
    }
    Ok(Outcome::Fine)
}

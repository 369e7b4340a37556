//! `reticle config`: check, show and explain the configuration.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Outcome, out};
use crate::{app, config, web};
use reticle_base::clock::Clock;

/// Arguments of `reticle config`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Read the configuration and say everything that is wrong with it, as `reticle run` would
    ///
    /// Certificates, keys, model package and listen address are tried as `reticle run` tries them,
    /// so run it on the box and as its user. No server is asked and nothing is written; `reticle
    /// check` asks the servers, too.
    Check {
        #[command(flatten)]
        which: Which,
        /// Print {"ok", "files", "problems": [{"file", "line", "key", "message"}], "warnings": ["text"]}
        #[arg(long)]
        json: bool,
    },
    /// Print the settings in effect, and where each one came from; addresses without passwords
    Show {
        #[command(flatten)]
        which: Which,
        /// Print the settings as JSON, without their origins
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of the configuration, for editors
    Schema,
    /// Print a configuration file with every key explained, all commented out
    Default,
}

#[derive(clap::Args)]
struct Which {
    /// The configuration file; its drop-ins in FILE.d/*.toml are read too
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same as FILE, spelt as for `reticle run`
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

impl Which {
    fn path(&self) -> Option<&Path> {
        self.file.as_deref().or(self.config.as_deref())
    }
}

/// Runs `reticle config`.
///
/// # Errors
/// When the configuration is wrong (not for `check`, which reports it) or stdout is gone.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut out = out::stdout();
    match args.verb {
        Verb::Check { which, json } => return check(which.path(), json, &mut out),
        Verb::Show { which, json } => {
            let loaded = config::load_explained(which.path())?;
            if json {
                print_json(&mut out, &config::shown(&loaded.settings))?;
            } else {
                out.write_all(config::effective(&loaded).as_bytes())?;
            }
        }
        Verb::Schema => print_json(&mut out, &config::schema())?,
        Verb::Default => out.write_all(config::default_file().as_bytes())?,
    }
    Ok(Outcome::Fine)
}

fn check(path: Option<&Path>, json: bool, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let (files, passed_over, open, problems) = match config::load_explained(path) {
        Ok(loaded) => {
            let open = web::open_to_network(loaded.settings.web.listen);
            let refused = app::refusals(&loaded.settings, &Clock::system());
            let problems = refused.into_iter().map(|(key, why)| loaded.problem(&key, why));
            let problems = problems.collect();
            let passed_over: Vec<String> =
                loaded.passed_over.iter().map(ToString::to_string).collect();
            (loaded.files, passed_over, open, problems)
        }
        Err(error) => (Vec::new(), Vec::new(), None, error.problems),
    };
    let ok = problems.is_empty();
    if json {
        let report = serde_json::json!({
            "ok": ok, "files": files, "problems": problems,
            "warnings": Vec::from_iter(passed_over.iter().chain(&open)),
        });
        print_json(out, &report)?;
    } else if ok {
        if files.is_empty() {
            writeln!(out, "no configuration file ({}): all defaults", config::DEFAULT_FILE)?;
        }
        for file in files {
            writeln!(out, "{}: fine", file.display())?;
        }
        for warning in passed_over {
            out::tell(warning);
        }
        if let Some(open) = open {
            out::tell(format!("web.listen: {open}"));
        }
    } else {
        for problem in problems {
            out::tell(problem);
        }
    }
    Ok(if ok { Outcome::Fine } else { Outcome::WithFailures })
}

fn print_json(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

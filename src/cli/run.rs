//! `reticle run`: the appliance.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Outcome;
use crate::capture::SourceSpec;
use crate::config::{self, Loaded};
use crate::{app, telemetry};
use reticle_base::clock::Clock;
use reticle_base::memory;
use reticle_base::shutdown::Shutdown;

/// Runs the appliance: captures, segments, stores, shows the live page
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file [default: /etc/reticle/reticle.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where frames come from: virtual, folder:PATH or v4l:/dev/videoN
    #[arg(long, value_name = "SPEC")]
    source: Option<SourceSpec>,
    /// Frames a second, for sources that can be told
    #[arg(long)]
    fps: Option<f64>,
    /// Start a folder again at its end
    #[arg(long)]
    replay: bool,
    /// Folder for records, label images and frames
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port of the page; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Model package: a built-in name or a folder
    #[arg(long)]
    model: Option<String>,
}

/// Runs until a signal; what the command line says goes before the configuration.
///
/// # Errors
/// When the appliance cannot start.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let Loaded { mut settings, passed_over, .. } = config::load_explained(args.config.as_deref())?;
    if let Some(spec) = args.source {
        settings.source.spec = spec;
    }
    if args.fps.is_some() {
        settings.source.fps = args.fps;
    }
    settings.source.replay |= args.replay;
    if let Some(folder) = args.data {
        settings.store.folder = folder;
    }
    if let Some(listen) = args.listen {
        settings.web.listen = listen;
    }
    if let Some(model) = args.model {
        settings.segment.model = model;
    }
    memory::share_heaps();
    telemetry::init(&settings.log)?;
    for drop_in in passed_over {
        tracing::warn!("{drop_in}");
    }
    app::run(&settings, &Clock::system(), &Shutdown::new())?;
    Ok(Outcome::Fine)
}

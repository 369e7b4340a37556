//! `reticle train`
use super::Outcome;
use crate::base::shutdown::Shutdown;
use crate::learn::*;
use crate::segment::normalise::Normalisation;
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    data: PathBuf,
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 5000)]
    steps: usize,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 192)]
    crop: usize,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let n = Normalisation { low_percentile: 1.0, high_percentile: 99.8, min_span_sigmas: 10.0 };
    let pairs = dataset::read(&args.data, &n)?;
    let recipe = train::Recipe {
        steps: args.steps,
        batch: args.batch,
        crop: args.crop,
        ..Default::default()
    };
    let start = crate::base::clock::Clock::system().now();
    let mut mean = 0.0;
    let net = train::train(&recipe, &pairs, &Shutdown::new(), |p| {
        mean = if p.step == 1 { p.loss } else { mean * 0.98 + 0.02 * p.loss };
        if p.step % 20 == 0 || p.step < 5 {
            let now = crate::base::clock::Clock::system().now();
            eprintln!(
                "step {} loss {:.4} mean {mean:.4} {:.2}s/step cpu {:.2}",
                p.step,
                p.loss,
                now.since(&start).as_secs_f64() / p.step as f64,
                crate::base::clock::process_cpu().as_secs_f64() / p.step as f64
            );
        }
    });
    std::fs::create_dir_all(&args.out)?;
    std::fs::write(args.out.join("model.onnx"), export::onnx_bytes(&net)?)?;
    Ok(Outcome::Fine)
}

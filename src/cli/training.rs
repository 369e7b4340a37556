//! The part of `reticle train` that takes an hour, so that the hour is not lost: it can be stopped
//! at any step, and goes on from its checkpoint.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};

use super::out::{self, progress_bar};
use crate::learn::dataset::Pair;
use crate::learn::train::{Recipe, begin, train};
use reticle_base::clock::Clock;
use reticle_base::shutdown::Shutdown;
use reticle_exchange::made::Made;
use reticle_nn::trainer::checkpoint;
use reticle_nn::trainer::optimiser::Learner;

/// Name of the checkpoint's file.
pub(super) const CHECKPOINT: &str = "checkpoint.bin";

/// Steps between two checkpoints: a minute or two of work that may be lost.
const CHECKPOINT_STEPS: usize = 500;

/// What is to be learnt.
pub(super) struct Work<'a> {
    /// How.
    pub(super) recipe: &'a Recipe,
    /// From what.
    pub(super) pairs: &'a [Pair],
    /// The network to go on from, as ONNX.
    pub(super) start: Option<&'a [u8]>,
    /// All that makes it this training and no other.
    pub(super) key: &'a serde_json::Value,
}

impl Work<'_> {
    /// Goes on from the checkpoint in the package's folder, or begins, until all steps are done or Ctrl-C comes.
    ///
    /// # Errors
    /// When the checkpoint is of another training, or cannot be written.
    pub(super) fn run(&self, made: &mut Made, clock: &Clock) -> anyhow::Result<Learner> {
        let &Self { recipe, pairs, start, key } = self;
        let path = &made.folder().join(CHECKPOINT);
        let mut learner = begin(recipe, start)?;
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => bail!("cannot read {}: {error}", path.display()),
            Ok(bytes) => {
                let saved = checkpoint::from_bytes(&bytes, key, &learner.net);
                learner = saved.with_context(|| another_training(path))?;
                let step = learner.step;
                out::tell(format_args!("going on from step {step} in {}", path.display()));
            }
        }
        let mut save = |learner: &Learner| -> anyhow::Result<()> {
            Ok(made.replace(CHECKPOINT, &checkpoint::to_bytes(learner, key))?)
        };
        let signalled = on_interrupt()?;
        let shutdown = Shutdown::new();
        let is_terminal = std::io::stderr().is_terminal();
        let template = "{bar:32} step {pos}/{len}, loss {msg}, {eta} left";
        let bar = progress_bar(recipe.steps as u64, template);
        bar.set_position(learner.step as u64);
        bar.reset_eta();
        let began = clock.now();
        let mut mean = None;
        train(recipe, pairs, &mut learner, &shutdown, |learner, loss| {
            let step = learner.step;
            // Over about 50 steps: a single batch says little.
            let smooth = mean.map_or(loss, |mean: f32| 0.98 * mean + 0.02 * loss);
            mean = Some(smooth);
            bar.set_position(step as u64);
            bar.set_message(format!("{smooth:.3}"));
            if !is_terminal && (step % 100 == 0 || step == recipe.steps) {
                let seconds = clock.now().since(&began).as_secs_f64();
                out::tell(format_args!(
                    "step {step}/{}, loss {smooth:.3}, {seconds:.0} s",
                    recipe.steps
                ));
            }
            if signalled.load(Ordering::Relaxed) {
                shutdown.request();
            }
            if step % CHECKPOINT_STEPS == 0 { save(learner) } else { Ok(()) }
        })?;
        bar.finish_and_clear();
        if learner.step < recipe.steps {
            save(&learner)?;
            out::tell(format_args!(
                "stopped at step {} of {}; making a package of that. The same command goes on \
                 from there",
                learner.step, recipe.steps
            ));
        }
        Ok(learner)
    }
}

fn another_training(path: &Path) -> String {
    format!(
        "{} is of another training (other images or arguments); give the same ones to go on with \
         it, remove it, or use another --out",
        path.display()
    )
}

/// A flag that the first Ctrl-C (or SIGTERM) raises; the second one ends the process.
fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let flag = || Arc::clone(&signalled);
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag())
            .and_then(|_| signal_hook::flag::register(signal, flag()))
            .context("cannot listen for Ctrl-C")?;
    }
    Ok(signalled)
}

/// Runs `work` with so many threads, or with one for each core.
///
/// # Errors
/// When threads cannot be started, or those of `work`.
pub(super) fn in_threads<T: Send>(
    threads: Option<std::num::NonZeroUsize>,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let threads = threads.map_or(0, std::num::NonZeroUsize::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.context("cannot start threads to train with")?.install(work)
}

//! Teaches the network: draws crops, takes them through it, and makes it better.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::augment::{self, Crop, View};
use super::dataset::Pair;
use reticle_base::shutdown::Shutdown;
use reticle_nn::block::Block;
use reticle_nn::trainer::loss::{Wanted, loss};
use reticle_nn::trainer::net::Net;
use reticle_nn::trainer::optimiser::Learner;
use reticle_nn::trainer::pass::Pass;
use reticle_nn::trainer::topology::Widths;
use reticle_nn::trainer::weights::{self, WeightsError};

/// How to train. With the defaults a network of the size of `models/nuclei` takes half an hour of
/// two cores.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Optimiser steps.
    pub steps: usize,
    /// Crops a step.
    pub batch: usize,
    /// Edge of a crop in pixels, a multiple of 16.
    pub crop: usize,
    /// Largest learning rate, after [`WARM_UP`] steps; it then falls to 0 as a half cosine.
    pub learning_rate: f64,
    /// Start of all randomness: weights, crops, augmentation.
    pub seed: u64,
    /// Channels of the network.
    pub widths: Widths,
    /// Diameter in pixels that the median object of each training image is brought to: the
    /// scale at which the model is best.
    pub object_diameter_px: f32,
    /// SHA-256 of the network whose weights it starts from; none for random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

/// Steps in which the learning rate rises from 0: the first gradients are too large for the
/// full rate.
const WARM_UP: usize = 200;

impl Default for Recipe {
    fn default() -> Self {
        Self {
            steps: 24_000,
            batch: 8,
            crop: 192,
            learning_rate: 3e-3,
            seed: 1,
            widths: Widths::default(),
            object_diameter_px: 20.0,
            start: None,
        }
    }
}

/// A network that has learnt nothing yet: the weights in `start` (ONNX), or random ones.
///
/// # Errors
/// When `start` does not hold the weights of such a network.
pub fn begin(recipe: &Recipe, start: Option<&[u8]>) -> Result<Learner, WeightsError> {
    Ok(Learner::new(match start {
        Some(onnx) => weights::from_onnx(onnx)?,
        None => Net::random(recipe.widths, recipe.seed),
    }))
}

/// Goes on training `learner` on `pairs` until it has done the recipe's steps or is asked to stop.
/// After each step `progress` gets the learner and the loss of the step's batch.
///
/// Works in the current rayon pool. The result depends on the recipe and the pairs, not on the
/// number of threads, nor on where training was interrupted and gone on with.
///
/// # Errors
/// Those of `progress`, at once.
///
/// # Panics
/// When `pairs` is empty or the recipe's crop is no multiple of 16; both are checked where
/// the recipe is read.
pub fn train<E>(
    recipe: &Recipe,
    pairs: &[Pair],
    learner: &mut Learner,
    shutdown: &Shutdown,
    mut progress: impl FnMut(&Learner, f32) -> Result<(), E>,
) -> Result<(), E> {
    let view = View { edge: recipe.crop, object_diameter_px: recipe.object_diameter_px };
    let mut pass = Pass::new(&learner.net, recipe.batch, recipe.crop);
    while learner.step < recipe.steps && !shutdown.is_requested() {
        let first = (learner.step * recipe.batch) as u64;
        let (images, wanted): (Vec<_>, Vec<_>) = (first..first + recipe.batch as u64)
            .into_par_iter()
            .map(|number| {
                // Each crop has randomness of its own, so that any thread can draw it.
                let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
                rng.set_stream(number + 1);
                let crop = augment::draw(pairs, view, &mut rng);
                let wanted = wanted(&crop, recipe.crop);
                (crop.image, wanted)
            })
            .unzip();
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        pass.forward(&mut learner.net, &images, recipe.crop);
        let (logits, gradients) = pass.logits_and_gradients();
        let loss = loss(logits, &wanted, gradients);
        let gradients = pass.backward(&learner.net);
        learner.take_step(&gradients, learning_rate(recipe, learner.step) as f32);
        progress(learner, loss)?;
    }
    Ok(())
}

/// Linear warm-up, then half a cosine down to 0.
fn learning_rate(recipe: &Recipe, step: usize) -> f64 {
    let warm_up = WARM_UP.min(recipe.steps / 4);
    if step < warm_up {
        return recipe.learning_rate * (step + 1) as f64 / warm_up as f64;
    }
    let rest = (step - warm_up) as f64 / (recipe.steps - warm_up).max(1) as f64;
    recipe.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * rest).cos())
}

/// The maps of a crop as the network gives them: four maps of 2×2 sub-pixels.
fn wanted(crop: &Crop, size: usize) -> Wanted {
    let targets = &crop.targets;
    let maps = [&targets.foreground, &targets.distance, &targets.contact, &targets.size];
    let half = size / 2;
    let corners = (0..half * half).map(|at| 2 * (at / half) * size + 2 * (at % half));
    let block = |corner: usize| {
        Block(std::array::from_fn(|lane| {
            let (map, dy, dx) = (lane / 4, lane / 2 % 2, lane % 2);
            maps[map][corner + dy * size + dx]
        }))
    };
    let weights = |corner: usize| [0, 1, size, size + 1].map(|at| crop.weights[corner + at]);
    Wanted { maps: corners.clone().map(block).collect(), weights: corners.map(weights).collect() }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use reticle_nn::trainer::checkpoint;

    /// Two round objects that nearly touch, on a dark ground.
    fn blobs() -> Vec<Pair> {
        let edge = 64;
        let labels: Vec<u32> = (0..edge * edge)
            .map(|at| {
                let (x, y) = ((at % edge) as f32, (at / edge) as f32);
                let inside = |centre: f32| (x - centre).hypot(y - 32.0) < 11.0;
                u32::from(inside(21.0)) + 2 * u32::from(inside(43.5))
            })
            .collect();
        let image = labels.iter().map(|&label| if label == 0 { 0.1 } else { 0.9 }).collect();
        vec![Pair::new("blobs".into(), edge, edge, image, labels)]
    }

    fn recipe(steps: usize) -> Recipe {
        let widths = Widths([16, 16, 16, 16]);
        Recipe { steps, batch: 3, crop: 32, object_diameter_px: 16.0, widths, ..Recipe::default() }
    }

    fn run(recipe: &Recipe, learner: &mut Learner, stop_at: usize) -> Vec<f32> {
        let mut losses = Vec::new();
        let shutdown = Shutdown::new();
        let done = train::<Infallible>(recipe, &blobs(), learner, &shutdown, |learner, loss| {
            losses.push(loss);
            if learner.step == stop_at {
                shutdown.request();
            }
            Ok(())
        });
        assert!(done.is_ok());
        losses
    }

    #[test]
    fn a_short_training_learns() {
        let recipe = recipe(80);
        let losses = run(&recipe, &mut begin(&recipe, None).unwrap(), 80);
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        let (first, last) = (mean(&losses[..8]), mean(&losses[72..]));
        assert!(last < 0.7 * first, "{first} {last}");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let recipe = recipe(4);
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut learner = begin(&recipe, None).unwrap();
            pool.install(|| run(&recipe, &mut learner, 4));
            learner
        });
        assert!(one == two);
    }

    #[test]
    fn a_training_that_was_stopped_goes_on_as_if_it_was_not() {
        let recipe = recipe(6);
        let mut whole = begin(&recipe, None).unwrap();
        run(&recipe, &mut whole, 6);
        let mut first = begin(&recipe, None).unwrap();
        run(&recipe, &mut first, 2);
        assert_eq!(first.step, 2);
        let key = serde_json::to_value(&recipe).unwrap();
        let bytes = checkpoint::to_bytes(&first, &key);
        let mut second = checkpoint::from_bytes(&bytes, &key, &first.net).unwrap();
        assert!(first == second);
        run(&recipe, &mut second, 6);
        assert!(second == whole);
        let other = serde_json::json!("another recipe");
        assert!(checkpoint::from_bytes(&bytes, &other, &first.net).is_none());
        assert!(checkpoint::from_bytes(&bytes[..bytes.len() - 4], &key, &first.net).is_none());
    }
}

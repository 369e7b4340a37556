//! Teaches the network.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::augment::{self, Crop};
use super::dataset::Pair;
use super::export::{self, ExportError};
use super::net::{MAPS, Net, Widths};
use crate::base::shutdown::Shutdown;

/// How to train. The defaults are the first part of what made `models/nuclei`.
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
    /// SHA-256 of the network whose weights it starts from; none for random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

/// Steps in which the learning rate rises from 0: without normalisation layers the first
/// gradients of a fresh network are too large for the full rate.
const WARM_UP: usize = 50;

impl Default for Recipe {
    fn default() -> Self {
        Self {
            steps: 3500,
            batch: 8,
            crop: 192,
            learning_rate: 2e-3,
            seed: 1,
            widths: Widths::default(),
            start: None,
        }
    }
}

/// What is told after each step.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Loss of this step's batch.
    pub loss: f32,
}

/// Trains on `pairs`, from the weights in `start` (ONNX) or from random ones; stops early
/// with what it has when asked to.
///
/// # Errors
/// When `start` does not hold the weights of such a network.
///
/// # Panics
/// When `pairs` is empty or the recipe's crop is no multiple of 16; both are checked where
/// the recipe is read.
pub fn train(
    recipe: &Recipe,
    pairs: &[Pair],
    start: Option<&[u8]>,
    shutdown: &Shutdown,
    mut progress: impl FnMut(Progress),
) -> Result<Net, ExportError> {
    let device = Device::flex().autodiff();
    device.seed(recipe.seed);
    let mut net = Net::new(recipe.widths, &device);
    if let Some(onnx) = start {
        net = export::load_weights(net, onnx, &device)?;
    }
    let mut optimiser = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(1e-4)
        .with_grad_clipping(Some(burn::grad_clipping::GradientClippingConfig::Norm(1.0)))
        .init();
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    for step in 0..recipe.steps {
        if shutdown.is_requested() {
            break;
        }
        let crops: Vec<Crop> =
            (0..recipe.batch).map(|_| augment::draw(pairs, recipe.crop, &mut rng)).collect();
        let (images, targets) = batch(&crops, recipe.crop, &device);
        let loss = loss(net.forward(images), targets);
        let shown = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        net = optimiser.step(learning_rate(recipe, step), net, gradients);
        progress(Progress { step: step + 1, loss: shown });
    }
    Ok(net.valid())
}

/// Linear warm-up, then half a cosine down to 0.
fn learning_rate(recipe: &Recipe, step: usize) -> f64 {
    if step < WARM_UP {
        return recipe.learning_rate * (step + 1) as f64 / WARM_UP as f64;
    }
    let rest = (step - WARM_UP) as f64 / (recipe.steps - WARM_UP).max(1) as f64;
    recipe.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * rest).cos())
}

/// Crops → `[batch, 1, size, size]` images and `[batch, 12, size/2, size/2]` targets.
fn batch(crops: &[Crop], size: usize, device: &Device) -> (Tensor<4>, Tensor<4>) {
    let images: Vec<f32> = crops.iter().flat_map(|crop| &crop.image).copied().collect();
    let mut targets = Vec::with_capacity(images.len() * MAPS);
    for crop in crops {
        let maps = [&crop.targets.foreground, &crop.targets.distance, &crop.targets.contact];
        for map in maps {
            for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                for y in (dy..size).step_by(2) {
                    targets.extend((dx..size).step_by(2).map(|x| map[y * size + x]));
                }
            }
        }
    }
    let count = crops.len();
    (
        Tensor::from_data(TensorData::new(images, [count, 1, size, size]), device),
        Tensor::from_data(TensorData::new(targets, [count, 4 * MAPS, size / 2, size / 2]), device),
    )
}

/// Foreground: cross-entropy, four times as much where objects touch, plus half a Dice loss,
/// which does not care how much background there is. Distance and contact: cross-entropy.
fn loss(logits: Tensor<4>, targets: Tensor<4>) -> Tensor<1> {
    let [batch, _, height, width] = logits.dims();
    let part = |tensor: &Tensor<4>, map: usize| {
        tensor.clone().slice([0..batch, 4 * map..4 * map + 4, 0..height, 0..width])
    };
    let contact = part(&targets, 2);
    let weights = contact.clone().mul_scalar(3.0).add_scalar(1.0);
    let foreground = part(&targets, 0);
    let predicted = burn::tensor::activation::sigmoid(part(&logits, 0));
    let overlap = (predicted.clone() * foreground.clone()).sum();
    let dice = (overlap.mul_scalar(2.0).add_scalar(1.0))
        / (predicted.sum() + foreground.clone().sum()).add_scalar(1.0);
    (cross_entropy(part(&logits, 0), foreground) * weights).mean()
        + (dice.neg().add_scalar(1.0)).mul_scalar(0.5)
        + cross_entropy(part(&logits, 1), part(&targets, 1)).mean()
        + cross_entropy(part(&logits, 2), contact).mean()
}

/// Binary cross-entropy of logits with (soft) targets, in the form that cannot overflow:
/// max(x, 0) − x·t + ln(1 + e^−|x|).
fn cross_entropy(logits: Tensor<4>, targets: Tensor<4>) -> Tensor<4> {
    let positive = logits.clone().clamp_min(0.0);
    let tail = logits.clone().abs().neg().exp().add_scalar(1.0).log();
    positive - logits * targets + tail
}

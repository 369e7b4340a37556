//! From gradients to better parameters: AdamW, and the running average that is exported.

use super::net::Net;
use super::planes::{Block, LANES};

/// Decay of the means of gradients and of their squares (Kingma & Ba, 2015).
const BETAS: (f32, f32) = (0.9, 0.999);

/// Keeps a parameter that hardly ever has a gradient from dividing by zero.
const EPSILON: f32 = 1e-8;

/// Share of a weight that goes in a step at learning rate 1. Only weights of convolutions:
/// biases and gains are few and set levels.
const WEIGHT_DECAY: f32 = 1e-2;

/// Gradients longer than this (over all parameters) are shortened to it.
const LONGEST_GRADIENT: f64 = 1.0;

/// The average forgets a parameter by this share a step.
const AVERAGE_DECAY: f32 = 0.999;

/// Everything that changes while a network learns. All of it is in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    /// The network as it learns.
    pub net: Net,
    /// Its average over the last thousand or so steps: better than any single step.
    pub average: Net,
    /// Steps done.
    pub step: usize,
    /// Running means of the gradients and of their squares.
    pub moments: [Vec<Block>; 2],
}

impl Learner {
    /// Nothing learnt yet.
    pub fn new(net: Net) -> Self {
        let zeros = vec![Block::ZERO; net.parameters.len()];
        Self { average: net.clone(), step: 0, moments: [zeros.clone(), zeros], net }
    }

    /// One step of AdamW (Loshchilov & Hutter, 2019), then the average.
    pub fn take_step(&mut self, gradients: &[Block], learning_rate: f32) {
        let squares =
            |block: &Block| -> f64 { block.0.iter().map(|&value| f64::from(value).powi(2)).sum() };
        let length = gradients.iter().map(squares).sum::<f64>().sqrt();
        // A batch that overflowed teaches nothing.
        if !length.is_finite() {
            self.step += 1;
            return;
        }
        let shorten = (LONGEST_GRADIENT / length.max(LONGEST_GRADIENT)) as f32;
        let count = (self.step + 1) as f32;
        #[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
        let corrections = (1.0 - BETAS.0.powf(count), 1.0 - BETAS.1.powf(count));
        let mut decays = vec![1.0_f32; gradients.len()];
        for layer in &self.net.layers {
            decays[layer.weights.clone()].fill(1.0 - learning_rate * WEIGHT_DECAY);
        }
        let [means, squares] = &mut self.moments;
        let moments = means.iter_mut().zip(squares);
        let parameters = self.net.parameters.iter_mut().zip(gradients).zip(decays);
        for (((parameter, gradient), decay), (mean, square)) in parameters.zip(moments) {
            for lane in 0..LANES {
                let gradient = gradient.0[lane] * shorten;
                let mean = &mut mean.0[lane];
                *mean += (1.0 - BETAS.0) * (gradient - *mean);
                let square = &mut square.0[lane];
                *square += (1.0 - BETAS.1) * (gradient * gradient - *square);
                let root = (*square / corrections.1).sqrt() + EPSILON;
                parameter.0[lane] =
                    parameter.0[lane] * decay - learning_rate * (*mean / corrections.0) / root;
            }
        }
        self.step += 1;
        self.follow();
    }

    /// Moves the average. At first it forgets faster, so that it is not stuck at random weights.
    fn follow(&mut self) {
        let step = self.step as f32;
        let share = 1.0 - AVERAGE_DECAY.min((1.0 + step) / (10.0 + step));
        let pairs = [
            (&mut self.average.parameters, &self.net.parameters),
            (&mut self.average.statistics, &self.net.statistics),
        ];
        for (average, current) in pairs {
            for (average, current) in average.iter_mut().zip(current) {
                for (average, current) in average.0.iter_mut().zip(current.0) {
                    *average += share * (current - *average);
                }
            }
        }
    }
}

//! Through the network and back: the values of every layer for a batch, and the gradients of
//! all parameters.
//!
//! The steps are worked off one after the other for the whole batch, since a normalisation
//! needs the sums over all of it; within a step the images are shared out over the threads of
//! the current rayon pool. What is summed over images is summed in their order, so the result
//! does not depend on the number of threads.

use rayon::prelude::*;

use super::batch_norm::{self, Normal};
use super::elementwise::{self, Sums, Write};
use super::kernel::{self, Begin};
use super::net::{Layer, Net};
use super::plan::{INPUT, Plan, Slot, Step};
use super::topology::STEM;
use crate::block::Block;
use crate::planes::Planes;

/// Values and gradients of a network on batches of one size; used again for each batch.
pub struct Pass {
    steps: Vec<Step>,
    /// For each slot, for each image.
    values: Vec<Vec<Planes>>,
    gradients: Vec<Vec<Planes>>,
    /// Weight gradients of one layer, for each image.
    partial: Vec<Vec<Block>>,
    /// How the last batch was normalised, for each layer.
    normal: Vec<Option<Normal>>,
}

impl Pass {
    /// Room for `batch` images of `edge × edge` in networks such as `net`.
    pub fn new(net: &Net, batch: usize, edge: usize) -> Self {
        let plan = Plan::new(net, edge);
        let planes = |&(blocks, edge): &(usize, usize)| {
            (0..batch).map(|_| kernel::planes(blocks, edge, edge)).collect()
        };
        let largest = net.layers.iter().map(|layer| layer.weights.len()).max().unwrap_or(0);
        Self {
            values: plan.sizes.iter().map(planes).collect(),
            gradients: plan.sizes.iter().map(planes).collect(),
            partial: vec![vec![Block::ZERO; largest]; batch],
            normal: vec![None; net.layers.len()],
            steps: plan.steps,
        }
    }

    /// Logits of the maps for `images` (square, as many as there is room for); channel
    /// `4·map + 2·dy + dx`. Takes the batch into the running statistics of `net`.
    pub fn forward(&mut self, net: &mut Net, images: &[&[f32]], edge: usize) -> &[Planes] {
        self.values[INPUT]
            .par_iter_mut()
            .zip(images)
            .for_each(|(out, image)| elementwise::columns(image, edge, STEM, out));
        for at in 0..self.steps.len() {
            let step = self.steps[at];
            let to = step.to();
            let mut out = std::mem::take(&mut self.values[to]);
            let values = &self.values;
            match step {
                Step::Convolve { layer, from, .. } => {
                    let layer = &net.layers[layer];
                    let weights = &net.parameters[layer.weights.clone()];
                    let zeros = vec![Block::ZERO; layer.bias.len()];
                    let bias = match layer.norm {
                        None => &net.parameters[layer.bias.clone()],
                        Some(_) => &zeros,
                    };
                    out.par_iter_mut().zip(&values[from]).for_each(|(out, input)| {
                        kernel::convolve(layer.filter(), input, weights, Begin::Bias(bias), out);
                    });
                }
                Step::Activate { layer, from, skip, .. } => {
                    let normal = Normal::of_batch(net, layer, &values[from]);
                    out.par_iter_mut().enumerate().for_each(|(image, out)| {
                        let skip = skip.map(|skip| &values[skip][image]);
                        let (factors, shifts) = (&normal.factors, &normal.shifts);
                        elementwise::activate(&values[from][image], factors, shifts, skip, out);
                    });
                    self.normal[layer] = Some(normal);
                }
                Step::Pool { from, .. } => {
                    out.par_iter_mut()
                        .zip(&values[from])
                        .for_each(|(out, input)| elementwise::pool(input, out));
                }
                Step::Rise { from, finer, rectify, .. } => {
                    let floor = if rectify { 0.0 } else { f32::NEG_INFINITY };
                    out.par_iter_mut().zip(&values[from]).zip(&values[finer]).for_each(
                        |((out, input), finer)| elementwise::rise(input, finer, floor, out),
                    );
                }
            }
            self.values[to] = out;
        }
        self.values.last().expect("a network has steps")
    }

    /// Logits of the last [`Pass::forward`], and where their gradients belong.
    pub fn logits_and_gradients(&mut self) -> (&[Planes], &mut [Planes]) {
        let both = "a network has steps";
        (self.values.last().expect(both), self.gradients.last_mut().expect(both))
    }

    /// Gradients of all parameters, laid out as they are, from those of the logits.
    pub fn backward(&mut self, net: &Net) -> Vec<Block> {
        let mut out = vec![Block::ZERO; net.parameters.len()];
        let mut reached = vec![false; self.values.len()];
        for at in (0..self.steps.len()).rev() {
            let step = self.steps[at];
            let mut gradient = std::mem::take(&mut self.gradients[step.to()]);
            let mut write_to = |slot: Slot| {
                let first = !std::mem::replace(&mut reached[slot], true);
                if first { Write::First } else { Write::Add }
            };
            match step {
                Step::Convolve { layer, from, .. } => {
                    let layer = &net.layers[layer];
                    self.weight_gradients(layer, from, &gradient, &mut out);
                    if from != INPUT {
                        let write = write_to(from);
                        self.back_through(net, layer, from, &gradient, write);
                    }
                }
                Step::Activate { layer, from, skip, to } => {
                    let skip = skip.map(|skip| (skip, write_to(skip)));
                    let sums = self.through_rectifier([from, to], skip, &mut gradient);
                    let normal = self.normal[layer].as_ref().expect("forward came first");
                    let inputs = &self.values[from];
                    normal.back(&net.layers[layer], inputs, sums, &mut gradient, &mut out);
                    // No other step has written there: the gradient takes the place.
                    std::mem::swap(&mut gradient, &mut self.gradients[from]);
                }
                Step::Pool { from, to } => {
                    let write = write_to(from);
                    let (inputs, outputs) = (&self.values[from], &self.values[to]);
                    let targets = self.gradients[from].par_iter_mut().zip(inputs);
                    targets.zip(outputs).zip(&gradient).for_each(
                        |(((target, input), output), gradient)| {
                            if write == Write::First {
                                target.clear();
                            }
                            elementwise::add_pool_gradient(input, output, gradient, target);
                        },
                    );
                }
                Step::Rise { from, finer, rectify, to } => {
                    let outputs = &self.values[to];
                    let targets = self.gradients[from].par_iter_mut();
                    targets.zip(&mut gradient).zip(outputs).for_each(
                        |((target, gradient), output)| {
                            if rectify {
                                elementwise::mask(gradient, output);
                            }
                            elementwise::add_up(gradient, target);
                        },
                    );
                    match write_to(finer) {
                        Write::First => std::mem::swap(&mut gradient, &mut self.gradients[finer]),
                        Write::Add => {
                            let targets = self.gradients[finer].par_iter_mut().zip(&gradient);
                            targets
                                .for_each(|(target, gradient)| elementwise::add(gradient, target));
                        }
                    }
                }
            }
            self.gradients[step.to()] = gradient;
        }
        out
    }

    /// Makes `gradient`, that of `to`, zero where the rectifier did, and hands it to `skip`. Returns
    /// the sums of it and of its products with what was normalised, for each image.
    fn through_rectifier(
        &mut self,
        [from, to]: [Slot; 2],
        skip: Option<(Slot, Write)>,
        gradient: &mut [Planes],
    ) -> Vec<(Sums, Sums)> {
        let mut skipped =
            skip.map_or(Vec::new(), |(skip, _)| std::mem::take(&mut self.gradients[skip]));
        let mut targets: Vec<Option<&mut Planes>> = skipped.iter_mut().map(Some).collect();
        targets.resize_with(gradient.len(), || None);
        let write = skip.map_or(Write::Add, |(_, write)| write);
        let values = self.values[from].par_iter().zip(&self.values[to]);
        let sums = gradient
            .par_iter_mut()
            .zip(values)
            .zip(targets)
            .map(|((gradient, (input, output)), skip)| {
                elementwise::through_rectifier(gradient, input, output, skip, write)
            })
            .collect();
        if let Some((skip, _)) = skip {
            self.gradients[skip] = skipped;
        }
        sums
    }

    /// Sets the gradients of a layer's weights, and of its biases where it has no normalisation.
    fn weight_gradients(
        &mut self,
        layer: &Layer,
        from: Slot,
        gradient: &[Planes],
        out: &mut [Block],
    ) {
        let inputs = &self.values[from];
        let images = self.partial.par_iter_mut().zip(inputs).zip(gradient);
        let biases: Vec<Option<(Sums, Sums)>> = images
            .map(|((partial, input), gradient)| {
                let partial = &mut partial[..layer.weights.len()];
                partial.fill(Block::ZERO);
                kernel::add_weight_gradient(layer.filter(), input, gradient, partial);
                layer.norm.is_none().then(|| elementwise::sums(gradient))
            })
            .collect();
        let (weights, partial) = (&mut out[layer.weights.clone()], &self.partial);
        weights.par_iter_mut().enumerate().for_each(|(at, sum)| {
            for partial in partial {
                for (sum, value) in sum.0.iter_mut().zip(partial[at].0) {
                    *sum += value;
                }
            }
        });
        if let Some(biases) = biases.into_iter().collect::<Option<Vec<_>>>() {
            for (out, sums) in out[layer.bias.clone()].iter_mut().zip(batch_norm::total(biases).0) {
                *out = Block(sums.map(|sum| sum as f32));
            }
        }
    }

    /// Takes the gradient of what a layer gave to what it was given.
    fn back_through(
        &mut self,
        net: &Net,
        layer: &Layer,
        from: Slot,
        gradient: &[Planes],
        write: Write,
    ) {
        let weights = &net.parameters[layer.weights.clone()];
        let (filter, weights) = kernel::transposed(layer.filter(), weights);
        let zeros = vec![Block::ZERO; filter.to];
        let begin = if write == Write::First { Begin::Bias(&zeros) } else { Begin::Output };
        self.gradients[from].par_iter_mut().zip(gradient).for_each(|(target, gradient)| {
            kernel::convolve(filter, gradient, &weights, begin, target);
        });
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::block::CHANNELS;
    use crate::planes::Shape;
    use crate::trainer::topology::Widths;

    const EDGE: usize = 32;

    fn images(rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
        (0..3).map(|_| (0..EDGE * EDGE).map(|_| rng.random_range(0.0..1.0)).collect()).collect()
    }

    fn random_planes(like: &Planes, rng: &mut ChaCha8Rng) -> Planes {
        let Shape { height, width, .. } = like.shape();
        let mut planes = kernel::planes(like.shape().blocks(), height, width);
        for (block, y) in planes.rows() {
            planes
                .row_mut(block, y)
                .fill_with(|| Block(std::array::from_fn(|_| rng.random_range(-1.0..1.0))));
        }
        planes
    }

    fn product<'a>(pairs: impl Iterator<Item = (&'a Block, &'a Block)>) -> f64 {
        pairs.flat_map(|(a, b)| (0..CHANNELS).map(|lane| f64::from(a.0[lane] * b.0[lane]))).sum()
    }

    /// ⟨logits, weights⟩, a loss that is linear in the logits.
    fn weighted(logits: &[Planes], weights: &[Planes]) -> f64 {
        let rows = logits.iter().zip(weights).flat_map(|(logits, weights)| {
            logits.rows().map(|(block, y)| (logits.row(block, y), weights.row(block, y)))
        });
        rows.map(|(logits, weights)| product(logits.iter().zip(weights))).sum()
    }

    fn check_gradients(mut net: Net) {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let images = images(&mut rng);
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let mut pass = Pass::new(&net, images.len(), EDGE);
        pass.forward(&mut net, &images, EDGE);
        let (logits, gradients) = pass.logits_and_gradients();
        let weights: Vec<Planes> =
            logits.iter().map(|logits| random_planes(logits, &mut rng)).collect();
        gradients.clone_from_slice(&weights);
        let gradients = pass.backward(&net);
        let mut parts = Vec::new();
        for layer in &net.layers {
            parts.push((format!("{}.weights", layer.convolution.name), layer.weights.clone()));
            parts.push((format!("{}.bias", layer.convolution.name), layer.bias.clone()));
            if let Some(norm) = &layer.norm {
                parts.push((format!("{}.gain", layer.convolution.name), norm.gain.clone()));
            }
        }
        for (name, part) in parts {
            // Along the gradient itself, where the loss changes most; the step is so small that
            // hardly any rectifier switches.
            let slope = product(gradients[part.clone()].iter().zip(&gradients[part.clone()]));
            assert!(slope > 0.0, "{name} has no gradient");
            let step = 4e-4 / slope.sqrt();
            let mut at = |sign: f64| {
                let mut moved = net.clone();
                for at in part.clone() {
                    for lane in 0..CHANNELS {
                        moved.parameters[at].0[lane] +=
                            (sign * step) as f32 * gradients[at].0[lane];
                    }
                }
                weighted(pass.forward(&mut moved, &images, EDGE), &weights)
            };
            let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
            let error = (difference / slope - 1.0).abs();
            assert!(error < 0.03, "{name}: {difference} is not {slope}");
        }
    }

    #[test]
    fn gradients_with_normalisation_are_differences_of_the_loss() {
        check_gradients(Net::random(Widths([16, 16, 32, 16]), 3));
    }

    #[test]
    fn gradients_without_normalisation_are_differences_of_the_loss() {
        check_gradients(Net::random(Widths([16, 16, 32, 16]), 3).folded());
    }

    #[test]
    fn the_folded_network_is_the_normalised_one_with_its_running_statistics() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let images = images(&mut rng);
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let mut net = Net::random(Widths([16, 32, 16, 16]), 6);
        let mut pass = Pass::new(&net, images.len(), EDGE);
        // Until the running statistics are those of this batch.
        for _ in 0..150 {
            pass.forward(&mut net, &images, EDGE);
        }
        let mut folded = net.folded();
        let mut folded_pass = Pass::new(&folded, images.len(), EDGE);
        let expected = pass.forward(&mut net, &images, EDGE);
        let found = folded_pass.forward(&mut folded, &images, EDGE);
        for (found, expected) in found.iter().zip(expected) {
            for (block, y) in found.rows() {
                for (found, expected) in found.row(block, y).iter().zip(expected.row(block, y)) {
                    for (found, expected) in found.0.iter().zip(expected.0) {
                        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_pixels_hand_their_gradient_to_one_of_them() {
        let mut input = kernel::planes(1, 2, 2);
        for y in 0..2 {
            input.row_mut(0, y).fill(Block([1.0; CHANNELS]));
        }
        input.row_mut(0, 1)[1] = Block([2.0; CHANNELS]);
        input.row_mut(0, 0)[0].0[3] = 2.0;
        let mut output = kernel::planes(1, 1, 1);
        elementwise::pool(&input, &mut output);
        let gradient = output.clone();
        let mut target = kernel::planes(1, 2, 2);
        elementwise::add_pool_gradient(&input, &output, &gradient, &mut target);
        assert_eq!(target.row(0, 0)[0].0[3], 2.0, "the first of two equal ones");
        assert_eq!(target.row(0, 1)[1].0[3], 0.0);
        assert_eq!(target.row(0, 1)[1].0[4], 2.0);
    }
}

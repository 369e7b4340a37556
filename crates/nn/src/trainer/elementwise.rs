//! What the network does to single values, and its gradients, for one image: normalise, add,
//! rectify, pool, double. Sums over pixels are made in a fixed order, in f64.

use pulp::Arch;

use crate::block::{Block, CHANNELS};
use crate::planes::Planes;

/// Sums over the pixels of one image, for each channel of each block.
pub(super) type Sums = Vec<[f64; CHANNELS]>;

/// Whether a gradient is the first one that reaches its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// It replaces what is there.
    First,
    /// It is added.
    Add,
}

/// Sums of the values and of their squares.
pub(super) fn sums(values: &Planes) -> (Sums, Sums) {
    let mut sums = vec![[0.0; CHANNELS]; values.shape().blocks()];
    let mut squares = sums.clone();
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in values.rows() {
                // A row is short enough for f32.
                let mut row = [[0.0_f32; CHANNELS]; 2];
                for value in values.row(block, y) {
                    for (lane, value) in value.0.iter().enumerate() {
                        row[0][lane] += value;
                        row[1][lane] += value * value;
                    }
                }
                add_row(&mut sums[block], &row[0]);
                add_row(&mut squares[block], &row[1]);
            }
        },
    );
    (sums, squares)
}

#[inline(always)]
fn add_row(sums: &mut [f64; CHANNELS], row: &[f32; CHANNELS]) {
    for (sum, &row) in sums.iter_mut().zip(row) {
        *sum += f64::from(row);
    }
}

/// `out = max(0, factor · input + shift + skip)`, factor and shift for each channel.
pub(super) fn activate(
    input: &Planes,
    factors: &[Block],
    shifts: &[Block],
    skip: Option<&Planes>,
    out: &mut Planes,
) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in input.rows() {
                let (factor, shift) = (factors[block].0, shifts[block].0);
                let input = input.row(block, y);
                let out = out.row_mut(block, y);
                match skip {
                    None => {
                        for (out, input) in out.iter_mut().zip(input) {
                            for lane in 0..CHANNELS {
                                let value = factor[lane] * input.0[lane] + shift[lane];
                                out.0[lane] = value.max(0.0);
                            }
                        }
                    }
                    Some(skip) => {
                        for ((out, input), skip) in
                            out.iter_mut().zip(input).zip(skip.row(block, y))
                        {
                            for lane in 0..CHANNELS {
                                let value = factor[lane] * input.0[lane] + shift[lane];
                                out.0[lane] = (value + skip.0[lane]).max(0.0);
                            }
                        }
                    }
                }
            }
        },
    );
}

/// Makes the gradient zero where the output was not above zero.
pub(super) fn mask(gradient: &mut Planes, output: &Planes) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in output.rows() {
                for (gradient, output) in
                    gradient.row_mut(block, y).iter_mut().zip(output.row(block, y))
                {
                    for lane in 0..CHANNELS {
                        gradient.0[lane] =
                            if output.0[lane] > 0.0 { gradient.0[lane] } else { 0.0 };
                    }
                }
            }
        },
    );
}

/// `gradient = a · gradient + b · input + c` for each channel: back through a normalisation.
pub(super) fn combine(gradient: &mut Planes, input: &Planes, [a, b, c]: [&[Block]; 3]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in input.rows() {
                let (a, b, c) = (a[block].0, b[block].0, c[block].0);
                for (gradient, input) in
                    gradient.row_mut(block, y).iter_mut().zip(input.row(block, y))
                {
                    for lane in 0..CHANNELS {
                        gradient.0[lane] =
                            a[lane] * gradient.0[lane] + b[lane] * input.0[lane] + c[lane];
                    }
                }
            }
        },
    );
}

/// As [`mask`], then hands the gradient to `skip`. Returns its sums and those of its products with
/// `input`.
pub(super) fn through_rectifier(
    gradient: &mut Planes,
    input: &Planes,
    output: &Planes,
    mut skip: Option<&mut Planes>,
    write: Write,
) -> (Sums, Sums) {
    let mut sums = vec![[0.0; CHANNELS]; input.shape().blocks()];
    let mut products = sums.clone();
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in input.rows() {
                let mut row = [[0.0_f32; CHANNELS]; 2];
                let gradient = gradient.row_mut(block, y);
                let values = input.row(block, y).iter().zip(output.row(block, y));
                for (gradient, (input, output)) in gradient.iter_mut().zip(values) {
                    for (lane, gradient) in gradient.0.iter_mut().enumerate() {
                        let passed = if output.0[lane] > 0.0 { *gradient } else { 0.0 };
                        *gradient = passed;
                        row[0][lane] += passed;
                        row[1][lane] += passed * input.0[lane];
                    }
                }
                add_row(&mut sums[block], &row[0]);
                add_row(&mut products[block], &row[1]);
                match (&mut skip, write) {
                    (None, _) => {}
                    (Some(skip), Write::First) => skip.row_mut(block, y).copy_from_slice(gradient),
                    (Some(skip), Write::Add) => add_pixels(gradient, skip.row_mut(block, y)),
                }
            }
        },
    );
    (sums, products)
}

/// Adds a gradient to one that is there.
pub(super) fn add(gradient: &Planes, target: &mut Planes) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in gradient.rows() {
                add_pixels(gradient.row(block, y), target.row_mut(block, y));
            }
        },
    );
}

#[inline(always)]
fn add_pixels(gradient: &[Block], target: &mut [Block]) {
    for (target, gradient) in target.iter_mut().zip(gradient) {
        for lane in 0..CHANNELS {
            target.0[lane] += gradient.0[lane];
        }
    }
}

/// The largest of each 2×2 pixels.
pub(super) fn pool(input: &Planes, out: &mut Planes) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in out.rows() {
                let above = input.row(block, 2 * y).as_chunks::<2>().0;
                let below = input.row(block, 2 * y + 1).as_chunks::<2>().0;
                for ((out, above), below) in out.row_mut(block, y).iter_mut().zip(above).zip(below)
                {
                    for lane in 0..CHANNELS {
                        let top = above[0].0[lane].max(above[1].0[lane]);
                        let bottom = below[0].0[lane].max(below[1].0[lane]);
                        out.0[lane] = top.max(bottom);
                    }
                }
            }
        },
    );
}

/// Adds the gradient of a pooled pixel to that of the first of the four that was the largest.
pub(super) fn add_pool_gradient(
    input: &Planes,
    output: &Planes,
    gradient: &Planes,
    target: &mut Planes,
) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in output.rows() {
                for half in 0..2 {
                    // The pixels of the upper row come first, so the lower one must know whether
                    // one of them was taken.
                    let upper = input.row(block, 2 * y).as_chunks::<2>().0;
                    let inputs = input.row(block, 2 * y + half).as_chunks::<2>().0;
                    let targets = target.row_mut(block, 2 * y + half).as_chunks_mut::<2>().0;
                    let outputs = output.row(block, y).iter().zip(gradient.row(block, y));
                    for (((targets, inputs), upper), (output, gradient)) in
                        targets.iter_mut().zip(inputs).zip(upper).zip(outputs)
                    {
                        for lane in 0..CHANNELS {
                            let largest = output.0[lane];
                            let taken = half == 1
                                && (upper[0].0[lane] == largest || upper[1].0[lane] == largest);
                            let left = !taken && inputs[0].0[lane] == largest;
                            let right = !taken && !left && inputs[1].0[lane] == largest;
                            let gradient = gradient.0[lane];
                            targets[0].0[lane] += if left { gradient } else { 0.0 };
                            targets[1].0[lane] += if right { gradient } else { 0.0 };
                        }
                    }
                }
            }
        },
    );
}

/// Each pixel of `input` four times, plus `finer`; no value below `floor`.
pub(super) fn rise(input: &Planes, finer: &Planes, floor: f32, out: &mut Planes) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in out.rows() {
                let input = input.row(block, y / 2);
                let finer = finer.row(block, y).as_chunks::<2>().0;
                let out = out.row_mut(block, y).as_chunks_mut::<2>().0;
                for ((out, finer), input) in out.iter_mut().zip(finer).zip(input) {
                    for side in 0..2 {
                        for lane in 0..CHANNELS {
                            let value = finer[side].0[lane] + input.0[lane];
                            out[side].0[lane] = value.max(floor);
                        }
                    }
                }
            }
        },
    );
}

/// Sums the gradients of each 2×2 pixels into that of the pixel that they were made from.
pub(super) fn add_up(gradient: &Planes, target: &mut Planes) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, y) in target.rows() {
                let above = gradient.row(block, 2 * y).as_chunks::<2>().0;
                let below = gradient.row(block, 2 * y + 1).as_chunks::<2>().0;
                let target = target.row_mut(block, y).iter_mut();
                for ((target, above), below) in target.zip(above).zip(below) {
                    for lane in 0..CHANNELS {
                        target.0[lane] = (above[0].0[lane] + above[1].0[lane])
                            + (below[0].0[lane] + below[1].0[lane]);
                    }
                }
            }
        },
    );
}

/// The stem's input: for each of its output pixels the `kernel × kernel` pixels that it sees, as
/// channels, zero beyond the image. Makes a convolution with any stride a 1×1.
///
/// What is zero in `out` for an image of this size stays unwritten, so `out` can be used again.
pub(super) fn columns(
    image: &[f32],
    edge: usize,
    (kernel, stride): (usize, usize),
    out: &mut Planes,
) {
    let padding = (kernel - stride) / 2;
    let height = out.shape().height;
    for tap in 0..kernel.pow(2) {
        let (dy, dx) = (tap / kernel, tap % kernel);
        // First output pixel whose tap is inside the image.
        let first = padding.saturating_sub(dx).div_ceil(stride);
        for y in 0..height {
            let Some(source) = (y * stride + dy).checked_sub(padding) else { continue };
            if source >= edge {
                continue;
            }
            let line = &image[source * edge..(source + 1) * edge];
            let line = line[first * stride + dx - padding..].iter().step_by(stride);
            let pixels = &mut out.row_mut(tap / CHANNELS, y)[first..];
            for (pixel, &value) in pixels.iter_mut().zip(line) {
                pixel.0[tap % CHANNELS] = value;
            }
        }
    }
}

//! How strong the noise of a frame is, whatever the camera did with it.
//!
//! Demosaicing, compression, enlarging and denoising make neighbouring pixels alike, so that their
//! differences say little of the noise. What is left of it is how far grey values lie from what is
//! typical around them. So a frame is looked at in blocks that are larger than objects: in
//! each, the values below the median are background, since objects are brighter and seldom cover
//! more than half of it, and noise is as likely below the median as above. The root mean square
//! of how far they lie below it is the standard deviation of the noise, of any correlation in any
//! direction (as astronomers take the noise of a crowded field from the lower side of its grey
//! values; Bijaoui 1980). The median block counts, so that stains do not.
//!
//! Objects that cover more than half of the blocks would be measured as noise. But they lie here and not
//! there, while noise is about as strong in one block as in another. So a frame counts as having
//! noise of that strength only as far as its quietest blocks have it too: in the empty fields of
//! `tests/correlated_noise` they have 0.77 of the median and more, and where nuclei fill most blocks of a frame of
//! `train` or `stained-test` 0.01 to 0.3.

use std::ops::Range;

use reticle_domain::frame::Pixels;

/// Edge of a block, in pixels: three times the diameter of the models' objects.
pub(super) const BLOCK: usize = 64;

/// Blocks that are looked at, at most: all those of 1024². Enough for a median.
const BLOCKS: usize = 256;

/// Of each row of a block every eighth pixel is looked at: 512 in all.
const STEP: usize = 8;

/// Edge of a cell over which noise is averaged to see how much is left of it.
const CELL: usize = 4;

/// Variance of what rounding to whole grey values adds (Bennett 1948).
const ROUNDING: f32 = 1.0 / 12.0;

/// The quietest tenth of a frame's blocks has at least this share of the median block's noise where that is
/// noise and nothing else.
const EVEN: f32 = 0.65;

/// It has at most this share where the median block shows objects.
const UNEVEN: f32 = 0.3;

/// Places that are spread evenly over a line, one after the other: the fraction of multiples of this.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// The noise of a frame of `width` pixels a row, as strong as white noise must be to hide as much: its
/// standard deviation where it is white, and up to twice that where it is correlated.
///
/// The network averages over what is near. White noise of σ is σ/4 in the mean of a cell of 4×4; what
/// is more than that looks like spots. Seen in such cells alone the noise of a blurred frame
/// would be up to four times its standard deviation, which hides more than it must; the
/// geometric mean of both leaves hardly an object in empty fields, and the rest has no
/// signal ([`super::signal`]).
pub(super) fn visible_sigma(pixels: &Pixels, width: usize) -> f64 {
    match pixels {
        Pixels::U8(values) => visible_sigma_of(values, width),
        Pixels::U16(values) => visible_sigma_of(values, width),
    }
}

fn visible_sigma_of<T: Copy + Into<f32>>(values: &[T], width: usize) -> f64 {
    let size = (width, values.len() / width.max(1));
    let row = |y: usize, columns: Range<usize>| &values[y * width..][columns];
    let pixel = measure(size, BLOCK, |rows, columns, block| {
        for y in rows {
            // Each row begins elsewhere, so that every column of a mosaic is seen.
            block.extend(
                row(y, columns.clone())
                    .iter()
                    .skip(3 * y % STEP)
                    .step_by(STEP)
                    .copied()
                    .map(T::into),
            );
        }
    });
    let cell = measure(size, BLOCK, |rows, columns, block| {
        let width = columns.len() / CELL;
        let mut sums = [0.0; BLOCK / CELL];
        for top in rows.clone().step_by(CELL).take(rows.len() / CELL) {
            sums.fill(0.0);
            for y in top..top + CELL {
                let (cells, _) = row(y, columns.clone()).as_chunks::<CELL>();
                for (sum, cell) in sums.iter_mut().zip(cells) {
                    *sum += cell.iter().copied().map(T::into).sum::<f32>();
                }
            }
            block.extend(sums[..width].iter().map(|sum| sum / (CELL * CELL) as f32));
        }
    });
    let (pixel, cell) = (pixel.median * pixel.evenness, cell.median * cell.evenness);
    // Few grey values may all lie on one side of the median, but not their means; and of means there
    // is no more noise than of pixels.
    let pixel = f64::from((pixel * pixel + ROUNDING).sqrt().max(cell));
    (pixel * pixel.max(CELL as f64 * f64::from(cell))).sqrt()
}

/// What the blocks of a frame say of its noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// Standard deviation in the median block.
    pub(super) median: f32,
    /// How far the quietest blocks have noise as strong as the median one, from 0 to 1: 1 where there is
    /// nothing but noise, 0 where the median block shows objects.
    pub(super) evenness: f32,
}

/// The noise in `width × height` values, in blocks of `edge`, of which `read` adds the values in these
/// rows and columns to a list.
pub(super) fn measure(
    (width, height): (usize, usize),
    edge: usize,
    mut read: impl FnMut(Range<usize>, Range<usize>, &mut Vec<f32>),
) -> Measured {
    let (columns, rows) = ((width / edge).max(1), (height / edge).max(1));
    let count = (columns * rows).min(BLOCKS);
    let mut values = Vec::with_capacity(edge * edge);
    let mut variances = Vec::with_capacity(count);
    for block in 0..count {
        let (row, column) = if count == columns * rows {
            (block / columns, block % columns)
        } else {
            let along = (block as f64 * GOLDEN).fract() * columns as f64;
            (block * rows / count, along as usize)
        };
        let (top, left) = (row * edge, column * edge);
        values.clear();
        read(top..(top + edge).min(height), left..(left + edge).min(width), &mut values);
        variances.extend(lower_variance(&mut values));
    }
    if variances.is_empty() {
        return Measured { median: 0.0, evenness: 1.0 };
    }
    let blocks = variances.len();
    let mut ranked = |rank: usize| variances.select_nth_unstable_by(rank, f32::total_cmp).1.sqrt();
    let (quiet, median) = (ranked(blocks / 10), ranked(blocks / 2));
    let evenness = if median > 0.0 { ramp(UNEVEN, EVEN, quiet / median) } else { 1.0 };
    Measured { median, evenness }
}

/// Rises from 0 at `from` to 1 at `to`.
pub(super) fn ramp(from: f32, to: f32, at: f32) -> f32 {
    ((at - from) / (to - from)).clamp(0.0, 1.0)
}

/// Mean square of how far the lower half of `values` is below their median.
fn lower_variance(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    if middle == 0 {
        return None;
    }
    let (lower, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    Some(lower.iter().map(|value| (*median - value).powi(2)).sum::<f32>() / middle as f32)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    /// White noise of `sigma` around 1000, averaged over `over` pixels along each row.
    fn noise(width: usize, height: usize, sigma: f32, over: usize) -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let white: Vec<f32> =
            (0..width * height + over).map(|_| StandardNormal.sample(&mut rng)).collect();
        let means = white.windows(over).map(|near| near.iter().sum::<f32>() / (over as f32).sqrt());
        means.take(width * height).map(|mean| 1000.0 + sigma * mean).collect()
    }

    fn frame(values: &[f32]) -> Pixels {
        Pixels::U16(values.iter().map(|value| value.round() as u16).collect())
    }

    #[test]
    fn white_noise_counts_as_it_is_in_frames_of_any_size() {
        for (width, height) in [(512, 512), (2048, 600), (64, 64), (100, 40), (20, 16)] {
            let measured = visible_sigma(&frame(&noise(width, height, 20.0, 1)), width);
            let slack = if width * height < 10_000 { 0.3 } else { 0.06 };
            assert!((measured / 20.0 - 1.0).abs() < slack, "{width}×{height}: {measured}");
        }
    }

    #[test]
    fn noise_that_is_alike_along_rows_counts_more() {
        for (over, least, most) in [(2, 1.1, 1.4), (4, 1.2, 1.6), (8, 1.25, 2.0)] {
            let measured = visible_sigma(&frame(&noise(512, 512, 20.0, over)), 512) / 20.0;
            assert!((least..most).contains(&measured), "over {over}: {measured}");
        }
    }

    #[test]
    fn bright_objects_on_a_quarter_of_a_frame_hardly_count() {
        let mut values = noise(512, 512, 20.0, 1);
        for (at, value) in values.iter_mut().enumerate() {
            let (x, y) = (at % 512 % 32, at / 512 % 32);
            *value += if x.abs_diff(16).pow(2) + y.abs_diff(16).pow(2) < 82 { 3000.0 } else { 0.0 };
        }
        let measured = visible_sigma(&frame(&values), 512);
        assert!((15.0..30.0).contains(&measured), "{measured}");
    }

    #[test]
    fn objects_that_fill_most_of_a_frame_are_no_noise() {
        let mut values = noise(512, 512, 20.0, 1);
        for (at, value) in values.iter_mut().enumerate() {
            let (x, y) = (at % 512, at / 512);
            let covers = (x % 32).abs_diff(16).pow(2) + (y % 32).abs_diff(16).pow(2) < 220;
            *value += if covers && x + y > 400 { 3000.0 } else { 0.0 };
        }
        let measured = visible_sigma(&frame(&values), 512);
        assert!(measured < 30.0, "{measured}");
    }

    #[test]
    fn light_that_falls_off_counts_little() {
        let mut values = noise(1024, 1024, 20.0, 1);
        for (at, value) in values.iter_mut().enumerate() {
            *value += 300.0 * (at % 1024) as f32 / 1024.0;
        }
        let measured = visible_sigma(&frame(&values), 1024);
        assert!((19.0..26.0).contains(&measured), "{measured}");
    }

    #[test]
    fn a_frame_of_one_grey_value_has_what_rounding_adds() {
        let measured = visible_sigma(&Pixels::U8(vec![77; 4096]), 64);
        assert!((measured - f64::from(ROUNDING).sqrt()).abs() < 1e-6, "{measured}");
        assert_eq!(
            visible_sigma(&Pixels::U8(Vec::new()), 0),
            visible_sigma(&Pixels::U8(vec![0]), 1)
        );
    }
}

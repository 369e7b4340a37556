//! Length of an object's outline.
//!
//! The object lies in its bounding box as one bit for each pixel, so that a word says of 64
//! pixels at once which are at the edge.

use std::f64::consts::SQRT_2;

/// One object, with a border of one background pixel. Kept between objects so that nothing is
/// allocated for each.
#[derive(Default)]
pub(super) struct Outline {
    /// Words of a row.
    words: usize,
    mask: Vec<u64>,
    edge: Vec<u64>,
}

impl Outline {
    /// Begins an object of `rows` and `columns`.
    pub(super) fn start(&mut self, rows: usize, columns: usize) {
        self.words = (columns + 2).div_ceil(64);
        for bits in [&mut self.mask, &mut self.edge] {
            bits.clear();
            bits.resize(self.words * (rows + 2), 0);
        }
    }

    /// Adds the pixels `from..to` of `row`.
    pub(super) fn add(&mut self, row: usize, from: usize, to: usize) {
        let line = &mut self.mask[(row + 1) * self.words..][..self.words];
        let (from, to) = (from + 1, to + 1);
        for (word, bits) in line.iter_mut().enumerate().take(to.div_ceil(64)).skip(from / 64) {
            let first = from.saturating_sub(word * 64);
            let after = (to - word * 64).min(64);
            *bits |= (u64::MAX >> (64 - (after - first))) << first;
        }
    }

    /// Length of the line through the centres of edge pixels, estimated from 4-neighbourhoods
    /// (Benkrid & Crookes 2000), with the weights of scikit-image's `perimeter`.
    pub(super) fn perimeter(&mut self) -> f64 {
        let words = self.words;
        let inside = words..self.mask.len() - words;
        for at in inside.clone() {
            // Rows end with background, so that what comes from the next word or row is right.
            let bits = self.mask[at];
            let left = bits << 1 | self.mask[at - 1] >> 63;
            let right = bits >> 1 | self.mask[at + 1] << 63;
            let inner = left & right & self.mask[at - words] & self.mask[at + words];
            self.edge[at] = bits & !inner;
        }
        let mut total = 0.0;
        for at in inside {
            let mut bits = self.edge[at];
            while bits != 0 {
                let bit = bits.trailing_zeros();
                let around = self.three(at - words, bit)
                    | self.three(at, bit) << 3
                    | self.three(at + words, bit) << 6;
                total += WEIGHTS[around];
                bits &= bits - 1;
            }
        }
        total
    }

    /// Edge pixel `bit` of word `at` and those left and right of it.
    fn three(&self, at: usize, bit: u32) -> usize {
        let bits = self.edge[at];
        let three = match bit {
            0 => bits << 1 | self.edge[at - 1] >> 63,
            63 => bits >> 62 | self.edge[at + 1] << 2,
            _ => bits >> (bit - 1),
        };
        (three & 7) as usize
    }
}

/// What an edge pixel adds to the perimeter, by which of the nine around it are edge pixels.
static WEIGHTS: [f64; 512] = {
    let mut weights = [0.0; 512];
    let mut around = 0;
    while around < weights.len() {
        let straight = (around & 0b010_101_010).count_ones();
        let diagonal = (around & 0b101_000_101).count_ones();
        weights[around] = match 1 + 2 * straight + 10 * diagonal {
            5 | 7 | 15 | 17 | 25 | 27 => 1.0,
            21 | 33 => SQRT_2,
            13 | 23 => f64::midpoint(1.0, SQRT_2),
            _ => 0.0,
        };
        around += 1;
    }
    weights
};

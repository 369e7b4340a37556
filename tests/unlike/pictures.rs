//! Pictures of every kind that the tests ask for, drawn or made of real ones; the same for the same seed.

use std::sync::Arc;

use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use reticle_base::clock::Clock;
use reticle_domain::frame::{Frame, Pixels, Place, Shot};

/// Grey values that may be anything, before they become pixels.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Vec<f64>,
}

impl Picture {
    /// One grey value everywhere.
    pub(crate) fn flat(edge: usize, value: f64) -> Self {
        Self { width: edge, height: edge, values: vec![value; edge * edge] }
    }

    pub(crate) fn of(frame: &Frame) -> Self {
        Self {
            width: frame.width as usize,
            height: frame.height as usize,
            values: (0..frame.pixels.len()).map(|at| frame.pixels.get(at).into()).collect(),
        }
    }

    pub(crate) fn each(mut self, mut value: impl FnMut(usize, usize, f64) -> f64) -> Self {
        for (at, old) in self.values.iter_mut().enumerate() {
            *old = value(at % self.width, at / self.width, *old);
        }
        self
    }

    /// White noise on top.
    pub(crate) fn noisy(self, sigma: f64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, sigma).unwrap();
        self.each(|_, _, value| value + normal.sample(&mut rng))
    }

    /// Round nuclei that do not touch, with a soft rim of two pixels; fewer where there is no room.
    pub(crate) fn with_nuclei(
        mut self,
        count: usize,
        diameter: f64,
        amplitude: impl Fn(usize) -> f64,
        seed: u64,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for _ in 0..200 * count {
            if taken.len() == count {
                break;
            }
            let margin = diameter * 0.7;
            let x = rng.random_range(margin..self.width as f64 - margin);
            let y = rng.random_range(margin..self.height as f64 - margin);
            if taken.iter().any(|(ox, oy)| (ox - x).hypot(oy - y) < 1.35 * diameter) {
                continue;
            }
            let height = amplitude(taken.len());
            taken.push((x, y));
            let stretch = rng.random_range(0.85..1.15);
            let radius = diameter / 2.0;
            let reach = (diameter * 1.2) as usize;
            for py in (y as usize).saturating_sub(reach)..(y as usize + reach).min(self.height) {
                for px in (x as usize).saturating_sub(reach)..(x as usize + reach).min(self.width) {
                    let away = ((px as f64 - x) * stretch).hypot((py as f64 - y) / stretch);
                    let inside = ((radius - away) / 2.0 + 0.5).clamp(0.0, 1.0);
                    let texture = 1.0 - 0.1 * ((px * 7 + py * 13) as f64 * 0.21).sin();
                    self.values[py * self.width + px] += inside * texture * height;
                }
            }
        }
        self
    }

    /// Specks and clumps of no shape, as debris is.
    pub(crate) fn with_debris(
        mut self,
        count: usize,
        size: f64,
        amplitude: f64,
        seed: u64,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..count {
            let x = rng.random_range(0.0..self.width as f64);
            let y = rng.random_range(0.0..self.height as f64);
            let (a, b) = (size * rng.random_range(0.3..1.0), size * rng.random_range(0.2..0.5));
            let turn: f64 = rng.random_range(0.0..3.2);
            let height = amplitude * rng.random_range(0.4..1.6);
            let reach = (2.0 * size) as usize + 2;
            for py in (y as usize).saturating_sub(reach)..(y as usize + reach).min(self.height) {
                for px in (x as usize).saturating_sub(reach)..(x as usize + reach).min(self.width) {
                    let (dx, dy) = (px as f64 - x, py as f64 - y);
                    let u = (dx * turn.cos() + dy * turn.sin()) / a;
                    let v = (dy * turn.cos() - dx * turn.sin()) / b;
                    self.values[py * self.width + px] += height * (-(u * u + v * v)).exp();
                }
            }
        }
        self
    }

    /// Blobs without an edge, several times as wide as nuclei.
    pub(crate) fn with_glow(mut self, count: usize, sigma: f64, amplitude: f64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let blobs: Vec<(f64, f64, f64, f64)> = (0..count)
            .map(|_| {
                (
                    rng.random_range(0.0..self.width as f64),
                    rng.random_range(0.0..self.height as f64),
                    sigma * rng.random_range(0.7..1.4),
                    amplitude * rng.random_range(0.5..1.2),
                )
            })
            .collect();
        let width = self.width;
        for (at, value) in self.values.iter_mut().enumerate() {
            let (px, py) = ((at % width) as f64, (at / width) as f64);
            for (x, y, sigma, height) in &blobs {
                let away = ((px - x).powi(2) + (py - y).powi(2)) / (2.0 * sigma * sigma);
                *value += height * (-away).exp();
            }
        }
        self
    }

    /// Bright on dark becomes dark on bright.
    pub(crate) fn inverted(self) -> Self {
        let (low, high) = self.range();
        self.each(|_, _, value| high + low - value)
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }

    /// The values below which these shares lie.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share) as usize]
    }

    /// Lines of a sine along rows.
    pub(crate) fn with_stripes(self, period: f64, amplitude: f64, upright: bool) -> Self {
        self.each(|x, y, value| {
            let along = if upright { x } else { y } as f64;
            value + amplitude * (along / period * std::f64::consts::TAU).sin()
        })
    }

    /// An offset of its own for each row, as a read-out makes it.
    pub(crate) fn with_row_offsets(self, sigma: f64, upright: bool, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, sigma).unwrap();
        let offsets: Vec<f64> =
            (0..self.width.max(self.height)).map(|_| normal.sample(&mut rng)).collect();
        self.each(|x, y, value| value + offsets[if upright { x } else { y }])
    }

    /// A pattern with this period along both axes: the spots of a sensor or of a well's grid.
    pub(crate) fn with_lattice(self, period: f64, amplitude: f64) -> Self {
        self.each(|x, y, value| {
            let wave = |at: usize| (at as f64 / period * std::f64::consts::TAU).cos();
            value + amplitude * (wave(x) + wave(y)) / 2.0
        })
    }

    /// A Gaussian blur, by three passes of a box.
    pub(crate) fn blurred(self, sigma: f64) -> Self {
        let reach = (((12.0 * sigma * sigma / 3.0 + 1.0).sqrt() - 1.0) / 2.0).round() as usize;
        let mut picture = self;
        for _ in 0..3 {
            picture = picture.boxed(reach).turned().boxed(reach).turned();
        }
        picture
    }

    fn boxed(&self, reach: usize) -> Self {
        let mut values = Vec::with_capacity(self.values.len());
        for line in self.values.chunks_exact(self.width) {
            let mut sums = vec![0.0];
            for value in line {
                sums.push(sums[sums.len() - 1] + value);
            }
            values.extend((0..self.width).map(|x| {
                let (from, to) = (x.saturating_sub(reach), (x + reach + 1).min(self.width));
                (sums[to] - sums[from]) / (to - from) as f64
            }));
        }
        Self { values, ..*self }
    }

    fn turned(&self) -> Self {
        let values = (0..self.values.len())
            .map(|at| self.values[at % self.height * self.width + at / self.height])
            .collect();
        Self { width: self.height, height: self.width, values }
    }

    /// As 8-bit pixels.
    pub(crate) fn bytes(&self) -> Arc<Frame> {
        let values = self.values.iter().map(|value| value.round().clamp(0.0, 255.0) as u8);
        self.frame(Pixels::U8(values.collect()), 8, None)
    }

    /// As 16-bit pixels.
    pub(crate) fn words(&self) -> Arc<Frame> {
        self.words_of(None)
    }

    /// The same with a pixel size.
    pub(crate) fn words_of(&self, pixel_size_um: Option<f64>) -> Arc<Frame> {
        let values = self.values.iter().map(|value| value.round().clamp(0.0, 65_535.0) as u16);
        self.frame(Pixels::U16(values.collect()), 16, pixel_size_um)
    }

    fn frame(&self, pixels: Pixels, bit_depth: u8, pixel_size_um: Option<f64>) -> Arc<Frame> {
        let shot = Shot {
            sequence: 0,
            captured: Clock::system().now(),
            exposure_us: None,
            width: self.width as u32,
            height: self.height as u32,
            bit_depth,
            pixels,
            pixel_size_um,
            pixel_size_source: None,
            pixel_size_note: None,
            place: Place::default(),
            origin: None,
            truth: None,
        };
        Arc::new(shot.into_frame().unwrap())
    }
}

//! Fields as cameras give them: white noise on a dark background, with or without nuclei, and then
//! what cameras, their software, and those who handle their files do to it.
//!
//! Grey values are those of 8 bits (background 30, noise of 6 to 12) until [`Field::frame`] makes
//! pixels of them.

use std::f32::consts::TAU;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson, StandardNormal};
use reticle_base::clock::Clock;
use reticle_domain::frame::{Frame, Pixels, Place, Shot};

/// Grey value of the background.
pub(crate) const BACKGROUND: f32 = 30.0;

/// Grey values of a field.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Vec<f32>,
}

/// A nucleus that is drawn: an ellipse with a soft edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nucleus {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) diameter: f32,
    /// Grey values above the background.
    pub(crate) rise: f32,
}

/// How a field is drawn before anything is done to it.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) edge: usize,
    /// Standard deviation of the white noise.
    pub(crate) sigma: f32,
    pub(crate) nuclei: Vec<Nucleus>,
    pub(crate) seed: u64,
}

/// What happens to a field on its way from the sensor into a file.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Makes the field of a scene.
    pub(crate) make: fn(&Scene) -> Field,
}

/// The kinds of shared/inputs/README.md.
pub(crate) const NAMED: &[Kind] = &[
    Kind { name: "white", make: |scene| scene.draw() },
    Kind { name: "blur 0.7", make: |scene| scene.draw().blurred(0.7) },
    Kind { name: "blur 1", make: |scene| scene.draw().blurred(1.0) },
    Kind { name: "blur 1.5", make: |scene| scene.draw().blurred(1.5) },
    Kind { name: "blur 2", make: |scene| scene.draw().blurred(2.0) },
    Kind { name: "blur 3", make: |scene| scene.draw().blurred(3.0) },
    Kind { name: "2x nearest", make: |scene| scene.half().draw().doubled(nearest) },
    Kind { name: "2x bilinear", make: |scene| scene.half().draw().doubled(linear) },
    Kind { name: "Bayer", make: |scene| scene.draw().demosaiced() },
    Kind { name: "median 3x3", make: |scene| scene.draw().median(1) },
    Kind { name: "JPEG 30", make: |scene| scene.draw().through_jpeg(30) },
    Kind { name: "JPEG 45", make: |scene| scene.draw().through_jpeg(45) },
    Kind { name: "JPEG 60", make: |scene| scene.draw().through_jpeg(60) },
    Kind { name: "JPEG 75", make: |scene| scene.draw().through_jpeg(75) },
    Kind { name: "JPEG 60 of half", make: |scene| scene.fainter().draw().through_jpeg(60) },
    Kind { name: "JPEG 75 of half", make: |scene| scene.fainter().draw().through_jpeg(75) },
    Kind { name: "rows", make: |scene| scene.draw().with_lines(scene, 0.7, true) },
    Kind { name: "mean of 8", make: |scene| scene.mean_of(8) },
];

/// Others, that nobody named.
pub(crate) const OTHERS: &[Kind] = &[
    Kind { name: "2x cubic", make: |scene| scene.half().draw().doubled(cubic) },
    Kind { name: "photons, blur 1", make: |scene| scene.photons().blurred(1.0) },
    Kind {
        name: "hot pixels, Bayer",
        make: |scene| scene.draw().with_hot_pixels(scene).demosaiced(),
    },
    Kind { name: "vignette, blur 1", make: |scene| scene.draw().vignetted().blurred(1.0) },
    Kind { name: "gamma, blur 1", make: |scene| scene.draw().blurred(1.0).with_gamma(0.5) },
    Kind { name: "columns", make: |scene| scene.draw().with_lines(scene, 1.0, false) },
    Kind {
        name: "rows, blur 1",
        make: |scene| scene.draw().with_lines(scene, 0.7, true).blurred(1.0),
    },
    Kind { name: "JPEG 60, then 40", make: |scene| scene.draw().through_jpeg(60).through_jpeg(40) },
    Kind {
        name: "2x linear, JPEG 50",
        make: |scene| scene.half().draw().doubled(linear).through_jpeg(50),
    },
    Kind {
        name: "JPEG 50, 2x linear",
        make: |scene| scene.half().draw().through_jpeg(50).doubled(linear),
    },
    Kind { name: "bilateral", make: |scene| scene.draw().bilateral(2.5 * scene.sigma) },
    Kind { name: "non-local means", make: |scene| scene.draw().non_local_means(scene.sigma) },
    Kind { name: "rotated", make: |scene| scene.draw().rotated(3.0) },
    Kind { name: "stitched", make: |scene| scene.draw().stitched(scene).blurred(0.8) },
    Kind { name: "sharpened", make: |scene| scene.draw().blurred(1.5).sharpened(2.0, 1.0) },
    Kind { name: "median 5x5", make: |scene| scene.draw().median(2) },
    Kind {
        name: "blur 2, fixed pattern",
        make: |scene| {
            scene.draw().with_lines(scene, 0.4, false).with_lines(scene, 0.4, true).blurred(2.0)
        },
    },
    Kind { name: "3x linear", make: |scene| scene.third().draw().tripled(scene.edge) },
    Kind { name: "interlaced", make: |scene| scene.draw().interlaced() },
    Kind { name: "blur 1, 16 greys", make: |scene| scene.draw().blurred(1.0).with_step(4.0) },
    Kind { name: "wavelet shrunk", make: |scene| scene.draw().shrunk(1.5 * scene.sigma) },
];

/// What is not always right: clouds of light twice as strong as the noise that is left look like dim nuclei, and
/// of noise below its quantisation steps JPEG leaves few spots on an even background.
pub(crate) const HARD: &[Kind] = &[
    Kind { name: "stains, blur 1", make: |scene| scene.draw().stained(scene).blurred(1.0) },
    Kind { name: "JPEG 30 of half", make: |scene| scene.fainter().draw().through_jpeg(30) },
];

impl Scene {
    /// The same scene at half of its size, for what enlarges it afterwards.
    fn half(&self) -> Self {
        self.reduced(2)
    }

    fn third(&self) -> Self {
        self.reduced(3)
    }

    fn reduced(&self, by: usize) -> Self {
        let over = by as f32;
        let nuclei = self.nuclei.iter().map(|nucleus| Nucleus {
            x: nucleus.x / over,
            y: nucleus.y / over,
            diameter: nucleus.diameter / over,
            ..*nucleus
        });
        Self { edge: self.edge.div_ceil(by), nuclei: nuclei.collect(), ..self.clone() }
    }

    /// The same scene with half of the noise.
    fn fainter(&self) -> Self {
        Self { sigma: 0.5 * self.sigma, ..self.clone() }
    }

    fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        rng
    }

    /// Background and nuclei without noise.
    pub(crate) fn clean(&self) -> Field {
        let mut field = Field {
            width: self.edge,
            height: self.edge,
            values: vec![BACKGROUND; self.edge * self.edge],
        };
        for nucleus in &self.nuclei {
            nucleus.draw(&mut field);
        }
        field
    }

    /// Which pixels are those of which nucleus (from 1).
    pub(crate) fn truth(&self) -> Vec<usize> {
        let mut labels = vec![0; self.edge * self.edge];
        for (index, nucleus) in self.nuclei.iter().enumerate() {
            nucleus.each_pixel(self.edge, |at, inside| {
                if inside > 0.5 {
                    labels[at] = index + 1;
                }
            });
        }
        labels
    }

    /// With white noise.
    fn draw(&self) -> Field {
        let mut field = self.clean();
        let mut rng = self.rng(0);
        for value in &mut field.values {
            let noise: f32 = StandardNormal.sample(&mut rng);
            *value += self.sigma * noise;
        }
        field
    }

    /// Shot noise of few photons and the read noise of the sensor, as strong as `sigma` in all at
    /// the background.
    fn photons(&self) -> Field {
        let mut field = self.clean();
        let mut rng = self.rng(1);
        let grey_a_photon = 0.8 * self.sigma * self.sigma / BACKGROUND;
        let read = self.sigma * 0.2_f32.sqrt();
        for value in &mut field.values {
            let photons = Poisson::new((*value / grey_a_photon).max(1e-3)).unwrap();
            let noise: f32 = StandardNormal.sample(&mut rng);
            *value = photons.sample(&mut rng) * grey_a_photon + read * noise;
        }
        field
    }

    /// Mean of a stack whose pages have read-out noise of their own and a fixed pattern in common.
    fn mean_of(&self, pages: u64) -> Field {
        let mut sum = self.clean();
        let mut fixed = self.rng(99);
        for value in &mut sum.values {
            let noise: f32 = StandardNormal.sample(&mut fixed);
            *value += 0.3 * self.sigma * noise;
        }
        for page in 0..pages {
            let scene = Self { seed: self.seed * 1000 + page, nuclei: Vec::new(), ..self.clone() };
            let noise = scene.draw().with_lines(&scene, 0.7, true);
            for (sum, value) in sum.values.iter_mut().zip(&noise.values) {
                *sum += (value - BACKGROUND) / pages as f32;
            }
        }
        sum
    }
}

impl Nucleus {
    /// Calls `draw` with each pixel about it and how far that lies inside, from 0 to 1.
    fn each_pixel(&self, edge: usize, mut draw: impl FnMut(usize, f32)) {
        let (long, short) = (self.diameter * 0.5 * 1.12, self.diameter * 0.5 / 1.12);
        let turn = (self.x * 0.37 + self.y * 0.61) % TAU;
        let (sine, cosine) = turn.sin_cos();
        let reach = long + 4.0;
        let range = |centre: f32| {
            (centre - reach).max(0.0) as usize..((centre + reach) as usize + 1).min(edge)
        };
        for y in range(self.y) {
            for x in range(self.x) {
                let (dx, dy) = (x as f32 - self.x, y as f32 - self.y);
                let (u, v) = (cosine * dx + sine * dy, cosine * dy - sine * dx);
                let distance = ((u / long).hypot(v / short) - 1.0) * 0.5 * self.diameter;
                draw(y * edge + x, 1.0 / (1.0 + (distance / 0.6).exp()));
            }
        }
    }

    fn draw(&self, field: &mut Field) {
        self.each_pixel(field.width, |at, inside| field.values[at] += self.rise * inside);
    }
}

/// Value of a field between pixels.
type Between = fn(&Field, f32, f32) -> f32;

fn nearest(field: &Field, x: f32, y: f32) -> f32 {
    field.at(x.round() as isize, y.round() as isize)
}

fn linear(field: &Field, x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let at = |right: isize, below: isize| field.at(left as isize + right, top as isize + below);
    (at(0, 0) * (1.0 - dx) + at(1, 0) * dx) * (1.0 - dy)
        + (at(0, 1) * (1.0 - dx) + at(1, 1) * dx) * dy
}

/// Keys 1981, a = −1/2.
fn cubic(field: &Field, x: f32, y: f32) -> f32 {
    let weight = |far: f32| {
        let far = far.abs();
        if far < 1.0 {
            1.5 * far.powi(3) - 2.5 * far.powi(2) + 1.0
        } else if far < 2.0 {
            -0.5 * far.powi(3) + 2.5 * far.powi(2) - 4.0 * far + 2.0
        } else {
            0.0
        }
    };
    let (left, top) = (x.floor() as isize, y.floor() as isize);
    let mut sum = 0.0;
    for row in top - 1..=top + 2 {
        for column in left - 1..=left + 2 {
            sum += weight(x - column as f32) * weight(y - row as f32) * field.at(column, row);
        }
    }
    sum
}

impl Field {
    /// The pixel there; beyond the edge, the nearest.
    fn at(&self, x: isize, y: isize) -> f32 {
        let inside = |at: isize, length: usize| at.clamp(0, length as isize - 1) as usize;
        self.values[inside(y, self.height) * self.width + inside(x, self.width)]
    }

    /// A field of this size whose pixels `value` gives, by column and row.
    fn each(&self, value: impl Fn(isize, isize) -> f32) -> Self {
        let (width, height) = (self.width as isize, self.height as isize);
        let values = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Self { values: values.map(|(x, y)| value(x, y)).collect(), ..*self }
    }

    fn map(mut self, value: impl Fn(f32) -> f32) -> Self {
        self.values.iter_mut().for_each(|own| *own = value(*own));
        self
    }

    pub(crate) fn blurred(&self, sigma: f32) -> Self {
        let reach = (4.0 * sigma).ceil() as isize;
        let weights: Vec<f32> =
            (-reach..=reach).map(|at| (-0.5 * (at as f32 / sigma).powi(2)).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let weights: Vec<f32> = weights.iter().map(|weight| weight / sum).collect();
        let along = |field: &Self, dx: isize, dy: isize| {
            field.each(|x, y| {
                let taps = (-reach..=reach).zip(&weights);
                taps.map(|(step, weight)| weight * field.at(x + step * dx, y + step * dy)).sum()
            })
        };
        along(&along(self, 1, 0), 0, 1)
    }

    fn resampled(&self, times: usize, between: Between) -> Self {
        let (width, height) = (times * self.width, times * self.height);
        let place = |at: isize| (at as f32 + 0.5) / times as f32 - 0.5;
        let empty = Self { width, height, values: Vec::new() };
        empty.each(|x, y| between(self, place(x), place(y)))
    }

    fn doubled(&self, between: Between) -> Self {
        self.resampled(2, between)
    }

    /// Three times as large, and cut to `edge`.
    fn tripled(&self, edge: usize) -> Self {
        let tripled = self.resampled(3, linear);
        let cut = Self { width: edge, height: edge, values: Vec::new() };
        cut.each(|x, y| tripled.at(x, y))
    }

    /// A grey scene under a mosaic of red, green and blue, interpolated linearly, and made grey.
    fn demosaiced(&self) -> Self {
        let gains = [0.7, 1.0, 0.8];
        let colour = |x: isize, y: isize| match (x.rem_euclid(2), y.rem_euclid(2)) {
            (0, 0) => 0,
            (1, 1) => 2,
            _ => 1,
        };
        self.each(|x, y| {
            let mut sums = [(0.0, 0.0); 3];
            for dy in -1..=1_isize {
                for dx in -1..=1_isize {
                    let own = colour(x + dx, y + dy);
                    let is_own = own == colour(x, y);
                    if is_own && (dx, dy) != (0, 0) {
                        continue;
                    }
                    let (sum, count) = &mut sums[own];
                    *sum += self.at(x + dx, y + dy) * gains[own];
                    *count += 1.0;
                }
            }
            let [red, green, blue] = sums.map(|(sum, count)| sum / count);
            0.299 * red / gains[0] + 0.587 * green + 0.114 * blue / gains[2]
        })
    }

    fn median(&self, reach: isize) -> Self {
        self.each(|x, y| {
            let mut near = [0.0_f32; 25];
            let mut count = 0;
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    near[count] = self.at(x + dx, y + dy);
                    count += 1;
                }
            }
            *near[..count].select_nth_unstable_by(count / 2, f32::total_cmp).1
        })
    }

    fn through_jpeg(&self, quality: u8) -> Self {
        let bytes: Vec<u8> = self.values.iter().map(|value| value.round() as u8).collect();
        let mut file = Vec::new();
        let size = [self.width, self.height].map(|edge| u16::try_from(edge).unwrap());
        jpeg_encoder::Encoder::new(&mut file, quality)
            .encode(&bytes, size[0], size[1], jpeg_encoder::ColorType::Luma)
            .unwrap();
        let image = image::load_from_memory(&file).unwrap().into_luma8();
        Self { values: image.as_raw().iter().map(|&value| value.into()).collect(), ..*self }
    }

    /// Each row (or column) has an offset of its own, `share` of the noise strong.
    fn with_lines(mut self, scene: &Scene, share: f32, rows: bool) -> Self {
        let mut rng = scene.rng(if rows { 2 } else { 3 });
        let lines = self.width.max(self.height);
        let offsets: Vec<f32> = (0..lines).map(|_| StandardNormal.sample(&mut rng)).collect();
        for (at, value) in self.values.iter_mut().enumerate() {
            let line = if rows { at / self.width } else { at % self.width };
            *value += share * scene.sigma * offsets[line];
        }
        self
    }

    /// One pixel in two thousand is stuck far above.
    fn with_hot_pixels(mut self, scene: &Scene) -> Self {
        let mut rng = scene.rng(4);
        for _ in 0..self.values.len() / 2000 {
            let at = rng.random_range(0..self.values.len());
            self.values[at] += rng.random_range(5.0..20.0) * scene.sigma;
        }
        self
    }

    /// Light falls to 60% in the corners.
    fn vignetted(&self) -> Self {
        let half = [self.width, self.height].map(|edge| edge as f32 / 2.0);
        self.each(|x, y| {
            let far = (x as f32 / half[0] - 1.0).hypot(y as f32 / half[1] - 1.0);
            self.at(x, y) * (1.0 - 0.2 * far * far)
        })
    }

    /// Smooth clouds of 128 pixels and more, as strong as half of the noise.
    fn stained(&self, scene: &Scene) -> Self {
        let mut rng = scene.rng(5);
        let edge = self.width / 128 + 2;
        let values = (0..edge * edge).map(|_| StandardNormal.sample(&mut rng)).collect();
        let coarse = Self { width: edge, height: edge, values };
        self.each(|x, y| {
            let cloud = cubic(&coarse, x as f32 / 128.0, y as f32 / 128.0);
            self.at(x, y) + 0.5 * scene.sigma * cloud
        })
    }

    fn with_gamma(self, gamma: f32) -> Self {
        self.map(|value| 255.0 * (value.max(0.0) / 255.0).powf(gamma))
    }

    fn with_step(self, step: f32) -> Self {
        self.map(|value| (value / step).round() * step)
    }

    fn bilateral(&self, range: f32) -> Self {
        let reach = 4;
        self.each(|x, y| {
            let own = self.at(x, y);
            let (mut sum, mut weights) = (0.0, 0.0);
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    let other = self.at(x + dx, y + dy);
                    let near = (dx * dx + dy * dy) as f32 / 8.0;
                    let weight = (-near - 0.5 * ((other - own) / range).powi(2)).exp();
                    sum += weight * other;
                    weights += weight;
                }
            }
            sum / weights
        })
    }

    /// Buades, Coll and Morel 2005, with patches of 3×3 in 9×9.
    fn non_local_means(&self, sigma: f32) -> Self {
        self.each(|x, y| {
            let patch = |x: isize, y: isize| -> [f32; 9] {
                std::array::from_fn(|at| self.at(x + at as isize % 3 - 1, y + at as isize / 3 - 1))
            };
            let own = patch(x, y);
            let (mut sum, mut weights) = (0.0, 0.0);
            for dy in -4..=4 {
                for dx in -4..=4 {
                    let other = patch(x + dx, y + dy);
                    let far: f32 = own.iter().zip(&other).map(|(a, b)| (a - b).powi(2)).sum();
                    let weight =
                        (-(far / 9.0 - 2.0 * sigma * sigma).max(0.0) / (0.6 * sigma * sigma)).exp();
                    sum += weight * other[4];
                    weights += weight;
                }
            }
            sum / weights
        })
    }

    /// Turned about the middle, interpolated linearly, without what lay outside.
    fn rotated(&self, degrees: f32) -> Self {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let half = [self.width, self.height].map(|edge| edge as f32 / 2.0);
        // As much smaller as it must be for no corner to lie outside.
        let within = 1.0 / (sine + cosine);
        self.each(|x, y| {
            let (dx, dy) = (within * (x as f32 - half[0]), within * (y as f32 - half[1]));
            linear(self, half[0] + cosine * dx - sine * dy, half[1] + sine * dx + cosine * dy)
        })
    }

    /// Four tiles of slightly different brightness, blended over 32 pixels.
    fn stitched(&self, scene: &Scene) -> Self {
        let mut rng = scene.rng(6);
        let offsets: [f32; 4] = std::array::from_fn(|_| rng.random_range(-0.3..0.3) * scene.sigma);
        let share = |at: isize, length: usize| {
            ((at as f32 - length as f32 / 2.0) / 32.0 + 0.5).clamp(0.0, 1.0)
        };
        self.each(|x, y| {
            let (right, below) = (share(x, self.width), share(y, self.height));
            let upper = offsets[0] * (1.0 - right) + offsets[1] * right;
            let lower = offsets[2] * (1.0 - right) + offsets[3] * right;
            self.at(x, y) + upper * (1.0 - below) + lower * below
        })
    }

    fn sharpened(&self, sigma: f32, by: f32) -> Self {
        let soft = self.blurred(sigma);
        self.each(|x, y| self.at(x, y) + by * (self.at(x, y) - soft.at(x, y)))
    }

    /// Every second row is interpolated between its neighbours.
    fn interlaced(&self) -> Self {
        self.each(|x, y| {
            if y % 2 == 0 { self.at(x, y) } else { 0.5 * (self.at(x, y - 1) + self.at(x, y + 1)) }
        })
    }

    /// One level of Haar's wavelets over 2×2 and one over 4×4, small coefficients left out, as
    /// denoising on cameras does.
    fn shrunk(&self, threshold: f32) -> Self {
        let level = |field: &Self, step: isize| {
            field.each(|x, y| {
                let (left, top) = (x - x.rem_euclid(2 * step), y - y.rem_euclid(2 * step));
                let block = |right: isize, below: isize| {
                    let mut sum = 0.0;
                    for dy in 0..step {
                        for dx in 0..step {
                            sum += field.at(left + right * step + dx, top + below * step + dy);
                        }
                    }
                    sum / (step * step) as f32
                };
                let [a, b, c, d] = [block(0, 0), block(1, 0), block(0, 1), block(1, 1)];
                let (sx, sy) = (
                    if x.rem_euclid(2 * step) < step { 1.0 } else { -1.0 },
                    if y.rem_euclid(2 * step) < step { 1.0 } else { -1.0 },
                );
                let limit = threshold / step as f32;
                let kept = |value: f32| if value.abs() < limit { value } else { 0.0 };
                // What is taken away: the small details of this level.
                let gone = sx * kept((a - b + c - d) / 4.0)
                    + sy * kept((a + b - c - d) / 4.0)
                    + sx * sy * kept((a - b - c + d) / 4.0);
                field.at(x, y) - gone
            })
        };
        level(&level(self, 1), 2)
    }

    /// Standard deviation of all pixels.
    pub(crate) fn deviation(&self) -> f32 {
        let count = self.values.len() as f64;
        let mean = self.values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let squares = self.values.iter().map(|&value| (f64::from(value) - mean).powi(2));
        (squares.sum::<f64>() / count).sqrt() as f32
    }

    /// The frame of it: in 8 bits as it is, in 16 bits `gain` times as bright.
    pub(crate) fn frame(&self, gain: Option<f32>) -> Arc<Frame> {
        let pixels = match gain {
            None => Pixels::U8(self.values.iter().map(|value| value.round() as u8).collect()),
            Some(gain) => {
                Pixels::U16(self.values.iter().map(|value| (value * gain).round() as u16).collect())
            }
        };
        let shot = Shot {
            sequence: 0,
            captured: Clock::system().now(),
            exposure_us: None,
            width: u32::try_from(self.width).unwrap(),
            height: u32::try_from(self.height).unwrap(),
            bit_depth: if gain.is_some() { 16 } else { 8 },
            pixels,
            pixel_size_um: None,
            pixel_size_source: None,
            pixel_size_note: None,
            place: Place::default(),
            origin: None,
            truth: None,
        };
        Arc::new(shot.into_frame().unwrap())
    }
}

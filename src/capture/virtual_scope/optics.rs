//! What lens and camera make of the nuclei: a picture with blur, shading, haze and noise, and
//! the label image that is true for it.
//!
//! Light is counted in photoelectrons. Blur is not computed by convolution: each nucleus is
//! drawn, in its own box only, with an outline as soft as the point spread and the defocus
//! make it (the profile of a blurred edge), which costs a few milliseconds a frame.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::population::Nucleus;
use reticle_domain::label_image::LabelImage;

/// Bits of the camera's converter.
pub(super) const BIT_DEPTH: u8 = 12;
/// Largest grey value.
const WHITE: f32 = 4095.0;
/// Grey value of a pixel without light, as cameras add it so that noise is not clipped.
const DARK: f32 = 100.0;
/// Grey values for one electron at gain 1.
const GREY_PER_ELECTRON: f32 = 0.5;
/// Read noise, electrons (an ordinary sCMOS or CCD).
const READ_NOISE: f32 = 6.0;
/// Electrons that a usual nucleus gives at the usual exposure.
const NUCLEUS: f32 = 1_500.0;
/// Electrons of the medium and the glass at the usual exposure.
const BACKGROUND: f32 = 110.0;
/// Part of a nucleus' light that arrives far out of focus, as haze around it.
const HAZE: f32 = 0.16;
/// Point spread of lens and sample, standard deviation in µm.
const POINT_SPREAD_UM: f32 = 0.55;
/// Blur by the size of a pixel itself, standard deviation in pixels.
const PIXEL_BLUR: f32 = 0.4;
/// Texels of the chromatin texture in a µm: grains of 1 to 2 µm.
const TEXELS_PER_UM: f32 = 1.6;
/// Edge of the (periodic) texture.
const TEXTURE: usize = 256;
/// Edge of the squares in which haze is computed, in pixels.
const COARSE: usize = 16;
/// How far haze spreads, standard deviation in µm.
const HAZE_SPREAD_UM: f32 = 22.0;
/// Entries of the noise table; a power of two.
const NOISE: usize = 1 << 16;
/// Pixels in a row that take consecutive entries of the noise table.
const NOISE_RUN: usize = 32;
/// Objects of which fewer pixels are visible are no objects: the eye sees a speck.
const SMALLEST_VISIBLE: u32 = 12;

/// How one frame is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shutter {
    /// Blur by defocus, standard deviation in µm.
    pub(super) defocus_um: f32,
    /// Light gathered, against the usual exposure.
    pub(super) exposure: f32,
    /// Gain of the converter.
    pub(super) gain: f32,
    /// Picks the noise.
    pub(super) noise_seed: u64,
}

/// The lens, the lamp and the camera; reused from frame to frame.
pub(super) struct Optics {
    width: usize,
    height: usize,
    pixel_um: f32,
    texture: Vec<f32>,
    noise: Vec<f32>,
    edge: Edge,
    lamp: Lamp,
    /// Electrons of the nuclei.
    light: Vec<f32>,
    /// How far a labelled pixel is from the centre of its nucleus: the square of its distance in
    /// half axes.
    depth: Vec<f32>,
    haze: Haze,
}

/// Uneven illumination: a broad paraboloid, brightest beside the middle of the frame.
struct Lamp {
    across: Vec<f32>,
    down: Vec<f32>,
}

impl Lamp {
    fn new(width: usize, height: usize) -> Self {
        let fall = |length: usize, centre: f32, loss: f32| {
            (0..length)
                .map(|at| {
                    let from_centre = (at as f32 + 0.5) / length as f32 - centre;
                    loss * from_centre * from_centre * 4.0
                })
                .collect()
        };
        Self { across: fall(width, 0.46, 0.14), down: fall(height, 0.55, 0.12) }
    }
}

/// Value of a blurred step edge by its distance from the edge, tabulated.
struct Edge(Vec<f32>);

impl Edge {
    /// Distance, in standard deviations, beyond which the edge is as good as 0 or 1.
    const FAR: f32 = 3.2;
    const STEPS: f32 = 64.0;

    fn new() -> Self {
        // Φ by summing the normal density, fine enough for 12 bits.
        let density = |at: f64| (-0.5 * at * at).exp() * 0.398_942_280_401_432_7;
        let (far, steps) = (f64::from(Self::FAR), f64::from(Self::STEPS));
        let mut values = Vec::new();
        let mut sum = 0.0;
        let mut at = -far;
        while at <= far + 2.0 / steps {
            values.push(sum);
            sum += density(at + 0.5 / steps) / steps;
            at += 1.0 / steps;
        }
        let whole = values[values.len() - 1];
        Self(values.iter().map(|value| (1.0 - value / whole) as f32).collect())
    }

    /// Light at `distance` standard deviations outside (inside: negative) of an edge.
    fn at(&self, distance: f32) -> f32 {
        let index = (distance.clamp(-Self::FAR, Self::FAR) + Self::FAR) * Self::STEPS;
        self.0[index as usize]
    }
}

impl Optics {
    pub(super) fn new(width: usize, height: usize, pixel_um: f32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let texture = texture(&mut rng);
        let noise = (0..NOISE).map(|_| StandardNormal.sample(&mut rng)).collect();
        Self {
            width,
            height,
            pixel_um,
            texture,
            noise,
            edge: Edge::new(),
            lamp: Lamp::new(width, height),
            light: vec![0.0; width * height],
            depth: vec![0.0; width * height],
            haze: Haze::new(width, height, HAZE_SPREAD_UM / pixel_um),
        }
    }

    /// Takes the picture of `nuclei`, and the true labels of what is visible of them.
    pub(super) fn expose(
        &mut self,
        nuclei: &[Nucleus],
        shutter: Shutter,
    ) -> (Vec<u16>, LabelImage) {
        self.light.fill(0.0);
        self.haze.clear();
        let mut labels = vec![0_u32; self.width * self.height];
        let mut visible = vec![0_u32; nuclei.len() + 1];
        for (nucleus, label) in nuclei.iter().zip(1..) {
            self.draw(nucleus, label, shutter.defocus_um, &mut labels, &mut visible);
        }
        self.haze.spread();
        let pixels = self.read_out(shutter);
        (pixels, self.truth(labels, &visible))
    }

    /// Adds the light of one nucleus, and its label where it lies on top.
    fn draw(
        &mut self,
        nucleus: &Nucleus,
        label: u32,
        defocus_um: f32,
        labels: &mut [u32],
        visible: &mut [u32],
    ) {
        let to_pixels = 1.0 / self.pixel_um;
        let blur = (POINT_SPREAD_UM * to_pixels).hypot(defocus_um * to_pixels).hypot(PIXEL_BLUR);
        let (long, short) = nucleus.half_axes();
        let (long, short) = (long * to_pixels, short * to_pixels);
        let (x, y) = (nucleus.x * to_pixels, nucleus.y * to_pixels);
        let condensed = nucleus.condensation();
        // What blur takes from the middle of a body not much larger than itself.
        let kept = 1.0 - (-0.5 * (short / blur).powi(2)).exp();
        let peak = NUCLEUS * nucleus.brightness() * kept;
        self.haze.add(x, y, HAZE * NUCLEUS * nucleus.brightness() * long * short);

        let bumps = nucleus.bumps.map(|bump| bump * (1.0 - condensed));
        let largest = 1.0 + bumps.iter().map(|bump| bump.abs()).sum::<f32>();
        let outermost = (largest + Edge::FAR * blur / short).powi(2);
        let reach = long * largest + Edge::FAR * blur;
        let Some((left, right)) = within(x, reach, self.width) else { return };
        let Some((top, bottom)) = within(y, reach, self.height) else { return };

        let grain = 0.17 * (1.0 - 0.8 * condensed) / (1.0 + (defocus_um / 0.9).powi(2));
        let hole = 0.24 * (1.0 - condensed) / (1.0 + (defocus_um / 1.2).powi(2));
        let texels = TEXELS_PER_UM * self.pixel_um;
        let (sin, cos) = nucleus.angle.sin_cos();
        let (per_long, per_short) = (1.0 / long, 1.0 / short);
        let per_blur = 1.0 / blur;
        // So deep inside the outline and its softness do not matter.
        let innermost = (2.0 - largest - Edge::FAR * blur / short).max(0.0).powi(2);
        let is_object = nucleus.is_object();
        let mut seen = 0;
        for row in top..bottom {
            let dy = row as f32 - y;
            let line = row * self.width;
            let light_line = &mut self.light[line + left..line + right];
            let label_line = &mut labels[line + left..line + right];
            let depth_line = &mut self.depth[line + left..line + right];
            for (column, light) in light_line.iter_mut().enumerate() {
                let dx = (left + column) as f32 - x;
                let (along, across) = (dx * cos + dy * sin, dy * cos - dx * sin);
                let (u, v) = (along * per_long, across * per_short);
                let square = u * u + v * v;
                if square > outermost {
                    continue;
                }
                let (edge, inside) = if square < innermost {
                    (1.0, true)
                } else {
                    let rho = square.sqrt().max(1e-3);
                    let (c, s) = (u / rho, v / rho);
                    let (c2, s2) = (c * c - s * s, 2.0 * c * s);
                    let (c3, s3) = (c2 * c - s2 * s, s2 * c + c2 * s);
                    let outline =
                        1.0 + bumps[0] * c2 + bumps[1] * s2 + bumps[2] * c3 + bumps[3] * s3;
                    // Distance to the outline in pixels: the change of rho over its gradient.
                    let gradient = ((c * per_long).powi(2) + (s * per_short).powi(2)).sqrt();
                    (self.edge.at((rho - outline) / gradient * per_blur), rho < outline)
                };
                // A nucleus is thicker in its middle.
                let mut shine = peak * edge * (1.12 - 0.3 * square.min(1.0));
                if inside {
                    let pattern = sample(
                        &self.texture,
                        along * texels + nucleus.texture[0],
                        across * texels + nucleus.texture[1],
                    );
                    let mut stain = 1.0 + grain * pattern;
                    for spot in &nucleus.nucleoli {
                        let from_spot = (u - spot.u).powi(2) + (v - spot.v).powi(2);
                        stain -= hole * (1.0 - from_spot / (spot.radius.powi(2))).max(0.0);
                    }
                    shine *= stain.max(0.2);
                    // Where two overlap, the pixel is of the one whose centre is nearer.
                    let below = &mut label_line[column];
                    if is_object && (*below == 0 || square < depth_line[column]) {
                        visible[*below as usize] = visible[*below as usize].saturating_sub(1);
                        *below = label;
                        depth_line[column] = square;
                        seen += 1;
                    }
                }
                *light += shine;
            }
        }
        visible[label as usize] = seen;
    }

    /// Light through lamp, sensor and converter.
    fn read_out(&self, shutter: Shutter) -> Vec<u16> {
        let mut pixels = vec![0_u16; self.width * self.height];
        let mut random = shutter.noise_seed;
        let grey = GREY_PER_ELECTRON * shutter.gain;
        let mut haze = vec![0.0_f32; self.width];
        let rows = pixels.chunks_exact_mut(self.width).zip(self.light.chunks_exact(self.width));
        for (row, (out, light)) in rows.enumerate() {
            self.haze.line(row, &mut haze);
            let lit_row = (1.0 - self.lamp.down[row]) * shutter.exposure;
            let runs = out
                .chunks_mut(NOISE_RUN)
                .zip(light.chunks(NOISE_RUN))
                .zip(haze.chunks(NOISE_RUN))
                .zip(self.lamp.across.chunks(NOISE_RUN));
            for (((out, light), haze), across) in runs {
                random = super::mix(random, 0);
                let start = random as usize & (NOISE - 1);
                let start = start.min(NOISE - NOISE_RUN);
                let noise = &self.noise[start..start + out.len()];
                for ((((out, light), haze), across), noise) in
                    out.iter_mut().zip(light).zip(haze).zip(across).zip(noise)
                {
                    let electrons =
                        (lit_row - across * shutter.exposure) * (BACKGROUND + light + haze);
                    // Shot noise of so many electrons is as good as normal.
                    let deviation = (electrons + READ_NOISE * READ_NOISE).sqrt();
                    let value = DARK + grey * (electrons + deviation * noise) + 0.5;
                    *out = value.clamp(0.0, WHITE) as i32 as u16;
                }
            }
        }
        pixels
    }

    /// Numbers what is visible from 1 and drops specks.
    fn truth(&self, mut labels: Vec<u32>, visible: &[u32]) -> LabelImage {
        let mut next = 0;
        let renumbered: Vec<u32> = visible
            .iter()
            .enumerate()
            .map(|(label, &pixels)| {
                if label == 0 || pixels < SMALLEST_VISIBLE {
                    return 0;
                }
                next += 1;
                next
            })
            .collect();
        for label in &mut labels {
            *label = renumbered[*label as usize];
        }
        let side = |length: usize| u32::try_from(length).expect("made from a u32");
        LabelImage::new(side(self.width), side(self.height), labels)
            .expect("one label was made for each pixel")
    }
}

/// Columns (or rows) that `centre ± reach` covers, of `length` of them.
fn within(centre: f32, reach: f32, length: usize) -> Option<(usize, usize)> {
    let from = (centre - reach).floor().max(0.0) as usize;
    let to = (centre + reach).ceil().max(-1.0) + 1.0;
    let to = (to as usize).min(length);
    (from < to).then_some((from, to))
}

/// Light far out of focus, on a coarse grid.
struct Haze {
    columns: usize,
    rows: usize,
    /// Radius of the box blur, of which three passes are as good as a Gaussian.
    radius: usize,
    cells: Vec<f32>,
    spare: Vec<f32>,
}

impl Haze {
    fn new(width: usize, height: usize, spread: f32) -> Self {
        let (columns, rows) = (width.div_ceil(COARSE) + 1, height.div_ceil(COARSE) + 1);
        // The variance of three boxes of radius r is r(r + 1).
        let variance = (spread / COARSE as f32).powi(2);
        let radius = (((1.0 + 4.0 * variance).sqrt() - 1.0) / 2.0).round().max(1.0) as usize;
        let cells = vec![0.0; columns * rows];
        Self { columns, rows, radius, spare: cells.clone(), cells }
    }

    fn clear(&mut self) {
        self.cells.fill(0.0);
    }

    /// Adds `light` (electrons, over all its pixels) around `(x, y)`.
    fn add(&mut self, x: f32, y: f32, light: f32) {
        let cell =
            |at: f32, count: usize| ((at / COARSE as f32).round().max(0.0) as usize).min(count - 1);
        let at = cell(y, self.rows) * self.columns + cell(x, self.columns);
        self.cells[at] += light * std::f32::consts::PI / (COARSE * COARSE) as f32;
    }

    fn spread(&mut self) {
        for _ in 0..3 {
            box_blur(&self.cells, &mut self.spare, self.columns, self.rows, self.radius);
            box_blur(&self.spare, &mut self.cells, self.rows, self.columns, self.radius);
        }
    }

    /// The haze along one row of pixels, interpolated.
    fn line(&self, row: usize, line: &mut [f32]) {
        let above = row / COARSE;
        let down = (row % COARSE) as f32 / COARSE as f32;
        let cell = |column: usize| {
            let at = above * self.columns + column;
            let below = (at + self.columns).min(self.cells.len() - 1);
            self.cells[at] * (1.0 - down) + self.cells[below] * down
        };
        let mut left = cell(0);
        for (column, run) in line.chunks_mut(COARSE).enumerate() {
            let right = cell(column + 1);
            for (at, value) in run.iter_mut().enumerate() {
                *value = left + (right - left) * (at as f32 / COARSE as f32);
            }
            left = right;
        }
    }
}

/// Averages along rows of `columns` values and writes the result transposed, so that two
/// calls blur both ways. Beyond the edge the values go on as at the edge.
fn box_blur(from: &[f32], to: &mut [f32], columns: usize, rows: usize, radius: usize) {
    let share = 1.0 / (2 * radius + 1) as f32;
    for (row, line) in from.chunks_exact(columns).enumerate() {
        for column in 0..columns {
            let sum: f32 = (0..=2 * radius)
                .map(|offset| line[(column + offset).saturating_sub(radius).min(columns - 1)])
                .sum();
            to[column * rows + row] = sum * share;
        }
    }
}

/// Chromatin: periodic noise with grains of some texels, mean 0, deviation 1.
fn texture(rng: &mut ChaCha8Rng) -> Vec<f32> {
    let white: Vec<f32> = (0..TEXTURE * TEXTURE).map(|_| rng.random::<f32>() - 0.5).collect();
    let blurred = |radius: usize| {
        let mut values = white.clone();
        for _ in 0..4 {
            // Transposed at each pass, as in `box_blur`, but periodic.
            let mut next = vec![0.0; values.len()];
            for row in 0..TEXTURE {
                for column in 0..TEXTURE {
                    next[column * TEXTURE + row] = (0..=2 * radius)
                        .map(|by| values[row * TEXTURE + (column + by) % TEXTURE])
                        .sum::<f32>();
                }
            }
            values = next;
        }
        standardised(values)
    };
    let (fine, coarse) = (blurred(1), blurred(4));
    standardised(fine.iter().zip(&coarse).map(|(fine, coarse)| fine + 0.9 * coarse).collect())
}

fn standardised(mut values: Vec<f32>) -> Vec<f32> {
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
    let scale = 1.0 / variance.sqrt();
    for value in &mut values {
        *value = (*value - mean) * scale;
    }
    values
}

/// Bilinear value of the periodic texture.
fn sample(texture: &[f32], x: f32, y: f32) -> f32 {
    const MASK: usize = TEXTURE - 1;
    // Shifted so that truncation rounds down.
    let (x, y) = (x + 4.0 * TEXTURE as f32, y + 4.0 * TEXTURE as f32);
    let (column, row) = (x as usize, y as usize);
    let (right, down) = (x - column as f32, y - row as f32);
    let at = |row: usize, column: usize| texture[(row & MASK) * TEXTURE + (column & MASK)];
    let above = at(row, column) * (1.0 - right) + at(row, column + 1) * right;
    let below = at(row + 1, column) * (1.0 - right) + at(row + 1, column + 1) * right;
    above * (1.0 - down) + below * down
}

//! Where in a frame there may be objects: elsewhere the network need not look.
//!
//! It errs on one side: what is called empty has nothing that rises above its surroundings,
//! while what has signal may well turn out to be background (dust, glow, a steep fall of the
//! light).
//!
//! A cell of 16×16 pixels has signal where it, or a cell of 8×8 or 4×4 in it, is on average
//! brighter than the background around it: than the darkest of the 3×3 cells of 16×16 about
//! it, by more than noise makes cells of that size differ. That is measured at each of the three
//! sizes ([`super::noise`]), so that it does not matter how far the noise is correlated. Small cells
//! find small objects, large ones find dim objects under noise. Compared with what is near, light
//! that falls off towards the corners is no signal, and neither is a background that is high as a
//! whole; dark objects make their surroundings signal.
//!
//! The network sees objects in the noise of a tile that runs because a nucleus is in it. An object
//! whose pixels are on average no brighter than noise could make them is therefore left out.

use std::ops::Range;

use super::noise;
use super::scale::{Plane, Scale};
use reticle_domain::object::Object;

/// Edge of a cell, in pixels.
const CELL: usize = 16;

/// Edge of the smallest cells in it, in pixels.
const QUARTER: usize = CELL / 4;

/// How far above its background the faintest signal is, where there is no noise. Of all objects
/// that the shipped network finds in `val` and in a quarter of `train`, the faintest rises to four
/// times the limit that this and [`SIGMAS`] set, and of all pixels that it takes for foreground,
/// the faintest has 1.8 times the limit within 32 pixels.
const FAINTEST: f32 = 0.02;

/// How many standard deviations of a cell's mean above its background are no longer white noise. A
/// frame of 1024² has 65,536 of the smallest cells.
const SIGMAS: f32 = 5.0;

/// The same of noise that is twice as strong in that mean as white noise would be, or stronger:
/// compression and smoothing make few but strong spots. From 7 on the empty fields of
/// `tests/correlated_noise` have none.
const CORRELATED_SIGMAS: f32 = 8.0;

/// How far the darkest of 3×3 cells lies below their mean by noise alone, at most.
const DARKEST_SIGMAS: f32 = 2.0;

/// How far the darkest of all cells of 4×4 about an object lies below their mean by noise alone.
const DARKEST_QUARTER_SIGMAS: f32 = 3.0;

/// Noise is at most this by normalisation ([`super::normalise::Normalisation::min_span_sigmas`]);
/// what is measured as more is texture.
const NOISIEST: f32 = 0.1;

/// The same in the mean of a cell, however correlated it is ([`noise::visible_sigma`]).
const NOISIEST_CELL: f32 = NOISIEST / 2.0;

/// Cells as bright as this have signal, whatever is around: inside an object that is larger than
/// a tile there is no background to compare with. The mean of a frame of pure noise is at 0.23.
const BRIGHT: f32 = 0.4;

/// Pixels count as no brighter than this, so that one hot pixel in the noise of an empty frame is
/// not yet signal.
const CLIPPED: f32 = 0.5;

/// Noise in the mean of a cell of 16×16 is at most this share of that in a cell of 4×4. White it is
/// 0.25, blurred by 3 pixels 0.55, and at most 0.5 where every row has an offset of its own.
const FALLS: f32 = 0.65;

/// Where objects crowd it is at least this share, for they are as large as these cells.
const STAYS: f32 = 0.9;

/// What is measured is noise rather than objects, where the share is less: objects are looked at one by one
/// only there.
const IS_NOISE: f32 = 0.75;

/// Pixels whose noise is looked at, about: enough for a median.
const NOISE_PIXELS: usize = 16_384;

/// Which cells of a plane have signal.
pub(super) struct Signal {
    /// Cells a row.
    columns: usize,
    /// By row.
    cells: Vec<bool>,
    /// What objects are compared with; nothing where it is not to be looked at.
    ground: Option<Ground>,
    /// At which it is asked for.
    scale: Scale,
}

impl Signal {
    /// That of `plane`, in one pass over its pixels.
    pub(super) fn of(plane: &Plane) -> Self {
        let quarters = Means::of(plane);
        let halves = quarters.coarser();
        let whole = halves.coarser();
        let (noise, is_noise) = noise_at([&quarters, &halves, &whole], white_sigma(plane));
        let levels = [(&quarters, noise[0]), (&halves, noise[1]), (&whole, noise[2])];
        let mut cells = Vec::with_capacity(whole.values.len());
        for row in 0..whole.rows {
            for column in 0..whole.columns {
                let background = whole.darkest_near(row, column) + DARKEST_SIGMAS * noise[2].sigma;
                let rises = |(means, noise): (&Means, Noise)| {
                    means.any_in_cell(row, column, |mean, times| {
                        mean > background + FAINTEST.max(noise.limit * times)
                    })
                };
                let is_bright = whole.values[row * whole.columns + column] > BRIGHT;
                cells.push(is_bright || levels.into_iter().rev().any(rises));
            }
        }
        let columns = whole.columns;
        let ground = is_noise.then_some(Ground { quarters, whole, noise });
        Self { columns, cells, ground, scale: Scale::NATIVE }
    }

    /// Whether an object of the frame, of this mean brightness after normalisation, rises above what is
    /// around it by more than noise does.
    pub(super) fn shows(&self, object: &Object, mean: f32) -> bool {
        self.ground.as_ref().is_none_or(|ground| ground.shows(object, mean))
    }

    /// The pixels of the plane itself that make those of `range` at another scale.
    fn native(&self, range: Range<usize>) -> Range<usize> {
        if self.scale == Scale::NATIVE {
            return range;
        }
        let factor = self.scale.factor();
        let first = (range.start as f32 / factor) as usize;
        let end = (range.end as f32 / factor).ceil() as usize;
        // Interpolation takes two neighbours along.
        first.saturating_sub(2)..end + 2
    }

    /// Signal in every cell of `plane`, without looking.
    pub(super) fn everywhere(plane: &Plane) -> Self {
        let columns = plane.width.div_ceil(CELL);
        let cells = vec![true; columns * plane.height.div_ceil(CELL)];
        Self { columns, cells, ground: None, scale: Scale::NATIVE }
    }

    /// Whether there is any.
    pub(super) fn anywhere(&self) -> bool {
        self.cells.contains(&true)
    }

    /// The same for whoever asks in pixels of the plane at `scale`. Looked for there, enlarged noise
    /// would not look like noise.
    pub(super) fn at(&self, scale: Scale) -> Self {
        Self { columns: self.columns, cells: self.cells.clone(), ground: None, scale }
    }

    /// Whether there is any in a cell of which a pixel lies in `rows` and `columns`, which may
    /// go beyond the plane.
    pub(super) fn within(&self, rows: Range<usize>, columns: Range<usize>) -> bool {
        let (rows, columns) = (self.native(rows), self.native(columns));
        let last = columns.end.div_ceil(CELL).min(self.columns);
        self.cells
            .chunks_exact(self.columns)
            .take(rows.end.div_ceil(CELL))
            .skip(rows.start / CELL)
            .any(|row| row[columns.start / CELL..last].contains(&true))
    }
}

/// What there is beside objects.
struct Ground {
    /// Means over the smallest cells.
    quarters: Means,
    /// Means over the largest.
    whole: Means,
    /// As [`noise_at`] has it.
    noise: [Noise; 3],
}

impl Ground {
    fn shows(&self, object: &Object, mean: f32) -> bool {
        if mean > BRIGHT {
            return true;
        }
        let [top, left, bottom, right] =
            [object.bbox_0, object.bbox_1, object.bbox_2, object.bbox_3];
        let around = |from: u32, to: u32| (from as usize).saturating_sub(CELL)..to as usize + CELL;
        let (rows, columns) = (around(top, bottom), around(left, right));
        // Between objects that nearly touch there are only small cells of background.
        let background =
            (self.whole.darkest(&rows, &columns) + DARKEST_SIGMAS * self.noise[2].sigma).min(
                self.quarters.darkest(&rows, &columns)
                    + DARKEST_QUARTER_SIGMAS * self.noise[0].sigma,
            );
        // The cell that is as large as the object, or the largest smaller one.
        let level =
            [QUARTER, CELL / 2, CELL].iter().rposition(|edge| edge * edge <= object.area as usize);
        mean > background + self.noise[level.unwrap_or(0)].limit
    }
}

/// The noise in means over cells of one size.
#[derive(Clone, Copy)]
struct Noise {
    /// Standard deviation.
    sigma: f32,
    /// How far a mean rises above its background by it, at most.
    limit: f32,
}

/// The noise in means over cells of 4×4, 8×8 and 16×16 pixels, where that of
/// single pixels that are not correlated is `white`; and whether it falls with the size of
/// cells as noise does.
///
/// Means over cells of twice the edge have half of the noise if it is not correlated, and no more
/// than before if it is; between these two it is as measured. In a crowded frame the large cells
/// have no background to measure it by. What is not as strong everywhere, or does not fall with the
/// size of cells, counts less, down to white noise: it is objects, or the texture of tissue.
fn noise_at(levels: [&Means; 3], white: f32) -> ([Noise; 3], bool) {
    let measured = levels.map(|means| {
        let read = |rows: Range<usize>, columns: Range<usize>, values: &mut Vec<f32>| {
            for row in rows {
                values.extend(&means.values[row * means.columns..][columns.clone()]);
            }
        };
        noise::measure((means.columns, means.rows), noise::BLOCK / means.edge, read)
    });
    let [small, _, large] = measured.map(|level| level.median);
    let falls = large < IS_NOISE * small;
    let share =
        measured[0].evenness * noise::ramp(-STAYS, -FALLS, -large / small.max(f32::EPSILON));
    let mut white_in_mean = (white / QUARTER as f32).max(f32::EPSILON);
    let (mut least, mut most) = (white / QUARTER as f32, NOISIEST_CELL);
    let noise = measured.map(|level| {
        most = (share * level.median).min(most).max(least);
        least = most / 2.0;
        // From 0 for white noise to 1.
        let correlated = noise::ramp(1.0, 2.0, most / white_in_mean);
        white_in_mean /= 2.0;
        let sigmas = SIGMAS + (CORRELATED_SIGMAS - SIGMAS) * correlated;
        Noise { sigma: most, limit: sigmas * most }
    });
    (noise, falls)
}

/// Means over square cells of a plane; at its right and lower edge, of what is there.
struct Means {
    /// Edge of a cell, in pixels.
    edge: usize,
    /// Of the plane, in pixels.
    width: usize,
    /// Of the plane, in pixels.
    height: usize,
    columns: usize,
    rows: usize,
    values: Vec<f32>,
}

impl Means {
    /// Over the smallest cells.
    fn of(plane: &Plane) -> Self {
        let (width, height) = (plane.width, plane.height);
        let mut means = Self::new(QUARTER, width, height);
        let mut sums = vec![0.0_f32; width];
        for (row, band) in plane.values.chunks(QUARTER * width).enumerate() {
            sums.fill(0.0);
            for line in band.chunks_exact(width) {
                for (sum, value) in sums.iter_mut().zip(line) {
                    *sum += value.min(CLIPPED);
                }
            }
            let rows = (band.len() / width) as f32;
            let out = &mut means.values[row * means.columns..][..means.columns];
            let (whole, rest) = sums.as_chunks::<QUARTER>();
            for (out, [a, b, c, d]) in out.iter_mut().zip(whole) {
                *out = ((a + b) + (c + d)) / (rows * QUARTER as f32);
            }
            if !rest.is_empty() {
                out[whole.len()] = rest.iter().sum::<f32>() / (rows * rest.len() as f32);
            }
        }
        means
    }

    fn new(edge: usize, width: usize, height: usize) -> Self {
        let (columns, rows) = (width.div_ceil(edge), height.div_ceil(edge));
        Self { edge, width, height, columns, rows, values: vec![0.0; columns * rows] }
    }

    /// Over cells of twice the edge.
    fn coarser(&self) -> Self {
        let mut coarser = Self::new(2 * self.edge, self.width, self.height);
        for row in 0..coarser.rows {
            for column in 0..coarser.columns {
                let (mut sum, mut pixels) = (0.0, 0.0);
                for finer_row in 2 * row..(2 * row + 2).min(self.rows) {
                    for finer_column in 2 * column..(2 * column + 2).min(self.columns) {
                        let (mean, weight) = self.at(finer_row, finer_column);
                        sum += mean * weight;
                        pixels += weight;
                    }
                }
                coarser.values[row * coarser.columns + column] = sum / pixels;
            }
        }
        coarser
    }

    /// The mean of one cell, and of how many pixels it is.
    fn at(&self, row: usize, column: usize) -> (f32, f32) {
        let along = |index: usize, length: usize| self.edge.min(length - index * self.edge);
        let pixels = along(row, self.height) * along(column, self.width);
        (self.values[row * self.columns + column], pixels as f32)
    }

    /// Whether `rises` is true of any mean within one of the largest cells, which it gets with how many
    /// times the noise of a whole cell it has: more at the edges of the plane.
    fn any_in_cell(&self, row: usize, column: usize, rises: impl Fn(f32, f32) -> bool) -> bool {
        let times = CELL / self.edge;
        let (rows, columns) =
            (row * times..(row + 1) * times, column * times..(column + 1) * times);
        let is_whole = rows.end * self.edge <= self.height && columns.end * self.edge <= self.width;
        if is_whole {
            return (rows.start..rows.end).any(|row| {
                let means = &self.values[row * self.columns..][columns.clone()];
                // All of them: without a way out in between it is done for several at once.
                means.iter().fold(false, |any, mean| any | rises(*mean, 1.0))
            });
        }
        let columns = columns.start..columns.end.min(self.columns);
        (rows.start..rows.end.min(self.rows)).any(|row| {
            columns.clone().any(|column| {
                let (mean, pixels) = self.at(row, column);
                rises(mean, self.edge as f32 / pixels.sqrt())
            })
        })
    }

    /// The least of the cells that lie in these pixels, which may go beyond the plane.
    fn darkest(&self, rows: &Range<usize>, columns: &Range<usize>) -> f32 {
        let cells = |pixels: &Range<usize>, count: usize| {
            pixels.start / self.edge..pixels.end.div_ceil(self.edge).min(count)
        };
        let columns = cells(columns, self.columns);
        cells(rows, self.rows)
            .flat_map(|row| &self.values[row * self.columns..][columns.clone()])
            .copied()
            .fold(f32::INFINITY, f32::min)
    }

    /// The least of the 3×3 around and with a cell.
    fn darkest_near(&self, row: usize, column: usize) -> f32 {
        let columns = column.saturating_sub(1)..(column + 2).min(self.columns);
        (row.saturating_sub(1)..(row + 2).min(self.rows))
            .flat_map(|row| &self.values[row * self.columns..][columns.clone()])
            .copied()
            .fold(f32::INFINITY, f32::min)
    }
}

/// Standard deviation of white noise, measured as for normalisation ([`super::normalise`]), in
/// fewer rows.
fn white_sigma(plane: &Plane) -> f32 {
    let step = (plane.values.len() / NOISE_PIXELS).max(1);
    let mut differences: Vec<f32> = plane
        .values
        .chunks_exact(plane.width)
        .step_by(step)
        .flat_map(|line| line.windows(3))
        .map(|near| (near[1] - 0.5 * (near[0] + near[2])).abs())
        .collect();
    if differences.is_empty() {
        return 0.0;
    }
    let middle = differences.len() / 2;
    let (_, median, _) = differences.select_nth_unstable_by(middle, f32::total_cmp);
    (*median / 0.6745 / 1.5_f32.sqrt()).min(NOISIEST)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, Normal};

    use super::*;

    /// As an empty well comes out of normalisation: background at 0.23 and as much noise as there
    /// can be.
    fn noise(width: usize, height: usize, sigma: f32) -> Plane {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let noise = Normal::new(0.23, sigma).unwrap();
        let values = (0..width * height).map(|_| noise.sample(&mut rng)).collect();
        Plane { width, height, values }
    }

    /// Adds `by` to the pixels of a square.
    fn raise(plane: &mut Plane, top: usize, left: usize, edge: usize, by: f32) {
        for y in top..top + edge {
            for value in &mut plane.values[y * plane.width + left..][..edge] {
                *value += by;
            }
        }
    }

    fn share(signal: &Signal) -> f32 {
        let hits = signal.cells.iter().filter(|cell| **cell).count();
        hits as f32 / signal.cells.len() as f32
    }

    #[test]
    fn noise_alone_is_empty() {
        for (width, height) in [(256, 256), (1024, 1024), (333, 215)] {
            for sigma in [0.0, 0.01, 0.1] {
                let found = share(&Signal::of(&noise(width, height, sigma)));
                assert!(found < 0.005, "{width}×{height}, {sigma}: {found}");
            }
        }
    }

    #[test]
    fn the_noise_is_measured() {
        for sigma in [0.01, 0.05, 0.09] {
            let measured = white_sigma(&noise(512, 512, sigma));
            assert!((measured / sigma - 1.0).abs() < 0.05, "{measured} for {sigma}");
        }
    }

    #[test]
    fn a_dim_object_of_five_pixels_is_signal_wherever_it_lies() {
        for at in 96..112 {
            let mut plane = noise(250, 190, 0.01);
            raise(&mut plane, at, at + 3, 5, 0.1);
            assert!(Signal::of(&plane).within(at..at + 5, at + 3..at + 8), "at {at}");
        }
    }

    #[test]
    fn an_object_as_faint_as_its_noise_is_signal() {
        for at in [0, 7, 100, 170] {
            let mut plane = noise(250, 190, 0.1);
            raise(&mut plane, at, at, 20, 0.1);
            assert!(Signal::of(&plane).within(at..at + 20, at..at + 20), "at {at}");
        }
    }

    #[test]
    fn a_narrow_object_at_the_frames_last_pixels_is_signal() {
        for (width, height) in [(256, 256), (257, 250), (191, 203)] {
            let mut plane = noise(width, height, 0.01);
            for y in height - 12..height {
                plane.values[y * width + width - 2..][..2].fill(0.4);
            }
            assert!(Signal::of(&plane).within(height - 12..height, width - 2..width));
        }
    }

    #[test]
    fn the_inside_of_an_object_larger_than_a_tile_is_signal_everywhere() {
        let mut plane = noise(600, 600, 0.01);
        raise(&mut plane, 50, 50, 500, 0.6);
        let signal = Signal::of(&plane);
        assert!((100..500).all(|at| signal.within(at..at + 1, at..at + 1)));
        assert!(!signal.within(0..16, 0..16));
    }

    #[test]
    fn a_dark_object_makes_what_is_around_it_signal() {
        let mut plane = noise(256, 256, 0.01);
        raise(&mut plane, 100, 100, 20, -0.2);
        assert!(Signal::of(&plane).within(90..130, 90..130));
    }

    #[test]
    fn light_that_falls_off_slowly_is_empty_and_a_steep_edge_is_signal() {
        let mut plane = noise(1024, 1024, 0.01);
        for (at, value) in plane.values.iter_mut().enumerate() {
            *value += 0.1 * (at % 1024) as f32 / 1024.0;
        }
        assert!(!Signal::of(&plane).anywhere());
        raise(&mut plane, 0, 0, 512, 0.1);
        let signal = Signal::of(&plane);
        assert!((0..512).all(|y| signal.within(y..y + 1, 480..512)));
        assert!(!signal.within(600..1024, 0..1024));
    }

    #[test]
    fn what_is_asked_at_another_scale_is_where_it_is_at_the_frames_own() {
        let mut plane = noise(320, 320, 0.05);
        raise(&mut plane, 160, 40, 10, 0.5);
        for scale in [Scale::for_diameter(10.0, 20.0), Scale::for_diameter(80.0, 20.0)] {
            let signal = Signal::of(&plane).at(scale);
            let there = |at: f32| (at * scale.factor()) as usize;
            assert!(signal.within(there(160.0)..there(170.0), there(40.0)..there(50.0)));
            assert!(!signal.within(there(200.0)..there(320.0), there(80.0)..there(320.0)));
        }
    }

    #[test]
    fn one_hot_pixel_in_noise_is_not_yet_signal() {
        for hot in 0..10 {
            let mut plane = noise(256, 256, 0.1);
            plane.values[hot * 6007] = 40.0;
            assert!(!Signal::of(&plane).anywhere(), "{hot}");
        }
    }

    #[test]
    fn a_part_of_a_plane_has_the_signal_of_every_cell_that_it_touches() {
        let plane = Plane { width: 100, height: 50, values: vec![0.0; 5000] };
        let mut signal = Signal::of(&plane);
        assert!(!signal.anywhere() && Signal::everywhere(&plane).within(49..50, 99..100));
        signal.cells[2 * signal.columns + 3] = true;
        assert!(signal.within(47..48, 63..64) && signal.within(32..33, 48..49));
        assert!(!signal.within(48..50, 63..64) && !signal.within(47..48, 64..65));
        assert!(signal.within(32..33, 0..49) && !signal.within(0..32, 0..200));
        assert!(!signal.within(0..200, 0..48) && signal.within(0..200, 63..400));
    }
}

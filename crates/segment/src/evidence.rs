//! What speaks for or against a picture being of the kind that its model knows, as numbers.
//!
//! All of it comes from what segmentation has anyway: the plane that the network got, its maps,
//! and the objects. The picture is looked at in cells of a fifth of an object's diameter, so that a
//! pass over the pixels is the only work that grows with them, and the same sample says the
//! same through another objective. [`super::unlike`] judges by these numbers.

use super::instances::Maps;
use super::scale::{Plane, Scale};
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;

/// Edge of a cell in pixels at the model's scale, of whose objects most are about 20 wide.
const CELL: usize = 4;

/// Half the edge, in cells, of the square that counts as the surroundings of a cell: twice the
/// diameter of an object.
const AROUND: usize = 5;

/// How many standard deviations of the cells' noise a spot rises that is there for sure: the wide tails of
/// real noise stay below.
const UNSEEN_SIGMAS: f32 = 12.0;

/// Bins of the histogram of cells, over the range of the plane.
const BINS: usize = 384;

/// Strips across a picture that are compared when stripes are looked for.
const STRIPS: usize = 4;

/// Objects whose nearest neighbour is looked for at most.
const NEIGHBOURS_OF: usize = 256;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Objects found.
    pub objects: u32,
    /// Cells of the picture.
    pub cells: u32,
    /// Which way from the middle the wider tail of the cells' values lies: -1 (dark) to 1 (bright).
    pub tail: f32,
    /// How far apart the 2nd and 98th percentile of the cells lie, in spans of the plane.
    pub contrast: f32,
    /// Share of what stands out from its surroundings that does so by being dark, 0 to 1.
    pub dark_share: f32,
    /// How alike the network's foreground and the cells' values are: -1 to 1.
    pub agreement: f32,
    /// Focus score.
    pub focus: f32,
    /// Share of the foreground of which the network is sure, 0 to 1.
    pub sure: f32,
    /// Share of the picture that is foreground.
    pub foreground: f32,
    /// How alike distant strips of the picture are along rows and columns, -1 to 1: the larger.
    pub stripes: f32,
    /// The smaller of the two.
    pub both_ways: f32,
    /// How strong lines along that direction are, in spans of the plane.
    pub stripe_height: f32,
    /// Spread of the objects' areas over their mean.
    pub area_spread: f32,
    /// Spread of the distances to the nearest neighbour over their mean.
    pub distance_spread: f32,
    /// Spots that rise far above the noise and are not among the objects.
    pub unseen: u32,
    /// How many times as high as those the objects rise.
    pub unseen_depth: f32,
    /// Share of objects of less than two fifths of the typical diameter.
    pub small: f32,
}

/// What is looked at.
pub struct View<'a> {
    /// What the network got, at the frame's own scale.
    pub plane: &'a Plane,
    /// The scale at which it looked.
    pub scale: Scale,
    /// What it said.
    pub maps: &'a Maps,
    /// What was found.
    pub labels: &'a LabelImage,
    /// The same, measured.
    pub objects: &'a [Object],
    /// Focus score.
    pub focus: f32,
    /// Grey value of the background, and of the plane's 1.
    pub grey: (f32, f32),
}

/// A picture in cells.
struct Cells {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

/// Each cell with its neighbours, and its surroundings.
struct Smooth {
    near: Vec<f32>,
    around: Vec<f32>,
}

impl Smooth {
    fn of(picture: &Cells) -> Self {
        Self { near: picture.blurred(1), around: picture.blurred(AROUND) }
    }
}

impl Evidence {
    /// Collects it.
    pub fn of(view: &View<'_>) -> Self {
        let edge = ((CELL as f32 / view.scale.factor()).round() as usize).max(1);
        let picture = Cells::of(&view.plane.values, view.plane.width, edge);
        let mut evidence = Self {
            objects: view.objects.len() as u32,
            focus: view.focus,
            cells: picture.values.len() as u32,
            ..Self::default()
        };
        if picture.width < 3 || picture.height < 3 {
            return evidence;
        }
        evidence.look_at_values(&picture);
        let smooth = Smooth::of(&picture);
        evidence.look_at_spots(&picture, &smooth);
        evidence.look_at_foreground(view.maps, &picture);
        evidence.look_at_stripes(view.plane);
        evidence.look_at_objects(view);
        evidence.look_for_unseen(view, (&picture, &smooth), edge);
        evidence
    }

    /// The same of a picture alone, without a network.
    pub fn of_picture(plane: &Plane, scale: Scale) -> Self {
        let edge = ((CELL as f32 / scale.factor()).round() as usize).max(1);
        let picture = Cells::of(&plane.values, plane.width, edge);
        let mut evidence = Self { cells: picture.values.len() as u32, ..Self::default() };
        if picture.width >= 3 && picture.height >= 3 {
            evidence.look_at_values(&picture);
            evidence.look_at_spots(&picture, &Smooth::of(&picture));
        }
        evidence
    }

    fn look_at_values(&mut self, picture: &Cells) {
        let histogram = histogram(&picture.values);
        let at = |share: f32| quantile(&histogram, picture.values.len(), share);
        let (low, middle, high) = (at(0.02), at(0.5), at(0.98));
        self.contrast = high - low;
        if self.contrast > 0.0 {
            self.tail = (high + low - 2.0 * middle) / self.contrast;
        }
    }

    /// What stands out from its surroundings, and which way.
    fn look_at_spots(&mut self, picture: &Cells, smooth: &Smooth) {
        let Smooth { near, around } = smooth;
        let (mut bright, mut dark) = (0.0_f64, 0.0_f64);
        // Near the border the surroundings lie on one side, and light that falls off is dark there.
        let margin = if picture.width.min(picture.height) > 4 * AROUND { AROUND } else { 0 };
        let lines = near.chunks_exact(picture.width).zip(around.chunks_exact(picture.width));
        let inside =
            lines.skip(margin).take(picture.height - 2 * margin).flat_map(|(near, around)| {
                let inside = margin..picture.width - margin;
                near[inside.clone()].iter().zip(&around[inside])
            });
        for (near, around) in inside {
            let rise = f64::from(near - around);
            if rise > 0.0 { bright += rise.powi(3) } else { dark -= rise.powi(3) }
        }
        if bright + dark > 0.0 {
            self.dark_share = (dark / (bright + dark)) as f32;
        }
    }

    fn look_at_foreground(&mut self, maps: &Maps, picture: &Cells) {
        let foreground = Cells::of(&maps.foreground, maps.width, CELL);
        self.foreground =
            foreground.values.iter().sum::<f32>() / foreground.values.len().max(1) as f32;
        let (mut inside, mut sure) = (0_u32, 0_u32);
        for value in &maps.foreground {
            inside += u32::from(*value > 0.3);
            sure += u32::from(*value > 0.9);
        }
        self.sure = sure as f32 / inside.max(1) as f32;
        if (foreground.width, foreground.height) == (picture.width, picture.height) {
            self.agreement = correlation(&foreground.values, &picture.values);
        }
    }

    fn look_at_stripes(&mut self, plane: &Plane) {
        let [rows, columns] = profiles(plane).map(|strips| lines(&strips));
        let (more, less) = if rows.0 > columns.0 { (rows, columns) } else { (columns, rows) };
        (self.stripes, self.stripe_height) = more;
        self.both_ways = less.0;
    }

    fn look_at_objects(&mut self, view: &View<'_>) {
        let whole: Vec<&Object> =
            view.objects.iter().filter(|object| !object.touches_border).collect();
        if whole.len() < 2 {
            return;
        }
        self.area_spread = spread(whole.iter().map(|object| object.area as f32));
        let apart = |a: &Object, b: &Object| {
            (a.centroid_0 - b.centroid_0).powi(2) + (a.centroid_1 - b.centroid_1).powi(2)
        };
        let some = &whole[..whole.len().min(NEIGHBOURS_OF)];
        self.distance_spread = spread(some.iter().map(|object| {
            let others = some.iter().filter(|other| other.label != object.label);
            let nearest = others.map(|other| apart(object, other)).min_by(f64::total_cmp);
            nearest.unwrap_or(0.0).sqrt() as f32
        }));
        let mut areas: Vec<u32> = view.objects.iter().map(|object| object.area).collect();
        areas.sort_unstable();
        // The typical object is the one in the middle of all pixels of objects, so that many specks do
        // not make themselves typical.
        let half = areas.iter().map(|area| u64::from(*area)).sum::<u64>() / 2;
        let mut below = 0_u64;
        let typical = areas.iter().copied().find(|area| {
            below += u64::from(*area);
            below >= half
        });
        let typical = typical.unwrap_or(0) as f32;
        let small = areas.iter().filter(|area| (**area as f32) < 0.16 * typical).count();
        self.small = small as f32 / areas.len() as f32;
    }

    /// Spots beside the objects, in a picture in which the objects are far brighter.
    fn look_for_unseen(
        &mut self,
        view: &View<'_>,
        (picture, smooth): (&Cells, &Smooth),
        edge: usize,
    ) {
        let seen = view.labels.labels();
        let width = view.labels.width() as usize;
        let height = view.labels.height() as usize;
        let is_seen = |column: usize, row: usize| {
            let near = |at: usize, limit: usize| {
                (at.saturating_sub(2) * edge..((at + 3) * edge).min(limit))
                    .step_by(edge.div_ceil(2))
            };
            near(row, height).any(|y| near(column, width).any(|x| seen[y * width + x] != 0))
        };
        let Smooth { near, around } = smooth;
        // Where there is no noise, the picture's own steps are all that is small.
        let (low, high) = view.grey;
        let step = 3.0 / (high - low).max(1.0);
        let limit = (UNSEEN_SIGMAS * picture.noise()).max(step);
        let mut heights = Vec::new();
        picture.each_peak(near, around, limit, |column, row, rise| {
            if !is_seen(column, row) {
                heights.push(rise);
            }
        });
        self.unseen = heights.len() as u32;
        if heights.is_empty() || view.objects.is_empty() {
            return;
        }
        let middle = heights.len() / 2;
        let (_, median, _) = heights.select_nth_unstable_by(middle, f32::total_cmp);
        let brightest =
            view.objects.iter().map(|object| object.intensity_mean as f32).fold(0.0, f32::max);
        self.unseen_depth = (brightest - low) / (high - low).max(1.0) / median.max(1e-6);
    }
}

impl Cells {
    /// Means over `edge × edge` of the values of a picture of `width`; of what is there at its edges.
    fn of(values: &[f32], width: usize, edge: usize) -> Self {
        let columns = width.div_ceil(edge);
        let mut means = Vec::with_capacity(values.len() / edge / edge + columns);
        let mut sums = vec![0.0_f32; columns];
        for band in values.chunks(edge * width) {
            sums.fill(0.0);
            let rows = band.len() / width;
            for line in band.chunks_exact(width) {
                for (sum, pixels) in sums.iter_mut().zip(line.chunks(edge)) {
                    *sum += pixels.iter().sum::<f32>();
                }
            }
            let last = width - (columns - 1) * edge;
            means.extend(sums.iter().enumerate().map(|(column, sum)| {
                let wide = if column + 1 == columns { last } else { edge };
                sum / (rows * wide) as f32
            }));
        }
        let height = means.len() / columns.max(1);
        Self { width: columns, height, values: means }
    }

    /// Means over squares of `2 · reach + 1` cells; of what is there at the edges.
    fn blurred(&self, reach: usize) -> Vec<f32> {
        let along = |values: &[f32], width: usize, height: usize| {
            // Written across, so that a second call turns it back.
            let mut out = vec![0.0; values.len()];
            for (y, line) in values.chunks_exact(width).enumerate() {
                let mut sum: f32 = line[..reach.min(width)].iter().sum();
                for x in 0..width {
                    if x + reach < width {
                        sum += line[x + reach];
                    }
                    if x > reach {
                        sum -= line[x - reach - 1];
                    }
                    let count = (x + reach + 1).min(width) - x.saturating_sub(reach);
                    out[x * height + y] = sum / count as f32;
                }
            }
            out
        };
        let turned = along(&self.values, self.width, self.height);
        along(&turned, self.height, self.width)
    }

    /// Hands out column, row and rise of cells that stand out from their surroundings by more than `limit`, and
    /// more than their neighbours.
    fn each_peak(
        &self,
        near: &[f32],
        around: &[f32],
        limit: f32,
        mut found: impl FnMut(usize, usize, f32),
    ) {
        let width = self.width;
        for y in 1..self.height - 1 {
            for x in 1..width - 1 {
                let at = y * width + x;
                let own = near[at];
                if own - around[at] <= limit {
                    continue;
                }
                let before = [at - width - 1, at - width, at - width + 1, at - 1];
                let after = [at + 1, at + width - 1, at + width, at + width + 1];
                // Of equal neighbours the first counts.
                if before.iter().all(|&at| own > near[at])
                    && after.iter().all(|&at| own >= near[at])
                {
                    found(x, y, own - around[at]);
                }
            }
        }
    }

    /// Standard deviation of what differs between neighbours, of the quieter half of the picture.
    fn noise(&self) -> f32 {
        let mut differences: Vec<f32> = self
            .values
            .chunks_exact(self.width)
            .flat_map(|line| line.windows(2).map(|pair| (pair[1] - pair[0]).abs()))
            .collect();
        if differences.is_empty() {
            return 0.0;
        }
        let quarter = differences.len() / 4;
        let (_, value, _) = differences.select_nth_unstable_by(quarter, f32::total_cmp);
        // A quarter of |z| of a normal difference lies below 0.3186 of its deviation.
        *value / 0.3186 / std::f32::consts::SQRT_2
    }
}

/// The plane's values go from -1 to 2.
fn bin_of(value: f32) -> usize {
    (((value + 1.0) / 3.0 * BINS as f32) as usize).min(BINS - 1)
}

fn value_of(bin: usize) -> f32 {
    (bin as f32 + 0.5) / BINS as f32 * 3.0 - 1.0
}

fn histogram(values: &[f32]) -> [u32; BINS] {
    let mut counts = [0; BINS];
    for value in values {
        counts[bin_of(*value)] += 1;
    }
    counts
}

fn quantile(histogram: &[u32; BINS], total: usize, share: f32) -> f32 {
    let rank = ((share * total as f32).ceil() as u32).max(1);
    let mut below = 0;
    let bin = histogram.iter().position(|count| {
        below += count;
        below >= rank
    });
    value_of(bin.unwrap_or(BINS - 1))
}

/// Pearson's coefficient; 0 where one does not vary.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let count = a.len().min(b.len()) as f32;
    let mean = |values: &[f32]| values.iter().sum::<f32>() / count;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// Standard deviation over the mean.
fn spread(values: impl Iterator<Item = f32>) -> f32 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        sum += value;
        squares += value * value;
    }
    let mean: f32 = sum / count;
    if mean > 0.0 { (squares / count - mean * mean).max(0.0).sqrt() / mean } else { 0.0 }
}

/// Means along rows, in strips side by side, and along columns, in strips one below the other.
fn profiles(plane: &Plane) -> [Vec<Vec<f32>>; 2] {
    let (width, height) = (plane.width, plane.height);
    let (wide, high) = (width / STRIPS, height / STRIPS);
    if wide == 0 || high == 0 {
        return [vec![Vec::new(); STRIPS], vec![Vec::new(); STRIPS]];
    }
    let mut rows = vec![vec![0.0; height]; STRIPS];
    let mut columns = vec![vec![0.0; width]; STRIPS];
    for (y, line) in plane.values.chunks_exact(width).enumerate() {
        for (strip, pixels) in rows.iter_mut().zip(line.chunks_exact(wide)) {
            strip[y] = sum(pixels) / wide as f32;
        }
        let strip = &mut columns[(y / high).min(STRIPS - 1)];
        for (sum, value) in strip.iter_mut().zip(line) {
            *sum += value;
        }
    }
    for (number, strip) in columns.iter_mut().enumerate() {
        let rows = if number + 1 == STRIPS { height - (STRIPS - 1) * high } else { high };
        strip.iter_mut().for_each(|sum| *sum /= rows as f32);
    }
    [rows, columns]
}

/// The sum of many values, several at once.
fn sum(values: &[f32]) -> f32 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().chain(rest).sum()
}

/// How alike strips are that do not touch, and how strong what they share is: lines go through all
/// of them, objects do not. What changes over more than an eighth of the picture is its light.
fn lines(strips: &[Vec<f32>]) -> (f32, f32) {
    let details: Vec<Vec<f32>> = strips
        .iter()
        .map(|strip| {
            let cells = Cells { width: strip.len(), height: 1, values: strip.clone() };
            if strip.len() < 16 {
                return Vec::new();
            }
            let smooth = cells.blurred((strip.len() / 16).clamp(2, 16));
            strip.iter().zip(smooth).map(|(value, smooth)| value - smooth).collect()
        })
        .collect();
    let pairs = [(0, 2), (1, 3), (0, 3)];
    let alike = pairs.map(|(a, b)| correlation(&details[a], &details[b]));
    let height = pairs.map(|(a, b)| {
        let shared: f32 = details[a].iter().zip(&details[b]).map(|(a, b)| a * b).sum();
        (shared / details[a].len().max(1) as f32).max(0.0).sqrt()
    });
    let least = |values: [f32; 3]| values.into_iter().fold(f32::INFINITY, f32::min);
    (least(alike), least(height))
}

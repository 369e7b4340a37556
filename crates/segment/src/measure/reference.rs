//! The measures of [`super`], pixel by pixel: what the fast way must equal to the last bit.

use super::orientation;
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;

/// Sums over the pixels of one object. Moments are taken about the first pixel seen, which
/// keeps them exact in f64 for any frame.
#[derive(Clone)]
struct Sums {
    origin: (u32, u32),
    area: u64,
    row: i64,
    column: i64,
    row_row: i64,
    column_column: i64,
    row_column: i64,
    intensity: u64,
    intensity_min: u16,
    intensity_max: u16,
    /// Rows `0..1`, columns `2..3`, half open.
    bbox: [u32; 4],
}

/// Measures every object of `labels` on `pixels`, by label from 1.
pub(super) fn objects(labels: &LabelImage, pixels: &Pixels) -> Vec<Object> {
    let (width, height) = (labels.width(), labels.height());
    let mut all: Vec<Option<Sums>> = vec![None; labels.count() as usize];
    for (row, line) in labels.labels().chunks_exact(width as usize).enumerate() {
        for (column, &label) in line.iter().enumerate() {
            if label != 0 {
                let value = pixels.get(row * width as usize + column);
                let sums = all[label as usize - 1]
                    .get_or_insert_with(|| Sums::starting_at(row as u32, column as u32));
                sums.add(row as u32, column as u32, value);
            }
        }
    }
    let mut shape = Shape::default();
    all.into_iter()
        .enumerate()
        .filter_map(|(index, sums)| {
            sums.map(|sums| sums.finish(index as u32 + 1, labels, (width, height), &mut shape))
        })
        .collect()
}

impl Sums {
    fn starting_at(row: u32, column: u32) -> Self {
        Self {
            origin: (row, column),
            area: 0,
            row: 0,
            column: 0,
            row_row: 0,
            column_column: 0,
            row_column: 0,
            intensity: 0,
            intensity_min: u16::MAX,
            intensity_max: 0,
            bbox: [row, row + 1, column, column + 1],
        }
    }

    fn add(&mut self, row: u32, column: u32, value: u16) {
        let r = i64::from(row) - i64::from(self.origin.0);
        let c = i64::from(column) - i64::from(self.origin.1);
        self.area += 1;
        self.row += r;
        self.column += c;
        self.row_row += r * r;
        self.column_column += c * c;
        self.row_column += r * c;
        self.intensity += u64::from(value);
        self.intensity_min = self.intensity_min.min(value);
        self.intensity_max = self.intensity_max.max(value);
        self.bbox[1] = self.bbox[1].max(row + 1);
        self.bbox[2] = self.bbox[2].min(column);
        self.bbox[3] = self.bbox[3].max(column + 1);
    }

    fn finish(
        self,
        label: u32,
        labels: &LabelImage,
        (width, height): (u32, u32),
        shape: &mut Shape,
    ) -> Object {
        let area = self.area as f64;
        let (mean_row, mean_column) = (self.row as f64 / area, self.column as f64 / area);
        // Second central moments over the area: the inertia tensor of scikit-image is
        // [[var_column, −cov], [−cov, var_row]] in (row, column) order.
        let var_row = (self.row_row as f64 / area - mean_row * mean_row).max(0.0);
        let var_column = (self.column_column as f64 / area - mean_column * mean_column).max(0.0);
        let covariance = self.row_column as f64 / area - mean_row * mean_column;
        let middle = f64::midpoint(var_row, var_column);
        let spread = libm::hypot((var_row - var_column) / 2.0, covariance);
        let (large, small) = (middle + spread, (middle - spread).max(0.0));
        let [top, bottom, left, right] = self.bbox;
        shape.cut(labels, label, self.bbox);
        Object {
            label,
            area: self.area as u32,
            centroid_0: f64::from(self.origin.0) + mean_row,
            centroid_1: f64::from(self.origin.1) + mean_column,
            bbox_0: top,
            bbox_1: left,
            bbox_2: bottom,
            bbox_3: right,
            perimeter: shape.perimeter(),
            eccentricity: if large > 0.0 { (1.0 - small / large).max(0.0).sqrt() } else { 0.0 },
            solidity: area / shape.convex_area() as f64,
            major_axis_length: 4.0 * large.sqrt(),
            minor_axis_length: 4.0 * small.sqrt(),
            orientation: orientation(var_row, var_column, covariance),
            intensity_mean: self.intensity as f64 / area,
            intensity_max: f64::from(self.intensity_max),
            intensity_min: f64::from(self.intensity_min),
            touches_border: top == 0 || left == 0 || bottom == height || right == width,
        }
    }
}

/// The pixels of one object in its bounding box, with a border of one background pixel.
/// Kept between objects so that nothing is allocated for each.
#[derive(Default)]
struct Shape {
    mask: Vec<bool>,
    width: usize,
    rows: Vec<(i64, i64)>,
    edge: Vec<bool>,
}

impl Shape {
    fn cut(&mut self, labels: &LabelImage, label: u32, [top, bottom, left, right]: [u32; 4]) {
        self.width = (right - left) as usize + 2;
        self.mask.clear();
        self.mask.resize(self.width * ((bottom - top) as usize + 2), false);
        self.rows.clear();
        for (index, row) in (top..bottom).enumerate() {
            let start = row as usize * labels.width() as usize;
            let line = &labels.labels()[start + left as usize..start + right as usize];
            let mut extent = (i64::MAX, i64::MIN);
            for (column, &other) in line.iter().enumerate() {
                if other == label {
                    self.mask[(index + 1) * self.width + column + 1] = true;
                    extent = (extent.0.min(column as i64), extent.1.max(column as i64));
                }
            }
            self.rows.push(extent);
        }
    }

    /// Length of the line through the centres of edge pixels, estimated from 4-neighbourhoods
    /// (Benkrid & Crookes 2000), with the weights of scikit-image's `perimeter`.
    fn perimeter(&mut self) -> f64 {
        let width = self.width;
        self.edge.clear();
        self.edge.resize(self.mask.len(), false);
        for at in width..self.mask.len() - width {
            let inner = self.mask[at - 1]
                && self.mask[at + 1]
                && self.mask[at - width]
                && self.mask[at + width];
            self.edge[at] = self.mask[at] && !inner;
        }
        let mut total = 0.0;
        for at in width..self.edge.len() - width {
            if !self.edge[at] {
                continue;
            }
            let is_edge = |at: usize| u32::from(self.edge[at]);
            let straight =
                is_edge(at - 1) + is_edge(at + 1) + is_edge(at - width) + is_edge(at + width);
            let diagonal = is_edge(at - width - 1)
                + is_edge(at - width + 1)
                + is_edge(at + width - 1)
                + is_edge(at + width + 1);
            total += match 1 + 2 * straight + 10 * diagonal {
                5 | 7 | 15 | 17 | 25 | 27 => 1.0,
                21 | 33 => std::f64::consts::SQRT_2,
                13 | 23 => f64::midpoint(1.0, std::f64::consts::SQRT_2),
                _ => 0.0,
            };
        }
        total
    }

    fn convex_area(&self) -> u64 {
        convex_area(&self.rows)
    }
}

/// Twice the coordinates, so that the middles of pixel edges are integers and exact.
type Point = (i64, i64);

/// Number of pixels in the convex hull of an object.
///
/// `rows` holds, for each row of the object, its first and last column; a row without pixels
/// has a first after its last. The hull is that of the four edge middles of every pixel
/// (`offset_coordinates` in scikit-image); a pixel counts when its centre is in it or on it.
fn convex_area(rows: &[(i64, i64)]) -> u64 {
    let mut points: Vec<Point> = Vec::with_capacity(rows.len() * 6);
    for (row, &(first, last)) in rows.iter().enumerate() {
        if first <= last {
            let row = 2 * row as i64;
            for column in [first, last] {
                points.push((row - 1, 2 * column));
                points.push((row + 1, 2 * column));
            }
            points.push((row, 2 * first - 1));
            points.push((row, 2 * last + 1));
        }
    }
    points.sort_unstable();
    points.dedup();
    // Chains over increasing rows: the left one has the smallest columns, the right one the
    // largest (Andrew's monotone chain).
    let left = chain(&points, 1);
    let right = chain(&points, -1);
    (0..rows.len() as i64)
        .map(|row| {
            let (from_top, to_top) = column_at(&left, 2 * row);
            let (from_bottom, to_bottom) = column_at(&right, 2 * row);
            // Columns are at even positions 2c; smallest c with 2c ≥ left, largest with ≤ right.
            let first = ceiling(from_top, 2 * to_top);
            let last = floor(from_bottom, 2 * to_bottom);
            (last - first + 1).max(0).unsigned_abs()
        })
        .sum()
}

/// One side of the hull; `side` is 1 for the smallest columns and −1 for the largest.
fn chain(points: &[Point], side: i64) -> Vec<Point> {
    let mut chain: Vec<Point> = Vec::new();
    for &point in points {
        while let [.., before, last] = chain[..] {
            let turn = (last.0 - before.0) * (point.1 - before.1)
                - (last.1 - before.1) * (point.0 - before.0);
            if turn * side > 0 {
                break;
            }
            chain.pop();
        }
        chain.push(point);
    }
    chain
}

/// Column of the chain at `row`, as an exact fraction.
fn column_at(chain: &[Point], row: i64) -> (i64, i64) {
    let after = chain.partition_point(|point| point.0 < row).min(chain.len() - 1);
    let (to, from) = (chain[after], chain[after.saturating_sub(1)]);
    if to.0 == row || to.0 == from.0 {
        return (to.1, 1);
    }
    let rise = to.0 - from.0;
    (from.1 * rise + (to.1 - from.1) * (row - from.0), rise)
}

fn floor(numerator: i64, denominator: i64) -> i64 {
    numerator.div_euclid(denominator)
}

fn ceiling(numerator: i64, denominator: i64) -> i64 {
    -((-numerator).div_euclid(denominator))
}

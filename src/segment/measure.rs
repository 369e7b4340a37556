//! What is measured on each object, by the definitions of scikit-image's `regionprops`, so
//! that numbers can be compared with those of existing analyses.

use crate::domain::frame::Pixels;
use crate::domain::label_image::LabelImage;
use crate::domain::object::Object;

use super::hull;

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
pub fn objects(labels: &LabelImage, pixels: &Pixels) -> Vec<Object> {
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
        let spread = ((var_row - var_column) / 2.0).hypot(covariance);
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

/// Angle of the long axis to the row axis, −π/2 to π/2, counter-clockwise as scikit-image has it.
fn orientation(var_row: f64, var_column: f64, covariance: f64) -> f64 {
    // With a = var_column, b = −covariance, c = var_row of the inertia tensor.
    if var_column == var_row {
        let quarter = std::f64::consts::FRAC_PI_4;
        return if covariance > 0.0 { quarter } else { -quarter };
    }
    0.5 * (2.0 * covariance).atan2(var_row - var_column)
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
        hull::convex_area(&self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by tests/golden/measure/make.py with scikit-image 0.26.
    const GOLDEN: &str = include_str!("../../tests/golden/measure/regions.json");

    #[derive(serde::Deserialize)]
    struct Golden {
        width: u32,
        height: u32,
        labels: Vec<u32>,
        intensity: Vec<u16>,
        objects: Vec<serde_json::Map<String, serde_json::Value>>,
    }

    #[test]
    fn every_measure_equals_that_of_scikit_image() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        let labels = LabelImage::new(golden.width, golden.height, golden.labels).unwrap();
        let found = objects(&labels, &Pixels::U16(golden.intensity));
        assert_eq!(found.len(), golden.objects.len());
        for (object, expected) in found.iter().zip(&golden.objects) {
            let ours = serde_json::to_value(object).unwrap();
            for (name, theirs) in expected {
                let ours_name = match name.as_str() {
                    "axis_major_length" => "major_axis_length",
                    "axis_minor_length" => "minor_axis_length",
                    same => same,
                };
                let ours = ours[ours_name].as_f64().unwrap_or_else(|| panic!("no {ours_name}"));
                let theirs = theirs.as_f64().unwrap();
                // A square has no long axis: scikit-image answers ±π/4 by the sign of a zero.
                if name == "orientation" && expected["eccentricity"].as_f64() < Some(1e-6) {
                    continue;
                }
                assert!(
                    (ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0),
                    "object {}: {name} is {ours}, scikit-image says {theirs}",
                    object.label
                );
            }
        }
    }

    #[test]
    fn an_object_at_the_edge_of_the_frame_says_so() {
        let labels = LabelImage::new(3, 3, vec![0, 0, 0, 0, 1, 0, 2, 0, 0]).unwrap();
        let found = objects(&labels, &Pixels::U8(vec![7; 9]));
        assert_eq!(
            found.iter().map(|object| object.touches_border).collect::<Vec<_>>(),
            [false, true]
        );
    }
}

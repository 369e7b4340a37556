//! What is measured on each object, by the definitions of scikit-image's `regionprops`, so
//! that numbers can be compared with those of existing analyses.
//!
//! The label image is read once, in stretches of one label: sums over a stretch are known from
//! its ends, and an object's shape is put together from its stretches alone. Time and memory
//! are linear in the pixels.

mod outline;
#[cfg(test)]
mod reference;

use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;

use super::hull::Hull;
use outline::Outline;

/// Sums over the pixels of one object. Moments are taken about the first pixel seen, which
/// keeps them exact in f64 for any frame.
#[derive(Clone)]
struct Sums {
    origin: (u32, u32),
    /// 0 if the object has no pixel.
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
    /// First and last of the object's stretches.
    ends: [u32; 2],
}

/// Pixels of one object in one row, side by side.
struct Stretch {
    row: u32,
    from: u32,
    to: u32,
    /// The next of the same object, [`NONE`] after the last.
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Measures every object of `labels` on `pixels`, by label from 1.
pub fn objects(labels: &LabelImage, pixels: &Pixels) -> Vec<Object> {
    match pixels {
        Pixels::U8(values) => objects_on(labels, values),
        Pixels::U16(values) => objects_on(labels, values),
    }
}

fn objects_on<T: Copy + Into<u16>>(labels: &LabelImage, values: &[T]) -> Vec<Object> {
    let (width, height) = (labels.width(), labels.height());
    let mut all = vec![Sums::NOTHING; labels.count() as usize];
    let mut stretches: Vec<Stretch> = Vec::new();
    let lines = labels.labels().chunks_exact(width as usize);
    for (row, (line, values)) in lines.zip(values.chunks_exact(width as usize)).enumerate() {
        each_stretch(line, |from, to, label| {
            let sums = &mut all[label as usize - 1];
            let index = stretches.len() as u32;
            if sums.area == 0 {
                sums.start(row as u32, from as u32, index);
            } else {
                stretches[sums.ends[1] as usize].next = index;
            }
            sums.add(row as u32, from as u32, &values[from..to]);
            sums.ends[1] = index;
            stretches.push(Stretch {
                row: row as u32,
                from: from as u32,
                to: to as u32,
                next: NONE,
            });
        });
    }
    let mut shape = Shape::default();
    (1..)
        .zip(&all)
        .filter(|(_, sums)| sums.area > 0)
        .map(|(label, sums)| sums.finish(label, (width, height), &stretches, &mut shape))
        .collect()
}

/// Calls `found` with first column, column after the last, and label of each stretch of a row.
fn each_stretch(line: &[u32], mut found: impl FnMut(usize, usize, u32)) {
    /// Pixels that are looked at together: most are background.
    const CHUNK: usize = 16;
    let mut open = (0, 0);
    for (chunk, labels) in line.chunks(CHUNK).enumerate() {
        if open.1 == 0 && labels.iter().fold(0, |any, label| any | label) == 0 {
            continue;
        }
        for (column, &label) in (chunk * CHUNK..).zip(labels) {
            if label != open.1 {
                if open.1 != 0 {
                    found(open.0, column, open.1);
                }
                open = (column, label);
            }
        }
    }
    if open.1 != 0 {
        found(open.0, line.len(), open.1);
    }
}

impl Sums {
    const NOTHING: Self = Self {
        origin: (0, 0),
        area: 0,
        row: 0,
        column: 0,
        row_row: 0,
        column_column: 0,
        row_column: 0,
        intensity: 0,
        intensity_min: u16::MAX,
        intensity_max: 0,
        bbox: [0; 4],
        ends: [NONE; 2],
    };

    /// The first pixel, and the number of its stretch.
    fn start(&mut self, row: u32, column: u32, stretch: u32) {
        self.origin = (row, column);
        self.bbox = [row, row + 1, column, column + 1];
        self.ends[0] = stretch;
    }

    /// Adds the pixels of a row from `column` on.
    fn add<T: Copy + Into<u16>>(&mut self, row: u32, column: u32, values: &[T]) {
        let count = values.len() as i64;
        let r = i64::from(row) - i64::from(self.origin.0);
        let c = i64::from(column) - i64::from(self.origin.1);
        // Sums of c, c + 1, … and of their squares.
        let columns = count * c + count * (count - 1) / 2;
        let squares =
            count * c * c + c * count * (count - 1) + (count - 1) * count * (2 * count - 1) / 6;
        self.area += count.unsigned_abs();
        self.row += r * count;
        self.column += columns;
        self.row_row += r * r * count;
        self.column_column += squares;
        self.row_column += r * columns;
        for &value in values {
            let value: u16 = value.into();
            self.intensity += u64::from(value);
            self.intensity_min = self.intensity_min.min(value);
            self.intensity_max = self.intensity_max.max(value);
        }
        self.bbox[1] = row + 1;
        self.bbox[2] = self.bbox[2].min(column);
        self.bbox[3] = self.bbox[3].max(column + values.len() as u32);
    }

    /// The object's stretches, in reading order.
    fn stretches<'a>(&self, all: &'a [Stretch]) -> impl Iterator<Item = &'a Stretch> {
        let first = all.get(self.ends[0] as usize);
        std::iter::successors(first, |stretch| all.get(stretch.next as usize))
    }

    fn finish(
        &self,
        label: u32,
        (width, height): (u32, u32),
        stretches: &[Stretch],
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
        shape.take(self.stretches(stretches), self.bbox);
        Object {
            label,
            area: self.area as u32,
            centroid_0: f64::from(self.origin.0) + mean_row,
            centroid_1: f64::from(self.origin.1) + mean_column,
            bbox_0: top,
            bbox_1: left,
            bbox_2: bottom,
            bbox_3: right,
            perimeter: shape.outline.perimeter(),
            eccentricity: if large > 0.0 { (1.0 - small / large).max(0.0).sqrt() } else { 0.0 },
            solidity: area / shape.hull.area(&shape.rows) as f64,
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
    0.5 * libm::atan2(2.0 * covariance, var_row - var_column)
}

/// The shape of one object. Kept between objects so that nothing is allocated for each.
#[derive(Default)]
struct Shape {
    outline: Outline,
    hull: Hull,
    /// First and last column of each row, from those of the bounding box.
    rows: Vec<(i64, i64)>,
}

impl Shape {
    fn take<'a>(
        &mut self,
        stretches: impl Iterator<Item = &'a Stretch>,
        [top, bottom, left, right]: [u32; 4],
    ) {
        self.outline.start((bottom - top) as usize, (right - left) as usize);
        self.rows.clear();
        self.rows.resize((bottom - top) as usize, (i64::MAX, i64::MIN));
        for stretch in stretches {
            let row = (stretch.row - top) as usize;
            let (from, to) = (stretch.from - left, stretch.to - left);
            self.outline.add(row, from as usize, to as usize);
            let (first, last) = self.rows[row];
            self.rows[row] = (first.min(i64::from(from)), last.max(i64::from(to) - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by tests/golden/measure/make.py with scikit-image 0.26.
    const GOLDEN: &str = include_str!("../../../tests/golden/measure/regions.json");

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

    proptest! {
        #[test]
        fn every_measure_is_that_of_the_definition(
            (width, height) in (1_usize..160, 1_usize..60),
            ellipses in prop::collection::vec(
                (0.0_f64..1.0, 0.0_f64..1.0, 1.0_f64..70.0, 1.0_f64..15.0),
                0..12,
            ),
            specks in prop::collection::vec((0_usize..160 * 60, 0_u32..14), 0..80),
            grey in prop::collection::vec(0_u16..=u16::MAX, 1..100),
        ) {
            let mut labels = vec![0; width * height];
            for (label, &(x, y, wide, high)) in (1..).zip(&ellipses) {
                for (at, slot) in labels.iter_mut().enumerate() {
                    let dx = ((at % width) as f64 - x * width as f64) / wide;
                    let dy = ((at / width) as f64 - y * height as f64) / high;
                    if libm::hypot(dx, dy) < 1.0 {
                        *slot = label;
                    }
                }
            }
            for (at, label) in specks {
                labels[at % (width * height)] = label;
            }
            let labels = LabelImage::new(width as u32, height as u32, labels).unwrap();
            let grey: Vec<u16> = grey.iter().cycle().take(width * height).copied().collect();
            let eight_bits = Pixels::U8(grey.iter().map(|&value| value as u8).collect());
            for pixels in [Pixels::U16(grey), eight_bits] {
                prop_assert_eq!(objects(&labels, &pixels), reference::objects(&labels, &pixels));
            }
        }
    }
}

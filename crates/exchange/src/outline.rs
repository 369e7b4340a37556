//! Objects as polygons along the edges of their pixels, and polygons as pixels.
//!
//! The corner of the image is (0, 0) and a pixel is a unit square, so that a polygon covers
//! exactly the object's pixels: drawing it gives back the identical label image.
//!
//! Polygons are valid by the Simple Features standard: pixels that meet only at a corner are
//! polygons of their own, and a ring that would touch itself at a corner is parted there. A ring
//! that goes round pixels has a positive area (x to the right, y down), one round a hole a
//! negative one.

use std::collections::BTreeMap;
use std::ops::Range;

use super::canvas::Canvas;
use super::rle::Region;
use reticle_domain::label_image::LabelImage;
use reticle_domain::outline::{self, Step, rings};

/// Corners as (x, y), each once; the last is joined to the first.
pub(super) type Ring = Vec<(f64, f64)>;

/// The outer ring, then the holes.
pub(super) type Polygon = Vec<Ring>;

/// The polygons of each object, one for each of its parts.
pub(super) fn trace(labels: &LabelImage, regions: &[Region]) -> Vec<Vec<Polygon>> {
    let mut walks: Vec<Vec<Walk>> = vec![Vec::new(); labels.count() as usize + 1];
    for ring in rings(labels) {
        walks[ring.label as usize].push(walk(&ring));
    }
    let polygons = |region: &Region| {
        let mut walks = std::mem::take(&mut walks[region.label as usize]);
        walks.sort_by_key(|walk| place(&walk[0]));
        polygons(&walks, labels, region)
    };
    regions.iter().map(polygons).collect()
}

/// A ring by its corners, each with the step that leaves it.
type Walk = Vec<((i64, i64), Step)>;

/// The way round a ring from its first corner in reading order.
fn walk(ring: &outline::Ring) -> Walk {
    let mut at = (i64::from(ring.x), i64::from(ring.y));
    let corners = ring.steps.iter().map(|step| {
        let corner = at;
        at = step.moved(corner);
        (corner, *step)
    });
    let mut walk: Walk = corners.collect();
    let first = (0..walk.len()).min_by_key(|at| place(&walk[*at])).unwrap_or(0);
    walk.rotate_left(first);
    walk
}

/// By which corners, and steps from one of them, have an order.
fn place(((x, y), step): &((i64, i64), Step)) -> (i64, i64, Step) {
    (*y, *x, *step)
}

fn polygons(walks: &[Walk], labels: &LabelImage, region: &Region) -> Vec<Polygon> {
    let mask = Mask::cut(labels, region);
    let parts = mask.parts();
    let mut polygons: BTreeMap<u32, (Polygon, Polygon)> = BTreeMap::new();
    let mut path = Walk::new();
    // Place of a corner in the path, plus one; 0 where it is not in it.
    let mut places = vec![0_usize; (mask.width + 1) * (mask.height + 1)];
    let (left, top) = (i64::from(region.left), i64::from(region.top));
    let index = |(x, y): (i64, i64)| (y - top) as usize * (mask.width + 1) + (x - left) as usize;
    for walk in walks {
        let part = parts[mask.pixel_right_of(index(walk[0].0), walk[0].1)];
        for &(corner, step) in walk {
            path.push((corner, step));
            places[index(corner)] = path.len();
            let next = index(step.moved(corner));
            if places[next] != 0 {
                // The path has closed a ring: it goes off the path.
                let ring: Walk = path.drain(places[next] - 1..).collect();
                for (corner, _) in &ring {
                    places[index(*corner)] = 0;
                }
                let ring = corners(&ring);
                let (outer, holes) = polygons.entry(part).or_default();
                if area(&ring) > 0.0 { outer.push(ring) } else { holes.push(ring) }
            }
        }
    }
    polygons.into_values().map(|(outer, holes)| outer.into_iter().chain(holes).collect()).collect()
}

/// Draws polygons with `label`: the pixels whose centres are inside, by the even-odd rule.
///
/// Work grows with the rows that edges cross, and is taken from the canvas's budget.
pub(super) fn fill(polygons: &[Polygon], label: u32, canvas: &mut Canvas) -> Result<(), String> {
    polygons.iter().try_for_each(|polygon| fill_one(polygon, label, canvas))
}

/// An edge from corner to corner, and the rows whose centres it crosses.
struct Edge {
    rows: Range<usize>,
    from: (f64, f64),
    to: (f64, f64),
}

impl Edge {
    /// Where it crosses the centre of a row.
    fn x_at(&self, row: usize) -> f64 {
        let ((x1, y1), (x2, y2), y) = (self.from, self.to, row as f64 + 0.5);
        x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    }
}

fn fill_one(polygon: &Polygon, label: u32, canvas: &mut Canvas) -> Result<(), String> {
    let (width, height) = (canvas.width(), canvas.height());
    canvas.spend(polygon.iter().map(Vec::len).sum())?;
    let mut edges: Vec<Edge> = Vec::new();
    for ring in polygon {
        let next = ring.iter().cycle().skip(1);
        let pairs = ring.iter().zip(next).map(|(&from, &to)| Edge {
            rows: pixels(from.1.min(to.1), from.1.max(to.1), height),
            from,
            to,
        });
        edges.extend(pairs.filter(|edge| !edge.rows.is_empty()));
    }
    edges.sort_by_key(|edge| edge.rows.start);
    let mut waiting = edges.iter().peekable();
    let mut active: Vec<&Edge> = Vec::new();
    let mut crossings: Vec<f64> = Vec::new();
    let mut row = 0;
    loop {
        active.retain(|edge| edge.rows.end > row);
        if active.is_empty() {
            let Some(first) = waiting.peek() else { return Ok(()) };
            row = first.rows.start;
        }
        while let Some(edge) = waiting.next_if(|edge| edge.rows.start <= row) {
            active.push(edge);
        }
        canvas.spend(active.len())?;
        crossings.clear();
        crossings.extend(active.iter().map(|edge| edge.x_at(row)));
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let columns = pixels(pair[0], pair[1], width);
            canvas.spend(columns.len())?;
            let start = row * width as usize;
            canvas.pixels()[start + columns.start..start + columns.end].fill(label);
        }
        row += 1;
    }
}

/// The pixels of a line of `length` whose centres are in `from..to`.
fn pixels(from: f64, to: f64, length: u32) -> Range<usize> {
    let first = |edge: f64| (edge - 0.5).ceil().clamp(0.0, f64::from(length)) as usize;
    first(from)..first(to).max(first(from))
}

/// One object in its bounding box.
struct Mask {
    pixels: Vec<bool>,
    width: usize,
    height: usize,
}

impl Mask {
    fn cut(labels: &LabelImage, region: &Region) -> Self {
        let (left, right) = (region.left as usize, region.right as usize);
        let pixels = (region.top as usize..region.bottom as usize)
            .flat_map(|row| {
                let start = row * labels.width() as usize;
                &labels.labels()[start + left..start + right]
            })
            .map(|label| *label == region.label)
            .collect();
        Self { pixels, width: right - left, height: (region.bottom - region.top) as usize }
    }

    /// The pixel to the right of a step that leaves a corner.
    fn pixel_right_of(&self, corner: usize, step: Step) -> usize {
        let (x, y) = (corner % (self.width + 1), corner / (self.width + 1));
        match step {
            Step::Right => y * self.width + x,
            Step::Down => y * self.width + x - 1,
            Step::Left => (y - 1) * self.width + x - 1,
            Step::Up => (y - 1) * self.width + x,
        }
    }

    /// For each pixel the number of its part, from 1 in reading order: pixels that share an
    /// edge are of one part.
    fn parts(&self) -> Vec<u32> {
        let mut parts = vec![0; self.pixels.len()];
        let mut waiting = Vec::new();
        let mut part = 0;
        for start in 0..self.pixels.len() {
            if !self.pixels[start] || parts[start] != 0 {
                continue;
            }
            part += 1;
            parts[start] = part;
            waiting.push(start);
            while let Some(at) = waiting.pop() {
                let x = at % self.width;
                let neighbours = [
                    (x > 0).then(|| at - 1),
                    (x + 1 < self.width).then(|| at + 1),
                    at.checked_sub(self.width),
                    Some(at + self.width).filter(|below| *below < self.pixels.len()),
                ];
                for next in neighbours.into_iter().flatten() {
                    if self.pixels[next] && parts[next] == 0 {
                        parts[next] = part;
                        waiting.push(next);
                    }
                }
            }
        }
        parts
    }
}

/// The corners of the image at which a ring of steps turns.
fn corners(ring: &[((i64, i64), Step)]) -> Ring {
    let before = ring.iter().cycle().skip(ring.len() - 1);
    let turns = ring.iter().zip(before).filter(|((_, step), (_, before))| step != before);
    turns.map(|(((x, y), _), _)| (*x as f64, *y as f64)).collect()
}

fn area(ring: &[(f64, f64)]) -> f64 {
    let next = ring.iter().cycle().skip(1);
    ring.iter().zip(next).map(|((x1, y1), (x2, y2))| x1 * y2 - x2 * y1).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::rle::regions;
    use super::super::testing::{any_labels, many_objects};
    use super::*;

    fn round_trip(labels: &LabelImage) -> LabelImage {
        let size = (labels.width(), labels.height());
        let mut drawn = Canvas::new(size);
        let regions = regions(labels);
        for (region, polygons) in regions.iter().zip(trace(labels, &regions)) {
            fill(&polygons, region.label, &mut drawn).unwrap();
        }
        drawn.finish().unwrap()
    }

    proptest! {
        #[test]
        fn any_label_image_comes_back(labels in any_labels()) {
            prop_assert_eq!(round_trip(&labels), labels);
        }

        #[test]
        fn each_part_has_one_outer_ring_and_no_ring_touches_itself(labels in any_labels()) {
            let regions = regions(&labels);
            for (region, polygons) in regions.iter().zip(trace(&labels, &regions)) {
                let covered: f64 = polygons.iter().flatten().map(|ring| area(ring)).sum();
                prop_assert_eq!(covered, region.area as f64);
                for polygon in polygons {
                    prop_assert!(area(&polygon[0]) > 0.0);
                    prop_assert!(polygon[1..].iter().all(|hole| area(hole) < 0.0));
                    for ring in polygon {
                        let corners: HashSet<_> =
                            ring.iter().map(|(x, y)| (*x as i64, *y as i64)).collect();
                        prop_assert_eq!(corners.len(), ring.len());
                    }
                }
            }
        }
    }

    fn traced(rows: &[&str]) -> Vec<Polygon> {
        let width = rows[0].len() as u32;
        let labels = rows.iter().flat_map(|row| row.bytes()).map(|byte| u32::from(byte == b'#'));
        let labels = LabelImage::new(width, rows.len() as u32, labels.collect()).unwrap();
        trace(&labels, &regions(&labels)).swap_remove(0)
    }

    #[test]
    fn a_square_has_four_corners_and_a_ring_has_a_hole() {
        assert_eq!(traced(&["##", "##"]), [[[(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]]]);
        let ring = traced(&["###", "#.#", "###"]);
        assert_eq!((ring.len(), ring[0].len()), (1, 2));
        assert_eq!((area(&ring[0][0]), area(&ring[0][1])), (9.0, -1.0));
    }

    #[test]
    fn pixels_that_meet_at_a_corner_are_two_polygons() {
        let two = traced(&["#.", ".#"]);
        assert_eq!(two.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_ring_closed_at_a_corner_only_has_its_hole_parted_from_its_outside() {
        let closed = traced(&["###", "#.#", "##."]);
        assert_eq!((closed.len(), closed[0].len()), (1, 2));
        let holes = traced(&["####", "#.##", "##.#", "####"]);
        assert_eq!((holes.len(), holes[0].len()), (1, 3));
    }

    #[test]
    fn more_objects_than_16_bits_can_number_come_back() {
        let labels = many_objects();
        assert_eq!(round_trip(&labels), labels);
    }

    #[test]
    fn polygons_between_pixels_cover_the_centres_inside_them_and_may_leave_the_image() {
        let triangle = vec![vec![(-1.0, -1.0), (2.6, -1.0), (-1.0, 2.6)]];
        let mut drawn = Canvas::new((3, 3));
        fill(&[triangle], 5, &mut drawn).unwrap();
        assert_eq!(drawn.pixels(), [5, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn work_without_end_is_refused() {
        let all = vec![vec![(0.0, 0.0), (2000.0, 0.0), (2000.0, 2000.0), (0.0, 2000.0)]];
        let mut canvas = Canvas::new((2000, 2000));
        let all = [all];
        let drawn = (1..1000).try_for_each(|label| fill(&all, label, &mut canvas));
        assert!(drawn.unwrap_err().contains("cover the frame more than 16 times"));
        // One that goes up and down a million times.
        let edges = (0..1_000_000).map(|at| (1000.0, if at % 2 == 0 { 0.0 } else { 2000.0 }));
        let mut canvas = Canvas::new((2000, 2000));
        let drawn = fill(&[vec![edges.collect()]], 1, &mut canvas);
        assert!(drawn.unwrap_err().contains("cover the frame"));
    }
}

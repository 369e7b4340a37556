//! Outlines of a label image, as closed paths along the edges between pixels: for the page, and for
//! the formats that have polygons.
//!
//! Each object gives one ring for its outside and one for each hole in it; an object of
//! several parts (by 4-neighbourhood) gives rings for each. A ring runs with the object on
//! its right hand, so outsides run clockwise on the screen and holes anticlockwise; filled by
//! the even-odd or the non-zero rule the rings of a label cover exactly its pixels. Where two pixels
//! of an object touch at a corner only, a ring may pass that corner twice.

use super::label_image::LabelImage;

/// A step along a pixel edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Step {
    /// To the next column.
    Right = 0,
    /// To the next row.
    Down = 1,
    /// To the column before.
    Left = 2,
    /// To the row before.
    Up = 3,
}

impl Step {
    const ALL: [Self; 4] = [Self::Right, Self::Down, Self::Left, Self::Up];

    fn turned_right(self) -> Self {
        Self::ALL[(self as usize + 1) % 4]
    }

    fn turned_left(self) -> Self {
        Self::ALL[(self as usize + 3) % 4]
    }

    /// Where it leads from a corner.
    pub fn moved(self, (x, y): (i64, i64)) -> (i64, i64) {
        match self {
            Self::Right => (x + 1, y),
            Self::Down => (x, y + 1),
            Self::Left => (x - 1, y),
            Self::Up => (x, y - 1),
        }
    }
}

/// One closed path around pixels of one label, in corners of pixels: corner (0, 0) is the
/// upper left of the image, (width, height) its lower right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Whose outline it is.
    pub label: u32,
    /// Column of the corner it starts at.
    pub x: u32,
    /// Row of the corner it starts at.
    pub y: u32,
    /// Its steps; the last one ends where the first began.
    pub steps: Vec<Step>,
}

/// All rings of `image`, in the order in which reading row by row meets them.
///
/// Takes time in proportion to pixels plus outline, whatever the number of objects.
pub fn rings(image: &LabelImage) -> Vec<Ring> {
    let labels = Labels { width: image.width().into(), labels: image.labels() };
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    // Every ring, outside or hole, passes the upper edge of some pixel of its label from left
    // to right. So each upper edge that no ring has passed yet starts exactly one new ring.
    let mut passed = vec![false; image.labels().len()];
    let mut rings = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let label = labels.at(x, y);
            let index = labels.index(x, y);
            if label != 0 && !passed[index] && labels.at(x, y - 1) != label {
                rings.push(follow(&labels, &mut passed, label, (x, y)));
            }
        }
    }
    rings
}

struct Labels<'a> {
    width: i64,
    labels: &'a [u32],
}

impl Labels<'_> {
    fn index(&self, x: i64, y: i64) -> usize {
        usize::try_from(y * self.width + x).expect("only asked for pixels inside")
    }

    /// The label at a pixel; background outside the image.
    fn at(&self, x: i64, y: i64) -> u32 {
        if x < 0 || x >= self.width || y < 0 {
            return 0;
        }
        self.labels.get(self.index(x, y)).copied().unwrap_or(0)
    }

    /// The pixels before a walker at `corner` who looks along `step`: on the left and right.
    fn ahead(&self, (x, y): (i64, i64), step: Step) -> (u32, u32) {
        match step {
            Step::Right => (self.at(x, y - 1), self.at(x, y)),
            Step::Down => (self.at(x, y), self.at(x - 1, y)),
            Step::Left => (self.at(x - 1, y), self.at(x - 1, y - 1)),
            Step::Up => (self.at(x - 1, y - 1), self.at(x, y - 1)),
        }
    }
}

/// Walks once around, from the upper left corner of pixel `start` to the right.
fn follow(labels: &Labels<'_>, passed: &mut [bool], label: u32, start: (i64, i64)) -> Ring {
    let mut steps = Vec::new();
    let mut corner = start;
    let mut step = Step::Right;
    loop {
        if step == Step::Right {
            passed[labels.index(corner.0, corner.1)] = true;
        }
        steps.push(step);
        corner = step.moved(corner);
        let (left, right) = labels.ahead(corner, step);
        // Pixels that touch at a corner only are not neighbours, hence right comes first.
        step = if right != label {
            step.turned_right()
        } else if left == label {
            step.turned_left()
        } else {
            step
        };
        if corner == start && step == Step::Right {
            break;
        }
    }
    let inside = |value: i64| u32::try_from(value).expect("a ring starts at a pixel");
    Ring { label, x: inside(start.0), y: inside(start.1), steps }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of digits, `.` for background.
    fn image(rows: &[&str]) -> LabelImage {
        let labels = rows.iter().flat_map(|row| row.chars().map(|c| c.to_digit(10).unwrap_or(0)));
        let width = rows[0].len();
        LabelImage::new(width as u32, rows.len() as u32, labels.collect()).unwrap()
    }

    /// Fills the rings again, by crossing each row from the left: even-odd.
    fn filled(width: u32, height: u32, rings: &[Ring]) -> Vec<u32> {
        let (w, h) = (width as usize, height as usize);
        let mut crossings = vec![Vec::new(); w * h + h];
        for ring in rings {
            let mut at = (i64::from(ring.x), i64::from(ring.y));
            for step in &ring.steps {
                let next = step.moved(at);
                if matches!(step, Step::Up | Step::Down) {
                    let row = at.1.min(next.1) as usize;
                    crossings[row * (w + 1) + at.0 as usize].push(ring.label);
                }
                at = next;
            }
            assert_eq!(at, (i64::from(ring.x), i64::from(ring.y)), "a ring is closed");
        }
        let mut labels = vec![0; w * h];
        for y in 0..h {
            let mut inside: Vec<u32> = Vec::new();
            for x in 0..w {
                for label in &crossings[y * (w + 1) + x] {
                    match inside.iter().position(|known| known == label) {
                        Some(at) => drop(inside.remove(at)),
                        None => inside.push(*label),
                    }
                }
                assert!(inside.len() <= 1, "a pixel has one label");
                labels[y * w + x] = inside.first().copied().unwrap_or(0);
            }
        }
        labels
    }

    #[test]
    fn one_pixel_has_four_edges_and_runs_clockwise() {
        use Step::{Down, Left, Right, Up};
        let rings = rings(&image(&["...", ".7.", "..."]));
        assert_eq!(rings, [Ring { label: 7, x: 1, y: 1, steps: vec![Right, Down, Left, Up] }]);
    }

    #[test]
    fn a_hole_is_a_ring_of_its_own_and_what_is_in_it_too() {
        let image = image(&["11111", "1...1", "1.2.1", "1...1", "11111"]);
        let rings = rings(&image);
        let sizes: Vec<_> = rings.iter().map(|ring| (ring.label, ring.steps.len())).collect();
        assert_eq!(sizes, [(1, 20), (2, 4), (1, 12)]);
        assert_eq!(filled(5, 5, &rings), image.labels());
    }

    #[test]
    fn pixels_that_touch_at_a_corner_are_two_parts() {
        let image = image(&["1.", ".1"]);
        assert_eq!(rings(&image).len(), 2);
    }

    proptest! {
        #[test]
        fn the_rings_of_any_image_cover_exactly_its_pixels(
            width in 1_u32..12,
            labels in prop::collection::vec(0_u32..4, 1..144),
        ) {
            let height = labels.len() as u32 / width;
            prop_assume!(height > 0);
            let labels = labels[..(width * height) as usize].to_vec();
            let image = LabelImage::new(width, height, labels).unwrap();
            prop_assert_eq!(filled(width, height, &rings(&image)), image.labels());
        }
    }
}

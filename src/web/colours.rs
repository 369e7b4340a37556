//! One of a few colours for each object, so that neighbours never have the same.
//!
//! Neighbours are objects whose territories touch: every pixel within [`REACH`] of an object
//! belongs to the nearest one. Territories that are in one piece make a planar map, and taking
//! the least connected object out first, again and again, then colours any planar map with
//! [`COLOURS`] colours (each planar graph has a vertex of degree five or less). Only objects
//! of several parts can break that; such a one gets the colour that its neighbours use least.
//!
//! An object's first choice comes from where it is, so that colours mostly stay from one frame
//! to the next although labels do not.

use std::collections::VecDeque;

use reticle_domain::label_image::LabelImage;

/// Number of colours; the page's palette has as many.
pub(crate) const COLOURS: usize = 6;
/// Territories are found on a grid of one cell for this many pixels each way.
const CELL: usize = 4;
/// How far an object's territory reaches, in cells.
const REACH: u8 = 4;
/// Edge in cells of the squares that share a first choice of colour.
const HOME: usize = 12;

/// A colour in 0..[`COLOURS`] for each label from 1; labels that do not occur get 0.
pub(crate) fn of_objects(image: &LabelImage) -> Vec<u8> {
    let count = image.count() as usize;
    let map = Territories::of(image);
    let neighbours = map.neighbours(count);
    let mut colours: Vec<Option<u8>> = vec![None; count + 1];
    for label in smallest_last(&neighbours).into_iter().rev() {
        let mut used = [0_usize; COLOURS];
        for &neighbour in &neighbours[label] {
            if let Some(colour) = colours[neighbour as usize] {
                used[usize::from(colour)] += 1;
            }
        }
        let first = map.first_choice[label];
        let best = (0..COLOURS)
            .map(|offset| (first + offset) % COLOURS)
            .min_by_key(|&colour| used[colour])
            .unwrap_or(0);
        colours[label] = u8::try_from(best).ok();
    }
    colours.into_iter().skip(1).map(|colour| colour.unwrap_or(0)).collect()
}

/// The grid of cells with the object each belongs to; 0 is nobody's.
struct Territories {
    width: usize,
    height: usize,
    owner: Vec<u32>,
    /// By label.
    first_choice: Vec<usize>,
}

impl Territories {
    fn of(image: &LabelImage) -> Self {
        let (w, h) = (image.width() as usize, image.height() as usize);
        let (width, height) = (w.div_ceil(CELL), h.div_ceil(CELL));
        let mut owner = vec![0_u32; width * height];
        let mut first_choice = vec![0; image.count() as usize + 1];
        let mut seen = vec![false; first_choice.len()];
        for (y, row) in image.labels().chunks_exact(w.max(1)).enumerate() {
            for (x, &label) in row.iter().enumerate().filter(|(_, label)| **label != 0) {
                let cell = (y / CELL) * width + x / CELL;
                // An object smaller than a cell must not vanish: the last one met has it.
                owner[cell] = label;
                if !std::mem::replace(&mut seen[label as usize], true) {
                    let home = (x / CELL / HOME) * 5 + (y / CELL / HOME) * 3;
                    first_choice[label as usize] = home % COLOURS;
                }
            }
        }
        let mut map = Self { width, height, owner, first_choice };
        map.grow();
        map
    }

    /// Lets every object take the free cells around it, nearest first.
    fn grow(&mut self) {
        let mut front: VecDeque<(usize, u8)> =
            (0..self.owner.len()).filter(|&cell| self.owner[cell] != 0).map(|c| (c, 0)).collect();
        while let Some((cell, distance)) = front.pop_front() {
            if distance == REACH {
                continue;
            }
            for next in self.around(cell).into_iter().flatten() {
                if self.owner[next] == 0 {
                    self.owner[next] = self.owner[cell];
                    front.push_back((next, distance + 1));
                }
            }
        }
    }

    fn around(&self, cell: usize) -> [Option<usize>; 4] {
        let (x, y) = (cell % self.width, cell / self.width);
        [
            (x > 0).then(|| cell - 1),
            (x + 1 < self.width).then(|| cell + 1),
            (y > 0).then(|| cell - self.width),
            (y + 1 < self.height).then(|| cell + self.width),
        ]
    }

    /// Sorted neighbours of each label.
    fn neighbours(&self, count: usize) -> Vec<Vec<u32>> {
        let mut neighbours = vec![Vec::new(); count + 1];
        for cell in 0..self.owner.len() {
            let mine = self.owner[cell];
            for other in self.around(cell).into_iter().flatten().map(|next| self.owner[next]) {
                if mine != 0 && other != 0 && other != mine {
                    neighbours[mine as usize].push(other);
                }
            }
        }
        for list in &mut neighbours {
            list.sort_unstable();
            list.dedup();
        }
        neighbours
    }
}

/// Labels in the order in which the least connected one is taken away each time.
fn smallest_last(neighbours: &[Vec<u32>]) -> Vec<usize> {
    let mut degree: Vec<usize> = neighbours.iter().map(Vec::len).collect();
    let most = degree.iter().copied().max().unwrap_or(0);
    let mut buckets = vec![Vec::new(); most + 1];
    for label in 1..neighbours.len() {
        buckets[degree[label]].push(label);
    }
    let mut taken = vec![false; neighbours.len()];
    let mut order = Vec::with_capacity(neighbours.len());
    let mut at = 0;
    while at <= most {
        let Some(label) = buckets[at].pop() else {
            at += 1;
            continue;
        };
        // A label moved down since it was put here has another entry further down.
        if taken[label] || degree[label] != at {
            continue;
        }
        taken[label] = true;
        order.push(label);
        for &neighbour in &neighbours[label] {
            let neighbour = neighbour as usize;
            if !taken[neighbour] {
                degree[neighbour] -= 1;
                buckets[degree[neighbour]].push(neighbour);
            }
        }
        at = at.saturating_sub(1);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Squares of `size` pixels without a gap, in bricks, so that each touches up to six.
    fn bricks(columns: u32, rows: u32, size: u32) -> LabelImage {
        let (width, height) = (columns * size, rows * size);
        let labels = (0..width * height).map(|index| {
            let (x, y) = (index % width, index / width);
            let row = y / size;
            let shifted = x + (row % 2) * (size / 2);
            row * (columns + 1) + shifted / size + 1
        });
        LabelImage::new(width, height, labels.collect()).unwrap().relabelled()
    }

    #[test]
    fn neighbours_never_have_the_same_colour() {
        let image = bricks(12, 9, 16);
        let colours = of_objects(&image);
        let neighbours = Territories::of(&image).neighbours(image.count() as usize);
        assert!(neighbours.iter().map(Vec::len).max().unwrap() >= 6, "the test tests something");
        for (label, list) in neighbours.iter().enumerate().skip(1) {
            for &other in list {
                assert_ne!(colours[label - 1], colours[other as usize - 1], "{label} {other}");
            }
        }
    }

    #[test]
    fn objects_near_each_other_are_neighbours_across_a_gap() {
        let mut labels = vec![0; 64 * 16];
        for y in 0..16 {
            labels[y * 64 + 8] = 1;
            labels[y * 64 + 20] = 2;
        }
        let colours = of_objects(&LabelImage::new(64, 16, labels).unwrap());
        assert_ne!(colours[0], colours[1]);
    }

    #[test]
    fn an_empty_image_and_a_single_pixel_are_fine() {
        assert!(of_objects(&LabelImage::empty(3, 3)).is_empty());
        assert_eq!(of_objects(&LabelImage::new(1, 1, vec![1]).unwrap()), [0_u8]);
    }
}

//! Cutting a frame of any size into tiles of one size.
//!
//! Every tile is run with a margin of real context that is then cut off, except at the edges
//! of the frame. Which tile answers for a pixel depends on the frame's size alone, so the
//! result does not depend on threads or on order.

/// Pixels at a tile's inner edges that the network saw without full context and whose result
/// is not used: more than the median object is across (17 pixels). The network's reach is
/// larger, but what is further away hardly counts; a wider margin costs in every tile.
pub const MARGIN: usize = 20;

/// Tile edges to choose from: large enough that margins do not dominate, small enough that a
/// workspace stays small (11 MB at 368, for each core; 544 would save 3 % of the pixels of 1024²
/// and take 25 MB more on two cores). The engine takes about as long for a pixel in every tile from
/// 128² to 512².
const EDGES: std::ops::RangeInclusive<usize> = 128..=384;

/// The network takes multiples of this.
const STEP: usize = 16;

/// Along one axis: where a tile begins, and which part of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First pixel of the tile in the frame.
    pub start: usize,
    /// First pixel that this tile answers for, in the frame.
    pub from: usize,
    /// Pixel after the last one that this tile answers for.
    pub to: usize,
}

/// How a frame is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Width and height of every tile.
    pub edge: usize,
    columns: Vec<Span>,
    rows: Vec<Span>,
}

impl Grid {
    /// The cheapest grid for a frame of `width × height`: the fewest pixels over all tiles,
    /// the smaller tile where that is equal.
    pub fn for_frame(width: usize, height: usize) -> Self {
        let best = EDGES
            .step_by(STEP)
            .min_by_key(|&edge| count(width, edge) * count(height, edge) * edge * edge)
            .expect("there are edges to choose from");
        Self { edge: best, columns: spans(width, best), rows: spans(height, best) }
    }

    /// Every tile as (row, column) spans, in reading order.
    pub fn tiles(&self) -> Vec<(Span, Span)> {
        self.rows
            .iter()
            .flat_map(|&row| self.columns.iter().map(move |&column| (row, column)))
            .collect()
    }
}

/// Tiles of `edge` that cover `length`.
fn count(length: usize, edge: usize) -> usize {
    if length <= edge { 1 } else { (length - 2 * MARGIN).div_ceil(edge - 2 * MARGIN) }
}

fn spans(length: usize, edge: usize) -> Vec<Span> {
    let count = count(length, edge);
    if count == 1 {
        return vec![Span { start: 0, from: 0, to: length }];
    }
    // Evenly spread; neighbours meet in the middle of what both have seen.
    let starts: Vec<usize> =
        (0..count).map(|index| index * (length - edge) / (count - 1)).collect();
    let borders: Vec<usize> =
        starts.windows(2).map(|pair| (pair[0] + edge + pair[1]) / 2).collect();
    (0..count)
        .map(|index| Span {
            start: starts[index],
            from: if index == 0 { 0 } else { borders[index - 1] },
            to: if index + 1 == count { length } else { borders[index] },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tiles_cover_every_pixel_once_with_margin(length in 1_usize..5000, other in 1_usize..2000) {
            let grid = Grid::for_frame(length, other);
            let mut next = 0;
            for span in &grid.columns {
                prop_assert_eq!(span.from, next);
                prop_assert!(span.from == 0 || span.from >= span.start + MARGIN);
                prop_assert!(span.to == length || span.to + MARGIN <= span.start + grid.edge);
                prop_assert!(span.start + grid.edge <= length.max(grid.edge));
                next = span.to;
            }
            prop_assert_eq!(next, length);
        }
    }

    #[test]
    fn a_small_frame_is_one_tile() {
        assert_eq!(Grid::for_frame(256, 256).tiles().len(), 1);
        assert_eq!(Grid::for_frame(256, 256).edge, 256);
        assert_eq!(Grid::for_frame(40, 30).edge, 128);
    }

    #[test]
    fn a_frame_that_keeps_one_core_long_is_for_several() {
        assert_eq!(Grid::for_frame(512, 512).tiles().len(), 4);
        assert_eq!(Grid::for_frame(1024, 1024).tiles().len(), 9);
    }
}

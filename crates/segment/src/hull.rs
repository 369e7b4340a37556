//! Area of the convex hull of an object, as scikit-image's `convex_hull_image` counts it.

/// Twice the coordinates, so that the middles of pixel edges are integers and exact.
type Point = (i64, i64);

/// Memory for hulls, kept from object to object.
#[derive(Default)]
pub(super) struct Hull {
    /// The side of the smallest columns, over increasing rows.
    left: Vec<Point>,
    /// The side of the largest columns.
    right: Vec<Point>,
}

impl Hull {
    /// Number of pixels in the convex hull of an object.
    ///
    /// `rows` holds, for each row of the object, its first and last column; a row without pixels
    /// has a first after its last. The hull is that of the four edge middles of every pixel
    /// (`offset_coordinates` in scikit-image); a pixel counts when its centre is in it or on it.
    pub(super) fn area(&mut self, rows: &[(i64, i64)]) -> u64 {
        self.left.clear();
        self.right.clear();
        for (row, &(first, last)) in rows.iter().enumerate() {
            if first <= last {
                let row = 2 * row as i64;
                for (row, out) in [(row - 1, 0), (row, 1), (row + 1, 0)] {
                    extend(&mut self.left, (row, 2 * first - out), 1);
                    extend(&mut self.right, (row, 2 * last + out), -1);
                }
            }
        }
        let (mut left, mut right) = (Side::of(&self.left), Side::of(&self.right));
        (0..rows.len() as i64)
            .map(|row| {
                let (from_top, to_top) = left.column_at(2 * row);
                let (from_bottom, to_bottom) = right.column_at(2 * row);
                // Columns are at even positions 2c; smallest c with 2c ≥ left, largest with ≤ right.
                let first = ceiling(from_top, 2 * to_top);
                let last = floor(from_bottom, 2 * to_bottom);
                (last - first + 1).max(0).unsigned_abs()
            })
            .sum()
    }
}

/// Adds the next point to one side of the hull and takes off those that are now inside
/// (Andrew's monotone chain); `side` is 1 for the smallest columns and −1 for the largest.
fn extend(chain: &mut Vec<Point>, point: Point, side: i64) {
    if let Some(last) = chain.last()
        && last.0 == point.0
    {
        if (point.1 - last.1) * side >= 0 {
            return;
        }
        chain.pop();
    }
    while let [.., before, last] = chain[..] {
        let turn =
            (last.0 - before.0) * (point.1 - before.1) - (last.1 - before.1) * (point.0 - before.0);
        if turn * side > 0 {
            break;
        }
        chain.pop();
    }
    chain.push(point);
}

/// One side of a hull, followed from its first row to its last.
struct Side<'a> {
    chain: &'a [Point],
    /// First point that is not above the row asked for last.
    after: usize,
}

impl<'a> Side<'a> {
    fn of(chain: &'a [Point]) -> Self {
        Self { chain, after: 0 }
    }

    /// The column at `row`, as an exact fraction. Rows are asked for in order.
    fn column_at(&mut self, row: i64) -> (i64, i64) {
        while self.after + 1 < self.chain.len() && self.chain[self.after].0 < row {
            self.after += 1;
        }
        let (to, from) = (self.chain[self.after], self.chain[self.after.saturating_sub(1)]);
        if to.0 == row || to.0 == from.0 {
            return (to.1, 1);
        }
        let rise = to.0 - from.0;
        (from.1 * rise + (to.1 - from.1) * (row - from.0), rise)
    }
}

fn floor(numerator: i64, denominator: i64) -> i64 {
    numerator.div_euclid(denominator)
}

fn ceiling(numerator: i64, denominator: i64) -> i64 {
    -((-numerator).div_euclid(denominator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(rows: &[(i64, i64)]) -> u64 {
        Hull::default().area(rows)
    }

    #[test]
    fn convex_shapes_are_their_own_hull() {
        assert_eq!(area(&[(0, 0)]), 1);
        assert_eq!(area(&[(0, 4), (0, 4), (0, 4)]), 15);
        assert_eq!(area(&[(1, 1), (0, 2), (1, 1)]), 5);
    }

    #[test]
    fn a_notch_is_filled() {
        // An L of 3×3 with an arm of one pixel: the hull adds the pixel on the diagonal.
        assert_eq!(area(&[(0, 0), (0, 0), (0, 2)]), 6);
    }
}

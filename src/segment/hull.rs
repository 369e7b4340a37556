//! Area of the convex hull of an object, as scikit-image's `convex_hull_image` counts it.

/// Twice the coordinates, so that the middles of pixel edges are integers and exact.
type Point = (i64, i64);

/// Number of pixels in the convex hull of an object.
///
/// `rows` holds, for each row of the object, its first and last column; a row without pixels
/// has a first after its last. The hull is that of the four edge middles of every pixel
/// (`offset_coordinates` in scikit-image); a pixel counts when its centre is in it or on it.
pub(super) fn convex_area(rows: &[(i64, i64)]) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convex_shapes_are_their_own_hull() {
        assert_eq!(convex_area(&[(0, 0)]), 1);
        assert_eq!(convex_area(&[(0, 4), (0, 4), (0, 4)]), 15);
        assert_eq!(convex_area(&[(1, 1), (0, 2), (1, 1)]), 5);
    }

    #[test]
    fn a_notch_is_filled() {
        // An L of 3×3 with an arm of one pixel: the hull adds the pixel on the diagonal.
        assert_eq!(convex_area(&[(0, 0), (0, 0), (0, 2)]), 6);
    }
}

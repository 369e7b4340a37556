//! A label image while objects of others' making are drawn on it.
//!
//! Drawing has a budget, because a short document can ask for endless work: ten thousand objects,
//! each of which covers the whole frame, are a few hundred kilobytes. Objects of one frame may
//! cover it [`OVERLAPS`] times; what wants more is refused.

use reticle_domain::label_image::LabelImage;

/// How often the objects of a frame may cover all of it. Cells overlap two or three times where
/// they overlap at all.
const OVERLAPS: u64 = 16;

/// Work that is allowed in the smallest frame, so that small frames with many corners are drawn.
const LEAST_WORK: u64 = 1 << 20;

/// Farthest from the image that a corner may be, pixels.
const FARTHEST: f64 = 1e7;

/// The label image of one frame, as far as it is drawn.
#[derive(Debug)]
pub(super) struct Canvas {
    width: u32,
    height: u32,
    labels: Vec<u32>,
    left: u64,
}

impl Canvas {
    /// An empty one. The size is that of a frame, or was checked.
    pub(super) fn new((width, height): (u32, u32)) -> Self {
        let pixels = u64::from(width) * u64::from(height);
        let left = pixels.saturating_mul(OVERLAPS).saturating_add(LEAST_WORK);
        Self { width, height, labels: vec![0; width as usize * height as usize], left }
    }

    pub(super) fn width(&self) -> u32 {
        self.width
    }

    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// Takes so many steps of work from the budget.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(steps as u64).ok_or_else(|| {
            format!("its objects cover the frame more than {OVERLAPS} times; is it damaged?")
        })?;
        Ok(())
    }

    /// All pixels, row by row.
    pub(super) fn pixels(&mut self) -> &mut [u32] {
        &mut self.labels
    }

    /// What was drawn.
    pub(super) fn finish(self) -> Result<LabelImage, String> {
        LabelImage::of_others(self.width, self.height, self.labels)
            .map_err(|error| error.to_string())
    }
}

/// A corner of a polygon, if it can be one.
pub(super) fn corner(x: f64, y: f64) -> Result<(f64, f64), String> {
    if x.abs() <= FARTHEST && y.abs() <= FARTHEST {
        return Ok((x, y));
    }
    Err(format!("has a corner at ({x}, {y}); corners are pixels of the image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corner_is_a_number_near_the_image() {
        assert_eq!(corner(-3.5, 1e7), Ok((-3.5, 1e7)));
        for x in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.1e7, -1e300] {
            assert!(corner(x, 0.0).is_err() && corner(0.0, x).is_err(), "{x}");
        }
    }
}

//! A label image: 0 is background, 1..n are objects.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// Labels hashed at a time.
const HASH_PIECE: usize = 16 * 1024;

/// Pixels of a piece from which on it may be an object of its own.
const MASK_PIECE: usize = 9;

/// Labels, row-major, `width × height` of them, contiguous from 1.
#[derive(Clone, PartialEq, Eq)]
pub struct LabelImage {
    width: u32,
    height: u32,
    count: u32,
    labels: Vec<u32>,
}

impl std::fmt::Debug for LabelImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LabelImage {}×{}, {} objects", self.width, self.height, self.count)
    }
}

/// Why numbers are not a label image.
#[derive(Debug, thiserror::Error)]
#[error("a label image of {width}×{height} needs {} labels, not {found}", u64::from(*width) * u64::from(*height))]
pub struct WrongLabelCount {
    width: u32,
    height: u32,
    found: usize,
}

impl LabelImage {
    /// Takes labels as they are; `count` becomes the largest one.
    ///
    /// # Errors
    /// When there are not `width × height` of them.
    pub fn new(width: u32, height: u32, labels: Vec<u32>) -> Result<Self, WrongLabelCount> {
        if labels.len() != width as usize * height as usize {
            return Err(WrongLabelCount { width, height, found: labels.len() });
        }
        let count = labels.iter().copied().max().unwrap_or(0);
        Ok(Self { width, height, count, labels })
    }

    /// Takes labels of others' making: as they are, except where one is larger than the image has
    /// pixels. Then they are numbered anew in reading order, because tables by label would be mostly
    /// holes.
    ///
    /// # Errors
    /// When there are not `width × height` of them.
    pub fn of_others(
        width: u32,
        height: u32,
        mut labels: Vec<u32>,
    ) -> Result<Self, WrongLabelCount> {
        if labels.iter().any(|&label| label as usize > labels.len()) {
            let mut numbers = HashMap::new();
            for label in labels.iter_mut().filter(|label| **label != 0) {
                let next = u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX);
                *label = *numbers.entry(*label).or_insert(next);
            }
        }
        Self::new(width, height, labels)
    }

    /// Takes labels that are known to be 1 to `count`, each at least once, without looking.
    ///
    /// # Panics
    /// When there are not `width × height` of them.
    pub fn numbered(width: u32, height: u32, count: u32, labels: Vec<u32>) -> Self {
        assert_eq!(labels.len(), width as usize * height as usize, "one label for each pixel");
        let image = Self { width, height, count, labels };
        debug_assert!(image.is_contiguous(), "labels from 1 to {count}");
        image
    }

    /// An image of background.
    pub fn empty(width: u32, height: u32) -> Self {
        let labels = vec![0; width as usize * height as usize];
        Self { width, height, count: 0, labels }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The largest label, which is the number of objects.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The labels, row-major.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// SHA-256 of the labels, row-major and little-endian: 2 bytes each where there are fewer
    /// than 65,536 objects, else 4; the bytes of the label file that a scientist opens.
    pub fn sha256(&self) -> [u8; 32] {
        // In pieces, so that a large image is not copied.
        let mut hash = Sha256::new();
        let mut bytes = Vec::with_capacity(4 * HASH_PIECE);
        for piece in self.labels.chunks(HASH_PIECE) {
            bytes.clear();
            for label in piece {
                match u16::try_from(*label) {
                    Ok(label) if self.count < 65_536 => bytes.extend(label.to_le_bytes()),
                    _ => bytes.extend(label.to_le_bytes()),
                }
            }
            hash.update(&bytes);
        }
        hash.finalize().into()
    }

    /// Only the objects whose label `keeps` is true of, renumbered; the rest becomes background.
    #[must_use]
    pub fn only(mut self, keeps: impl Fn(u32) -> bool) -> Self {
        for label in &mut self.labels {
            if *label != 0 && !keeps(*label) {
                *label = 0;
            }
        }
        self.relabelled()
    }

    /// Renumbers to 1..n in the order of first appearance, row by row.
    #[must_use]
    pub fn relabelled(mut self) -> Self {
        let mut next = 0;
        let mut new = vec![0_u32; self.count as usize + 1];
        for label in &mut self.labels {
            if *label != 0 {
                let slot = &mut new[*label as usize];
                if *slot == 0 {
                    next += 1;
                    *slot = next;
                }
                *label = *slot;
            }
        }
        self.count = next;
        self
    }

    /// Whether it looks like a mask, in which all objects bear one label: how many pieces of it do
    /// not touch, where there is but one label and more than one such piece. Specks do not count:
    /// an object may have lost a corner.
    pub fn as_mask(&self) -> Option<usize> {
        let mut present = self.labels.iter().copied().filter(|&label| label != 0);
        let label = present.next()?;
        if present.any(|other| other != label) {
            return None;
        }
        let pieces = self.pieces(MASK_PIECE);
        (pieces > 1).then_some(pieces)
    }

    /// How many pieces of labelled pixels, connected by edges or corners, have so many pixels.
    fn pieces(&self, least: usize) -> usize {
        let (width, height) = (self.width as usize, self.height as usize);
        let mut is_new: Vec<bool> = self.labels.iter().map(|&label| label != 0).collect();
        let mut pieces = 0;
        let mut waiting = Vec::new();
        for start in 0..is_new.len() {
            if !std::mem::take(&mut is_new[start]) {
                continue;
            }
            let mut size = 0;
            waiting.push(start);
            while let Some(at) = waiting.pop() {
                size += 1;
                let (x, y) = (at % width, at / width);
                for row in y.saturating_sub(1)..(y + 2).min(height) {
                    for column in x.saturating_sub(1)..(x + 2).min(width) {
                        let neighbour = row * width + column;
                        if std::mem::take(&mut is_new[neighbour]) {
                            waiting.push(neighbour);
                        }
                    }
                }
            }
            pieces += usize::from(size >= least);
        }
        pieces
    }

    /// Whether every label in 1..=count occurs.
    pub fn is_contiguous(&self) -> bool {
        let mut seen = vec![false; self.count as usize + 1];
        for &label in &self.labels {
            seen[label as usize] = true;
        }
        seen.iter().skip(1).all(|&seen| seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relabelling_makes_labels_contiguous_in_reading_order() {
        let image = LabelImage::new(3, 2, vec![0, 7, 7, 2, 0, 9]).unwrap();
        assert!(!image.is_contiguous());
        let image = image.relabelled();
        assert_eq!(image.labels(), [0, 1, 1, 2, 0, 3]);
        assert_eq!(image.count(), 3);
        assert!(image.is_contiguous());
    }

    #[test]
    fn labels_of_others_stay_unless_one_is_larger_than_there_are_pixels() {
        let image = LabelImage::of_others(3, 2, vec![0, 6, 6, 2, 0, 6]).unwrap();
        assert_eq!(image.labels(), [0, 6, 6, 2, 0, 6]);
        let image = LabelImage::of_others(3, 1, vec![0, 4_000_000_000, 7]).unwrap();
        assert_eq!(image.labels(), [0, 1, 2]);
    }

    #[test]
    fn the_hash_is_over_16_bits_until_there_are_too_many_objects() {
        let small = LabelImage::new(2, 1, vec![1, 0x0302]).unwrap();
        assert_eq!(small.sha256(), <[u8; 32]>::from(Sha256::digest([1, 0, 2, 3])));
        let large = LabelImage::new(2, 1, vec![1, 0x0001_0000]).unwrap();
        assert_eq!(large.sha256(), <[u8; 32]>::from(Sha256::digest([1, 0, 0, 0, 0, 0, 1, 0])));
    }

    #[test]
    fn a_mask_is_one_label_in_pieces_that_do_not_touch() {
        let disc = |x: usize, y: usize| {
            let far = |cx: usize, cy: usize| x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2);
            (usize::from(far(6, 6) <= 16), usize::from(far(20, 6) <= 16))
        };
        let image = |label: fn((usize, usize)) -> usize| {
            let labels = (0..28 * 12).map(|at| label(disc(at % 28, at / 28)) as u32).collect();
            LabelImage::new(28, 12, labels).unwrap()
        };
        assert_eq!(image(|(a, b)| (a + b) * 255).as_mask(), Some(2));
        assert_eq!(image(|(a, b)| a + b).as_mask(), Some(2));
        assert_eq!(image(|(a, b)| a + 2 * b).as_mask(), None);
        assert_eq!(image(|(a, _)| a * 255).as_mask(), None, "one object is its own mask");
        assert_eq!(LabelImage::empty(9, 9).as_mask(), None);
        // A corner that was cut off, and pieces that meet at a corner.
        let mut cut = image(|(a, _)| a).labels().to_vec();
        cut[27] = 1;
        assert_eq!(LabelImage::new(28, 12, cut).unwrap().as_mask(), None);
        let corner = (0..100).map(|at| u32::from((at % 10 < 5) == (at / 10 < 5))).collect();
        assert_eq!(LabelImage::new(10, 10, corner).unwrap().as_mask(), None);
    }

    #[test]
    fn a_wrong_number_of_labels_is_refused() {
        let error = LabelImage::new(3, 2, vec![0; 5]).unwrap_err().to_string();
        assert_eq!(error, "a label image of 3×2 needs 6 labels, not 5");
    }
}

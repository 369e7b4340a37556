//! Which pages of a file were given before.
//!
//! A page is its pixels in its file: that what stands around them was written again (a stack that
//! grows gets new directories, a viewer changes tags) does not make it another, and neither does
//! another place in the file. Two equal pages in a file are two, so equal ones are counted.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use reticle_base::ids::FrameId;
use reticle_domain::frame::Pixels;
use reticle_domain::taken::TakenPage;

/// What is to be done with a page that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It was given before and has not moved.
    Known,
    /// It was given before, and stood elsewhere in the file.
    Moved(TakenPage),
    /// It is to be given.
    New(TakenPage),
}

/// Pages that were given of a file, less those that were found in it again.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_content: HashMap<[u8; 32], Vec<TakenPage>>,
    frames: HashSet<FrameId>,
}

impl Known {
    pub(super) fn of(pages: &[TakenPage]) -> Self {
        let mut known = Self::default();
        for page in pages {
            known.frames.insert(page.frame);
            known.by_content.entry(page.sha256).or_default().push(*page);
        }
        known
    }

    /// Looks for a page that was read; one that was given before is found once. `usual` is the id of
    /// a new page's frame, unless another page has it.
    pub(super) fn find(&mut self, index: usize, sha256: [u8; 32], usual: FrameId) -> Found {
        let equal = self.by_content.get_mut(&sha256);
        let before = equal.filter(|equal| !equal.is_empty()).map(|equal| {
            let at = equal.iter().position(|page| page.index == index).unwrap_or(0);
            equal.remove(at)
        });
        match before {
            Some(page) if !page.done => Found::New(TakenPage { index, ..page }),
            Some(page) if page.index == index => Found::Known,
            Some(page) => Found::Moved(TakenPage { index, ..page }),
            None => {
                let frame = if self.frames.insert(usual) { usual } else { FrameId::new() };
                Found::New(TakenPage { index, sha256, frame, done: false })
            }
        }
    }
}

/// SHA-256 of what is seen of a page: its size, its depth and its pixels.
pub(super) fn sha256_of(width: u32, height: u32, bit_depth: u8, pixels: &Pixels) -> [u8; 32] {
    /// Pixels of 16 bits that become bytes at a time.
    const PIECE: usize = 16 * 1024;
    let mut hasher = Sha256::new();
    hasher.update(width.to_le_bytes());
    hasher.update(height.to_le_bytes());
    hasher.update([bit_depth]);
    match pixels {
        Pixels::U8(pixels) => hasher.update(pixels),
        Pixels::U16(pixels) => {
            let mut bytes = Vec::with_capacity(2 * PIECE);
            for piece in pixels.chunks(PIECE) {
                bytes.clear();
                bytes.extend(piece.iter().flat_map(|pixel| pixel.to_le_bytes()));
                hasher.update(&bytes);
            }
        }
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(index: usize, content: u8) -> TakenPage {
        let frame = first().later_by(index as u64);
        TakenPage { index, sha256: [content; 32], frame, done: true }
    }

    fn first() -> FrameId {
        FrameId::from_bytes([7; 16])
    }

    fn found(known: &mut Known, index: usize, content: u8) -> Found {
        known.find(index, [content; 32], first().later_by(index as u64))
    }

    #[test]
    fn of_a_stack_that_grew_only_the_new_pages_are_given() {
        let mut known = Known::of(&[taken(0, 1), taken(1, 2)]);
        assert_eq!(found(&mut known, 0, 1), Found::Known);
        assert_eq!(found(&mut known, 1, 2), Found::Known);
        assert!(matches!(found(&mut known, 2, 3), Found::New(TakenPage { index: 2, .. })));
    }

    #[test]
    fn equal_pages_are_counted() {
        let mut known = Known::of(&[taken(0, 1), taken(1, 1)]);
        assert_eq!(found(&mut known, 0, 1), Found::Known);
        assert_eq!(found(&mut known, 1, 1), Found::Known);
        assert!(matches!(found(&mut known, 2, 1), Found::New(_)));
    }

    #[test]
    fn a_page_that_another_was_put_before_is_not_given_again() {
        let mut known = Known::of(&[taken(0, 1)]);
        let Found::New(new) = found(&mut known, 0, 9) else { panic!() };
        assert_ne!(new.frame, taken(0, 1).frame, "two pages must not be one frame");
        assert_eq!(found(&mut known, 1, 1), Found::Moved(TakenPage { index: 1, ..taken(0, 1) }));
    }

    #[test]
    fn a_page_whose_frame_was_lost_is_given_again_under_its_id() {
        let lost = TakenPage { done: false, ..taken(1, 2) };
        let mut known = Known::of(&[taken(0, 1), lost]);
        assert_eq!(found(&mut known, 1, 2), Found::New(lost));
    }

    #[test]
    fn a_page_is_its_size_its_depth_and_its_pixels() {
        let pages = [
            (4, 8, Pixels::U8(vec![0; 4])),
            (2, 8, Pixels::U8(vec![0; 4])),
            (2, 16, Pixels::U16(vec![0; 2])),
            (2, 12, Pixels::U16(vec![0; 2])),
            (2, 16, Pixels::U16(vec![1, 0])),
            (2, 16, Pixels::U16(vec![0, 1])),
        ];
        let hashes: HashSet<_> = pages
            .iter()
            .map(|(width, depth, pixels)| sha256_of(*width, 1, *depth, pixels))
            .collect();
        assert_eq!(hashes.len(), pages.len());
    }
}

//! How the trainer lays out what flows through the network: channels in blocks of 16, each
//! block a plane of pixels with a border of zeros.
//!
//! A [`Block`] is 16 channels of one pixel: one AVX-512 register, two of AVX2, four of NEON.
//! Neighbouring pixels of a plane lie side by side, so a kernel reads a run of pixels as one
//! slice and needs one bounds check for it. The border makes a 3×3 convolution read nothing
//! but the plane itself. Whoever writes into a plane leaves its border alone.

/// 16 channels of one pixel, or one weight for each of 16 output channels.
pub use reticle_segment::engine::Block;

/// Channels in a [`Block`].
pub const LANES: usize = 16;

/// What one layer gives for one image: `16 · blocks` channels of `height × width` pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planes {
    /// Channels over [`LANES`].
    pub blocks: usize,
    /// Rows, without the border.
    pub height: usize,
    /// Pixels a row, without the border.
    pub width: usize,
    data: Vec<Block>,
}

impl Planes {
    /// All zero.
    pub fn zeros(blocks: usize, height: usize, width: usize) -> Self {
        let data = vec![Block::ZERO; blocks * (height + 2) * (width + 2)];
        Self { blocks, height, width, data }
    }

    /// One block's plane with its border: `height + 2` rows of `width + 2` pixels.
    pub fn plane(&self, block: usize) -> &[Block] {
        let size = (self.height + 2) * (self.width + 2);
        &self.data[block * size..(block + 1) * size]
    }

    /// A row without its border.
    pub fn row(&self, block: usize, y: usize) -> &[Block] {
        let start = self.start(block, y);
        &self.data[start..start + self.width]
    }

    /// A row without its border, to be written.
    pub fn row_mut(&mut self, block: usize, y: usize) -> &mut [Block] {
        let start = self.start(block, y);
        let width = self.width;
        &mut self.data[start..start + width]
    }

    /// Every row of every block, without borders, with its block and row number.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let height = self.height;
        (0..self.blocks).flat_map(move |block| (0..height).map(move |y| (block, y)))
    }

    /// Makes all values zero.
    pub fn clear(&mut self) {
        self.data.fill(Block::ZERO);
    }

    fn start(&self, block: usize, y: usize) -> usize {
        (block * (self.height + 2) + y + 1) * (self.width + 2) + 1
    }
}

//! Feature maps in memory: sixteen channels of a pixel side by side, one plane for every
//! sixteen channels.
//!
//! Index order is `[channel / 16][y][x][channel % 16]`, so neighbours in `x` lie at a distance that
//! the compiler knows, and a kernel reads a run of pixels as one slice. A margin of zeros around
//! every plane means that no kernel tests for edges.

use crate::block::{Block, CHANNELS};

/// How many channels, and how many pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Channels, without those that fill up the last block.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl Shape {
    /// Planes of sixteen channels.
    #[inline(always)]
    pub fn blocks(self) -> usize {
        self.channels.div_ceil(CHANNELS)
    }
}

/// A feature map. The margin and what fills up the last block stay zero: nobody writes there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planes {
    shape: Option<Shape>,
    margin: usize,
    rows: usize,
    columns: usize,
    data: Vec<Block>,
}

/// Heights and widths are filled up with zeros to a multiple of this, an output tile of the engine's
/// 3×3 convolution.
pub(crate) const TILE: usize = 4;

impl Planes {
    /// Zeros, with a margin of at least `margin` pixels on every side.
    pub fn new(shape: Shape, margin: usize) -> Self {
        let rows = shape.height.next_multiple_of(TILE) + 2 * margin;
        let columns = shape.width.next_multiple_of(TILE) + 2 * margin;
        let data = vec![Block::ZERO; shape.blocks() * rows * columns];
        Self { shape: Some(shape), margin, rows, columns, data }
    }

    /// A map without margin from `[channel][y][x]`.
    pub fn from_values(shape: Shape, values: &[f32]) -> Self {
        let mut planes = Self::new(shape, 0);
        for (line, values) in values.chunks_exact(shape.width).enumerate() {
            let (channel, y) = (line / shape.height, line % shape.height);
            let row = planes.row_mut(channel / CHANNELS, y);
            for (pixel, value) in row.iter_mut().zip(values) {
                pixel.0[channel % CHANNELS] = *value;
            }
        }
        planes
    }

    /// Channels and pixels.
    ///
    /// # Panics
    /// For [`Planes::default`], which only holds a place.
    #[inline(always)]
    pub fn shape(&self) -> Shape {
        self.shape.expect("no map is used while another one holds its place")
    }

    /// Row `y` of the sixteen channels from `16 * block`.
    #[inline(always)]
    pub fn row(&self, block: usize, y: usize) -> &[Block] {
        let width = self.shape().width;
        &self.data[self.start(block, y)..][..width]
    }

    /// As [`Self::row`], to be written.
    #[inline(always)]
    pub fn row_mut(&mut self, block: usize, y: usize) -> &mut [Block] {
        let width = self.shape().width;
        let start = self.start(block, y);
        &mut self.data[start..][..width]
    }

    /// Block and row number of every row of every block.
    #[inline]
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let shape = self.shape();
        (0..shape.blocks()).flat_map(move |block| (0..shape.height).map(move |y| (block, y)))
    }

    /// Makes all values zero.
    pub fn clear(&mut self) {
        self.data.fill(Block::ZERO);
    }

    /// A row with its margin, counted from the top of the margin. Item 0 is the pixel at
    /// `x = -margin`.
    #[inline(always)]
    pub(crate) fn padded_row(&self, block: usize, row: usize) -> &[Block] {
        &self.data[(block * self.rows + row) * self.columns..][..self.columns]
    }

    /// All rows of one block with the margin, [`Self::columns`] from one row to the next.
    #[inline(always)]
    pub(crate) fn padded_plane(&self, block: usize) -> &[Block] {
        let size = self.rows * self.columns;
        &self.data[block * size..][..size]
    }

    /// Pixels from one row to the next.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// `P` pixels from `x` on, of a row of which they may pass the end into the margin.
    #[inline(always)]
    pub(crate) fn pixels<const P: usize>(&self, block: usize, y: usize, x: usize) -> &[Block; P] {
        let start = self.start(block, y) + x;
        self.data[start..].first_chunk().expect("no more than a margin past the end")
    }

    /// As [`Self::pixels`], to be written.
    #[inline(always)]
    pub(crate) fn pixels_mut<const P: usize>(
        &mut self,
        block: usize,
        y: usize,
        x: usize,
    ) -> &mut [Block; P] {
        let start = self.start(block, y) + x;
        self.data[start..].first_chunk_mut().expect("no more than a margin past the end")
    }

    /// Place of the pixel at `x = 0`.
    #[inline(always)]
    fn start(&self, block: usize, y: usize) -> usize {
        (block * self.rows + y + self.margin) * self.columns + self.margin
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// Pixels of zeros on every side.
    #[inline(always)]
    pub(crate) fn margin(&self) -> usize {
        self.margin
    }
}

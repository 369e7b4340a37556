//! Image files in and out: frames as vendors write them, label images as scientists open them.

/// Pixels above which an image is refused unless the caller allows more: 8192².
///
/// A frame of this size needs about 1.5 GB while it is segmented (label image of 4 bytes and
/// three maps of 4 bytes a pixel); beyond it a box of 4 GB is in danger.
pub const MAX_PIXELS: u64 = 8192 * 8192;

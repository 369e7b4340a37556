//! A frame for people to see, and how its picture is made.

use reticle_domain::segmentation::Segmentation;

/// A frame with its segmentation, as the live view shows it.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    /// The answer; it holds its frame.
    pub segmentation: Segmentation,
    /// AP at IoU 0.5 against the truth, where the source knows it.
    pub ap50: Option<f64>,
    /// Objects in the truth, where the source knows it.
    pub true_objects: Option<u32>,
}

/// How pictures are made for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    /// Longest edge in pixels.
    pub(crate) longest: u32,
    /// JPEG quality, 1 to 100.
    pub(crate) quality: u8,
}

//! One image as a source gave it.

use sha2::{Digest, Sha256};

use super::label_image::LabelImage;
use super::pixel_size::{PixelSize, PixelSizeSource};
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;

/// Grey values, row-major, `width × height` of them.
#[derive(Clone, PartialEq, Eq)]
pub enum Pixels {
    /// 8 bits a pixel.
    U8(Vec<u8>),
    /// 16 bits a pixel, of which the lowest `bit_depth` of the frame are used.
    U16(Vec<u16>),
}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = if matches!(self, Self::U8(_)) { 8 } else { 16 };
        write!(f, "{} × {bits} bit", self.len())
    }
}

impl Pixels {
    /// Number of pixels.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
        }
    }

    /// Whether there is no pixel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of pixel `index`, whatever the width of the type.
    pub fn get(&self, index: usize) -> u16 {
        match self {
            Self::U8(values) => u16::from(values[index]),
            Self::U16(values) => values[index],
        }
    }

    /// Bytes a pixel takes: 1 or 2.
    pub fn bytes_per_pixel(&self) -> usize {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
        }
    }

    /// The values as little-endian bytes, row-major: what is hashed and what is stored.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.clone(),
            Self::U16(values) => {
                let mut bytes = vec![0; values.len() * 2];
                for (pair, value) in bytes.chunks_exact_mut(2).zip(values) {
                    pair.copy_from_slice(&value.to_le_bytes());
                }
                bytes
            }
        }
    }

    /// SHA-256 of [`Pixels::to_le_bytes`].
    pub fn sha256(&self) -> [u8; 32] {
        match self {
            Self::U8(values) => Sha256::digest(values).into(),
            Self::U16(_) => Sha256::digest(self.to_le_bytes()).into(),
        }
    }
}

/// Where on the plate a frame was taken. What a source does not know is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Name of the plate or slide.
    pub plate: Option<String>,
    /// Well, as `C07`.
    pub well: Option<String>,
    /// Field within the well, from 1.
    pub field: Option<u32>,
}

/// One image, immutable once captured. Shared as `Arc<Frame>`.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Name for ever.
    pub id: FrameId,
    /// Number that the source counted, from 0; a jump means frames the source lost.
    pub sequence: u64,
    /// When the first pixel was there, as near as the source can tell.
    pub captured: Stamp,
    /// Exposure in microseconds, where the source knows it.
    pub exposure_us: Option<u32>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel: 8, 10, 12, 14 or 16.
    pub bit_depth: u8,
    /// The grey values.
    pub pixels: Pixels,
    /// SHA-256 of the grey values, see [`Pixels::sha256`].
    pub sha256: [u8; 32],
    /// Edge of a pixel in the sample, in µm, where known.
    pub pixel_size_um: Option<f64>,
    /// Who stated that size.
    pub pixel_size_source: Option<PixelSizeSource>,
    /// What a person should know of it, see [`PixelSize::note`].
    pub pixel_size_note: Option<String>,
    /// Where it was taken.
    pub place: Place,
    /// File the frame came from (with `#page` for a page of several), where it was a file.
    pub origin: Option<String>,
    /// The right answer, which only a simulated microscope knows.
    pub truth: Option<std::sync::Arc<LabelImage>>,
}

/// What a source knows of a frame, before it has an id and a hash.
#[derive(Clone, Debug)]
pub struct Shot {
    /// See [`Frame::sequence`].
    pub sequence: u64,
    /// See [`Frame::captured`].
    pub captured: Stamp,
    /// See [`Frame::exposure_us`].
    pub exposure_us: Option<u32>,
    /// See [`Frame::width`].
    pub width: u32,
    /// See [`Frame::height`].
    pub height: u32,
    /// See [`Frame::bit_depth`].
    pub bit_depth: u8,
    /// The grey values.
    pub pixels: Pixels,
    /// See [`Frame::pixel_size_um`].
    pub pixel_size_um: Option<f64>,
    /// See [`Frame::pixel_size_source`].
    pub pixel_size_source: Option<PixelSizeSource>,
    /// See [`Frame::pixel_size_note`].
    pub pixel_size_note: Option<String>,
    /// See [`Frame::place`].
    pub place: Place,
    /// See [`Frame::origin`].
    pub origin: Option<String>,
    /// See [`Frame::truth`].
    pub truth: Option<std::sync::Arc<LabelImage>>,
}

/// Why a [`Shot`] is not a frame.
#[derive(Debug, thiserror::Error)]
#[error("{width}×{height} pixels were announced but {found} came; the source is at fault")]
pub struct WrongPixelCount {
    width: u32,
    height: u32,
    found: usize,
}

impl Shot {
    /// The shot with the pixel size that a person configured, where one did, before what the file
    /// says.
    pub fn with_configured_pixel_size(self, um: Option<f64>) -> Self {
        let said = PixelSize {
            um: self.pixel_size_um,
            source: self.pixel_size_source,
            note: self.pixel_size_note,
        };
        let PixelSize { um, source, note } = said.configured(um);
        Self { pixel_size_um: um, pixel_size_source: source, pixel_size_note: note, ..self }
    }

    /// Gives the shot its id and its hash.
    ///
    /// # Errors
    /// When the number of pixels is not `width × height`.
    pub fn into_frame(self) -> Result<Frame, WrongPixelCount> {
        if self.pixels.len() != self.width as usize * self.height as usize {
            return Err(WrongPixelCount {
                width: self.width,
                height: self.height,
                found: self.pixels.len(),
            });
        }
        Ok(Frame {
            id: FrameId::new(),
            sequence: self.sequence,
            captured: self.captured,
            exposure_us: self.exposure_us,
            width: self.width,
            height: self.height,
            bit_depth: self.bit_depth,
            sha256: self.pixels.sha256(),
            pixels: self.pixels,
            pixel_size_um: self.pixel_size_um,
            pixel_size_source: self.pixel_size_source,
            pixel_size_note: self.pixel_size_note,
            place: self.place,
            origin: self.origin,
            truth: self.truth,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_over_little_endian_pixels() {
        // printf '\x01\x02\x03\x04' | sha256sum
        let expected = "9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a";
        assert_eq!(hex::encode(Pixels::U8(vec![1, 2, 3, 4]).sha256()), expected);
        assert_eq!(hex::encode(Pixels::U16(vec![0x0201, 0x0403]).sha256()), expected);
    }
}

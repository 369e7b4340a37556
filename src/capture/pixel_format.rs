//! What cameras send, and how it becomes mono.
//!
//! [`PixelFormat`] names the formats that are read; [`PixelFormat::to_mono`] turns one buffer
//! into grey values, honours the driver's line stride, and refuses buffers that are too short
//! or hold values that the format cannot have.
//!
//! | format           | grey value                                      | bits          |
//! |------------------|-------------------------------------------------|---------------|
//! | GREY             | the byte                                        | 8             |
//! | Y10, Y12, Y16    | the little-endian 16-bit word                   | 10, 12, 16    |
//! | YUYV             | the Y byte, in the range that the camera chose  | 8             |
//! | MJPG             | luma of the JPEG                                | 8             |
//! | Bayer, any order | (R + 2G + B) / 4 around the pixel, see [`bayer`]| 8, 10, 12, 16 |
//!
//! Nothing is stretched, gamma-corrected or brought from "video" to full range: numbers that
//! are measured must be the camera's own.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use reticle_domain::frame::Pixels;

/// A format that a camera sends and that we read.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub enum PixelFormat {
    /// Mono of so many used bits: 8 in bytes; 10, 12 or 16 in little-endian words.
    Mono(Depth),
    /// Raw Bayer of so many used bits, stored likewise.
    Bayer(BayerOrder, Depth),
    /// 4:2:2 colour, of which the luma is taken.
    Yuyv,
    /// JPEG images, of which the luma is taken.
    Mjpg,
}

/// Used bits of a raw value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// 8 bits, in bytes.
    D8,
    /// 10 bits, in 16-bit words.
    D10,
    /// 12 bits, in 16-bit words.
    D12,
    /// 16 bits.
    D16,
}

impl Depth {
    fn bits(self) -> u8 {
        match self {
            Self::D8 => 8,
            Self::D10 => 10,
            Self::D12 => 12,
            Self::D16 => 16,
        }
    }
}

/// Colours of the first two pixels of the first two lines of a Bayer sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BayerOrder {
    /// RG over GB.
    Rggb,
    /// GR over BG.
    Grbg,
    /// GB over RG.
    Gbrg,
    /// BG over GR.
    Bggr,
}

use BayerOrder::{Bggr, Gbrg, Grbg, Rggb};
use Depth::{D8, D10, D12, D16};

/// Every format with the kernel's four-character code and its own name for it, in the order
/// of preference: mono before colour (a colour mosaic costs sharpness), deep before shallow,
/// raw before compressed.
const FORMATS: [(PixelFormat, [u8; 4], &str); 22] = [
    (PixelFormat::Mono(D16), *b"Y16 ", "Y16"),
    (PixelFormat::Mono(D12), *b"Y12 ", "Y12"),
    (PixelFormat::Mono(D10), *b"Y10 ", "Y10"),
    (PixelFormat::Mono(D8), *b"GREY", "GREY"),
    (PixelFormat::Bayer(Rggb, D16), *b"RG16", "SRGGB16"),
    (PixelFormat::Bayer(Grbg, D16), *b"GR16", "SGRBG16"),
    (PixelFormat::Bayer(Gbrg, D16), *b"GB16", "SGBRG16"),
    (PixelFormat::Bayer(Bggr, D16), *b"BYR2", "SBGGR16"),
    (PixelFormat::Bayer(Rggb, D12), *b"RG12", "SRGGB12"),
    (PixelFormat::Bayer(Grbg, D12), *b"BA12", "SGRBG12"),
    (PixelFormat::Bayer(Gbrg, D12), *b"GB12", "SGBRG12"),
    (PixelFormat::Bayer(Bggr, D12), *b"BG12", "SBGGR12"),
    (PixelFormat::Bayer(Rggb, D10), *b"RG10", "SRGGB10"),
    (PixelFormat::Bayer(Grbg, D10), *b"BA10", "SGRBG10"),
    (PixelFormat::Bayer(Gbrg, D10), *b"GB10", "SGBRG10"),
    (PixelFormat::Bayer(Bggr, D10), *b"BG10", "SBGGR10"),
    (PixelFormat::Bayer(Rggb, D8), *b"RGGB", "SRGGB8"),
    (PixelFormat::Bayer(Grbg, D8), *b"GRBG", "SGRBG8"),
    (PixelFormat::Bayer(Gbrg, D8), *b"GBRG", "SGBRG8"),
    (PixelFormat::Bayer(Bggr, D8), *b"BA81", "SBGGR8"),
    (PixelFormat::Yuyv, *b"YUYV", "YUYV"),
    (PixelFormat::Mjpg, *b"MJPG", "MJPG"),
];

/// Why a buffer is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Fewer bytes than the size of the image needs.
    #[error(
        "the camera sent {found} bytes where an image has {needed}; a cable or hub may lose data"
    )]
    Short {
        /// Bytes that came.
        found: usize,
        /// Bytes that the image has.
        needed: usize,
    },
    /// A value above the format's range.
    #[error(
        "the camera sent the value {value} in a format of {bits} bits; its driver is wrong, \
         choose another pixel_format (`reticle camera formats` shows them)"
    )]
    Range {
        /// The value.
        value: u16,
        /// Bits that the format has.
        bits: u8,
    },
    /// A JPEG image that cannot be decoded, or of another size than agreed.
    #[error("the camera sent a broken JPEG image: {0}")]
    Jpeg(String),
}

impl PixelFormat {
    /// Every format, the most wanted first.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|(format, ..)| *format)
    }

    /// The format with this four-character code; `None` if it is not one that we read.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        FORMATS.iter().find(|(_, code, _)| *code == fourcc).map(|(format, ..)| *format)
    }

    /// The kernel's four-character code, padded with spaces.
    pub fn fourcc(self) -> [u8; 4] {
        self.row().1
    }

    /// Used bits of the grey values it gives.
    pub fn bit_depth(self) -> u8 {
        match self {
            Self::Mono(depth) | Self::Bayer(_, depth) => depth.bits(),
            Self::Yuyv | Self::Mjpg => 8,
        }
    }

    /// Turns one buffer (the bytes that the driver says are used, lines `stride` bytes apart)
    /// into `width × height` grey values of [`PixelFormat::bit_depth`] bits.
    ///
    /// # Errors
    /// When the buffer is no such image, see [`Unfit`].
    pub fn to_mono(
        self,
        bytes: &[u8],
        width: u32,
        height: u32,
        stride: u32,
    ) -> Result<Pixels, Unfit> {
        let (width, height, stride) = (width as usize, height as usize, stride as usize);
        match self {
            Self::Mono(D8) => Ok(Pixels::U8(lines(bytes, width, height, stride)?.into_owned())),
            Self::Mono(depth) => Ok(Pixels::U16(words(bytes, width, height, stride, depth)?)),
            Self::Bayer(_, D8) => {
                Ok(Pixels::U8(bayer(&lines(bytes, width, height, stride)?, width, height)))
            }
            Self::Bayer(_, depth) => {
                let raw = words(bytes, width, height, stride, depth)?;
                Ok(Pixels::U16(bayer(&raw, width, height)))
            }
            Self::Yuyv => {
                let pairs = lines(bytes, width * 2, height, stride)?;
                Ok(Pixels::U8(pairs.iter().step_by(2).copied().collect()))
            }
            Self::Mjpg => jpeg_luma(bytes, width, height).map(Pixels::U8),
        }
    }

    fn row(self) -> &'static (Self, [u8; 4], &'static str) {
        FORMATS
            .iter()
            .find(|(format, ..)| *format == self)
            .expect("the table has every format that can be made: a test counts them")
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

/// A text that names no format that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no pixel format that is read; choose one of {names}", names = names())]
pub struct UnknownFormat(String);

fn names() -> String {
    FORMATS.iter().map(|(_, _, name)| *name).collect::<Vec<_>>().join(", ")
}

impl FromStr for PixelFormat {
    type Err = UnknownFormat;

    /// Reads the kernel's name (`SRGGB12`) or the four-character code (`RG12`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = text.trim().to_ascii_uppercase();
        FORMATS
            .iter()
            .find(|(_, code, name)| *name == wanted || code.trim_ascii_end() == wanted.as_bytes())
            .map(|(format, ..)| *format)
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

impl TryFrom<String> for PixelFormat {
    type Error = UnknownFormat;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PixelFormat> for String {
    fn from(format: PixelFormat) -> Self {
        format.to_string()
    }
}

/// `height` lines of `line` bytes, taken from lines that lie `stride` bytes apart (zero: close
/// together). The last line needs no padding: some drivers leave it out.
fn lines(bytes: &[u8], line: usize, height: usize, stride: usize) -> Result<Cow<'_, [u8]>, Unfit> {
    let stride = stride.max(line);
    let needed = if height == 0 { 0 } else { (height - 1) * stride + line };
    let Some(image) = bytes.get(..needed) else {
        return Err(Unfit::Short { found: bytes.len(), needed });
    };
    if stride == line {
        return Ok(Cow::Borrowed(image));
    }
    let mut packed = Vec::with_capacity(line * height);
    for padded in image.chunks(stride) {
        packed.extend_from_slice(&padded[..line]);
    }
    Ok(Cow::Owned(packed))
}

/// Little-endian words, none above `depth`. The kernel's formats leave the upper bits zero; a
/// driver that sets them sends other data than it says, and cut or clamped values would be
/// measured as if they were right.
fn words(
    bytes: &[u8],
    width: usize,
    height: usize,
    stride: usize,
    depth: Depth,
) -> Result<Vec<u16>, Unfit> {
    let bytes = lines(bytes, width * 2, height, stride)?;
    let values: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let largest = values.iter().copied().max().unwrap_or(0);
    if u32::from(largest) >> depth.bits() != 0 {
        return Err(Unfit::Range { value: largest, bits: depth.bits() });
    }
    Ok(values)
}

/// Mono from a Bayer mosaic: at each pixel the mean of the 3×3 values around it, weighted
/// 1-2-1 both ways, rounded.
///
/// Whatever the order of the colours and wherever the pixel lies, these weights add up to
/// (R + 2G + B) / 4, which is what bilinear interpolation of the colours followed by that
/// mean gives. So the size stays, nothing moves by half a pixel, and no chequered pattern is
/// left for a network to see; the price is a slight blur. At the border the image is
/// mirrored about its outermost pixels, which keeps the order of the colours.
fn bayer<T: Copy + Into<u32> + TryFrom<u32>>(raw: &[T], width: usize, height: usize) -> Vec<T> {
    let mirrored = |index: usize, length: usize| {
        let before = if index == 0 { 1.min(length - 1) } else { index - 1 };
        let after = if index + 1 == length { index.saturating_sub(1) } else { index + 1 };
        (before, after)
    };
    let mut sums = vec![0_u32; width];
    let mut mono = Vec::with_capacity(raw.len());
    for y in 0..height {
        let (above, below) = mirrored(y, height);
        for (x, sum) in sums.iter_mut().enumerate() {
            let at = |line: usize| -> u32 { raw[line * width + x].into() };
            *sum = at(above) + 2 * at(y) + at(below);
        }
        for x in 0..width {
            let (left, right) = mirrored(x, width);
            let mean = (sums[left] + 2 * sums[x] + sums[right] + 8) / 16;
            mono.push(
                T::try_from(mean)
                    .unwrap_or_else(|_| unreachable!("a mean of values lies between them")),
            );
        }
    }
    mono
}

/// Start of image, and an application segment that tells the decoder to use the standard
/// Huffman tables where the image brings none: many webcams leave them out.
const JPEG_START: [u8; 11] = *b"\xff\xd8\xff\xe0\x00\x07AVI1\0";

fn jpeg_luma(bytes: &[u8], width: usize, height: usize) -> Result<Vec<u8>, Unfit> {
    let Some(rest) = bytes.strip_prefix(b"\xff\xd8") else {
        return Err(Unfit::Jpeg("it does not begin as one".to_owned()));
    };
    let whole = [&JPEG_START[..], rest].concat();
    let options = DecoderOptions::default()
        .set_max_width(width)
        .set_max_height(height)
        .jpeg_set_out_colorspace(ColorSpace::Luma);
    let mut decoder = JpegDecoder::new_with_options(&whole, options);
    // The decoder panics on some damage, as a sampling factor that the tables do not have.
    let luma = catch_unwind(AssertUnwindSafe(|| decoder.decode()))
        .map_err(|_panic| Unfit::Jpeg("the decoder gave up on it".to_owned()))?
        .map_err(|error| Unfit::Jpeg(error.to_string()))?;
    let size = decoder.info().map(|info| (usize::from(info.width), usize::from(info.height)));
    if size != Some((width, height)) || luma.len() != width * height {
        return Err(Unfit::Jpeg(format!("it is not {width}×{height} pixels")));
    }
    Ok(luma)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mono(format: &str, bytes: &[u8], width: u32, height: u32, stride: u32) -> Vec<u16> {
        let format: PixelFormat = format.parse().unwrap();
        let pixels = format.to_mono(bytes, width, height, stride).unwrap();
        (0..pixels.len()).map(|index| pixels.get(index)).collect()
    }

    #[test]
    fn the_table_has_every_format_once() {
        for (format, fourcc, name) in FORMATS {
            assert_eq!(PixelFormat::from_fourcc(fourcc), Some(format));
            assert_eq!(name.parse(), Ok(format));
            assert_eq!(std::str::from_utf8(&fourcc).unwrap().parse(), Ok(format));
            assert_eq!(format.to_string(), name);
        }
        for depth in [D8, D10, D12, D16] {
            assert!(PixelFormat::all().any(|format| format == PixelFormat::Mono(depth)));
            for order in [Rggb, Grbg, Gbrg, Bggr] {
                let bayer = PixelFormat::Bayer(order, depth);
                assert!(PixelFormat::all().any(|format| format == bayer));
            }
        }
    }

    #[test]
    fn an_unknown_format_is_answered_with_the_known_ones() {
        let message = "RGB3".parse::<PixelFormat>().unwrap_err().to_string();
        assert!(message.starts_with("`RGB3` is no pixel format that is read; choose one of Y16"));
    }

    #[test]
    fn padding_at_the_end_of_lines_is_left_out() {
        let bytes = [1, 2, 99, 99, 3, 4, 99, 99];
        assert_eq!(mono("GREY", &bytes, 2, 2, 4), [1, 2, 3, 4]);
        // The last line without its padding.
        assert_eq!(mono("GREY", &bytes[..6], 2, 2, 4), [1, 2, 3, 4]);
        assert_eq!(
            mono("Y12", &[1, 2, 3, 4, 9, 9, 5, 6, 7, 8], 2, 2, 6),
            [0x201, 0x403, 0x605, 0x807]
        );
    }

    #[test]
    fn a_short_buffer_is_refused() {
        let format: PixelFormat = "Y16".parse().unwrap();
        let refused = format.to_mono(&[0; 7], 2, 2, 4);
        assert_eq!(refused.unwrap_err(), Unfit::Short { found: 7, needed: 8 });
    }

    #[test]
    fn a_value_that_the_format_cannot_have_is_refused_and_the_largest_is_not() {
        let format: PixelFormat = "Y10".parse().unwrap();
        let refused = format.to_mono(&[0xff, 0x03, 0x00, 0x04], 2, 1, 4);
        assert_eq!(refused.unwrap_err(), Unfit::Range { value: 1024, bits: 10 });
        assert_eq!(mono("Y10", &[0xff, 0x03, 0, 0], 2, 1, 4), [1023, 0]);
        assert_eq!(mono("Y16", &[0xff, 0xff], 1, 1, 2), [65535]);
    }

    #[test]
    fn yuyv_gives_its_luma() {
        assert_eq!(mono("YUYV", &[10, 128, 20, 128, 30, 0, 40, 0], 2, 2, 4), [10, 20, 30, 40]);
    }

    /// A mosaic of one flat colour.
    fn mosaic(order: BayerOrder, [r, g, b]: [u16; 3], width: usize, height: usize) -> Vec<u8> {
        let tile = match order {
            Rggb => [r, g, g, b],
            Grbg => [g, r, b, g],
            Gbrg => [g, b, r, g],
            Bggr => [b, g, g, r],
        };
        (0..height)
            .flat_map(|y| (0..width).map(move |x| tile[y % 2 * 2 + x % 2]))
            .flat_map(u16::to_le_bytes)
            .collect()
    }

    #[test]
    fn a_flat_colour_is_flat_up_to_the_border_in_every_bayer_order() {
        for order in [Rggb, Grbg, Gbrg, Bggr] {
            let bytes = mosaic(order, [1000, 400, 200], 7, 5);
            let format = PixelFormat::Bayer(order, D12);
            let Pixels::U16(values) = format.to_mono(&bytes, 7, 5, 14).unwrap() else {
                panic!("12 bits are words")
            };
            assert_eq!(values, vec![500; 35], "{order:?}");
        }
    }

    #[test]
    fn a_point_of_a_bayer_image_stays_where_it_is() {
        let mut bytes = vec![0; 25];
        bytes[12] = 160;
        let expected = [
            0, 0, 0, 0, 0, //
            0, 10, 20, 10, 0, //
            0, 20, 40, 20, 0, //
            0, 10, 20, 10, 0, //
            0, 0, 0, 0, 0,
        ];
        assert_eq!(mono("SBGGR8", &bytes, 5, 5, 5), expected);
    }

    #[test]
    fn a_bayer_image_of_one_pixel_is_itself() {
        assert_eq!(mono("SRGGB8", &[255], 1, 1, 1), [255]);
    }

    fn jpeg(width: u16, height: u16) -> (Vec<u8>, Vec<u8>) {
        let grey: Vec<u8> = (0..u32::from(width) * u32::from(height))
            .map(|index| (index % u32::from(width) * 3) as u8)
            .collect();
        let rgb: Vec<u8> = grey.iter().flat_map(|&value| [value; 3]).collect();
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
        // What webcams send.
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_1);
        encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        (grey, bytes)
    }

    /// The image without its Huffman tables, as webcams send it.
    fn without_huffman_tables(bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes[..2].to_vec();
        let mut at = 2;
        loop {
            let length = 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            let segment = &bytes[at..at + length];
            match segment[1] {
                0xc4 => {}
                0xda => {
                    out.extend_from_slice(&bytes[at..]);
                    return out;
                }
                _ => out.extend_from_slice(segment),
            }
            at += length;
        }
    }

    #[test]
    fn a_jpeg_gives_its_luma_with_and_without_huffman_tables() {
        let (grey, bytes) = jpeg(64, 48);
        let bare = without_huffman_tables(&bytes);
        assert!(bare.len() + 400 < bytes.len());
        let luma = mono("MJPG", &bytes, 64, 48, 0);
        assert_eq!(mono("MJPG", &bare, 64, 48, 0), luma);
        for (found, &wanted) in luma.iter().zip(&grey) {
            assert!(found.abs_diff(u16::from(wanted)) <= 4, "{found} {wanted}");
        }
    }

    #[test]
    fn a_jpeg_of_another_size_or_no_jpeg_is_refused() {
        let format = PixelFormat::Mjpg;
        let (_, bytes) = jpeg(64, 48);
        assert!(matches!(format.to_mono(&bytes, 32, 48, 0), Err(Unfit::Jpeg(_))));
        assert!(matches!(format.to_mono(&bytes, 64, 64, 0), Err(Unfit::Jpeg(_))));
        assert!(matches!(format.to_mono(b"", 64, 48, 0), Err(Unfit::Jpeg(_))));
        assert!(matches!(format.to_mono(&bytes[..100], 64, 48, 0), Err(Unfit::Jpeg(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_format_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            width in 1_u32..40, height in 1_u32..40, stride in 0_u32..100,
        ) {
            for format in PixelFormat::all() {
                if let Ok(pixels) = format.to_mono(&bytes, width, height, stride) {
                    prop_assert_eq!(pixels.len(), (width * height) as usize);
                }
            }
        }

        #[test]
        fn a_damaged_jpeg_does_not_panic(at in 0_usize..2000, value in any::<u8>()) {
            let (_, mut bytes) = jpeg(32, 32);
            let at = at % bytes.len();
            bytes[at] = value;
            let _damaged = PixelFormat::Mjpg.to_mono(&bytes, 32, 32, 0);
        }
    }
}

//! JPEG: grey, and grey that was saved as colour.
//!
//! Decoders forgive a file that ends early by painting the rest grey. That is fine for holiday
//! pictures; here it would be cells that were never there, so the end of the picture must be
//! in the file, and the decoder runs in its strict mode.

use std::io::{BufRead, Read, Seek, SeekFrom};

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::grey::{Channels, one_channel};
use super::planes::Selection;
use super::{Limits, Page, Problem, meta};
use reticle_domain::frame::Pixels;
use reticle_domain::pixel_size::PixelSize;

/// Comments, thumbnails and colour profiles beside the picture.
const MAX_OVERHEAD: u64 = 64 * 1024 * 1024;

/// A JPEG whose size is known.
pub(super) struct Image<R> {
    reader: R,
    width: u16,
    height: u16,
    pixel_size: PixelSize,
}

impl<R> std::fmt::Debug for Image<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JPEG {}×{}", self.width, self.height)
    }
}

impl<R: BufRead + Seek> Image<R> {
    /// Finds the frame header; refuses what is too large.
    pub(super) fn open(mut reader: R, limits: Limits) -> Result<Self, Problem> {
        let header = frame_header(&mut reader)?;
        header.check()?;
        let Header { width, height, .. } = header;
        limits.check(u32::from(width), u32::from(height))?;
        let pixel_size = meta::of_jpeg(&mut reader);
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self { reader, width, height, pixel_size })
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> (u32, u32) {
        (u32::from(self.width), u32::from(self.height))
    }

    /// Reads the image.
    pub(super) fn read(self, selection: &Selection) -> Result<Page, Problem> {
        let (width, height) = (u32::from(self.width), u32::from(self.height));
        let pixels = u64::from(width) * u64::from(height);
        // No encoder needs more than a byte a sample and some; the bound is for lies.
        let mut bytes = Vec::new();
        self.reader.take(4 * pixels + MAX_OVERHEAD).read_to_end(&mut bytes)?;
        if !ends(&bytes) {
            return Err(Problem::Damaged("it ends too early".to_owned()));
        }
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(usize::from(u16::MAX))
            .set_max_height(usize::from(u16::MAX));
        let mut decoder = JpegDecoder::new_with_options(bytes.as_slice(), options);
        decoder.decode_headers().map_err(problem)?;
        let (out, channels) = match decoder.get_input_colorspace() {
            Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
            Some(ColorSpace::YCbCr | ColorSpace::RGB) => (ColorSpace::RGB, 3),
            _ => return Err(Problem::kind("has colours, but not red, green and blue")),
        };
        decoder.set_options(options.jpeg_set_out_colorspace(out));
        let values = decoder.decode().map_err(problem)?;
        let channels = Channels::interleaved(channels, false);
        let values = one_channel(values, channels, u8::MAX, selection)?;
        if values.len() as u64 != pixels {
            return Err(Problem::Damaged("it has two different sizes".to_owned()));
        }
        let pixels = Pixels::U8(values);
        Ok(Page::new(width, height, 8, pixels, 0).with_pixel_size(self.pixel_size))
    }
}

fn problem(error: DecodeErrors) -> Problem {
    match error {
        DecodeErrors::Unsupported(what) => {
            Problem::kind(&format!("is a JPEG of a kind that is not read here ({what:?})"))
        }
        error => Problem::Damaged(format!("{error:?}")),
    }
}

/// What the frame header (SOF) says.
pub(super) struct Header {
    /// Which of the kinds of JPEG: the low half of the marker.
    process: u8,
    precision: u8,
    pub(super) width: u16,
    height: u16,
    pub(super) components: u8,
}

impl Header {
    /// Refuses what is no JPEG of 8 bits with Huffman codes, in the order of its rows or
    /// progressive.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let kind = |what: &str| {
            Err(Problem::kind(&format!("is JPEG of a kind that is not read here: {what}")))
        };
        match (self.process, self.precision) {
            (3, _) => kind("lossless JPEG"),
            (7, _) => kind("JPEG-LS"),
            (5..=6, _) => kind("hierarchical JPEG"),
            (9..=15, _) => kind("JPEG with arithmetic coding"),
            (_, 8) => Ok(()),
            (_, bits) => kind(&format!("JPEG of {bits} bits")),
        }?;
        if self.height == 0 {
            return kind("its height comes after its pixels");
        }
        if self.width == 0 {
            return Err(Problem::Damaged("its width or height is 0".to_owned()));
        }
        Ok(())
    }
}

/// The frame header, without the rest of the file.
pub(super) fn frame_header(reader: &mut (impl BufRead + Seek)) -> Result<Header, Problem> {
    reader.seek(SeekFrom::Start(2))?;
    loop {
        let mut marker = [0_u8; 2];
        reader.read_exact(&mut marker)?;
        // Any number of 0xff may stand before a marker.
        while marker[1] == 0xff {
            reader.read_exact(&mut marker[1..])?;
        }
        match marker {
            [0xff, 0xd0..=0xd8 | 0x01] => {}
            // JPEG-LS has a marker of its own.
            [0xff, code @ (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xf7)] => {
                // Length, precision, height, width, components.
                let mut header = [0_u8; 8];
                reader.read_exact(&mut header)?;
                let [_, _, precision, h0, h1, w0, w1, components] = header;
                let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
                let process = code & 0x0f;
                return Ok(Header { process, precision, width, height, components });
            }
            [0xff, 0xc0..=0xfe] => {
                let mut length = [0_u8; 2];
                reader.read_exact(&mut length)?;
                let body = i64::from(u16::from_be_bytes(length)) - 2;
                if body < 0 {
                    return Err(Problem::Damaged("a segment has no length".to_owned()));
                }
                reader.seek_relative(body)?;
            }
            _ => return Err(Problem::Damaged("a segment does not begin with a marker".to_owned())),
        }
    }
}

/// Whether the picture's own end marker is there. Thumbnails inside segments are stepped over.
fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut in_scan = false;
    while let Some(&[mark, code]) = bytes.get(at..at + 2) {
        match (mark, code) {
            (0xff, 0xd9) => return true,
            // Fill byte, stuffed 0xff, restart: go on.
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, _) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
                in_scan = code == 0xda;
            }
            _ if in_scan => at += 1,
            _ => return false,
        }
    }
    false
}

//! PNG: grey of 1 to 16 bits, and grey that was saved as colour or with a palette.

use std::io::{BufRead, Seek, SeekFrom};

use image::codecs::png::PngDecoder;
use image::error::{ImageError, LimitErrorKind};
use image::{ColorType, ImageDecoder};

use super::grey::{Channels, one_channel};
use super::planes::Selection;
use super::{Limits, Page, Problem, meta};
use reticle_domain::frame::Pixels;
use reticle_domain::pixel_size::PixelSize;

/// Rows, text chunks and colour profiles of real images stay far below this.
const MAX_OVERHEAD: u64 = 256 * 1024 * 1024;

/// A PNG whose header was read.
pub(super) struct Image<R: BufRead + Seek> {
    decoder: PngDecoder<R>,
    /// Bits of a sample in the file: 1, 2, 4, 8 or 16.
    sample_bits: u8,
    palette: bool,
    pixel_size: PixelSize,
}

impl<R: BufRead + Seek> std::fmt::Debug for Image<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PNG of {} bits", self.sample_bits)
    }
}

impl<R: BufRead + Seek> Image<R> {
    /// Reads the header; refuses what is too large.
    pub(super) fn open(mut reader: R, limits: Limits) -> Result<Self, Problem> {
        // Signature, length and name of IHDR, width, height, bit depth, colour type.
        let mut header = [0_u8; 26];
        reader.read_exact(&mut header)?;
        let [.., w0, w1, w2, w3, h0, h1, h2, h3, sample_bits, colour_type] = header;
        let (width, height) =
            (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
        limits.check(width, height)?;
        check_still(&mut reader)?;
        let mut decoder_limits = image::Limits::no_limits();
        decoder_limits.max_alloc = Some(MAX_OVERHEAD);
        let pixel_size = meta::of_png(&mut reader);
        reader.seek(SeekFrom::Start(0))?;
        let decoder = PngDecoder::with_limits(reader, decoder_limits).map_err(problem)?;
        let (found_width, found_height) = decoder.dimensions();
        if (found_width, found_height) != (width, height) {
            return Err(Problem::Damaged("its header is not where it should be".to_owned()));
        }
        Ok(Self { decoder, sample_bits, palette: colour_type == 3, pixel_size })
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> (u32, u32) {
        self.decoder.dimensions()
    }

    /// Whether its pixels are numbers of colours in a table.
    pub(super) fn has_palette(&self) -> bool {
        self.palette
    }

    /// By what the decoder multiplies samples of less than 8 bits.
    pub(super) fn scale(&self) -> u8 {
        match self.sample_bits {
            1 => 255,
            2 => 85,
            4 => 17,
            _ => 1,
        }
    }

    /// Reads the image.
    pub(super) fn read(self, selection: &Selection) -> Result<Page, Problem> {
        let (width, height) = self.decoder.dimensions();
        let colour = self.decoder.color_type();
        let channels =
            Channels::interleaved(usize::from(colour.channel_count()), colour.has_alpha());
        let samples = width as usize * height as usize * channels.count;
        let pixels = match colour {
            ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => {
                let mut bytes = vec![0_u8; samples];
                self.decoder.read_image(&mut bytes).map_err(problem)?;
                Pixels::U8(one_channel(bytes, channels, u8::MAX, selection)?)
            }
            _ => {
                let mut bytes = vec![0_u8; samples * 2];
                self.decoder.read_image(&mut bytes).map_err(problem)?;
                let values = bytes
                    .chunks_exact(2)
                    .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
                    .collect();
                drop(bytes);
                Pixels::U16(one_channel(values, channels, u16::MAX, selection)?)
            }
        };
        let bit_depth = if pixels.bytes_per_pixel() == 1 { 8 } else { 16 };
        Ok(Page::new(width, height, bit_depth, pixels, 0).with_pixel_size(self.pixel_size))
    }
}

/// Refuses an animation (APNG): one of its pictures would be read, and the others not missed.
fn check_still(reader: &mut (impl BufRead + Seek)) -> Result<(), Problem> {
    // Behind the signature, and IHDR with its checksum.
    reader.seek(SeekFrom::Start(33))?;
    // An animation says so before its pixels begin; what is cut off is found when it is read.
    let mut head = [0_u8; 8];
    while reader.read_exact(&mut head).is_ok() {
        let [l0, l1, l2, l3, name @ ..] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        match &name {
            b"IDAT" | b"IEND" => break,
            b"acTL" => {
                let mut frames = [0_u8; 4];
                reader.read_exact(&mut frames)?;
                let frames = u32::from_be_bytes(frames);
                if frames > 1 {
                    return Err(Problem::Unsupported(format!(
                        "is an animation of {frames} pictures (APNG), which is not read here; \
                         export it as a TIFF stack, or each picture as a PNG"
                    )));
                }
                break;
            }
            _ => reader.seek_relative(i64::from(length) + 4)?,
        }
    }
    Ok(())
}

fn problem(error: ImageError) -> Problem {
    match error {
        ImageError::IoError(error) => Problem::from(error),
        ImageError::Unsupported(error) => {
            Problem::kind(&format!("is a PNG of a kind that is not read here ({error})"))
        }
        ImageError::Limits(error) if error.kind() == LimitErrorKind::InsufficientMemory => {
            Problem::Damaged("its text or colour profile is larger than any real one".to_owned())
        }
        error => Problem::Damaged(error.to_string()),
    }
}

//! TIFF: classic and BigTIFF, both byte orders, stacks, OME-TIFF, ImageJ.

use std::collections::HashSet;
use std::io::{Read, Seek};

use tiff::decoder::{Decoder, DecodingResult, Limits as DecoderLimits};
use tiff::tags::{PhotometricInterpretation, PlanarConfiguration, SampleFormat, Tag};
use tiff::{ColorType, TiffError, TiffFormatError, TiffUnsupportedError};

use super::grey::{Channels, one_channel};
use super::meta::{self, Description, Resolution};
use super::{Limits, Page, Problem};
use crate::domain::frame::Pixels;
use crate::domain::pixel_size::PixelSize;

/// Largest value of one tag: the OME-XML of a whole plate, the strips of a tall image.
const MAX_TAG_BYTES: usize = 64 * 1024 * 1024;

/// The pages of one TIFF file.
#[derive(Debug)]
pub(super) struct Stack<R: Read + Seek> {
    decoder: Decoder<R>,
    limits: Limits,
    description: Description,
    /// Places of the pages in the file's chain of directories; thumbnails are left out.
    pages: Vec<usize>,
    /// What is wrong with the chain after the last of them.
    broken: Option<Problem>,
}

/// Grey values of any width that a TIFF page may have.
pub(super) enum Values {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// A page as the file has it.
pub(super) struct Raw {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) values: Values,
}

impl<R: Read + Seek> Stack<R> {
    /// Lists the pages of a file of `bytes`; reads none.
    pub(super) fn open(mut reader: R, bytes: u64, limits: Limits) -> Result<Self, Problem> {
        let description = Description::read(&mut reader)?;
        let mut decoder =
            Decoder::new(reader).map_err(problem)?.with_limits(decoder_limits(limits));
        let (pages, broken) = list_pages(&mut decoder, bytes, limits)?;
        if let Some(images) = description.imagej_images
            && images > pages.len()
            && pages.len() == 1
            && broken.is_none()
        {
            return Err(Problem::Unsupported(format!(
                "says it has {images} images but lists one, as ImageJ does above 4 GB; \
                 export it as OME-TIFF"
            )));
        }
        if pages.is_empty() && broken.is_none() {
            return Err(Problem::Damaged("it holds no image".to_owned()));
        }
        Ok(Self { decoder, limits, description, pages, broken })
    }

    /// Number of pages; where the file breaks off, the missing rest counts as one.
    pub(super) fn len(&self) -> usize {
        self.pages.len() + usize::from(self.broken.is_some())
    }

    /// Width and height of page `index`, where it is there.
    pub(super) fn size(&mut self, index: usize) -> Result<Option<(u32, u32)>, Problem> {
        let Some(&place) = self.pages.get(index) else { return Ok(None) };
        self.decoder.seek_to_image(place).map_err(problem)?;
        self.decoder.dimensions().map(Some).map_err(problem)
    }

    /// Reads page `index`.
    pub(super) fn read(&mut self, index: usize) -> Result<Page, Problem> {
        let raw = self.read_raw(index)?;
        let (pixels, most) = match raw.values {
            Values::U8(values) => (Pixels::U8(values), 8),
            Values::U16(values) => (Pixels::U16(values), 16),
            Values::U32(_) => {
                return Err(Problem::kind("has 32 bits a pixel, which cameras do not give"));
            }
        };
        let bit_depth = match self.description.significant_bits {
            Some(bits @ (10 | 12 | 14)) if most == 16 && all_below(&pixels, bits) => bits,
            _ => most,
        };
        let page = Page::new(raw.width, raw.height, bit_depth, pixels, index);
        Ok(page.with_pixel_size(self.pixel_size(index)?))
    }

    /// Reads page `index` without narrowing its values.
    pub(super) fn read_raw(&mut self, index: usize) -> Result<Raw, Problem> {
        let Some(&place) = self.pages.get(index) else {
            let end = || Problem::Damaged("there is no such page".to_owned());
            return Err(self.broken.take().unwrap_or_else(end));
        };
        self.decoder.seek_to_image(place).map_err(problem)?;
        let (width, height) = self.decoder.dimensions().map_err(problem)?;
        self.limits.check(width, height)?;
        let channels = self.channels()?;
        let mut result = DecodingResult::U8(Vec::new());
        self.decoder.read_image_to_buffer(&mut result).map_err(problem)?;
        let values = match result {
            DecodingResult::U8(values) => Values::U8(one_channel(values, channels, u8::MAX)?),
            DecodingResult::U16(values) => Values::U16(one_channel(values, channels, u16::MAX)?),
            DecodingResult::U32(values) => Values::U32(one_channel(values, channels, u32::MAX)?),
            DecodingResult::I8(values) => Values::U8(unsigned(values, channels)?),
            DecodingResult::I16(values) => Values::U16(unsigned(values, channels)?),
            DecodingResult::I32(values) => Values::U32(unsigned(values, channels)?),
            _ => return Err(Problem::kind("has pixels of 64 bits")),
        };
        let expected = width as usize * height as usize;
        let found = match &values {
            Values::U8(values) => values.len(),
            Values::U16(values) => values.len(),
            Values::U32(values) => values.len(),
        };
        if found != expected {
            return Err(Problem::Damaged(format!("{found} of {expected} pixels are there")));
        }
        Ok(Raw { width, height, values })
    }

    /// How the samples of the current page lie; refuses what has no grey value.
    fn channels(&mut self) -> Result<Channels, Problem> {
        let unsigned = |decoder: &mut Decoder<R>, tag, default: u16| {
            decoder.find_tag_unsigned::<u16>(tag).ok().flatten().unwrap_or(default)
        };
        let interpretation = unsigned(&mut self.decoder, Tag::PhotometricInterpretation, 1);
        if interpretation == PhotometricInterpretation::RGBPalette.to_u16() {
            return Err(Problem::kind("is shown through a colour table (LUT)"));
        }
        let formats = self.decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat);
        if let Ok(Some(formats)) = formats
            && formats.contains(&SampleFormat::IEEEFP.to_u16())
        {
            return Err(Problem::kind(
                "has floating-point pixels, whose black and white are not known",
            ));
        }
        let planar = unsigned(&mut self.decoder, Tag::PlanarConfiguration, 1)
            == PlanarConfiguration::Planar.to_u16();
        let colour = self.decoder.colortype().map_err(problem)?;
        let depth = colour.bit_depth();
        if !matches!(depth, 8 | 16 | 32) {
            return Err(Problem::kind(&format!("has {depth} bits a pixel")));
        }
        match colour {
            ColorType::Gray(_) => Ok(Channels { count: 1, alpha: false, planar: false }),
            ColorType::GrayA(_) => Ok(Channels { count: 2, alpha: true, planar }),
            ColorType::RGB(_) => Ok(Channels { count: 3, alpha: false, planar }),
            ColorType::RGBA(_) => Ok(Channels { count: 4, alpha: true, planar }),
            ColorType::Multiband { num_samples, .. } => Err(Problem::Unsupported(format!(
                "has {num_samples} channels in one page; Reticle segments one channel: \
                 export one channel as greyscale"
            ))),
            _ => Err(Problem::Colour),
        }
    }

    /// What is said of the edge of a pixel of page `index`, which is the current one.
    fn pixel_size(&mut self, index: usize) -> Result<PixelSize, Problem> {
        let (x, y) = (self.number(Tag::XResolution)?, self.number(Tag::YResolution)?);
        let unit = self.decoder.find_tag_unsigned(Tag::ResolutionUnit).ok().flatten();
        let directory = self.pages.get(index).copied().unwrap_or(index);
        Ok(self.description.pixel_size(directory, Resolution { x, y, unit }))
    }

    /// A tag of the current page as a number.
    fn number(&mut self, tag: Tag) -> Result<Option<f64>, Problem> {
        Ok(said(self.decoder.find_tag(tag))?.flatten().and_then(meta::tag_number))
    }
}

/// Metadata that cannot be understood is as good as none; metadata that is cut off is damage.
fn said<T>(found: Result<T, TiffError>) -> Result<Option<T>, Problem> {
    match found {
        Err(error @ TiffError::IoError(_)) => Err(problem(error)),
        found => Ok(found.ok()),
    }
}

/// Signed values that are not negative; labels are often saved so.
fn unsigned<S, U>(values: Vec<S>, channels: Channels) -> Result<Vec<U>, Problem>
where
    U: TryFrom<S>,
{
    if channels.count != 1 {
        return Err(Problem::Colour);
    }
    values
        .into_iter()
        .map(U::try_from)
        .collect::<Result<_, _>>()
        .map_err(|_negative| Problem::kind("has negative pixels"))
}

fn all_below(pixels: &Pixels, bits: u8) -> bool {
    match pixels {
        Pixels::U8(_) => true,
        Pixels::U16(values) => values.iter().all(|&value| value < 1 << bits),
    }
}

/// Walks the chain of directories without reading images. Gives the places of the pages, and what
/// is wrong with the chain after them; refuses a file that is larger than its bytes.
fn list_pages<R: Read + Seek>(
    decoder: &mut Decoder<R>,
    bytes: u64,
    limits: Limits,
) -> Result<(Vec<usize>, Option<Problem>), Problem> {
    let mut pages = Vec::new();
    let mut seen = HashSet::new();
    let mut claimed = Claimed::default();
    let mut next = decoder.ifd_pointer();
    for place in 0.. {
        let Some(pointer) = next else { break };
        if place >= limits.max_pages {
            return Err(Problem::TooManyPages { limit: limits.max_pages });
        }
        if !seen.insert(pointer) {
            let why = "its list of pages runs in a circle".to_owned();
            return Ok((pages, Some(Problem::Damaged(why))));
        }
        let directory = match decoder.read_directory(pointer) {
            Ok(directory) => directory,
            Err(error) => return Ok((pages, Some(problem(error)))),
        };
        let mut tags = decoder.read_directory_tags(&directory);
        let subfile: Option<u32> = tags.find_tag_unsigned(Tag::NewSubfileType).ok().flatten();
        // Bit 0: a smaller copy of another page; bit 2: a transparency mask.
        if subfile.unwrap_or(0) & 0b101 == 0 {
            pages.push(place);
            for (offsets, counts) in
                [(Tag::StripOffsets, Tag::StripByteCounts), (Tag::TileOffsets, Tag::TileByteCounts)]
            {
                let mut numbers = |tag| tags.find_tag_unsigned_vec::<u64>(tag).ok().flatten();
                if let Some((offsets, counts)) = numbers(offsets).zip(numbers(counts)) {
                    claimed.add(&offsets, &counts);
                }
            }
        }
        next = directory.next();
    }
    claimed.check(bytes)?;
    Ok((pages, None))
}

/// Where the pixels of all pages are said to be.
#[derive(Default)]
struct Claimed {
    /// Bytes of all of them together.
    bytes: u64,
    /// Where the last of them ends.
    end: u64,
}

impl Claimed {
    /// What writers may say too much by: an eighth, for last strips that are said to be whole, and
    /// 64 KiB.
    fn most(bytes: u64) -> u64 {
        bytes.saturating_add(bytes / 8).saturating_add(64 * 1024)
    }

    fn add(&mut self, offsets: &[u64], counts: &[u64]) {
        for (offset, count) in offsets.iter().zip(counts) {
            self.bytes = self.bytes.saturating_add(*count);
            self.end = self.end.max(offset.saturating_add(*count));
        }
    }

    /// Pages that all lie within the file and are together larger than it share their bytes. Where
    /// they do not lie within it, the file is cut short, which reading them finds.
    fn check(&self, bytes: u64) -> Result<(), Problem> {
        if self.end <= bytes && self.bytes > Self::most(bytes) {
            return Err(Problem::SharedPixels { claimed: self.bytes, bytes });
        }
        Ok(())
    }
}

fn decoder_limits(limits: Limits) -> DecoderLimits {
    // Up to four channels of two bytes, or one of four (labels).
    let bytes = usize::try_from(limits.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut decoder_limits = DecoderLimits::default();
    decoder_limits.decoding_buffer_size = bytes;
    // A compressed strip that was not worth compressing is a little larger than its pixels.
    decoder_limits.intermediate_buffer_size = bytes.saturating_add(bytes / 8).saturating_add(4096);
    decoder_limits.ifd_value_size = MAX_TAG_BYTES;
    decoder_limits
}

fn problem(error: TiffError) -> Problem {
    match error {
        TiffError::IoError(error) => Problem::from(error),
        TiffError::UnsupportedError(TiffUnsupportedError::UnsupportedCompressionMethod(method)) => {
            Problem::Unsupported(format!(
                "is compressed by {method:?}, which is not read here; export it uncompressed or \
                 with LZW or deflate"
            ))
        }
        TiffError::UnsupportedError(error) => {
            Problem::kind(&format!("is a TIFF of a kind that is not read here ({error})"))
        }
        TiffError::FormatError(TiffFormatError::InvalidDimensions(..)) => {
            Problem::Damaged("its width or height is 0".to_owned())
        }
        TiffError::FormatError(error) => Problem::Damaged(error.to_string()),
        TiffError::LimitsExceeded | TiffError::IntSizeError => {
            Problem::Damaged("it names sizes that cannot be".to_owned())
        }
        TiffError::UsageError(error) => Problem::Damaged(error.to_string()),
    }
}

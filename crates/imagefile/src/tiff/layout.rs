//! How the pixels of one page lie in the file, and whether they can be read.
//!
//! The refusals are here: a page that is well formed but of another kind is named with what it
//! is ([`Problem::kind`]); only what contradicts itself or is cut short is damaged.

use std::io::{Read, Seek};

use crate::directory::{Directory, Source};
use crate::grey::Samples;
use crate::{Limits, Problem, jpeg};

pub(super) const IMAGE_WIDTH: u16 = 256;
pub(super) const IMAGE_LENGTH: u16 = 257;
pub(super) const BITS_PER_SAMPLE: u16 = 258;
pub(super) const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
pub(super) const STRIP_OFFSETS: u16 = 273;
pub(super) const SAMPLES_PER_PIXEL: u16 = 277;
pub(super) const ROWS_PER_STRIP: u16 = 278;
pub(super) const STRIP_BYTE_COUNTS: u16 = 279;
const PLANAR_CONFIGURATION: u16 = 284;
pub(super) const PREDICTOR: u16 = 317;
const COLOR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_BYTE_COUNTS: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
pub(super) const JPEG_TABLES: u16 = 347;

/// What a page may take, decoded, for each pixel that is allowed: four channels of two bytes, or
/// one of four (labels). Smaller pages may have more channels.
pub(super) const MOST_BYTES_A_PIXEL: u64 = 8;

/// Compressions that are read.
pub(super) const NONE: u64 = 1;
pub(super) const CCITT_T6: u64 = 4;
const LZW: u64 = 5;
pub(super) const JPEG: u64 = 7;
const DEFLATE: u64 = 8;
const OLD_DEFLATE: u64 = 32_946;
const PACKBITS: u64 = 32_773;

/// Photometric interpretations.
const WHITE_IS_ZERO: u64 = 0;
const BLACK_IS_ZERO: u64 = 1;
const RGB: u64 = 2;
const PALETTE: u64 = 3;
const YCBCR: u64 = 6;

/// How the pixels of one page lie in the file.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bits of a sample: 1, 2, 4, 8 to 16, or 32.
    pub(super) bits: u32,
    /// Samples of a pixel.
    pub(super) samples: u32,
    pub(super) meaning: Samples,
    /// Black is the largest value.
    pub(super) inverted: bool,
    /// The sign has a bit.
    pub(super) signed: bool,
    pub(super) compression: u64,
    pub(super) predictor: u64,
    /// Each sample has an image of its own, one after the other.
    pub(super) planar: bool,
    /// The first pixel is in the lowest bit.
    pub(super) reversed: bool,
    /// Width and height of a tile; strips have none.
    pub(super) tile: Option<(u32, u32)>,
    pub(super) rows_per_strip: u32,
    pub(super) offsets: Vec<u64>,
    pub(super) counts: Vec<u64>,
    pub(super) jpeg_tables: Option<Vec<u8>>,
    /// The grey of each value, where the page is shown through a table.
    pub(super) greys: Option<Vec<u8>>,
}

/// Width and height that the directory says.
pub(super) fn size<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
) -> Result<(u32, u32), Problem> {
    let mut edge = |tag| {
        let edge = source.first_number(directory, tag)?.unwrap_or(0);
        match u32::try_from(edge) {
            Ok(0) => Err(Problem::Damaged("its width or height is 0".to_owned())),
            Ok(edge) => Ok(edge),
            Err(_too_large) => Err(Problem::Damaged("it names sizes that cannot be".to_owned())),
        }
    };
    Ok((edge(IMAGE_WIDTH)?, edge(IMAGE_LENGTH)?))
}

impl Layout {
    /// Reads what a directory says of its pixels; refuses what is too large or of a kind that is
    /// not read here.
    pub(super) fn read<R: Read + Seek>(
        source: &mut Source<R>,
        directory: &Directory,
        limits: Limits,
    ) -> Result<Self, Problem> {
        let (width, height) = size(source, directory)?;
        limits.check(width, height)?;
        let mut number = |tag, default: u64| {
            Ok::<_, Problem>(source.first_number(directory, tag)?.unwrap_or(default))
        };
        let compression = number(COMPRESSION, NONE)?;
        let samples = number(SAMPLES_PER_PIXEL, 1)?;
        let photometric = number(PHOTOMETRIC, u64::MAX)?;
        let planar = number(PLANAR_CONFIGURATION, 1)? == 2 && samples > 1;
        let reversed = number(FILL_ORDER, 1)? == 2 && compression != JPEG;
        let predictor = number(PREDICTOR, 1)?;
        let samples = u32::try_from(samples).ok().filter(|samples| (1..=4096).contains(samples));
        let Some(samples) = samples else {
            return Err(Problem::Damaged("it names sizes that cannot be".to_owned()));
        };
        check_compression(compression)?;
        let bits = same_for_all(source, directory, BITS_PER_SAMPLE, samples, 1)?;
        let signed = is_signed(source, directory, samples)?;
        let (bits, meaning) =
            (check_bits(bits)?, meaning(source, directory, photometric, samples)?);
        if samples > 1 && !matches!(bits, 8 | 16 | 32) {
            return Err(Problem::kind(&format!("has {samples} samples of {bits} bits a pixel")));
        }
        if photometric == WHITE_IS_ZERO && signed {
            return Err(Problem::kind("has signed pixels in which white is 0"));
        }
        if meaning == Samples::YCbCr && compression != JPEG {
            return Err(Problem::kind("is stored as brightness and colour (YCbCr) without JPEG"));
        }
        check_predictor(predictor, compression, bits)?;
        let greys = match photometric {
            PALETTE => Some(grey_table(source, directory, bits)?),
            _ => None,
        };
        let jpeg_tables = source.raw(directory, JPEG_TABLES)?;
        let mut layout = Self {
            width,
            height,
            bits,
            samples,
            meaning,
            inverted: photometric == WHITE_IS_ZERO,
            signed,
            compression,
            predictor,
            planar,
            reversed,
            tile: None,
            rows_per_strip: height,
            offsets: Vec::new(),
            counts: Vec::new(),
            jpeg_tables,
            greys,
        };
        if layout.bytes() > limits.max_pixels.saturating_mul(MOST_BYTES_A_PIXEL) {
            return Err(Problem::kind(&format!("has {samples} channels in one large page")));
        }
        layout.find_chunks(source, directory)?;
        if compression == JPEG {
            layout.check_jpeg(source)?;
        }
        Ok(layout)
    }

    /// Samples that lie side by side in one chunk.
    pub(super) fn interleaved(&self) -> u32 {
        if self.planar { 1 } else { self.samples }
    }

    /// Bytes that a row of `width` pixels takes in a chunk.
    pub(super) fn row_bytes(&self, width: u32) -> u64 {
        (u64::from(width) * u64::from(self.bits) * u64::from(self.interleaved())).div_ceil(8)
    }

    /// Bytes of all pixels, uncompressed.
    pub(super) fn bytes(&self) -> u64 {
        let planes = if self.planar { u64::from(self.samples) } else { 1 };
        self.row_bytes(self.width) * u64::from(self.height) * planes
    }

    /// Where the strips or tiles are, and how long.
    fn find_chunks<R: Read + Seek>(
        &mut self,
        source: &mut Source<R>,
        directory: &Directory,
    ) -> Result<(), Problem> {
        let tiled = directory.has(TILE_WIDTH) || directory.has(TILE_OFFSETS);
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        let per_plane = if tiled {
            let mut edge = |tag| {
                let edge = source.first_number(directory, tag)?.unwrap_or(0);
                let edge = u32::try_from(edge).ok().filter(|&edge| edge > 0 && edge <= 1 << 20);
                edge.ok_or_else(|| Problem::Damaged("its tiles have no size".to_owned()))
            };
            let (tile_width, tile_length) = (edge(TILE_WIDTH)?, edge(TILE_LENGTH)?);
            self.tile = Some((tile_width, tile_length));
            if !(u64::from(tile_width) * u64::from(self.bits)).is_multiple_of(8) {
                return Err(Problem::kind("has tiles whose rows end within a byte"));
            }
            width.div_ceil(tile_width.into()) * height.div_ceil(tile_length.into())
        } else {
            let rows = source.first_number(directory, ROWS_PER_STRIP)?.unwrap_or(0);
            // Left out, 0 and 2³² − 1 all mean one strip.
            self.rows_per_strip = match u32::try_from(rows) {
                Ok(rows) if rows > 0 => rows.min(self.height),
                _ => self.height,
            };
            height.div_ceil(self.rows_per_strip.into())
        };
        let planes = if self.planar { u64::from(self.samples) } else { 1 };
        let needed = usize::try_from(per_plane * planes).unwrap_or(usize::MAX);
        // Some writers keep the offsets of tiles under the name of strips.
        let either = if tiled {
            [(TILE_OFFSETS, TILE_BYTE_COUNTS), (STRIP_OFFSETS, STRIP_BYTE_COUNTS)]
        } else {
            [(STRIP_OFFSETS, STRIP_BYTE_COUNTS), (TILE_OFFSETS, TILE_BYTE_COUNTS)]
        };
        let [first, second] = either;
        let (offsets_tag, counts_tag) = if directory.has(first.0) { first } else { second };
        let Some(mut offsets) = source.numbers(directory, offsets_tag)? else {
            return Err(Problem::Damaged("it does not say where its pixels are".to_owned()));
        };
        if offsets.len() < needed {
            let why = format!("{} of {needed} strips or tiles are there", offsets.len());
            return Err(Problem::Damaged(why));
        }
        offsets.truncate(needed);
        let mut counts = source.numbers(directory, counts_tag)?.unwrap_or_default();
        counts.truncate(needed);
        self.offsets = offsets;
        self.counts = counts;
        self.complete_counts(source.bytes, per_plane)
    }

    /// Lengths that are missing (old writers) or 0 are worked out: from the pixels where nothing
    /// is compressed, else up to the next strip or the end of the file.
    fn complete_counts(&mut self, file_bytes: u64, per_plane: u64) -> Result<(), Problem> {
        self.counts.resize(self.offsets.len(), 0);
        let mut starts = self.offsets.clone();
        starts.sort_unstable();
        for at in 0..self.offsets.len() {
            let (offset, said) = (self.offsets[at], self.counts[at]);
            if offset == 0 {
                return Err(Problem::kind("leaves out a part of its pixels (a sparse file)"));
            }
            let after = starts.partition_point(|&start| start <= offset);
            let room = starts.get(after).copied().unwrap_or(file_bytes).saturating_sub(offset);
            let whole = self.chunk_bytes(at as u64 % per_plane);
            self.counts[at] = match (self.compression, said) {
                (NONE, 0) => whole,
                // The count of one strip of more than 4 GB does not fit its field.
                (NONE, said) if said < whole && self.offsets.len() == 1 && room >= whole => whole,
                (NONE, said) if said < whole => {
                    return Err(Problem::Damaged(format!("a strip has {said} of {whole} bytes")));
                }
                (_, 0) => room,
                (_, said) => said,
            };
        }
        Ok(())
    }

    /// Bytes of one strip or tile of a plane, uncompressed.
    fn chunk_bytes(&self, index: u64) -> u64 {
        match self.tile {
            Some((width, length)) => self.row_bytes(width) * u64::from(length),
            None => {
                let rows = u64::from(self.rows_per_strip);
                let left = u64::from(self.height).saturating_sub(index * rows);
                self.row_bytes(self.width) * left.min(rows)
            }
        }
    }

    /// Looks into the first strip or tile: the tag says JPEG, and there are many kinds of it.
    fn check_jpeg<R: Read + Seek>(&self, source: &mut Source<R>) -> Result<(), Problem> {
        let (Some(&offset), Some(&count)) = (self.offsets.first(), self.counts.first()) else {
            return Ok(());
        };
        let start = count.min(source.bytes.saturating_sub(offset)).min(64 * 1024);
        let start = source.read_at(offset, start)?;
        let header = jpeg::frame_header(&mut std::io::Cursor::new(start))?;
        header.check()?;
        if self.bits != 8 {
            return Err(Problem::kind(&format!(
                "holds JPEG of 8 bits where {} are said",
                self.bits
            )));
        }
        if !matches!(self.interleaved(), 1 | 3) {
            let samples = self.interleaved();
            return Err(Problem::kind(&format!("holds JPEG of {samples} samples a pixel")));
        }
        let width = self.tile.map_or(self.width, |(width, _)| width);
        if u32::from(header.width) != width || u32::from(header.components) != self.interleaved() {
            return Err(Problem::kind(&format!(
                "holds JPEG of {} pixels a row and {} samples where {width} and {} are said",
                header.width,
                header.components,
                self.interleaved()
            )));
        }
        Ok(())
    }
}

/// One number that holds for every sample of a pixel. Writers give it once, once a sample, or
/// more often than there are samples.
fn same_for_all<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
    tag: u16,
    samples: u32,
    default: u64,
) -> Result<u64, Problem> {
    let mut values = source.numbers(directory, tag)?.unwrap_or_default();
    values.truncate(samples as usize);
    let Some(&first) = values.first() else { return Ok(default) };
    if values.iter().any(|&value| value != first) {
        return Err(Problem::kind("has samples of different kinds in one pixel"));
    }
    Ok(first)
}

fn is_signed<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
    samples: u32,
) -> Result<bool, Problem> {
    match same_for_all(source, directory, SAMPLE_FORMAT, samples, 1)? {
        // "Undefined" is what older writers say of plain numbers.
        1 | 4 => Ok(false),
        2 => Ok(true),
        3 => Err(Problem::kind("has floating-point pixels, whose black and white are not known")),
        5 | 6 => Err(Problem::kind("has complex numbers as pixels")),
        other => Err(Problem::kind(&format!("has pixels of a format that is not known ({other})"))),
    }
}

/// Bits that are read: those of PNG, those of cameras, and 32 for labels.
fn check_bits(bits: u64) -> Result<u32, Problem> {
    match bits {
        1 | 2 | 4 | 8..=16 | 32 => Ok(bits as u32),
        0 => Err(Problem::Damaged("its pixels have 0 bits".to_owned())),
        bits => Err(Problem::kind(&format!("has {bits} bits a pixel"))),
    }
}

fn meaning<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
    photometric: u64,
    samples: u32,
) -> Result<Samples, Problem> {
    let extra = source.numbers(directory, EXTRA_SAMPLES)?.unwrap_or_default();
    let last_is_alpha = matches!(extra.last(), Some(1 | 2));
    match (photometric, samples) {
        (WHITE_IS_ZERO | BLACK_IS_ZERO | PALETTE, 1) => Ok(Samples::Grey),
        (WHITE_IS_ZERO | BLACK_IS_ZERO, 2) if last_is_alpha => Ok(Samples::GreyAlpha),
        (WHITE_IS_ZERO | BLACK_IS_ZERO, _) => Ok(Samples::Channels),
        (RGB, 3) => Ok(Samples::Rgb),
        // Without a word about it, the fourth is taken for alpha, as most readers do.
        (RGB, 4) if last_is_alpha || extra.is_empty() => Ok(Samples::Rgba),
        (RGB, _) => Ok(Samples::Channels),
        (YCBCR, 3) => Ok(Samples::YCbCr),
        (4, _) => Err(Problem::kind("is a transparency mask")),
        (32_803, _) => Err(Problem::kind("is a camera's raw colour mosaic")),
        (u64::MAX, _) => Err(Problem::kind("does not say whether 0 is black or white")),
        (5 | 6 | 8..=10 | 34_892, _) => {
            Err(Problem::kind("has colours, but not red, green and blue"))
        }
        (PALETTE, _) => Err(Problem::kind("is shown through a colour table (LUT)")),
        (other, _) => {
            Err(Problem::kind(&format!("has colours of a kind that is not read here ({other})")))
        }
    }
}

fn check_compression(compression: u64) -> Result<(), Problem> {
    let name = match compression {
        NONE | CCITT_T6 | LZW | JPEG | DEFLATE | OLD_DEFLATE | PACKBITS => return Ok(()),
        2 | 32_771 => "CCITT run lengths",
        3 => "CCITT T.4",
        6 => "JPEG of the old kind",
        32_766 => "NeXT run lengths",
        32_809 => "ThunderScan",
        34_676 | 34_677 => "SGI LogLuv",
        34_712 | 33_003..=33_005 => "JPEG 2000",
        34_887 => "LERC",
        34_892 => "lossy JPEG",
        34_925 => "LZMA",
        34_926 | 50_000 => "ZSTD",
        34_927 | 50_001 => "WebP",
        34_933 => "PNG",
        34_934 | 22_610 => "JPEG XR",
        50_002 | 52_546 => "JPEG XL",
        other => return Err(compressed(&format!("method {other}"))),
    };
    Err(compressed(name))
}

fn compressed(name: &str) -> Problem {
    Problem::Unsupported(format!(
        "is compressed by {name}, which is not read here; export it uncompressed or with LZW or \
         deflate"
    ))
}

/// A predictor belongs to LZW and deflate; libtiff passes over it elsewhere and other readers do
/// not, so it is not known what was meant.
fn check_predictor(predictor: u64, compression: u64, bits: u32) -> Result<(), Problem> {
    match (predictor, compression) {
        (1, _) => Ok(()),
        (2, LZW | DEFLATE | OLD_DEFLATE) if matches!(bits, 8 | 16 | 32) => Ok(()),
        (2, LZW | DEFLATE | OLD_DEFLATE) => {
            Err(Problem::kind(&format!("stores differences of {bits} bits (predictor 2)")))
        }
        (2, _) => Err(Problem::kind(
            "says that it stores differences (predictor 2), which its compression does not have",
        )),
        (other, _) => Err(Problem::kind(&format!("has predictor {other}, which is not read here"))),
    }
}

/// The greys of a colour table whose colours are all grey, as PNG has them in 8 bits.
fn grey_table<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
    bits: u32,
) -> Result<Vec<u8>, Problem> {
    let colours = source.numbers(directory, COLOR_MAP)?.unwrap_or_default();
    let entries = 1_usize << bits.min(16);
    if bits > 8 || colours.len() != 3 * entries {
        return Err(Problem::kind("is shown through a colour table (LUT)"));
    }
    let (red, others) = colours.split_at(entries);
    let (green, blue) = others.split_at(entries);
    if red != green || red != blue {
        return Err(Problem::kind("is shown through a colour table (LUT)"));
    }
    // Some writers fill 8 of the 16 bits.
    let shift = if red.iter().all(|&value| value < 256) { 0 } else { 8 };
    Ok(red.iter().map(|&value| (value >> shift) as u8).collect())
}

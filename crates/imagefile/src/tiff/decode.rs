//! From the bytes of one page to its samples.
//!
//! The `tiff` crate decompresses and puts strips and tiles together. It gets the page as a file
//! of its own ([`Rewritten`]): a directory that says no more than how the bytes lie, in front of
//! the file as it is. So it never meets what it would refuse (lengths that are missing, formats
//! and photometric interpretations that it does not know, bits that it does not unpack), and what
//! the samples mean is decided in one place, [`super::layout`].

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use tiff::decoder::{Decoder, DecodingResult, Limits as DecoderLimits};
use tiff::{TiffError, TiffFormatError};

use super::layout::{self, Layout, MOST_BYTES_A_PIXEL};
use crate::{Limits, Problem};

/// Samples as they are stored, interleaved or one plane after the other.
pub(super) enum Decoded {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// Decodes one page.
///
/// Planes and tiles are decoded one by one, as pages of one plane and one strip. The crate takes a
/// tile's place in all planes for its place in its own, and panics at the edges of the second
/// plane; and of some tiles that reach over the edge it loses the end when it reads LZW in parts.
pub(super) fn decode<R: Read + Seek>(
    reader: &mut R,
    big_endian: bool,
    layout: &Layout,
    limits: Limits,
) -> Result<Decoded, Problem> {
    if !layout.planar {
        return decode_plane(reader, big_endian, layout, limits);
    }
    let chunks = layout.offsets.len() / layout.samples as usize;
    let mut planes: Option<Decoded> = None;
    for plane in 0..layout.samples as usize {
        let plane = part(layout, plane * chunks..(plane + 1) * chunks);
        let plane = Layout { samples: 1, planar: false, ..plane };
        let decoded = decode_plane(reader, big_endian, &plane, limits)?;
        match (&mut planes, decoded) {
            (None, decoded) => planes = Some(decoded),
            (Some(Decoded::U8(all)), Decoded::U8(more)) => all.extend(more),
            (Some(Decoded::U16(all)), Decoded::U16(more)) => all.extend(more),
            (Some(Decoded::U32(all)), Decoded::U32(more)) => all.extend(more),
            _ => return Err(Problem::kind("has samples of different kinds in one pixel")),
        }
    }
    planes.ok_or_else(|| Problem::Damaged("it holds no image".to_owned()))
}

/// The same page with some of its strips or tiles.
fn part(layout: &Layout, chunks: Range<usize>) -> Layout {
    Layout {
        offsets: layout.offsets[chunks.clone()].to_vec(),
        counts: layout.counts[chunks].to_vec(),
        jpeg_tables: layout.jpeg_tables.clone(),
        greys: None,
        ..*layout
    }
}

fn decode_plane<R: Read + Seek>(
    reader: &mut R,
    big_endian: bool,
    layout: &Layout,
    limits: Limits,
) -> Result<Decoded, Problem> {
    let Some((width, height)) = layout.tile else {
        return decode_strips(reader, big_endian, layout, limits);
    };
    let across = layout.width.div_ceil(width) as usize;
    let values = layout.width as usize * layout.height as usize * layout.samples as usize;
    let mut image = match layout.bits {
        ..=8 => Decoded::U8(vec![0; values]),
        9..=16 => Decoded::U16(vec![0; values]),
        _ => Decoded::U32(vec![0; values]),
    };
    for number in 0..layout.offsets.len() {
        let tile = part(layout, number..number + 1);
        let tile = Layout { width, height, rows_per_strip: height, tile: None, ..tile };
        let place = Place {
            row: width as usize * layout.samples as usize,
            left: (number % across) * width as usize * layout.samples as usize,
            top: (number / across) * height as usize,
            stride: layout.width as usize * layout.samples as usize,
        };
        match (&mut image, decode_strips(reader, big_endian, &tile, limits)?) {
            (Decoded::U8(image), Decoded::U8(tile)) => place.put(image, &tile),
            (Decoded::U16(image), Decoded::U16(tile)) => place.put(image, &tile),
            (Decoded::U32(image), Decoded::U32(tile)) => place.put(image, &tile),
            _ => return Err(Problem::kind("has samples of different kinds in one pixel")),
        }
    }
    Ok(image)
}

/// Where a tile goes, in values.
struct Place {
    /// Values of a row of the tile.
    row: usize,
    left: usize,
    top: usize,
    /// Values of a row of the image.
    stride: usize,
}

impl Place {
    /// Copies a tile; what of it lies outside of the image is left out.
    fn put<T: Copy>(&self, image: &mut [T], tile: &[T]) {
        let used = self.row.min(self.stride - self.left);
        let rows = image.chunks_exact_mut(self.stride).skip(self.top);
        for (into, from) in rows.zip(tile.chunks_exact(self.row)) {
            into[self.left..self.left + used].copy_from_slice(&from[..used]);
        }
    }
}

fn decode_strips<R: Read + Seek>(
    reader: &mut R,
    big_endian: bool,
    layout: &Layout,
    limits: Limits,
) -> Result<Decoded, Problem> {
    // A row of 12 bits a pixel is decoded as the bytes that it takes, and unpacked afterwards.
    let packed = !matches!(layout.bits, 8 | 16 | 32);
    let head = head(layout, big_endian, packed && layout.compression != layout::CCITT_T6);
    let file = Rewritten { head, reader, at: 0, reversed: layout.reversed };
    let mut decoder = Decoder::new(file).map_err(problem)?.with_limits(decoder_limits(limits));
    decoder.seek_to_image(1).map_err(problem)?;
    let mut decoded = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut decoded).map_err(problem)?;
    let samples = match decoded {
        DecodingResult::U8(bytes) if packed => unpack(&bytes, layout),
        DecodingResult::U8(values) => Decoded::U8(values),
        DecodingResult::U16(values) => Decoded::U16(values),
        DecodingResult::U32(values) => Decoded::U32(values),
        _ => return Err(Problem::kind("has pixels of 64 bits")),
    };
    let found = match &samples {
        Decoded::U8(values) => values.len(),
        Decoded::U16(values) => values.len(),
        Decoded::U32(values) => values.len(),
    };
    let expected = layout.width as usize * layout.height as usize * layout.samples as usize;
    if found != expected {
        return Err(Problem::Damaged(format!("{found} of {expected} pixels are there")));
    }
    Ok(samples)
}

/// Rows of samples that do not fill whole bytes; the first is in the highest bits, in files of
/// either byte order.
fn unpack(bytes: &[u8], layout: &Layout) -> Decoded {
    let row = layout.row_bytes(layout.width).max(1) as usize;
    let width = layout.width as usize;
    let bits = layout.bits as usize;
    let mask = (1_u32 << bits) - 1;
    let value = |row: &[u8], column: usize| {
        let start = column * bits;
        let byte = |at: usize| u32::from(row.get(at).copied().unwrap_or(0));
        let at = start / 8;
        let window = byte(at) << 16 | byte(at + 1) << 8 | byte(at + 2);
        (window >> (24 - bits - start % 8)) & mask
    };
    let values = bytes.chunks(row).flat_map(|row| (0..width).map(move |column| value(row, column)));
    if bits <= 8 {
        Decoded::U8(values.map(|value| value as u8).collect())
    } else {
        Decoded::U16(values.map(|value| value as u16).collect())
    }
}

fn decoder_limits(limits: Limits) -> DecoderLimits {
    let bytes = usize::try_from(limits.max_pixels.saturating_mul(MOST_BYTES_A_PIXEL));
    let bytes = bytes.unwrap_or(usize::MAX);
    let mut decoder_limits = DecoderLimits::default();
    decoder_limits.decoding_buffer_size = bytes;
    // A compressed strip that was not worth compressing is a little larger than its pixels.
    decoder_limits.intermediate_buffer_size = bytes.saturating_add(bytes / 8).saturating_add(4096);
    decoder_limits.ifd_value_size = usize::MAX;
    decoder_limits
}

/// A directory that says how the bytes lie, as the head of a BigTIFF file. What follows is the
/// file itself, so offsets into it grow by the head's length.
///
/// A directory of one pixel comes first: the decoder reads the first one before it can be told
/// its limits.
fn head(layout: &Layout, big_endian: bool, as_bytes: bool) -> Vec<u8> {
    let narrow = |width: u32| {
        if as_bytes { u32::try_from(layout.row_bytes(width)).unwrap_or(u32::MAX) } else { width }
    };
    let tables = layout.jpeg_tables.as_deref().filter(|_| layout.compression == layout::JPEG);
    let single = |tag, value: u32| Tag { tag, kind: LONG8, values: vec![value.into()] };
    let one_pixel = [
        single(layout::IMAGE_WIDTH, 1),
        single(layout::IMAGE_LENGTH, 1),
        single(layout::BITS_PER_SAMPLE, 8),
        single(layout::PHOTOMETRIC, 1),
        single(layout::STRIP_OFFSETS, 0),
        single(layout::STRIP_BYTE_COUNTS, 1),
    ];
    let mut page = vec![
        single(layout::IMAGE_WIDTH, narrow(layout.width)),
        single(layout::IMAGE_LENGTH, layout.height),
        single(layout::BITS_PER_SAMPLE, if as_bytes { 8 } else { layout.bits }),
        single(layout::COMPRESSION, layout.compression as u32),
        single(layout::PHOTOMETRIC, 1),
        single(layout::SAMPLES_PER_PIXEL, layout.samples),
        single(layout::PREDICTOR, layout.predictor as u32),
    ];
    page.push(single(layout::ROWS_PER_STRIP, layout.rows_per_strip));
    if let Some(tables) = tables {
        let values = tables.iter().map(|&byte| byte.into()).collect();
        page.push(Tag { tag: layout::JPEG_TABLES, kind: UNDEFINED, values });
    }
    let mut head = Head { bytes: Vec::new(), big_endian };
    let length = Head::HEADER
        + Head::length(&one_pixel)
        + Head::length(&page)
        + 2 * (Head::ENTRY + 8 * layout.offsets.len() as u64);
    let behind = layout.offsets.iter().map(|offset| offset.saturating_add(length)).collect();
    page.push(Tag { tag: layout::STRIP_OFFSETS, kind: LONG8, values: behind });
    page.push(Tag { tag: layout::STRIP_BYTE_COUNTS, kind: LONG8, values: layout.counts.clone() });
    head.header();
    head.directory(&one_pixel, true);
    head.directory(&page, false);
    // Values that fit their entry take no place behind the directory.
    head.bytes.resize(length as usize, 0);
    head.bytes
}

const LONG8: u16 = 16;
const UNDEFINED: u16 = 7;

struct Tag {
    tag: u16,
    kind: u16,
    values: Vec<u64>,
}

impl Tag {
    fn value_bytes(&self) -> u64 {
        self.values.len() as u64 * if self.kind == LONG8 { 8 } else { 1 }
    }
}

struct Head {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl Head {
    const HEADER: u64 = 16;
    const ENTRY: u64 = 20;

    /// Bytes that a directory takes at most, with its values.
    fn length(tags: &[Tag]) -> u64 {
        16 + tags.iter().map(|tag| Self::ENTRY + tag.value_bytes()).sum::<u64>()
    }

    /// The lowest `size` bytes of a number.
    fn put(&mut self, value: u64, size: usize) {
        if self.big_endian {
            self.bytes.extend(&value.to_be_bytes()[8 - size..]);
        } else {
            self.bytes.extend(&value.to_le_bytes()[..size]);
        }
    }

    fn header(&mut self) {
        self.bytes.extend(if self.big_endian { b"MM" } else { b"II" });
        for (value, size) in [(43, 2), (8, 2), (0, 2), (Self::HEADER, 8)] {
            self.put(value, size);
        }
    }

    fn directory(&mut self, tags: &[Tag], has_next: bool) {
        self.put(tags.len() as u64, 8);
        let mut values = self.bytes.len() as u64 + tags.len() as u64 * Self::ENTRY + 8;
        for tag in tags {
            self.put(tag.tag.into(), 2);
            self.put(tag.kind.into(), 2);
            self.put(tag.values.len() as u64, 8);
            if tag.value_bytes() > 8 {
                self.put(values, 8);
                values += tag.value_bytes();
            } else {
                self.values(tag);
                for _ in tag.value_bytes()..8 {
                    self.put(0, 1);
                }
            }
        }
        self.put(if has_next { values } else { 0 }, 8);
        for tag in tags.iter().filter(|tag| tag.value_bytes() > 8) {
            self.values(tag);
        }
    }

    fn values(&mut self, tag: &Tag) {
        let size = if tag.kind == LONG8 { 8 } else { 1 };
        for &value in &tag.values {
            self.put(value, size);
        }
    }
}

/// The head, and behind it the file, whose bits may be turned round.
struct Rewritten<'a, R> {
    head: Vec<u8>,
    reader: &'a mut R,
    at: u64,
    /// The first pixel is in the lowest bit of each byte of the file.
    reversed: bool,
}

impl<R: Read + Seek> Read for Rewritten<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let head = usize::try_from(self.at).ok().and_then(|at| self.head.get(at..));
        let read = match head {
            Some(mut head) if !head.is_empty() => head.read(into)?,
            _ => {
                let read = self.reader.read(into)?;
                if self.reversed {
                    for byte in &mut into[..read] {
                        *byte = byte.reverse_bits();
                    }
                }
                read
            }
        };
        let before = self.at;
        self.at += read as u64;
        let length = self.head.len() as u64;
        if before < length && self.at == length {
            self.reader.seek(SeekFrom::Start(0))?;
        }
        Ok(read)
    }
}

impl<R: Read + Seek> Seek for Rewritten<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length = self.head.len() as u64;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => {
                self.reader.seek(SeekFrom::End(0))?.saturating_add(length).checked_add_signed(by)
            }
        };
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        self.reader.seek(SeekFrom::Start(at.saturating_sub(length)))?;
        self.at = at;
        Ok(at)
    }
}

fn problem(error: TiffError) -> Problem {
    match error {
        TiffError::IoError(error) => Problem::from(error),
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

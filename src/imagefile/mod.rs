//! Image files in and out: frames as vendors write them, label images as scientists open them.
//!
//! - [`open`] reads TIFF (also OME-TIFF, ImageJ, BigTIFF, several pages), PNG and JPEG, told
//!   apart by their content, never by their name. One page is in memory at a time.
//! - Only one channel comes out: grey of 8 or 16 bits. Grey that was saved as RGB is grey;
//!   real colour is refused, because which channel to segment is the user's choice.
//! - The size is read from the header and checked before anything of that size is allocated.
//! - Files are foreign: whatever they hold, the answer is a [`Page`] or an [`ImageFileError`]
//!   that names the file, the page and the remedy; never a panic, never a half-read image.
//! - [`write_labels`] and [`encode_frame_tiff`] write what [`read_labels`] and
//!   [`decode_frame_tiff`] give back, pixel for pixel.
//!
//! What is small or empty but well formed is given out; the segmenter decides about it.

mod error;
mod frame_tiff;
mod grey;
mod jpeg;
mod labels;
mod list;
mod meta;
mod png;
mod tiff;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use error::{ImageFileError, Problem};
pub use frame_tiff::{NoPixels, decode_frame_tiff, encode_frame_tiff};
pub use labels::{encode_labels_png, encode_labels_tiff, read_labels, write_labels};
pub use list::{is_image_name, list_images, natural_order};

use crate::base::clock::Stamp;
use crate::domain::frame::{Pixels, Place, Shot};

/// Pixels above which an image is refused unless the caller allows more: 8192².
///
/// A frame of this size took 1.8 GB while it was segmented (label image of 4 bytes and three
/// maps of 4 bytes a pixel, and what instances need); beyond it a box of 4 GB is in danger.
pub const MAX_PIXELS: u64 = 8192 * 8192;

/// How much of a file is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of one page above which the page is refused, unread.
    pub max_pixels: u64,
    /// What a person raises to have larger pages read, as it is to be named to them; `None`
    /// where nothing does.
    pub to_raise: Option<&'static str>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: MAX_PIXELS, to_raise: None }
    }
}

impl Limits {
    fn check(self, width: u32, height: u32) -> Result<(), Problem> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            let Self { max_pixels: limit, to_raise } = self;
            return Err(Problem::TooLarge { width, height, limit, to_raise });
        }
        Ok(())
    }
}

/// One image of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel: 8, 10, 12, 14 or 16. More than 8 only with 16-bit pixels.
    pub bit_depth: u8,
    /// The grey values, bright is large.
    pub pixels: Pixels,
    /// Edge of a pixel in the sample, in µm, where the file says it and it can be believed.
    pub pixel_size_um: Option<f64>,
    /// Number of the page in its file, from 0. Thumbnails are not counted.
    pub index: usize,
}

impl Page {
    /// The page as a source's shot: what the file says of it, its index as the sequence, and
    /// nothing that only a source can know (exposure, place).
    pub fn into_shot(self, captured: Stamp, origin: String) -> Shot {
        Shot {
            sequence: self.index as u64,
            captured,
            exposure_us: None,
            width: self.width,
            height: self.height,
            bit_depth: self.bit_depth,
            pixels: self.pixels,
            pixel_size_um: self.pixel_size_um,
            place: Place::default(),
            origin: Some(origin),
            truth: None,
        }
    }
}

/// The pages of one file, read one by one. See [`open`].
///
/// A page that is refused (colour, too large) does not end the file; damage does.
#[derive(Debug)]
pub struct Pages {
    path: PathBuf,
    pages: usize,
    next: usize,
    reader: Reader,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each open file, never in a collection; a box would only add a pointer"
)]
enum Reader {
    Tiff(tiff::Stack<BufReader<File>>),
    Png(Option<png::Image<BufReader<File>>>),
    Jpeg(Option<jpeg::Image<BufReader<File>>>),
}

/// What a file is by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Tiff,
    Png,
    Jpeg,
}

/// Opens an image file and reads its headers.
///
/// # Errors
/// When the file cannot be read, is empty, is no image or its header is damaged, and when a
/// file of one image is too large or in colour. Pages of a TIFF are judged one by one as they
/// are read.
pub fn open(path: &Path, limits: Limits) -> Result<Pages, ImageFileError> {
    let named = |problem| ImageFileError::new(path, None, problem);
    let mut file = open_file(path).map_err(named)?;
    let reader = guarded(|| match sniff(&mut file)? {
        Format::Tiff => tiff::Stack::open(file, limits).map(Reader::Tiff),
        Format::Png => png::Image::open(file, limits).map(Some).map(Reader::Png),
        Format::Jpeg => jpeg::Image::open(file, limits).map(Some).map(Reader::Jpeg),
    })
    .map_err(named)?;
    let pages = match &reader {
        Reader::Tiff(stack) => stack.len(),
        Reader::Png(_) | Reader::Jpeg(_) => 1,
    };
    Ok(Pages { path: path.to_owned(), pages, next: 0, reader })
}

impl Pages {
    /// The file the pages come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on with page `index`; those before it are not read.
    pub fn skip_to(&mut self, index: usize) {
        self.next = self.next.max(index).min(self.pages);
    }

    /// How many pages the file has, read or not.
    pub fn total(&self) -> usize {
        self.pages
    }
}

impl Iterator for Pages {
    type Item = Result<Page, ImageFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.pages {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let page = guarded(|| match &mut self.reader {
            Reader::Tiff(stack) => stack.read(index),
            Reader::Png(image) => image.take().map_or(Err(Problem::Empty), png::Image::read),
            Reader::Jpeg(image) => image.take().map_or(Err(Problem::Empty), jpeg::Image::read),
        });
        Some(page.map_err(|problem| {
            if problem.ends_the_file() {
                self.next = self.pages;
            }
            ImageFileError::new(&self.path, (self.pages > 1).then_some(index), problem)
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.pages - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pages {}

/// Opens a file for reading; folders and devices are refused.
fn open_file(path: &Path) -> Result<BufReader<File>, Problem> {
    // Asked before it is opened: to open a pipe is to wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(Problem::NotAFile);
    }
    Ok(BufReader::with_capacity(64 * 1024, File::open(path)?))
}

/// Tells the format and leaves the reader at the start.
fn sniff(reader: &mut (impl BufRead + Seek)) -> Result<Format, Problem> {
    let mut start = Vec::with_capacity(8);
    reader.take(8).read_to_end(&mut start)?;
    reader.rewind()?;
    match start.as_slice() {
        [] => Err(Problem::Empty),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Format::Tiff),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'] => Ok(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        _ => Err(Problem::NotAnImage),
    }
}

/// Runs a decoder of another's making on bytes of another's making.
///
/// The `tiff` crate asserts its assumptions about a file (`decoder/image.rs`), and a panic in
/// the capture thread would end the acquisition for one bad file. All that the decoder
/// borrowed is dropped or never used again after an error, so no broken state survives: a
/// panic is damage ([`Problem::ends_the_file`]).
fn guarded<T>(decode: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Problem::Damaged("the decoder gave up".to_owned())))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests;

//! Image files in and out: frames as vendors write them, label images as scientists open them.
//!
//! - [`open`] reads TIFF (also OME-TIFF, ImageJ, BigTIFF, several pages), PNG and JPEG, told
//!   apart by their content, never by their name. One page is in memory at a time.
//! - Only one channel comes out: grey of 8 or 16 bits. Grey that was saved as RGB is grey; of
//!   real colour and of several channels the one that is chosen ([`Selection`]), else they are
//!   refused with their names, because which channel to segment is the user's choice.
//! - What is not read is named: another format with what to do, a kind of image with how to export
//!   it. "Damaged" is said only of what contradicts itself or is cut short.
//! - The size is read from the header and checked before anything of that size is allocated:
//!   against a limit, and against the memory that can be had ([`Limits`]).
//! - A small file does not become a large one: pages are counted, their pixels are bytes of their
//!   own, and reading one ends in time.
//! - Files are foreign: whatever they hold, the answer is a [`Page`] or an [`ImageFileError`]
//!   that names the file, the page and the remedy; never a panic, never a half-read image.
//! - [`write_labels`] and [`encode_frame_tiff`] write what [`read_labels`] and
//!   [`decode_frame_tiff`] give back, pixel for pixel.
//!
//! What is small or empty but well formed is given out; the segmenter decides about it.

mod directory;
mod error;
mod foreign;
mod frame_tiff;
mod grey;
mod jpeg;
mod labels;
mod list;
mod meta;
mod planes;
mod png;
mod survey;
mod tiff;
mod timed;

use std::io::{BufRead, BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{ImageFileError, Problem};
pub use frame_tiff::{NoPixels, decode_frame_tiff, encode_frame_tiff};
pub use labels::{
    encode_labels_png, encode_labels_tiff, read_drawn_labels, read_labels, write_labels,
};
pub use list::{is_image_name, label_stem, list_images, natural_order, shown_name};
pub use planes::{EmptyPick, Pick, Selection};
pub use survey::{Survey, survey};
use timed::{Timed, Timer};

use reticle_base::clock::Stamp;
use reticle_base::foreign_file::{self, ForeignFileError};
use reticle_base::memory;
use reticle_domain::frame::{Pixels, Place, Shot};
use reticle_domain::pixel_size::{PixelSize, PixelSizeSource};

/// Pixels above which an image is refused unless the caller allows more: 8192².
///
/// A frame of this size took 1.8 GB while it was segmented (label image of 4 bytes and three
/// maps of 4 bytes a pixel, and what instances need); beyond it a box of 4 GB is in danger.
pub const MAX_PIXELS: u64 = 8192 * 8192;

/// Pages above which a file is refused unless the caller allows more: an hour at almost three a
/// second, and 1.3 MB of ids while they are on their way.
pub const MAX_PAGES: usize = 10_000;

/// Bytes above which a file is refused unless the caller allows more: 16 GiB, [`MAX_PAGES`] of
/// 1024×800 pixels of 16 bits.
pub const MAX_FILE_BYTES: u64 = 16 << 30;

/// How long reading the headers, or one page, may take: 2 MB a second for the largest page.
pub const MAX_READ: Duration = Duration::from_secs(60);

/// Memory that a pixel takes while it is only decoded: grey saved as colour of 16 bits, as read and
/// as kept.
const DECODED_BYTES_A_PIXEL: u64 = 10;

/// Images that need less are read without asking how much memory there is.
const LITTLE_BYTES: u64 = 64 << 20;

/// What a process needs besides its images: with the daemon and frames of 256², 69 MB were measured.
const BASE_BYTES: u64 = 96 << 20;

/// An image that needs more than this part of the memory is read alone.
const HEAVY_PART: u64 = 8;

/// How much of a file is believed, and what it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of one page above which the page is refused, unread.
    pub max_pixels: u64,
    /// What a person raises to have larger pages read, as it is to be named to them; `None`
    /// where nothing does.
    pub to_raise: Option<&'static str>,
    /// Memory that a pixel of a page takes, with all that is made of the page, in bytes. A page
    /// that needs more than can be had is refused, unread.
    pub bytes_a_pixel: u64,
    /// Pages above which a file is refused.
    pub max_pages: usize,
    /// Bytes above which a file is refused, unread.
    pub max_bytes: u64,
    /// How long reading the headers, or one page, may take.
    pub max_read: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: MAX_PIXELS,
            to_raise: None,
            bytes_a_pixel: DECODED_BYTES_A_PIXEL,
            max_pages: MAX_PAGES,
            max_bytes: MAX_FILE_BYTES,
            max_read: MAX_READ,
        }
    }
}

impl Limits {
    fn check(self, width: u32, height: u32) -> Result<(), Problem> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            let Self { max_pixels: limit, to_raise, .. } = self;
            return Err(Problem::TooLarge { width, height, limit, to_raise });
        }
        let need = self.need(width, height);
        if need > LITTLE_BYTES
            && let Some(memory::Room { bytes: room, within }) = memory::room()
            && need.saturating_add(BASE_BYTES) > room
        {
            return Err(Problem::NoMemory { width, height, need, room, within });
        }
        Ok(())
    }

    /// Bytes of memory that a page takes, with all that is made of it.
    fn need(self, width: u32, height: u32) -> u64 {
        let pixels = u64::from(width) * u64::from(height);
        pixels.saturating_mul(self.bytes_a_pixel)
    }

    /// Whether two pages of this size may be more than there is memory for.
    fn is_heavy(self, width: u32, height: u32) -> bool {
        let need = self.need(width, height);
        need > LITTLE_BYTES && memory::room().is_some_and(|room| need > room.bytes / HEAVY_PART)
    }

    /// Refuses a file by its size alone.
    ///
    /// # Errors
    /// [`Problem::TooManyBytes`].
    pub fn check_bytes(self, bytes: u64) -> Result<(), Problem> {
        if bytes > self.max_bytes {
            return Err(Problem::TooManyBytes { bytes, limit: self.max_bytes });
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
    /// Who stated that size.
    pub pixel_size_source: Option<PixelSizeSource>,
    /// What a person should know of it, see [`PixelSize::note`].
    pub pixel_size_note: Option<String>,
    /// Number of the page in its file, from 0. Thumbnails are not counted.
    pub index: usize,
}

impl Page {
    /// A page of which no more is known than its pixels.
    pub(self) fn new(width: u32, height: u32, bit_depth: u8, pixels: Pixels, index: usize) -> Self {
        Self {
            width,
            height,
            bit_depth,
            pixels,
            pixel_size_um: None,
            pixel_size_source: None,
            pixel_size_note: None,
            index,
        }
    }

    /// The page with what is known of the edge of a pixel.
    pub(self) fn with_pixel_size(self, size: PixelSize) -> Self {
        let PixelSize { um, source, note } = size;
        Self { pixel_size_um: um, pixel_size_source: source, pixel_size_note: note, ..self }
    }

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
            pixel_size_source: self.pixel_size_source,
            pixel_size_note: self.pixel_size_note,
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
    selection: Selection,
    timer: Timer,
    limits: Limits,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each open file, never in a collection; a box would only add a pointer"
)]
enum Reader {
    Tiff(tiff::Stack<BufReader<Timed>>),
    Png(Option<png::Image<BufReader<Timed>>>),
    Jpeg(Option<jpeg::Image<BufReader<Timed>>>),
}

/// What a file is by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Tiff,
    Png,
    Jpeg,
}

/// Opens an image file of one channel and reads its headers.
///
/// # Errors
/// When the file cannot be read, is empty, is no image or its header is damaged, when it holds
/// several channels, and when a file of one image is too large or in colour. Pages of a TIFF are
/// judged one by one as they are read.
pub fn open(path: &Path, limits: Limits) -> Result<Pages, ImageFileError> {
    open_chosen(path, limits, &Selection::default())
}

/// Opens an image file and reads its headers; of its channels and z planes those that are chosen
/// are read.
///
/// # Errors
/// As [`open`], and when what is chosen is not there.
pub fn open_chosen(
    path: &Path,
    limits: Limits,
    selection: &Selection,
) -> Result<Pages, ImageFileError> {
    let named = |problem| ImageFileError::new(path, None, problem);
    let timer = Timer::new(limits.max_read);
    let (mut file, bytes) = open_file(path, &timer).map_err(named)?;
    limits.check_bytes(bytes).map_err(named)?;
    let reader = guarded(&timer, || match sniff(&mut file)? {
        Format::Tiff => tiff::Stack::open(file, bytes, limits, selection).map(Reader::Tiff),
        Format::Png => png::Image::open(file, limits).map(Some).map(Reader::Png),
        Format::Jpeg => jpeg::Image::open(file, limits).map(Some).map(Reader::Jpeg),
    })
    .map_err(named)?;
    let pages = match &reader {
        Reader::Tiff(stack) => stack.len(),
        Reader::Png(_) | Reader::Jpeg(_) => {
            planes::Axes::unknown(1).choose(selection).map_err(named)?;
            1
        }
    };
    let (path, selection) = (path.to_owned(), selection.clone());
    Ok(Pages { path, pages, next: 0, reader, selection, timer, limits })
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

    /// Whether the next page is so large that it is better read when nothing else needs memory.
    pub fn next_is_heavy(&mut self) -> bool {
        let size = match &self.reader {
            Reader::Tiff(stack) => stack.chosen_from(self.next).and_then(|next| stack.size(next)),
            Reader::Png(image) => image.as_ref().map(png::Image::size),
            Reader::Jpeg(image) => image.as_ref().map(jpeg::Image::size),
        };
        // What cannot be told is refused when it is read.
        size.is_some_and(|(width, height)| self.limits.is_heavy(width, height))
    }

    /// How many pages the file has, chosen or not, read or not.
    pub fn total(&self) -> usize {
        self.pages
    }

    /// What a person should know of what is read and what is left out, each as "`FILE` `NOTE`".
    pub fn notes(&self) -> &[String] {
        match &self.reader {
            Reader::Tiff(stack) => stack.notes(),
            Reader::Png(_) | Reader::Jpeg(_) => &[],
        }
    }
}

impl Iterator for Pages {
    type Item = Result<Page, ImageFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.pages {
            return None;
        }
        let index = match &self.reader {
            Reader::Tiff(stack) => stack.chosen_from(self.next)?,
            Reader::Png(_) | Reader::Jpeg(_) => self.next,
        };
        self.next = index + 1;
        let selection = &self.selection;
        let page = guarded(&self.timer, || match &mut self.reader {
            Reader::Tiff(stack) => stack.read(index),
            Reader::Png(image) => {
                image.take().map_or(Err(Problem::Empty), |image| image.read(selection))
            }
            Reader::Jpeg(image) => {
                image.take().map_or(Err(Problem::Empty), |image| image.read(selection))
            }
        });
        Some(page.map_err(|problem| {
            if problem.ends_the_file() {
                self.next = self.pages;
            }
            ImageFileError::new(&self.path, (self.pages > 1).then_some(index), problem)
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.reader {
            Reader::Tiff(stack) if self.next < self.pages => stack.left_from(self.next),
            _ => self.pages - self.next,
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pages {}

/// Opens a file for reading, and gives its size; folders and devices are refused.
fn open_file(path: &Path, timer: &Timer) -> Result<(BufReader<Timed>, u64), Problem> {
    let file = foreign_file::open(path, u64::MAX).map_err(|error| match error {
        ForeignFileError::Unreadable(error) => Problem::from(error),
        // No file has more bytes than that.
        ForeignFileError::NotAFile | ForeignFileError::TooLarge { .. } => {
            foreign::folder(path).map_or(Problem::NotAFile, Problem::from)
        }
    })?;
    if let Some(foreign) = foreign::by_name(path) {
        return Err(foreign.into());
    }
    let bytes = file.metadata()?.len();
    Ok((BufReader::with_capacity(64 * 1024, Timed::new(file, timer)), bytes))
}

/// Whether a file's first bytes are those of an image that is read here.
fn is_image(path: &Path) -> bool {
    let timer = Timer::new(MAX_READ);
    open_file(path, &timer).is_ok_and(|(mut file, _)| {
        timer.start();
        sniff(&mut file).is_ok()
    })
}

/// Tells the format and leaves the reader at the start.
fn sniff(reader: &mut (impl BufRead + Seek)) -> Result<Format, Problem> {
    let mut start = Vec::with_capacity(foreign::START_BYTES);
    reader.take(foreign::START_BYTES as u64).read_to_end(&mut start)?;
    reader.rewind()?;
    match start.as_slice() {
        [] => Err(Problem::Empty),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Format::Tiff),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        start => Err(foreign::recognise(start).map_or(Problem::NotAnImage, Problem::from)),
    }
}

/// Runs a decoder of another's making on bytes of another's making.
///
/// The `tiff` crate asserts its assumptions about a file (`decoder/image.rs`), and a panic in
/// the capture thread would end the acquisition for one bad file. All that the decoder
/// borrowed is dropped or never used again after an error, so no broken state survives: a
/// panic is damage ([`Problem::ends_the_file`]). It ends, too, when its time is over.
fn guarded<T>(timer: &Timer, decode: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    timer.start();
    let decoded = catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Problem::Damaged("the decoder gave up".to_owned())));
    // Decoders pass errors on in words of their own.
    decoded.map_err(|problem| timer.problem().unwrap_or(problem))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod kinds;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests;

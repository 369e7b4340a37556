//! Which directories of a file are pages.
//!
//! - A **smaller copy** of a page is none: it is flagged (`NewSubfileType` bit 0, `SubfileType` 2),
//!   or it follows the page with its bits and samples and a half, a third, a quarter or an eighth
//!   of its edges, as unflagged pyramids do. Copies in `SubIFDs` are not in the chain at all.
//! - Of a **slide scanner's** file the first page is the slide; the others are its copies, its
//!   label and the overview.
//! - Planes that are in the file but **not listed** are pages: MetaMorph's stacks (STK) and
//!   ImageJ's above 4 GB list one and store the others behind it.
//! - The chain may run in a circle or break off. The pages before that are whole.

use std::collections::HashMap;
use std::io::{Read, Seek};

use super::layout::{self, Layout};
use crate::directory::{Directory, Source};
use crate::{Limits, Problem};

const NEW_SUBFILE_TYPE: u16 = 254;
const SUBFILE_TYPE: u16 = 255;
/// MetaMorph: three numbers for each plane, which it counts as one.
const UIC2: u16 = 33_629;
/// MetaMorph: one wavelength for each plane.
const UIC3: u16 = 33_630;
/// Hamamatsu's slide scanners: the magnification; negative for the overview.
const NDPI_MAGNIFICATION: u16 = 65_421;

/// One page: where its directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Byte of the file where its directory begins.
    pub(super) directory: u64,
    /// Number of its directory in the chain, copies counted.
    pub(super) place: usize,
    /// Bytes from where its directory says that the pixels are to where they are.
    pub(super) shift: u64,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bits, samples and compression: copies have those of their page.
    kind: [u64; 3],
    /// It says itself that it is a copy.
    flagged: bool,
    /// Where its first pixels are said to be.
    start: u64,
}

/// What a file lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) pages: Vec<Listed>,
    pub(super) notes: Vec<String>,
    /// What is wrong with the chain after the last of them.
    pub(super) broken: Option<Problem>,
}

/// Walks the chain of directories without reading images; refuses a file that is larger than its
/// bytes.
pub(super) fn list<R: Read + Seek>(
    source: &mut Source<R>,
    descriptions: &[String],
    imagej_images: Option<usize>,
    limits: Limits,
) -> Result<Listing, Problem> {
    let (mut all, broken) = walk(source, limits)?;
    let is_slide = descriptions.iter().any(|text| text.starts_with("Aperio"))
        || all.is_ndpi && all.pages.len() > 1;
    let copies = if is_slide { all.pages.split_off(1.min(all.pages.len())).len() } else { 0 };
    let copies = copies + leave_copies_out(&mut all.pages);
    let mut notes = Vec::new();
    if copies > 0 {
        let (is, copy) = if copies == 1 { ("is", "copy") } else { ("are", "copies") };
        notes.push(format!("has {copies} smaller {copy} beside its pages, which {is} left out"));
    }
    let mut listing = Listing { pages: all.pages, notes, broken };
    if let Some(planes) = all.stk_planes {
        unfold(source, &mut listing, planes, "MetaMorph's stack file (STK)", limits)?;
    } else if let Some(images) = imagej_images {
        unfold(source, &mut listing, images, "ImageJ's description", limits)?;
    }
    Ok(listing)
}

struct Walked {
    pages: Vec<Listed>,
    stk_planes: Option<usize>,
    is_ndpi: bool,
}

fn walk<R: Read + Seek>(
    source: &mut Source<R>,
    limits: Limits,
) -> Result<(Walked, Option<Problem>), Problem> {
    let mut walked = Walked { pages: Vec::new(), stk_planes: None, is_ndpi: false };
    let mut seen = HashMap::new();
    let mut claimed = Claimed::default();
    let mut next = source.first;
    for place in 0.. {
        if next == 0 {
            break;
        }
        if place >= limits.max_pages {
            return Err(Problem::TooManyPages { limit: limits.max_pages });
        }
        if let Some(before) = seen.insert(next, place) {
            let why = Problem::Unsupported(format!(
                "lists its pages in a circle (page {} is followed by page {before}), so it is not \
                 known where it ends; export it again",
                place - 1
            ));
            return Ok((walked, Some(why)));
        }
        let directory = match source.directory(next) {
            Ok(directory) => directory,
            Err(error) => return Ok((walked, Some(error))),
        };
        let page = match listed(source, &directory, next, place, &mut claimed) {
            Ok(page) => page,
            Err(error @ Problem::Damaged(_)) if place > 0 => return Ok((walked, Some(error))),
            Err(error) => return Err(error),
        };
        walked.pages.extend(page);
        if place == 0 {
            walked.is_ndpi = directory.has(NDPI_MAGNIFICATION);
            // Writers who count the numbers of UIC2 say three times as many.
            let planes = Source::<R>::count(&directory, UIC3);
            let planes = planes.filter(|_| directory.has(UIC2));
            walked.stk_planes = planes
                .or_else(|| Source::<R>::count(&directory, UIC2))
                .and_then(|planes| usize::try_from(planes).ok())
                .filter(|&planes| planes > 1);
        }
        next = directory.next;
    }
    claimed.check(source.bytes)?;
    Ok((walked, None))
}

/// The page of a directory; `None` for a mask.
fn listed<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
    at: u64,
    place: usize,
    claimed: &mut Claimed,
) -> Result<Option<Listed>, Problem> {
    let subfile = source.first_number(directory, NEW_SUBFILE_TYPE)?.unwrap_or(0);
    let old_subfile = source.first_number(directory, SUBFILE_TYPE)?.unwrap_or(0);
    // Bit 2: a transparency mask.
    if subfile & 0b100 != 0 {
        return Ok(None);
    }
    let flagged = subfile & 1 != 0 || old_subfile == 2;
    let mut start = 0;
    for (offsets, counts) in [
        (layout::STRIP_OFFSETS, layout::STRIP_BYTE_COUNTS),
        (layout::TILE_OFFSETS, layout::TILE_BYTE_COUNTS),
    ] {
        let Some(offsets) = source.numbers(directory, offsets)? else { continue };
        start = offsets.first().copied().unwrap_or(0);
        let counts = source.numbers(directory, counts)?.unwrap_or_default();
        if !flagged {
            claimed.add(&offsets, &counts);
        }
    }
    let mut kind = [0; 3];
    let tags = [layout::BITS_PER_SAMPLE, layout::SAMPLES_PER_PIXEL, layout::COMPRESSION];
    for (value, tag) in kind.iter_mut().zip(tags) {
        *value = source.first_number(directory, tag)?.unwrap_or(1);
    }
    // A page without a size is refused when it is read.
    let (width, height) = layout::size(source, directory).unwrap_or((0, 0));
    Ok(Some(Listed { directory: at, place, shift: 0, width, height, kind, flagged, start }))
}

/// Takes the smaller copies out and says how many. Where all are said to be copies, the largest
/// is the page.
fn leave_copies_out(pages: &mut Vec<Listed>) -> usize {
    let before = pages.len();
    if pages.iter().all(|page| page.flagged) {
        let largest =
            pages.iter().max_by_key(|page| u64::from(page.width) * u64::from(page.height));
        let largest: Vec<_> = largest.cloned().into_iter().collect();
        *pages = largest;
        return before.saturating_sub(1);
    }
    let mut kept: Vec<Listed> = Vec::new();
    let mut last: Option<Listed> = None;
    for page in pages.drain(..).filter(|page| !page.flagged) {
        let in_pyramid = last.as_ref().is_some_and(|last| {
            let below = kept.last().is_some_and(|base| base.width > last.width);
            is_copy(last, &page) || below && (last.width, last.height) == (page.width, page.height)
        });
        if !in_pyramid {
            kept.push(page.clone());
        }
        last = Some(page);
    }
    *pages = kept;
    before - pages.len()
}

/// Whether the edges of `small` are a half, a third, a quarter or an eighth of those of `large`,
/// to a pixel, and all else is the same.
fn is_copy(large: &Listed, small: &Listed) -> bool {
    let near = |large: u32, small: u32, part: u32| {
        small > 0 && (large / part).abs_diff(small) <= u32::from(!large.is_multiple_of(part))
    };
    // A single pixel is a half of anything.
    let is_large = large.width.min(large.height) >= 4;
    large.kind == small.kind
        && is_large
        && [2, 3, 4, 8].iter().any(|&part| {
            near(large.width, small.width, part) && near(large.height, small.height, part)
        })
}

/// Lists the planes that are there and not listed: they follow the first, without a gap.
fn unfold<R: Read + Seek>(
    source: &mut Source<R>,
    listing: &mut Listing,
    planes: usize,
    who: &str,
    limits: Limits,
) -> Result<(), Problem> {
    let listed = listing.pages.len();
    let Some(first) = listing.pages.first().cloned() else { return Ok(()) };
    if planes <= listed || listing.broken.is_some() {
        return Ok(());
    }
    if planes > limits.max_pages {
        return Err(Problem::TooManyPages { limit: limits.max_pages });
    }
    let hidden = |why: &str| {
        Problem::Unsupported(format!(
            "holds more images than it lists ({planes} by {who}, {listed} listed), and {why}; \
             export it as OME-TIFF"
        ))
    };
    let directory = source.directory(first.directory)?;
    let layout = Layout::read(source, &directory, limits)?;
    let size = layout.bytes();
    // A description may outlive the pages that it was of, or come before those that never came.
    let room = source.bytes.saturating_sub(size.saturating_mul(listed as u64));
    if listed > 1 && room < size {
        let note = format!("lists {listed} images, of {planes} by {who}; the others are not in it");
        listing.notes.push(note);
        return Ok(());
    }
    let start = layout.offsets.iter().copied().min().unwrap_or(0);
    let ends = layout.offsets.iter().zip(&layout.counts).map(|(at, count)| at.checked_add(*count));
    if layout.compression != layout::NONE || ends.max().flatten() != start.checked_add(size) {
        return Err(hidden("they are not stored one after the other"));
    }
    let follows = |(number, page): (usize, &Listed)| {
        page.start == first.start.saturating_add((number as u64).saturating_mul(size))
    };
    if !listing.pages.iter().enumerate().all(follows) {
        return Err(hidden("those that are listed do not follow each other"));
    }
    // The planes end where anything else begins, or at the end of the file.
    let listed_end = start.saturating_add(size.saturating_mul(listed as u64));
    let others = source.outside(&directory).into_iter();
    let others = others.chain(listing.pages.iter().map(|page| page.directory));
    let end = others.filter(|&place| place >= listed_end).min().unwrap_or(source.bytes);
    let fit = end.min(source.bytes).saturating_sub(start).checked_div(size).unwrap_or(0);
    let fit = usize::try_from(fit).unwrap_or(usize::MAX).min(planes);
    if fit <= listed {
        return Err(hidden("the others are not in it"));
    }
    let places = listing.pages.last().map_or(0, |page| page.place + 1);
    for number in listed..fit {
        let shift = number as u64 * size;
        let place = places + number - listed;
        listing.pages.push(Listed { shift, place, start: first.start + shift, ..first });
    }
    listing.notes.push(format!(
        "lists {listed} of its {planes} images; the others are read from where {who} says they are"
    ));
    if fit < planes {
        let why = format!("{fit} of {planes} images are there");
        listing.broken = Some(Problem::Damaged(why));
    }
    Ok(())
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

//! TIFF: classic and BigTIFF, both byte orders, stacks, OME-TIFF, ImageJ, MetaMorph stacks.
//!
//! A page is a directory of the file's chain that is a picture of its own: not a smaller copy of
//! another page, a label or a mask ([`pages`]). Which of them are read is chosen by channel and z
//! ([`super::planes`]), from what programs say of them ([`dialects`]). How a page's bytes lie, and
//! whether they can be read, is judged in [`layout`]; [`decode`] makes samples of them.

mod decode;
mod dialects;
mod layout;
mod pages;

use std::io::{Read, Seek};

use super::directory::{Directory, Source, decode_text};
use super::grey::{Channels, one_channel};
use super::meta::{Description, Resolution};
use super::planes::{Axes, Chosen, Selection};
use super::{Limits, Page, Problem};
use decode::Decoded;
use layout::Layout;
use pages::Listed;
use reticle_domain::frame::Pixels;

const IMAGE_DESCRIPTION: u16 = 270;
const X_RESOLUTION: u16 = 282;
const Y_RESOLUTION: u16 = 283;
const RESOLUTION_UNIT: u16 = 296;
const IMAGEJ_METADATA_BYTE_COUNTS: u16 = 50_838;
const IMAGEJ_METADATA: u16 = 50_839;
const MICRO_MANAGER_METADATA: u16 = 51_123;

/// Pages whose Micro-Manager metadata are read, one by one, while a file is opened.
const MOST_ASKED: usize = 10_000;

/// The pages of one TIFF file.
#[derive(Debug)]
pub(super) struct Stack<R: Read + Seek> {
    source: Source<R>,
    limits: Limits,
    description: Description,
    pages: Vec<Listed>,
    selection: Selection,
    chosen: Chosen,
    /// What is wrong with the chain of directories after the last page.
    broken: Option<Problem>,
}

/// Grey values of any width that a TIFF page may have, as they are stored.
pub(super) enum Values {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// A page as the file has it.
pub(super) struct Raw {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bits of a value: 1, 2, 4, 8 to 16, or 32.
    bits: u32,
    pub(super) values: Values,
    /// The grey that each value is shown as, where there is a table.
    pub(super) greys: Option<Vec<u8>>,
}

impl<R: Read + Seek> Stack<R> {
    /// Lists the pages of a file of `bytes` and chooses; reads none.
    pub(super) fn open(
        reader: R,
        bytes: u64,
        limits: Limits,
        selection: &Selection,
    ) -> Result<Self, Problem> {
        let mut source = Source::open(reader, bytes)?;
        let first = source.first;
        let head = source.directory(first)?;
        let descriptions = descriptions(&mut source, &head)?;
        let description = Description::read(&mut source, &head, &descriptions)?;
        let listing = pages::list(&mut source, &descriptions, description.imagej_images, limits)?;
        let pages::Listing { pages, mut notes, broken } = listing;
        if pages.is_empty() && broken.is_none() {
            return Err(Problem::Damaged("it holds no image".to_owned()));
        }
        let axes = axes(&mut source, &head, &descriptions, &pages)?;
        let mut chosen = axes.choose(selection)?;
        if chosen.pages.is_empty() && broken.is_none() {
            return Err(Problem::Unsupported(
                "holds no plane of the channel that is chosen; it is one file of a set, and \
                 another has it"
                    .to_owned(),
            ));
        }
        notes.append(&mut chosen.notes);
        chosen.notes = notes;
        let selection = selection.clone();
        Ok(Self { source, limits, description, pages, selection, chosen, broken })
    }

    /// Number of pages in the file, read or not; where it breaks off, the missing rest is one.
    pub(super) fn len(&self) -> usize {
        self.pages.len() + usize::from(self.broken.is_some())
    }

    /// The first page from `index` on that is chosen.
    pub(super) fn chosen_from(&self, index: usize) -> Option<usize> {
        let chosen = &self.chosen.pages;
        let next = chosen.get(chosen.partition_point(|&page| page < index)).copied();
        next.or_else(|| {
            (self.broken.is_some() && index <= self.pages.len()).then_some(self.pages.len())
        })
    }

    /// How many pages from `index` on are chosen.
    pub(super) fn left_from(&self, index: usize) -> usize {
        let chosen = &self.chosen.pages;
        let rest = self.broken.is_some() && index <= self.pages.len();
        chosen.len() - chosen.partition_point(|&page| page < index) + usize::from(rest)
    }

    /// What is left out, or is not what one may think.
    pub(super) fn notes(&self) -> &[String] {
        &self.chosen.notes
    }

    /// Width and height of page `index`, where it is there.
    pub(super) fn size(&self, index: usize) -> Option<(u32, u32)> {
        self.pages.get(index).map(|page| (page.width, page.height))
    }

    /// Reads page `index`.
    pub(super) fn read(&mut self, index: usize) -> Result<Page, Problem> {
        let (raw, directory) = self.raw(index)?;
        let (pixels, most) = match (raw.values, raw.greys) {
            (Values::U8(values), Some(greys)) => {
                let grey = |value: u8| greys.get(usize::from(value)).copied().unwrap_or(0);
                (Pixels::U8(values.into_iter().map(grey).collect()), 8)
            }
            (Values::U8(values), None) => (Pixels::U8(widened(values, raw.bits)), 8),
            (Values::U16(values), _) => {
                // What is packed has no room for more; 9, 11, 13 and 15 bits have no name here.
                let most = if matches!(raw.bits, 10 | 12 | 14) { raw.bits as u8 } else { 16 };
                (Pixels::U16(values), most)
            }
            (Values::U32(_), _) => {
                return Err(Problem::kind("has 32 bits a pixel, which cameras do not give"));
            }
        };
        let bit_depth = match self.description.significant_bits {
            Some(bits @ (10 | 12 | 14)) if most == 16 && all_below(&pixels, bits) => bits,
            _ => most,
        };
        let (x, y) =
            (self.number(&directory, X_RESOLUTION)?, self.number(&directory, Y_RESOLUTION)?);
        let unit = self.source.first_number(&directory, RESOLUTION_UNIT)?;
        let unit = unit.and_then(|unit| u16::try_from(unit).ok());
        let place = self.pages.get(index).map_or(index, |page| page.place);
        let pixel_size = self.description.pixel_size(place, Resolution { x, y, unit });
        let page = Page::new(raw.width, raw.height, bit_depth, pixels, index);
        Ok(page.with_pixel_size(pixel_size))
    }

    /// Reads the first page that is chosen, without changing its values.
    pub(super) fn read_raw(&mut self) -> Result<Raw, Problem> {
        let index = self.chosen_from(0).unwrap_or(0);
        self.raw(index).map(|(raw, _)| raw)
    }

    fn raw(&mut self, index: usize) -> Result<(Raw, Directory), Problem> {
        let Some(page) = self.pages.get(index) else {
            let end = || Problem::Damaged("there is no such page".to_owned());
            return Err(self.broken.take().unwrap_or_else(end));
        };
        let shift = page.shift;
        let directory = self.source.directory(page.directory)?;
        let mut layout = Layout::read(&mut self.source, &directory, self.limits)?;
        for offset in &mut layout.offsets {
            *offset = offset.saturating_add(shift);
        }
        let big_endian = self.source.big_endian;
        let samples = decode::decode(self.source.reader(), big_endian, &layout, self.limits)?;
        let values = self.values(samples, &layout)?;
        let Layout { width, height, bits, greys, .. } = layout;
        Ok((Raw { width, height, bits, values, greys }, directory))
    }

    /// The one channel that is meant.
    fn values(&self, samples: Decoded, layout: &Layout) -> Result<Values, Problem> {
        let selection = if self.chosen.by_page { &Selection::default() } else { &self.selection };
        let channels = Channels {
            count: layout.samples as usize,
            meaning: layout.meaning,
            planar: layout.planar,
        };
        let most = u32::MAX >> (32 - layout.bits);
        let sign = if layout.signed { 1 << (layout.bits - 1) } else { 0 };
        Ok(match samples {
            Decoded::U8(values) => {
                let values = one_channel(values, channels, u8::MAX, selection)?;
                Values::U8(settled(values, layout.inverted, most as u8, sign as u8)?)
            }
            Decoded::U16(values) => {
                let values = one_channel(values, channels, u16::MAX, selection)?;
                Values::U16(settled(values, layout.inverted, most as u16, sign as u16)?)
            }
            Decoded::U32(values) => {
                let values = one_channel(values, channels, u32::MAX, selection)?;
                Values::U32(settled(values, layout.inverted, most, sign)?)
            }
        })
    }

    /// A tag of a page as a number. Metadata that cannot be understood is as good as none;
    /// metadata that is cut off is damage.
    fn number(&mut self, directory: &Directory, tag: u16) -> Result<Option<f64>, Problem> {
        self.source.fraction(directory, tag)
    }
}

/// Bright is large, and nothing is negative; labels are often saved with a sign.
fn settled<T>(mut values: Vec<T>, inverted: bool, most: T, sign: T) -> Result<Vec<T>, Problem>
where
    T: Copy + PartialEq + Default + std::ops::BitXor<Output = T> + std::ops::BitAnd<Output = T>,
{
    let none = T::default();
    if sign != none && values.iter().any(|&value| value & sign != none) {
        return Err(Problem::kind("has negative pixels"));
    }
    if inverted {
        for value in &mut values {
            *value = *value ^ most;
        }
    }
    Ok(values)
}

/// Values of less than 8 bits, from black to white, as PNG has them.
fn widened(mut values: Vec<u8>, bits: u32) -> Vec<u8> {
    let factor = match bits {
        1 => 255,
        2 => 85,
        4 => 17,
        _ => return values,
    };
    for value in &mut values {
        *value *= factor;
    }
    values
}

fn all_below(pixels: &Pixels, bits: u8) -> bool {
    match pixels {
        Pixels::U8(_) => true,
        Pixels::U16(values) => values.iter().all(|&value| value < 1 << bits),
    }
}

/// The descriptions of a page; Micro-Manager writes two.
fn descriptions<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
) -> Result<Vec<String>, Problem> {
    let texts = source.texts(directory, IMAGE_DESCRIPTION)?;
    Ok(texts.iter().map(|text| decode_text(text)).collect())
}

/// Which channel and z plane each page is, as far as anybody says.
fn axes<R: Read + Seek>(
    source: &mut Source<R>,
    head: &Directory,
    descriptions: &[String],
    pages: &[Listed],
) -> Result<Axes, Problem> {
    let places: Vec<_> = pages.iter().map(|page| page.place).collect();
    let labels = match (
        source.raw(head, IMAGEJ_METADATA)?,
        source.numbers(head, IMAGEJ_METADATA_BYTE_COUNTS)?,
    ) {
        (Some(bytes), Some(counts)) => {
            dialects::imagej_labels(&bytes, &counts, source.big_endian).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    if let Some(axes) = dialects::axes(descriptions, &places, &labels) {
        return Ok(axes);
    }
    if head.has(MICRO_MANAGER_METADATA) && pages.len() <= MOST_ASKED {
        let mut said = Vec::with_capacity(pages.len());
        for page in pages {
            let directory = source.directory(page.directory)?;
            let text = source.texts(&directory, MICRO_MANAGER_METADATA)?.pop();
            said.push(decode_text(&text.unwrap_or_default()));
        }
        if let Some(axes) = dialects::micro_manager(&said) {
            return Ok(axes);
        }
    }
    Ok(Axes::unknown(pages.len()))
}

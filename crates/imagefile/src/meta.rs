//! What image files say of themselves in words and numbers beside their pixels: OME-XML, ImageJ's
//! description, what microscopes' programs add, resolution.
//!
//! - Every statement of a pixel size becomes a [`Stated`]; who wins is decided in one place,
//!   [`pixel_size`], never here.
//! - Foreign text says something or nothing; it is never an error, and never in the way of the
//!   pixels. Only a description that is cut off is damage.

mod density;
mod imagej;
mod ome;
mod tags;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests;
mod units;
mod vendors;

use std::io::{Read, Seek};
use std::str::FromStr;

pub(super) use density::{Resolution, of_jpeg, of_png};

use self::imagej::ImageJ;
use self::ome::Ome;
use super::Problem;
use super::directory::{Directory, Source};
use reticle_domain::pixel_size::{self, PixelSize, Stated};

/// What a whole TIFF file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Description {
    /// From OME-XML: used bits of a pixel.
    pub(super) significant_bits: Option<u8>,
    /// From ImageJ: how many images there are, listed or not.
    pub(super) imagej_images: Option<usize>,
    ome: Ome,
    imagej: Option<ImageJ>,
    /// What else states a pixel size, for the whole file.
    stated: Vec<Stated>,
}

impl Description {
    /// Of the first directory of a TIFF, and of the texts of its descriptions.
    pub(super) fn read<R: Read + Seek>(
        source: &mut Source<R>,
        head: &Directory,
        texts: &[String],
    ) -> Result<Self, Problem> {
        let mut description = Self::of_texts(texts.iter().map(String::as_str));
        description.stated.extend(vendors::of_tags(&tags::of_directory(source, head)?));
        Ok(description)
    }

    /// Of the texts of one directory: Micro-Manager writes two.
    fn of_texts<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut all = Self::default();
        for text in texts {
            let text = text.trim_start_matches('\u{feff}').trim();
            if Ome::is_one(text) {
                all.ome = Ome::parse(&readable_xml(text));
                all.significant_bits = all.ome.significant_bits;
                continue;
            }
            if let Some(imagej) = ImageJ::parse(text) {
                all.imagej_images = imagej.images;
                all.imagej = Some(imagej);
            }
            all.stated.extend(imagej::scifio(text));
            all.stated.extend(vendors::of_text(&readable_xml(text)));
        }
        all
    }

    /// The edge of a pixel of the page in directory `at`, which has this resolution.
    pub(super) fn pixel_size(&self, at: usize, resolution: Resolution) -> PixelSize {
        let by_text =
            self.imagej.as_ref().zip(resolution.both()).and_then(|(text, xy)| text.stated(xy));
        let mut by_tag = resolution.stated(self.imagej.is_some());
        let believed = |stated: &Option<Stated>| {
            stated.as_ref().is_some_and(|stated| pixel_size::decide([stated.clone()]).um.is_some())
        };
        // One number in two units: where only the text's makes sense, the tag's is a default.
        if believed(&by_text) && !believed(&by_tag) {
            by_tag = None;
        }
        let stated = self.ome.stated(at).into_iter().chain(self.stated.iter().cloned());
        pixel_size::decide(stated.chain(by_tag).chain(by_text))
    }
}

/// XML as far as it goes: without the control characters that XML does not have, and without what
/// writers leave behind its end.
fn readable_xml(text: &str) -> String {
    if !text.starts_with('<') {
        return text.to_owned();
    }
    let end = text.rfind('>').map_or(text.len(), |last| last + 1);
    text.get(..end)
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\r' | '\t') { ' ' } else { c })
        .collect()
}

/// A number as programs of any country write it.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let found = match f64::from_str(text) {
        Err(_) if text.matches(',').count() == 1 && !text.contains('.') => {
            f64::from_str(&text.replace(',', "."))
        }
        found => found,
    };
    found.ok().filter(|number| number.is_finite())
}

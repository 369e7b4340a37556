//! OME-XML: the size of a pixel and the used bits, image by image.

use std::ops::Range;

use roxmltree::Node;

use super::{number, units};
use reticle_domain::pixel_size::{PixelSizeSource, Said, Stated};

/// What one `Image` of the XML says of its pixels.
#[derive(Clone, Debug, PartialEq)]
struct OmeImage {
    /// Directories of this file that hold its planes, where the XML says it.
    directories: Vec<Range<u64>>,
    said: Said,
}

/// What the XML says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ome {
    /// Those that state a pixel size.
    images: Vec<OmeImage>,
    /// Used bits of a pixel, where all images agree.
    pub(super) significant_bits: Option<u8>,
}

impl Ome {
    /// Whether the text is meant to be OME-XML.
    pub(super) fn is_one(text: &str) -> bool {
        text.starts_with('<') && (text.contains("<OME") || text.contains(":OME"))
    }

    /// Broken XML says nothing.
    pub(super) fn parse(text: &str) -> Self {
        Self::read(text).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Self> {
        let document = roxmltree::Document::parse(text).ok()?;
        let own = document.root_element().attribute("UUID");
        let mut images = Vec::new();
        let mut bits = Vec::new();
        for pixels in document.descendants().filter(|node| node.has_tag_name_of("Pixels")) {
            bits.push(significant_bits(pixels));
            if let Some(said) = size(pixels) {
                images.push(OmeImage { directories: directories(pixels, own), said });
            }
        }
        let first = *bits.first()?;
        let significant_bits = first.filter(|_| bits.iter().all(|other| *other == first));
        Some(Self { images, significant_bits })
    }

    /// What is said of the page in directory `at` of the file. Where the images of the file differ
    /// it is that of the image whose plane the directory is; where that is not said, none of
    /// them is believed.
    pub(super) fn stated(&self, at: usize) -> Option<Stated> {
        let said = self.agreed(self.images.iter()).or_else(|| {
            let at = at as u64;
            let holds = |image: &&OmeImage| image.directories.iter().any(|held| held.contains(&at));
            self.agreed(self.images.iter().filter(holds))
        });
        let said = match (said, self.images.is_empty()) {
            (Some(said), _) => said,
            (None, true) => return None,
            (None, false) => Said::Several(
                self.images
                    .iter()
                    .filter_map(|image| match image.said {
                        Said::Size { x, .. } => Some(x),
                        _ => None,
                    })
                    .collect(),
            ),
        };
        Some(Stated { source: PixelSizeSource::OmeXml, said })
    }

    /// What all of them say.
    fn agreed<'a>(&self, mut images: impl Iterator<Item = &'a OmeImage>) -> Option<Said> {
        let first = images.next()?;
        images.all(|other| other.said == first.said).then(|| first.said.clone())
    }
}

trait Named {
    /// Of that name, in whatever version of the schema's namespace.
    fn has_tag_name_of(&self, name: &str) -> bool;
}

impl Named for Node<'_, '_> {
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.tag_name().name() == name
    }
}

fn size(pixels: Node<'_, '_>) -> Option<Said> {
    let along = |size: &str, unit: &str| {
        let size = number(pixels.attribute(size)?).filter(|size| *size > 0.0)?;
        match units::unit_um(unit) {
            Some(um) => Some(Ok(size * um)),
            None if units::is_none(unit) => None,
            None => Some(Err(unit.to_owned())),
        }
    };
    // The schema's default unit is µm.
    let x_unit = pixels.attribute("PhysicalSizeXUnit").unwrap_or("µm");
    let x = along("PhysicalSizeX", x_unit)?;
    // Some writers give x alone, and some its unit alone.
    let same_number = pixels.attribute("PhysicalSizeX") == pixels.attribute("PhysicalSizeY");
    let default = if same_number { x_unit } else { "µm" };
    let y = along("PhysicalSizeY", pixels.attribute("PhysicalSizeYUnit").unwrap_or(default))
        .unwrap_or_else(|| x.clone());
    Some(match (x, y) {
        (Ok(x), Ok(y)) => Said::Size { x, y },
        (Err(unit), _) | (_, Err(unit)) => Said::UnknownUnit(unit),
    })
}

fn significant_bits(pixels: Node<'_, '_>) -> Option<u8> {
    pixels.attribute("SignificantBits")?.trim().parse().ok()
}

/// Directories of this file that the image's planes are in.
fn directories(pixels: Node<'_, '_>, own: Option<&str>) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for data in pixels.children().filter(|node| node.has_tag_name_of("TiffData")) {
        let file = data.children().find(|node| node.has_tag_name_of("UUID"));
        // Planes of the same set in another file.
        if let Some((file, own)) = file.and_then(|node| node.text()).zip(own)
            && file.trim() != own.trim()
        {
            continue;
        }
        let number = |name: &str| data.attribute(name)?.trim().parse::<u64>().ok();
        let (first, count) = match (number("IFD"), number("PlaneCount")) {
            (Some(first), count) => (first, count.unwrap_or(1)),
            (None, Some(count)) => (0, count),
            // All that the file has.
            (None, None) => (0, u64::MAX),
        };
        let end = first.saturating_add(count);
        match found.last_mut().filter(|last| last.end == first) {
            Some(last) => last.end = end,
            None => found.push(first..end),
        }
    }
    found
}

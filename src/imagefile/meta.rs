//! What TIFF files say about themselves in words: OME-XML, ImageJ's description, resolution.

use std::str::FromStr;

/// Resolution tags are believed up to this pixel size. Scanners, cameras and office programs
/// write 72 to 2,400 dots an inch (353 to 11 µm) whatever the picture shows; microscopes with
/// a magnification of 1 or more stay below their camera's pixel, which is under 10 µm.
const LARGEST_BELIEVED_UM: f64 = 10.0;

/// What a whole TIFF file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Description {
    /// From OME-XML: edge of a pixel in µm.
    pub(super) ome_pixel_size_um: Option<f64>,
    /// From OME-XML: used bits of a pixel.
    pub(super) significant_bits: Option<u8>,
    /// From ImageJ: how long its unit of length is, in µm. The resolution counts in it.
    pub(super) imagej_unit_um: Option<f64>,
    /// From ImageJ: how many images there are, listed or not.
    pub(super) imagej_images: Option<usize>,
    /// Whether ImageJ wrote it; its resolution unit tag says nothing then.
    pub(super) is_imagej: bool,
}

impl Description {
    /// Reads the text of the tag `ImageDescription` of the first page.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.starts_with("ImageJ=") {
            return Self::parse_imagej(text);
        }
        if text.starts_with('<') && text.contains("OME") {
            return Self::parse_ome(text).unwrap_or_default();
        }
        Self::default()
    }

    fn parse_imagej(text: &str) -> Self {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim)
        };
        Self {
            is_imagej: true,
            imagej_unit_um: value("unit").and_then(unit_um),
            imagej_images: value("images").and_then(|images| images.parse().ok()),
            ..Self::default()
        }
    }

    /// Several images in one file (fields, wells) have to agree, or none is believed.
    fn parse_ome(text: &str) -> Option<Self> {
        let document = roxmltree::Document::parse(text).ok()?;
        let mut images = document
            .descendants()
            .filter(|node| node.tag_name().name() == "Pixels")
            .map(|pixels| (ome_pixel_size_um(pixels), ome_significant_bits(pixels)));
        let (size, bits) = images.next()?;
        let (mut size, mut bits) = (size, bits);
        for (other_size, other_bits) in images {
            size = size.filter(|_| size == other_size);
            bits = bits.filter(|_| bits == other_bits);
        }
        Some(Self { ome_pixel_size_um: size, significant_bits: bits, ..Self::default() })
    }

    /// Edge of a pixel in µm, with the resolution tags of the page: pixels in a unit along x
    /// and y, and the unit (2 inch, 3 cm).
    pub(super) fn pixel_size_um(
        &self,
        resolution: Option<(f64, f64)>,
        resolution_unit: Option<u16>,
    ) -> Option<f64> {
        if self.ome_pixel_size_um.is_some() {
            return self.ome_pixel_size_um;
        }
        let (x, y) = resolution?;
        let unit = if self.is_imagej {
            self.imagej_unit_um?
        } else {
            match resolution_unit {
                Some(3) => 10_000.0,
                // The format's default is the inch.
                Some(2) | None => 25_400.0,
                Some(_) => return None,
            }
        };
        let size = square(unit / x, unit / y)?;
        (self.is_imagej || size <= LARGEST_BELIEVED_UM).then_some(size)
    }
}

fn ome_pixel_size_um(pixels: roxmltree::Node<'_, '_>) -> Option<f64> {
    let along = |size: &str, unit: &str| {
        let size = f64::from_str(pixels.attribute(size)?.trim()).ok()?;
        // The schema's default unit is µm.
        Some(size * pixels.attribute(unit).map_or(Some(1.0), unit_um)?)
    };
    let x = along("PhysicalSizeX", "PhysicalSizeXUnit")?;
    // Some writers give x alone.
    square(x, along("PhysicalSizeY", "PhysicalSizeYUnit").unwrap_or(x))
}

fn ome_significant_bits(pixels: roxmltree::Node<'_, '_>) -> Option<u8> {
    pixels.attribute("SignificantBits")?.trim().parse().ok()
}

/// A pixel has one edge length here; pixels that are not square (by more than 1%) have none.
fn square(x: f64, y: f64) -> Option<f64> {
    let positive = x.is_finite() && y.is_finite() && x > 0.0 && y > 0.0;
    (positive && (x - y).abs() <= 0.01 * x.max(y)).then_some(x)
}

/// How many µm a unit of length is; `None` for pixels and for what is not known.
fn unit_um(unit: &str) -> Option<f64> {
    // The micro sign, the Greek letter, and ImageJ's way to write the former in ASCII.
    match unit.trim() {
        "µm" | "μm" | "\\u00B5m" | "\\u00b5m" | "um" | "micron" | "microns" | "micrometer"
        | "micrometers" => Some(1.0),
        "Å" | "\\u00C5" | "angstrom" => Some(1e-4),
        "pm" => Some(1e-6),
        "nm" => Some(1e-3),
        "mm" => Some(1e3),
        "cm" => Some(1e4),
        "m" => Some(1e6),
        "in" | "inch" | "inches" => Some(25_400.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ome(attributes: &str) -> Description {
        Description::parse(&format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
            <OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
            <Pixels ID="Pixels:0" SizeX="4" {attributes}/></Image></OME>"#
        ))
    }

    #[test]
    fn ome_sizes_are_converted_to_micrometres() {
        let size = |attributes: &str| ome(attributes).ome_pixel_size_um;
        assert_eq!(size(r#"PhysicalSizeX="0.65""#), Some(0.65));
        assert_eq!(size(r#"PhysicalSizeX="650" PhysicalSizeXUnit="nm""#), Some(0.65));
        assert_eq!(size(r#"PhysicalSizeX="0.00065" PhysicalSizeXUnit="mm""#), Some(0.65));
        assert_eq!(size(r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="&#181;m""#), Some(0.65));
        assert_eq!(size(r#"PhysicalSizeX="0.65" PhysicalSizeXUnit="pixel""#), None);
        assert_eq!(size(r#"PhysicalSizeX="0""#), None);
        assert_eq!(size(r#"PhysicalSizeX="0.65" PhysicalSizeY="1.3""#), None);
        assert_eq!(size(""), None);
    }

    #[test]
    fn broken_xml_says_nothing_and_harms_nothing() {
        assert_eq!(Description::parse("<OME><Image"), Description::default());
        let bomb = r#"<!DOCTYPE OME [<!ENTITY a "aaaa">]><OME>&a;</OME>"#;
        assert_eq!(Description::parse(bomb), Description::default());
    }

    #[test]
    fn imagej_counts_in_its_own_unit() {
        let description = Description::parse("ImageJ=1.53t\nimages=3\nunit=micron\nmin=0.0\n");
        assert_eq!(description.imagej_images, Some(3));
        assert_eq!(description.pixel_size_um(Some((4.0, 4.0)), Some(1)), Some(0.25));
        let pixels = Description::parse("ImageJ=1.53t\nunit=pixel\n");
        assert_eq!(pixels.pixel_size_um(Some((4.0, 4.0)), None), None);
    }

    #[test]
    fn office_resolutions_are_not_believed() {
        let plain = Description::default();
        assert_eq!(plain.pixel_size_um(Some((300.0, 300.0)), Some(2)), None);
        assert_eq!(plain.pixel_size_um(Some((2400.0, 2400.0)), None), None);
        assert_eq!(plain.pixel_size_um(Some((20_000.0, 20_000.0)), Some(3)), Some(0.5));
        assert_eq!(plain.pixel_size_um(Some((20_000.0, 20_000.0)), Some(1)), None);
        assert_eq!(plain.pixel_size_um(Some((0.0, 0.0)), Some(3)), None);
    }
}

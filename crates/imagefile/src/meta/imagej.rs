//! ImageJ's description and SCIFIO's, which is like it: lines of `key=value`.

use super::density::stated;
use super::tags::Tags;
use super::{number, units};
use reticle_domain::pixel_size::{PixelSizeSource, Said, Stated};

const SOURCE: PixelSizeSource = PixelSizeSource::Imagej;

/// What ImageJ wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ImageJ {
    /// The unit in which the resolution counts, along x and along y.
    units: Option<(String, String)>,
    /// How many images there are, listed or not.
    pub(super) images: Option<usize>,
}

impl ImageJ {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !text.starts_with("ImageJ=") {
            return None;
        }
        let unit = value(text, "unit");
        Some(Self {
            units: unit.map(|x| (x.to_owned(), value(text, "yunit").unwrap_or(x).to_owned())),
            images: value(text, "images").and_then(|images| images.parse().ok()),
        })
    }

    /// The size by the resolution in pixels of ImageJ's unit. An inch is told by its tag as well,
    /// and printers' resolutions are told from the tag.
    pub(super) fn stated(&self, (x, y): (f64, f64)) -> Option<Stated> {
        let (x_unit, y_unit) = self.units.as_ref()?;
        if units::is_none(x_unit) {
            return None;
        }
        let said = match (units::unit_um(x_unit), units::unit_um(y_unit)) {
            // Typed as an inch, or taken over from a scanner's file.
            (Some(x_um), Some(y_um)) => return Some(stated(SOURCE, x_um / x, y_um / y)),
            (None, _) => Said::UnknownUnit(x_unit.clone()),
            (_, None) => Said::UnknownUnit(y_unit.clone()),
        };
        Some(Stated { source: SOURCE, said })
    }
}

/// SCIFIO's scales, in the order of its axes.
pub(super) fn scifio(text: &str) -> Option<Stated> {
    if !text.starts_with("SCIFIO=") {
        return None;
    }
    let list = |key: &str| value(text, key).map(|list| list.split(',').map(str::trim));
    let axes: Vec<&str> = list("axes")?.collect();
    let along = |axis: &str| {
        let at = axes.iter().position(|found| found.eq_ignore_ascii_case(axis))?;
        let scale = number(list("scales")?.nth(at)?)?;
        let unit = list("units")?.nth(at)?;
        match units::unit_um(unit) {
            Some(um) => Some(Ok(scale * um)),
            None if units::is_none(unit) => None,
            None => Some(Err(unit.to_owned())),
        }
    };
    let said = match (along("X")?, along("Y")?) {
        (Ok(x), Ok(y)) => Said::Size { x, y },
        (Err(unit), _) | (_, Err(unit)) => Said::UnknownUnit(unit),
    };
    Some(Stated { source: PixelSizeSource::Scifio, said })
}

/// The properties that ImageJ keeps in a tag of its own: strings of UTF-16 in the file's byte
/// order, among them what the program before it wrote.
pub(super) fn properties(bytes: &[u8], tags: &Tags) -> String {
    let unit = if tags.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}

fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix('='))
        .map(str::trim)
}

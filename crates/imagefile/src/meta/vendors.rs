//! What microscopes' own programs put into TIFF: private tags and texts.
//!
//! Each of these says what one program writes, as far as it is publicly known. What it does not
//! understand it leaves to the next: an answer is `None`, never an error.

use super::tags::{self, Tags, le_f64, le_u32};
use super::{number, units};
use crate::directory::decode_text;
use reticle_domain::pixel_size::{PixelSizeSource as Source, Said, Stated};

/// What the private tags say.
pub(super) fn of_tags(tags: &Tags) -> impl Iterator<Item = Stated> {
    let texts = |tag| tags.all(tag).map(decode_text);
    let micro_manager = texts(tags::MICRO_MANAGER).filter_map(|json| {
        let um = pixel_size_um(&json)?;
        Some(Stated::size(Source::MicroManager, um, um))
    });
    let nis = texts(tags::NIS_ELEMENTS)
        .chain(texts(tags::NIS_ELEMENTS_2))
        .filter_map(|xml| nis_elements(&xml));
    let fei = texts(tags::FEI_SFEG).chain(texts(tags::FEI_HELIOS)).filter_map(|ini| fei(&ini));
    let properties = tags.all(tags::IMAGEJ_PROPERTIES).filter_map(|bytes| {
        let um = pixel_size_um(&super::imagej::properties(bytes, tags))?;
        Some(Stated::size(Source::ImagejProperties, um, um))
    });
    micro_manager
        .chain(nis)
        .chain(fei)
        .chain(tags.all(tags::METAMORPH_UIC1).filter_map(metamorph_stk))
        .chain(tags.all(tags::OLYMPUS_SIS).filter_map(olympus_sis))
        .chain(tags.all(tags::FLUOVIEW_HEADER).filter_map(fluoview))
        .chain(tags.all(tags::ZEISS_LSM).filter_map(zeiss_lsm))
        .chain(properties)
        // One of each; a program that says it twice says the same.
        .collect::<Vec<_>>()
        .into_iter()
}

/// What a description says that is neither OME-XML nor ImageJ's.
pub(super) fn of_text(text: &str) -> Option<Stated> {
    if text.starts_with('<') {
        let document = roxmltree::Document::parse(text).ok()?;
        return metamorph_xml(&document).or_else(|| gen5(&document));
    }
    aperio(text).or_else(|| volocity(text))
}

/// Micro-Manager's JSON: `"PixelSizeUm": 0.65`, in a summary `"PixelSize_um": 0.65`, in newer
/// versions `"PixelSizeUm": {"type": "DOUBLE", "scalar": 0.65}`.
fn pixel_size_um(text: &str) -> Option<f64> {
    ["PixelSizeUm", "PixelSize_um"].iter().find_map(|key| {
        text.match_indices(key).find_map(|(at, _)| {
            let rest = text.get(at + key.len()..)?;
            let rest = rest.trim_start_matches(['"', '\'']).trim_start();
            let rest = rest.strip_prefix([':', '=', '-'])?.trim_start();
            let rest = match rest.strip_prefix('{') {
                Some(typed) => {
                    let (inside, _) = typed.split_once('}')?;
                    let (_, value) = inside.split_once("\"scalar\"")?;
                    value.trim_start().strip_prefix(':')?.trim_start()
                }
                None => rest,
            };
            leading_number(rest.trim_start_matches(['"', '\'']))
        })
    })
}

/// MetaMorph and MetaXpress: `<prop id="spatial-calibration-x" type="float" value="0.65"/>`.
fn metamorph_xml(document: &roxmltree::Document<'_>) -> Option<Stated> {
    let property = |id: &str| {
        document
            .descendants()
            .find(|node| node.attribute("id") == Some(id))
            .and_then(|node| node.attribute("value"))
    };
    let state = property("spatial-calibration-state").unwrap_or("on");
    if matches!(state.to_lowercase().as_str(), "off" | "false" | "0") {
        return None;
    }
    let x = number(property("spatial-calibration-x")?)?;
    let y = property("spatial-calibration-y").and_then(number).unwrap_or(x);
    in_unit(Source::Metamorph, (x, y), property("spatial-calibration-units").unwrap_or_default())
}

/// STK: whether it is calibrated, both edges as fractions, and the unit's name.
fn metamorph_stk(bytes: &[u8]) -> Option<Stated> {
    let fraction = |at| f64::from(le_u32(bytes, at)) / f64::from(le_u32(bytes, at + 4));
    if le_u32(bytes, 0) == 0 {
        return None;
    }
    let unit = decode_text(bytes.get(20..)?);
    // A place that leads to numbers is no unit.
    let is_text = !unit.trim_end_matches('\0').contains(char::is_control);
    is_text.then(|| in_unit(Source::Metamorph, (fraction(4), fraction(12)), &unit)).flatten()
}

/// BioTek Gen5 (Cytation, Lionheart): width of the image in pixels and in µm.
fn gen5(document: &roxmltree::Document<'_>) -> Option<Stated> {
    if document.root_element().tag_name().name() != "BTIImageMetaData" {
        return None;
    }
    let value = |name: &str| {
        document
            .descendants()
            .find(|node| node.tag_name().name() == name)
            .and_then(|node| number(node.text()?))
    };
    let x = value("ImageWidthMicrons")? / value("PixelWidth")?;
    let y = value("ImageHeightMicrons").zip(value("PixelHeight")).map_or(x, |(um, px)| um / px);
    Some(Stated::size(Source::Gen5, x, y))
}

/// NIS-Elements: `<dCalibration runtype="double" value="0.65"/>`, in µm.
fn nis_elements(xml: &str) -> Option<Stated> {
    xml.match_indices("dCalibration").find_map(|(at, key)| {
        let rest = xml.get(at + key.len()..)?;
        // `dCalibrationX` and others are something else.
        let (element, _) = rest.strip_prefix(char::is_whitespace)?.split_once('>')?;
        let (_, value) = element.split_once("value=")?;
        let um = leading_number(value.trim_start_matches(['"', '\'']))?;
        Some(Stated::size(Source::NisElements, um, um))
    })
}

/// Olympus Soft Imaging System (cellSens, analySIS): an exponent of ten and edges, in metres.
fn olympus_sis(block: &[u8]) -> Option<Stated> {
    let exponent = i16::from_le_bytes(block.get(10..12)?.try_into().ok()?);
    let um = 10_f64.powi(i32::from(exponent) + 6);
    Some(Stated::size(Source::OlympusSis, le_f64(block, 12) * um, le_f64(block, 20) * um))
}

/// FluoView: ten dimensions with name, size, origin, resolution and unit.
fn fluoview(header: &[u8]) -> Option<Stated> {
    const FIRST: usize = 284;
    const EACH: usize = 100;
    let along = |axis: &str| {
        (0..10).find_map(|at| {
            let dimension = header.get(FIRST + at * EACH..FIRST + (at + 1) * EACH)?;
            let word = |bytes: &[u8]| {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                decode_text(&bytes[..end]).trim().to_owned()
            };
            let is_it = word(&dimension[..16]).eq_ignore_ascii_case(axis);
            is_it.then(|| (le_f64(dimension, 28), word(&dimension[36..])))
        })
    };
    let ((x, unit), (y, _)) = (along("X")?, along("Y")?);
    in_unit(Source::Fluoview, (x, y), &unit)
}

/// LSM: a magic number, and the edges of a voxel in metres.
fn zeiss_lsm(info: &[u8]) -> Option<Stated> {
    matches!(le_u32(info, 0), 0x0300_494c | 0x0400_494c)
        .then(|| Stated::size(Source::ZeissLsm, le_f64(info, 40) * 1e6, le_f64(info, 48) * 1e6))
}

/// FEI and Thermo Fisher: lines of `PixelWidth=` under `[Scan]` (or `[EScan]`), in metres.
fn fei(ini: &str) -> Option<Stated> {
    let value = |key: &str| {
        ini.lines().find_map(|line| number(line.trim().strip_prefix(key)?.strip_prefix('=')?))
    };
    let x = value("PixelWidth")? * 1e6;
    Some(Stated::size(Source::Fei, x, value("PixelHeight").map_or(x, |y| y * 1e6)))
}

/// Aperio SVS: `…|AppMag = 20|MPP = 0.4990|…`.
fn aperio(text: &str) -> Option<Stated> {
    if !text.starts_with("Aperio") {
        return None;
    }
    let um = text.split('|').find_map(|item| {
        let (key, value) = item.split_once('=')?;
        (key.trim() == "MPP").then(|| number(value))?
    })?;
    Some(Stated::size(Source::Aperio, um, um))
}

/// Volocity and Openlab: lines of `XCalibrationMicrons=0.65`.
fn volocity(text: &str) -> Option<Stated> {
    let value = |key: &str| {
        text.lines().find_map(|line| number(line.trim().strip_prefix(key)?.strip_prefix('=')?))
    };
    let x = value("XCalibrationMicrons")?;
    Some(Stated::size(Source::Volocity, x, value("YCalibrationMicrons").unwrap_or(x)))
}

fn in_unit(source: Source, (x, y): (f64, f64), unit: &str) -> Option<Stated> {
    match units::unit_um(unit) {
        Some(um) => Some(Stated::size(source, x * um, y * um)),
        None if units::is_none(unit) => None,
        None => Some(Stated { source, said: Said::UnknownUnit(unit.to_owned()) }),
    }
}

/// The number that a text begins with.
fn leading_number(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | '+' | '-' | 'e' | 'E')))
        .unwrap_or(text.len());
    number(text.get(..end)?.trim_end_matches(','))
}

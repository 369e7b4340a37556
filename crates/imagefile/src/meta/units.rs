//! Units of length as people and programs write them.

/// How many µm a unit is; `None` for pixels and for what is not known.
///
/// Capitals do not count: no picture is measured in megametres. What cannot be encoded has become
/// a question mark or worse on its way, and of all prefixes only µ is beyond ASCII.
pub(super) fn unit_um(unit: &str) -> Option<f64> {
    let unit = plain(unit);
    let um = match unit.as_str() {
        "um" | "u" | "mu" | "mum" | "?m" | "\u{fffd}m" => 1.0,
        "micron" | "microns" | "micrometer" | "micrometers" | "micrometre" | "micrometres"
        | "micro-meter" | "micro-metre" | "micro meter" | "micro metre" | "mikrometer"
        | "mikron" | "micrometro" | "micrometros" | "micromètre" | "micromètres" | "micrómetro" => {
            1.0
        }
        "å" | "ångström" | "ångstrom" | "angstrom" | "angstroms" => 1e-4,
        "pm" | "picometer" | "picometers" | "picometre" | "picometres" => 1e-6,
        "nm" | "nanometer" | "nanometers" | "nanometre" | "nanometres" => 1e-3,
        "mm" | "millimeter" | "millimeters" | "millimetre" | "millimetres" => 1e3,
        "cm" | "centimeter" | "centimeters" | "centimetre" | "centimetres" => 1e4,
        "dm" => 1e5,
        "m" | "meter" | "meters" | "metre" | "metres" => 1e6,
        "in" | "inch" | "inches" | "\"" => 25_400.0,
        "thou" | "mil" => 25.4,
        "pt" => 25_400.0 / 72.0,
        _ => return None,
    };
    Some(um)
}

/// Whether it is said that there is no unit: the numbers count pixels.
pub(super) fn is_none(unit: &str) -> bool {
    matches!(
        plain(unit).as_str(),
        "" | "pixel" | "pixels" | "px" | "pix" | "null" | "none" | "unknown" | "reference frame"
    )
}

/// In small letters, without brackets, "per pixel" and ways to write µ.
fn plain(unit: &str) -> String {
    let unit = unit.trim().trim_matches(['[', ']', '(', ')', '\'', '\0']).to_lowercase();
    // Alone it is the inch.
    let unit = if unit == "\"" { unit.as_str() } else { unit.trim_matches('"') };
    let unit = ["/pixel", "/pix", "/px", " per pixel", " per px", " / pixel"]
        .iter()
        .find_map(|end| unit.strip_suffix(end))
        .unwrap_or(unit);
    // The micro sign and the Greek letter, as they are; as Java, HTML and XML write them in ASCII;
    // and as UTF-8 that was read as Latin-1.
    let mut unit = unit.trim().to_owned();
    for micro in [
        "\\u00b5", "\\u03bc", "&#181;", "&#956;", "&#xb5;", "&#x3bc;", "&micro;", "&mu;", "\\xb5",
        "â\u{b5}", "î¼", "\u{b5}", "\u{3bc}",
    ] {
        unit = unit.replace(micro, "u");
    }
    unit.replace("\\u00c5", "å").replace("\\u00e5", "å").replace('\u{212b}', "å")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micrometre_is_one_however_it_is_written() {
        for unit in [
            "µm",
            "μm",
            "um",
            "UM",
            "Um",
            "uM",
            "µ",
            "μ",
            "u",
            "mu",
            "µM",
            "\\u00B5m",
            "\\u00b5m",
            "\\u03BCm",
            "\\u03bcm",
            "&#181;m",
            "&#xB5;m",
            "&micro;m",
            "Âµm",
            "Î¼m",
            "?m",
            "\u{fffd}m",
            "micron",
            "Micron",
            "microns",
            "Microns",
            "MICRONS",
            "micrometer",
            "micrometers",
            "Micrometers",
            "micrometre",
            "micrometres",
            "Micrometre",
            "Mikrometer",
            " µm ",
            "[µm]",
            "(um)",
            "\"µm\"",
            "um/pixel",
            "µm/px",
            "microns per pixel",
            "um\0",
        ] {
            assert_eq!(unit_um(unit), Some(1.0), "{unit:?}");
            assert!(!is_none(unit), "{unit:?}");
        }
    }

    #[test]
    fn other_units_are_converted_and_pixels_are_none() {
        for (unit, um) in [
            ("nm", 1e-3),
            ("Nanometers", 1e-3),
            ("mm", 1e3),
            ("MM", 1e3),
            ("cm", 1e4),
            ("m", 1e6),
            ("metre", 1e6),
            ("inch", 25_400.0),
            ("in", 25_400.0),
            ("\"", 25_400.0),
            ("Å", 1e-4),
            ("\\u00C5", 1e-4),
            ("pm", 1e-6),
            ("thou", 25.4),
        ] {
            assert_eq!(unit_um(unit), Some(um), "{unit:?}");
        }
        for unit in ["pixel", "pixels", "px", "", "null", "Reference Frame"] {
            assert_eq!(unit_um(unit), None, "{unit:?}");
            assert!(is_none(unit), "{unit:?}");
        }
        for unit in ["sec", "furlong", "µs", "\u{1b}[2J"] {
            assert_eq!(unit_um(unit), None, "{unit:?}");
            assert!(!is_none(unit), "{unit:?}");
        }
    }
}

//! Resolution as TIFF, PNG and JPEG have it: pixels a centimetre, a metre or an inch.

use std::io::{Read, Seek, SeekFrom};

use reticle_domain::pixel_size::{self, PixelSize, PixelSizeSource, Said, Stated};

/// Dots an inch of scanners and printers that would be plausible pixels (2.6 to 18 µm). Those below
/// are not plausible anyway, and microscopes do not hit such numbers by chance.
const PRINTED_DPI: [f64; 14] = [
    1440.0, 1600.0, 1800.0, 2000.0, 2400.0, 2880.0, 3200.0, 3600.0, 4000.0, 4800.0, 5400.0, 6400.0,
    7200.0, 9600.0,
];

/// Chunks or segments that are looked through before the picture begins.
const MAX_PARTS: usize = 256;

/// The resolution tags of a page of a TIFF.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resolution {
    /// Pixels in a unit, along x and y.
    pub(crate) x: Option<f64>,
    pub(crate) y: Option<f64>,
    /// 1 none, 2 inch, 3 centimetre.
    pub(crate) unit: Option<u16>,
}

impl Resolution {
    /// Both edges; some writers give x alone.
    pub(super) fn both(self) -> Option<(f64, f64)> {
        let x = self.x?;
        Some((x, self.y.unwrap_or(x)))
    }

    /// What it says of its own.
    pub(super) fn stated(self, is_imagej: bool) -> Option<Stated> {
        let (x, y) = self.both()?;
        let unit_um = match self.unit {
            Some(3) => 10_000.0,
            Some(2) => 25_400.0,
            // The format's default is the inch; ImageJ leaves its own unit to its text.
            None if !is_imagej => 25_400.0,
            _ => return None,
        };
        Some(stated(PixelSizeSource::Resolution, unit_um / x, unit_um / y))
    }
}

/// A size that any image program may have written.
pub(super) fn stated(source: PixelSizeSource, x: f64, y: f64) -> Stated {
    let dpi = 25_400.0 / x;
    let printed = PRINTED_DPI.iter().find(|known| (dpi - **known).abs() < 0.02);
    match printed {
        Some(known) => Stated { source, said: Said::Printed(*known) },
        None => Stated::size(source, x, y),
    }
}

/// What the `pHYs` chunk of a PNG says. Bytes that are not there say nothing: the decoder finds
/// out.
pub(crate) fn of_png(reader: &mut (impl Read + Seek)) -> PixelSize {
    let stated = png_physical(reader).filter(|(x, y, unit)| *unit == 1 && *x > 0 && *y > 0).map(
        // Pixels a metre.
        |(x, y, _)| stated(PixelSizeSource::Png, 1e6 / f64::from(x), 1e6 / f64::from(y)),
    );
    pixel_size::decide(stated)
}

fn png_physical(reader: &mut (impl Read + Seek)) -> Option<(u32, u32, u8)> {
    reader.seek(SeekFrom::Start(8)).ok()?;
    for _ in 0..MAX_PARTS {
        let mut head = [0_u8; 8];
        reader.read_exact(&mut head).ok()?;
        let [l0, l1, l2, l3, name @ ..] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        match &name {
            b"pHYs" if length == 9 => {
                let mut body = [0_u8; 9];
                reader.read_exact(&mut body).ok()?;
                let [x0, x1, x2, x3, y0, y1, y2, y3, unit] = body;
                let (x, y) = ([x0, x1, x2, x3], [y0, y1, y2, y3]);
                return Some((u32::from_be_bytes(x), u32::from_be_bytes(y), unit));
            }
            // It stands before the picture.
            b"IDAT" | b"IEND" => return None,
            // And its checksum.
            _ => reader.seek_relative(i64::from(length) + 4).ok()?,
        }
    }
    None
}

/// What the JFIF segment of a JPEG says.
pub(crate) fn of_jpeg(reader: &mut (impl Read + Seek)) -> PixelSize {
    let stated = jfif_density(reader).and_then(|(unit, x, y)| {
        let unit_um = match unit {
            1 => 25_400.0,
            2 => 10_000.0,
            // The shape of a pixel alone.
            _ => return None,
        };
        Some(stated(PixelSizeSource::Jfif, unit_um / f64::from(x), unit_um / f64::from(y)))
    });
    pixel_size::decide(stated)
}

fn jfif_density(reader: &mut (impl Read + Seek)) -> Option<(u8, u16, u16)> {
    reader.seek(SeekFrom::Start(2)).ok()?;
    for _ in 0..MAX_PARTS {
        let mut head = [0_u8; 4];
        reader.read_exact(&mut head).ok()?;
        let length = i64::from(u16::from_be_bytes([head[2], head[3]])) - 2;
        match head {
            [0xff, 0xe0, ..] if length >= 12 => {
                // Name, version, unit, density along x and y.
                let mut body = [0_u8; 12];
                reader.read_exact(&mut body).ok()?;
                if let [b'J', b'F', b'I', b'F', 0, _, _, unit, x0, x1, y0, y1] = body {
                    return Some((
                        unit,
                        u16::from_be_bytes([x0, x1]),
                        u16::from_be_bytes([y0, y1]),
                    ));
                }
                reader.seek_relative(length - 12).ok()?;
            }
            // Other applications' segments and comments may stand before it.
            [0xff, 0xe1..=0xef | 0xfe, ..] if length >= 0 => reader.seek_relative(length).ok()?,
            _ => return None,
        }
    }
    None
}

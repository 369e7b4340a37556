//! Frames as OME-TIFF: one uncompressed page that every image program opens.
//!
//! The pixels are the frame's, bit for bit. The OME-XML says which frame it is, when and
//! where it was taken, its exposure, its used bits and the size of a pixel.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;

use tiff::TiffError;
use tiff::encoder::colortype::{ColorType, Gray8, Gray16};
use tiff::encoder::{Rational, TiffEncoder, TiffValue};
use tiff::tags::{ResolutionUnit, Tag};

use super::error::ImageFileError;
use super::planes::Selection;
use super::{Limits, Page, Timer, guarded, tiff as tiff_file};
use reticle_domain::frame::{Frame, Pixels};

/// The frame as the bytes of an OME-TIFF file.
///
/// # Errors
/// When the frame has no pixels: a TIFF has at least one.
pub fn encode_frame_tiff(frame: &Frame) -> Result<Vec<u8>, NoPixels> {
    if frame.pixels.is_empty() {
        return Err(NoPixels);
    }
    let mut bytes =
        Cursor::new(Vec::with_capacity(frame.pixels.len() * frame.pixels.bytes_per_pixel() + 4096));
    let written = match &frame.pixels {
        Pixels::U8(values) => encode::<Gray8>(&mut bytes, frame, values),
        Pixels::U16(values) => encode::<Gray16>(&mut bytes, frame, values),
    };
    written.expect("a frame has width × height pixels, and memory takes every byte");
    Ok(bytes.into_inner())
}

/// A frame without pixels, which no TIFF can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame has no pixels, so there is nothing to write; the source is at fault")]
pub struct NoPixels;

/// Reads back what [`encode_frame_tiff`] wrote.
///
/// # Errors
/// When the bytes are not such a file any more.
pub fn decode_frame_tiff(bytes: &[u8]) -> Result<Page, ImageFileError> {
    // What was captured is read back, whatever its size.
    let size = bytes.len() as u64;
    let limits = Limits { max_pixels: size, bytes_a_pixel: 0, ..Limits::default() };
    let timer = Timer::new(limits.max_read);
    let read = || {
        let bytes = Cursor::new(bytes);
        tiff_file::Stack::open(bytes, size, limits, &Selection::default())?.read(0)
    };
    guarded(&timer, read)
        .map_err(|problem| ImageFileError::new(Path::new("the stored frame"), None, problem))
}

fn encode<C>(
    bytes: &mut Cursor<Vec<u8>>,
    frame: &Frame,
    values: &[C::Inner],
) -> Result<(), TiffError>
where
    C: ColorType,
    [C::Inner]: TiffValue,
{
    let mut encoder = TiffEncoder::new(bytes)?;
    let mut image = encoder.new_image::<C>(frame.width, frame.height)?;
    // A `&str` in ASCII, or readers do not see that it is OME.
    image.encoder().write_tag(Tag::ImageDescription, ome_xml(frame).as_str())?;
    image.encoder().write_tag(Tag::Software, concat!("reticle ", env!("CARGO_PKG_VERSION")))?;
    if let Some(resolution) = frame.pixel_size_um.and_then(pixels_a_centimetre) {
        image.resolution(ResolutionUnit::Centimeter, resolution);
    }
    image.write_data(values)
}

/// `None` where the size has no meaning or does not fit the tag.
fn pixels_a_centimetre(pixel_size_um: f64) -> Option<Rational> {
    let thousandths = (10_000.0 / pixel_size_um * 1000.0).round();
    (1.0..=f64::from(u32::MAX))
        .contains(&thousandths)
        .then_some(Rational { n: thousandths as u32, d: 1000 })
}

fn ome_xml(frame: &Frame) -> String {
    let (bits, kind) = match frame.pixels {
        Pixels::U8(_) => (8, "uint8"),
        Pixels::U16(_) => (frame.bit_depth.clamp(8, 16), "uint16"),
    };
    let mut xml = format!(
        concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" "#,
            r#"xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" "#,
            r#"xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 "#,
            r#"http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" "#,
            r#"Creator="reticle {version}"><Image ID="Image:0" Name="{id}">"#,
            r#"<AcquisitionDate>{captured}</AcquisitionDate>"#,
        ),
        version = env!("CARGO_PKG_VERSION"),
        id = frame.id,
        captured = frame.captured.rfc3339(),
    );
    if let Some(description) = place(frame) {
        put(&mut xml, format_args!("<Description>{description}</Description>"));
    }
    put(
        &mut xml,
        format_args!(
            concat!(
                r#"<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{kind}" "#,
                r#"SignificantBits="{bits}" SizeX="{width}" SizeY="{height}" "#,
                r#"SizeC="1" SizeZ="1" SizeT="1""#,
            ),
            kind = kind,
            bits = bits,
            width = frame.width,
            height = frame.height,
        ),
    );
    if let Some(size) = frame.pixel_size_um.filter(|size| size.is_finite() && *size > 0.0) {
        put(
            &mut xml,
            format_args!(
                concat!(
                    r#" PhysicalSizeX="{size}" PhysicalSizeXUnit="&#181;m" "#,
                    r#"PhysicalSizeY="{size}" PhysicalSizeYUnit="&#181;m""#,
                ),
                size = size,
            ),
        );
    }
    xml.push_str(r#"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>"#);
    xml.push_str(r#"<TiffData IFD="0" PlaneCount="1"/>"#);
    if let Some(exposure) = frame.exposure_us {
        put(
            &mut xml,
            format_args!(
                concat!(
                    r#"<Plane TheC="0" TheZ="0" TheT="0" ExposureTime="{exposure}" "#,
                    r#"ExposureTimeUnit="&#181;s"/>"#,
                ),
                exposure = exposure,
            ),
        );
    }
    xml.push_str("</Pixels></Image></OME>");
    xml
}

/// Plate, well, field and file of origin, as far as they are known.
fn place(frame: &Frame) -> Option<String> {
    let parts = [
        ("plate", frame.place.plate.clone()),
        ("well", frame.place.well.clone()),
        ("field", frame.place.field.map(|field| field.to_string())),
        ("file", frame.origin.clone()),
    ];
    let known: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} {}", ascii_xml(&value))))
        .collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// Text for XML in ASCII: what is special or beyond ASCII becomes a reference.
fn ascii_xml(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '&' | '<' | '>' | '"' | '\'' => {
                put(&mut out, format_args!("&#{};", u32::from(character)))
            }
            ' '..='~' => out.push(character),
            // XML 1.0 has no other control characters and no such code points.
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            _ => put(&mut out, format_args!("&#{};", u32::from(character))),
        }
        out
    })
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes every character");
}

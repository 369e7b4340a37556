//! A frame and its label image as OME-TIFF: `<frame>.ome.tif` and `<frame>_labels.ome.tif`.
//!
//! Two files and not two channels: pixels and labels differ in type, which one OME image may
//! not, and programs that segment expect the labels beside the image under the same name.

use std::io::Cursor;
use std::path::Path;

use tiff::decoder::Decoder;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Tag;

use reticle_base::clock::Stamp;
use reticle_base::foreign_file;
use reticle_base::ids::FrameId;
use reticle_domain::facts::FrameFacts;
use reticle_domain::frame::{Frame, Pixels};
use reticle_domain::label_image::LabelImage;
use reticle_imagefile::{NoPixels, encode_frame_tiff};

/// Ending that tells label images from images, before the file's own.
pub(super) const LABELS: &str = "_labels";

/// Name of a frame's image.
pub fn frame_name(frame: FrameId) -> String {
    format!("{frame}.ome.tif")
}

/// Name of a frame's label image.
pub fn labels_name(frame: FrameId) -> String {
    format!("{frame}{LABELS}.ome.tif")
}

/// A frame's image with what is known of it.
///
/// # Errors
/// When there are no pixels.
pub fn encode_frame(facts: &FrameFacts, pixels: Pixels) -> Result<Vec<u8>, NoPixels> {
    let captured = Stamp {
        wall_ns: facts.captured.at_ns,
        mono_ns: facts.captured.mono_ns,
        boot_id: facts.captured.boot,
    };
    encode_frame_tiff(&Frame {
        id: facts.id,
        sequence: facts.sequence,
        captured,
        exposure_us: facts.exposure_us,
        width: facts.width,
        height: facts.height,
        bit_depth: facts.bit_depth,
        pixels,
        sha256: facts.sha256,
        pixel_size_um: facts.pixel_size_um,
        pixel_size_source: facts.pixel_size_source,
        pixel_size_note: facts.pixel_size_note.clone(),
        place: facts.place.clone(),
        origin: facts.origin.clone(),
        truth: None,
    })
}

/// A frame's label image: 16 bits where the labels fit, else 32, deflated.
///
/// # Errors
/// When there are no pixels: a TIFF has at least one.
pub fn encode_labels(facts: &FrameFacts, labels: &LabelImage) -> Result<Vec<u8>, NoPixels> {
    if labels.labels().is_empty() {
        return Err(NoPixels);
    }
    let (width, height) = (labels.width(), labels.height());
    let is_small = labels.count() <= u32::from(u16::MAX);
    let xml = ome_xml(facts, labels, if is_small { "uint16" } else { "uint32" });
    let mut bytes = Cursor::new(Vec::new());
    let written = TiffEncoder::new(&mut bytes).and_then(|encoder| {
        let mut encoder = encoder.with_compression(Compression::Deflate(DeflateLevel::Fast));
        // The description must be a `&str` in ASCII, or readers do not see that it is OME.
        if is_small {
            let values: Vec<u16> = labels.labels().iter().map(|&label| label as u16).collect();
            let mut image = encoder.new_image::<colortype::Gray16>(width, height)?;
            image.encoder().write_tag(Tag::ImageDescription, xml.as_str())?;
            image.write_data(&values)
        } else {
            let mut image = encoder.new_image::<colortype::Gray32>(width, height)?;
            image.encoder().write_tag(Tag::ImageDescription, xml.as_str())?;
            image.write_data(labels.labels())
        }
    });
    written.expect("a label image has width × height labels, and memory takes every byte");
    Ok(bytes.into_inner())
}

/// All of it is ASCII without what XML would want escaped: ids, numbers, a time.
fn ome_xml(facts: &FrameFacts, labels: &LabelImage, kind: &str) -> String {
    let edge = facts.pixel_size_um.filter(|um| um.is_finite() && *um > 0.0);
    let edge = edge.map_or_else(String::new, |um| {
        format!(
            concat!(
                r#" PhysicalSizeX="{um}" PhysicalSizeXUnit="&#181;m""#,
                r#" PhysicalSizeY="{um}" PhysicalSizeYUnit="&#181;m""#,
            ),
            um = um,
        )
    });
    format!(
        concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" "#,
            r#"xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" "#,
            r#"xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 "#,
            r#"http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" "#,
            r#"Creator="reticle {version}"><Image ID="Image:0" Name="{id}{labels}">"#,
            r#"<AcquisitionDate>{captured}</AcquisitionDate>"#,
            r#"<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{kind}" "#,
            r#"SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="1" SizeT="1"{edge}>"#,
            r#"<Channel ID="Channel:0:0" Name="labels" SamplesPerPixel="1"/>"#,
            r#"<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>"#,
        ),
        version = env!("CARGO_PKG_VERSION"),
        id = facts.id,
        labels = LABELS,
        captured = facts.captured.rfc3339(),
        kind = kind,
        width = labels.width(),
        height = labels.height(),
        edge = edge,
    )
}

/// The description of a TIFF's first page, where it has one.
pub(super) fn description(path: &Path) -> Option<String> {
    let file = std::io::BufReader::new(foreign_file::open(path, u64::MAX).ok()?);
    Decoder::new(file).ok()?.get_tag_ascii_string(Tag::ImageDescription).ok()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn round_trip(labels: &LabelImage) -> LabelImage {
        let folder = tempfile::tempdir().unwrap();
        let frame = testing::frame(0);
        // Named by others: the frame is known from what is inside.
        let path = folder.path().join("renamed.tif");
        std::fs::write(&path, encode_labels(&frame, labels).unwrap()).unwrap();
        assert!(description(&path).unwrap().contains(&frame.id.to_string()));
        reticle_imagefile::read_labels(&path).unwrap()
    }

    proptest! {
        #[test]
        fn any_label_image_comes_back(labels in testing::any_labels()) {
            prop_assert_eq!(round_trip(&labels), labels);
        }
    }

    #[test]
    fn more_objects_than_16_bits_can_number_come_back() {
        let labels = testing::many_objects();
        assert_eq!(round_trip(&labels), labels);
    }

    #[test]
    fn the_description_is_ascii_and_its_pixel_size_is_read() {
        let xml = ome_xml(&testing::frame(0), &LabelImage::empty(6, 4), "uint16");
        assert!(xml.is_ascii());
        roxmltree::Document::parse(&xml).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tif");
        let labels = LabelImage::empty(6, 4);
        std::fs::write(&path, encode_labels(&testing::frame(0), &labels).unwrap()).unwrap();
        let mut pages =
            reticle_imagefile::open(&path, reticle_imagefile::Limits::default()).unwrap();
        assert_eq!(pages.next().unwrap().unwrap().pixel_size_um, Some(0.65));
    }

    #[test]
    fn a_frame_is_written_with_the_time_that_is_known_now() {
        let frame = testing::frame(0);
        let bytes = encode_frame(&frame, Pixels::U16(vec![7; 24])).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains(&frame.captured.rfc3339()), "{text}");
        assert!(encode_frame(&frame, Pixels::U16(Vec::new())).is_err());
    }
}

//! The binary message of the live channel: one frame and its segmentation, in one piece.
//!
//! ```text
//! u32 LE   length of the header
//! header   JSON, see [`Header`]
//! JPEG     grey preview; its APP9 segment holds "reticle\0" and the frame's id (16 bytes)
//! contours frame's id (16 bytes), rings, one colour a label (see `docs/design/live.md`)
//! ```
//!
//! The id stands in both parts although they travel together: whoever draws compares them,
//! so even a bug in slicing the message cannot put an overlay on another image.

use jpeg_encoder::EncodingError;
use serde::Serialize;

use super::live_frame::{Encoding, LiveFrame};
use super::preview::Preview;
use super::{colours, contours};
use reticle_base::ids::FrameId;
use reticle_domain::frame::Place;
use reticle_domain::look::{ScaleFrom, Unlike};
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::Timings;

/// Version of the layout; a page that knows another one reloads itself.
pub(crate) const VERSION: u32 = 1;

/// Why a frame cannot be made into a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("cannot encode the preview: {0}")]
    Jpeg(#[from] EncodingError),
    #[error("cannot write the header: {0}")]
    Header(#[from] serde_json::Error),
    #[error(
        "the frame is {frame:?} pixels but its labels are {labels:?}: the segmenter is at fault"
    )]
    SizesDiffer { frame: [u32; 2], labels: [u32; 2] },
    #[error("the message has a part of 4 GiB or more")]
    TooLarge,
}

/// What is told about a frame. Lengths are in bytes, sizes in pixels.
#[derive(Serialize)]
struct Header<'a> {
    version: u32,
    frame: FrameId,
    sequence: u64,
    captured: String,
    width: u32,
    height: u32,
    bit_depth: u8,
    pixel_size_um: Option<f64>,
    pixel_size_source: Option<PixelSizeSource>,
    pixel_size_note: Option<&'a str>,
    exposure_us: Option<u32>,
    place: &'a Place,
    origin: Option<&'a str>,
    objects: u32,
    focus: f32,
    ap50: Option<f64>,
    true_objects: Option<u32>,
    model: &'a str,
    model_sha256: &'a str,
    timings: Timings,
    scale_from: ScaleFrom,
    scale: f32,
    size_ratio: Option<f32>,
    unlike: Option<Unlike>,
    preview: PreviewHeader,
    contours: ContoursHeader,
}

#[derive(Serialize)]
struct PreviewHeader {
    bytes: usize,
    width: u16,
    height: u16,
    /// Pixels of the frame along the edge of a pixel of the preview.
    factor: u32,
    /// Grey values of the frame that are shown as black and white.
    stretch: [u16; 2],
}

#[derive(Serialize)]
struct ContoursHeader {
    bytes: usize,
}

/// The message for `live`.
pub(crate) fn message(live: &LiveFrame, encoding: Encoding) -> Result<Vec<u8>, MessageError> {
    check_sizes(live)?;
    let segmentation = &live.segmentation;
    let frame = &*segmentation.frame;
    let preview = Preview::of(frame, encoding.longest);
    let jpeg = preview.jpeg(frame, encoding.quality)?;
    let mut overlay = frame.id.as_bytes().to_vec();
    contours::encode(&contours::rings(&segmentation.labels), &mut overlay);
    let colours = colours::of_objects(&segmentation.labels);
    overlay.extend(length(colours.len())?.to_le_bytes());
    overlay.extend(colours);
    let header = serde_json::to_vec(&Header {
        version: VERSION,
        frame: frame.id,
        sequence: frame.sequence,
        captured: frame.captured.rfc3339(),
        width: frame.width,
        height: frame.height,
        bit_depth: frame.bit_depth,
        pixel_size_um: frame.pixel_size_um,
        pixel_size_source: frame.pixel_size_source,
        pixel_size_note: frame.pixel_size_note.as_deref(),
        exposure_us: frame.exposure_us,
        place: &frame.place,
        origin: frame.origin.as_deref(),
        objects: length(segmentation.objects.len())?,
        focus: segmentation.focus,
        ap50: live.ap50,
        true_objects: live.true_objects,
        model: &segmentation.model.name,
        model_sha256: &segmentation.model.sha256,
        timings: segmentation.timings,
        scale_from: segmentation.look.scale_from,
        scale: segmentation.look.scale,
        size_ratio: segmentation.look.size_ratio,
        unlike: segmentation.look.unlike,
        preview: PreviewHeader {
            bytes: jpeg.len(),
            width: preview.width,
            height: preview.height,
            factor: preview.factor,
            stretch: preview.stretch,
        },
        contours: ContoursHeader { bytes: overlay.len() },
    })?;
    Ok([&length(header.len())?.to_le_bytes(), &header[..], &jpeg, &overlay].concat())
}

/// The picture of `live` with its outlines burnt in, as JPEG.
pub(crate) fn snapshot(live: &LiveFrame, encoding: Encoding) -> Result<Vec<u8>, MessageError> {
    check_sizes(live)?;
    let segmentation = &live.segmentation;
    let preview = Preview::of(&segmentation.frame, encoding.longest);
    Ok(preview.jpeg_with_outlines(&segmentation.labels, encoding.quality)?)
}

fn check_sizes(live: &LiveFrame) -> Result<(), MessageError> {
    let (frame, labels) = (&live.segmentation.frame, &live.segmentation.labels);
    let (frame, labels) = ([frame.width, frame.height], [labels.width(), labels.height()]);
    if frame == labels { Ok(()) } else { Err(MessageError::SizesDiffer { frame, labels }) }
}

fn length(length: usize) -> Result<u32, MessageError> {
    u32::try_from(length).map_err(|_too_long| MessageError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testing;

    const ENCODING: Encoding = Encoding { longest: 1536, quality: 85 };

    #[test]
    fn a_message_is_header_jpeg_and_contours_of_one_frame_and_nothing_else() {
        let live = testing::live_frame(7, &testing::clock());
        let message = message(&live, ENCODING).unwrap();
        let header_length = u32::from_le_bytes(message[..4].try_into().unwrap()) as usize;
        let (header, rest) = message[4..].split_at(header_length);
        let header: serde_json::Value = serde_json::from_slice(header).unwrap();
        let jpeg_length = header["preview"]["bytes"].as_u64().unwrap() as usize;
        let (jpeg, overlay) = rest.split_at(jpeg_length);
        let id = live.segmentation.frame.id;
        assert_eq!(header["frame"], id.to_string());
        assert_eq!(header["sequence"], 7);
        assert!(jpeg.starts_with(&[0xFF, 0xD8]) && jpeg.ends_with(&[0xFF, 0xD9]));
        assert!(jpeg.windows(16).any(|window| window == id.as_bytes()));
        assert_eq!(&overlay[..16], id.as_bytes());
        assert_eq!(overlay.len() as u64, header["contours"]["bytes"].as_u64().unwrap());
        let colours = live.segmentation.labels.count() as usize;
        let count = &overlay[overlay.len() - colours - 4..][..4];
        assert_eq!(u32::from_le_bytes(count.try_into().unwrap()) as usize, colours);
    }

    #[test]
    fn labels_of_another_size_are_refused() {
        let mut live = testing::live_frame(0, &testing::clock());
        let labels = reticle_domain::label_image::LabelImage::empty(3, 3);
        live.segmentation.labels = std::sync::Arc::new(labels);
        let error = message(&live, ENCODING).unwrap_err().to_string();
        assert!(error.contains("its labels are [3, 3]"), "{error}");
    }
}

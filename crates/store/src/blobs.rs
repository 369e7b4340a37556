//! Label images as bytes in the database.
//!
//! ```text
//! "RTL1" · width u32 LE · height u32 LE · objects u32 LE · zstd frame with checksum of:
//!     for each run of equal labels, in reading order, never across a row's end:
//!         length − 1 as varint            (all lengths first,
//!         label as varint                  then all labels)
//! ```
//! Runs of one row mostly repeat those of the row above, a little shifted, so that lengths
//! and labels apart compress better than mixed. The four letters are the version: another
//! encoding gets other letters, and old blobs stay readable.

use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::segmentation::Segmentation;

const MAGIC: &[u8; 4] = b"RTL1";
const HEADER: usize = 16;

/// zstd's own default: on runs of labels, higher levels gain little for much time.
const LEVEL: i32 = 3;

/// Pixels above which a header is not believed: memory is reserved by what it says.
const MAX_PIXELS: u64 = reticle_imagefile::MAX_PIXELS;

/// Why bytes are not a label image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the label image was not stored by this version of Reticle, or its head is damaged")]
    Header,
    #[error("the label image's compressed data is damaged: {0}")]
    Compressed(#[from] std::io::Error),
    #[error("the label image's runs do not fill {width}×{height} pixels with {objects} objects")]
    Runs { width: u32, height: u32, objects: u32 },
}

/// Compresses a label image.
pub(crate) fn encode(image: &LabelImage) -> Result<Vec<u8>, Broken> {
    let (mut lengths, mut labels) = (Vec::new(), Vec::new());
    let width = image.width() as usize;
    if width > 0 {
        for row in image.labels().chunks_exact(width) {
            for run in row.chunk_by(|a, b| a == b) {
                push_varint(&mut lengths, u32::try_from(run.len() - 1).unwrap_or(u32::MAX));
                push_varint(&mut labels, run[0]);
            }
        }
    }
    lengths.append(&mut labels);
    let mut bytes = Vec::with_capacity(HEADER + lengths.len() / 4);
    bytes.extend(MAGIC);
    for number in [image.width(), image.height(), image.count()] {
        bytes.extend(number.to_le_bytes());
    }
    let mut encoder = zstd::stream::Encoder::new(bytes, LEVEL)?;
    encoder.include_checksum(true)?;
    std::io::Write::write_all(&mut encoder, &lengths)?;
    Ok(encoder.finish()?)
}

/// The label image of a result as bytes, if it is one that the invariants allow.
pub(crate) fn encode_result(segmentation: &Segmentation) -> Result<Vec<u8>, String> {
    let (frame, labels) = (&segmentation.frame, &segmentation.labels);
    if (labels.width(), labels.height()) != (frame.width, frame.height) {
        return Err(format!(
            "its label image is {}×{} but the frame {}×{}; report this as a defect",
            labels.width(),
            labels.height(),
            frame.width,
            frame.height
        ));
    }
    encode_with(labels, &segmentation.objects)
}

/// The label image as bytes, if these are its objects.
pub(crate) fn encode_with(labels: &LabelImage, objects: &[Object]) -> Result<Vec<u8>, String> {
    let areas = areas(labels);
    let told: Vec<(u32, u32)> = objects.iter().map(|object| (object.label, object.area)).collect();
    if !(1..).zip(areas).eq(told) {
        return Err("its objects are not those of its label image; report this as a defect".into());
    }
    encode(labels).map_err(|error| error.to_string())
}

/// Pixels of each object, by label from 1.
pub(crate) fn areas(labels: &LabelImage) -> Vec<u32> {
    let mut areas = vec![0_u32; labels.count() as usize + 1];
    for &label in labels.labels() {
        areas[label as usize] += 1;
    }
    areas.remove(0);
    areas
}

/// Takes apart what [`encode`] made.
pub(crate) fn decode(bytes: &[u8]) -> Result<LabelImage, Broken> {
    let (head, packed) = bytes.split_at_checked(HEADER).ok_or(Broken::Header)?;
    if !head.starts_with(MAGIC) {
        return Err(Broken::Header);
    }
    let number = |at: usize| {
        head.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let (width, height, objects) = (number(4), number(8), number(12));
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Err(Broken::Header);
    }
    let wrong = Broken::Runs { width, height, objects };
    let pixels = usize::try_from(pixels).map_err(|_too_large| Broken::Header)?;
    // Ten bytes a pixel is more than any image can need: a bomb stops there.
    let mut runs = Vec::new();
    std::io::Read::read_to_end(
        &mut std::io::Read::take(zstd::stream::Decoder::new(packed)?, pixels as u64 * 10),
        &mut runs,
    )?;
    match fill(&runs, pixels, width, height) {
        Some(image) if image.count() == objects => Ok(image),
        _ => Err(wrong),
    }
}

fn fill(runs: &[u8], pixels: usize, width: u32, height: u32) -> Option<LabelImage> {
    // Lengths end where they have filled the image; labels begin there.
    let (mut at, mut filled, mut count) = (0, 0_usize, 0_usize);
    while filled < pixels {
        filled += read_varint(runs, &mut at)? as usize + 1;
        count += 1;
    }
    if filled != pixels {
        return None;
    }
    let mut labels = Vec::with_capacity(pixels);
    let (mut length_at, mut label_at) = (0, at);
    for _ in 0..count {
        let length = read_varint(runs, &mut length_at)? as usize + 1;
        let label = read_varint(runs, &mut label_at)?;
        labels.resize(labels.len() + length, label);
    }
    if label_at != runs.len() {
        return None;
    }
    LabelImage::new(width, height, labels).ok()
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;
    use reticle_base::clock::{Clock, thread_cpu};

    fn any_image() -> impl Strategy<Value = LabelImage> {
        (0_u32..40, 0_u32..40, prop_oneof![Just(1_u32), Just(300), Just(70_000), Just(u32::MAX)])
            .prop_flat_map(|(width, height, top)| {
                let size = (width * height) as usize;
                let label = prop_oneof![3 => Just(0), 1 => 0..=top];
                (Just(width), Just(height), proptest::collection::vec(label, size))
            })
            .prop_map(|(width, height, labels)| LabelImage::new(width, height, labels).unwrap())
    }

    proptest! {
        #[test]
        fn any_label_image_comes_back(image in any_image()) {
            prop_assert_eq!(decode(&encode(&image).unwrap()).unwrap(), image);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            prop_assert!(decode(&bytes).is_err());
            // Whatever comes: an image or an error.
            drop(decode(&with_magic));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let image = fixture::cells(64, 48, 9, 7);
        let good = encode(&image).unwrap();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            // A bit of zstd's own head may be without meaning; then the image is the same.
            match decode(&bad) {
                Ok(back) => assert_eq!(back, image, "bit {at}"),
                Err(_) => continue,
            }
        }
        assert!(decode(&good[..good.len() - 1]).is_err());
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn a_header_that_promises_too_much_reserves_nothing() {
        let mut bytes = encode(&LabelImage::empty(1, 1)).unwrap();
        bytes[4..12].fill(0xff);
        assert!(matches!(decode(&bytes), Err(Broken::Header)));
    }

    #[test]
    fn a_frame_of_280_cells_takes_a_hundredth_of_its_pixels() {
        let image = fixture::cells(1024, 1024, 280, 1);
        let before = thread_cpu();
        let bytes = encode(&image).unwrap();
        let encoded = thread_cpu() - before;
        let back = decode(&bytes).unwrap();
        let decoded = thread_cpu() - before - encoded;
        println!(
            "1024², {} cells: {} bytes; encode {encoded:?}, decode {decoded:?} ({})",
            image.count(),
            bytes.len(),
            Clock::system().now().rfc3339()
        );
        assert_eq!(back, image);
        assert!(bytes.len() < 1024 * 1024 * 2 / 50, "{} bytes", bytes.len());
    }
}

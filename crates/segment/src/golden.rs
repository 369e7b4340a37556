//! The golden frame: does this box make of it what the package says it should?
//!
//! Every processor gives the same bits ([`super::numerics`]), so the hash of the labels must be that of
//! the package's. Only of a network that tract runs this cannot be asked: there a foreground IoU
//! of 0.99 and 1% of the objects are allowed, as measured between x86_64 and aarch64.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat, ImageReader};

use super::package::{self, ModelPackage};
use super::{SegmentError, Segmenter};
use reticle_base::clock::Clock;
use reticle_base::foreign_file;
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;

/// The frame, 8 or 16-bit greyscale PNG.
pub const FRAME_FILE: &str = "golden.png";

/// The labels, 16-bit greyscale PNG.
pub const LABELS_FILE: &str = "golden-labels.png";

/// Smallest foreground IoU that counts as the same segmentation where tract runs the network.
pub const MIN_FOREGROUND_IOU: f64 = 0.99;

/// Largest difference in the number of objects there, as a share of the expected number.
pub const MAX_COUNT_ERROR: f64 = 0.01;

/// Largest edge of a golden frame: it is segmented at every start.
pub const MAX_EDGE: u32 = 4096;

/// Largest file of either that is read, bytes: pixels of 16 bits that could not be compressed.
const FILE_BYTES: u64 = 2 * MAX_EDGE as u64 * MAX_EDGE as u64 + (1 << 20);

/// Why the golden frame proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file of the package is missing.
    #[error("cannot read {path}: {source}; is the model package complete?")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the package is damaged.
    #[error("the package's {file} is no usable greyscale PNG: {reason}")]
    Damaged {
        /// Which file.
        file: &'static str,
        /// Why.
        reason: String,
    },
    /// It could not be segmented.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// How the labels made here compare with those in the package.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Whether the labels must have the hash of the package's: so wherever this program's engine
    /// runs the network.
    pub must_be_identical: bool,
    /// The hashes are equal.
    pub identical: bool,
    /// Intersection over union of the two foregrounds.
    pub foreground_iou: f64,
    /// Objects in the package's labels.
    pub expected_objects: u32,
    /// Objects found here.
    pub found_objects: u32,
}

impl Report {
    /// Compares labels made here (`found`) with those expected.
    pub fn compare(expected: &LabelImage, found: &LabelImage, must_be_identical: bool) -> Self {
        let same_size = expected.width() == found.width() && expected.height() == found.height();
        let (mut both, mut either) = (0_u64, 0_u64);
        for (&a, &b) in expected.labels().iter().zip(found.labels()) {
            both += u64::from(a != 0 && b != 0);
            either += u64::from(a != 0 || b != 0);
        }
        let iou = if either == 0 { 1.0 } else { both as f64 / either as f64 };
        Self {
            must_be_identical,
            identical: same_size && expected.sha256() == found.sha256(),
            foreground_iou: if same_size { iou } else { 0.0 },
            expected_objects: expected.count(),
            found_objects: found.count(),
        }
    }

    /// Whether this box segments as it should.
    pub fn is_good(&self) -> bool {
        if self.must_be_identical {
            return self.identical;
        }
        let difference = self.expected_objects.abs_diff(self.found_objects);
        self.foreground_iou >= MIN_FOREGROUND_IOU
            && f64::from(difference) <= MAX_COUNT_ERROR * f64::from(self.expected_objects)
    }
}

/// Segments the golden frame of the segmenter's package and compares.
///
/// # Errors
/// When the package has no usable golden frame or it cannot be segmented.
pub fn check(segmenter: &mut Segmenter, clock: &Clock) -> Result<Report, GoldenError> {
    let frame = Arc::new(frame(segmenter.package(), clock)?);
    let expected = labels(segmenter.package())?;
    // A diameter that is stated for the box's own frames is not that of this one.
    let stated = segmenter.object_diameter_px.take();
    let found = segmenter.segment(&frame);
    segmenter.object_diameter_px = stated;
    let found = found?;
    Ok(Report::compare(&expected, &found.labels, segmenter.network.is_exact()))
}

/// The golden frame of a package.
///
/// # Errors
/// When it is missing or damaged.
pub fn frame(package: &ModelPackage, clock: &Clock) -> Result<Frame, GoldenError> {
    let bytes = bytes(package, FRAME_FILE)?;
    let damaged = |reason: String| GoldenError::Damaged { file: FRAME_FILE, reason };
    let image = decoded(&bytes).map_err(damaged)?;
    let (width, height) = (image.width(), image.height());
    let (pixels, bit_depth) = match image {
        DynamicImage::ImageLuma8(image) => (Pixels::U8(image.into_raw()), 8),
        DynamicImage::ImageLuma16(image) => (Pixels::U16(image.into_raw()), 16),
        other => return Err(damaged(format!("its colour type is {:?}", other.color()))),
    };
    Shot {
        sequence: 0,
        captured: clock.now(),
        exposure_us: None,
        width,
        height,
        bit_depth,
        pixels,
        pixel_size_um: None,
        pixel_size_source: None,
        pixel_size_note: None,
        place: Place::default(),
        origin: Some(FRAME_FILE.to_owned()),
        truth: None,
    }
    .into_frame()
    .map_err(|error| damaged(error.to_string()))
}

/// A frame as the PNG of a package.
///
/// # Errors
/// When it cannot be encoded.
pub fn frame_png(frame: &Frame) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Vec::new();
    let out = std::io::Cursor::new(&mut bytes);
    let encoder = image::codecs::png::PngEncoder::new(out);
    let colour = match frame.pixels {
        Pixels::U8(_) => image::ExtendedColorType::L8,
        Pixels::U16(_) => image::ExtendedColorType::L16,
    };
    // The encoder takes samples in the machine's own byte order.
    let samples = match &frame.pixels {
        Pixels::U8(values) => values.clone(),
        Pixels::U16(values) => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
    };
    image::ImageEncoder::write_image(encoder, &samples, frame.width, frame.height, colour)?;
    Ok(bytes)
}

fn labels(package: &ModelPackage) -> Result<LabelImage, GoldenError> {
    let bytes = bytes(package, LABELS_FILE)?;
    let damaged = |reason: String| GoldenError::Damaged { file: LABELS_FILE, reason };
    let image = decoded(&bytes).map_err(damaged)?.into_luma16();
    let (width, height) = image.dimensions();
    LabelImage::new(width, height, image.into_raw().into_iter().map(u32::from).collect())
        .map_err(|error| damaged(error.to_string()))
}

/// The image of a PNG with edges up to [`MAX_EDGE`]; larger ones are refused by their header.
fn decoded(png: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_EDGE);
    limits.max_image_height = Some(MAX_EDGE);
    reader.limits(limits);
    reader.decode().map_err(|error| error.to_string())
}

fn bytes(package: &ModelPackage, file: &'static str) -> Result<Vec<u8>, GoldenError> {
    if let Some(folder) = package.folder() {
        let path = folder.join(file);
        return foreign_file::read_no_link(&path, FILE_BYTES)
            .map_err(|error| GoldenError::Read { path, source: error.into() });
    }
    let built_in = package::built_in(&package.manifest().name)
        .expect("a package without a folder is a built-in one");
    let bytes = if file == FRAME_FILE { built_in.golden_frame } else { built_in.golden_labels };
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn segmenter(threads: usize) -> Segmenter {
        let options = Options { threads: threads.try_into().ok(), ..Options::default() };
        Segmenter::new(&options, Clock::system()).unwrap()
    }

    #[test]
    fn any_machine_segments_the_golden_frames_as_the_packages_say() {
        // The drawn cells of the second are fewer.
        for (model, fewest) in std::iter::zip(&package::BUILT_IN, [21, 10]) {
            let name = model.name;
            let options = Options { model: name.to_owned(), ..Options::default() };
            let mut segmenter = Segmenter::new(&options, Clock::system()).unwrap();
            let report = check(&mut segmenter, &Clock::system()).unwrap();
            assert!(report.expected_objects >= fewest, "{name}: nearly empty: {report:?}");
            assert!(report.must_be_identical && report.is_good(), "{name}: {report:?}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let clock = Clock::system();
        let (mut one, mut four) = (segmenter(1), segmenter(4));
        // Larger than one tile, so that threads have something to share.
        let tile = frame(one.package(), &clock).unwrap();
        let (width, height) = (tile.width * 3, tile.height * 2);
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .map(|(x, y)| {
                tile.pixels.get(((y % tile.height) * tile.width + x % tile.width) as usize)
            })
            .collect();
        let large = Arc::new(Frame { width, height, pixels: Pixels::U16(pixels), ..tile });
        let (a, b) = (one.segment(&large).unwrap(), four.segment(&large).unwrap());
        assert!(a.labels.count() > 50);
        assert_eq!(a.labels, b.labels);
        assert_eq!(a.objects, b.objects);
        assert_eq!(a.focus.to_bits(), b.focus.to_bits());
    }

    #[test]
    fn the_diameter_of_the_boxs_own_objects_does_not_matter() {
        let options = Options { object_diameter_px: Some(100.0), ..Options::default() };
        let mut segmenter = Segmenter::new(&options, Clock::system()).unwrap();
        let report = check(&mut segmenter, &Clock::system()).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(segmenter.object_diameter_px, Some(100.0));
    }

    /// What is said of a planted file, and how it is planted.
    type Plant = (&'static str, fn(&std::path::Path));

    #[test]
    fn a_golden_frame_that_is_no_plain_image_is_refused_and_never_waited_for() {
        let plants: [Plant; 4] = [
            ("is no regular file", |path| {
                rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
            }),
            ("is no regular file", |path| {
                std::os::unix::fs::symlink("/dev/zero", path).unwrap();
            }),
            ("are the most that are read", |path| {
                std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
            }),
            ("is no usable greyscale PNG", |path| {
                let black = image::GrayImage::new(MAX_EDGE + 1, 1);
                black.save_with_format(path, ImageFormat::Png).unwrap();
            }),
        ];
        for (expected, plant) in plants {
            let folder = tempfile::tempdir().unwrap();
            let models =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nuclei");
            for file in ["model.toml", "model.onnx"] {
                std::fs::copy(models.join(file), folder.path().join(file)).unwrap();
            }
            plant(&folder.path().join(FRAME_FILE));
            let package = ModelPackage::load(folder.path()).unwrap();
            let said = frame(&package, &Clock::system()).unwrap_err().to_string();
            assert!(said.contains(expected) && said.contains(FRAME_FILE), "{said}");
        }
    }

    #[test]
    fn other_labels_are_noticed() {
        let expected = LabelImage::new(4, 1, vec![1, 1, 0, 2]).unwrap();
        let found = LabelImage::new(4, 1, vec![1, 0, 0, 0]).unwrap();
        let report = Report::compare(&expected, &found, false);
        assert!(!report.identical && !report.is_good());
        assert!((report.foreground_iou - 1.0 / 3.0).abs() < 1e-9);
        assert!(Report::compare(&expected, &expected, true).is_good());
    }

    #[test]
    fn labels_of_another_size_do_not_agree() {
        let expected = LabelImage::new(4, 1, vec![1, 1, 0, 2]).unwrap();
        let found = LabelImage::new(2, 2, vec![1, 1, 0, 2]).unwrap();
        assert!(!Report::compare(&expected, &found, false).is_good());
        assert!(!Report::compare(&expected, &found, true).is_good());
    }

    #[test]
    fn one_object_in_a_hundred_may_be_another_where_tract_runs_and_no_more() {
        let strip = |objects: u32| {
            let labels = (0..400).map(|at| 1 + at * objects / 400);
            LabelImage::new(400, 1, labels.collect()).unwrap()
        };
        assert!(Report::compare(&strip(100), &strip(99), false).is_good());
        assert!(!Report::compare(&strip(100), &strip(98), false).is_good());
        assert!(!Report::compare(&strip(100), &strip(99), true).is_good());
    }
}

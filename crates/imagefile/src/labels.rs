//! Label images as files: PNG of 16 bits while the labels fit, else TIFF of 32 bits.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder, colortype};

use super::error::{ImageFileError, Problem};
use super::planes::Selection;
use super::{Format, Limits, Timer, guarded, open_file, png, sniff, tiff as tiff_file};
use reticle_base::durable;
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;

/// Reads a label image as people draw them: as [`read_labels`], and a mask is refused by that
/// word, because all its objects would count as one.
///
/// # Errors
/// As [`read_labels`], and where one label lies in pieces that do not touch.
pub fn read_drawn_labels(path: &Path) -> Result<LabelImage, ImageFileError> {
    let labels = read_labels(path)?;
    match labels.as_mask() {
        None => Ok(labels),
        Some(pieces) => {
            let why = format!(
                "is a binary mask and no label image: {pieces} pieces that do not touch bear one \
                 label; give each object a number of its own (Fiji: Analyze Particles… \
                 with Show: Count Masks; Python: skimage.measure.label)"
            );
            Err(ImageFileError::new(path, None, Problem::Unsupported(why)))
        }
    }
}

/// Reads a label image: greyscale PNG, or a TIFF of one page of 8, 16 or 32 bits.
///
/// Labels stay as they are, except where one is larger than the image has pixels: then they
/// are renumbered in reading order, because tables by label would be mostly holes.
///
/// # Errors
/// When the file cannot be read, is no such image, or has more than one channel.
pub fn read_labels(path: &Path) -> Result<LabelImage, ImageFileError> {
    let named = |problem| ImageFileError::new(path, None, problem);
    let limits = Limits::default();
    let timer = Timer::new(limits.max_read);
    let (mut file, bytes) = open_file(path, &timer).map_err(named)?;
    limits.check_bytes(bytes).map_err(named)?;
    guarded(&timer, || match sniff(&mut file)? {
        Format::Png => {
            let image = png::Image::open(file, limits).map_err(for_labels)?;
            if image.has_palette() {
                return Err(not_labels("is shown through a palette"));
            }
            let scale = image.scale();
            let page = image.read(&Selection::default()).map_err(for_labels)?;
            let labels = match page.pixels {
                Pixels::U8(values) => values.iter().map(|value| u32::from(value / scale)).collect(),
                Pixels::U16(values) => values.iter().copied().map(u32::from).collect(),
            };
            label_image(page.width, page.height, labels)
        }
        Format::Tiff => {
            let mut stack = tiff_file::Stack::open(file, bytes, limits, &Selection::default())
                .map_err(for_labels)?;
            if stack.len() > 1 {
                let pages = stack.len();
                return Err(Problem::Unsupported(format!(
                    "has {pages} pages, and a label image is one page; save each page as a file of \
                     its own, named as the image's (`a-page0000.tif`)"
                )));
            }
            let raw = stack.read_raw().map_err(for_labels)?;
            if raw.greys.is_some() {
                return Err(not_labels("is shown through a palette"));
            }
            let labels = match raw.values {
                tiff_file::Values::U8(values) => values.into_iter().map(u32::from).collect(),
                tiff_file::Values::U16(values) => values.into_iter().map(u32::from).collect(),
                tiff_file::Values::U32(values) => values,
            };
            label_image(raw.width, raw.height, labels)
        }
        Format::Jpeg => Err(not_labels("is a JPEG, which blurs labels")),
    })
    .map_err(named)
}

/// What to do with labels that are not read.
const SAVE_LABELS: &str = "save labels as 16-bit greyscale PNG or TIFF";

/// What is said of frames of a kind that is not read, made fit for labels: a program that makes 16
/// bits of floating-point numbers scales them, and labels are other labels then.
fn for_labels(problem: Problem) -> Problem {
    match problem {
        Problem::Unsupported(what) => Problem::Unsupported(format!(
            "{what}; labels are whole numbers: {SAVE_LABELS}, without scaling (Fiji: switch off \
             Edit > Options > Conversions > Scale; Python: labels.astype(\"uint16\"))"
        )),
        problem => problem,
    }
}

fn not_labels(what: &str) -> Problem {
    Problem::Unsupported(format!("{what}; {SAVE_LABELS}"))
}

fn label_image(width: u32, height: u32, labels: Vec<u32>) -> Result<LabelImage, Problem> {
    LabelImage::of_others(width, height, labels)
        .map_err(|error| Problem::Damaged(error.to_string()))
}

/// Writes a label image durably and says where: at `path`, as PNG of 16 bits for `.png` and as
/// TIFF (16 bits, or 32 where needed) for any other ending. More than 65,535 objects do not
/// fit a PNG: then a `.png` becomes a `.tif` beside it.
///
/// # Errors
/// When the file cannot be written; what was at `path` before stays.
pub fn write_labels(path: &Path, labels: &LabelImage) -> Result<PathBuf, ImageFileError> {
    let is_png = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    let as_png = if is_png { encode_labels_png(labels) } else { None };
    let path = if is_png && as_png.is_none() { path.with_extension("tif") } else { path.into() };
    let bytes = as_png.unwrap_or_else(|| encode_labels_tiff(labels));
    durable::write(&path, &bytes)
        .map_err(|error| ImageFileError::new(&path, None, Problem::Unwritable(error)))?;
    Ok(path)
}

/// As a greyscale PNG of 16 bits, or `None` where a label does not fit.
pub fn encode_labels_png(labels: &LabelImage) -> Option<Vec<u8>> {
    u16::try_from(labels.count()).ok()?;
    let values: Vec<u8> = labels
        .labels()
        .iter()
        // In range: `count` is the largest label.
        .flat_map(|&label| (label as u16).to_ne_bytes())
        .collect();
    let mut bytes = Vec::new();
    // Labels are flat: the filter that subtracts the row above leaves mostly zeros.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up)
        .write_image(&values, labels.width(), labels.height(), ExtendedColorType::L16)
        .expect("a label image has width × height labels, and memory takes every byte");
    Some(bytes)
}

/// As a greyscale TIFF, deflated: 16 bits where the labels fit, else 32.
pub fn encode_labels_tiff(labels: &LabelImage) -> Vec<u8> {
    let (width, height) = (labels.width(), labels.height());
    let mut bytes = Cursor::new(Vec::new());
    let written = TiffEncoder::new(&mut bytes).and_then(|encoder| {
        let mut encoder = encoder
            .with_compression(Compression::Deflate(DeflateLevel::Fast))
            .with_predictor(Predictor::Horizontal);
        if labels.count() <= u32::from(u16::MAX) {
            let values: Vec<u16> = labels.labels().iter().map(|&label| label as u16).collect();
            encoder.write_image::<colortype::Gray16>(width, height, &values)
        } else {
            encoder.write_image::<colortype::Gray32>(width, height, labels.labels())
        }
    });
    written.expect("a label image has width × height labels, and memory takes every byte");
    bytes.into_inner()
}

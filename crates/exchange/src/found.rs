//! A label image of others' making as it was found: drawn or still to be drawn, with what it says about
//! the frame that it belongs to. Each format makes it ([`super::coco`], [`super::geojson`]);
//! [`super::import`] lists the files and hands it out.

use std::path::{Path, PathBuf};

use super::canvas::Canvas;
use super::outline::{self, Polygon};
use super::{ReadError, ome_tiff, rle};
use reticle_base::ids::FrameId;
use reticle_domain::label_image::LabelImage;
use reticle_imagefile::MAX_PIXELS;

/// What a label image says about the frame that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clue {
    /// Its frame.
    pub frame: Option<FrameId>,
    /// Name of the image that was labelled, without folder and ending; see [`name_of_origin`].
    pub name: Option<String>,
    /// Place in its series.
    pub position: Option<u64>,
    /// Number of its series.
    pub series: Option<u32>,
}

/// One label image.
#[derive(Debug)]
pub struct Found {
    path: PathBuf,
    member: String,
    clue: Clue,
    shapes: Shapes,
}

/// Objects as they were written down.
#[derive(Debug)]
pub(super) enum Shapes {
    Labels(LabelImage),
    /// By label, to be drawn in their order once the frame is known.
    Drawn {
        size: Option<(u32, u32)>,
        objects: Vec<(u32, Shape)>,
    },
}

/// One object that is to be drawn.
#[derive(Debug)]
pub(super) enum Shape {
    /// Lengths of runs, as in [`rle`].
    Runs(Vec<u32>),
    Polygons(Vec<Polygon>),
}

impl Found {
    pub(super) fn new(path: &Path, member: &str, clue: Clue, shapes: Shapes) -> Self {
        Self { path: path.to_owned(), member: member.to_owned(), clue, shapes }
    }

    /// Which frame it belongs to, as far as it says.
    pub fn clue(&self) -> &Clue {
        &self.clue
    }

    /// Width and height, where it says them.
    pub fn size(&self) -> Option<(u32, u32)> {
        match &self.shapes {
            Shapes::Labels(labels) => Some((labels.width(), labels.height())),
            Shapes::Drawn { size, .. } => *size,
        }
    }

    /// Where it was found, for people.
    pub fn name(&self) -> String {
        let between = if self.member.is_empty() { "" } else { ": " };
        format!("{}{between}{}", self.path.display(), self.member)
    }

    /// The label image, for a frame of this width and height.
    ///
    /// # Errors
    /// When it is of another size, or its objects cannot be drawn on it.
    pub fn labels(self, frame: (u32, u32)) -> Result<LabelImage, ReadError> {
        let failed = |why: String| {
            let member = if self.member.is_empty() { "" } else { ": " };
            ReadError::new(&self.path, format!("{}{member}{why}", self.member))
        };
        if let Some((width, height)) = self.size().filter(|size| *size != frame) {
            return Err(failed(format!(
                "has {width}×{height} pixels, but its frame has {}×{}",
                frame.0, frame.1
            )));
        }
        match self.shapes {
            Shapes::Labels(labels) => Ok(labels),
            Shapes::Drawn { objects, .. } => {
                let mut canvas = Canvas::new(frame);
                for (number, (label, shape)) in (1..).zip(&objects) {
                    match shape {
                        Shape::Runs(counts) => rle::draw(counts, *label, &mut canvas),
                        Shape::Polygons(polygons) => outline::fill(polygons, *label, &mut canvas),
                    }
                    .map_err(|why| failed(format!("object {number}: {why}")))?;
                }
                canvas.finish().map_err(failed)
            }
        }
    }
}

impl Clue {
    /// From the name of a file: the id of a frame that is in it, and the name itself.
    pub(super) fn of_name(file: &str) -> Self {
        let stem = name_of_origin(file);
        let name = stem.strip_suffix(ome_tiff::LABELS).map_or(stem.clone(), str::to_owned);
        Self { frame: frame_in(file), name: Some(name), ..Self::default() }
    }

    /// From a file: its name, else what it says inside where it is an OME-TIFF.
    pub(super) fn of_file(path: &Path) -> Self {
        let clue = Self::of_name(&path.file_name().unwrap_or_default().to_string_lossy());
        let inside = || ome_tiff::description(path).and_then(|text| frame_in(&text));
        Self { frame: clue.frame.or_else(inside), ..clue }
    }
}

/// What remains of the name of a frame's file (`plate/t 1.ome.tif#2`) without its folder and
/// endings; the page stays, as `reticle segment` writes it (`t 1-page0002`).
pub fn name_of_origin(origin: &str) -> String {
    let (file, page) = match origin.rsplit_once('#') {
        Some((file, page)) if page.parse::<u32>().is_ok() => (file, page.parse::<u32>().ok()),
        _ => (origin, None),
    };
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stem = stem.strip_suffix(".ome").map_or(stem.clone(), str::to_owned);
    page.map_or(stem.clone(), |page| format!("{stem}-page{page:04}"))
}

/// The first id of a frame in a text.
fn frame_in(text: &str) -> Option<FrameId> {
    // As text: 8-4-4-4-12 hex digits.
    const LENGTH: usize = 36;
    text.as_bytes()
        .windows(LENGTH)
        .filter(|window| window[8] == b'-')
        .find_map(|window| std::str::from_utf8(window).ok()?.parse().ok())
}

/// Whether labels of this size are read at all: asked before memory is taken.
pub(super) fn check_size((width, height): (u32, u32)) -> Result<(), String> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("has {width}×{height} pixels; {MAX_PIXELS} are the most"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
    fn a_frame_is_known_by_what_is_inside_a_file_that_others_have_named() {
        let folder = tempfile::tempdir().unwrap();
        let frame = testing::frame(0);
        let path = folder.path().join("renamed.tif");
        let labels = ome_tiff::encode_labels(&frame, &LabelImage::empty(6, 4)).unwrap();
        std::fs::write(&path, labels).unwrap();
        assert_eq!(Clue::of_file(&path).frame, Some(frame.id));
    }

    #[test]
    fn a_frame_is_known_by_its_id_or_by_the_name_of_its_file() {
        let id = FrameId::new();
        assert_eq!(Clue::of_name(&format!("export-{id}_labels.ome.tif")).frame, Some(id));
        assert_eq!(Clue::of_name("t1_labels.ome.tif").name.as_deref(), Some("t1"));
        assert_eq!(Clue::of_name("t1.png").name.as_deref(), Some("t1"));
        assert_eq!(name_of_origin("plate/t1.TIF"), "t1");
        assert_eq!(name_of_origin("t1.ome.tif#12"), "t1-page0012");
        assert_eq!(name_of_origin("a#b.png"), "a#b");
        assert_eq!(Clue::of_name(&"-".repeat(80)).frame, None);
    }

    #[test]
    fn another_size_than_the_frame_s_is_refused() {
        let labels = LabelImage::empty(3, 2);
        let found = Found::new(Path::new("a.png"), "", Clue::default(), Shapes::Labels(labels));
        let error = found.labels((4, 2)).unwrap_err().to_string();
        assert_eq!(error, "a.png: has 3×2 pixels, but its frame has 4×2");
    }
}

//! Label images of others' making: found, read one by one, and told which frame they belong to.
//!
//! | kind | what is read |
//! |---|---|
//! | image | PNG and TIFF (also OME-TIFF) of 8, 16 or 32 bits, one label image each |
//! | OME-Zarr | Zarr 3 and 2, one label image for each position along time |
//! | COCO | masks as runs, packed or not, and polygons |
//! | GeoJSON | polygons with holes, one file a frame |
//!
//! What a label image says about its frame is a [`Clue`]; who knows the frames decides. One that
//! cannot be read is an error of its own, and the next one is read.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::canvas::Canvas;
use super::outline::{self, Polygon};
use super::zarr::{FILE_BYTES, LabelArray};
use super::{ReadError, coco, geojson, ome_tiff, rle};
use reticle_base::foreign_file;
use reticle_base::ids::FrameId;
use reticle_domain::label_image::LabelImage;
use reticle_imagefile::MAX_PIXELS;

/// How label images are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One label image as PNG or TIFF.
    Image,
    /// Zarr with or without the metadata of OME.
    OmeZarr,
    /// A COCO document.
    Coco,
    /// A GeoJSON document.
    GeoJson,
}

/// A file, or a folder that is a Zarr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

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

/// Lists what is at `paths`: files and Zarr folders as they are named, other folders by what is
/// directly in them, in natural order. Where a folder has images called `…_labels`, its other
/// images are passed over: they are what was labelled.
///
/// # Errors
/// When a path is not there, or a folder cannot be listed.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, ReadError> {
    let mut sources = Vec::new();
    for path in paths {
        let failed = |error: io::Error| ReadError::new(path, error);
        if !std::fs::metadata(path).map_err(failed)?.is_dir() || is_zarr(path) {
            sources.push(Source { path: path.clone(), kind: kind_of(path)? });
            continue;
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            entries.push(entry.map_err(failed)?.path());
        }
        entries.sort_by(|a, b| reticle_imagefile::natural_order(a, b));
        let is_labels = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name_of_origin(&name).ends_with(ome_tiff::LABELS)
        };
        let only_labels =
            entries.iter().any(|entry| reticle_imagefile::is_image_name(entry) && is_labels(entry));
        for entry in entries {
            let is_image = reticle_imagefile::is_image_name(&entry) && !entry.is_dir();
            let wanted = if is_image { !only_labels || is_labels(&entry) } else { is_json(&entry) };
            if wanted || is_zarr(&entry) {
                sources.push(Source { kind: kind_of(&entry)?, path: entry });
            }
        }
    }
    Ok(sources)
}

fn is_zarr(path: &Path) -> bool {
    path.is_dir() && (super::zarr::is_node(path) || has_ending(path, "zarr"))
}

fn is_json(path: &Path) -> bool {
    has_ending(path, "json") || has_ending(path, "geojson")
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

fn kind_of(path: &Path) -> Result<Kind, ReadError> {
    if is_zarr(path) {
        return Ok(Kind::OmeZarr);
    }
    if has_ending(path, "geojson") {
        return Ok(Kind::GeoJson);
    }
    if !is_json(path) {
        return Ok(Kind::Image);
    }
    // Both are JSON. A list is GeoJSON's (and QuPath's); so is what says that it is features.
    // Older COCO documents have a type, too: "instances".
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default, rename = "type")]
        kind: Option<String>,
    }
    let file = foreign_file::open(path, FILE_BYTES).map_err(|error| ReadError::new(path, error))?;
    let mut file = io::BufReader::new(file);
    let start = file.fill_buf().map_err(|error| ReadError::new(path, error))?;
    if start.trim_ascii_start().first() == Some(&b'[') {
        return Ok(Kind::GeoJson);
    }
    let head: Head = serde_json::from_reader(file).map_err(|error| ReadError::new(path, error))?;
    let is_geojson = matches!(head.kind.as_deref(), Some("FeatureCollection" | "Feature"));
    Ok(if is_geojson { Kind::GeoJson } else { Kind::Coco })
}

/// Reads every label image of a source, one after the other. A Zarr array may say that it has any
/// number of positions: no more are looked at than the `frames` that it can belong to.
pub fn read(source: &Source, frames: u64, each: &mut dyn FnMut(Result<Found, ReadError>)) {
    let path = &source.path;
    match source.kind {
        Kind::Image => each(read_image(path)),
        Kind::GeoJson => each(geojson::read(path)),
        Kind::Coco => coco::read(path, each),
        Kind::OmeZarr => match LabelArray::open(path) {
            Err(error) => each(Err(error)),
            Ok(array) => {
                let positions = array.positions();
                for position in 0..positions.end.min(frames) {
                    let found = array.labels(position).map(|labels| {
                        let member = format!("position {position}");
                        let clue = Clue {
                            position: Some(position),
                            series: array.series(),
                            ..Clue::default()
                        };
                        Some(Found::new(path, &member, clue, Shapes::Labels(labels?)))
                    });
                    if let Some(found) = found.transpose() {
                        each(found);
                    }
                }
                if positions.end > frames {
                    let why = format!(
                        "has {} positions, and the session has {frames} frames; the others are \
                         passed over",
                        positions.end
                    );
                    each(Err(ReadError::new(path, why)));
                }
            }
        },
    }
}

fn read_image(path: &Path) -> Result<Found, ReadError> {
    let labels = reticle_imagefile::read_drawn_labels(path).map_err(|error| {
        // Its text begins with the path, as ours does.
        ReadError::new(path, error.problem())
    })?;
    Ok(Found::new(path, "", Clue::of_file(path), Shapes::Labels(labels)))
}

/// SHA-256 over everything in the sources: for each file its path (of a Zarr's files within it)
/// and its bytes, each followed by its length, so that no two different sets give the same.
///
/// # Errors
/// When a file cannot be read.
pub fn digest(sources: &[Source]) -> Result<[u8; 32], ReadError> {
    let mut hash = Sha256::new();
    for source in sources {
        let name = source.path.file_name().unwrap_or_default();
        let mut files = vec![(PathBuf::from(name), source.path.clone())];
        while let Some((name, path)) = files.pop() {
            if is_folder(&path, path == source.path)? {
                let entries = std::fs::read_dir(&path).and_then(Iterator::collect);
                let entries: Vec<std::fs::DirEntry> =
                    entries.map_err(|error| ReadError::new(&path, error))?;
                let at = files.len();
                files.extend(
                    entries.into_iter().map(|entry| (name.join(entry.file_name()), entry.path())),
                );
                files[at..].sort();
            } else {
                let mut hash_file = || -> io::Result<u64> {
                    let mut file = foreign_file::open(&path, FILE_BYTES)?;
                    let mut piece = vec![0; 64 * 1024];
                    let mut bytes = 0;
                    loop {
                        let read = file.read(&mut piece)?;
                        if read == 0 {
                            return Ok(bytes);
                        }
                        hash.update(&piece[..read]);
                        bytes += read as u64;
                    }
                };
                let bytes = hash_file().map_err(|error| ReadError::new(&path, error))?;
                let name = name.as_os_str().as_encoded_bytes();
                hash.update(bytes.to_le_bytes());
                hash.update(name);
                hash.update((name.len() as u64).to_le_bytes());
            }
        }
    }
    Ok(hash.finalize().into())
}

/// Whether it is a folder. Below what was named, a link to one is refused: it may lead back up.
fn is_folder(path: &Path, was_named: bool) -> Result<bool, ReadError> {
    let failed = |error: io::Error| ReadError::new(path, error);
    let is_link = std::fs::symlink_metadata(path).map_err(failed)?.is_symlink();
    let is_folder = std::fs::metadata(path).map_err(failed)?.is_dir();
    if is_link && is_folder && !was_named {
        return Err(ReadError::new(path, "is a link to a folder; put the folder itself there"));
    }
    Ok(is_folder)
}

/// Whether labels of this size are read at all: asked before memory is taken.
pub(super) fn check_size((width, height): (u32, u32)) -> Result<(), String> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("has {width}×{height} pixels; {MAX_PIXELS} are the most"));
    }
    Ok(())
}

/// Labels as they are, except where one is larger than the image has pixels: then they are
/// numbered anew in reading order, because tables by label would be mostly holes.
pub(super) fn label_image(
    width: u32,
    height: u32,
    mut labels: Vec<u32>,
) -> Result<LabelImage, String> {
    if labels.iter().any(|&label| label as usize > labels.len()) {
        let mut numbers = HashMap::new();
        for label in labels.iter_mut().filter(|label| **label != 0) {
            let next = u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX);
            *label = *numbers.entry(*label).or_insert(next);
        }
    }
    LabelImage::new(width, height, labels).map_err(|error| error.to_string())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use std::fs;

    use super::*;

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
    fn a_folder_gives_its_label_images_and_not_what_was_labelled() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("t10_labels.ome.tif"), b"").unwrap();
        fs::write(at("t2_labels.ome.tif"), b"").unwrap();
        fs::write(at("t2.ome.tif"), b"").unwrap();
        fs::write(at("notes.txt"), b"").unwrap();
        fs::write(at("coco.json"), b"{\"type\": \"instances\"}").unwrap();
        fs::write(at("qupath.json"), b"[]").unwrap();
        fs::write(at("t2.geojson"), b"").unwrap();
        fs::create_dir(at("series-0.ome.zarr")).unwrap();
        let found: Vec<(String, Kind)> = sources(&[folder.path().to_owned()])
            .unwrap()
            .into_iter()
            .map(|source| {
                (source.path.file_name().unwrap().to_string_lossy().into_owned(), source.kind)
            })
            .collect();
        let expected = [
            ("coco.json", Kind::Coco),
            ("qupath.json", Kind::GeoJson),
            ("series-0.ome.zarr", Kind::OmeZarr),
            ("t2.geojson", Kind::GeoJson),
            ("t2_labels.ome.tif", Kind::Image),
            ("t10_labels.ome.tif", Kind::Image),
        ];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
        fs::remove_file(at("t2_labels.ome.tif")).unwrap();
        fs::remove_file(at("t10_labels.ome.tif")).unwrap();
        let images = sources(&[folder.path().to_owned()]).unwrap();
        assert!(images.iter().any(|source| source.path == at("t2.ome.tif")));
    }

    #[test]
    fn what_was_imported_is_known_again_by_its_bytes_and_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), b"1").unwrap();
        fs::write(at("b"), b"2").unwrap();
        fs::create_dir_all(at("c.zarr/0")).unwrap();
        fs::write(at("c.zarr/0/x"), b"3").unwrap();
        let source = |name: &str, kind| Source { path: at(name), kind };
        let all =
            [source("a", Kind::Image), source("b", Kind::Image), source("c.zarr", Kind::OmeZarr)];
        let before = digest(&all).unwrap();
        assert_eq!(digest(&all).unwrap(), before);
        assert_ne!(digest(&all[..2]).unwrap(), before);
        fs::write(at("c.zarr/0/x"), b"4").unwrap();
        assert_ne!(digest(&all).unwrap(), before);
    }

    #[test]
    fn another_size_than_the_frame_s_is_refused() {
        let labels = LabelImage::empty(3, 2);
        let found = Found::new(Path::new("a.png"), "", Clue::default(), Shapes::Labels(labels));
        let error = found.labels((4, 2)).unwrap_err().to_string();
        assert_eq!(error, "a.png: has 3×2 pixels, but its frame has 4×2");
    }

    #[test]
    fn labels_far_above_the_number_of_pixels_are_numbered_anew() {
        let image = label_image(3, 1, vec![0, 4_000_000_000, 7]).unwrap();
        assert_eq!(image.labels(), [0, 1, 2]);
        let image = label_image(3, 1, vec![0, 3, 3]).unwrap();
        assert_eq!(image.labels(), [0, 3, 3]);
    }
}

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

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::found::Shapes;
pub use super::found::{Clue, Found, name_of_origin};
use super::zarr::{FILE_BYTES, LabelArray};
use super::{ReadError, coco, geojson, ome_tiff};
use reticle_base::foreign_file;

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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use std::fs;

    use super::*;

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
}

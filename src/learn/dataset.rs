//! Reads a folder of images and a folder of label images, paired by file name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reticle_segment::normalise::Normalisation;
use sha2::{Digest, Sha256};

/// One image with its labels, in memory for training.
pub struct Pair {
    /// File name without its ending.
    pub name: String,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Normalised intensities, row-major.
    pub image: Vec<f32>,
    /// Labels, row-major.
    pub labels: Vec<u32>,
    /// Median diameter of its objects, of circles of equal area; `None` without objects.
    pub median_diameter: Option<f32>,
    /// Pixels of each object, by label.
    areas: Vec<u32>,
    /// The intensities at 1/2, 1/4, … of the resolution, each pixel the mean of four.
    smaller: Vec<Smaller>,
}

/// Intensities of an image at `2^-octave` of its resolution.
struct Smaller {
    width: usize,
    image: Vec<f32>,
}

/// Intensities of an image at one of its resolutions.
#[derive(Clone, Copy)]
pub struct Level<'a> {
    width: usize,
    image: &'a [f32],
    /// Pixels of the image to one of these.
    shrink: f32,
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataSetError {
    /// The folder is not laid out as it must be.
    #[error(
        "{folder} has no folder `{missing}`; a data set is images/ and labels/ with the same file names"
    )]
    Layout {
        /// Folder that was given.
        folder: PathBuf,
        /// What is not in it.
        missing: &'static str,
    },
    /// There is nothing in it.
    #[error("{0} has no image that has labels of the same name")]
    Empty(PathBuf),
    /// An image without labels.
    #[error("{0} has no label image of the same name in labels/; add one or remove the image")]
    Unlabelled(PathBuf),
    /// Two files of one name, of which only one would count.
    #[error("{first} and {second} have the same name; remove one")]
    Twice {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// An image of several pages, of which only one would count.
    #[error(
        "{image} has {pages} pages, and a model is trained on single images; save each page as a \
         file of its own, with labels of the same name"
    )]
    Stack {
        /// Which.
        image: PathBuf,
        /// How many.
        pages: usize,
    },
    /// Image and labels do not fit together.
    #[error("{image} is {image_size:?} pixels but its labels are {label_size:?}")]
    Mismatch {
        /// The image.
        image: PathBuf,
        /// Its width and height.
        image_size: (u32, u32),
        /// Width and height of the labels.
        label_size: (u32, u32),
    },
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] reticle_imagefile::ImageFileError),
    /// A folder cannot be read.
    #[error("cannot list {folder}")]
    List {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Pair {
    /// Takes normalised intensities and labels, `width × height` of each.
    pub fn new(
        name: String,
        width: usize,
        height: usize,
        image: Vec<f32>,
        labels: Vec<u32>,
    ) -> Self {
        let areas = areas(&labels);
        let median_diameter = median_diameter(&areas);
        let mut smaller: Vec<Smaller> = Vec::new();
        let mut size = (width, height);
        while size.0.min(size.1) >= 16 && smaller.len() < 5 {
            let previous = smaller.last().map_or(&image, |level| &level.image);
            let halved = halved(previous, size.0);
            size = (size.0 / 2, size.1 / 2);
            smaller.push(Smaller { width: size.0, image: halved });
        }
        Self { name, width, height, image, labels, median_diameter, areas, smaller }
    }

    /// Diameter of a circle with the area of the whole object.
    pub fn diameter_of(&self, label: u32) -> f32 {
        diameter(self.areas[label as usize])
    }

    /// The resolution for views that have one pixel for about `shrink` of the image's.
    pub fn level(&self, shrink: f32) -> Level<'_> {
        let octave = (shrink.log2().round().max(0.0) as usize).min(self.smaller.len());
        match octave.checked_sub(1).map(|at| &self.smaller[at]) {
            None => Level { width: self.width, image: &self.image, shrink: 1.0 },
            Some(Smaller { width, image }) => {
                Level { width: *width, image, shrink: (1_usize << octave) as f32 }
            }
        }
    }

    /// Label at the pixel nearest to `(x, y)`, both within the image.
    pub fn label_at(&self, x: f32, y: f32) -> u32 {
        let column = ((x + 0.5) as usize).min(self.width - 1);
        let row = ((y + 0.5) as usize).min(self.height - 1);
        self.labels[row * self.width + column]
    }
}

impl Level<'_> {
    /// Intensity at `(x, y)` of the whole image, bilinear between pixels.
    pub fn intensity_at(&self, x: f32, y: f32) -> f32 {
        // Pixel 0 of a level lies in the middle of the pixels it was made of.
        let place = |position: f32| ((position + 0.5) / self.shrink - 0.5).max(0.0);
        let (x, y) = (place(x), place(y));
        let height = self.image.len() / self.width;
        let left = (x as usize).min(self.width - 1);
        let top = (y as usize).min(height - 1);
        let right = (left + 1).min(self.width - 1);
        let bottom = (top + 1).min(height - 1);
        let (fx, fy) = (x - left as f32, y - top as f32);
        let row = |row: usize| {
            let row = &self.image[row * self.width..(row + 1) * self.width];
            row[left] * (1.0 - fx) + row[right] * fx
        };
        row(top) * (1.0 - fy) + row(bottom) * fy
    }
}

/// Half the resolution, by the mean of 2×2 pixels; an odd last row or column is left out.
fn halved(image: &[f32], width: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = image.chunks_exact(width).collect();
    rows.as_chunks::<2>()
        .0
        .iter()
        .flat_map(|[above, below]| above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0))
        .map(|(above, below)| (above[0] + above[1] + below[0] + below[1]) / 4.0)
        .collect()
}

fn areas(labels: &[u32]) -> Vec<u32> {
    let count = labels.iter().copied().max().unwrap_or(0) as usize;
    let mut areas = vec![0_u32; count + 1];
    for &label in labels {
        areas[label as usize] += 1;
    }
    areas
}

fn diameter(area: u32) -> f32 {
    2.0 * (area as f32 / std::f32::consts::PI).sqrt()
}

fn median_diameter(areas: &[u32]) -> Option<f32> {
    let mut areas: Vec<u32> = areas.iter().copied().skip(1).filter(|&area| area > 0).collect();
    if areas.is_empty() {
        return None;
    }
    let middle = areas.len() / 2;
    let (_, &mut median, _) = areas.select_nth_unstable(middle);
    Some(diameter(median))
}

/// Paths of images and their labels under `folder/images` and `folder/labels`, by file name.
///
/// # Errors
/// When a folder is missing or empty, or an image has no labels.
pub fn paired_paths(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, DataSetError> {
    let labels = by_stem(folder, "labels")?;
    let mut pairs = Vec::new();
    for (stem, image) in by_stem(folder, "images")? {
        let label = labels.get(&stem).ok_or_else(|| DataSetError::Unlabelled(image.clone()))?;
        pairs.push((image, label.clone()));
    }
    if pairs.is_empty() {
        return Err(DataSetError::Empty(folder.to_owned()));
    }
    Ok(pairs)
}

/// Reads every pair under `folder`, each image normalised over its whole frame.
///
/// # Errors
/// On the first image or folder that cannot be used; training on part of the data by
/// accident would be worse than not training.
pub fn read(folder: &Path, normalisation: &Normalisation) -> Result<Vec<Pair>, DataSetError> {
    paired_paths(folder)?
        .into_iter()
        .map(|(image_path, label_path)| {
            let page = read_image(&image_path)?;
            let labels = reticle_imagefile::read_drawn_labels(&label_path)?;
            if (page.width, page.height) != (labels.width(), labels.height()) {
                return Err(DataSetError::Mismatch {
                    image: image_path,
                    image_size: (page.width, page.height),
                    label_size: (labels.width(), labels.height()),
                });
            }
            let span = normalisation.span(&page.pixels, page.width as usize);
            let image = (0..page.pixels.len()).map(|at| span.apply(page.pixels.get(at))).collect();
            let name = stem_of(&image_path);
            Ok(Pair::new(
                name,
                page.width as usize,
                page.height as usize,
                image,
                labels.relabelled().labels().to_vec(),
            ))
        })
        .collect()
}

/// Reads an image of one page.
///
/// # Errors
/// When it cannot be read, or has several pages: which of them is meant nobody said.
pub fn read_image(path: &Path) -> Result<reticle_imagefile::Page, DataSetError> {
    let mut pages = reticle_imagefile::open(path, reticle_imagefile::Limits::default())?;
    if pages.total() > 1 {
        return Err(DataSetError::Stack { image: path.to_owned(), pages: pages.total() });
    }
    Ok(pages.next().ok_or_else(|| DataSetError::Empty(path.to_owned()))??)
}

/// Label images without an image of their name, which are not trained on.
///
/// # Errors
/// As [`paired_paths`].
pub fn labels_alone(folder: &Path) -> Result<Vec<PathBuf>, DataSetError> {
    let images = by_stem(folder, "images")?;
    let labels = by_stem(folder, "labels")?;
    Ok(labels
        .into_iter()
        .filter(|(name, _)| !images.contains_key(name))
        .map(|(_, path)| path)
        .collect())
}

/// SHA-256 over names, sizes, normalised pixels and labels of all pairs, in hex: which data
/// a model was trained on.
pub fn sha256(pairs: &[Pair]) -> String {
    let mut hash = Sha256::new();
    for pair in pairs {
        hash.update(pair.name.as_bytes());
        hash.update([0]);
        hash.update((pair.width as u64).to_le_bytes());
        for (value, label) in pair.image.iter().zip(&pair.labels) {
            hash.update(value.to_le_bytes());
            hash.update(label.to_le_bytes());
        }
    }
    hex::encode(hash.finalize())
}

fn by_stem(folder: &Path, part: &'static str) -> Result<BTreeMap<String, PathBuf>, DataSetError> {
    let inner = folder.join(part);
    if !inner.is_dir() {
        return Err(DataSetError::Layout { folder: folder.to_owned(), missing: part });
    }
    let list_failed = |source| DataSetError::List { folder: inner.clone(), source };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&inner).map_err(list_failed)? {
        let path = entry.map_err(list_failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if path.is_file()
            && !hidden
            && let Some(first) = found.insert(stem_of(&path), path.clone())
        {
            return Err(DataSetError::Twice { first, second: path });
        }
    }
    Ok(found)
}

fn stem_of(path: &Path) -> String {
    reticle_imagefile::label_stem(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_diameter_is_that_of_circles_of_equal_area() {
        let labels: Vec<u32> = [(1, 100), (2, 314), (3, 2000)]
            .iter()
            .flat_map(|&(label, area)| std::iter::repeat_n(label, area))
            .collect();
        let diameter = median_diameter(&areas(&labels)).unwrap();
        assert!((diameter - 20.0).abs() < 0.1, "{diameter}");
        assert_eq!(median_diameter(&areas(&[0, 0])), None);
    }

    #[test]
    fn a_shrunken_view_sees_means_at_the_same_places() {
        // A ramp keeps its values at every resolution; single bright pixels are averaged away.
        let ramp: Vec<f32> = (0..64 * 32).map(|at| (at % 64) as f32).collect();
        let pair = Pair::new("ramp".into(), 64, 32, ramp, vec![0; 64 * 32]);
        for shrink in [0.5, 1.0, 2.0, 2.3] {
            let value = pair.level(shrink).intensity_at(21.5, 10.0);
            assert!((value - 21.5).abs() < 1e-4, "{shrink}: {value}");
        }
        let dots: Vec<f32> =
            (0..64 * 32).map(|at| f32::from(u8::from(at % 2 == 0 && at / 64 % 2 == 0))).collect();
        let pair = Pair::new("dots".into(), 64, 32, dots, vec![0; 64 * 32]);
        assert_eq!(pair.level(2.0).intensity_at(20.0, 10.0), 0.25);
    }

    #[test]
    fn two_files_of_one_name_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["images/a.png", "images/a.tif", "labels/a.png"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap();
        }
        let error = paired_paths(folder.path()).unwrap_err().to_string();
        assert!(error.contains("images/a.") && error.contains("have the same name"), "{error}");
    }

    #[test]
    fn label_images_without_an_image_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["images/a.png", "labels/a.png", "labels/b.png"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap();
        }
        assert_eq!(labels_alone(folder.path()).unwrap(), [folder.path().join("labels/b.png")]);
    }

    #[test]
    fn a_folder_without_labels_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        let error = paired_paths(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no folder `labels`"), "{error}");
    }
}

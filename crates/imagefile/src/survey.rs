//! What is at the paths that a person names: images, and what is left out, so that it can be said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{ImageFileError, Problem};
use super::{is_image_name, natural_order};

/// Names of left-out files and folders that are said, of each kind.
const NAMED: usize = 3;

/// Files of a folder whose first bytes are looked at because their names say nothing.
const SNIFFED: usize = 1_000;

/// Endings of microscopes' own files, what they are, and what to do. In the order in which they
/// are said.
const FORMATS: &[(&[&str], &str, &str)] = &[
    (&["czi"], "Zeiss CZI", "export each channel as OME-TIFF in ZEN"),
    (&["nd2"], "Nikon ND2", "export each channel as TIFF in NIS-Elements"),
    (&["lif", "lof", "xlef"], "Leica LIF", "export each channel as TIFF in LAS X"),
    (&["oib", "oif", "oir", "poir", "vsi", "ets"], "Olympus", FIJI),
    (&["zvi"], "Zeiss ZVI", FIJI),
    (&["ims"], "Imaris", FIJI),
    (&["dv", "r3d"], "DeltaVision", FIJI),
    (&["mrc", "dm3", "dm4", "ser"], "electron microscope", FIJI),
    (&["sld", "sldy"], "SlideBook", FIJI),
    (&["mvd2", "acff"], "Volocity", FIJI),
    (&["nrrd", "nhdr", "ics", "ids", "nii", "fits"], "scientific image", FIJI),
    (&["svs", "ndpi", "scn", "mrxs", "bif"], "slide scanner", "export the region as TIFF"),
    (&["dcm", "dicom"], "DICOM", FIJI),
    (&["h5", "hdf5", "n5", "npy", "npz", "mat"], "array", "write it with tifffile.imwrite"),
    (
        &["jp2", "j2k", "jpx", "jxl", "jxr", "webp", "heic", "avif", "bmp", "gif", "dng"],
        "picture",
        GREY,
    ),
    (&["avi", "mp4", "mov", "mkv", "wmv"], "video", "save single frames as TIFF or PNG"),
    (&["zip", "tar", "gz", "7z", "rar"], "archive", "unpack it, and give the images in it"),
];

/// With Bio-Formats, which reads them all.
const FIJI: &str = "open it in Fiji (File > Import > Bio-Formats) and save each channel as TIFF";
const GREY: &str = "save it as greyscale TIFF or PNG";

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Images, as [`super::list_images`] lists them.
    pub images: Vec<PathBuf>,
    /// Paths that are not there, or cannot be read.
    pub failed: Vec<ImageFileError>,
    /// What is in the folders and not among the images, a sentence for each kind, with what to do.
    pub left_out: Vec<String>,
}

/// Looks at all paths; one that is not there, or cannot be read, does not hide the others.
/// `except` is a folder that is no input, though it may lie in one: where results go.
pub fn survey(paths: &[PathBuf], except: Option<&Path>) -> Survey {
    let mut found = Survey::default();
    let except = except.and_then(|folder| folder.canonicalize().ok());
    for path in paths {
        let failed = |error| ImageFileError::new(path, None, Problem::Unreadable(error));
        match fs::metadata(path) {
            Err(error) => found.failed.push(failed(error)),
            Ok(meta) if !meta.is_dir() => found.images.push(path.clone()),
            Ok(_) => match folder(path, except.as_deref(), &mut found) {
                Ok(()) => {}
                Err(error) => found.failed.push(failed(error)),
            },
        }
    }
    found
}

/// One folder: its images in their order, and what else is in it.
fn folder(path: &Path, except: Option<&Path>, found: &mut Survey) -> std::io::Result<()> {
    let zarr = "is an OME-Zarr or Zarr folder, which `reticle segment` does not read; save its \
                frames as TIFF";
    if is_zarr(path) {
        found.left_out.push(format!("{} {zarr}", path.display()));
        return Ok(());
    }
    let (mut images, mut folders, mut zarrs, mut unnamed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut kinds: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        let is_hidden =
            entry.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if entry.is_dir() {
            let is_excepted = except.is_some_and(|out| {
                let labels = out.join("labels");
                entry.canonicalize().is_ok_and(|entry| out.starts_with(&entry) || entry == labels)
            });
            match is_zarr(&entry) {
                true => zarrs.push(entry),
                false if !is_excepted => folders.push(entry),
                false => {}
            }
        } else if is_image_name(&entry) {
            images.push(entry);
        } else if let Some(kind) = format_of(&entry) {
            kinds.entry(kind).or_default().push(entry);
        } else {
            unnamed.push(entry);
        }
    }
    images.sort_by(|a, b| natural_order(a, b));
    found.images.append(&mut images);
    let shown = path.display();
    for (kind, mut files) in kinds {
        let (_, what, remedy) = FORMATS[kind];
        let (count, names) = named(&mut files);
        found.left_out.push(format!(
            "{shown}: {count} {what} {files} left out ({names}): {remedy}",
            files = plural(count, "file is", "files are"),
        ));
    }
    if !zarrs.is_empty() {
        let (count, names) = named(&mut zarrs);
        found.left_out.push(format!(
            "{shown}: {count} Zarr {folders} left out ({names}): save the frames as TIFF",
            folders = plural(count, "folder is", "folders are"),
        ));
    }
    unnamed.truncate(SNIFFED);
    unnamed.retain(|file| super::is_image(file));
    if !unnamed.is_empty() {
        let (count, names) = named(&mut unnamed);
        found.left_out.push(format!(
            "{shown}: {count} {files} by what {is} in it, and not by its name, left out ({names}): \
             rename it .tif, .png or .jpg, or name the file itself",
            files = plural(count, "file is an image", "files are images"),
            is = "is",
        ));
    }
    if !folders.is_empty() {
        let (count, names) = named(&mut folders);
        found.left_out.push(format!(
            "{shown}: {count} {folders} not looked into ({names}): name the folders themselves, as \
             {shown}/*",
            folders = plural(count, "sub-folder is", "sub-folders are"),
        ));
    }
    Ok(())
}

fn plural<'a>(count: usize, one: &'a str, several: &'a str) -> &'a str {
    if count == 1 { one } else { several }
}

/// How many, and the names of the first.
fn named(files: &mut [PathBuf]) -> (usize, String) {
    files.sort_by(|a, b| natural_order(a, b));
    let mut names: Vec<String> =
        files.iter().take(NAMED).map(|file| super::shown_name(file)).collect();
    if files.len() > NAMED {
        names.push("…".to_owned());
    }
    (files.len(), names.join(", "))
}

fn format_of(path: &Path) -> Option<usize> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    FORMATS.iter().position(|(endings, ..)| endings.contains(&ending.as_str()))
}

fn is_zarr(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let has = |file: &str| folder.join(file).is_file();
    name.ends_with(".zarr") || has("zarr.json") || has(".zgroup") || has(".zarray")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use super::*;

    fn lay(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if !file.ends_with('/') {
                fs::write(path, b"II*\0\x08\0\0\0").unwrap();
            }
        }
        folder
    }

    fn left_out(files: &[&str]) -> Vec<String> {
        let folder = lay(files);
        let shown = folder.path().display().to_string();
        let found = survey(&[folder.path().to_owned()], None);
        found.left_out.iter().map(|said| said.replace(&shown, "in")).collect()
    }

    #[test]
    fn a_microscope_s_own_files_are_named_with_what_to_do() {
        assert_eq!(
            left_out(&["b.czi", "a.CZI", "c.tif", "x.nd2", "1.lif", "2.lif", "3.lif", "4.lif"]),
            [
                "in: 2 Zeiss CZI files are left out (a.CZI, b.czi): export each channel as OME-TIFF \
                 in ZEN",
                "in: 1 Nikon ND2 file is left out (x.nd2): export each channel as TIFF in \
                 NIS-Elements",
                "in: 4 Leica LIF files are left out (1.lif, 2.lif, 3.lif, …): export each channel \
                 as TIFF in LAS X",
            ]
        );
    }

    #[test]
    fn folders_and_zarrs_in_a_folder_are_named() {
        let said = left_out(&["day1/a.tif", "day2/a.tif", "p.ome.zarr/zarr.json", "q/.zgroup"]);
        assert_eq!(
            said,
            [
                "in: 2 Zarr folders are left out (p.ome.zarr, q): save the frames as TIFF",
                "in: 2 sub-folders are not looked into (day1, day2): name the folders themselves, \
                 as in/*",
            ]
        );
    }

    #[test]
    fn images_by_content_only_are_named_and_companions_are_not() {
        let folder = lay(&["a.tif", "b.lsm", "c", "d.stk"]);
        for name in ["notes.txt", "Thumbs.db", ".DS_Store", "a.xml"] {
            fs::write(folder.path().join(name), b"words").unwrap();
        }
        let found = survey(&[folder.path().to_owned()], None);
        assert_eq!(found.images.len(), 1);
        assert_eq!(found.left_out.len(), 1, "{found:?}");
        assert!(found.left_out[0].contains("3 files are images"), "{found:?}");
        assert!(found.left_out[0].contains("(b.lsm, c, d.stk)"), "{found:?}");
    }

    #[test]
    fn a_path_that_is_missing_does_not_hide_the_others() {
        let folder = lay(&["a.tif", "b.tif"]);
        let at = |name: &str| folder.path().join(name);
        let found = survey(&[at("a.tif"), at("gone"), at("b.tif"), at("a.tif/x")], None);
        assert_eq!(found.images, [at("a.tif"), at("b.tif")]);
        assert_eq!(found.failed.len(), 2);
        assert!(found.failed[0].to_string().contains("gone cannot be read"), "{found:?}");
    }

    #[test]
    fn where_results_go_is_no_folder_that_is_left_out() {
        let folder = lay(&["a.tif", "results/day1/labels/a.png", "other/a.txt"]);
        let out = folder.path().join("results/day1");
        let found = survey(&[folder.path().to_owned()], Some(&out));
        assert_eq!(found.left_out.len(), 1, "{found:?}");
        assert!(found.left_out[0].contains("(other)"), "{found:?}");
    }
}

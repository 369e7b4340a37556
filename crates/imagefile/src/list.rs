//! Which files are images, by name, and in which order people expect them.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{ImageFileError, Problem};
use reticle_base::plain_text;

/// Whether a file of this name is taken for an image: `.png`, `.tif`, `.tiff`, `.jpg` or
/// `.jpeg` in any case, not hidden.
pub fn is_image_name(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().first() == Some(&b'.'));
    let known = path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| {
        ["png", "tif", "tiff", "jpg", "jpeg"].iter().any(|known| ending.eq_ignore_ascii_case(known))
    });
    known && !hidden
}

/// Files as they are given, folders as the images directly in them, in natural order.
///
/// A file that is named outright is listed whatever it is called; [`super::open`] judges it.
///
/// # Errors
/// When a path is not there, or a folder cannot be listed.
pub fn list_images(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ImageFileError> {
    let mut images = Vec::new();
    for path in paths {
        let unreadable = |error| ImageFileError::new(path, None, Problem::Unreadable(error));
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            images.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?.path();
            if is_image_name(&entry) && !entry.is_dir() {
                found.push(entry);
            }
        }
        found.sort_by(|a, b| natural_order(a, b));
        images.append(&mut found);
    }
    Ok(images)
}

/// Bytes of a [`label_stem`] at most: with `-page0000.png` and the ending of a file in the making
/// it still fits the 255 bytes that a name may have.
const STEM_BYTES: usize = 238;

/// Name of an image's label image, without page and ending: the image's own name without its
/// ending, so that the two are paired.
///
/// What cannot be in a name that people read (control characters, bytes that are no UTF-8) is
/// written as `%` and two hex digits a byte; a name that is too long is cut, and ends in a part of
/// the hash of the whole one. Two names give one only where somebody wrote the `%` by hand.
pub fn label_stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    let name = shown(stem);
    if name.len() <= STEM_BYTES {
        return name;
    }
    let hash = hex::encode(Sha256::digest(stem.as_encoded_bytes()));
    let ending: String = std::iter::once('-').chain(hash.chars().take(12)).collect();
    let keep = name.floor_char_boundary(STEM_BYTES - ending.len());
    format!("{}{ending}", name.get(..keep).unwrap_or_default())
}

/// Name of a file as people read it and tables have it, the same as [`label_stem`] does it.
pub fn shown_name(path: &Path) -> String {
    shown(path.file_name().unwrap_or_default())
}

fn shown(name: &OsStr) -> String {
    let mut shown = String::with_capacity(name.len());
    let escape = |shown: &mut String, bytes: &[u8]| {
        for byte in bytes {
            shown.push('%');
            shown.push_str(&hex::encode_upper([*byte]));
        }
    };
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if plain_text::is_active(c) {
                escape(&mut shown, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                shown.push(c);
            }
        }
        escape(&mut shown, chunk.invalid());
    }
    shown
}

/// Order by name in which `t2` comes before `t10`. Total: equal only for equal paths.
pub fn natural_order(a: &Path, b: &Path) -> Ordering {
    let (bytes_a, bytes_b) = (a.as_os_str().as_encoded_bytes(), b.as_os_str().as_encoded_bytes());
    let (mut at_a, mut at_b) = (0, 0);
    while at_a < bytes_a.len() && at_b < bytes_b.len() {
        let number_a = digits(bytes_a, at_a);
        let number_b = digits(bytes_b, at_b);
        let order = if number_a.is_empty() || number_b.is_empty() {
            let order = bytes_a[at_a].cmp(&bytes_b[at_b]);
            (at_a, at_b) = (at_a + 1, at_b + 1);
            order
        } else {
            (at_a, at_b) = (at_a + number_a.len(), at_b + number_b.len());
            let (value_a, value_b) = (without_zeros(number_a), without_zeros(number_b));
            value_a.len().cmp(&value_b.len()).then_with(|| value_a.cmp(value_b))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    let left = (bytes_a.len() - at_a).cmp(&(bytes_b.len() - at_b));
    left.then_with(|| bytes_a.cmp(bytes_b))
}

/// The run of digits that begins at `at`.
fn digits(bytes: &[u8], at: usize) -> &[u8] {
    let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    &bytes[at..at + length]
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&digit| digit == b'0').count();
    &number[zeros..]
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_compared_as_numbers() {
        let mut names = ["t10.png", "t2.png", "t02.png", "A1.tif", "t1a.png", "t1.png", "t.png"];
        names.sort_by(|a, b| natural_order(Path::new(a), Path::new(b)));
        assert_eq!(names, ["A1.tif", "t.png", "t1.png", "t1a.png", "t02.png", "t2.png", "t10.png"]);
    }

    #[test]
    fn only_visible_images_of_a_folder_are_listed_and_named_files_always() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["b10.png", "b9.TIF", ".hidden.png", "notes.txt", "c.jpeg", "d.tif.tmp"] {
            fs::write(at(name), b"").unwrap();
        }
        fs::create_dir(at("e.png")).unwrap();
        let listed = list_images(&[folder.path().to_owned(), at("notes.txt")]).unwrap();
        assert_eq!(listed, [at("b9.TIF"), at("b10.png"), at("c.jpeg"), at("notes.txt")]);
        let error = list_images(&[at("gone")]).unwrap_err().to_string();
        assert!(error.contains("gone cannot be read"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_total(a in "[a0-2]{0,6}", b in "[a0-2]{0,6}", c in "[a0-2]{0,6}") {
            let order = |x: &str, y: &str| natural_order(Path::new(x), Path::new(y));
            assert_eq!(order(&a, &b), order(&b, &a).reverse());
            assert_eq!(order(&a, &b) == Ordering::Equal, a == b);
            if order(&a, &b).is_le() && order(&b, &c).is_le() {
                assert!(order(&a, &c).is_le());
            }
        }
    }
}

//! Which images are segmented, and what their label images are called.
//!
//! - A label image bears its image's name ([`reticle_imagefile::label_stem`]), because `reticle eval`,
//!   `reticle train` and people pair the two by name. Those of a stack end in `-page0000` and on.
//! - No two images share a name: of two whose label images would be one file, the first is
//!   segmented and the other is passed over and named. That holds for `a.tif` beside `a.png`, for
//!   one name in two folders, and for page 0 of `a.tif` beside `a-page0000.png`.
//! - Names that differ in case or in how a letter is composed are two names here. A file system
//!   that holds them for one is noticed when the second is written: nothing is replaced then.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// One image to segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    /// Name of its label image, without page and ending.
    pub(super) name: String,
}

impl Input {
    /// Name of the label image of a page; of the only one without a number.
    pub(super) fn label_file(&self, page: Option<u32>, ending: &str) -> String {
        let name = &self.name;
        match page {
            None => format!("{name}.{ending}"),
            Some(page) => format!("{name}-page{page:04}.{ending}"),
        }
    }
}

/// What is done, and what is not.
pub(super) struct Planned {
    pub(super) images: Vec<Input>,
    /// One sentence for each image whose label image would replace that of another.
    pub(super) passed_over: Vec<String>,
}

/// Names the label images. An image that is given twice (in its folder, and by itself) is
/// segmented once. `pages` says how many pages a file has; it is asked only where a name could be
/// that of another's page.
pub(super) fn plan(paths: Vec<PathBuf>, pages: impl Fn(&Path) -> usize) -> Planned {
    let mut taken: HashMap<String, PathBuf> = HashMap::new();
    let mut given = HashSet::new();
    let mut planned = Planned { images: Vec::new(), passed_over: Vec::new() };
    for path in paths {
        if !given.insert(identity(&path)) {
            continue;
        }
        let name = reticle_imagefile::label_stem(&path);
        match taken.get(&name) {
            None => {
                taken.insert(name.clone(), path.clone());
                planned.images.push(Input { path, name });
            }
            Some(first) => {
                let why = passed_over(&path, &format!("{name}.png"), &first.display().to_string());
                planned.passed_over.push(why);
            }
        }
    }
    let Planned { images, passed_over: names } = &mut planned;
    images.retain(|image| match page_of_another(image, &taken, &pages) {
        None => true,
        Some(other) => {
            names.push(passed_over(&image.path, &image.label_file(None, "png"), &other));
            false
        }
    });
    planned
}

/// The page of another image whose label image would have this image's name.
fn page_of_another(
    image: &Input,
    taken: &HashMap<String, PathBuf>,
    pages: &impl Fn(&Path) -> usize,
) -> Option<String> {
    let (stack, page) = image.name.rsplit_once("-page")?;
    let is_number = page.len() >= 4 && page.bytes().all(|byte| byte.is_ascii_digit());
    let page: usize = is_number.then(|| page.parse().ok()).flatten()?;
    let stack = taken.get(stack)?;
    let several = pages(stack);
    let clashes = several > 1 && page < several && pages(&image.path) <= 1;
    clashes.then(|| format!("page {page} of {}", stack.display()))
}

fn passed_over(path: &Path, label_file: &str, first: &str) -> String {
    format!(
        "{} is passed over: its labels/{label_file} would replace that of {first}; rename it, or \
         segment it with another --out",
        path.display()
    )
}

/// What a path names, however it is written: its folder without links and dots, and its name.
/// A link is not followed, because what bears another name gets label images of its own.
fn identity(path: &Path) -> (PathBuf, OsString) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let resolved = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    (resolved, path.file_name().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn one_page(_: &Path) -> usize {
        1
    }

    fn names(planned: &Planned) -> Vec<&str> {
        planned.images.iter().map(|image| image.name.as_str()).collect()
    }

    #[test]
    fn no_label_image_is_written_twice() {
        let paths = ["x/a.png", "x/b.png", "y/a.png", "x/b.tif", "x/a.png"].map(PathBuf::from);
        let planned = plan(paths.to_vec(), one_page);
        let input = |path: &str, name: &str| Input { path: path.into(), name: name.into() };
        assert_eq!(planned.images, [input("x/a.png", "a"), input("x/b.png", "b")]);
        assert_eq!(
            planned.passed_over,
            [
                "y/a.png is passed over: its labels/a.png would replace that of x/a.png; rename \
                 it, or segment it with another --out",
                "x/b.tif is passed over: its labels/b.png would replace that of x/b.png; rename \
                 it, or segment it with another --out",
            ]
        );
    }

    #[test]
    fn an_image_whose_name_is_that_of_a_page_is_passed_over_only_where_there_is_that_page() {
        let paths = ["a-page0001.png", "a-page0007.png", "a.tif", "a-page1.png", "b-page0000.png"];
        let pages = |path: &Path| if path == Path::new("a.tif") { 3 } else { 1 };
        let planned = plan(paths.map(PathBuf::from).to_vec(), pages);
        assert_eq!(names(&planned), ["a-page0007", "a", "a-page1", "b-page0000"]);
        assert_eq!(
            planned.passed_over,
            [
                "a-page0001.png is passed over: its labels/a-page0001.png would replace that of page \
              1 of a.tif; rename it, or segment it with another --out"
            ]
        );
        // Of a single page there is no number, and a stack's own pages have two.
        let paths = ["a.tif", "a-page0000.tif"].map(PathBuf::from).to_vec();
        assert_eq!(plan(paths.clone(), one_page).passed_over.len(), 0);
        assert_eq!(plan(paths, |_| 3).passed_over.len(), 0);
    }

    #[test]
    fn a_path_that_is_written_in_two_ways_is_one_image() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("x")).unwrap();
        std::os::unix::fs::symlink(at("x"), at("link")).unwrap();
        let written = ["x/a.png", "x/./a.png", "x/../x/a.png", "link/a.png"];
        let planned = plan(written.map(at).to_vec(), one_page);
        assert_eq!((names(&planned), planned.passed_over.len()), (vec!["a"], 0));
    }

    #[test]
    fn any_name_gives_a_name_of_its_own() {
        let bytes: [&[u8]; 12] = [
            b"l_\xe9.tif",
            b"l_\xe8.tif",
            b"A.tif",
            b"a.tif",
            "e\u{301}.tif".as_bytes(),
            "é.tif".as_bytes(),
            b"a\nb.tif",
            b"a\x1bb.tif",
            "a\u{202e}b.tif".as_bytes(),
            b"...tif",
            b"50%.tif",
            b"a b.tif",
        ];
        let paths = bytes.map(|name| PathBuf::from(OsStr::from_bytes(name)));
        let planned = plan(paths.to_vec(), one_page);
        assert_eq!(
            names(&planned),
            [
                "l_%E9",
                "l_%E8",
                "A",
                "a",
                "e\u{301}",
                "é",
                "a%0Ab",
                "a%1Bb",
                "a%E2%80%AEb",
                "..",
                "50%",
                "a b"
            ]
        );
        // What is written so already is another's name.
        let paths: [&[u8]; 2] = [b"l_%E9.tif", b"l_\xe9.tif"];
        let paths = paths.map(|name| PathBuf::from(OsStr::from_bytes(name)));
        assert_eq!(plan(paths.to_vec(), one_page).passed_over.len(), 1);
    }

    #[test]
    fn the_longest_names_are_cut_and_stay_two() {
        let long = |last: &str| PathBuf::from(format!("{}{last}.tif", "é".repeat(125)));
        let planned = plan(vec![long("a"), long("b")], one_page);
        assert_eq!(planned.images.len(), 2);
        assert_ne!(planned.images[0].name, planned.images[1].name);
        for image in &planned.images {
            let file = image.label_file(Some(9_999), "png") + reticle_base::durable::TEMPORARY;
            assert!(file.len() <= 255, "{} bytes", file.len());
        }
    }
}

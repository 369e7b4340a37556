//! What lies in a watched folder and is not taken: said once, with what to do.
//!
//! Temporary names of copying programs, and what usually lies beside images (text, tables,
//! checksums), are passed over in silence.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::natural;
use crate::capture::Note;
use crate::imagefile::is_image_name;

/// Formats of microscope software that are not read here.
const FORMATS: &[&str] = &[
    "czi", "lif", "lof", "xlif", "nd2", "nd", "oib", "oif", "oir", "vsi", "ets", "ims", "lsm", "stk",
    "zvi", "dv", "r3d", "flex", "mvd2", "ics", "ids", "sld", "sldy", "svs", "scn", "ndpi", "ndpis", "mrxs",
    "bif", "dcm", "dm3", "dm4", "mrc", "h5", "hdf5", "n5",
];

/// What lies beside images and is none.
const BESIDE: &[&str] = &[
    "txt", "csv", "tsv", "xml", "json", "yaml", "yml", "toml", "ini", "cfg", "log", "md", "pdf", "html", "db",
    "md5", "sha256", "xls", "xlsx", "doc", "docx", "htd", "roi", "zip", "lock", "companion", "lnk", "url",
    "py", "ijm", "m", "exe", "dll",
];

/// What programs call a file while they write or copy it.
const TEMPORARY: &[&str] = &[
    "tmp", "temp", "part", "partial", "filepart", "crdownload", "download", "aria2", "st", "swp", "bak",
    "synotmp", "!sync", "!ut", "!qb", "opdownload", "wkdownload",
];

/// Files whose first bytes are looked at when their names say nothing, in one listing.
const SNIFFED: usize = 20;

/// Whether a file of this name is looked at: an image by its ending, and not what a copying program
/// calls it until it is whole. Such names are hidden (rsync, Syncthing, lftp, Nautilus, NFS, FUSE,
/// macOS), begin with `~` (Syncthing, Office, OneDrive), or have another ending.
pub(super) fn is_taken_name(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b"~") && is_image_name(Path::new(name))
}

/// What is not taken, by kind.
#[derive(Default)]
pub(super) struct Others {
    by_kind: BTreeMap<Kind, Named>,
    sniffed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Folder,
    Zarr,
    Format,
    Misnamed,
    Unknown,
}

/// How many there are, and the one whose name comes first.
struct Named {
    count: usize,
    first: OsString,
}

impl Others {
    /// Takes note of what is in the folder and no image by its name.
    pub(super) fn see(&mut self, folder: &Path, name: &OsStr, is_folder: bool) {
        let Some(kind) = self.kind(folder, name, is_folder) else { return };
        let named =
            self.by_kind.entry(kind).or_insert_with(|| Named { count: 0, first: name.to_owned() });
        named.count += 1;
        if natural(name, &named.first).is_lt() {
            name.clone_into(&mut named.first);
        }
    }

    fn kind(&mut self, folder: &Path, name: &OsStr, is_folder: bool) -> Option<Kind> {
        let bytes = name.as_encoded_bytes();
        if matches!(bytes.first(), None | Some(b'.' | b'~' | b'#' | b'@' | b'$')) {
            return None;
        }
        let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let ending = ending.as_deref().unwrap_or_default();
        if is_folder {
            return Some(if ending == "zarr" { Kind::Zarr } else { Kind::Folder });
        }
        if is_image_name(Path::new(name)) || BESIDE.contains(&ending) || TEMPORARY.contains(&ending) {
            return None;
        }
        if FORMATS.contains(&ending) {
            return Some(Kind::Format);
        }
        self.sniffed += 1;
        let is_image = self.sniffed <= SNIFFED && begins_as_image(&folder.join(name));
        Some(if is_image { Kind::Misnamed } else { Kind::Unknown })
    }

    /// What there is to say of them. `folder` itself may be what is not taken.
    pub(super) fn notes(&self, folder: &Path) -> Vec<Note> {
        let zarr = is_zarr(folder).then(|| {
            let text = format!(
                "{} is an OME-Zarr, which is not watched; export its images as TIFF into a folder and \
                 watch that",
                folder.display()
            );
            Note { subject: "zarr".to_owned(), text }
        });
        let others = self.by_kind.iter().filter(|_| zarr.is_none()).map(|(kind, named)| Note {
            subject: kind.subject().to_owned(),
            text: kind.text(named),
        });
        zarr.iter().cloned().chain(others).collect()
    }
}

impl Kind {
    fn subject(self) -> &'static str {
        match self {
            Self::Folder => "folders",
            Self::Zarr => "zarr",
            Self::Format => "formats",
            Self::Misnamed => "endings",
            Self::Unknown => "others",
        }
    }

    fn text(self, named: &Named) -> String {
        let first = named.first.display();
        let (one, many, what) = match self {
            Self::Folder => (
                "folder is in the watched one and not looked at",
                "folders are in the watched one and not looked at",
                "have images put directly into the watched folder, or watch that one",
            ),
            Self::Zarr => (
                "OME-Zarr is not taken",
                "OME-Zarrs are not taken",
                "export the images as TIFF into the watched folder",
            ),
            Self::Format => (
                "file of a microscope's own format is not taken",
                "files of a microscope's own format are not taken",
                "have the microscope save TIFF, or export it as TIFF (Fiji opens it with Bio-Formats)",
            ),
            Self::Misnamed => (
                "file is an image and not called so; it is not taken",
                "files are images and not called so; they are not taken",
                "give it the ending .tif, .png or .jpg",
            ),
            Self::Unknown => (
                "file is no TIFF, PNG or JPEG by its name and not taken",
                "files are no TIFF, PNG or JPEG by their names and not taken",
                "export images as TIFF, PNG or JPEG",
            ),
        };
        match named.count {
            1 => format!("1 {one} ({first}); {what}"),
            count => format!("{count} {many} (the first is {first}); {what}"),
        }
    }
}

fn is_zarr(folder: &Path) -> bool {
    folder.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zarr"))
        || ["zarr.json", ".zgroup", ".zattrs", ".zarray"].iter().any(|it| folder.join(it).exists())
}

/// Whether a file begins as a TIFF, a PNG or a JPEG does.
fn begins_as_image(path: &Path) -> bool {
    // A pipe would be waited for.
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let known: [&[u8]; 6] =
        [b"II*\0", b"II+\0", b"MM\0*", b"MM\0+", b"\x89PNG", b"\xff\xd8\xff"];
    read.is_ok() && known.iter().any(|known| start.starts_with(known))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_of_copying_programs_are_not_looked_at() {
        for name in [
            ".a.tif.Xa81bZ",
            ".syncthing.a.tif.tmp",
            "~syncthing~a.tif.tmp",
            "~syncthing~a.tif",
            "~$a.tif",
            ".~a.tif",
            ".~lock.a.tif#",
            "a.tif.tmp",
            "a.tif.part",
            "a.tif.partial",
            "a.tif.filepart",
            "a.tif.crdownload",
            "a.tif.ocTransferId1838128.part",
            ".goutputstream-3F2B21",
            ".nfs000000000162c5a900000005",
            ".fuse_hidden0000000100000001",
            "._a.tif",
            ".DS_Store",
            ".in.a.tif.",
            "a.tif~",
            "#a.tif#",
            "a.tif.!sync",
            ".a.tif.icloud",
        ] {
            assert!(!is_taken_name(OsStr::new(name)), "{name}");
            let mut others = Others::default();
            others.see(Path::new("/nowhere"), OsStr::new(name), false);
            assert_eq!(others.notes(Path::new("/nowhere")).len(), 0, "{name}");
        }
        for name in ["a.tif", "A.TIFF", "x.ome.tif", "plate~1.png", "a.part.jpg"] {
            assert!(is_taken_name(OsStr::new(name)), "{name}");
        }
    }

    fn notes(folder: &Path) -> Vec<String> {
        let mut others = Others::default();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            others.see(folder, &entry.file_name(), entry.path().is_dir());
        }
        others.notes(folder).into_iter().map(|note| note.text).collect()
    }

    #[test]
    fn what_is_not_taken_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("a.tif", b"II*\0");
        put("notes.txt", b"");
        put("Thumbs.db", b"");
        assert_eq!(notes(folder.path()), [""; 0]);
        std::fs::create_dir(folder.path().join("day2")).unwrap();
        std::fs::create_dir(folder.path().join("day1")).unwrap();
        std::fs::create_dir(folder.path().join("plate.ome.zarr")).unwrap();
        std::fs::create_dir(folder.path().join("@eaDir")).unwrap();
        put("b.CZI", b"");
        put("c.dat", b"II*\0");
        put("d", b"\x89PNG\r\n");
        put("e.bmp", b"BM");
        let said = notes(folder.path());
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(said[0].starts_with("2 folders are in the watched one and not looked at (the first is day1);"));
        assert!(said[1].starts_with("1 OME-Zarr is not taken (plate.ome.zarr); export"));
        assert!(said[2].contains("own format is not taken (b.CZI); have the microscope save TIFF"));
        assert!(said[3].starts_with("2 files are images and not called so"), "{}", said[3]);
        assert!(said[4].contains("(e.bmp)"));
    }

    #[test]
    fn a_zarr_that_is_watched_is_said_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".zgroup"), b"{}").unwrap();
        std::fs::create_dir(folder.path().join("0")).unwrap();
        let said = notes(folder.path());
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("is an OME-Zarr, which is not watched; export"), "{}", said[0]);
    }
}

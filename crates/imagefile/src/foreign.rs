//! Files of other formats, told by their first bytes, and what to do with each.
//!
//! "Is not an image" is no answer for somebody who holds a microscope's own file: it is an image,
//! and the program that wrote it can export it. What is here is named, never read.

use std::path::Path;

use super::Problem;

/// How many first bytes are looked at: DICOM's and NIfTI's marks stand far from the start.
pub(super) const START_BYTES: usize = 512;

/// What microscope programs are to do: they write several channels into one file by default.
const EXPORT: &str = "export each channel as OME-TIFF or TIFF";
const FIJI: &str = "open it in Fiji (File > Import > Bio-Formats) and save each channel as TIFF";
const GREY: &str = "save it as greyscale TIFF or PNG";

/// A format that is not read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// With its article: "a Zeiss CZI file".
    pub(super) what: &'static str,
    /// What a person does to have it read.
    pub(super) remedy: &'static str,
}

impl From<Foreign> for Problem {
    fn from(Foreign { what, remedy }: Foreign) -> Self {
        Self::Foreign { what, remedy }
    }
}

/// Marks at a place in the file: where, which bytes, what it then is, and the remedy.
const MARKS: &[(usize, &[u8], &str, &str)] = &[
    (0, b"ZISRAWFILE", "a Zeiss CZI file", EXPORT),
    (0, &[0xda, 0xce, 0xbe, 0x0a], "a Nikon ND2 file", EXPORT),
    (0, b"SIS\0", "an Olympus ETS file (a part of a VSI image)", FIJI),
    (
        0,
        &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1],
        "an OLE file, as Olympus OIB and Zeiss ZVI are",
        FIJI,
    ),
    (
        0,
        b"\xff\xfe[\0",
        "an Olympus OIF file (settings; its images lie in a folder beside it)",
        FIJI,
    ),
    (
        0,
        b"[ProfileSaveInfo]",
        "an Olympus OIF file (settings; its images lie in a folder beside it)",
        FIJI,
    ),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Imaris and ilastik write", FIJI),
    (128, b"DICM", "a DICOM file", FIJI),
    (0, b"GIF87a", "a GIF, which has 256 colours", GREY),
    (0, b"GIF89a", "a GIF, which has 256 colours", GREY),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file (old ND2 files are such)", GREY),
    (0, &[0xff, 0x4f, 0xff, 0x51], "a JPEG 2000 stream", GREY),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file", GREY),
    (0, &[0xff, 0x0a], "a JPEG XL stream", GREY),
    (0, b"II\xbc\x01", "a JPEG XR file", GREY),
    (0, &[0x76, 0x2f, 0x31, 0x01], "an OpenEXR file, whose pixels are floating-point", GREY),
    (0, b"8BPS", "a Photoshop file", GREY),
    (0, b"IIRO", "a camera's raw file", GREY),
    (0, b"IIU\0", "a camera's raw file", GREY),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", GREY),
    (0, b"SIMPLE  =", "a FITS file", FIJI),
    (0, b"\x93NUMPY", "a NumPy array", "write it with tifffile.imwrite"),
    (0, b"MATLAB 5.0", "a MATLAB file", "write it with imwrite as TIFF"),
    (0, b"Andor Technology Multi-Channel File", "an Andor SIF file", EXPORT),
    (0, &[0, 0, 0, 3, 0, 0], "a Gatan DM3 file", FIJI),
    (0, &[0, 0, 0, 4, 0, 0], "a Gatan DM4 file", FIJI),
    (208, b"MAP ", "an MRC file", FIJI),
    (344, b"n+1\0", "a NIfTI file", FIJI),
    (0, b"NRRD000", "an NRRD file", FIJI),
    (0, b"ics_version", "an ICS file", FIJI),
    (4, b"ftyp", "a video, HEIC or AVIF file", "save single frames as greyscale TIFF or PNG"),
    (
        0,
        b"\x1aE\xdf\xa3",
        "a video (Matroska or WebM)",
        "save single frames as greyscale TIFF or PNG",
    ),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it, and give the images in it"),
    (0, &[0x1f, 0x8b], "packed by gzip", "unpack it, and give the image in it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and give the images in it"),
    (0, b"Rar!", "a RAR archive", "unpack it, and give the images in it"),
    (0, b"%PDF", "a PDF document", "give the images that it was made of"),
    (
        0,
        &[0, 5, 0x16, 7],
        "a companion file of macOS (AppleDouble) without an image",
        "give the file that is called the same without ._ in front",
    ),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS without the image",
        "fetch the file: git lfs pull",
    ),
];

/// What the file is, where its first bytes say so.
pub(super) fn recognise(start: &[u8]) -> Option<Foreign> {
    let at =
        |place: usize, mark: &[u8]| start.get(place..).is_some_and(|rest| rest.starts_with(mark));
    let found = |what, remedy| Some(Foreign { what, remedy });
    for &(place, mark, what, remedy) in MARKS {
        if at(place, mark) {
            return found(what, remedy);
        }
    }
    // A block of XML follows a length and this byte.
    if at(0, &[0x70, 0, 0, 0]) && at(8, &[0x2a]) {
        return found("a Leica LIF file", EXPORT);
    }
    if at(0, b"RIFF") && at(8, b"WEBP") {
        return found("a WebP image", GREY);
    }
    if at(0, b"RIFF") && at(8, b"AVI ") {
        return found("a video (AVI)", "save single frames as greyscale TIFF or PNG");
    }
    // Two letters are little: the reserved field, and the header's length, must fit too.
    if at(0, b"BM") && at(6, &[0, 0, 0, 0]) && at(15, &[0, 0, 0]) {
        return found("a Windows bitmap (BMP)", GREY);
    }
    if let [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] = start {
        return found("a PGM, PPM or PAM image", GREY);
    }
    text(start)
}

/// What a text is, with or without a byte order mark.
fn text(start: &[u8]) -> Option<Foreign> {
    let start = start.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(start).trim_ascii_start();
    let lower = start.to_ascii_lowercase();
    let has = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
    let (what, remedy) = if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") {
        ("a web page, as a failed download leaves", "download the image again")
    } else if !lower.starts_with(b"<") {
        return None;
    } else if has(b"<ome") {
        (
            "OME-XML (a description without a TIFF around it)",
            "give the OME-TIFF files that it describes",
        )
    } else if has(b"<svg") {
        ("an SVG drawing", GREY)
    } else {
        ("an XML document", "give the image files that it describes")
    };
    Some(Foreign { what, remedy })
}

/// What a TIFF is that only leads to the image: only its name tells.
pub(super) fn by_name(path: &Path) -> Option<Foreign> {
    let ending = path.extension()?.to_str()?;
    ending.eq_ignore_ascii_case("vsi").then_some(Foreign {
        what: "an Olympus VSI file, whose image lies in a folder beside it",
        remedy: FIJI,
    })
}

/// What a folder is that is one image.
pub(super) fn folder(path: &Path) -> Option<Foreign> {
    let is_zarr =
        [".zattrs", ".zgroup", ".zarray", "zarr.json"].iter().any(|name| path.join(name).is_file());
    is_zarr.then_some(Foreign {
        what: "an OME-Zarr folder (one image, of many files)",
        remedy: "export it as TIFF, one channel a file (`reticle import` takes it as training data)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(start: &[u8]) -> &'static str {
        recognise(start).map_or("", |foreign| foreign.what)
    }

    #[test]
    fn microscopes_own_files_are_named() {
        assert_eq!(what(b"ZISRAWFILE\0\0\0\0\0\0"), "a Zeiss CZI file");
        assert_eq!(what(&[0xda, 0xce, 0xbe, 0x0a, 0, 0, 0, 0]), "a Nikon ND2 file");
        assert_eq!(what(&[0x70, 0, 0, 0, 9, 0, 0, 0, 0x2a, 2]), "a Leica LIF file");
        let mut dicom = vec![0; 128];
        dicom.extend(b"DICM");
        assert_eq!(what(&dicom), "a DICOM file");
        for (start, part) in [
            (&b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"[..], "OIB"),
            (b"\xff\xfe[\0P\0r\0", "OIF"),
            (b"SIS\0", "ETS"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"GIF89a", "GIF"),
            (b"BM\x36\x30\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "BMP"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\x76\x2f\x31\x01", "OpenEXR"),
            (b"\xff\x0a\0", "JPEG XL"),
            (b"II\xbc\x01", "JPEG XR"),
            (b"P5\n12 13\n255\n", "PGM"),
            (b"PK\x03\x04", "ZIP"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"<?xml version=\"1.0\"?>\n<OME xmlns=", "OME-XML"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
            (b"\0\x05\x16\x07\0\x02", "AppleDouble"),
            (b"\0\0\0\x18ftypheic", "HEIC"),
        ] {
            assert!(what(start).contains(part), "{part}: {}", what(start));
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        // A file that is not filled yet, text, a bitmap's letters only.
        for start in [&[0_u8; 64][..], b"hello, world", b"BMW drivers", b"P5_is_a_name", b"", b"<"]
        {
            let found = recognise(start);
            assert!(found.is_none() || start == b"<", "{found:?}");
        }
    }

    #[test]
    fn a_zarr_folder_is_one_image() {
        let folder_path = tempfile::tempdir().unwrap();
        assert_eq!(folder(folder_path.path()), None);
        std::fs::File::create(folder_path.path().join(".zattrs")).unwrap();
        assert!(folder(folder_path.path()).unwrap().what.contains("OME-Zarr"));
    }
}

//! What the kernel's events mean for a watched folder.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use tracing::warn;

use reticle_imagefile::is_image_name;

pub(super) enum Notice {
    /// Closed by its writer.
    Closed(OsString),
    /// Renamed into place.
    Renamed(OsString),
    /// Made: by a writer, or as another name of a file that is there.
    Made(OsString),
    /// Changed.
    Touched(OsString),
    /// Its rights, its owner or its times were changed, or it lost a name.
    Attributes(OsString),
    /// Events were lost.
    Overflow,
    /// The folder itself went away.
    FolderGone,
}

/// What an event of the kernel means here.
pub(super) fn notices_of(event: notify::Result<notify::Event>, root: &Path) -> Vec<Notice> {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            warn!(%error, "an event was lost; listing the folder");
            return vec![Notice::Overflow];
        }
    };
    if event.need_rescan() {
        return vec![Notice::Overflow];
    }
    let gone = matches!(
        event.kind,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From))
    );
    let make: fn(OsString) -> Notice = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Notice::Closed,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Notice::Renamed,
        EventKind::Create(CreateKind::File) => Notice::Made,
        EventKind::Modify(ModifyKind::Data(_)) => Notice::Touched,
        EventKind::Modify(ModifyKind::Metadata(_)) => Notice::Attributes,
        _ if gone && event.paths.iter().any(|path| path == root) => {
            return vec![Notice::FolderGone];
        }
        _ => return Vec::new(),
    };
    let names = event.paths.iter().filter_map(|path| path.file_name());
    names.filter(|name| is_taken_name(name)).map(|name| make(name.to_owned())).collect()
}

/// Whether a file of this name is looked at: an image by its ending, and not what a copying program
/// calls it until it is whole. Such names are hidden (rsync, Syncthing, lftp, Nautilus, NFS, FUSE,
/// macOS), begin with `~` (Syncthing and OneDrive on Windows, Office), or have another ending.
pub(super) fn is_taken_name(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b"~") && is_image_name(Path::new(name))
}

#[cfg(test)]
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
        }
        for name in ["a.tif", "A.TIFF", "x.ome.tif", "plate~1.png", "a.part.jpg"] {
            assert!(is_taken_name(OsStr::new(name)), "{name}");
        }
    }
}

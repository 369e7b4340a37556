//! What the kernel's events mean for a watched folder.

use std::ffi::OsString;
use std::path::Path;

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use tracing::warn;

use super::others::is_taken_name;

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

//! Frame files: `frames/<session>/<frame>.tif`, uncompressed, one frame each.
//!
//! This module knows names, bytes and the order of fsyncs; which frames have a file is the
//! database's to say (`writer.rs`, `retention.rs`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use reticle_base::durable;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::frame::{Frame, Pixels};

/// Folder of the frame files in the data folder.
pub(crate) const FRAMES: &str = "frames";
const ENDING: &str = ".tif";

/// Where a frame's file is, relative to the data folder: what the database holds.
pub(crate) fn file_name(session: SessionId, frame: FrameId) -> String {
    format!("{FRAMES}/{session}/{frame}{ENDING}")
}

/// Bytes that the file of `frame` will take, to within its small head.
pub(crate) fn expected_bytes(frame: &Frame) -> u64 {
    (frame.pixels.len() * frame.pixels.bytes_per_pixel()) as u64 + 4096
}

/// Writes the frame's file, durably, and gives its size.
pub(crate) fn write(folder: &Path, session: SessionId, frame: &Frame) -> Result<u64, StoreError> {
    let path = folder.join(file_name(session, frame.id));
    let bytes = reticle_imagefile::encode_frame_tiff(frame).map_err(|error| StoreError::Unfit {
        what: "write the file",
        frame: frame.id,
        why: error.to_string(),
    })?;
    if let Some(parent) = path.parent() {
        durable::create_dir_private(parent, folder)
            .map_err(StoreError::file("make the folder", parent))?;
    }
    durable::write_private(&path, &bytes)
        .map_err(StoreError::file("write the frame file", &path))?;
    Ok(bytes.len() as u64)
}

/// Grey values of a frame file, with their width and height.
pub(crate) fn read(path: &Path) -> Result<(u32, u32, Pixels), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let page = reticle_imagefile::decode_frame_tiff(&bytes).map_err(|error| error.to_string())?;
    Ok((page.width, page.height, page.pixels))
}

/// A file found under `frames/`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Relative to the data folder, with `/`.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Found {
    /// The frame it is named after.
    pub(crate) fn frame(&self) -> Option<FrameId> {
        self.path.file_name()?.to_str()?.strip_suffix(ENDING)?.parse().ok()
    }

    /// Whether it was still being written.
    pub(crate) fn is_temporary(&self) -> bool {
        self.name.ends_with(durable::TEMPORARY)
    }
}

/// All files under `frames/`, and the folders of sessions that hold none.
pub(crate) fn list(folder: &Path) -> io::Result<(Vec<Found>, Vec<PathBuf>)> {
    let mut files = Vec::new();
    let mut empty = Vec::new();
    let root = folder.join(FRAMES);
    let sessions = match fs::read_dir(&root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((files, empty)),
        other => other?,
    };
    for session in sessions {
        let session = session?.path();
        if !session.is_dir() {
            push_found(&mut files, folder, session)?;
            continue;
        }
        let before = files.len();
        for file in fs::read_dir(&session)? {
            push_found(&mut files, folder, file?.path())?;
        }
        if files.len() == before {
            empty.push(session);
        }
    }
    Ok((files, empty))
}

fn push_found(files: &mut Vec<Found>, folder: &Path, path: PathBuf) -> io::Result<()> {
    let bytes = match fs::metadata(&path) {
        // Removed since the folder was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?.len(),
    };
    let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
    files.push(Found { name, path, bytes });
    Ok(())
}

/// Bytes free for us on the file system of `folder`.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

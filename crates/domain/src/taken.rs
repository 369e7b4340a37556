//! What is known of a file of a watched folder and of its pages: the words that the source, which
//! reads them, and the store, which remembers them, share.

use reticle_base::ids::FrameId;

/// Which file of a file system it is, whatever its name. A number may be given to another file once
/// the first is deleted, and then the times of birth differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Number of the file system.
    pub device: u64,
    /// Number of the file in it.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970, where its file system knows.
    pub born_ns: Option<i64>,
}

/// A page of a file that became a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenPage {
    /// Its number in the file, from 0.
    pub index: usize,
    /// SHA-256 of its pixels, its size and its depth.
    pub sha256: [u8; 32],
    /// The frame that it became.
    pub frame: FrameId,
    /// Whether nothing more is to be done for that frame. Else it is given again, under its id.
    pub done: bool,
}

//! Whether a file that stands still is whole, and for how long it is waited for where that is in
//! doubt.
//!
//! A size that stays says little: a copying program may give a file its last size at once (Windows
//! over Samba, FTP, `fallocate`) and stall in the middle. So the bytes are asked, too: zeros at the
//! end, parts of the file that were never written, a beginning that is no image's. None of this
//! proves anything, since a black image has zeros and a sparse copy has holes, so each doubt has its
//! time, after which the file is read as it is. That its writer closed it, or renamed it into place,
//! counts for more than any of them.

use std::fs::File;
use std::time::Duration;

use rustix::fs::SeekFrom;
use sha2::{Digest, Sha256};

/// Zeros at the end of a file from which on it is in doubt. The last directory of a TIFF ends with
/// fewer, and neither a PNG nor a JPEG ends with any.
const BLANK_END_BYTES: u64 = 512;

/// Zeros in the middle of a file, in one piece of this size, from which on it is in doubt.
const BLANK_BYTES: usize = 64 * 1024;

/// How a writer left a file, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// It was seen to be made or written, and not to be closed.
    Open,
    /// It was found by listing: nobody knows.
    Listed,
    /// It was closed.
    Closed,
    /// It was given its name when it was whole.
    Renamed,
}

/// Why a file may not be whole, in the order of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// There is no sign of it.
    None,
    /// Long zeros are in it: black, or not written yet.
    Blank,
    /// Parts of it were never written.
    Holes,
    /// It was taken before, and is another now without having grown: it is written over in place.
    WrittenOver,
}

impl Doubt {
    /// How long a file has to stand still before it is read as it is.
    pub(super) fn takes(self, left: Left) -> Duration {
        Duration::from_secs(match (left, self) {
            (Left::Renamed, Self::Holes) => 2,
            // Sparse copies are closed with holes, and black images on ZFS have them.
            (Left::Closed, Self::Holes) => 10,
            (Left::Renamed | Left::Closed, _) => 0,
            (Left::Open | Left::Listed, Self::None) => 2,
            (Left::Listed, Self::WrittenOver) => 10,
            (Left::Open | Left::Listed, Self::Blank) => 30,
            (Left::Listed, Self::Holes) => 60,
            // A laptop that is closed, a server that starts again: minutes.
            (Left::Open, Self::Holes | Self::WrittenOver) => 600,
        })
    }

    /// What is seen of the file, for a person.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::None => "is not closed by its writer",
            Self::Blank => "holds long zeros, as if it were not all written yet",
            Self::Holes => "has its last size, but parts of it are not written yet",
            Self::WrittenOver => "is written over in place and not closed",
        }
    }
}

/// The bytes of a file, as they are read one after the other.
#[derive(Default)]
pub(super) struct Scan {
    hasher: Sha256,
    bytes: u64,
    first: Option<u8>,
    /// How many zeros stand at the end of what was read.
    zeros: u64,
    blank: bool,
    holes: bool,
}

impl Scan {
    /// Of a file that is read now: what was preallocated and is read counts as written afterwards.
    ///
    /// # Errors
    /// When it cannot be read from its beginning afterwards.
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let holes = has_holes(file, file.metadata()?.len());
        rustix::fs::seek(file, SeekFrom::Start(0))?;
        Ok(Self { holes, ..Self::default() })
    }

    pub(super) fn read(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        self.first = self.first.or(piece.first().copied());
        self.blank |=
            piece.chunks_exact(BLANK_BYTES).any(|part| part.iter().all(|byte| *byte == 0));
        match piece.iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros = (piece.len() - 1 - last) as u64,
            None => self.zeros += piece.len() as u64,
        }
    }

    /// The hash of all bytes, and what is to be thought of them.
    pub(super) fn finish(self, file: &File) -> ([u8; 32], Doubt) {
        let doubt = match self.first {
            None => Doubt::None,
            Some(_) if self.holes || has_holes(file, self.bytes) => Doubt::Holes,
            Some(first) if first == 0 || self.blank || self.zeros >= BLANK_END_BYTES => {
                Doubt::Blank
            }
            Some(_) => Doubt::None,
        };
        (self.hasher.finalize().into(), doubt)
    }
}

/// Whether parts of a file were never written, where its file system tells.
fn has_holes(file: &File, bytes: u64) -> bool {
    rustix::fs::seek(file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// What is thought of a file, read in pieces of `piece` bytes.
    fn doubt(bytes: &[u8], size: u64, piece: usize) -> Doubt {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(size).unwrap();
        let mut all = bytes.to_vec();
        all.resize(usize::try_from(size).unwrap(), 0);
        let mut scan = Scan::default();
        all.chunks(piece).for_each(|piece| scan.read(piece));
        let (sha256, doubt) = scan.finish(&file);
        assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(&all)));
        doubt
    }

    #[test]
    fn zeros_and_holes_are_seen_however_the_file_is_read() {
        for piece in [100, 4096, 1 << 20] {
            assert_eq!(doubt(&[7; 9000], 9000, piece), Doubt::None);
            assert_eq!(doubt(b"", 0, piece), Doubt::None);
            assert_eq!(doubt(&[0; 100], 100, piece), Doubt::Blank);
            let mut black = vec![7; 9000];
            black[8488..].fill(0);
            assert_eq!(doubt(&black, 9000, piece), Doubt::Blank);
            black[8500] = 1;
            assert_eq!(doubt(&black, 9000, piece), Doubt::None);
            assert_eq!(doubt(&[7; 4096], 1 << 20, piece), Doubt::Holes);
        }
        let mut middle = vec![7; 300_000];
        middle[60_000..200_000].fill(0);
        assert_eq!(doubt(&middle, 300_000, 1 << 20), Doubt::Blank);
    }

    #[test]
    fn what_is_preallocated_is_no_data_although_it_was_read() {
        let mut file = tempfile::tempfile().unwrap();
        let none = rustix::fs::FallocateFlags::empty();
        if rustix::fs::fallocate(&file, none, 0, 1 << 20).is_err() {
            eprintln!("skipped: this file system does not preallocate");
            return;
        }
        file.write_all(&[7; 4096]).unwrap();
        let tells = has_holes(&file, 1 << 20);
        let mut scan = Scan::of(&file).unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        scan.read(&all);
        let expected = if tells { Doubt::Holes } else { Doubt::Blank };
        assert_eq!(scan.finish(&file).1, expected);
    }

    #[test]
    fn the_graver_the_doubt_and_the_less_the_writer_said_the_longer_it_takes() {
        let doubts = [Doubt::None, Doubt::Blank, Doubt::Holes];
        for left in [Left::Open, Left::Listed, Left::Closed, Left::Renamed] {
            let times = doubts.map(|doubt| doubt.takes(left));
            assert!(times.is_sorted(), "{times:?}");
        }
        for doubt in doubts {
            let lefts = [Left::Closed, Left::Listed, Left::Open];
            let times = lefts.map(|left| doubt.takes(left));
            assert!(times.is_sorted(), "{doubt:?}: {times:?}");
        }
    }
}

//! One number for what a session holds, which the box and the central database can each compute
//! from their own rows.

use std::fmt;

use sha2::{Digest as _, Sha256};

use reticle_base::ids::FrameId;

/// What a session holds: its frames by id and hash, its results by frame, model, hash of the
/// label image and number of objects. Equal on both sides means that nothing is missing, nothing
/// is there twice, and nothing was mixed up.
///
/// The digest is the sum, modulo 2^128, of the first 16 bytes (big endian) of the SHA-256 of
/// each row. A sum, so that the order of rows does not matter and a row that is there twice is
/// noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionDigest {
    frames: u64,
    results: u64,
    sum: u128,
}

impl SessionDigest {
    /// Counts a frame in.
    pub fn frame(&mut self, frame: FrameId, sha256: &[u8; 32]) {
        self.frames += 1;
        self.add(&[b"frame\0", frame.as_bytes(), sha256]);
    }

    /// Counts a result in: of which frame, by which model (`ModelFacts::key`), the hash of its
    /// label image, and how many objects are stored for it.
    pub fn result(&mut self, frame: FrameId, model: &str, labels_sha256: &[u8; 32], objects: u64) {
        self.results += 1;
        let objects = objects.to_be_bytes();
        self.add(&[b"result\0", frame.as_bytes(), labels_sha256, &objects, model.as_bytes()]);
    }

    /// Only the last part has no fixed length, so that no two rows are the same bytes.
    fn add(&mut self, parts: &[&[u8]]) {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let (head, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(*head));
    }
}

impl fmt::Display for SessionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames, {} results, {:032x}", self.frames, self.results, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> FrameId {
        FrameId::from_bytes([number; 16])
    }

    fn digest(rows: &[u8]) -> SessionDigest {
        let mut digest = SessionDigest::default();
        for &row in rows {
            digest.frame(id(row), &[row; 32]);
            digest.result(id(row), "nuclei-0", &[row; 32], u64::from(row));
        }
        digest
    }

    #[test]
    fn the_order_does_not_matter_and_everything_else_does() {
        assert_eq!(digest(&[1, 2, 3]), digest(&[3, 1, 2]));
        assert_ne!(digest(&[1, 2, 3]), digest(&[1, 2]), "one is missing");
        assert_ne!(digest(&[1, 2, 2]), digest(&[1, 1, 2]), "another is there twice");
        let one = |model, labels, objects| {
            let mut digest = SessionDigest::default();
            digest.result(id(1), model, &[labels; 32], objects);
            digest
        };
        let base = one("nuclei-0", 1, 5);
        for other in [one("nuclei-1", 1, 5), one("nuclei-0", 2, 5), one("nuclei-0", 1, 4)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_sum_is_of_sha_256() {
        let mut digest = SessionDigest::default();
        digest.frame(id(0), &[0; 32]);
        // (printf 'frame\0'; head -c 48 /dev/zero) | sha256sum
        assert_eq!(digest.to_string(), "1 frames, 0 results, 2f9f5629037c2ef7909e626a60a745ad");
    }
}

//! Label images out of a shard, without the code that wrote it and without Zarr's own library:
//! the layout is that of Zarr 3's codec `sharding_indexed` with the index at the end, each inner
//! chunk one frame, zstd, labels of 4 bytes.
//!
//! What a library could not tell is which frames are there at all: a missing chunk reads as
//! zeros, just as a frame without any object does.

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

/// A frame that is not there, in the index.
const MISSING: u64 = u64::MAX;

/// One entry of the index: offset and length.
const ENTRY: usize = 16;

/// CRC-32C behind the index.
const CHECKSUM: usize = 4;

/// The label image of one frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Labels {
    /// Place in the shard, from 0.
    pub(super) position: u64,
    /// SHA-256 in hex, as the store counts it: 2 bytes a label, 4 where there are too many.
    pub(super) sha256: String,
    /// The largest label.
    pub(super) objects: u64,
}

/// All label images of a shard of `frames` places, with `pixels` labels each.
pub(super) fn labels(shard: &[u8], frames: usize, pixels: usize) -> anyhow::Result<Vec<Labels>> {
    let index = shard.len().checked_sub(frames * ENTRY + CHECKSUM).context("has no index")?;
    let mut all = Vec::new();
    for (position, entry) in shard[index..].chunks_exact(ENTRY).take(frames).enumerate() {
        let (offset, length) = entry.split_at(ENTRY / 2);
        let [offset, length] =
            [offset, length].map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        if offset == MISSING && length == MISSING {
            continue;
        }
        let chunk = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok())
            .and_then(|(offset, length)| shard[..index].get(offset..offset.checked_add(length)?))
            .with_context(|| format!("place {position} lies outside"))?;
        let bytes = zstd::bulk::decompress(chunk, pixels * 4)
            .with_context(|| format!("place {position} cannot be unpacked"))?;
        ensure!(bytes.len() == pixels * 4, "place {position} has {} bytes", bytes.len());
        let labels: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        let objects = labels.iter().copied().max().unwrap_or(0);
        all.push(Labels {
            position: position as u64,
            sha256: sha256(&labels, objects),
            objects: objects.into(),
        });
    }
    Ok(all)
}

fn sha256(labels: &[u32], largest: u32) -> String {
    let mut hash = Sha256::new();
    for label in labels {
        match u16::try_from(*label) {
            Ok(label) if largest < 65_536 => hash.update(label.to_le_bytes()),
            _ => hash.update(label.to_le_bytes()),
        }
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use reticle_domain::label_image::LabelImage;

    use super::*;

    #[test]
    fn a_shard_gives_the_frames_that_are_in_it_with_the_hash_that_the_store_has() {
        let first = vec![0, 1, 1, 2, 0, 3];
        let empty = vec![0; 6];
        let mut shard = Vec::new();
        let mut index = Vec::new();
        for image in [Some(&first), None, Some(&empty)] {
            let chunk = image.map(|labels| {
                let bytes: Vec<u8> = labels.iter().flat_map(|l: &u32| l.to_le_bytes()).collect();
                zstd::bulk::compress(&bytes, 3).unwrap()
            });
            let entry = chunk
                .as_ref()
                .map_or([MISSING; 2], |chunk| [shard.len() as u64, chunk.len() as u64]);
            index.extend(entry.into_iter().flat_map(u64::to_le_bytes));
            shard.extend(chunk.into_iter().flatten());
        }
        shard.extend(index);
        shard.extend([0; CHECKSUM]);

        let expect = |position, labels: &[u32]| {
            let image = LabelImage::new(3, 2, labels.to_vec()).unwrap();
            let sha256 = hex::encode(image.sha256());
            Labels { position, sha256, objects: image.count().into() }
        };
        assert_eq!(labels(&shard, 3, 6).unwrap(), [expect(0, &first), expect(2, &empty)]);
        assert!(labels(&shard, 3, 5).is_err(), "another size is no label image of this frame");
        assert!(labels(&shard[..10], 3, 6).is_err());
    }
}

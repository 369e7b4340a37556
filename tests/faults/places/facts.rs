//! What one object of the archive says, in facts that may be added to and must not be lost.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::archive::{column_of_texts, table};
use crate::memory::Facts;

/// Bytes of an entry of a shard's index: offset and length.
const ENTRY: usize = 16;

/// CRC-32C behind it.
const CHECKSUM: usize = 4;

/// Positions that a shard of small frames has.
const POSITIONS: usize = 64;

/// What the object under `key` says.
pub(crate) fn of(key: &str, bytes: Bytes) -> anyhow::Result<Facts> {
    let mut facts = Facts::from([("its existence".to_owned(), 1)]);
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    if name == "manifest.json" {
        manifest(&serde_json::from_slice(&bytes)?, &mut facts)?;
    } else if name == "zarr.json" {
        let document: Value = serde_json::from_slice(&bytes)?;
        if document["node_type"] == "array" {
            facts.insert("frames of the array".to_owned(), number(&document["shape"][0])?);
        }
    } else if name.ends_with(".parquet") {
        rows(&bytes, &mut facts)?;
    } else if key.contains(".ome.zarr/") {
        shard(&bytes, &mut facts)?;
    }
    Ok(facts)
}

fn number(value: &Value) -> anyhow::Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

fn manifest(document: &Value, facts: &mut Facts) -> anyhow::Result<()> {
    for counter in ["frames", "segmentations"] {
        facts.insert(format!("{counter} of the session"), number(&document["session"][counter])?);
    }
    for series in document["series"].as_array().context("no series")? {
        let shape = number(&series["shape"][0])?;
        facts.insert(format!("frames of series {}", series["number"]), shape);
    }
    for entry in document["objects"].as_array().context("no objects")? {
        let key = entry["key"].as_str().context("an entry has no key")?;
        facts.insert(format!("rows of {key}"), entry["rows"].as_u64().unwrap_or(0));
    }
    Ok(())
}

/// How many rows a table has of each frame.
fn rows(bytes: &Bytes, facts: &mut Facts) -> anyhow::Result<()> {
    for batch in table(bytes)? {
        for frame in column_of_texts(&batch, "frame")? {
            *facts.entry(format!("rows of frame {frame}")).or_default() += 1;
        }
    }
    Ok(())
}

/// Which positions are taken, and by what.
fn shard(bytes: &[u8], facts: &mut Facts) -> anyhow::Result<()> {
    let index = index(bytes).context("has no index whose checksum is right")?;
    for (position, entry) in index.chunks_exact(ENTRY).enumerate() {
        let (offset, length) = entry.split_at(ENTRY / 2);
        let [offset, length] =
            [offset, length].map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        if offset == u64::MAX && length == u64::MAX {
            continue;
        }
        let (start, length) = (usize::try_from(offset)?, usize::try_from(length)?);
        let chunk = start.checked_add(length).and_then(|end| bytes.get(start..end));
        let Some(chunk) = chunk else { bail!("position {position} lies outside") };
        let mut sha256 = hex::encode(Sha256::digest(chunk));
        sha256.truncate(16);
        facts.insert(format!("position {position} with {sha256}"), 1);
    }
    ensure!(facts.len() > 1, "nothing is in it");
    Ok(())
}

/// The index at the end of a shard, of which only the checksum says how long it is: small frames
/// have [`POSITIONS`], larger ones fewer.
fn index(bytes: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    let checksum = u32::from_le_bytes(checksum.try_into().ok()?);
    (1..=POSITIONS).rev().find_map(|positions| {
        let index = body.get(body.len().checked_sub(positions * ENTRY)?..)?;
        (crc32c::crc32c(index) == checksum).then_some(index)
    })
}

#[cfg(test)]
pub(crate) mod testing {
    /// A shard with these chunks, of as many positions.
    pub(crate) fn shard(chunks: &[Option<&[u8]>]) -> Vec<u8> {
        let (mut bytes, mut index) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let entry =
                chunk.map_or([u64::MAX; 2], |chunk| [bytes.len(), chunk.len()].map(|n| n as u64));
            index.extend(entry.into_iter().flat_map(u64::to_le_bytes));
            bytes.extend(chunk.unwrap_or_default());
        }
        let checksum = crc32c::crc32c(&index);
        bytes.extend(index);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn a_table_says_how_many_rows_it_has_of_each_frame() {
        let frames: ArrayRef = Arc::new(StringArray::from(vec!["f1", "f2", "f1"]));
        let batch = RecordBatch::try_from_iter([("frame", frames)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let facts = of("objects/box=b/date=d/s-0-m-00000.parquet", bytes.into()).unwrap();
        assert_eq!(facts["rows of frame f1"], 2);
        assert_eq!(facts["rows of frame f2"], 1);
    }

    #[test]
    fn a_shard_says_which_positions_it_has() {
        let bytes = testing::shard(&[None, Some(b"two"), Some(b"three")]);
        let facts = of("sessions/s/series-0.ome.zarr/0/c/0/0/0", bytes.clone().into()).unwrap();
        assert_eq!(facts.len(), 3);
        assert!(facts.keys().any(|fact| fact.starts_with("position 1 with ")), "{facts:?}");
        let cut = bytes[..bytes.len() - 1].to_vec();
        assert!(of("sessions/s/series-0.ome.zarr/0/c/0/0/0", cut.into()).is_err());
    }
}

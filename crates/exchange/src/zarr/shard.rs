//! One shard, written frame by frame.
//!
//! ```text
//! zstd frame of each inner chunk, in the order of positions
//! for each position of the part: offset u64 LE, length u64 LE   (both all ones: not there)
//! CRC-32C u32 LE of these numbers
//! ```
//! That is Zarr's codec `sharding_indexed` with the index at the end, which `zarrs` writes, too.
//! We assemble it ourselves because `zarrs` 0.23 takes the decoded shard as one array and holds
//! the encoded one beside it: 256 MB for a part of 128 MB, on a box whose every process together
//! may have 300. Written so, a shard takes two frames of memory. Its own partial writes read
//! back and write anew the whole shard for each frame, and in parallel it puts inner chunks in
//! the order in which threads are done; ours are in the order of positions, so that the same
//! frames give the same bytes. Reading goes through `zarrs`, in tests through zarr-python, too.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use zstd::bulk::Compressor;

use super::super::ReadError;
use super::super::output::{Output, WriteError, Written};

/// zstd's own default: on microscope frames higher levels gain a few percent for much time.
pub(super) const LEVEL: i32 = 3;

/// Offset and length of a frame that is not there.
const MISSING: [u64; 2] = [u64::MAX, u64::MAX];

/// What fits into a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardShape {
    /// Positions, whether a frame comes for them or not.
    pub frames: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 or 2 for pixels, 4 for labels.
    pub bytes_per_pixel: u8,
}

/// A finished shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Length and checksum.
    pub written: Written,
    /// Frames in it.
    pub frames: u32,
}

/// A shard in the making. Dropped before [`ShardWriter::finish`], it leaves no file.
pub struct ShardWriter {
    output: Output,
    shape: ShardShape,
    compressor: Compressor<'static>,
    index: Vec<[u64; 2]>,
    packed: Vec<u8>,
    /// Position from which on frames may come.
    next: u32,
    frames: u32,
}

impl ShardWriter {
    /// Begins a shard that will be sent from `path`: without fsync.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path, shape: ShardShape) -> Result<Self, WriteError> {
        Self::new(Output::scratch(path)?, shape)
    }

    /// Begins a shard in `output`.
    ///
    /// # Errors
    /// When there is no memory for the compressor.
    pub fn new(output: Output, shape: ShardShape) -> Result<Self, WriteError> {
        let compressor = Compressor::new(LEVEL).map_err(|error| output.failed(error))?;
        let index = vec![MISSING; shape.frames as usize];
        Ok(Self { output, shape, compressor, index, packed: Vec::new(), next: 0, frames: 0 })
    }

    /// Adds one frame: its pixels or labels, row-major, little-endian. Positions grow.
    ///
    /// # Errors
    /// When the disk is full or gone, when the position is outside of the part or not above the
    /// one before, and when there are not `width × height` pixels.
    pub fn push(&mut self, position_in_part: u32, pixels: &[u8]) -> Result<(), WriteError> {
        let ShardShape { frames, width, height, bytes_per_pixel } = self.shape;
        if !(self.next..frames).contains(&position_in_part) {
            return Err(self.output.failed(format!(
                "the frame at {position_in_part} comes where {} to {frames} were expected",
                self.next
            )));
        }
        let expected = width as usize * height as usize * usize::from(bytes_per_pixel);
        if pixels.len() != expected {
            return Err(self.output.failed(format!(
                "the frame at {position_in_part} has {} bytes, not {expected}",
                pixels.len()
            )));
        }
        self.packed.resize(zstd::zstd_safe::compress_bound(pixels.len()), 0);
        let length = self
            .compressor
            .compress_to_buffer(pixels, &mut self.packed)
            .map_err(|error| self.output.failed(error))?;
        self.index[position_in_part as usize] = [self.output.bytes(), length as u64];
        self.output.write_all(&self.packed[..length]).map_err(|error| self.output.failed(error))?;
        self.next = position_in_part + 1;
        self.frames += 1;
        Ok(())
    }

    /// Adds one label image, as [`ShardWriter::push`] does for `bytes_per_pixel` 4.
    ///
    /// # Errors
    /// As for [`ShardWriter::push`].
    pub fn push_labels(&mut self, position_in_part: u32, labels: &[u32]) -> Result<(), WriteError> {
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        self.push(position_in_part, &bytes)
    }

    /// Writes the index and gives the file its name.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no shard then.
    pub fn finish(mut self) -> Result<ShardInfo, WriteError> {
        let mut index: Vec<u8> =
            self.index.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        index.extend(crc32c::crc32c(&index).to_le_bytes());
        self.output.write_all(&index).map_err(|error| self.output.failed(error))?;
        Ok(ShardInfo { written: self.output.finish()?, frames: self.frames })
    }
}

/// A shard that was written here or read from an archive, frame by frame.
pub struct ShardReader {
    file: File,
    shape: ShardShape,
    index: Vec<[u64; 2]>,
}

impl ShardReader {
    /// Reads the index, and checks it.
    ///
    /// # Errors
    /// When the file cannot be read or is no shard of this shape.
    pub fn open(path: &Path, shape: ShardShape) -> Result<Self, ReadError> {
        let failed = |why: &dyn ToString| ReadError::new(path, why.to_string());
        let mut file = File::open(path).map_err(|error| failed(&error))?;
        let length = i64::from(shape.frames) * 16 + 4;
        let mut index = Vec::new();
        file.seek(SeekFrom::End(-length))
            .and_then(|_| file.read_to_end(&mut index))
            .map_err(|error| failed(&error))?;
        let (numbers, checksum) = index.split_at(index.len().saturating_sub(4));
        if crc32c::crc32c(numbers).to_le_bytes() != checksum {
            return Err(failed(&"the checksum of its index is wrong"));
        }
        let numbers: Vec<u64> =
            numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let index = numbers.as_chunks::<2>().0.to_vec();
        Ok(Self { file, shape, index })
    }

    /// Whether there is a frame at this position.
    pub fn has(&self, position_in_part: u32) -> bool {
        self.index.get(position_in_part as usize).is_some_and(|place| *place != MISSING)
    }

    /// Frames that are in it.
    pub fn positions(&self) -> u64 {
        self.index.iter().filter(|place| **place != MISSING).count() as u64
    }

    /// The frame's pixels, little-endian; `None` where it is not in the shard.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read(&mut self, position_in_part: u32) -> std::io::Result<Option<Vec<u8>>> {
        let place = self.index.get(position_in_part as usize).copied().unwrap_or(MISSING);
        if place == MISSING {
            return Ok(None);
        }
        let [offset, length] = place;
        let ShardShape { width, height, bytes_per_pixel, .. } = self.shape;
        let expected = width as usize * height as usize * usize::from(bytes_per_pixel);
        let bound = zstd::zstd_safe::compress_bound(expected);
        let length = usize::try_from(length).ok().filter(|length| *length <= bound);
        let length = length.ok_or_else(|| std::io::Error::other("its index is damaged"))?;
        let mut packed = vec![0; length];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut packed)?;
        let pixels = zstd::bulk::decompress(&packed, expected)?;
        if pixels.len() != expected {
            return Err(std::io::Error::other("it holds frames of another size"));
        }
        Ok(Some(pixels))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zarrs::array::Array;
    use zarrs::filesystem::FilesystemStore;

    use super::super::super::layout::SeriesKeys;
    use super::super::super::testing;
    use super::super::metadata;
    use super::*;
    use reticle_base::durable;
    use reticle_domain::facts::Series;

    fn put(folder: &Path, key: &str, bytes: &[u8]) {
        let path = folder.join(key);
        durable::create_dir(path.parent().unwrap()).unwrap();
        durable::write(&path, bytes).unwrap();
    }

    /// Writes those of five frames that `kept` names, two in a part.
    fn write(folder: &Path, series: &Series, kept: &[u64]) -> Vec<ShardInfo> {
        let keys = SeriesKeys::exported(series);
        put(folder, &keys.image_array(), &metadata::image_array(series));
        let shape = ShardShape {
            frames: series.part_frames,
            width: series.width,
            height: series.height,
            bytes_per_pixel: series.bytes_per_pixel,
        };
        (0..3)
            .map(|part| {
                let path = folder.join(keys.image_shard(part));
                durable::create_dir(path.parent().unwrap()).unwrap();
                let mut shard = ShardWriter::create(&path, shape).unwrap();
                for position in kept.iter().filter(|position| **position / 2 == part) {
                    shard.push((position % 2) as u32, &pixels(series, *position)).unwrap();
                }
                shard.finish().unwrap()
            })
            .collect()
    }

    fn pixels(series: &Series, position: u64) -> Vec<u8> {
        let bytes = series.width * series.height * u32::from(series.bytes_per_pixel);
        (0..bytes).map(|at| (at + 50 * position as u32 + 1) as u8).collect()
    }

    #[test]
    fn a_shard_is_read_back_frame_by_frame_and_its_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let series = Series { bytes_per_pixel: 2, ..testing::series(5, 0) };
        write(folder.path(), &series, &[0, 3]);
        let Series { part_frames: frames, width, height, bytes_per_pixel, .. } = series;
        let shape = ShardShape { frames, width, height, bytes_per_pixel };
        let keys = SeriesKeys::exported(&series);
        let path = |part| folder.path().join(keys.image_shard(part));
        let mut first = ShardReader::open(&path(0), shape).unwrap();
        assert_eq!(first.read(0).unwrap(), Some(pixels(&series, 0)));
        assert_eq!(first.read(1).unwrap(), None);
        assert_eq!(first.read(7).unwrap(), None);
        assert_eq!([0, 1, 7].map(|position| first.has(position)), [true, false, false]);
        let mut second = ShardReader::open(&path(1), shape).unwrap();
        assert_eq!(second.read(1).unwrap(), Some(pixels(&series, 3)));
        let mut bytes = std::fs::read(path(1)).unwrap();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        durable::write(&path(1), &bytes).unwrap();
        let error = ShardReader::open(&path(1), shape).err().unwrap().to_string();
        assert!(error.contains("checksum of its index"), "{error}");
    }

    #[test]
    fn zarrs_reads_what_is_there_and_zeros_where_a_frame_is_missing() {
        for bytes_per_pixel in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let series = Series { bytes_per_pixel, ..testing::series(5, 0) };
            let infos = write(folder.path(), &series, &[0, 1, 3]);
            assert_eq!(infos.iter().map(|info| info.frames).collect::<Vec<_>>(), [2, 1, 0]);
            let store = Arc::new(FilesystemStore::new(folder.path()).unwrap());
            let array = Array::open(store, "/series-0.ome.zarr/0").unwrap();
            assert_eq!(array.shape(), [5, 4, 6]);
            for position in 0..5 {
                let subset = [position..position + 1, 0..4, 0..6];
                let found: Vec<u8> = if bytes_per_pixel == 1 {
                    array.retrieve_array_subset(&subset).unwrap()
                } else {
                    let values: Vec<u16> = array.retrieve_array_subset(&subset).unwrap();
                    values.iter().flat_map(|value| value.to_le_bytes()).collect()
                };
                if [0, 1, 3].contains(&position) {
                    assert_eq!(found, pixels(&series, position));
                } else {
                    assert!(found.iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn the_same_frames_give_the_same_bytes() {
        let series = testing::series(5, 0);
        let [one, two] = [(); 2].map(|()| {
            let folder = tempfile::tempdir().unwrap();
            let infos = write(folder.path(), &series, &[0, 2, 3]);
            let path = folder.path().join(SeriesKeys::exported(&series).image_shard(1));
            (infos, std::fs::read(path).unwrap())
        });
        assert_eq!(one, two);
        assert_eq!(one.0[1].written.bytes, one.1.len() as u64);
        // 16 bytes for each of the two positions and 4 of checksum.
        let index = &one.1[one.1.len() - 36..];
        assert_eq!(index[..8], [0; 8]);
        assert_eq!(crc32c::crc32c(&index[..32]).to_le_bytes(), index[32..]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_position() {
        let folder = tempfile::tempdir().unwrap();
        let shape = ShardShape { frames: 3, width: 2, height: 1, bytes_per_pixel: 1 };
        let mut shard = ShardWriter::create(&folder.path().join("shard"), shape).unwrap();
        shard.push(1, &[1, 2]).unwrap();
        for (position, pixels) in [(1, &[1, 2][..]), (0, &[1, 2]), (3, &[1, 2]), (2, &[1])] {
            let error = shard.push(position, pixels).unwrap_err().to_string();
            assert!(error.contains(&format!("the frame at {position} ")), "{error}");
        }
        drop(shard);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

//! What keeps a Zarr of others' making from hanging this program or filling its memory.
//!
//! 1. Its files are read through [`ForeignFiles`]: regular ones only, and no more bytes at a time
//!    than a chunk may have.
//! 2. A chunk says in the metadata how large it is: [`check_chunks`] bounds that before one is read.
//! 3. gzip and zstd are decoded here and not by `zarrs`, which decodes to the end whatever comes
//!    out: no chunk becomes larger than it is said to be.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Once};

use serde_json::Value;
use zarrs::array::codec::api::{
    BytesRepresentation, BytesToBytesCodecTraits, Codec, CodecError, CodecMetadataOptions,
    CodecOptions, CodecRuntimePluginV2, CodecRuntimePluginV3, CodecTraits,
    PartialDecoderCapability, PartialEncoderCapability, RecommendedConcurrency, register_codec_v2,
    register_codec_v3,
};
use zarrs::array::{Array, ArrayBytesRaw};
use zarrs::metadata::Configuration;
use zarrs::plugin::{ExtensionName, ZarrVersion};
use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey};

use reticle_base::foreign_file::{self, ForeignFileError};
use reticle_imagefile::MAX_PIXELS;

/// Largest chunk that is decoded, bytes: one of the largest frames with labels of 64 bits.
const CHUNK_BYTES: u64 = 8 * MAX_PIXELS;

/// Largest file of a Zarr, bytes. A shard holds many chunks, and only some are read at a time.
pub(crate) const FILE_BYTES: u64 = 16 << 30;

/// Largest file of metadata, bytes.
pub(super) const METADATA_BYTES: u64 = 16 << 20;

/// Chunks that a frame may be cut into: each is looked for in a file or an index.
const CHUNKS_A_FRAME: u64 = 1 << 16;

/// Chunks that a shard may hold: its index is in memory, 16 bytes for each.
const CHUNKS_A_SHARD: u64 = 1 << 20;

/// Shards in shards; nobody was seen to use two.
const SHARDS_IN_SHARDS: usize = 4;

/// The files below a folder.
#[derive(Debug)]
pub(super) struct ForeignFiles {
    folder: PathBuf,
}

impl ForeignFiles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn open(&self, key: &StoreKey) -> Result<Option<(File, u64)>, StorageError> {
        let name = key.as_str();
        let is_metadata = name.ends_with(".json") || name.rsplit('/').next().is_some_and(is_dot);
        let limit = if is_metadata { METADATA_BYTES } else { FILE_BYTES };
        match foreign_file::open(&self.folder.join(name), limit) {
            Ok(file) => {
                let bytes = file.metadata()?.len();
                Ok(Some((file, bytes)))
            }
            Err(ForeignFileError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(StorageError::Other(format!("{name} {error}"))),
        }
    }
}

/// `.zarray` and the like.
fn is_dot(name: &str) -> bool {
    name.starts_with('.')
}

impl ReadableStorageTraits for ForeignFiles {
    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let Some((file, size)) = self.open(key)? else { return Ok(None) };
        let key = key.clone();
        Ok(Some(Box::new(byte_ranges.map(move |range| read(&file, size, &key, range)))))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        Ok(self.open(key)?.map(|(_, size)| size))
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

fn read(
    file: &File,
    size: u64,
    key: &StoreKey,
    range: ByteRange,
) -> Result<bytes::Bytes, StorageError> {
    let wrong = |why: String| StorageError::Other(format!("{}: {why}", key.as_str()));
    let (start, length) = match range {
        ByteRange::FromStart(start, Some(length)) => (start, length),
        ByteRange::FromStart(start, None) => (start, size.saturating_sub(start)),
        ByteRange::Suffix(length) => (size.saturating_sub(length), length),
    };
    if start.checked_add(length).is_none_or(|end| end > size) {
        return Err(wrong(format!("it ends before byte {}", start.saturating_add(length))));
    }
    // What was not worth compressing is a little larger than what is in it.
    if length > CHUNK_BYTES + CHUNK_BYTES / 8 {
        return Err(wrong(format!("a chunk has {length} bytes; {CHUNK_BYTES} are the most")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}

/// Whether its chunks are of a size and number that are read, by what the metadata says.
pub(super) fn check_chunks<S: ?Sized>(array: &Array<S>) -> Result<(), String> {
    let metadata = serde_json::to_value(array.metadata()).map_err(|error| error.to_string())?;
    let grid = &metadata["chunk_grid"]["name"];
    if !grid.is_null() && grid != "regular" {
        return Err(format!(
            "its chunks lie in a grid of the kind {grid}; save it with a regular one"
        ));
    }
    let first = vec![0; array.shape().len()];
    let shape = array.chunk_shape(&first).map_err(|error| error.to_string())?;
    let mut chunk: Vec<u64> = shape.iter().map(|length| length.get()).collect();
    let mut codecs = &metadata["codecs"];
    for _ in 0..SHARDS_IN_SHARDS {
        let Some(sharding) = list(codecs).find(|codec| codec["name"] == "sharding_indexed") else {
            break;
        };
        let inner: Vec<u64> =
            list(&sharding["configuration"]["chunk_shape"]).filter_map(Value::as_u64).collect();
        if inner.len() != chunk.len() || inner.contains(&0) {
            return Err("its shards have chunks of another number of axes".to_owned());
        }
        let inside = product(chunk.iter().zip(&inner).map(|(all, one)| all.div_ceil(*one)));
        if inside.is_none_or(|inside| inside > CHUNKS_A_SHARD) {
            return Err(format!("its shards hold more than {CHUNKS_A_SHARD} chunks; use fewer"));
        }
        (chunk, codecs) = (inner, &sharding["configuration"]["codecs"]);
    }
    if list(codecs).any(|codec| codec["name"] == "sharding_indexed") {
        return Err("has shards in shards in shards; save it with one level of them".to_owned());
    }
    // The widest values that are read have 8 bytes.
    if product(chunk.iter().copied()).is_none_or(|values| values > CHUNK_BYTES / 8) {
        return Err(format!(
            "has chunks of {chunk:?} values; {MAX_PIXELS} are the most: save it with smaller ones"
        ));
    }
    let [.., height, width] = array.shape() else { return Ok(()) };
    let [.., rows, columns] = chunk.as_slice() else { return Ok(()) };
    let a_frame = height.div_ceil(*rows).saturating_mul(width.div_ceil(*columns));
    if a_frame > CHUNKS_A_FRAME {
        return Err(format!(
            "has {a_frame} chunks a frame; {CHUNKS_A_FRAME} are the most: save it with larger ones"
        ));
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn product(mut factors: impl Iterator<Item = u64>) -> Option<u64> {
    factors.try_fold(1_u64, u64::checked_mul)
}

/// From now on gzip and zstd are decoded by [`Bounded`], in this process.
pub(super) fn bound_decoders() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for codec in [Bounded::Gzip, Bounded::Zstd] {
            let made = move || Ok(Codec::BytesToBytes(Arc::new(codec)));
            let is_it = move |name: &str| name == codec.word();
            register_codec_v2(CodecRuntimePluginV2::new(is_it, move |_| made()));
            let is_it = move |name: &str| name == codec.word() || name == codec.numcodecs();
            register_codec_v3(CodecRuntimePluginV3::new(is_it, move |_| made()));
        }
    });
}

/// A decoder that gives no more bytes than a chunk is said to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bounded {
    Gzip,
    Zstd,
}

impl Bounded {
    fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// As Zarr 2 that was made a Zarr 3 names it.
    fn numcodecs(self) -> &'static str {
        match self {
            Self::Gzip => "numcodecs.gzip",
            Self::Zstd => "numcodecs.zstd",
        }
    }

    fn unpack(self, packed: &[u8], limit: u64) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Vec::new();
        let limited = limit.saturating_add(1);
        match self {
            Self::Gzip => {
                flate2::bufread::GzDecoder::new(packed).take(limited).read_to_end(&mut bytes)
            }
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(packed)
                .and_then(|decoder| decoder.take(limited).read_to_end(&mut bytes)),
        }
        .map_err(|error| CodecError::Other(format!("its {} is damaged: {error}", self.word())))?;
        if bytes.len() as u64 > limit {
            return Err(CodecError::Other(format!(
                "its {} holds more than the {limit} bytes of a chunk",
                self.word()
            )));
        }
        Ok(bytes)
    }
}

impl ExtensionName for Bounded {
    fn name(&self, _version: ZarrVersion) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(self.word()))
    }
}

impl CodecTraits for Bounded {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn configuration(
        &self,
        _version: ZarrVersion,
        _options: &CodecMetadataOptions,
    ) -> Option<Configuration> {
        Some(Configuration::default())
    }

    fn partial_decoder_capability(&self) -> PartialDecoderCapability {
        PartialDecoderCapability { partial_read: false, partial_decode: false }
    }

    fn partial_encoder_capability(&self) -> PartialEncoderCapability {
        PartialEncoderCapability { partial_encode: false }
    }
}

impl BytesToBytesCodecTraits for Bounded {
    fn into_dyn(self: Arc<Self>) -> Arc<dyn BytesToBytesCodecTraits> {
        self
    }

    fn recommended_concurrency(
        &self,
        _decoded: &BytesRepresentation,
    ) -> Result<RecommendedConcurrency, CodecError> {
        Ok(RecommendedConcurrency::new_maximum(1))
    }

    fn encoded_representation(&self, decoded: &BytesRepresentation) -> BytesRepresentation {
        let packed = |bytes: u64| bytes.saturating_add(bytes / 8).saturating_add(1024);
        decoded.size().map_or(BytesRepresentation::UnboundedSize, |bytes| {
            BytesRepresentation::BoundedSize(packed(bytes))
        })
    }

    fn encode<'a>(
        &self,
        _decoded: ArrayBytesRaw<'a>,
        _options: &CodecOptions,
    ) -> Result<ArrayBytesRaw<'a>, CodecError> {
        Err(CodecError::Other("label images of others are read only".to_owned()))
    }

    fn decode<'a>(
        &self,
        encoded: ArrayBytesRaw<'a>,
        decoded: &BytesRepresentation,
        _options: &CodecOptions,
    ) -> Result<ArrayBytesRaw<'a>, CodecError> {
        let limit = decoded.size().unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES + CHUNK_BYTES / 8 + 1024);
        self.unpack(&encoded, limit).map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(codec: Bounded, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Bounded::Gzip => {
                let fast = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Bounded::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    #[test]
    fn a_chunk_never_becomes_larger_than_it_is_said_to_be() {
        for codec in [Bounded::Gzip, Bounded::Zstd] {
            let bomb = packed(codec, &vec![0; 10 << 20]);
            assert!(bomb.len() < 100_000, "{codec:?}: {}", bomb.len());
            assert_eq!(codec.unpack(&bomb, 10 << 20).unwrap().len(), 10 << 20);
            let error = codec.unpack(&bomb, 24).unwrap_err().to_string();
            assert!(error.contains("holds more than the 24 bytes of a chunk"), "{error}");
            let error = codec.unpack(&bomb[..50], 10 << 20).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }
}

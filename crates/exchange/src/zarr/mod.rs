//! OME-Zarr 0.5 (Zarr 3): one image for each series, its label images beside it.
//!
//! An array is `[t, y, x]`. A shard, which is one file or object, holds one part of the frames;
//! in it each frame is an inner chunk of its own, compressed with zstd, so that one frame can be
//! read without its neighbours. A frame that is not there has no inner chunk, and reads as 0.

mod foreign;
mod metadata;
mod read;
mod shard;

pub(super) use foreign::FILE_BYTES;
pub(super) use metadata::{document, image_type};
pub use metadata::{image_array, image_group, label_array, label_group, labels_group};
pub use read::LabelArray;
pub(super) use read::is_node;
pub use shard::{ShardInfo, ShardReader, ShardShape, ShardWriter};

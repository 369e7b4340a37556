//! Networks as ONNX files, in and out.
//!
//! What is written is read back as the same graph, and by every other runtime of the last years.
//! Only what this program knows is read: anything else is an error that names it.

mod message;
mod read;
mod write;

pub use read::{ReadError, read};
pub use write::{Output, write};

//! Small convolutional networks on the CPU, in `f32`: run, taught, read and written.
//!
//! Left to right: [`onnx`] reads a file into a [`graph`], the [`engine`] prepares and runs it, and
//! the [`trainer`] teaches the one network whose shape [`trainer::topology`] describes, which
//! [`trainer::weights`] turns into a graph and `onnx` writes. [`runner`] is the way in for those who
//! have a file and want maps: it takes the engine, or tract where the engine does not know the
//! network (cargo feature `tract`; no other file names tract).
//!
//! What a frame is, which tiles it is cut into, and how objects are read from maps does not belong
//! here.
//!
//! **Numerics.** Every output is the same to the bit on every processor: sums are made in the order
//! of the input channels, whatever the width of a vector, and each product is added without being
//! rounded before. A processor without fused multiply-add computes that in software.

pub mod block;
pub mod engine;
pub mod graph;
pub mod onnx;
pub mod planes;
pub mod run_error;
pub mod runner;
pub mod trainer;
#[cfg(feature = "tract")]
mod with_tract;

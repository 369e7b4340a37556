//! How the numbers of a result are computed, by name.
//!
//! The name belongs to the model package and to what this program can compute, never to the
//! processor at hand: the same frame, package and parameters give the same labels and the same
//! measures, bit for bit, on every processor. Each result states the name beside its parameters.
//!
//! Whatever changes a bit of any result gets a name of its own: another order of sums, kernels on
//! integers, another formula of a measure. The number at the end counts such changes.

/// Kernels on `f32` with fused products, summed in the order of the input channels, and measures by
/// arithmetic and `libm`.
pub const F32_FMA_1: &str = "f32-fma-1";

/// The ones that a package may ask for.
pub const KNOWN: [&str; 1] = [F32_FMA_1];

/// Of networks that the engine does not know: tract chooses kernels for the processor at hand. The one
/// name that promises nothing on another processor.
pub const TRACT: &str = "f32-tract";

/// What packages ask for that were made before there was another.
pub(super) fn first() -> String {
    F32_FMA_1.to_owned()
}

//! What the size map says: how large an object is against what the model is made for.
//!
//! 0.5 is the model's own object diameter, and 1/6 more or less is twice or half of it, so
//! that the map spans a factor of 64. The diameter is that of a circle with the object's area.

/// Doublings from 0 to 1.
const OCTAVES: f32 = 6.0;

/// The map's value for an object whose diameter is `ratio` times that of the model's.
pub fn value_of(ratio: f32) -> f32 {
    (0.5 + libm::log2f(ratio) / OCTAVES).clamp(0.0, 1.0)
}

/// The other way round.
pub fn ratio_of(value: f32) -> f32 {
    libm::exp2f((value - 0.5) * OCTAVES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_octaves_around_a_half() {
        let values = [0.001, 0.5, 1.0, 2.0, 8.0, 100.0].map(value_of);
        assert_eq!(values, [0.0, 0.5 - 1.0 / 6.0, 0.5, 0.5 + 1.0 / 6.0, 1.0, 1.0]);
        for ratio in [0.2, 1.0, 3.0] {
            assert!((ratio_of(value_of(ratio)) - ratio).abs() < 1e-5);
        }
    }
}

//! Segment
pub mod normalise;

//! Learning: from images with label images to a model package, and how good it is.
//!
//! Left to right: [`dataset`] reads image and label pairs, [`augment`] makes training crops,
//! [`targets`] turns labels into the maps the network learns, [`net`] is the network,
//! [`train`] teaches it, [`export`] writes it as ONNX, and [`evaluate`] scores label images.
//! The held-out split chooses post-processing parameters in [`tune`]; nothing else sees it.

pub mod augment;
pub mod card;
pub mod dataset;
pub mod evaluate;
pub mod export;
pub mod net;
pub mod targets;
pub mod train;
pub mod tune;

//! Learning: from images with label images to a model package, and how good it is.
//!
//! Left to right: [`dataset`] reads image and label pairs, [`augment`] makes training crops,
//! [`targets`] turns labels into the maps the network learns, and [`train`] shows them to the network
//! many times, whose arithmetic is [`reticle_nn::trainer`]. The held-out split chooses
//! post-processing parameters in [`tune`]; nothing else sees it. [`card`] says what came of it.

#[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
pub mod augment;
pub mod card;
#[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
pub mod dataset;
pub mod targets;
#[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
pub mod train;
pub mod tune;

//! Learning: from images with label images to a model package, and how good it is.
//!
//! Left to right: [`dataset`] reads image and label pairs, [`augment`] makes training crops,
//! [`targets`] turns labels into the maps the network learns, [`net`] is the network, [`pass`]
//! takes a batch through it and its gradients back, [`loss`] says how wrong it was,
//! [`optimiser`] makes it better, [`train`] does all that many times, [`checkpoint`] keeps it
//! from being lost, [`export`] writes the network as ONNX, and [`evaluate`] scores label images.
//! The held-out split chooses post-processing parameters in [`tune`]; nothing else sees it.
//!
//! [`pass`] rests on [`kernel`] (convolutions) and [`elementwise`] (all else), both on
//! [`planes`]. They are our own: a general framework reached a fifth of what the processor can
//! do on a network with so few channels, and was the largest dependency.

#[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
pub mod augment;
mod batch_norm;
pub mod card;
pub mod checkpoint;
#[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
pub mod dataset;
pub mod elementwise;
pub mod evaluate;
pub mod export;
pub mod kernel;
pub mod loss;
pub mod net;
pub mod optimiser;
pub mod pass;
mod plan;
pub mod planes;
pub mod targets;
#[expect(clippy::disallowed_methods, reason = "training: no result comes from here")]
pub mod train;
pub mod tune;

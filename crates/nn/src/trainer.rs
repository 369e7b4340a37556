//! Teaching a network: from crops and what their maps should be to better weights.
//!
//! [`topology`] says what the network is, once, for all the others: [`net`] holds its numbers,
//! [`plan`] the order in which a batch goes through it, [`weights`] makes a graph of it that the
//! engine runs and a file keeps. [`pass`] takes a batch through and its gradients back, [`loss`]
//! says how wrong it was, [`optimiser`] makes it better, [`checkpoint`] keeps it from being lost.
//!
//! [`pass`] rests on [`kernel`] (convolutions), [`elementwise`] and [`batch_norm`] (all else). They
//! are our own: a general framework reached a fifth of what the processor can do on a network with so
//! few channels, and was the largest dependency.

mod batch_norm;
pub mod checkpoint;
mod elementwise;
mod kernel;
pub mod loss;
pub mod net;
pub mod optimiser;
pub mod pass;
mod plan;
pub mod topology;
pub mod weights;

//! What every other module stands on: time, ids, shutdown, queues, rates, progress, supervision, back-off,
//! fault injection, percentiles, durable files, descriptors, files and texts of others, addresses without
//! their secrets.
//!
//! Nothing here knows what a frame is. `base` names no other module of the crate.

pub mod address;
pub mod backoff;
pub mod clock;
pub mod crash;
pub mod descriptors;
pub mod durable;
pub mod fault_injection;
pub mod foreign_file;
pub mod ids;
pub mod memory;
pub mod plain_text;
pub mod progress;
pub mod quantile;
pub mod queue;
pub mod rate;
pub mod remedy;
pub mod shutdown;
pub mod supervise;
pub mod thread;
pub mod words;

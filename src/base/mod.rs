//! What every other module stands on: time, ids, shutdown, queues, progress, supervision,
//! drills, percentiles, durable files.
//!
//! Nothing here knows what a frame is. `base` names no other module of the crate.

pub mod clock;
pub(crate) mod crash;
pub mod drill;
pub mod durable;
pub mod ids;
pub mod memory;
pub mod progress;
pub mod quantile;
pub mod queue;
pub mod shutdown;
pub mod supervise;

//! The lab's words as plain data: frame, label image, object, segmentation, session,
//! record, facts, event, alarm, health, status, actor, order. No I/O, no threads, no async.

pub mod actor;
pub mod alarm;
pub mod event;
pub mod facts;
pub mod frame;
pub mod health;
pub mod label_image;
pub mod look;
pub mod object;
pub mod order;
pub mod outline;
pub mod pixel_size;
pub mod segmentation;
pub mod session;
pub mod status;
pub mod taken;

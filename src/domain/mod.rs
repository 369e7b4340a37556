//! The lab's words as plain data: frame, label image, object, segmentation, session,
//! record, facts, status. No I/O, no threads, no async.

pub mod facts;
pub mod frame;
pub mod label_image;
pub mod object;
pub mod record;
pub mod segmentation;
pub mod session;
pub mod status;

//! Writing: one thread, one connection. Jobs come in, are prepared, become rows and files, and are
//! reported once they are committed.

pub(crate) mod batch;
mod insert;
mod prepared;
pub(crate) mod retention;
pub(crate) mod writer;

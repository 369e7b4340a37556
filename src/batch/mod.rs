//! Work on many images at a time, or on a whole session: segment a set of files, export, import.
//!
//! These are the use cases behind the verbs of those names: functions that a job, a page or a test can
//! call as well. Each is given what to do, tells an [`Observer`] how far it is, and asks it whether to
//! go on. None of them parses a command line or prints.
//!
//! An error is for the person who asked, as in `app` and `cli`, so it is `anyhow`'s; what is wrong with
//! one image ends nothing, and stands in the report.

pub mod export;
pub mod import;
pub mod segment;

/// Whoever follows a batch, perhaps from several threads at once.
pub trait Observer: Sync {
    /// So many steps lie ahead; 0 where nobody can tell.
    fn begin(&self, steps: u64);

    /// One more step is done, and its result is written.
    fn advance(&self);

    /// Something that a person should know: one sentence that names what it is about.
    fn say(&self, words: &str);

    /// Whether to end early. What was written until then stays.
    fn is_cancelled(&self) -> bool;
}

/// The batch was ended early, because its observer wished it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled; what was written until then stays")]
pub struct Cancelled;

/// One more step is done; whether to go on.
fn step(observer: &dyn Observer) -> Result<(), Cancelled> {
    observer.advance();
    if observer.is_cancelled() { Err(Cancelled) } else { Ok(()) }
}

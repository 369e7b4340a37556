//! Why a network does not run.

/// The network cannot be prepared or run.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} it: {reason}")]
pub struct RunError {
    doing: &'static str,
    reason: String,
}

impl RunError {
    /// It cannot be run.
    pub(crate) fn run(reason: impl Into<String>) -> Self {
        Self { doing: "run", reason: reason.into() }
    }

    /// It cannot be prepared.
    #[cfg(feature = "tract")]
    pub(crate) fn prepare(reason: impl Into<String>) -> Self {
        Self { doing: "prepare", reason: reason.into() }
    }
}

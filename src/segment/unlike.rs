//! Whether a picture is of the kind that its model knows.
//!
//! Judged from [`Evidence`] by limits that `make prove-unlike` measured; `docs/design/unlike.md` has the
//! table. A word here never changes what is found.

use super::evidence::Evidence;
use crate::domain::look::Unlike;

/// Which way the objects of a model differ from what is around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// They are brighter.
    Bright,
    /// They are darker.
    Dark,
    /// Both, or it cannot be told.
    Either,
}

/// In which way the picture is unlike what the model knows; `None` where it is not.
pub fn judge(_evidence: &Evidence, _polarity: Polarity) -> Option<Unlike> {
    None
}

/// Which way the objects of a model's own golden frame differ from what is around them: the one
/// picture of its kind that comes with every model.
pub fn polarity_of(_package: &super::package::ModelPackage, _clock: &crate::base::clock::Clock) -> Polarity {
    Polarity::Bright
}

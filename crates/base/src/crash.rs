//! Points at which a test can let the process die, to see what survives.
//!
//! In the program they do nothing: no code of it calls [`arm`]. A test's child process does, with
//! a function that kills the process when its point is reached.

use std::sync::OnceLock;

static AT: OnceLock<fn(&'static str)> = OnceLock::new();

/// Passes the point `name`; a test that called [`arm`] may let the process die here.
#[inline]
pub fn point(name: &'static str) {
    if let Some(at) = AT.get() {
        at(name);
    }
}

/// From now on `at` is called at each point of this process. For tests only; a second call is
/// ignored.
pub fn arm(at: fn(&'static str)) {
    AT.set(at).ok();
}

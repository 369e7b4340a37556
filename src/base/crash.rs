//! Points at which a test can let the process die, to see what survives.
//!
//! In the program itself they are nothing: the body exists only in unit-test builds, where a
//! child process names its point in `RETICLE_CRASH_AT` (`name` or `name:n` for the n-th time)
//! and is killed there with SIGKILL, which no handler and no destructor can soften.

/// Dies here if a test asked for it.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// Dies here if a test asked for it.
#[cfg(test)]
pub(crate) fn point(name: &'static str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("RETICLE_CRASH_AT") else { return };
    let (wanted, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == nth.parse().unwrap_or(1) {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).ok();
        loop {
            std::thread::park();
        }
    }
}

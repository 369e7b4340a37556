//! File descriptors: how many this process may have, and how many it has.
//!
//! A connection, a frame file and the database each take one, and the kernel refuses whoever
//! comes last. So those that strangers can open (connections) are counted beforehand and bounded
//! by what is left for the rest; see `web::admission`.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Where Linux lists the descriptors of the process.
const OPEN: &str = "/proc/self/fd";

/// Raises the soft limit to the hard one, which needs no privilege, and returns the limit that
/// holds now. `None` is no limit. Shells and service managers give 1,024 for the sake of programs
/// that call `select`; this one does not.
pub fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, wanted) {
            Ok(()) => limit = wanted,
            Err(error) => tracing::debug!(%error, "the limit of descriptors stays as it is"),
        }
    }
    limit.current
}

/// How many more this process may open now.
pub fn left() -> u64 {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return u64::MAX };
    // Listing takes a descriptor of its own, which is counted: one too many is the safe side.
    let open = std::fs::read_dir(OPEN).map_or(0, |entries| entries.count() as u64);
    limit.saturating_sub(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_one_less_that_may_be_opened() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
        let before = left();
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close files meanwhile, but not a hundred.
        assert!(limit.is_none() || left() + 50 < before);
        drop(files);
    }
}

//! What was given of a folder, for the life of the process.
//!
//! A folder that is lost, as a network share that goes away, is opened again and listed anew.
//! Its files may have other inodes then, so an image is the one that was given if its name, its
//! size and its time of change are the same ([`super::watch`] makes the key of these).
//!
//! What is gone from the folder is not forgotten at once: where a share is not mounted there
//! is an empty folder, and its files come back. It is forgotten when there is more than
//! [`REMEMBERED`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files that are remembered whether they are still there or not: some 19 MB of memory, and
/// more than two days at 5 images a second.
const REMEMBERED: usize = 1 << 20;

/// Outlives the [`super::Folder`]s that share it. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Given>>);

#[derive(Default)]
struct Given {
    /// Files of which nothing more is to come.
    done: HashSet<u64>,
    /// Whether what earlier processes took is in there.
    filled: bool,
    /// The file that was begun last, and how many of its pages were passed.
    begun: Option<(u64, usize)>,
}

/// What was given of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remembered {
    Nothing,
    /// So many pages, from the first.
    Pages(usize),
    Everything,
}

impl Memory {
    fn given(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `pages` of a file were given.
    pub(super) fn begun(&self, file: u64, pages: usize) {
        self.given().begun = Some((file, pages));
    }

    /// All of a file was given, or refused.
    pub(super) fn done(&self, file: u64) {
        self.given().done.insert(file);
    }

    /// It is to be given after all.
    pub(super) fn forget(&self, file: u64) {
        self.given().done.remove(&file);
    }

    /// Whether what earlier processes took is still missing.
    pub(super) fn is_to_be_filled(&self) -> bool {
        !self.given().filled
    }

    /// What earlier processes took is in there.
    pub(super) fn was_filled(&self) {
        self.given().filled = true;
    }

    /// What was given of a file.
    pub(super) fn of(&self, file: u64) -> Remembered {
        let given = self.given();
        match given.begun {
            _ if given.done.contains(&file) => Remembered::Everything,
            Some((begun, pages)) if begun == file => Remembered::Pages(pages),
            _ => Remembered::Nothing,
        }
    }

    /// Whether it is time to forget what is gone.
    pub(super) fn is_crowded(&self) -> bool {
        self.given().done.len() > REMEMBERED
    }

    /// Forgets all files but these.
    pub(super) fn keep_only(&self, present: &HashSet<u64>) {
        self.given().done.retain(|file| present.contains(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_new_then_begun_then_done() {
        let memory = Memory::default();
        assert_eq!(memory.of(7), Remembered::Nothing);
        memory.begun(7, 2);
        assert_eq!((memory.of(7), memory.of(8)), (Remembered::Pages(2), Remembered::Nothing));
        memory.done(7);
        memory.begun(8, 1);
        assert_eq!((memory.of(7), memory.of(8)), (Remembered::Everything, Remembered::Pages(1)));
    }

    #[test]
    fn what_is_gone_is_forgotten_only_when_there_is_too_much() {
        let memory = Memory::default();
        let most = REMEMBERED as u64;
        (0..most).for_each(|file| memory.done(file));
        assert!(!memory.is_crowded());
        memory.done(most);
        assert!(memory.is_crowded());
        memory.keep_only(&HashSet::from([5]));
        assert!(!memory.is_crowded());
        assert_eq!((memory.of(5), memory.of(6)), (Remembered::Everything, Remembered::Nothing));
    }
}

//! What one execution took and did: memory, CPU time, panics that somebody caught.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::panic::PanicHookInfo;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that are allocated now, and the most since [`Memory::begin`].
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Panics by the place in the sources where they began.
static PANICS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The system's allocator, counted.
pub(crate) struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe; it only counts what the system's one does")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there while the bytes are moved.
        taken(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn taken(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(now, Relaxed);
}

/// What is allocated from a moment on.
pub(crate) struct Memory {
    before: usize,
}

impl Memory {
    pub(crate) fn begin() -> Self {
        let before = NOW.load(Relaxed);
        MOST.store(before, Relaxed);
        Self { before }
    }

    /// The most bytes at one time, beyond those at the beginning.
    pub(crate) fn most(&self) -> usize {
        MOST.load(Relaxed).saturating_sub(self.before)
    }
}

/// Counts panics from now on, and prints them only where they `are_shown`.
pub(crate) fn count_panics(are_shown: bool) {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if are_shown {
            show(info);
        }
        let place = info.location().map_or_else(
            || "somewhere".to_owned(),
            |at| format!("{}:{}", short(at.file()), at.line()),
        );
        if let Ok(mut panics) = PANICS.lock() {
            *panics.entry(place).or_default() += 1;
        }
    }));
}

/// The panics until now.
pub(crate) fn panics() -> BTreeMap<String, u64> {
    PANICS.lock().map(|panics| panics.clone()).unwrap_or_default()
}

/// A dependency's file without the folder that its crate lies in.
fn short(file: &str) -> &str {
    file.rsplit_once("/registry/src/")
        .map_or(file, |(_, rest)| rest.split_once('/').map_or(rest, |(_, of_crate)| of_crate))
}

/// Whether a panic began in this repository's own code: the compiler names its files from the
/// root of the package, those of others by their whole path.
pub(crate) fn is_ours(place: &str) -> bool {
    place.starts_with("src/")
}

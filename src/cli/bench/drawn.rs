//! Frames of the virtual microscope to measure on.
//!
//! The microscope is gone when they are segmented, and so are the true labels: the peak memory of
//! the process is then that of segmentation, and of the few frames that are held.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::capture::{Event, Options, Source, SourceError, VirtualScope};
use reticle_base::clock::Clock;
use reticle_domain::frame::Frame;

/// Frames that are drawn of each kind. They are measured in turn, so that none comes right after
/// itself; more would only take memory.
const DIFFERENT: usize = 2;

/// What frames to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Pixels along each edge.
    pub(super) edge: u32,
    /// Objects in it; `None` for as many as an untreated well has.
    pub(super) objects: Option<u32>,
}

/// Frames of one kind.
pub(super) struct Drawn {
    /// At least one.
    pub(super) frames: Vec<Arc<Frame>>,
    /// Objects to be seen in them, the most of all.
    pub(super) objects: u32,
}

/// Each size with each number of objects, in the order given.
///
/// # Errors
/// When the microscope has no such frames.
pub(super) fn kinds(sizes: &[u32], objects: &[u32]) -> Result<Vec<Kind>, SourceError> {
    let mut numbers: Vec<Option<u32>> = objects.iter().copied().map(Some).collect();
    if numbers.is_empty() {
        numbers.push(None);
    }
    let kinds: Vec<Kind> = sizes
        .iter()
        .flat_map(|&edge| numbers.iter().map(move |&objects| Kind { edge, objects }))
        .collect();
    for &kind in &kinds {
        scope(kind, Clock::manual(0))?;
    }
    Ok(kinds)
}

/// Draws frames.
///
/// # Errors
/// When the microscope has no such frames.
pub(super) fn frames(kind: Kind) -> anyhow::Result<Drawn> {
    let clock = Clock::manual(0);
    let mut scope = scope(kind, clock.clone())?;
    let mut drawn = Drawn { frames: Vec::new(), objects: 0 };
    for _ in 0..DIFFERENT {
        let mut frame = next_frame(&mut scope, &clock)?;
        let truth = frame.truth.take();
        drawn.objects = drawn.objects.max(truth.map_or(0, |truth| truth.count()));
        drawn.frames.push(Arc::new(frame));
    }
    Ok(drawn)
}

fn scope(kind: Kind, clock: Clock) -> Result<VirtualScope, SourceError> {
    let edge = Some(kind.edge);
    let options = Options { width: edge, height: edge, ..Options::default() };
    let scope = VirtualScope::new(&options, clock)?;
    match kind.objects {
        Some(objects) => scope.with_objects(objects),
        None => Ok(scope),
    }
}

fn next_frame(scope: &mut VirtualScope, clock: &Clock) -> anyhow::Result<Frame> {
    for _ in 0..100 {
        clock.advance(Duration::from_millis(200));
        if let Event::Frame(frame) = scope.next(Duration::from_millis(1))? {
            return Ok(*frame);
        }
    }
    bail!("the virtual microscope gave no frame; this is a fault in Reticle")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_drawn_with_every_number_of_objects() {
        let kind = |edge, objects| Kind { edge, objects };
        assert_eq!(kinds(&[256, 512], &[]).unwrap(), [kind(256, None), kind(512, None)]);
        assert_eq!(
            kinds(&[256, 512], &[10, 60]).unwrap(),
            [(256, 10), (256, 60), (512, 10), (512, 60)].map(|(edge, n)| kind(edge, Some(n)))
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_before_anything_is_measured() {
        assert!(kinds(&[256, 16_384], &[]).is_err());
        assert!(kinds(&[1024, 4096], &[20_000]).is_err());
    }

    #[test]
    fn drawn_frames_differ_have_the_objects_asked_for_and_hold_no_truth() {
        let drawn = frames(Kind { edge: 256, objects: Some(17) }).unwrap();
        assert_eq!((drawn.frames.len(), drawn.objects), (DIFFERENT, 17));
        assert_ne!(drawn.frames[0].sha256, drawn.frames[1].sha256);
        assert!(drawn.frames.iter().all(|frame| frame.truth.is_none()));
    }
}

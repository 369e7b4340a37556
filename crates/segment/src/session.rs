//! One scale for a session whose frames state none.
//!
//! Estimated for each frame alone, an empty well would be looked at in another scale than its
//! neighbours, and dust in it would be counted as cells. So the pictures of a session decide once:
//!
//! - Each frame that was estimated alone votes for its scale with the objects found in it; a frame
//!   without enough of them, out of focus or unlike what the model knows has no vote.
//! - The first scale with [`ENOUGH`] objects and two thirds of all votes is the session's from then
//!   on; after [`FRAMES`] frames with a vote the one with the most is, the first of two.
//! - Frames up to the decision keep the scale of their own picture, and their results say so.
//! - Frames of another size decide for themselves: with binning a pixel is another.
//! - A session ends with its process, so a new process decides anew; a segmenter that is replaced
//!   after a panic does not.
//!
//! The decision depends on the frames in their order and on nothing else.

use std::collections::HashMap;

use super::scale::Scale;
use reticle_base::ids::SessionId;
use reticle_domain::frame::Frame;
use reticle_domain::look::ScaleFrom;
use reticle_domain::segmentation::{IN_FOCUS, Segmentation};

/// Objects that decide at once. Of fewer the size map has been wrong by an octave.
const ENOUGH: u32 = 20;

/// A frame with fewer objects has no vote: dust may be as many.
const FEWEST: u32 = 5;

/// Frames with a vote after which the most votes decide.
const FRAMES: u32 = 8;

/// Sizes of frames that are told apart; those of more sizes are looked at one by one.
const SIZES: usize = 64;

/// What the frames of the open session have said.
#[derive(Debug, Default)]
pub struct SessionScales {
    session: Option<SessionId>,
    sizes: HashMap<(u32, u32), Votes>,
}

#[derive(Debug, Default)]
struct Votes {
    decided: Option<Scale>,
    frames: u32,
    /// Objects by scale, in the order in which scales came up.
    objects: Vec<(Scale, u32)>,
}

impl SessionScales {
    /// The scale for a frame of `session`, where one was decided.
    pub fn of(&self, session: Option<SessionId>, frame: &Frame) -> Option<Scale> {
        // A frame that is only shown belongs to none, and is looked at as those around it.
        if session.is_some() && session != self.session {
            return None;
        }
        self.sizes.get(&(frame.width, frame.height))?.decided
    }

    /// Takes the vote of a frame of `session`.
    pub fn seen(&mut self, session: Option<SessionId>, segmentation: &Segmentation) {
        let Some(session) = session else { return };
        if self.session != Some(session) {
            *self = Self { session: Some(session), sizes: HashMap::new() };
        }
        let look = &segmentation.look;
        let objects = u32::try_from(segmentation.objects.len()).unwrap_or(u32::MAX);
        if look.scale_from != ScaleFrom::Picture
            || look.unlike.is_some()
            || segmentation.focus < IN_FOCUS
            || objects < FEWEST
        {
            return;
        }
        let size = (segmentation.frame.width, segmentation.frame.height);
        if self.sizes.len() >= SIZES && !self.sizes.contains_key(&size) {
            return;
        }
        let votes = self.sizes.entry(size).or_default();
        if votes.decided.is_some() {
            return;
        }
        votes.add(Scale::of_factor(look.scale), objects);
        if let Some(scale) = votes.decided {
            tracing::info!(
                %session,
                scale = scale.factor(),
                width = size.0,
                height = size.1,
                "frames state no pixel size; the scale of this session is decided by its pictures"
            );
        }
    }
}

impl Votes {
    fn add(&mut self, scale: Scale, objects: u32) {
        if self.decided.is_some() {
            return;
        }
        self.frames += 1;
        match self.objects.iter_mut().find(|(known, _)| *known == scale) {
            Some((_, count)) => *count = count.saturating_add(objects),
            None => self.objects.push((scale, objects)),
        }
        let all: u64 = self.objects.iter().map(|(_, count)| u64::from(*count)).sum();
        // The first of the largest.
        let lead = self.objects.iter().rev().max_by_key(|(_, count)| *count);
        self.decided = lead
            .filter(|(_, count)| {
                let is_clear = *count >= ENOUGH && 3 * u64::from(*count) >= 2 * all;
                is_clear || self.frames >= FRAMES
            })
            .map(|(scale, _)| *scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(votes: &[(f32, u32)]) -> Option<f32> {
        let mut all = Votes::default();
        for &(factor, objects) in votes {
            all.add(Scale::of_factor(factor), objects);
        }
        all.decided.map(Scale::factor)
    }

    #[test]
    fn one_full_frame_decides_and_later_ones_change_nothing() {
        assert_eq!(decided(&[(0.5, 30)]), Some(0.5));
        assert_eq!(decided(&[(0.5, 30), (1.0, 500), (1.0, 500)]), Some(0.5));
    }

    #[test]
    fn sparse_frames_decide_together() {
        assert_eq!(decided(&[(0.5, 8), (0.5, 8)]), None);
        assert_eq!(decided(&[(0.5, 8), (0.5, 8), (0.5, 8)]), Some(0.5));
    }

    #[test]
    fn frames_that_disagree_wait_for_more_but_not_for_ever() {
        let mut votes = vec![(0.5, 20), (1.0, 18)];
        votes.rotate_left(1);
        assert_eq!(decided(&votes), None);
        let torn: Vec<(f32, u32)> = (0..8).map(|n| ([0.5, 1.0][n % 2], 10)).collect();
        assert_eq!(decided(&torn), Some(0.5), "the first of two");
    }
}

//! Segmentation that survives one bad frame: a panic in it costs that frame and no more.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use reticle_base::progress::Progress;
use reticle_base::supervise::words;
use reticle_domain::frame::Frame;
use reticle_domain::segmentation::Segmentation;
use reticle_segment::scale::Scale;
use reticle_segment::{Segmenter, SetUpError};

/// So many panics in a row are no matter of one frame: the thread dies of the last one, and the
/// daemon ends, to be started afresh.
const PANICS: u32 = 3;

/// A segmenter whose panics are caught.
pub(super) struct Guarded {
    segmenter: Segmenter,
    again: Box<dyn Fn() -> Result<Segmenter, SetUpError> + Send>,
    progress: Progress,
    /// Panics since the last frame that went well.
    panics: u32,
}

impl Guarded {
    /// `again` makes a segmenter like the first.
    pub(super) fn new(
        segmenter: Segmenter,
        again: impl Fn() -> Result<Segmenter, SetUpError> + Send + 'static,
        progress: Progress,
    ) -> Self {
        Self { segmenter, again: Box::new(again), progress, panics: 0 }
    }

    /// Segments one frame, of a session that may have decided its scale; why not, for a person, where
    /// that failed or panicked.
    pub(super) fn segment(
        &mut self,
        frame: &Arc<Frame>,
        of_session: Option<Scale>,
    ) -> Result<Segmentation, String> {
        let _busy = self.progress.work();
        // A defect in how one image is handled must not end the record of all others. What the
        // panic may have left half-changed is thrown away with the segmenter.
        let caught = catch_unwind(AssertUnwindSafe(|| {
            self.progress.pass();
            self.segmenter.segment_in_session(frame, of_session)
        }));
        match caught {
            Ok(result) => {
                self.panics = 0;
                result.map_err(|error| error.to_string())
            }
            Err(panic) => {
                self.panics += 1;
                let why = words(&*panic);
                tracing::error!(
                    frame = %frame.id,
                    why,
                    in_a_row = self.panics,
                    "the segmentation of a frame panicked, which is a fault in Reticle; report it"
                );
                if self.panics >= PANICS {
                    resume_unwind(panic);
                }
                match (self.again)() {
                    Ok(segmenter) => self.segmenter = segmenter,
                    Err(error) => {
                        tracing::error!(%error, "no new segmenter after a panic");
                        resume_unwind(panic);
                    }
                }
                Err(format!("its segmentation panicked ({why}); report this as a defect"))
            }
        }
    }
}

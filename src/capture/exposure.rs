//! Exposure that is changed while a source runs.
//!
//! Whoever wants another exposure leaves a wish and waits; the capture thread, which alone may
//! touch the source, takes it between two frames and answers with what the source really took.
//! What was taken is set again when the source was lost and is opened again.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Source;

/// How long a wish waits for the capture thread. Longer than the longest wait for a frame
/// between two looks, and than a camera takes to set a control.
const PATIENCE: Duration = Duration::from_secs(5);

/// The wish for another exposure, and the exposure that was chosen last. Cheap to clone.
#[derive(Clone, Default)]
pub struct Exposure(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    wish: Option<Wish>,
    chosen_us: Option<u32>,
}

struct Wish {
    us: u32,
    reply: SyncSender<Result<u32, String>>,
}

impl Exposure {
    /// Asks for an exposure in microseconds, and waits for what the source takes.
    ///
    /// # Errors
    /// For a person: the source has no such exposure, or capture does not run.
    pub fn set(&self, us: u32) -> Result<u32, String> {
        let (reply, answer) = sync_channel(1);
        if self.lock().wish.replace(Wish { us, reply }).is_some() {
            tracing::debug!("a wish for an exposure was replaced by a later one");
        }
        answer.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            self.lock().wish = None;
            Err("capture does not run, or another exposure was asked for: start it, then ask \
                 again"
                .to_owned())
        })
    }

    /// Fulfils the wish that waits, if there is one.
    pub(super) fn serve(&self, source: &mut dyn Source) {
        let Some(wish) = self.lock().wish.take() else { return };
        let set = source.set_exposure(wish.us);
        match &set {
            Ok(us) => {
                tracing::info!(exposure_us = us, "exposure set");
                self.lock().chosen_us = Some(*us);
            }
            Err(reason) => tracing::warn!(exposure_us = wish.us, reason, "exposure refused"),
        }
        // Who asked may have gone.
        wish.reply.send(set).ok();
    }

    /// Sets a source that was opened again as the one before was set.
    pub(super) fn restore(&self, source: &mut dyn Source) {
        let Some(us) = self.lock().chosen_us else { return };
        if let Err(reason) = source.set_exposure(us) {
            tracing::warn!(exposure_us = us, reason, "the exposure could not be set again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Event, Options, SourceError, open};
    use reticle_base::clock::Clock;

    struct Fixed;

    impl Source for Fixed {
        fn next(&mut self, _: Duration) -> Result<Event, SourceError> {
            Ok(Event::Nothing)
        }
    }

    /// The answer to a wish that `source` serves.
    fn asked(source: &mut dyn Source, us: u32) -> Result<u32, String> {
        let exposure = Exposure::default();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| exposure.set(us));
            while !asking.is_finished() {
                exposure.serve(source);
                std::thread::yield_now();
            }
            asking.join().unwrap()
        })
    }

    #[test]
    fn a_source_answers_with_the_exposure_that_it_took() {
        let mut source = open(&Options::default(), &Clock::manual(0)).unwrap();
        assert_eq!(asked(&mut *source, 20_000), Ok(20_000));
        let Ok(Event::Frame(frame)) = source.next(Duration::ZERO) else { panic!("a first frame") };
        assert_eq!(frame.exposure_us, Some(20_000));
        assert!(asked(&mut *source, 5).unwrap_err().contains("exposure_us"));
    }

    #[test]
    fn a_source_without_an_exposure_says_so() {
        assert!(asked(&mut Fixed, 20_000).unwrap_err().contains("no exposure"));
    }

    #[test]
    fn what_was_chosen_is_chosen_again_after_a_loss() {
        let exposure = Exposure::default();
        exposure.lock().chosen_us = Some(7_000);
        let mut source = open(&Options::default(), &Clock::manual(0)).unwrap();
        exposure.restore(&mut *source);
        let Ok(Event::Frame(frame)) = source.next(Duration::ZERO) else { panic!("a first frame") };
        assert_eq!(frame.exposure_us, Some(7_000));
    }
}

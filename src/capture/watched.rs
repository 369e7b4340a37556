//! A source whose every call can be seen from outside: a driver that hangs inside one is found
//! out by whoever watches its [`Progress`].

use std::time::Duration;

use super::{Event, Source, SourceError};
use reticle_base::progress::Progress;

pub(super) struct Watched {
    /// Taken when this is dropped, and not before.
    source: Option<Box<dyn Source>>,
    progress: Progress,
}

impl Watched {
    pub(super) fn new(source: Box<dyn Source>, progress: Progress) -> Self {
        Self { source: Some(source), progress }
    }

    fn source(&mut self) -> &mut dyn Source {
        self.source.as_deref_mut().expect("it is taken by the drop only")
    }
}

impl Source for Watched {
    fn next(&mut self, patience: Duration) -> Result<Event, SourceError> {
        let _busy = self.progress.work();
        let event = self.source().next(patience);
        if let Ok(Event::Frame(_)) = event {
            self.progress.pass();
        }
        event
    }

    fn rest(&mut self) {
        let _busy = self.progress.work();
        self.source().rest();
    }

    fn set_exposure(&mut self, us: u32) -> Result<u32, String> {
        let _busy = self.progress.work();
        self.source().set_exposure(us)
    }
}

impl Drop for Watched {
    /// Closing a device can hang as well as reading it.
    fn drop(&mut self) {
        let _busy = self.progress.work();
        drop(self.source.take());
    }
}

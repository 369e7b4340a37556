//! `reticle sync drain`: everything that waits is delivered now.

use std::time::Duration;

use super::archive::Archiving;
use super::destinations::Destinations;
use super::engine;
use super::error::SyncError;
use super::outbox::Outbox;
use reticle_base::queue::{self, WhenFull};
use reticle_store::{Delivery, Store};

/// Jobs on their way to the writer: questions, answered one by one.
const QUEUE: usize = 8;

/// How often `tell` is told.
const TELL: Duration = Duration::from_millis(500);

/// Delivers what waits in a store that no daemon has open, and returns how far the destinations
/// are then. It ends when nothing is left to deliver, or when a destination has failed a few
/// times in a row; what is left says why.
///
/// # Errors
/// When the store cannot be opened for the deliveries, or no thread can be started.
pub fn drain(
    destinations: &Destinations,
    mut store: Store,
    mut tell: impl FnMut(&[Delivery]),
) -> Result<Vec<Delivery>, SyncError> {
    const WHAT: &str = "deliver what waits";
    store.deliver_to(destinations.deliveries()).map_err(|error| SyncError::retry(WHAT, error))?;
    Archiving::clean_spool(&destinations.data_folder);
    let reader = store.reader();
    let (jobs, receiver) = queue::bounded("store", QUEUE, WhenFull::Wait);
    let writer = store
        .spawn_writer(receiver, |outcome| tracing::debug!(?outcome, "store"))
        .map_err(|error| SyncError::retry(WHAT, error))?;
    let runtime = engine::runtime().map_err(|error| SyncError::retry(WHAT, error))?;
    runtime.block_on(async {
        let outbox = Outbox::new(jobs);
        let mut draining = std::pin::pin!(engine::drain(destinations, &reader, &outbox));
        while tokio::time::timeout(TELL, draining.as_mut()).await.is_err() {
            if let Ok(deliveries) = reader.deliveries() {
                tell(&deliveries);
            }
        }
    });
    drop(runtime);
    if writer.join().is_err() {
        return Err(SyncError::stop(WHAT, "the writer of the store panicked; report this"));
    }
    reader.deliveries().map_err(|error| SyncError::retry(WHAT, error))
}

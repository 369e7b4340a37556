//! Where results go, opened from the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::archive::Archiving;
use super::central::Central;
use super::delivering::{Centralising, Delivering};
use super::error::SyncError;
use super::options::Options;
use super::outbox::Outbox;
use super::standing::Writer;
use reticle_base::clock::Clock;
use reticle_domain::facts::BoxName;
use reticle_object_storage::ObjectStorage;
use reticle_object_storage::Throttle;
use reticle_store::{Deliveries, Keep, Reader};

/// The configured destinations. Nothing was asked of any server yet.
pub struct Destinations {
    pub(super) archive: Option<ObjectStorage>,
    pub(super) central: Option<Arc<Central>>,
    pub(super) throttle: Throttle,
    pub(super) box_name: BoxName,
    pub(super) data_folder: PathBuf,
    pub(super) max_delay: Duration,
    pub(super) writer: Writer,
    pixels: Keep,
}

impl Destinations {
    /// Reads addresses, certificates and credentials.
    ///
    /// # Errors
    /// What of the configuration is at fault, by its key.
    pub fn open(
        options: &Options,
        box_name: &BoxName,
        store: &reticle_store::Options,
        clock: Clock,
    ) -> Result<Self, SyncError> {
        let throttle = Throttle::new(options.max_upload_mbit, clock.clone());
        // Reading a profile is async in the SDK, without a server being asked.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| SyncError::stop("open the destinations", error))?;
        let archive = runtime.block_on(ObjectStorage::open(
            &options.archive.location(),
            &store.folder,
            throttle.clone(),
            clock.clone(),
        ))?;
        // On a disk that it shares with the store, an archive in a folder stops growing before
        // frame files would have to go for it.
        let free = store.frames.min_free_bytes;
        let archive = archive.map(|archive| archive.leaving_free(free.saturating_add(free / 4)));
        let central = Central::open(&options.central, box_name.clone())?.map(Arc::new);
        Ok(Self {
            archive,
            central,
            throttle,
            box_name: box_name.clone(),
            data_folder: store.folder.clone(),
            max_delay: Duration::from_secs(options.archive.max_delay_s.into()),
            writer: Writer::of_this_process(box_name, clock),
            pixels: options.archive.pixels,
        })
    }

    /// What the store must know of them.
    pub fn deliveries(&self) -> Deliveries {
        Deliveries {
            archive: self.archive.as_ref().map(ObjectStorage::name),
            pixels: if self.archive.is_some() { self.pixels } else { Keep::None },
            central: self.central.as_ref().map(|central| central.name()),
        }
    }

    /// One for each loop.
    pub(super) fn delivering(&self, reader: &Reader, outbox: &Outbox) -> Vec<Delivering> {
        let archive = self.archive.clone().map(|archive| {
            Delivering::Archive(Box::new(Archiving {
                archive,
                reader: reader.clone(),
                outbox: outbox.clone(),
                box_name: self.box_name.clone(),
                data_folder: self.data_folder.clone(),
                writer: self.writer.clone(),
                memory: Arc::default(),
                disputed: Arc::default(),
            }))
        });
        let central = self.central.clone().map(|central| {
            Delivering::Central(Centralising {
                central,
                reader: reader.clone(),
                throttle: self.throttle.clone(),
                writer: self.writer.clone(),
            })
        });
        archive.into_iter().chain(central).collect()
    }
}

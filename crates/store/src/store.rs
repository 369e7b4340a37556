//! The open store, as the rest of the program has it.

use std::collections::VecDeque;
use std::thread::JoinHandle;

use crate::delivery::Deliveries;
use crate::error::StoreError;
use crate::job::{Answer, Ask, Imported, Job, Outcome};
use crate::options::Options;
use crate::read::reader::Reader;
use crate::recovery::{self, Recovery};
use crate::sql::{destinations, schema};
use crate::write::retention;
use crate::write::writer::{Stack, Writer};
use crate::{lock, reach, restore};
use reticle_base::clock::Clock;
use reticle_base::progress::Progress;
use reticle_base::{durable, queue};

/// The open store: the folder's lock and the one connection that writes.
pub struct Store(pub(crate) Writer);

impl Store {
    /// Opens the store, makes it where there is none, and mends what a crash left.
    ///
    /// # Errors
    /// When the folder cannot be made or written, another process has it, or its database is
    /// newer than this program or damaged.
    pub fn open(options: &Options, clock: Clock) -> Result<(Self, Recovery), StoreError> {
        match Self::open_once(options, clock.clone()) {
            Err(error) if error.is_disk_full() && retention::give_up_reserve(&options.folder) => {
                Self::open_once(options, clock)
            }
            other => other,
        }
    }

    fn open_once(options: &Options, clock: Clock) -> Result<(Self, Recovery), StoreError> {
        let folder = &options.folder;
        // A restore that was broken off has the database under another name.
        if !restore::is_begun(folder) {
            reach::refuse_to_forget(folder)?;
        }
        durable::create_dir_private(folder, folder)
            .map_err(StoreError::file("make the data folder", folder))?;
        let (lock, unclean) = lock::FolderLock::take(folder)?;
        restore::finish(folder)?;
        let database = schema::database_path(folder);
        let connection = schema::open_and_migrate(&database)?;
        let reach = reach::Reach::of(folder, &database, lock.file())?;
        let (recovery, kept_bytes) =
            recovery::recover(folder, &database, &connection, &clock, unclean)?;
        let deliveries = destinations::known(&connection)
            .map_err(schema::damaged_or("read the destinations", &database))?;
        let writer = Writer {
            folder: folder.clone(),
            database,
            connection: Some(connection),
            lock,
            reach,
            unlinked: None,
            clock,
            options: options.clone(),
            deliveries,
            progress: Progress::unwatched(),
            held: None,
            stack: Stack::default(),
            run: None,
            kept_bytes,
            leftovers: Vec::new(),
            owed: VecDeque::new(),
        };
        if let Err(error) = writer.restore_reserve() {
            tracing::warn!(%error, "no room is set aside for a full disk");
        }
        tracing::info!(folder = %folder.display(), kept_bytes, ?recovery, "store opened");
        Ok((Self(writer), recovery))
    }

    /// Says where results go from here, before the writer is started. A destination that is new,
    /// or in another place than before, will get everything.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn deliver_to(&mut self, deliveries: Deliveries) -> Result<(), StoreError> {
        self.0.deliver_to(deliveries)
    }

    /// Says which broker is told of events and results from here, before the writer is started.
    /// One that is new, or in another place than before, is told what comes from now on.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn publish_to(&mut self, place: Option<&str>) -> Result<(), StoreError> {
        self.0.publish_to(place)
    }

    /// Saves labels that came from elsewhere, and returns when they are committed:
    /// [`Outcome::Saved`], or [`Outcome::AlreadySaved`] where the frame has labels of that model.
    ///
    /// # Errors
    /// When there is no such frame, the labels do not fit it, or the disk fails.
    pub fn import(&mut self, imported: Imported) -> Result<Outcome, StoreError> {
        let frame = imported.frame;
        let mut last = None;
        self.0.work(vec![Job::Import(imported)], &mut |outcome| last = Some(outcome));
        match last {
            Some(saved @ (Outcome::Saved(_) | Outcome::AlreadySaved { .. })) => Ok(saved),
            Some(Outcome::Failed { error, .. }) => Err(error),
            other => Err(StoreError::Unfit {
                what: "import the labels",
                frame,
                why: format!("the store answered {other:?}; report this as a defect"),
            }),
        }
    }

    /// Closes the store in order.
    pub fn close(self) {
        self.0.close(&mut |outcome| tracing::debug!(?outcome, "while closing"));
    }

    /// Asks the outbox, and returns when the answer is committed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, StoreError> {
        self.0.ask(ask)
    }

    /// Reads what this store saves.
    pub fn reader(&self) -> Reader {
        Reader::of(&self.0.folder, self.0.reach.clone())
    }

    /// The writer's progress is told there from now on.
    #[must_use]
    pub fn report_to(mut self, progress: Progress) -> Self {
        self.0.progress = progress;
        self
    }

    /// Works through `jobs` until the queue is closed and empty, then closes the store. Outcomes
    /// come in the order of the jobs.
    pub fn write(self, jobs: &queue::Receiver<Job>, outcomes: impl FnMut(Outcome)) {
        self.0.run(jobs, outcomes);
    }

    /// Does [`Store::write`] in a thread `store-writer` of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn_writer(
        self,
        jobs: queue::Receiver<Job>,
        outcomes: impl FnMut(Outcome) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || self.write(&jobs, outcomes))
    }
}

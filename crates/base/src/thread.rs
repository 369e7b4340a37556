//! The long-lived threads of the daemon, and what happens when one of them dies.

/// A long-lived thread of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// The main thread: commands, signals, alarms, the watchdog.
    Control,
    /// Takes frames from the source.
    Capture,
    /// Segments them.
    Segment,
    /// The only one that writes the database.
    StoreWriter,
    /// Tells how far the destinations are.
    Sync,
    /// Delivers into the archive.
    SyncArchive,
    /// Delivers into the central database.
    SyncCentral,
    /// Speaks with the broker.
    Publish,
    /// Serves the page and the HTTP API.
    Web,
    /// Sends numbers to the collector.
    Otlp,
}

/// What happens when a thread dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The process ends, so that whoever started it starts a fresh one.
    EndTheProcess,
    /// The thread begins again.
    Restart,
}

impl Policy {
    /// The word for it, as `restart`.
    pub fn word(self) -> &'static str {
        match self {
            Self::EndTheProcess => "end_the_process",
            Self::Restart => "restart",
        }
    }
}

impl Thread {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Control,
        Self::Capture,
        Self::Segment,
        Self::StoreWriter,
        Self::Sync,
        Self::SyncArchive,
        Self::SyncCentral,
        Self::Publish,
        Self::Web,
        Self::Otlp,
    ];

    /// Its name, as `store-writer`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Capture => "capture",
            Self::Segment => "segment",
            Self::StoreWriter => "store-writer",
            Self::Sync => "sync",
            Self::SyncArchive => "sync-archive",
            Self::SyncCentral => "sync-central",
            Self::Publish => "publish",
            Self::Web => "web",
            Self::Otlp => "otlp",
        }
    }

    /// What happens when it dies. The reasons stand at the head of [`crate::supervise`].
    pub fn policy(self) -> Policy {
        match self {
            Self::Control | Self::Capture | Self::Segment | Self::StoreWriter => {
                Policy::EndTheProcess
            }
            Self::Sync
            | Self::SyncArchive
            | Self::SyncCentral
            | Self::Publish
            | Self::Web
            | Self::Otlp => Policy::Restart,
        }
    }
}

//! What the box itself is like: disk, memory, processor, clock, and the stages of the daemon.

/// Measured a few times a minute. What this machine does not tell is `None`.
#[derive(
    Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Health {
    /// When it was measured, RFC 3339 UTC; empty before the first time.
    pub at: String,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// CPU time of the daemon, in percent of one core, since the last measurement.
    pub cpu_percent: f32,
    /// Resident memory of the daemon, bytes.
    pub resident_bytes: u64,
    /// Memory of the box, bytes.
    pub memory_total_bytes: u64,
    /// What of it can still be had, bytes.
    pub memory_available_bytes: u64,
    /// Size of the file system of the store, bytes.
    pub storage_total_bytes: u64,
    /// What of it is free for us, bytes.
    pub storage_free_bytes: u64,
    /// Hottest sensor of the processor, °C.
    pub temperature_c: Option<f32>,
    /// Temperature at which that sensor's processor slows down or stops, °C.
    pub temperature_limit_c: Option<f32>,
    /// Whether the processor is slowed down now, because of heat or weak power.
    pub throttled: Option<bool>,
    /// Whether somebody keeps the clock in step with a reference.
    pub clock_trusted: bool,
    /// The stages of the daemon.
    pub stages: Vec<StageHealth>,
    /// Its threads.
    #[serde(default)]
    pub threads: Vec<ThreadHealth>,
}

/// One stage of the daemon.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct StageHealth {
    /// `capture`, `segment` or `store-writer`.
    pub name: String,
    /// Seconds that it has been at the same piece of work; `None` while it waits for some.
    pub busy_s: Option<f32>,
    /// Whether that is longer than it may be.
    pub stuck: bool,
}

/// One thread of the daemon.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ThreadHealth {
    /// As `store-writer`.
    pub name: String,
    /// What happens when it dies: `restart` or `end_the_process`.
    pub policy: String,
    /// `works`, `pauses` (it died and begins again), `dead` (the process ends) or `ended`.
    pub state: String,
    /// How often it died since the daemon started.
    pub deaths: u64,
    /// When it died last, RFC 3339 UTC.
    pub died: Option<String>,
    /// What it said then.
    pub reason: Option<String>,
    /// Whether it is dead, or died within the last minutes.
    pub lately: bool,
}

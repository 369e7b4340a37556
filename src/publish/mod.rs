//! The lab sees the box: MQTT 5 feeds of state, measurements, events and alarms, and commands.
//!
//! Owns the session at the broker and the thread `publish`. What it says and where is in
//! `payloads.rs` and `topics.rs`, published as an AsyncAPI document ([`asyncapi()`]). It owns no
//! state of the box: it reads the status board and the store, and hands commands on.
//!
//! What it promises
//! 1. State (`status`, `health`, `twin/`, `a/`) is retained, and said again within a second of
//!    every connection: a broker that lost its memory has it back.
//! 2. Every event and every result is told at least once, in the order of the store; only what
//!    the broker acknowledged counts as told. What is told late is marked `historical`.
//! 3. The broker says `offline` when the box is gone without a word.
//! 4. A command is done once or not at all, also over kill -9, and is always answered. Without
//!    settings, none is; and none that is not of now (`commands.rs`). Its answer goes only where the
//!    owner of the box lets it (`reply.rs`).
//! 5. Another client of the box's name is an alarm, and is not fought (`namesake.rs`).
//! 6. Nothing here makes capture, segmentation or the store wait, and none of it ends with this
//!    thread: after a panic it begins again.
//!
//! With `mqtt.mode = "sparkplug"` another feed speaks in its stead, with promises of its own:
//! [`sparkplug`]. Only the last one above is the same.

mod asyncapi;
mod commands;
mod connection;
mod error;
mod feed;
mod home_assistant;
mod ledger;
mod namesake;
mod options;
mod payloads;
mod reply;
mod sparkplug;
mod state;
mod target;
mod telling;
mod topics;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use asyncapi::asyncapi;
pub use error::PublishError;
pub use options::{Measurements, Mode, Op, Options};
pub use target::{PASSWORD_CREDENTIAL, PASSWORD_VARIABLE};

use self::reply::Replies;
use self::target::Target;
use self::topics::Topics;
use reticle_base::clock::Clock;
use reticle_base::queue;
use reticle_base::supervise::Watched;
use reticle_domain::actor::Access;
use reticle_domain::facts::BoxName;
use reticle_domain::order::Executor;
use reticle_domain::status::{StatusBoard, SyncState};
use reticle_store::{Job, Reader};

/// Name of the broker among the destinations of the status.
pub const DESTINATION: &str = "broker";

/// The broker, as the settings have it. Not yet connected.
#[derive(Clone)]
pub struct Broker {
    target: Target,
    topics: Topics,
    replies: Replies,
    options: Options,
    box_name: BoxName,
}

impl Broker {
    /// From the settings, with the password of [`PASSWORD_VARIABLE`] or [`PASSWORD_CREDENTIAL`].
    /// `None` where no `mqtt.url` is set.
    ///
    /// # Errors
    /// A setting that cannot be meant, by its key.
    pub fn open(options: &Options, box_name: &BoxName) -> Result<Option<Self>, PublishError> {
        let Some(url) = &options.url else { return Ok(None) };
        if options.mode == Mode::Sparkplug {
            sparkplug::fits(options)?;
        }
        let password = target::password(
            std::env::var_os(PASSWORD_VARIABLE),
            std::env::var_os("CREDENTIALS_DIRECTORY"),
        )?;
        let topics = Topics::of(box_name)?;
        Ok(Some(Self {
            replies: Replies::of(options, &topics)?,
            topics,
            target: Target::of(url, options, box_name, password)?,
            options: options.clone(),
            box_name: box_name.clone(),
        }))
    }

    /// As `mqtts://host:8883/reticle/v1/lab/box-1`.
    pub fn place(&self) -> String {
        match self.options.mode {
            Mode::Reticle => format!("{}/{}", self.target.url(), self.topics.root()),
            Mode::Sparkplug => {
                let BoxName { site, name } = &self.box_name;
                format!("{}/{}/{site}/{name}", self.target.url(), sparkplug::NAMESPACE)
            }
        }
    }

    /// Whether every event and every result is told, once acknowledged and not before. Then the
    /// store must keep how far that is; else nothing waits for this broker.
    pub fn tells_all(&self) -> bool {
        self.options.mode == Mode::Reticle
    }

    /// Connects under another name, and disconnects.
    ///
    /// # Errors
    /// What the feed would fail of.
    pub async fn probe(&self) -> Result<(), PublishError> {
        Box::pin(connection::probe(&self.target, &self.target.url())).await
    }
}

/// What the feed reads and where it hands things on.
#[derive(Clone)]
pub struct Ports {
    /// What the appliance is doing.
    pub status: StatusBoard,
    /// What is to be told.
    pub reader: Reader,
    /// The store's queue: what was told, and commands for the logbook.
    pub jobs: queue::Sender<Job>,
    /// Who carries out orders.
    pub executor: Arc<dyn Executor>,
    /// What the broker's clients may order.
    pub access: Access,
    /// Time.
    pub clock: Clock,
}

/// How the feed is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishState {
    /// Whether the broker is there.
    pub connected: bool,
    /// Where it is, see [`Broker::place`].
    pub place: String,
    /// What does not work, and what to do, while something does not.
    pub reason: Option<String>,
    /// Events and results that were not told yet.
    pub waiting: u64,
    /// When the oldest of them came, RFC 3339 UTC.
    pub oldest: Option<String>,
    /// What is known of another client of this box's name, while there is one.
    pub name_taken: Option<String>,
    /// How often another client had this box's name, since the start.
    pub taken_over: u64,
}

impl PublishState {
    /// As one of the destinations of the status.
    pub fn as_destination(&self) -> SyncState {
        SyncState {
            destination: DESTINATION.to_owned(),
            location: self.place.clone(),
            waiting: self.waiting,
            quarantined: 0,
            oldest: self.oldest.clone(),
            reason: self.reason.clone(),
            conflict: None,
        }
    }
}

/// A view on [`PublishState`]. Cheap to clone.
#[derive(Clone, Default)]
pub struct PublishBoard(Arc<Mutex<PublishState>>);

impl PublishBoard {
    /// As it is now.
    pub fn read(&self) -> PublishState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut PublishState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The running feed.
pub struct Publishing {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
    board: PublishBoard,
}

impl Publishing {
    /// How it is.
    pub fn state(&self) -> PublishState {
        self.board.read()
    }

    /// The same for those who want to look again and again.
    pub fn board(&self) -> PublishBoard {
        self.board.clone()
    }

    /// Lets it say `stopped`, wait at most 2 s until the broker has it, and disconnect; then the
    /// thread that is given ends. To be called while the store still takes jobs.
    pub fn stop(self) -> JoinHandle<()> {
        self.stop.send_replace(true);
        self.thread
    }
}

/// Starts the thread `publish`, which begins again after a panic: it connects anew, and tells
/// what was not acknowledged.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub fn spawn(broker: Broker, ports: Ports, watched: Watched) -> std::io::Result<Publishing> {
    // Two wait until the store has a mark, one for its logbook, one for a command, and one counts:
    // what hangs in one of them must not keep the others waiting.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(5)
        .build()?;
    let (stop, mut stopping) = watch::channel(false);
    let board = PublishBoard::default();
    board.update(|state| state.place = broker.place());
    let (state, last) = (board.clone(), stopping.clone());
    let thread = std::thread::Builder::new().name("publish".to_owned()).spawn(move || {
        let life = || {
            let (broker, ports, state) = (broker.clone(), ports.clone(), state.clone());
            let (stopping, watched) = (last.clone(), watched.clone());
            runtime.block_on(async move {
                match broker.options.mode {
                    Mode::Reticle => {
                        Box::pin(feed::Feed::new(broker, ports, state).run(stopping, watched))
                            .await;
                    }
                    Mode::Sparkplug => {
                        let node = sparkplug::Node::new(broker, ports, state);
                        Box::pin(node.run(stopping, watched)).await;
                    }
                }
            });
            Ok(())
        };
        while let Some(pause) = watched.attempt(life) {
            state.update(|state| state.connected = false);
            let stops = async { tokio::time::timeout(pause, stopped(&mut stopping)).await.is_ok() };
            if runtime.block_on(stops) {
                break;
            }
        }
    })?;
    Ok(Publishing { thread, stop, board })
}

/// Comes back when it was asked to stop, or the owner is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    stopping.wait_for(|stop| *stop).await.ok();
}

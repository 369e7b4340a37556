//! The thread `sync`: claims deliveries, makes them, and reports what became of them.
//!
//! One loop for each destination, so that one that hangs holds nobody else. A loop claims one
//! delivery at a time, the most urgent first (the store knows the order), and reports it before
//! the next. What fails is given back with a time to wait:
//!
//! | remedy  | what happens |
//! |---------|---------------------------------------------------------------------------------|
//! | retry   | again after a while: 1 s, twice as long each time, at most [`LONGEST_WAIT`], with jitter; the whole destination waits, because the cause is most often its own |
//! | stop    | the same from [`STOP_WAIT`] on; logged as an error, because a person is needed |
//! | give up | quarantined: the item, or the one frame or result in it that is at fault; the next goes on at once |
//! | conflict | the destination knows more than the store: nothing is claimed for it any more until a person has decided |
//!
//! Each loop, and the one that tells how far they are, begins again after a panic
//! ([`supervise`](reticle_base::supervise)); the item that was in hand is given back with a pause.
//!
//! Nothing is lost when this thread is stopped at any moment: what was claimed is in the outbox,
//! and what was put twice was put under the same key.

use reticle_base::remedy::Remedy;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::archive::Archiving;
use super::delivering::Delivering;
use super::destinations::Destinations;
use super::outbox::{NoAnswer, Outbox, die_of};
use super::undelivered::Undelivered;
use reticle_base::backoff::Backoff;
use reticle_base::queue::Sender;
use reticle_base::supervise::{Roster, Watched};
use reticle_base::thread::Thread;
use reticle_store::{Answer, Ask, Claim, Delivery, Destination, Item, Job, Reader, Report};

/// How often an idle loop looks into the outbox.
const LOOK: Duration = Duration::from_secs(1);

/// How often the status is told.
const TELL: Duration = Duration::from_secs(2);

/// How long a delivery may take before somebody else may claim it. Nobody else does while this
/// process holds the data folder; the next one clears all leases.
const LEASE: Duration = Duration::from_secs(3600);

/// Threads for what blocks: each loop asks the outbox or builds a part, and one reads the status.
/// More would only each keep memory of their own.
const BLOCKING: usize = 4;

/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The first wait after a failure that a person must mend.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// The longest wait: people mend things and want to see it.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// What is wished of the loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    /// Counts the times that somebody wanted to see something happen now.
    wakes: u64,
    /// Stop, at once.
    stop: bool,
}

/// Wakes the loops. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<watch::Sender<Wish>>);

impl Handle {
    /// Look into the outbox now, without waiting for anything. Returns at once.
    pub fn wake(&self) {
        self.0.send_modify(|wish| wish.wakes += 1);
    }
}

/// The running thread.
pub struct Syncing {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Syncing {
    /// To wake it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Breaks off what is on its way; the thread that is given ends when the store has answered
    /// what it was asked before.
    pub fn stop(self) -> JoinHandle<()> {
        self.handle.0.send_modify(|wish| wish.stop = true);
        self.thread
    }
}

/// What deliveries run on, whoever makes them.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING)
        .thread_name("sync-work")
        .enable_all()
        .build()
}

/// Starts the thread `sync`. `tell` is told how far the destinations are, every two seconds.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn(
    destinations: Destinations,
    reader: Reader,
    jobs: Sender<Job>,
    roster: &Roster,
    mut tell: impl FnMut(&[Delivery]) + Send + 'static,
) -> std::io::Result<Syncing> {
    let outbox = Outbox::new(jobs);
    let (wish, mut wishes) = watch::channel(Wish::default());
    let handle = Handle(Arc::new(wish));
    let runtime = runtime()?;
    Archiving::clean_spool(&destinations.data_folder);
    let watched = roster.watch(Thread::Sync);
    let mut loops = JoinSet::new();
    {
        let _inside = runtime.enter();
        for serving in servings(&destinations, &reader, &outbox, &wishes, false) {
            let watched = roster.watch(match serving.delivering.destination() {
                Destination::Archive => Thread::SyncArchive,
                Destination::Central => Thread::SyncCentral,
            });
            loops.spawn(serving.run_again(watched));
        }
    }
    let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        let mut stopping = wishes.clone();
        // The loops go on while this one begins again.
        while let Some(pause) = watched.attempt(|| {
            runtime.block_on(look(&reader, &mut wishes, &watched, &mut tell));
            Ok(())
        }) {
            if runtime.block_on(stops_within(&mut stopping, pause)) {
                break;
            }
        }
        runtime.block_on(async { while loops.join_next().await.is_some() {} });
        // Blocking work that is under way (a shard being packed) need not be waited for.
        runtime.shutdown_background();
    })?;
    Ok(Syncing { handle, thread })
}

/// Tells how far the destinations are, until it is time to stop.
async fn look(
    reader: &Reader,
    wishes: &mut watch::Receiver<Wish>,
    watched: &Watched,
    tell: &mut impl FnMut(&[Delivery]),
) {
    loop {
        watched.pass();
        let reader = reader.clone();
        match tokio::task::spawn_blocking(move || reader.deliveries()).await {
            Ok(Ok(deliveries)) => tell(&deliveries),
            Ok(Err(error)) => tracing::debug!(%error, "cannot read how far deliveries are"),
            Err(error) => die_of(error),
        }
        if stops_within(wishes, TELL).await {
            return;
        }
    }
}

/// Whether it is time to stop, before `wait` is over.
async fn stops_within(wishes: &mut watch::Receiver<Wish>, wait: Duration) -> bool {
    tokio::time::timeout(wait, wishes.wait_for(|wish| wish.stop)).await.is_ok()
}

/// The loop of one destination.
struct Serving {
    delivering: Delivering,
    outbox: Outbox,
    wishes: watch::Receiver<Wish>,
    watched: Watched,
    max_delay: Duration,
    /// Deliver everything once, then end; and end after [`TRIES`] failures in a row.
    only_drain: bool,
    /// What became of the last delivery, where the store could not take note of it: the disk
    /// may be full.
    unreported: Option<Report>,
    /// The item that is claimed: of a loop that died it is given back by its next life.
    in_hand: Option<i64>,
    /// Failures in a row.
    trouble: u32,
    /// The failure that was logged last, so that one that lasts is not logged again.
    told: Option<String>,
    /// The delivery that found a conflict; `None` while there is none, and in a process that
    /// found none itself.
    conflict: Option<Item>,
}

/// Failures in a row after which a drain ends.
const TRIES: u32 = 5;

impl Serving {
    /// Delivers until it is time to stop, and begins again after a panic.
    async fn run_again(mut self, watched: Watched) {
        self.watched = watched.clone();
        while let Some(pause) = watched.attempt_task(self.run()).await {
            if let Some(item) = self.in_hand.take() {
                let reason = "its delivery panicked; report this as a defect".to_owned();
                self.unreported = Some(Report::Failed { item, wait: pause, reason });
            }
            if stops_within(&mut self.wishes, pause).await {
                return;
            }
        }
    }

    async fn run(&mut self) {
        loop {
            if self.wishes.borrow().stop {
                return;
            }
            self.watched.pass();
            let woken = self.wishes.borrow().wakes;
            let wait = match self.next().await {
                Ok(Some(wait)) => wait,
                Ok(None) if self.only_drain => return,
                Ok(None) => LOOK,
                Err(NoAnswer::Closed) => return,
                Err(NoAnswer::Store(error)) => {
                    // The store reports it; it may come back.
                    tracing::debug!(%error, "the outbox cannot be asked");
                    self.trouble += 1;
                    self.pause(FIRST_WAIT)
                }
            };
            if self.only_drain && self.trouble >= TRIES {
                return;
            }
            if !wait.is_zero() {
                let news = self.wishes.wait_for(|wish| wish.stop || wish.wakes != woken);
                // Whichever comes first; what it was is looked at above.
                tokio::time::timeout(wait, news).await.ok();
            }
        }
    }

    /// Makes the most urgent delivery, and says how long to wait before the next; `None` when
    /// there is none to make now.
    async fn next(&mut self) -> Result<Option<Duration>, NoAnswer> {
        if let Some(report) = self.unreported.clone() {
            self.outbox.ask(Ask::Report(report)).await?;
            self.unreported = None;
        }
        let claim = Claim {
            destination: self.delivering.destination(),
            limit: 1,
            lease: LEASE,
            max_delay: self.max_delay,
            drain: self.only_drain,
        };
        let Answer::Claimed(items) = self.outbox.ask(Ask::Claim(claim)).await? else {
            return Ok(None);
        };
        let Some(item) = items.first() else {
            return match &self.conflict {
                Some(item) if !self.only_drain => {
                    self.delivering.keep_dispute(item).await;
                    Ok(Some(STOP_WAIT))
                }
                _ => Ok(None),
            };
        };
        self.in_hand = Some(item.pk);
        // Something may be claimed again: a person has decided.
        self.conflict = None;
        let mut stop = self.wishes.clone();
        let delivered = tokio::select! {
            delivered = self.delivering.deliver(item) => delivered,
            _ = stop.wait_for(|wish| wish.stop) => return Ok(Some(Duration::ZERO)),
        };
        self.in_hand = None;
        let (report, wait) = self.judge(item, delivered);
        self.unreported = Some(report.clone());
        self.outbox.ask(Ask::Report(report)).await?;
        self.unreported = None;
        Ok(Some(wait))
    }

    fn judge(&mut self, item: &Item, delivered: Result<Report, Undelivered>) -> (Report, Duration) {
        let place = self.delivering.name();
        let pk = item.pk;
        match delivered {
            Ok(report) => {
                if self.told.take().is_some() {
                    tracing::info!(place, "deliveries are taken again");
                }
                self.trouble = 0;
                (report, Duration::ZERO)
            }
            Err(Undelivered::One { subject, reason }) => {
                tracing::error!(place, kind = item.kind.word(), reason, "refused for ever");
                (Report::Refused { item: pk, subject, reason }, Duration::ZERO)
            }
            Err(Undelivered::Whole(error)) => {
                let reason = error.to_string();
                if error.remedy == Remedy::GiveUp {
                    tracing::error!(place, kind = item.kind.word(), reason, "quarantined");
                    return (Report::Quarantined { item: pk, reason }, Duration::ZERO);
                }
                if let Some(high_water) = error.conflict {
                    tracing::error!(place, reason, "deliveries stop: this box is not alone there");
                    self.conflict = Some(item.clone());
                    return (Report::Conflict { item: pk, reason, high_water }, Duration::ZERO);
                }
                self.trouble += 1;
                let first = if error.remedy == Remedy::Stop { STOP_WAIT } else { FIRST_WAIT };
                let wait = self.pause(first).max(error.after.unwrap_or_default());
                if self.told.as_ref() != Some(&reason) {
                    if error.remedy == Remedy::Stop {
                        tracing::error!(place, reason, "deliveries need a person; nothing is lost");
                    } else {
                        tracing::warn!(place, reason, "a delivery failed; trying again");
                    }
                    self.told = Some(reason.clone());
                }
                (Report::Failed { item: pk, wait, reason }, wait)
            }
        }
    }

    fn pause(&self, first: Duration) -> Duration {
        Backoff::new(first, LONGEST_WAIT).jittered(self.trouble, rand::random())
    }
}

/// A loop for each destination.
fn servings(
    destinations: &Destinations,
    reader: &Reader,
    outbox: &Outbox,
    wishes: &watch::Receiver<Wish>,
    only_drain: bool,
) -> Vec<Serving> {
    let serving = |delivering| Serving {
        delivering,
        outbox: outbox.clone(),
        wishes: wishes.clone(),
        watched: Watched::alone(Thread::Sync),
        max_delay: destinations.max_delay,
        only_drain,
        unreported: None,
        in_hand: None,
        trouble: 0,
        told: None,
        conflict: None,
    };
    destinations.delivering(reader, outbox).into_iter().map(serving).collect()
}

/// Delivers everything that waits into each destination, and returns when all is done or when
/// nothing gets on.
pub(super) async fn drain(destinations: &Destinations, reader: &Reader, outbox: &Outbox) {
    // Held to the end: nobody wishes anything else meanwhile.
    let (_wish, wishes) = watch::channel(Wish::default());
    let servings = servings(destinations, reader, outbox, &wishes, true);
    let loops: JoinSet<()> =
        servings.into_iter().map(|mut serving| async move { serving.run().await }).collect();
    loops.join_all().await;
}

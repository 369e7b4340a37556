//! Which alarms are on: [`holding`] says what the status shows now, and [`Keeper`] makes alarms
//! of it, which begin and end once.
//!
//! - A value that wobbles about its limit makes one alarm: what raises it and what clears it are
//!   two limits. `status.alarms` says which of them counts.
//! - What is gone again within [`patience`] is no alarm; the status still shows it at once. An
//!   alarm ends when nothing of it was seen for [`CALM`].
//! - `since` is when it was first seen, and stays; the reason is the newest one.

use std::time::Duration;

use reticle_base::clock::Stamp;
use reticle_domain::alarm::{Alarm, AlarmKind};
use reticle_domain::event::What;
use reticle_domain::health::Health;
use reticle_domain::status::{SaveState, SourceState, Status, SyncState};

/// An alarm ends when nothing of it was seen for so long.
const CALM: Duration = Duration::from_secs(2);

/// Part of the room to be left free below which the disk is low. The store itself keeps what is
/// free just above the whole of it, for as long as it may delete something.
const DISK_LOW: f64 = 0.9;

/// Room that is little on any disk, where none is to be left free: 256 MiB.
const LITTLE_BYTES: u64 = 256 << 20;

/// Part of the memory below which it is low. Of 4 GiB these are 240 MB: a frame of 8 megapixels.
const MEMORY_LOW: f64 = 0.06;

/// Part of the memory from which on it is enough again.
const MEMORY_ENOUGH: f64 = 0.08;

/// How far below the processor's own limit it is too hot, °C.
const HOT_BELOW_LIMIT_C: f32 = 5.0;

/// Too hot where the processor names no limit, °C. The common ones are at 80 to 105.
const HOT_C: f32 = 85.0;

/// How much cooler it must be for the alarm to end, °C.
const COOLED_BY_C: f32 = 5.0;

/// What the alarms depend on besides the status.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that are to be left free on the disk of the store.
    pub(super) min_free_bytes: u64,
}

/// What is wrong now, and what was seen.
pub(super) type Seen = (AlarmKind, String);

/// How long something must hold to be an alarm.
pub(super) fn patience(kind: AlarmKind) -> Duration {
    Duration::from_secs(match kind {
        // A camera that is plugged in again is back sooner.
        AlarmKind::SourceLost => 2,
        // One compilation or one large frame is no reason to call anybody.
        AlarmKind::TooHot | AlarmKind::Throttled | AlarmKind::MemoryLow => 10,
        // A server that restarts, a network that is replugged; nothing is lost meanwhile.
        AlarmKind::DeliveryFails => 60,
        // After power-on it takes a while to find a time server.
        AlarmKind::ClockUntrusted => 120,
        AlarmKind::StageStuck
        | AlarmKind::ThreadDied
        | AlarmKind::SavingFails
        | AlarmKind::StoreUnlinked
        | AlarmKind::NoRoom
        | AlarmKind::DiskLow
        | AlarmKind::Quarantined
        // Whoever sees it has seen it twice.
        | AlarmKind::NameTaken
        | AlarmKind::OpenNetwork
        | AlarmKind::ArchiveAhead
        | AlarmKind::ImageQuarantined
        | AlarmKind::ModelDiffers => 0,
    })
}

/// What of the status is wrong, each kind at most once.
pub(super) fn holding(status: &Status, limits: Limits) -> Vec<Seen> {
    let mut seen = Vec::new();
    if let SourceState::Lost { reason, .. } = &status.source {
        seen.push((AlarmKind::SourceLost, reason.clone()));
    }
    if let SaveState::Failing { reason, .. } = &status.save {
        seen.push((AlarmKind::SavingFails, reason.clone()));
    } else if let Some(reason) = &status.frame_files_failing {
        let reason = format!("the pixels of frames cannot be written: {reason}");
        seen.push((AlarmKind::SavingFails, reason));
    }
    if let Some(reason) = &status.recording_paused {
        seen.push((AlarmKind::NoRoom, reason.clone()));
    }
    let named = |of: &SyncState, why: &str| format!("{} ({}): {why}", of.destination, of.location);
    let failing = status.sync.iter().filter(|of| of.waiting > 0 && of.conflict.is_none());
    let failing = failing.filter_map(|of| Some(named(of, of.reason.as_deref()?)));
    push_joined(&mut seen, AlarmKind::DeliveryFails, failing);
    let ahead = status.sync.iter().filter_map(|of| Some(named(of, of.conflict.as_deref()?)));
    push_joined(&mut seen, AlarmKind::ArchiveAhead, ahead);
    let quarantined =
        status.sync.iter().filter(|destination| destination.quarantined > 0).map(|destination| {
            let (of, count) = (&destination.destination, destination.quarantined);
            format!("{of} refused {count} for ever; see `reticle outbox quarantine`")
        });
    push_joined(&mut seen, AlarmKind::Quarantined, quarantined);
    let stuck = status.health.stages.iter().filter(|stage| stage.stuck).map(|stage| {
        format!("{} works at one thing for {:.0} s", stage.name, stage.busy_s.unwrap_or(0.0))
    });
    push_joined(&mut seen, AlarmKind::StageStuck, stuck);
    let died = status.health.threads.iter().filter(|thread| thread.lately).map(|thread| {
        let does = match thread.state.as_str() {
            "works" => "it works again",
            "pauses" => "it begins again soon",
            _ => "the process ends",
        };
        let (name, deaths) = (&thread.name, thread.deaths);
        let why = thread.reason.as_deref().unwrap_or("no words");
        format!("{name} died ({deaths} times so far), {does}: {why}")
    });
    push_joined(&mut seen, AlarmKind::ThreadDied, died);
    // Not measured yet is not bad.
    if !status.health.at.is_empty() {
        let is_on = |kind| status.alarms.iter().any(|alarm| alarm.kind == kind);
        seen.extend(of_the_box(&status.health, limits, is_on));
    }
    seen
}

fn push_joined(seen: &mut Vec<Seen>, kind: AlarmKind, reasons: impl Iterator<Item = String>) {
    let reasons: Vec<String> = reasons.collect();
    if !reasons.is_empty() {
        seen.push((kind, reasons.join("; ")));
    }
}

fn of_the_box(health: &Health, limits: Limits, is_on: impl Fn(AlarmKind) -> bool) -> Vec<Seen> {
    let mut seen = Vec::new();
    let (free, total) = (health.storage_free_bytes, health.storage_total_bytes);
    let enough = limits.min_free_bytes.max(LITTLE_BYTES) as f64;
    let low = if is_on(AlarmKind::DiskLow) { enough } else { DISK_LOW * enough };
    if total > 0 && (free as f64) < low {
        let reason = format!("{} MB of {} MB are free", free / 1_000_000, total / 1_000_000);
        seen.push((AlarmKind::DiskLow, reason));
    }
    let (available, total) = (health.memory_available_bytes, health.memory_total_bytes);
    let share = if is_on(AlarmKind::MemoryLow) { MEMORY_ENOUGH } else { MEMORY_LOW };
    if total > 0 && (available as f64) < share * total as f64 {
        let (available, total) = (available / 1_000_000, total / 1_000_000);
        let own = health.resident_bytes / 1_000_000;
        let reason =
            format!("{available} MB of {total} MB can still be had; Reticle itself takes {own} MB");
        seen.push((AlarmKind::MemoryLow, reason));
    }
    if let Some(celsius) = health.temperature_c {
        let raise = health.temperature_limit_c.map_or(HOT_C, |limit| limit - HOT_BELOW_LIMIT_C);
        let hot = if is_on(AlarmKind::TooHot) { raise - COOLED_BY_C } else { raise };
        if celsius >= hot {
            let of =
                health.temperature_limit_c.map(|limit| format!(", its limit is {limit:.0} °C"));
            let reason = format!("the processor has {celsius:.0} °C{}", of.unwrap_or_default());
            seen.push((AlarmKind::TooHot, reason));
        }
    }
    if health.throttled == Some(true) {
        let reason = "the processor is slowed down, because of heat or weak power";
        seen.push((AlarmKind::Throttled, reason.to_owned()));
    }
    if !health.clock_trusted {
        let reason = "nobody keeps this machine's clock in step with a reference";
        seen.push((AlarmKind::ClockUntrusted, reason.to_owned()));
    }
    seen
}

/// What is known of one kind.
struct Known {
    kind: AlarmKind,
    first: Stamp,
    last: Stamp,
    reason: String,
    /// Whether it was raised.
    is_on: bool,
}

/// Remembers since when what holds, and tells what began and what ended.
#[derive(Default)]
pub(super) struct Keeper {
    known: Vec<Known>,
    /// What was found once and holds for as long as the daemon runs.
    standing: Vec<Seen>,
}

impl Keeper {
    /// What is known of one kind from elsewhere than the status: it holds until it is said
    /// otherwise.
    pub(super) fn stands_now(&mut self, kind: AlarmKind, reason: Option<String>) {
        self.standing.retain(|(other, _)| *other != kind);
        self.standing.extend(reason.map(|reason| (kind, reason)));
    }

    /// Something that holds until the daemon is started again.
    pub(super) fn stands(&mut self, kind: AlarmKind, reason: String) {
        self.standing.push((kind, reason));
    }

    /// Takes what is seen now; gives what was raised and cleared by it.
    pub(super) fn keep(&mut self, mut seen: Vec<Seen>, now: Stamp) -> Vec<What> {
        seen.extend(self.standing.iter().cloned());
        for (kind, reason) in seen {
            match self.known.iter_mut().find(|known| known.kind == kind) {
                Some(known) => (known.last, known.reason) = (now, reason),
                None => {
                    self.known.push(Known { kind, first: now, last: now, reason, is_on: false });
                }
            }
        }
        let mut changes = Vec::new();
        self.known.retain_mut(|known| {
            let is_seen = known.last == now;
            if !known.is_on {
                if is_seen && now.since(&known.first) >= patience(known.kind) {
                    known.is_on = true;
                    let reason = known.reason.clone();
                    changes.push(What::AlarmRaised { alarm: known.kind, reason });
                }
                return is_seen;
            }
            let is_over = now.since(&known.last) >= CALM;
            if is_over {
                changes.push(What::AlarmCleared { alarm: known.kind });
            }
            !is_over
        });
        changes
    }

    /// The alarms that are on, in the order of their kinds.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let on = self.known.iter().filter(|known| known.is_on);
        let mut alarms: Vec<Alarm> = on
            .map(|known| Alarm {
                kind: known.kind,
                since: known.first.rfc3339(),
                reason: known.reason.clone(),
            })
            .collect();
        alarms.sort_by_key(|alarm| alarm.kind);
        alarms
    }
}

/// Writes changes into the logbook, by what they mean for a person.
pub(super) fn log(changes: &[What]) {
    for change in changes {
        match change {
            What::AlarmRaised { alarm, reason } if alarm.is_urgent() => {
                tracing::error!(alarm = alarm.word(), reason, "an alarm is on");
            }
            What::AlarmRaised { alarm, reason } => {
                tracing::warn!(alarm = alarm.word(), reason, "an alarm is on");
            }
            What::AlarmCleared { alarm } => {
                tracing::info!(alarm = alarm.word(), "an alarm is off again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;
    use reticle_domain::health::{StageHealth, ThreadHealth};
    use reticle_domain::status::SyncState;

    const LIMITS: Limits = Limits { min_free_bytes: 1_000_000_000 };

    fn well() -> Status {
        let health = Health {
            at: "2026-01-01T00:00:00Z".to_owned(),
            memory_total_bytes: 4_000_000_000,
            memory_available_bytes: 2_000_000_000,
            storage_total_bytes: 64_000_000_000,
            storage_free_bytes: 32_000_000_000,
            temperature_c: Some(50.0),
            temperature_limit_c: Some(100.0),
            throttled: Some(false),
            clock_trusted: true,
            ..Health::default()
        };
        Status { health, ..Status::default() }
    }

    fn kinds(status: &Status) -> Vec<AlarmKind> {
        holding(status, LIMITS).into_iter().map(|(kind, _)| kind).collect()
    }

    fn with_alarm(mut status: Status, kind: AlarmKind) -> Status {
        status.alarms.push(Alarm { kind, since: String::new(), reason: String::new() });
        status
    }

    #[test]
    fn a_box_that_is_well_or_not_yet_measured_has_no_alarm() {
        assert_eq!(kinds(&well()), []);
        assert_eq!(kinds(&Status::default()), []);
    }

    #[test]
    fn everything_that_is_wrong_is_named_once() {
        let mut status = well();
        status.source = SourceState::Lost { reason: "unplugged".to_owned(), since: String::new() };
        status.save = SaveState::Failing { reason: "disk".to_owned(), since: String::new() };
        status.recording_paused = Some("full".to_owned());
        let destination = |name: &str| SyncState {
            destination: name.to_owned(),
            location: "there".to_owned(),
            waiting: 3,
            quarantined: 1,
            oldest: None,
            reason: Some("no route".to_owned()),
            conflict: None,
        };
        status.sync = vec![destination("archive"), destination("central"), destination("archive")];
        status.sync[2].conflict = Some("it was given 330 deliveries".to_owned());
        let stuck = |name: &str| StageHealth { name: name.into(), busy_s: Some(9.0), stuck: true };
        status.health.stages = vec![stuck("capture"), stuck("segment")];
        let died = |name: &str, lately| ThreadHealth {
            name: name.into(),
            policy: "restart".into(),
            state: "works".into(),
            deaths: 1,
            died: None,
            reason: None,
            lately,
        };
        status.health.threads = vec![died("sync", true), died("web", false)];
        status.health.storage_free_bytes = 1;
        status.health.memory_available_bytes = 1;
        status.health.temperature_c = Some(99.0);
        status.health.throttled = Some(true);
        status.health.clock_trusted = false;
        let mut found = kinds(&status);
        found.sort_unstable();
        // These are not in the status: they are said by whoever knows.
        let said = [
            AlarmKind::ModelDiffers,
            AlarmKind::ImageQuarantined,
            AlarmKind::NameTaken,
            AlarmKind::OpenNetwork,
            AlarmKind::StoreUnlinked,
        ];
        let all = AlarmKind::ALL.into_iter().filter(|kind| !said.contains(kind));
        let mut all: Vec<AlarmKind> = all.collect();
        all.sort_unstable();
        assert_eq!(found, all);
    }

    #[test]
    fn a_destination_that_fails_with_nothing_to_deliver_is_no_alarm() {
        let mut status = well();
        status.sync = vec![SyncState {
            destination: "central".to_owned(),
            location: String::new(),
            waiting: 0,
            quarantined: 0,
            oldest: None,
            reason: Some("no route".to_owned()),
            conflict: None,
        }];
        assert_eq!(kinds(&status), []);
        // But that it knows more is one, whether anything waits or not.
        status.sync[0].conflict = Some("it was given 330 deliveries".to_owned());
        assert_eq!(kinds(&status), [AlarmKind::ArchiveAhead]);
    }

    #[test]
    fn what_wobbles_about_a_limit_is_one_alarm() {
        let mut status = well();
        status.health.storage_free_bytes = 950_000_000;
        assert_eq!(kinds(&status), []);
        assert_eq!(kinds(&with_alarm(status, AlarmKind::DiskLow)), [AlarmKind::DiskLow]);
        let mut status = well();
        status.health.temperature_c = Some(93.0);
        assert_eq!(kinds(&status), []);
        assert_eq!(kinds(&with_alarm(status, AlarmKind::TooHot)), [AlarmKind::TooHot]);
        let mut status = well();
        status.health.memory_available_bytes = 280_000_000;
        assert_eq!(kinds(&status), []);
        assert_eq!(kinds(&with_alarm(status, AlarmKind::MemoryLow)), [AlarmKind::MemoryLow]);
    }

    #[test]
    fn a_short_loss_is_no_alarm_and_a_long_one_begins_when_it_was_first_seen() {
        let clock = Clock::manual(0);
        let mut keeper = Keeper::default();
        let lost = || vec![(AlarmKind::SourceLost, "unplugged".to_owned())];
        assert_eq!(keeper.keep(lost(), clock.now()), []);
        clock.advance(Duration::from_millis(1_900));
        assert_eq!(keeper.keep(lost(), clock.now()), []);
        clock.advance(Duration::from_millis(250));
        assert_eq!(keeper.keep(vec![], clock.now()), []);
        // The time counts from anew.
        clock.advance(Duration::from_secs(1));
        let first = clock.now();
        assert_eq!(keeper.keep(lost(), first), []);
        clock.advance(patience(AlarmKind::SourceLost));
        let raised = keeper.keep(lost(), clock.now());
        let reason = "unplugged".to_owned();
        assert_eq!(raised, [What::AlarmRaised { alarm: AlarmKind::SourceLost, reason }]);
        assert_eq!(keeper.alarms()[0].since, first.rfc3339());
    }

    #[test]
    fn an_alarm_is_raised_once_keeps_its_beginning_and_ends_once() {
        let clock = Clock::manual(0);
        let mut keeper = Keeper::default();
        let full = |reason: &str| vec![(AlarmKind::NoRoom, reason.to_owned())];
        assert_eq!(keeper.keep(full("a"), clock.now()).len(), 1);
        let since = keeper.alarms()[0].since.clone();
        clock.advance(Duration::from_secs(9));
        assert_eq!(keeper.keep(full("b"), clock.now()), []);
        assert_eq!(keeper.alarms()[0].since, since);
        assert_eq!(keeper.alarms()[0].reason, "b");
        // A moment without it does not end it.
        clock.advance(Duration::from_secs(1));
        assert_eq!(keeper.keep(vec![], clock.now()), []);
        assert_eq!(keeper.alarms().len(), 1);
        clock.advance(CALM);
        let cleared = keeper.keep(vec![], clock.now());
        assert_eq!(cleared, [What::AlarmCleared { alarm: AlarmKind::NoRoom }]);
        assert_eq!(keeper.alarms(), []);
        clock.advance(CALM);
        assert_eq!(keeper.keep(vec![], clock.now()), []);
    }

    #[test]
    fn what_stands_is_an_alarm_until_the_end() {
        let clock = Clock::manual(0);
        let mut keeper = Keeper::default();
        keeper.stands(AlarmKind::ModelDiffers, "iou 0.5".to_owned());
        assert_eq!(keeper.keep(vec![], clock.now()).len(), 1);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(keeper.keep(vec![], clock.now()), []);
        assert_eq!(keeper.alarms().len(), 1);
    }
}

//! Sees to it that every stage gets on with its work and every thread lives, and tells the service
//! manager so. It is
//! silent towards the manager while one does not: then the manager's own clock runs out, and it
//! starts a fresh process. Everything acknowledged is on the disk, and a driver or a disk that
//! hangs a thread cannot be helped from inside.
//!
//! It is looked after by the control loop, so a control loop that hangs is found out as well.

use std::time::Duration;

use super::service::Service;
use reticle_base::clock::{Clock, Stamp};
use reticle_base::fault_injection::Injections;
use reticle_base::progress::Progress;
use reticle_base::supervise::{Look, Roster};
use reticle_base::thread::Thread;
use reticle_domain::health::{StageHealth, ThreadHealth};
use reticle_domain::status::{RunState, Status, StatusBoard};

/// Opening a USB camera sets a handful of controls, and the kernel gives each up to 5 s. Waiting
/// for a frame is no work of this length: a source is asked anew several times a second.
const CAPTURE_LIMIT: Duration = Duration::from_secs(30);

/// A frame of 8192² takes tens of seconds on a small processor.
const SEGMENT_LIMIT: Duration = Duration::from_secs(120);

/// A batch holds 64 MiB, a second or two of a slow card; a card that tidies up, and dating a
/// long record again, take many times that.
pub const WRITER_LIMIT: Duration = Duration::from_secs(120);

/// How often the manager hears of us: many times in the shortest time it may be told to wait.
const FEED: Duration = Duration::from_secs(1);

/// The stages' progress, as each of them reports it.
#[derive(Clone)]
pub(super) struct Stages {
    pub(super) capture: Progress,
    pub(super) segment: Progress,
    pub(super) writer: Progress,
}

impl Stages {
    /// With the faults that are injected into them.
    pub(super) fn new(injections: &mut Injections, clock: &Clock) -> Self {
        let mut stage = |thread: Thread, limit| {
            let limit = injections.stuck_after.unwrap_or(limit);
            Progress::with_injections(thread.name(), limit, clock.clone(), injections.take(thread))
        };
        Self {
            capture: stage(Thread::Capture, CAPTURE_LIMIT),
            segment: stage(Thread::Segment, SEGMENT_LIMIT),
            writer: stage(Thread::StoreWriter, WRITER_LIMIT),
        }
    }
}

/// Watches the stages.
pub(super) struct Watchdog {
    stages: [Watched; 3],
    roster: Roster,
    service: Service,
    board: StatusBoard,
    clock: Clock,
    fed: Option<Stamp>,
}

struct Watched {
    progress: Progress,
    /// Since when its work has taken too long: when that work began.
    stuck_since: Option<Stamp>,
}

impl Watchdog {
    pub(super) fn new(
        stages: Stages,
        roster: Roster,
        service: Service,
        board: StatusBoard,
        clock: Clock,
    ) -> Self {
        let stages = [stages.capture, stages.segment, stages.writer]
            .map(|progress| Watched { progress, stuck_since: None });
        Self { stages, roster, service, board, clock, fed: None }
    }

    /// The daemon listens and takes frames.
    pub(super) fn ready(&self) {
        self.service.ready();
    }

    /// The daemon takes no more frames.
    pub(super) fn stopping(&self) {
        self.service.stopping();
    }

    /// A stage that is stuck.
    pub(super) fn stuck(&self) -> Option<&'static str> {
        let stuck = self.stages.iter().find(|stage| stage.progress.is_stuck());
        stuck.map(|stage| stage.progress.name())
    }

    /// Called four times a second.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        let health: Vec<StageHealth> =
            self.stages.iter_mut().map(|stage| stage.look(&now)).collect();
        let stuck = health.iter().find(|stage| stage.stuck).map(|stage| stage.name.clone());
        let threads = self.roster.look().into_iter().map(thread_health).collect();
        self.board.update(|status| {
            status.health.stages = health;
            status.health.threads = threads;
        });
        if self.fed.is_some_and(|fed| now.since(&fed) < FEED) {
            return;
        }
        self.fed = Some(now);
        if stuck.is_none() {
            self.service.alive();
        }
        self.service.status(&line(&self.board.read(), stuck.as_deref()));
    }
}

impl Watched {
    /// How the stage is, logged when it becomes stuck and when it goes on.
    fn look(&mut self, now: &Stamp) -> StageHealth {
        let (name, limit) = (self.progress.name(), self.progress.limit());
        let busy = self.progress.busy_for();
        let stuck = busy.is_some_and(|busy| busy > limit);
        match (stuck, self.stuck_since) {
            (true, None) => {
                let busy = busy.unwrap_or_default();
                let mut since = *now;
                since.wall_ns -= i64::try_from(busy.as_nanos()).unwrap_or(0);
                since.mono_ns = now.mono_ns.saturating_sub(nanos(busy));
                self.stuck_since = Some(since);
                tracing::error!(
                    stage = name,
                    since = since.rfc3339(),
                    limit_s = limit.as_secs(),
                    "a stage is stuck; under a service manager it is started again unless it goes on"
                );
            }
            (false, Some(since)) => {
                self.stuck_since = None;
                let seconds = now.since(&since).as_secs_f32();
                tracing::info!(stage = name, seconds, "the stage that was stuck goes on");
            }
            _ => {}
        }
        let busy_s = busy.map(|busy| busy.as_secs_f32());
        StageHealth { name: name.to_owned(), busy_s, stuck }
    }
}

fn thread_health(look: Look) -> ThreadHealth {
    let (died, reason) = look.last.map(|(at, why)| (at.rfc3339(), why)).unzip();
    ThreadHealth {
        name: look.thread.name().to_owned(),
        policy: look.thread.policy().word().to_owned(),
        state: look.life.word().to_owned(),
        deaths: look.deaths,
        died,
        reason,
        lately: look.lately,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What `systemctl status` shows.
fn line(status: &Status, stuck: Option<&str>) -> String {
    let run = match status.run {
        RunState::Stopped => "stopped",
        RunState::Running => "running",
        RunState::Paused => "paused",
    };
    let (fps, saved) = (status.capture_fps, status.counters.saved);
    let stuck = stuck.map(|stage| format!("; {stage} is stuck")).unwrap_or_default();
    format!("{run}: {fps:.1} frames a second, {saved} saved{stuck}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// What a service manager would hear, and the watchdog that tells it.
    fn watched() -> (UnixDatagram, Watchdog, Stages, StatusBoard, Clock, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let (clock, board) = (Clock::manual(0), StatusBoard::new());
        let mut injections: Injections = "stuck-after:5".parse().unwrap();
        let stages = Stages::new(&mut injections, &clock);
        let roster = Roster::new(injections, clock.clone());
        let service = Service::at(path.as_os_str());
        let (all, now) = (stages.clone(), clock.clone());
        let watchdog = Watchdog::new(all, roster, service, board.clone(), now);
        (manager, watchdog, stages, board, clock, folder)
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let mut all = Vec::new();
        while let Ok(length) = manager.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
        }
        all
    }

    #[test]
    fn the_manager_hears_that_we_are_ready_alive_and_stopping() {
        let (manager, mut watchdog, _, _, _, _folder) = watched();
        watchdog.ready();
        watchdog.tick();
        watchdog.stopping();
        let status = "STATUS=stopped: 0.0 frames a second, 0 saved";
        assert_eq!(heard(&manager), ["READY=1", "WATCHDOG=1", status, "STOPPING=1"]);
    }

    #[test]
    fn while_a_stage_is_stuck_the_watchdog_is_not_fed() {
        let (manager, mut watchdog, stages, board, clock, _folder) = watched();
        let busy = stages.writer.work();
        clock.advance(Duration::from_secs(4));
        watchdog.tick();
        assert!(heard(&manager).contains(&"WATCHDOG=1".to_owned()), "4 s are no standstill");
        assert_eq!(board.read().health.stages[2].busy_s, Some(4.0));

        clock.advance(Duration::from_secs(2));
        watchdog.tick();
        let told = heard(&manager);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with("store-writer is stuck"), "{told:?}");
        let stuck = board.read().health.stages;
        let stuck: Vec<_> = stuck.iter().filter(|stage| stage.stuck).collect();
        assert!(matches!(stuck.as_slice(), [stage] if stage.name == "store-writer"), "{stuck:?}");

        drop(busy);
        clock.advance(Duration::from_secs(1));
        watchdog.tick();
        assert!(heard(&manager).contains(&"WATCHDOG=1".to_owned()));
        assert!(board.read().health.stages.iter().all(|stage| !stage.stuck));
    }

    #[test]
    fn the_manager_hears_once_a_second_and_not_at_every_tick() {
        let (manager, mut watchdog, _, _, clock, _folder) = watched();
        for _ in 0..8 {
            watchdog.tick();
            clock.advance(Duration::from_millis(250));
        }
        let alive = heard(&manager).iter().filter(|told| *told == "WATCHDOG=1").count();
        assert_eq!(alive, 2);
    }

    #[test]
    fn an_abstract_address_is_reached_and_nobody_is_no_fault() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("reticle-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        Service::at(format!("@{name}").as_ref()).ready();
        assert_eq!(heard(&manager), ["READY=1"]);
        Service::none().ready();
        Service::at("/nowhere/at/all".as_ref()).ready();
    }
}

//! Time as an argument: the only module that asks the kernel what time it is.
//!
//! A [`Stamp`] holds wall time *and* monotonic time with the boot id, because a box
//! without a battery clock starts with a wrong date. Order within one boot comes from
//! `mono_ns`; `wall_ns` is for people and may jump.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// One instant, as this boot of this machine saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    /// Nanoseconds since the Unix epoch, UTC. Can jump when the clock is set.
    pub wall_ns: i64,
    /// Nanoseconds of `CLOCK_MONOTONIC`. Never jumps; comparable within one boot only.
    pub mono_ns: u64,
    /// Kernel's boot id, which tells apart the `mono_ns` of two boots.
    pub boot_id: Uuid,
}

impl Stamp {
    /// Monotonic time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(&self, earlier: &Stamp) -> Duration {
        Duration::from_nanos(self.mono_ns.saturating_sub(earlier.mono_ns))
    }

    /// Wall time as RFC 3339 in UTC, the form used in JSON and in file metadata.
    pub fn rfc3339(&self) -> String {
        rfc3339(self.wall_ns)
    }
}

/// `wall_ns` (nanoseconds since the Unix epoch) as RFC 3339 in UTC.
pub fn rfc3339(wall_ns: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_ns))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{wall_ns} ns"))
}

/// Where the program gets its time from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

enum Inner {
    System { boot_id: Uuid },
    Manual { boot_id: Uuid, start_wall_ns: i64, elapsed_ns: AtomicU64, trusted: AtomicBool },
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Self {
        Self(Arc::new(Inner::System { boot_id: read_boot_id() }))
    }

    /// A clock that stands still until [`Clock::advance`]; for tests and simulations.
    pub fn manual(start_wall_ns: i64) -> Self {
        Self(Arc::new(Inner::Manual {
            boot_id: Uuid::from_u128(0x0b00_0000_0000_4000_8000_0000_0000_0001),
            start_wall_ns,
            elapsed_ns: AtomicU64::new(0),
            trusted: AtomicBool::new(true),
        }))
    }

    /// Moves a manual clock on; a system clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Inner::Manual { elapsed_ns, .. } = &*self.0 {
            elapsed_ns.fetch_add(nanos(by), Ordering::SeqCst);
        }
    }

    /// Says of a manual clock whether its wall time is right; a system clock knows itself.
    pub fn set_trusted(&self, right: bool) {
        if let Inner::Manual { trusted, .. } = &*self.0 {
            trusted.store(right, Ordering::SeqCst);
        }
    }

    /// Whether wall time can be believed: somebody keeps the kernel's clock in step with a
    /// reference (NTP, PTP, GPS), and says so to the kernel.
    pub fn is_trusted(&self) -> bool {
        match &*self.0 {
            Inner::System { .. } => kernel_clock_is_in_step(),
            Inner::Manual { trusted, .. } => trusted.load(Ordering::SeqCst),
        }
    }

    /// What time it is.
    pub fn now(&self) -> Stamp {
        match &*self.0 {
            Inner::System { boot_id } => {
                // By way of libc, which rustix goes past: there a test can set the wall clock of one
                // process (libfaketime).
                #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
                let wall = SystemTime::now();
                let mono = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                Stamp {
                    wall_ns: since_1970_ns(wall),
                    mono_ns: (mono.tv_sec * 1_000_000_000 + mono.tv_nsec).cast_unsigned(),
                    boot_id: *boot_id,
                }
            }
            Inner::Manual { boot_id, start_wall_ns, elapsed_ns, .. } => {
                let elapsed = elapsed_ns.load(Ordering::SeqCst);
                Stamp {
                    wall_ns: start_wall_ns + elapsed.cast_signed(),
                    mono_ns: elapsed,
                    boot_id: *boot_id,
                }
            }
        }
    }
}

/// What `timedatectl` calls "System clock synchronized": the kernel's flag that whoever steers
/// its clock clears.
#[expect(unsafe_code, reason = "adjtimex(2) has no safe wrapper among our dependencies")]
fn kernel_clock_is_in_step() -> bool {
    // SAFETY: all fields of timex are integers, for which zero is a value; and with no mode set
    // the call changes nothing and only writes into this struct, which outlives it.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex.status)
    };
    if state < 0 {
        // A sandbox without @clock (systemd/reticle.service) denies even asking. Then the file
        // tells that systemd-timesyncd touches when it has set the clock since boot.
        return Path::new("/run/systemd/timesync/synchronized").exists();
    }
    state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
}

/// CPU time of the whole process so far, all threads, user and system.
pub fn process_cpu() -> Duration {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(cpu.tv_sec.cast_unsigned(), u32::try_from(cpu.tv_nsec).unwrap_or(0))
}

/// CPU time of the calling thread so far.
pub fn thread_cpu() -> Duration {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(cpu.tv_sec.cast_unsigned(), u32::try_from(cpu.tv_nsec).unwrap_or(0))
}

/// Negative before 1970, where a clock may stand that nobody has set.
fn since_1970_ns(wall: SystemTime) -> i64 {
    match wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => nanos(after).cast_signed(),
        Err(before) => -nanos(before.duration()).cast_signed(),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Linux names each boot; elsewhere (or in a sandbox without /proc) the process does.
fn read_boot_id() -> Uuid {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| Uuid::parse_str(text.trim()).ok())
        .unwrap_or_else(|| Uuid::from_u128(rand::random()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.now().since(&before), Duration::from_millis(5));
        assert_eq!(clock.now().wall_ns, 5_001_000);
    }

    #[test]
    fn wall_time_counts_from_1970_both_ways() {
        let at = SystemTime::UNIX_EPOCH;
        let second = Duration::from_secs(1);
        assert_eq!(since_1970_ns(at + second), 1_000_000_000);
        assert_eq!(since_1970_ns(at - second), -1_000_000_000);
    }

    #[test]
    fn wall_time_is_written_as_rfc_3339_in_utc() {
        assert_eq!(rfc3339(1_700_000_000_000_000_000), "2023-11-14T22:13:20Z");
    }
}

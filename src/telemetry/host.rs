//! What the machine says of itself: memory, disk, temperature, throttling, processor time.
//!
//! Read from `/proc` and `/sys`, a few files each time; nothing is kept open. What a machine does
//! not tell is `None` or 0, never a guess. The two roots are parameters, so that a test can be
//! any machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reticle_base::clock::{self, Clock, Stamp};
use reticle_domain::health::Health;

/// Temperatures outside of this are those of a sensor that is not there, °C.
const PLAUSIBLE_C: std::ops::RangeInclusive<f32> = -40.0..=150.0;

/// Trip points below this are placeholders of the firmware (0 and -274 were seen), °C.
const LOWEST_LIMIT_C: f32 = 40.0;

/// Bits of the Raspberry Pi's `get_throttled` that speak of now: too little voltage, clock
/// capped, throttled, soft limit of temperature. The same from bit 16 on speak of the past.
const PI_NOW: u64 = 0b1111;

/// A highest clock that is set lower than this part of the possible one is a slowed-down
/// processor. Drivers round the two differently, by less than one step of 100 MHz in 3 GHz.
const FULL_CLOCK: f64 = 0.95;

/// This machine, measured again and again.
pub struct Host {
    clock: Clock,
    /// A folder on the file system whose room counts.
    storage: PathBuf,
    proc: PathBuf,
    sys: PathBuf,
    started: Stamp,
    /// When it was last measured, and the processor time of this process then.
    last: (Stamp, Duration),
}

/// Memory of the box, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What can still be had without swapping.
    pub available_bytes: u64,
}

/// A file system, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// All of it.
    pub total_bytes: u64,
    /// What an ordinary user may still take.
    pub free_bytes: u64,
}

/// The hottest sensor of the processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// Now, °C.
    pub celsius: f32,
    /// Where the processor slows down or stops, °C.
    pub limit_c: Option<f32>,
}

impl Host {
    /// The machine this runs on. `storage` need not be there yet: its nearest parent counts.
    pub fn new(storage: PathBuf, clock: Clock) -> Self {
        let now = clock.now();
        let last = (now, clock::process_cpu());
        let (proc, sys) = ("/proc".into(), "/sys".into());
        Self { clock, storage, proc, sys, started: now, last }
    }

    /// With other folders in the place of `/proc` and `/sys`.
    #[must_use]
    pub fn with_roots(self, proc: PathBuf, sys: PathBuf) -> Self {
        Self { proc, sys, ..self }
    }

    /// All of it, now. The stages and threads of the daemon are not the
    /// machine's to tell: they are empty.
    pub fn measure(&mut self) -> Health {
        let now = self.clock.now();
        let cpu = clock::process_cpu();
        let (before, cpu_before) = std::mem::replace(&mut self.last, (now, cpu));
        let seconds = now.since(&before).as_secs_f32();
        let busy = cpu.saturating_sub(cpu_before).as_secs_f32();
        let memory = self.memory();
        let disk = self.disk();
        let temperature = self.temperature();
        Health {
            at: now.rfc3339(),
            uptime_s: now.since(&self.started).as_secs(),
            cpu_percent: if seconds > 0.0 { 100.0 * busy / seconds } else { 0.0 },
            resident_bytes: super::resident_bytes(),
            memory_total_bytes: memory.total_bytes,
            memory_available_bytes: memory.available_bytes,
            storage_total_bytes: disk.total_bytes,
            storage_free_bytes: disk.free_bytes,
            temperature_c: temperature.map(|temperature| temperature.celsius),
            temperature_limit_c: temperature.and_then(|temperature| temperature.limit_c),
            throttled: self.throttled(),
            clock_trusted: self.clock.is_trusted(),
            stages: Vec::new(),
            threads: Vec::new(),
        }
    }

    /// Zero where the kernel does not tell.
    pub fn memory(&self) -> Memory {
        let text = std::fs::read_to_string(self.proc.join("meminfo")).unwrap_or_default();
        let bytes = |field: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(field));
            let kib = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Memory { total_bytes: bytes("MemTotal:"), available_bytes: bytes("MemAvailable:") }
    }

    /// Zero where the file system does not tell.
    pub fn disk(&self) -> Disk {
        // An empty parent is that of a relative path: the folder we are in.
        let parents = self
            .storage
            .ancestors()
            .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
        let found = parents.filter(|path| path.exists()).find_map(|path| {
            let told = rustix::fs::statvfs(path).ok()?;
            Some(Disk {
                total_bytes: told.f_blocks.saturating_mul(told.f_frsize),
                free_bytes: told.f_bavail.saturating_mul(told.f_frsize),
            })
        });
        found.unwrap_or_default()
    }

    /// `None` where no sensor is one of the processor.
    pub fn temperature(&self) -> Option<Temperature> {
        let zones = entries(&self.sys.join("class/thermal"), "thermal_zone");
        let chips = entries(&self.sys.join("class/hwmon"), "hwmon");
        let all = zones.iter().filter_map(|zone| of_zone(zone));
        let all = all.chain(chips.iter().flat_map(|chip| of_chip(chip)));
        all.max_by(|a, b| a.celsius.total_cmp(&b.celsius))
    }

    /// Whether the processor is slowed down now; `None` where nothing tells.
    pub fn throttled(&self) -> Option<bool> {
        let told = [self.slowed_by_firmware(), self.slowed_by_cooling(), self.slowed_by_clock()];
        told.into_iter().flatten().reduce(|a, b| a || b)
    }

    /// What a Raspberry Pi's firmware says.
    fn slowed_by_firmware(&self) -> Option<bool> {
        let text = read(&self.sys.join("devices/platform/soc/soc:firmware/get_throttled"))?;
        let bits = u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
        Some(bits & PI_NOW != 0)
    }

    /// Whether the kernel cools by slowing the processor. Fans are cooling devices, too.
    fn slowed_by_cooling(&self) -> Option<bool> {
        let devices = entries(&self.sys.join("class/thermal"), "cooling_device");
        let states = devices.iter().filter_map(|device| {
            let kind = read(&device.join("type"))?.to_lowercase();
            let slows = kind.contains("cpufreq") || kind == "processor" || kind.contains("cpuidle");
            let state = number(&device.join("cur_state")).filter(|_| slows)?;
            Some(state > 0.0)
        });
        states.reduce(|a, b| a || b)
    }

    /// Whether somebody (firmware, power daemon) holds the clock below what it could be.
    fn slowed_by_clock(&self) -> Option<bool> {
        let policies = entries(&self.sys.join("devices/system/cpu/cpufreq"), "policy");
        let held = policies.iter().filter_map(|policy| {
            let highest = number(&policy.join("cpuinfo_max_freq"))?;
            Some(number(&policy.join("scaling_max_freq"))? < FULL_CLOCK * highest)
        });
        held.reduce(|a, b| a || b)
    }
}

/// Whether a sensor of this name is one of the processor.
fn is_processor(name: &str) -> bool {
    let name = name.to_lowercase();
    ["cpu", "x86_pkg", "soc", "coretemp", "k10temp", "zenpower"]
        .iter()
        .any(|known| name.contains(known))
}

fn of_zone(zone: &Path) -> Option<Temperature> {
    if !is_processor(&read(&zone.join("type"))?) {
        return None;
    }
    let celsius = celsius(&zone.join("temp"))?;
    let trip = |wanted: &str| {
        let points = (0..16).map_while(|at| {
            let kind = read(&zone.join(format!("trip_point_{at}_type")))?;
            Some((kind, limit(&zone.join(format!("trip_point_{at}_temp")))))
        });
        let limits = points.filter(|(kind, _)| kind == wanted).filter_map(|(_, limit)| limit);
        limits.min_by(f32::total_cmp)
    };
    let limit_c = trip("passive").or_else(|| trip("hot")).or_else(|| trip("critical"));
    Some(Temperature { celsius, limit_c })
}

fn of_chip(chip: &Path) -> Vec<Temperature> {
    if !read(&chip.join("name")).is_some_and(|name| is_processor(&name)) {
        return Vec::new();
    }
    let sensors = entries(chip, "temp");
    let inputs = sensors.iter().filter_map(|path| {
        let sensor = path.file_name()?.to_str()?.strip_suffix("_input")?.to_owned();
        let beside = |what: &str| chip.join(format!("{sensor}_{what}"));
        let limit_c = limit(&beside("crit")).or_else(|| limit(&beside("max")));
        Some(Temperature { celsius: celsius(path)?, limit_c })
    });
    inputs.collect()
}

/// The entries of a folder whose names begin so; none where there is no such folder.
fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect()
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn number(file: &Path) -> Option<f64> {
    read(file)?.parse().ok()
}

/// The kernel writes thousandths.
fn celsius(file: &Path) -> Option<f32> {
    let celsius = (number(file)? / 1000.0) as f32;
    PLAUSIBLE_C.contains(&celsius).then_some(celsius)
}

fn limit(file: &Path) -> Option<f32> {
    celsius(file).filter(|limit| *limit >= LOWEST_LIMIT_C)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::durable;

    /// A machine that has these files and no others.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            durable::create_dir(path.parent().unwrap()).unwrap();
            durable::write(&path, text.as_bytes()).unwrap();
        }
        let host = Host::new(root.path().join("not/yet"), Clock::manual(0))
            .with_roots(root.path().join("proc"), root.path().join("sys"));
        (root, host)
    }

    #[test]
    fn a_machine_that_tells_nothing_is_not_guessed_at() {
        let (_root, host) = machine(&[]);
        assert_eq!(host.memory(), Memory::default());
        assert_eq!((host.temperature(), host.throttled()), (None, None));
    }

    #[test]
    fn memory_is_what_can_still_be_had() {
        let text = "MemTotal:        8000 kB\nMemFree:  10 kB\nMemAvailable:    3000 kB\n";
        let (_root, host) = machine(&[("proc/meminfo", text)]);
        assert_eq!(host.memory(), Memory { total_bytes: 8_192_000, available_bytes: 3_072_000 });
    }

    #[test]
    fn the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent() {
        let (_root, host) = machine(&[]);
        let disk = host.disk();
        assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes, "{disk:?}");
    }

    #[test]
    fn the_hottest_sensor_of_the_processor_counts_with_its_own_limit() {
        let (_root, host) = machine(&[
            ("sys/class/thermal/thermal_zone0/type", "acpitz\n"),
            ("sys/class/thermal/thermal_zone0/temp", "99000\n"),
            ("sys/class/thermal/thermal_zone1/type", "x86_pkg_temp\n"),
            ("sys/class/thermal/thermal_zone1/temp", "61000\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_0_type", "passive\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_0_temp", "0\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_1_type", "critical\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_1_temp", "105000\n"),
            ("sys/class/hwmon/hwmon0/name", "nvme\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "90000\n"),
            ("sys/class/hwmon/hwmon1/name", "coretemp\n"),
            ("sys/class/hwmon/hwmon1/temp1_input", "58000\n"),
            ("sys/class/hwmon/hwmon1/temp2_input", "64500\n"),
            ("sys/class/hwmon/hwmon1/temp2_crit", "100000\n"),
            ("sys/class/hwmon/hwmon1/temp3_input", "-274000\n"),
        ]);
        let hottest = Temperature { celsius: 64.5, limit_c: Some(100.0) };
        assert_eq!(host.temperature(), Some(hottest));
    }

    #[test]
    fn a_zone_slows_down_at_its_passive_trip_point() {
        let (_root, host) = machine(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48200\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_type", "critical\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "110000\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_1_type", "passive\n"),
            ("sys/class/thermal/thermal_zone0/trip_point_1_temp", "80000\n"),
        ]);
        assert_eq!(host.temperature().unwrap().limit_c, Some(80.0));
    }

    #[test]
    fn a_raspberry_pi_is_throttled_by_what_its_firmware_says_of_now() {
        let file = "sys/devices/platform/soc/soc:firmware/get_throttled";
        for (text, throttled) in [("0\n", false), ("50000\n", false), ("50005\n", true)] {
            let (_root, host) = machine(&[(file, text)]);
            assert_eq!(host.throttled(), Some(throttled), "{text}");
        }
    }

    #[test]
    fn a_fan_that_turns_slows_nothing_down() {
        let folder = "sys/class/thermal/cooling_device";
        for (fan, processor, throttled) in [("3", "0", false), ("0", "2", true)] {
            let (_root, host) = machine(&[
                (&format!("{folder}0/type"), "pwm-fan\n"),
                (&format!("{folder}0/cur_state"), fan),
                (&format!("{folder}1/type"), "cpufreq-cpu0\n"),
                (&format!("{folder}1/cur_state"), processor),
            ]);
            assert_eq!(host.throttled(), Some(throttled));
        }
    }

    #[test]
    fn a_clock_that_is_held_down_is_a_processor_that_is_slowed_down() {
        let policy = "sys/devices/system/cpu/cpufreq/policy0";
        for (now, throttled) in [("2995000", false), ("1800000", true)] {
            let (_root, host) = machine(&[
                (&format!("{policy}/cpuinfo_max_freq"), "3000000\n"),
                (&format!("{policy}/scaling_max_freq"), now),
            ]);
            assert_eq!(host.throttled(), Some(throttled), "{now}");
        }
    }
}

//! Room, memory, clock, heat.

use super::{Finding, Scene};
use crate::telemetry::host::Host;

/// 2024-01-01 UTC. A clock before that was never set: this program is younger.
const TOO_EARLY_NS: i64 = 1_704_067_200_000_000_000;

/// What a daemon takes at rest with a model ready: 188 MB live at 1024², of which a megapixel
/// takes 30.
const RESTING_BYTES: u64 = 160_000_000;

/// What segmenting takes for each pixel of a frame.
const BYTES_A_PIXEL: u64 = 30;

/// Pixels of a frame where the configuration does not say: 4 megapixels, a common camera.
const USUAL_PIXELS: u64 = 4_000_000;

/// As close to the processor's limit as this is too hot, and three times as close is warm, °C.
const HOT_BELOW_LIMIT_C: f32 = 5.0;

/// The limit where the processor names none, °C.
const USUAL_LIMIT_C: f32 = 90.0;

fn host(scene: &Scene) -> Host {
    Host::new(scene.settings.store.folder.clone(), scene.clock.clone())
}

fn mb(bytes: u64) -> String {
    if bytes < 10_000_000_000 {
        return format!("{} MB", bytes / 1_000_000);
    }
    format!("{} GB", bytes / 1_000_000_000)
}

pub(super) fn disk(scene: &Scene) -> Finding {
    let disk = host(scene).disk();
    let options = &scene.settings.store;
    let (free, floor) = (disk.free_bytes, options.frames.min_free_bytes);
    let found = format!("{} of {} are free", mb(free), mb(disk.total_bytes));
    if disk.total_bytes == 0 {
        return Finding::skipped("the file system does not tell how large it is");
    }
    if free < floor {
        return Finding::fail(
            format!("{found}; {} are to stay free ([store.frames] min_free_bytes)", mb(floor)),
            "free some room or use a larger disk; until then frame files are deleted and new \
             frames recorded without pixels",
        );
    }
    if free < floor.saturating_mul(2) {
        return Finding::warn(
            found,
            "soon the oldest frame files make room; free some, or leave it",
        );
    }
    let wanted = options.max_bytes.max(options.frames.max_bytes).saturating_add(floor);
    if wanted > disk.total_bytes {
        return Finding::warn(
            format!(
                "{found}; the configuration lets Reticle and what stays free take {}",
                mb(wanted)
            ),
            "lower max_bytes in [store] or [store.frames], or use a larger disk",
        );
    }
    Finding::ok(found)
}

pub(super) fn memory(scene: &Scene) -> Finding {
    let memory = host(scene).memory();
    if memory.total_bytes == 0 {
        return Finding::skipped("this machine does not tell");
    }
    let available = memory.available_bytes;
    let found = format!("{} of {} can be had", mb(available), mb(memory.total_bytes));
    if scene.running {
        return Finding::ok(format!("{found}, with a daemon at work"));
    }
    let source = &scene.settings.source;
    let pixels = source.width.zip(source.height).map(|(w, h)| u64::from(w) * u64::from(h));
    let needed = RESTING_BYTES + BYTES_A_PIXEL * pixels.unwrap_or(USUAL_PIXELS);
    let found = format!("{found}; about {} are needed", mb(needed));
    if available < needed {
        return Finding::fail(found, "stop other programs, use smaller frames, or add memory");
    }
    if available < needed.saturating_mul(2) {
        return Finding::warn(found, "do not run much else on this box");
    }
    Finding::ok(found)
}

pub(super) fn clock(scene: &Scene) -> Finding {
    let now = scene.clock.now();
    if now.wall_ns < TOO_EARLY_NS {
        return Finding::fail(
            format!("it is {} here, which cannot be", now.rfc3339()),
            "set the clock, and let it be kept in step: `timedatectl set-ntp true`",
        );
    }
    if !scene.clock.is_trusted() {
        return Finding::warn(
            format!("{}; nobody keeps it in step with a reference", now.rfc3339()),
            "`timedatectl set-ntp true`, or name the lab's time server in /etc/systemd/timesyncd.conf",
        );
    }
    Finding::ok(format!("{}, kept in step", now.rfc3339()))
}

pub(super) fn temperature(scene: &Scene) -> Finding {
    let Some(now) = host(scene).temperature() else {
        return Finding::skipped("no sensor of the processor");
    };
    let limit = now.limit_c.unwrap_or(USUAL_LIMIT_C);
    let of = if now.limit_c.is_some() { "its limit is" } else { "a usual limit is" };
    let found = format!("{:.0} °C; {of} {limit:.0} °C", now.celsius);
    let todo = "free the air vents, look at the fan, put the box somewhere cooler";
    if now.celsius >= limit - HOT_BELOW_LIMIT_C {
        return Finding::fail(found, todo);
    }
    if now.celsius >= limit - 3.0 * HOT_BELOW_LIMIT_C {
        return Finding::warn(found, todo);
    }
    Finding::ok(found)
}

pub(super) fn throttling(scene: &Scene) -> Finding {
    match host(scene).throttled() {
        None => Finding::skipped("this machine does not tell"),
        Some(false) => Finding::ok("the processor runs as fast as it can"),
        Some(true) => Finding::warn(
            "the processor is slowed down, because of heat, weak power or a setting",
            "use the box's own power supply, cool it, and set its power profile to performance",
        ),
    }
}

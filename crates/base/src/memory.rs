//! How the allocator keeps memory, and how much of it this process may have.

use std::path::{Path, PathBuf};

/// Heaps that all threads share.
const ARENAS: libc::c_int = 2;

/// Lets all threads share two heaps. By itself glibc gives each of a daemon's dozen threads a heap
/// of its own, and each keeps what its largest piece of work needed: measured live at 1024²,
/// 275 MB and growing instead of 188 MB and flat. Of no effect with another allocator.
#[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper among our dependencies")]
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes two numbers, and is called before there are other threads.
        let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
        if taken == 0 {
            tracing::debug!("the allocator keeps a heap for each thread");
        }
    }
}

/// What this process may hold in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in all: what it holds now, and what can still be had.
    pub bytes: u64,
    /// What sets the limit, for a person.
    pub within: &'static str,
}

/// How much memory this process may hold now, by the narrowest limit: that of its service or
/// container (`MemoryMax`), its address space and data (`ulimit`), and what the box has left.
/// `None` where nothing tells.
///
/// What it holds already counts as room: a frame's buffers are used for the next one.
pub fn room() -> Option<Room> {
    room_at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// As [`room`], with other folders in the place of `/proc` and `/sys/fs/cgroup`.
fn room_at(proc: &Path, cgroup: &Path) -> Option<Room> {
    let own = Own::read(&proc.join("self"))?;
    let limits = [
        (of_the_box(proc), "the memory that the box has left"),
        (of_the_groups(proc, cgroup), "the memory limit of the service or container"),
        (own.address_space(), "the limit of its address space (ulimit -v)"),
        (own.data(), "the limit of its data (ulimit -d)"),
    ];
    let rooms = limits.into_iter().filter_map(|(free, within)| {
        Some(Room { bytes: free?.saturating_add(own.resident_bytes), within })
    });
    rooms.min_by_key(|room| room.bytes)
}

/// What the kernel says of this process.
struct Own {
    /// Anonymous memory that is there, which a limit counts and which can be used again.
    resident_bytes: u64,
    mapped_bytes: u64,
    data_bytes: u64,
    limits: String,
}

impl Own {
    fn read(own: &Path) -> Option<Self> {
        let status = std::fs::read_to_string(own.join("status")).ok()?;
        Some(Self {
            resident_bytes: kib(&status, "RssAnon:")?,
            mapped_bytes: kib(&status, "VmSize:")?,
            data_bytes: kib(&status, "VmData:")?,
            limits: std::fs::read_to_string(own.join("limits")).unwrap_or_default(),
        })
    }

    /// What is mapped and not there, as the stacks of threads, counts against the limit.
    fn address_space(&self) -> Option<u64> {
        Some(self.soft("Max address space")?.saturating_sub(self.mapped_bytes))
    }

    fn data(&self) -> Option<u64> {
        Some(self.soft("Max data size")?.saturating_sub(self.data_bytes))
    }

    /// A limit in bytes; `None` where there is none.
    fn soft(&self, name: &str) -> Option<u64> {
        let rest = self.limits.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse().ok()
    }
}

fn of_the_box(proc: &Path) -> Option<u64> {
    kib(&std::fs::read_to_string(proc.join("meminfo")).ok()?, "MemAvailable:")
}

/// The least that is left in the groups in which this process is, of either kind.
fn of_the_groups(proc: &Path, cgroup: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(proc.join("self/cgroup")).ok()?;
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(kinds), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, group): (PathBuf, fn(&Path) -> Option<u64>) = if kinds.is_empty() {
            (cgroup.to_owned(), left_in_v2)
        } else if kinds.split(',').any(|kind| kind == "memory") {
            (cgroup.join("memory"), left_in_v1)
        } else {
            continue;
        };
        // In a container the path may be the host's: then the root is the container's own group.
        for part in Path::new(path.trim_start_matches('/')).ancestors() {
            if let Some(left) = group(&root.join(part)) {
                least = Some(least.map_or(left, |least| least.min(left)));
            }
        }
    }
    least
}

fn left_in_v2(group: &Path) -> Option<u64> {
    let limit = [number(&group.join("memory.max")), number(&group.join("memory.high"))];
    left_in(group, limit.into_iter().flatten().min()?, "memory.current", "")
}

fn left_in_v1(group: &Path) -> Option<u64> {
    // Without a limit there is a number that no machine has.
    let limit = number(&group.join("memory.limit_in_bytes")).filter(|limit| *limit < 1 << 60)?;
    left_in(group, limit, "memory.usage_in_bytes", "total_")
}

/// The limit less what is in use; copies of files are given up when memory is wanted.
fn left_in(group: &Path, limit: u64, usage: &str, prefix: &str) -> Option<u64> {
    let used = number(&group.join(usage))?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files: u64 = ["inactive_file", "active_file"]
        .iter()
        .filter_map(|kind| {
            let name = format!("{prefix}{kind} ");
            stat.lines()
                .find_map(|line| line.strip_prefix(name.as_str())?.trim().parse::<u64>().ok())
        })
        .sum();
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn kib(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable;

    const STATUS: &str = "Name:\treticle\nVmSize:\t 500000 kB\nVmData:\t 200000 kB\n\
                          RssAnon:\t 100000 kB\n";
    const NO_LIMITS: &str = "Max data size             unlimited            unlimited  bytes\n\
                             Max address space         unlimited            unlimited  bytes\n";

    /// The room on a machine that has these files besides the usual ones.
    fn room_with(files: &[(&str, &str)]) -> Option<Room> {
        let usual = [
            ("proc/self/status", STATUS),
            ("proc/self/limits", NO_LIMITS),
            ("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 3000000 kB\n"),
        ];
        let root = tempfile::tempdir().unwrap();
        for (name, text) in usual.iter().chain(files) {
            let path = root.path().join(name);
            durable::create_dir(path.parent().unwrap()).unwrap();
            durable::write(&path, text.as_bytes()).unwrap();
        }
        room_at(&root.path().join("proc"), &root.path().join("cgroup"))
    }

    #[test]
    fn without_a_limit_it_is_what_the_box_has_left_and_what_is_held_already() {
        let room = room_with(&[]).unwrap();
        assert_eq!(room.bytes, 3_100_000 * 1024);
        assert!(room.within.contains("the box"));
    }

    #[test]
    fn a_machine_that_tells_nothing_has_no_limit() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(room_at(root.path(), root.path()), None);
    }

    #[test]
    fn the_limits_of_the_process_count_less_what_is_mapped_and_not_there() {
        let limits = "Max data size             unlimited            unlimited  bytes\n\
                      Max address space         1300000000           1300000000 bytes\n";
        let room = room_with(&[("proc/self/limits", limits)]).unwrap();
        assert_eq!(room.bytes, 1_300_000_000 - 400_000 * 1024);
        assert!(room.within.contains("ulimit -v"));
        let limits = "Max data size             1000000000           unlimited  bytes\n";
        let room = room_with(&[("proc/self/limits", limits)]).unwrap();
        assert_eq!(room.bytes, 1_000_000_000 - 100_000 * 1024);
    }

    #[test]
    fn the_narrowest_of_the_groups_counts_and_copies_of_files_do_not() {
        let room = room_with(&[
            ("proc/self/cgroup", "0::/system.slice/reticle.service\n"),
            ("cgroup/system.slice/memory.max", "max\n"),
            ("cgroup/system.slice/reticle.service/memory.max", "1000000000\n"),
            ("cgroup/system.slice/reticle.service/memory.current", "600000000\n"),
            (
                "cgroup/system.slice/reticle.service/memory.stat",
                "anon 1\ninactive_file 200000000\nactive_file 100000000\n",
            ),
        ]);
        let room = room.unwrap();
        assert_eq!(room.bytes, 700_000_000 + 100_000 * 1024);
        assert!(room.within.contains("service or container"));
    }

    #[test]
    fn a_container_of_the_older_kind_has_its_limit_at_the_root() {
        let room = room_with(&[
            ("proc/self/cgroup", "4:cpu:/docker/1\n9:memory:/docker/1\n"),
            ("cgroup/memory/memory.limit_in_bytes", "500000000\n"),
            ("cgroup/memory/memory.usage_in_bytes", "300000000\n"),
            ("cgroup/memory/memory.stat", "total_inactive_file 50000000\n"),
        ]);
        assert_eq!(room.unwrap().bytes, 250_000_000 + 100_000 * 1024);
        let unlimited = room_with(&[
            ("proc/self/cgroup", "9:memory:/\n"),
            ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cgroup/memory/memory.usage_in_bytes", "300000000\n"),
        ]);
        assert_eq!(unlimited.unwrap().bytes, 3_100_000 * 1024);
    }
}

//! Logging set-up and what the process knows of itself.

/// Resident memory of this process in bytes; 0 where the kernel does not tell.
pub fn resident_bytes() -> u64 {
    status_kib("VmRSS:") * 1024
}

/// Largest resident memory of this process so far, in bytes; 0 where the kernel does not tell.
pub fn peak_resident_bytes() -> u64 {
    status_kib("VmHWM:") * 1024
}

fn status_kib(field: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

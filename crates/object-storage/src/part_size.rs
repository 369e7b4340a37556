//! Which files go to S3 in parts, and in how large ones.

/// Files above this go in parts.
pub(super) const MULTIPART_FROM: u64 = 16 << 20;

/// Bytes in a part. S3 wants at least 5 MiB; on a link of 10 Mbit/s this is seven seconds, the
/// most that a cut costs.
pub(super) const PART: u64 = 8 << 20;

/// Parts that an upload may have.
const MAX_PARTS: u64 = 10_000;

/// Bytes in each part but the last of a file of so many bytes: 8 MiB, and for files above 80 GB
/// as many whole MiB as it takes.
pub(super) fn part_bytes(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_8_mib_until_there_would_be_too_many() {
        assert_eq!(part_bytes(20 << 20), 8 << 20);
        assert_eq!(part_bytes(80_000 << 20), 8 << 20);
        assert_eq!(part_bytes((80_000 << 20) + 1), 9 << 20);
        for bytes in [1, 17 << 20, 90 << 30, 5_u64 << 40] {
            assert!(bytes.div_ceil(part_bytes(bytes)) <= MAX_PARTS, "{bytes}");
        }
    }
}

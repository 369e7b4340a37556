//! How fast the box may upload: one budget for all that leaves it.
//!
//! Each upload takes from the budget what it is about to send, chunk by chunk, and waits as long
//! as that costs at the configured rate. Who asks first goes first, so that uploads share the
//! rate evenly. Small records ([`Throttle::take_first`]) do not wait behind an image of 100 MB:
//! they wait only for each other, and what they take is missing for the rest, so that the rate of
//! all together stays what was configured.
//!
//! A folder as archive takes nothing: what is written to a disk is no upload.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reticle_base::clock::Clock;

/// Time that may be caught up on: an upload that was late, because its timer was (a millisecond)
/// or its disk, still reaches the configured rate.
const CREDIT: Duration = Duration::from_millis(50);

/// The budget. Clones share it.
#[derive(Clone)]
pub struct Throttle {
    clock: Clock,
    /// `None`: no limit.
    bucket: Option<Arc<Mutex<Bucket>>>,
}

impl Throttle {
    /// A budget of `max_upload_mbit` megabits (1,000,000 bits) a second; 0 is no limit.
    pub fn new(max_upload_mbit: u32, clock: Clock) -> Self {
        let bucket = (max_upload_mbit > 0)
            .then(|| Arc::new(Mutex::new(Bucket::new(u64::from(max_upload_mbit) * 1_000_000 / 8))));
        Self { clock, bucket }
    }

    /// Waits until `bytes` may be sent. Given up (dropped) while it waits, they are still counted
    /// as sent.
    pub async fn take(&self, bytes: u64) {
        self.wait(bytes, Bucket::take).await;
    }

    /// As [`Throttle::take`], for small records, ahead of everything that is not.
    pub async fn take_first(&self, bytes: u64) {
        self.wait(bytes, Bucket::take_first).await;
    }

    async fn wait(&self, bytes: u64, take: fn(&mut Bucket, u64, u64) -> Duration) {
        let Some(bucket) = &self.bucket else { return };
        let now_ns = self.clock.now().mono_ns;
        let wait = {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            take(&mut bucket, now_ns, bytes)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The arithmetic, without the waiting: when each may begin to send.
struct Bucket {
    bytes_per_s: u64,
    /// When what was taken so far will have been sent, in nanoseconds of the monotonic clock.
    free_ns: u64,
    /// The same, of what goes first alone.
    first_free_ns: u64,
}

impl Bucket {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_ns: 0, first_free_ns: 0 }
    }

    fn take(&mut self, now_ns: u64, bytes: u64) -> Duration {
        let start = self.free_ns.max(earliest(now_ns));
        self.free_ns = start.saturating_add(self.cost_ns(bytes));
        Duration::from_nanos(start.saturating_sub(now_ns))
    }

    fn take_first(&mut self, now_ns: u64, bytes: u64) -> Duration {
        let start = self.first_free_ns.max(earliest(now_ns));
        self.first_free_ns = start.saturating_add(self.cost_ns(bytes));
        // The others pay for it.
        self.take(now_ns, bytes);
        Duration::from_nanos(start.saturating_sub(now_ns))
    }

    fn cost_ns(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

fn earliest(now_ns: u64) -> u64 {
    now_ns.saturating_sub(u64::try_from(CREDIT.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const CHUNK: u64 = 65_536;

    /// Sends chunks one after the other from `now_ns` on and returns when the last may begin.
    fn send(bucket: &mut Bucket, mut now_ns: u64, chunks: u64) -> u64 {
        for _ in 0..chunks {
            now_ns += u64::try_from(bucket.take(now_ns, CHUNK).as_nanos()).unwrap();
        }
        now_ns
    }

    #[test]
    fn one_upload_gets_the_rate_and_no_more() {
        let mut bucket = Bucket::new(16 * CHUNK);
        let end = send(&mut bucket, 10 * SECOND, 161);
        // 161 chunks at 16 a second: the last begins after 10 s, less what was saved before.
        let expected = 20 * SECOND - u64::try_from(CREDIT.as_nanos()).unwrap();
        assert_eq!(end, expected);
    }

    #[test]
    fn an_idle_hour_saves_up_no_more_than_the_credit() {
        let mut bucket = Bucket::new(16 * CHUNK);
        send(&mut bucket, SECOND, 16);
        let hour = 3_600 * SECOND;
        let end = send(&mut bucket, hour, 17);
        assert!(end >= hour + SECOND - u64::try_from(CREDIT.as_nanos()).unwrap(), "{end}");
    }

    #[test]
    fn uploads_share_the_rate_evenly() {
        let mut bucket = Bucket::new(16 * CHUNK);
        let mut due = [SECOND; 3];
        let mut sent = [0_u32; 3];
        // Whoever is due next asks next, as tasks do that wait for their turn.
        for _ in 0..300 {
            let next = (0..3).min_by_key(|upload| due[*upload]).unwrap();
            due[next] += u64::try_from(bucket.take(due[next], CHUNK).as_nanos()).unwrap();
            sent[next] += 1;
        }
        assert!(sent.iter().all(|sent| (98..=102).contains(sent)), "{sent:?}");
    }

    #[test]
    fn a_small_record_does_not_wait_behind_an_image_and_is_paid_for() {
        let mut bucket = Bucket::new(CHUNK);
        let now = 10 * SECOND;
        // Ten uploads have each asked for a chunk: the last of them waits about ten seconds.
        for _ in 0..10 {
            bucket.take(now, CHUNK);
        }
        let before = bucket.free_ns;
        assert_eq!(bucket.take_first(now, CHUNK), Duration::ZERO);
        assert_eq!(bucket.free_ns, before + SECOND, "the rest pays for it");
        // What goes first is held to the rate too.
        let wait = bucket.take_first(now, CHUNK);
        assert_eq!(wait, Duration::from_secs(1) - CREDIT);
    }

    #[test]
    fn the_configured_megabits_are_decimal_and_none_is_no_limit() {
        let throttle = Throttle::new(8, Clock::manual(0));
        let bucket = throttle.bucket.unwrap();
        assert_eq!(bucket.lock().unwrap().bytes_per_s, 1_000_000);
        assert!(Throttle::new(0, Clock::manual(0)).bucket.is_none());
    }
}

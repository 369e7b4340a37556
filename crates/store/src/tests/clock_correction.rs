//! A clock that was wrong: nothing is lost, nothing changes its order, both times stay.

use std::time::Duration;

use super::clean;
use crate::fixture::{self, Bench};
use crate::*;
use reticle_base::clock::Clock;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_a_wrong_clock_dated_is_dated_again_and_delivered_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    // A box that starts in 1970, and learns after an hour what time it is.
    bench.use_clock(Clock::manual(0));
    let start = bench.clock.now();
    bench.work(vec![Job::Clock { now: start, trusted: false }]);
    let wrong = bench.take(0, 4);
    bench.clock.advance(HOUR);
    bench.take(1, 4);
    for item in bench.claim(Destination::Central) {
        bench.deliver(&item);
    }

    let mut right = bench.clock.now();
    right.wall_ns = 1_790_000_000_000_000_000;
    bench.work(vec![Job::Clock { now: right, trusted: true }]);
    let reader = bench.reader();
    let series = reader.series(bench.session.id).unwrap().remove(0);
    let frames = reader.frames_of(&series, 0..10).unwrap();
    let hour = i64::try_from(HOUR.as_nanos()).unwrap();
    assert_eq!(frames[0].captured.recorded_ns, wrong.frame.captured.wall_ns);
    assert_eq!(frames[0].captured.at_ns, right.wall_ns - hour);
    assert_eq!(frames[1].captured.at_ns, right.wall_ns);
    assert_eq!(frames[0].captured.mono_ns, wrong.frame.captured.mono_ns);

    let again = bench.claim(Destination::Central);
    let kinds: Vec<_> = again.iter().map(|item| (item.kind, item.delivered)).collect();
    assert_eq!(kinds, [(Kind::Frames, 0), (Kind::Results, 0)]);

    // PublishCursor again, or later in the same boot, it stays.
    bench.clock.advance(HOUR);
    let mut later = bench.clock.now();
    later.wall_ns = right.wall_ns + 7 * hour;
    bench.work(vec![Job::Clock { now: later, trusted: true }]);
    assert_eq!(bench.reader().frames_of(&series, 0..10).unwrap(), frames);
    bench.close();
    // The sums by minute are those of the right minutes, too (I13).
    clean(folder.path());
}

#[test]
fn a_clock_that_was_right_from_the_start_dates_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::delivering(&fixture::options(folder.path()), fixture::deliveries());
    let now = bench.clock.now();
    bench.work(vec![Job::Clock { now, trusted: true }]);
    let answer = bench.take(0, 4);
    let mut later = bench.clock.now();
    later.wall_ns += 5_000_000_000;
    bench.work(vec![Job::Clock { now: later, trusted: true }]);
    let series = bench.reader().series(bench.session.id).unwrap().remove(0);
    let frame = bench.reader().frames_of(&series, 0..1).unwrap().remove(0);
    assert_eq!(frame.captured.at_ns, answer.frame.captured.wall_ns);
    assert_eq!(frame.captured.recorded_ns, answer.frame.captured.wall_ns);
}

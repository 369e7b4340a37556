//! Faults of PostgreSQL and of the way there.

use rand::Rng as _;
use rustix::process::Signal;

use super::process;
use crate::bench::Bench;
use crate::crowd::Crowd;
use crate::wire::State;

pub(super) fn restart(bench: &mut Bench) {
    let started = "SELECT pg_postmaster_start_time()";
    let first = bench.postgres.psql(started);
    let pid = bench.postgres.psql("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)");
    let pid = process(pid.parse().expect("the first line is the process id"));
    // Immediate: no farewell to anybody, recovery from the log at the next start.
    rustix::process::kill_process(pid, Signal::QUIT).expect("the server can be signalled");
    bench.dwell();
    // Asked before: on a busy machine the daemon is back before it can be asked after.
    let before = bench.wire.opened();
    bench.postgres.restart();
    assert_ne!(bench.postgres.psql(started), first, "it is still the same server");
    bench.deliver_until("the daemon to connect again", |bench| bench.wire.opened() > before);
    bench.central_again();
}

pub(super) fn connections(bench: &mut Bench) {
    let url = bench.postgres.url();
    let crowd = Crowd::hold_all(&url, bench.postgres.password(), || end_others(bench) == "0");
    // The crowd has all there are, so whoever comes now is refused.
    let before = bench.wire.opened();
    bench.deliver_until("the daemon to ask for a connection", |bench| bench.wire.opened() > before);
    bench.dwell();
    drop(crowd);
    bench.central_again();
}

pub(super) fn read_only(bench: &mut Bench) {
    let before = bench.daemon().log().len();
    let set = "ALTER ROLE box IN DATABASE lab SET default_transaction_read_only = ";
    bench.postgres.psql(&format!("{set}on"));
    // A session has the setting from its beginning.
    end_others(bench);
    bench.deliver_until("the server to refuse a write", |bench| {
        bench.daemon().log().get(before..).is_some_and(|log| log.contains("25006"))
    });
    bench.dwell();
    bench.postgres.psql(&format!("{set}off"));
    end_others(bench);
    bench.central_again();
}

/// Ends the daemon's sessions; how many there were.
pub(super) fn end_others(bench: &Bench) -> String {
    bench.postgres.psql(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE usename = 'box' AND application_name <> '{}'",
        Crowd::NAME
    ))
}

pub(super) fn cut(bench: &mut Bench) {
    let before = bench.wire.refused();
    bench.wire.set(State::Cut);
    bench
        .deliver_until("the daemon to find the network cut", |bench| bench.wire.refused() > before);
    bench.dwell();
    bench.wire.set(State::Open);
    bench.central_again();
}

pub(super) fn slow(bench: &mut Bench) {
    /// More than a question whether anybody is there.
    const SLOWED: u64 = 2_000;
    let before = bench.wire.slowed();
    let bytes_per_s = bench.random.random_range(2_000..20_000);
    bench.wire.set(State::Slow { bytes_per_s });
    bench.deliver_until("a delivery over the slow network", |bench| {
        bench.wire.slowed() > before + SLOWED
    });
    bench.dwell();
    bench.wire.set(State::Open);
    bench.central_again();
}

/// A trigger takes rows and keeps none, and nobody gets an error.
pub(super) fn swallowed_rows(bench: &mut Bench) {
    bench.deliver_until("the tables to be made", |bench| {
        bench.postgres.psql("SELECT to_regclass('reticle.object') IS NOT NULL") == "t"
    });
    // The sequence counts what was swallowed: it does not go back with a transaction.
    bench.postgres.psql(
        "CREATE SEQUENCE public.swallowed;
         CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
         AS $$ BEGIN PERFORM nextval('public.swallowed'); RETURN NULL; END $$;
         CREATE TRIGGER swallow BEFORE INSERT ON reticle.object
         FOR EACH ROW EXECUTE FUNCTION public.swallow()",
    );
    bench.deliver_until("rows of objects to be swallowed", |bench| {
        bench.postgres.psql("SELECT is_called FROM public.swallowed") == "t"
    });
    bench.deliver_until("the daemon to find that PostgreSQL keeps no rows", |bench| {
        let status = bench.status().unwrap_or_default();
        let destinations = status["sync"].as_array().cloned().unwrap_or_default();
        let central = destinations.iter().find(|one| one["destination"] == "central");
        central.is_some_and(|central| !central["reason"].is_null())
    });
    let count = "SELECT count(*) FROM reticle.segmentation
                 WHERE objects > 0 AND pk NOT IN (SELECT segmentation FROM reticle.object)";
    let empty = bench.postgres.psql(count);
    assert_eq!(empty, "0", "results are in PostgreSQL without their objects");
    bench.dwell();
    bench.postgres.psql(
        "DROP TRIGGER swallow ON reticle.object; DROP FUNCTION public.swallow();
         DROP SEQUENCE public.swallowed",
    );
    bench.central_again();
}

//! Faults of the archive and of the way there.

use crate::bench::Bench;
use crate::common::fault_proxy::Fault;

/// Something is done to the requests with `request` in their first line.
pub(super) fn answer(bench: &mut Bench, request: &str, fault: Fault) {
    let before = bench.s3_proxy.fired(fault);
    bench.s3_proxy.set(request, fault);
    bench.deliver_until("a request to the archive to meet the fault", |bench| {
        bench.s3_proxy.fired(fault) > before
    });
    bench.dwell();
    bench.s3_proxy.clear();
    bench.archive_again();
}

/// The daemon is patient with a server that does not answer: it is ended in the middle of its
/// patience.
pub(super) fn hang(bench: &mut Bench) {
    let before = bench.s3_proxy.fired(Fault::Hang);
    bench.s3_proxy.set("", Fault::Hang);
    bench.deliver_until("a request to the archive to hang", |bench| {
        bench.s3_proxy.fired(Fault::Hang) > before
    });
    bench.pause();
    bench.end_or_kill();
    bench.s3_proxy.clear();
    bench.go();
    bench.archive_again();
}

pub(super) fn credentials(bench: &mut Bench) {
    bench.end_or_kill();
    bench.go_with(&[("AWS_SECRET_ACCESS_KEY", "of-somebody-else")]);
    bench.deliver_until("the server to refuse the credentials", |bench| {
        let log = bench.daemon().log();
        log.contains("SignatureDoesNotMatch") || log.contains("secret key does not belong")
    });
    bench.pause();
    bench.end_or_kill();
    bench.go();
    bench.archive_again();
}

pub(super) fn restart(bench: &mut Bench) {
    let asked = |bench: &Bench| bench.s3_proxy.fired(Fault::Pass);
    bench.s3.kill();
    let before = asked(bench);
    bench.deliver_until("a request to a server that is not there", |bench| asked(bench) > before);
    bench.dwell();
    bench.s3.restart();
    bench.archive_again();
}

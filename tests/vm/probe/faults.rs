//! What a camera can do to us.

use std::time::Duration;

use anyhow::{Context, ensure};
use reticle::capture::run::{Gap, Notice};
use v4l::control::Value;

use crate::Bench;
use crate::rig::{Rig, set, small};

pub(crate) fn dropped(bench: &Bench) -> anyhow::Result<String> {
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    rig.frames(10)?;
    set(&bench.webcam, "Percentage of Dropped Buffers", Value::Integer(30))?;
    let (mut came, mut missed, mut last) = (10_u64, 0, 0);
    while came < 150 {
        match rig.next()? {
            Notice::Frame(frame) => {
                came += 1;
                last = frame.sequence;
            }
            Notice::Missed { count } => missed += count,
            other => anyhow::bail!("{other:?}"),
        }
    }
    set(&bench.webcam, "Percentage of Dropped Buffers", Value::Integer(0))?;
    ensure!(missed > 20, "only {missed} missed");
    ensure!(last + 1 == came + missed, "frame {last} after {came} and {missed} missed");
    Ok(format!("{came} came, {missed} were told as missed, the last is number {last}"))
}

pub(crate) fn damaged(bench: &Bench) -> anyhow::Result<String> {
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    rig.frames(10)?;
    set(&bench.webcam, "Inject V4L2_BUF_FLAG_ERROR", Value::None)?;
    let told = rig.until(|notice| match notice {
        Notice::Refused { what, why } => Some(format!("{what}: {why}")),
        _ => None,
    })?;
    // Neither lost nor missed: frames go on.
    rig.frames(20)?;
    Ok(told)
}

fn back(rig: &Rig) -> anyhow::Result<Gap> {
    loop {
        match rig.next()? {
            Notice::Back { gap } => return Ok(gap),
            // The reason may change while it is away.
            Notice::Lost { .. } => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
}

/// The gap as it is recorded, and that frames go on after it with fitting numbers.
fn go_on(rig: &Rig, gap: &Gap, last_number: u64) -> anyhow::Result<String> {
    let missed = gap.missed.context("no estimate of what was missed")?;
    let frames = rig.frames(50)?;
    ensure!(frames[0].captured == gap.to, "the gap ends with another frame");
    ensure!(
        frames[0].sequence == last_number + 1 + missed,
        "number {} after {last_number} and {missed} missed",
        frames[0].sequence
    );
    let length = gap.to.since(&gap.from).as_secs_f64();
    let due = length * 50.0;
    ensure!((missed as f64 - due).abs() < 2.0 + 0.01 * due, "{missed} missed in {length} s");
    Ok(format!("gap of {length:.2} s recorded, {missed} missed ({})", gap.reason))
}

/// Frames, then `fault`, then the loss; gives its reason, how long it took to notice, and the
/// number of the last frame.
fn break_it(
    bench: &Bench,
    rig: &Rig,
    fault: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(String, Duration, u64)> {
    rig.frames(20)?;
    fault()?;
    let mut number = None;
    let mut last = bench.clock.now();
    let reason = rig.until(|notice| match notice {
        Notice::Frame(frame) => {
            (number, last) = (Some(frame.sequence), frame.captured);
            None
        }
        Notice::Lost { reason, .. } => Some(reason.clone()),
        _ => None,
    })?;
    let noticed = bench.clock.now().since(&last);
    Ok((reason, noticed, number.unwrap_or(19)))
}

pub(crate) fn fatal(bench: &Bench) -> anyhow::Result<String> {
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    let (_, noticed, number) =
        break_it(bench, &rig, || set(&bench.webcam, "Inject Fatal Streaming Error", Value::None))?;
    let gap = back(&rig)?;
    Ok(format!("noticed after {} ms, {}", noticed.as_millis(), go_on(&rig, &gap, number)?))
}

pub(crate) fn hang(bench: &Bench) -> anyhow::Result<String> {
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    let silent =
        |percent| set(&bench.webcam, "Percentage of Dropped Buffers", Value::Integer(percent));
    let (_, noticed, number) = break_it(bench, &rig, || silent(100))?;
    ensure!(noticed <= Duration::from_secs(3), "noticed after {noticed:?} only");
    // Still silent: it is opened again and again, and must not be called back.
    std::thread::sleep(Duration::from_secs(4));
    silent(0)?;
    let gap = back(&rig)?;
    Ok(format!("noticed after {:.2} s, {}", noticed.as_secs_f64(), go_on(&rig, &gap, number)?))
}

pub(crate) fn unbind(bench: &Bench) -> anyhow::Result<String> {
    let driver = |what: &str| {
        let path = format!("/sys/bus/platform/drivers/vivid/{what}");
        let mut file = std::fs::OpenOptions::new().write(true).open(&path)?;
        std::io::Write::write_all(&mut file, b"vivid.0").with_context(|| path)
    };
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    let (reason, noticed, number) = break_it(bench, &rig, || driver("unbind"))?;
    ensure!(noticed <= Duration::from_secs(3), "noticed after {noticed:?} only");
    ensure!(!bench.webcam.exists(), "the node is still there");
    std::thread::sleep(Duration::from_secs(3));
    let bound = bench.clock.now();
    driver("bind")?;
    let gap = back(&rig)?;
    let resumed = gap.to.since(&bound);
    ensure!(resumed <= Duration::from_secs(10), "resumed after {resumed:?} only");
    Ok(format!(
        "noticed after {} ms ({reason}), frames again {} ms after it was bound, {}",
        noticed.as_millis(),
        resumed.as_millis(),
        go_on(&rig, &gap, number)?
    ))
}

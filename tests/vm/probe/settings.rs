//! What can be asked of a camera, and what it answers to what it cannot do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use reticle::capture::run::Notice;
use reticle::capture::{Options, SourceError, SourceSpec, cameras, open};
use v4l::control::Value;

use crate::Bench;
use crate::rig::{Rig, brightness, set, small};

pub(crate) fn listed(bench: &Bench) -> anyhow::Result<String> {
    let cameras = cameras::list()?;
    let devices: Vec<&Path> = cameras.iter().map(|camera| &*camera.device).collect();
    ensure!(devices == [&*bench.webcam, &*bench.input], "listed {devices:?}");
    let webcam = &cameras[0];
    ensure!(webcam.driver == "vivid" && webcam.problem.is_none(), "{webcam:?}");
    Ok(format!("{} and {}, not the output", devices[0].display(), devices[1].display()))
}

fn why_not(options: &Options, bench: &Bench) -> anyhow::Result<(bool, String)> {
    match open(options, &bench.clock) {
        Ok(_) => anyhow::bail!("{options:?} was opened"),
        Err(SourceError::Lost(why)) => Ok((true, why)),
        Err(SourceError::Unusable(why)) => Ok((false, why)),
    }
}

pub(crate) fn no_camera(bench: &Bench) -> anyhow::Result<String> {
    let at = |path: &Path| Options { spec: SourceSpec::V4l(path.to_owned()), ..Options::default() };
    let (may_come, why) = why_not(&at(Path::new("/dev/video99")), bench)?;
    ensure!(may_come && why.contains("/dev/video99 is not there"), "{why}");
    let (may_come, why) = why_not(&at(&bench.output), bench)?;
    ensure!(!may_come && why.contains("gives no images"), "{why}");
    let (may_come, why) = why_not(&at(Path::new("/dev/null")), bench)?;
    ensure!(!may_come && why.contains("no video device"), "{why}");
    Ok("not there, an output, /dev/null".to_owned())
}

pub(crate) fn refused(bench: &Bench) -> anyhow::Result<String> {
    let base = small(&bench.webcam);
    let cases = [
        (
            Options { width: Some(333), ..base.clone() },
            "has no size 333×180 in GREY, the nearest is 320×180",
        ),
        (
            Options { fps: Some(500.0), ..base.clone() },
            "has no rate of 500 frames a second, the nearest is 60",
        ),
        (Options { pixel_format: Some("MJPG".parse()?), ..base.clone() }, "does not send MJPG"),
        (Options { exposure_us: Some(10_000), ..base.clone() }, "has no exposure in µs to set"),
        (Options { gain: Some(1000), ..base }, "has no gain of 1000, it took 255"),
    ];
    for (options, wanted) in &cases {
        let (may_come, why) = why_not(options, bench)?;
        ensure!(!may_come && why.contains(wanted), "`{why}` where `{wanted}` was expected");
    }
    Ok(format!("{} settings, each with what it can do", cases.len()))
}

pub(crate) fn in_use(bench: &Bench) -> anyhow::Result<String> {
    let first = Rig::start(small(&bench.webcam), &bench.clock)?;
    first.frames(3)?;
    let second = Rig::start(small(&bench.webcam), &bench.clock)?;
    let why = second.until(|notice| match notice {
        Notice::Lost { reason, .. } => Some(reason.clone()),
        _ => None,
    })?;
    ensure!(why.contains("used by another program"), "{why}");
    first.frames(3)?;
    drop(first);
    second.until(|notice| matches!(notice, Notice::Back { .. }).then_some(()))?;
    second.frames(3)?;
    Ok("the second program got it when the first let go, and disturbed nothing before".to_owned())
}

pub(crate) fn gain(bench: &Bench) -> anyhow::Result<String> {
    let read = || anyhow::Ok(cameras::abilities(&bench.webcam)?.gain.context("no gain")?.now);
    let before = read()?;
    let rig = Rig::start(Options { gain: Some(77), ..small(&bench.webcam) }, &bench.clock)?;
    rig.frames(3)?;
    let after = read()?;
    ensure!(after == Some(77) && before != after, "{before:?}, then {after:?}");
    Ok("77, with automatic gain switched off".to_owned())
}

pub(crate) fn rate(bench: &Bench) -> anyhow::Result<String> {
    let mut seen = Vec::new();
    for fps in [10.0, 12.5, 60.0] {
        let rig = Rig::start(Options { fps: Some(fps), ..small(&bench.webcam) }, &bench.clock)?;
        let frames = rig.frames(21)?;
        let spent = frames[20].captured.since(&frames[0].captured).as_secs_f64();
        let found = 20.0 / spent;
        ensure!((found - fps).abs() < 0.02 * fps, "{found} where {fps} was asked for");
        seen.push(format!("{found:.2}"));
    }
    Ok(format!("{} frames a second", seen.join(", ")))
}

pub(crate) fn seen_while_streaming(bench: &Bench) -> anyhow::Result<String> {
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    let before = brightness(&rig.settled(&bench.clock)?);
    set(&bench.webcam, "Brightness", Value::Integer(200))?;
    let after = brightness(&rig.settled(&bench.clock)?);
    set(&bench.webcam, "Brightness", Value::Integer(128))?;
    ensure!(after > before + 0.1, "mean {before:.3}, then {after:.3}");
    Ok(format!("mean grey value from {before:.3} to {after:.3} of full scale"))
}

pub(crate) fn pause(bench: &Bench) -> anyhow::Result<String> {
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    rig.frames(10)?;
    rig.gate.close();
    // What was on its way when the gate closed still comes.
    let mut last = None;
    while let Some(notice) = rig.next_within(Duration::from_secs(2))? {
        match notice {
            Notice::Frame(frame) => last = Some(frame),
            other => anyhow::bail!("{other:?}"),
        }
    }
    let opened = bench.clock.now();
    rig.gate.open();
    let first = rig.frame()?;
    ensure!(first.captured.mono_ns >= opened.mono_ns, "a frame from before the pause");
    if let Some(last) = last {
        ensure!(first.sequence == last.sequence + 1, "{} then {}", last.sequence, first.sequence);
    }
    rig.frames(20)?;
    let late = first.captured.since(&opened);
    Ok(format!("first frame {} ms after going on", late.as_millis()))
}

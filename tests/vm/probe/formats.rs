//! Every pixel format that the camera gives and that is read.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use reticle::capture::{Options, cameras, pixel_format::PixelFormat};
use v4l::control::Value;

use crate::Bench;
use crate::rig::{Rig, brightness, set, small};

/// Frames of each format.
const FRAMES: usize = 200;

pub(crate) fn every_format(bench: &Bench) -> anyhow::Result<String> {
    let offered = cameras::abilities(&bench.webcam)?.formats;
    let formats: Vec<PixelFormat> = PixelFormat::all()
        .filter(|format| offered.iter().any(|found| found.pixel_format == Some(*format)))
        .collect();
    // All but MJPG; a kernel that gives fewer has changed, and so would this claim.
    ensure!(formats.len() == 21, "{formats:?}");
    let mut shakiest = 0_u64;
    for format in &formats {
        let shake = one(bench, *format).with_context(|| format.to_string())?;
        shakiest = shakiest.max(shake);
    }
    let names: Vec<String> = formats.iter().map(ToString::to_string).collect();
    Ok(format!(
        "{} formats ({}), numbers without a gap, times 20 ms ± {shakiest} µs apart, black is \
         dark and white is bright",
        formats.len(),
        names.join(" ")
    ))
}

/// Gives by how many µs the worst distance of frames, but the first, differs from 20 ms.
fn one(bench: &Bench, format: PixelFormat) -> anyhow::Result<u64> {
    let options = Options { pixel_format: Some(format), ..small(&bench.webcam) };
    let rig = Rig::start(options, &bench.clock)?;
    let frames = rig.frames(FRAMES)?;
    let (mut worst, mut steady) = (0, 0);
    for (number, frame) in frames.iter().enumerate() {
        ensure!(frame.sequence == number as u64, "number {} at {number}", frame.sequence);
        ensure!((frame.width, frame.height) == (320, 180), "{}×{}", frame.width, frame.height);
        ensure!(frame.bit_depth == format.bit_depth(), "{} bits", frame.bit_depth);
        ensure!(frame.sha256 == frame.pixels.sha256(), "the hash is not of the pixels");
    }
    for (number, pair) in frames.windows(2).enumerate() {
        ensure!(pair[0].captured.mono_ns < pair[1].captured.mono_ns, "time stands still");
        let distance_us = pair[1].captured.since(&pair[0].captured).as_micros() as u64;
        worst = worst.max(distance_us.abs_diff(20_000));
        // The driver's first frame comes early, whatever the rate.
        if number > 0 {
            steady = steady.max(distance_us.abs_diff(20_000));
        }
    }
    ensure!(worst < 10_000, "times are {worst} µs off");
    // The image shows a running clock.
    let different: HashSet<_> = frames.iter().map(|frame| frame.sha256).collect();
    ensure!(different.len() > FRAMES / 2, "only {} different images", different.len());
    for (pattern, range) in [(BLACK, 0.0..0.1), (WHITE, 0.9..1.01)] {
        set(&bench.webcam, "Test Pattern", Value::Integer(pattern))?;
        set(&bench.webcam, "OSD Text Mode", Value::Integer(NO_TEXT))?;
        let last = brightness(&*rig.settled(&bench.clock)?);
        ensure!(range.contains(&last), "brightness {last:.3} outside {range:?}");
    }
    set(&bench.webcam, "Test Pattern", Value::Integer(0))?;
    set(&bench.webcam, "OSD Text Mode", Value::Integer(0))?;
    Ok(steady)
}

const BLACK: i64 = 5;
const WHITE: i64 = 6;
pub(crate) const NO_TEXT: i64 = 2;

pub(crate) fn wrap(bench: &Bench) -> anyhow::Result<String> {
    // The driver then begins 128 before the end of its 32 bits.
    set(&bench.webcam, "Wrap Sequence Number", Value::Boolean(true))?;
    let rig = Rig::start(small(&bench.webcam), &bench.clock)?;
    let frames = rig.frames(FRAMES);
    set(&bench.webcam, "Wrap Sequence Number", Value::Boolean(false))?;
    for (number, frame) in frames?.iter().enumerate() {
        ensure!(frame.sequence == number as u64, "number {} at {number}", frame.sequence);
    }
    Ok(format!("{FRAMES} frames without a gap"))
}

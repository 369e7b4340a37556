//! The capture loop at work, and the knobs of the virtual camera.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reticle::capture::run::{Gate, Notice, run};
use reticle::capture::{Exposure, Opener, Options, SourceSpec};
use reticle_base::clock::Clock;
use reticle_base::queue::{self, Received, Receiver, WhenFull};
use reticle_base::shutdown::Shutdown;
use reticle_domain::frame::Frame;
use reticle_imagefile::Limits;
use v4l::control::{Control, Value};

/// Nothing in these checks takes longer without a word.
const PATIENCE: Duration = Duration::from_secs(15);

/// The camera at `device`, small and fast.
pub(crate) fn small(device: &Path) -> Options {
    Options {
        spec: SourceSpec::V4l(device.to_owned()),
        width: Some(320),
        height: Some(180),
        fps: Some(50.0),
        pixel_format: Some("GREY".parse().expect("GREY is a format")),
        ..Options::default()
    }
}

/// The capture loop, running in its thread.
pub(crate) struct Rig {
    notices: Receiver<Notice>,
    shutdown: Shutdown,
    /// Holds capture.
    pub(crate) gate: Gate,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    /// Starts the loop. Notices wait in a queue that never makes the loop wait here.
    pub(crate) fn start(options: Options, clock: &Clock) -> anyhow::Result<Self> {
        let (sender, notices) = queue::bounded("notices", 4000, WhenFull::Wait);
        let (shutdown, gate) = (Shutdown::new(), Gate::new(true));
        let (stop, hold) = (shutdown.clone(), gate.clone());
        let opener = Opener::new(options, Limits::default(), clock.clone());
        let thread = std::thread::Builder::new().name("capture".into()).spawn(move || {
            run(&opener, stop, hold, Exposure::default(), |notice| {
                sender.send(notice);
            });
        })?;
        Ok(Self { notices, shutdown, gate, thread: Some(thread) })
    }

    /// The next notice, if there is one within `patience`.
    pub(crate) fn next_within(&self, patience: Duration) -> anyhow::Result<Option<Notice>> {
        match self.notices.recv_timeout(patience) {
            Received::Item(notice) => Ok(Some(notice)),
            Received::Timeout => Ok(None),
            Received::Closed => bail!("the loop ended"),
        }
    }

    /// The next notice.
    pub(crate) fn next(&self) -> anyhow::Result<Notice> {
        self.next_within(PATIENCE)?.with_context(|| format!("nothing in {PATIENCE:?}"))
    }

    /// The next frame; anything that is neither a frame nor the beginning is an error.
    pub(crate) fn frame(&self) -> anyhow::Result<Box<Frame>> {
        loop {
            match self.next()? {
                Notice::Frame(frame) => return Ok(frame),
                Notice::Opening | Notice::Ready => {}
                other => bail!("{other:?}"),
            }
        }
    }

    /// So many frames in a row.
    pub(crate) fn frames(&self, count: usize) -> anyhow::Result<Vec<Frame>> {
        let one = |index| self.frame().with_context(|| format!("after {index} frames"));
        (0..count).map(|index| one(index).map(|frame| *frame)).collect()
    }

    /// A frame that was captured when what was just changed had time to show itself.
    pub(crate) fn settled(&self, clock: &Clock) -> anyhow::Result<Box<Frame>> {
        let changed = clock.now();
        loop {
            let frame = self.frame()?;
            if frame.captured.since(&changed) > Duration::from_millis(200) {
                return Ok(frame);
            }
        }
    }

    /// Waits for a notice that `wanted` takes, passing over frames.
    pub(crate) fn until<T>(
        &self,
        mut wanted: impl FnMut(&Notice) -> Option<T>,
    ) -> anyhow::Result<T> {
        loop {
            let notice = self.next()?;
            if let Some(found) = wanted(&notice) {
                return Ok(found);
            }
            ensure!(
                matches!(notice, Notice::Frame(_) | Notice::Opening | Notice::Ready),
                "{notice:?}"
            );
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            // A panic in the loop has shown itself as an ended loop.
            thread.join().ok();
        }
    }
}

/// Sets the control that is called `name`, beside whoever streams.
pub(crate) fn set(device: &Path, name: &str, value: Value) -> anyhow::Result<()> {
    let node = v4l::Device::with_path(device).context("cannot open")?;
    let known = node.query_controls()?;
    let found = known.iter().find(|control| control.name.eq_ignore_ascii_case(name));
    let id = found.with_context(|| format!("no control `{name}`"))?.id;
    node.set_control(Control { id, value }).with_context(|| format!("cannot set `{name}`"))
}

/// Mean grey value as a share of the largest possible.
pub(crate) fn brightness(frame: &Frame) -> f64 {
    let count = frame.pixels.len();
    let sum: u64 = (0..count).map(|index| u64::from(frame.pixels.get(index))).sum();
    sum as f64 / count as f64 / f64::from((1_u32 << frame.bit_depth) - 1)
}

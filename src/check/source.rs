//! Whether the source gives a frame.

use std::time::Duration;

use super::{Finding, Scene};
use crate::capture::{Event, Opener, Options, SourceError, SourceSpec};

/// How long the first frame may take; less than the probe's own limit. Cameras with a long
/// exposure give one within seconds.
const FIRST_FRAME: Duration = Duration::from_secs(15);

/// How long is waited in one go.
const STEP: Duration = Duration::from_millis(200);

pub(super) fn source(scene: &Scene) -> Finding {
    let options = &scene.settings.source;
    let spec = &options.spec;
    if scene.running && matches!(spec, SourceSpec::V4l(_)) {
        return Finding::skipped(format!("{spec}: a daemon is at work; its camera is not opened"));
    }
    let todo = match spec {
        SourceSpec::V4l(_) => "plug the camera in; `reticle camera list` shows what is there",
        SourceSpec::Folder(_) => "name a folder that this user can read, in [source] spec",
        SourceSpec::Virtual => "correct [source]",
    };
    // What a watched folder holds already is as good as what will come.
    let is_folder = matches!(spec, SourceSpec::Folder(_));
    let is_watched = is_folder && !options.replay && options.fps.is_none();
    let options = Options { replay: options.replay || is_folder, ..options.clone() };
    let began = scene.clock.now();
    let limits = scene.settings.segment.limits();
    let mut source = match Opener::new(options, limits, scene.clock.clone()).open() {
        Ok(source) => source,
        Err(error) => return Finding::fail(format!("{spec}: {error}"), todo),
    };
    let mut refused = None;
    while scene.clock.now().since(&began) < FIRST_FRAME {
        match source.next(STEP) {
            Ok(Event::Frame(frame)) => {
                let seconds = scene.clock.now().since(&began).as_secs_f32();
                return Finding::ok(format!(
                    "{spec}: {}×{} pixels, {} bits, the first after {seconds:.1} s",
                    frame.width, frame.height, frame.bit_depth
                ));
            }
            Ok(Event::Nothing) => {}
            Ok(Event::Refused { what, why }) => {
                refused.get_or_insert(format!("{what}: {why}"));
            }
            Ok(Event::End) => break,
            // It was opened, so it can be read: there is nothing to replay in it, and that is no
            // fault of a folder that is watched for what comes.
            Err(SourceError::Lost(_)) if is_watched => break,
            Err(error) => return Finding::fail(format!("{spec}: {error}"), todo),
        }
    }
    match refused {
        Some(refused) => Finding::warn(
            format!("{spec}: no image that can be read; {refused}"),
            "see which images the scope's software writes; docs/guide/formats.md has those we read",
        ),
        None if is_watched => Finding::warn(
            format!("{spec}: there is no image in it yet"),
            "nothing, if images are still to come; else name another folder in [source] spec",
        ),
        None => Finding::fail(
            format!("{spec}: opened, and no frame within {} s", FIRST_FRAME.as_secs()),
            "look at its trigger and cable; plug it in again",
        ),
    }
}

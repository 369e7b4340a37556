//! Whether the model is there and segments here as it should.

use super::{Finding, Scene};
use reticle_segment::{Segmenter, golden};

pub(super) fn model(scene: &Scene) -> Finding {
    let options = &scene.settings.segment;
    let mut segmenter = match Segmenter::new(options, scene.clock.clone()) {
        Ok(segmenter) => segmenter,
        Err(error) => {
            return Finding::fail(
                error.to_string(),
                "set [segment] model to a built-in name or to the folder of a whole model package",
            );
        }
    };
    let name = segmenter.model().name.clone();
    match golden::check(&mut segmenter, &scene.clock) {
        Ok(report) if report.identical => {
            Finding::ok(format!("{name}; its golden frame comes out identical"))
        }
        Ok(report) if report.is_good() => Finding::ok(format!(
            "{name}; its golden frame comes out within the bounds for a network that tract runs \
             (foreground IoU {:.4}, {} objects instead of {})",
            report.foreground_iou, report.found_objects, report.expected_objects
        )),
        Ok(report) => Finding::fail(
            format!(
                "{name}; its golden frame comes out differently (foreground IoU {:.4}, {} objects \
                 instead of {})",
                report.foreground_iou, report.found_objects, report.expected_objects
            ),
            "do not trust numbers of this box; copy the model package again, or use another model",
        ),
        Err(error) => Finding::warn(
            format!("{name}; no golden frame to check with: {error}"),
            "copy the whole model package, with golden.png and golden-labels.png",
        ),
    }
}

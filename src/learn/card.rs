//! The model card: what a person should know before trusting a model.

use std::fmt::Write;

use reticle_segment::package::Manifest;

/// The card of a package, as Markdown.
pub fn text(manifest: &Manifest) -> String {
    let Manifest { name, description, network, training, metrics, postprocessing, .. } = manifest;
    let mut recipe = String::new();
    for (key, value) in &training.recipe {
        // Writing to a String cannot fail.
        writeln!(recipe, "| {key} | {value} |").ok();
    }
    format!(
        "# Model `{name}`\n\n\
         {description}\n\n\
         ## Use\n\n\
         Input: one channel, bright objects as in the training images. Best where the median \
         object is about {diameter:.0} pixels across; far from that, expect splits or misses. \
         Not for diagnosis.\n\n\
         ## Quality\n\n\
         On {split} ({images} images), pooled over all objects:\n\n\
         | IoU | AP |\n|---|---|\n| 0.5 | {ap50:.3} |\n| 0.7 | {ap70:.3} |\n| 0.9 | {ap90:.3} |\n\n\
         AP is TP/(TP+FP+FN). A split that chose anything flatters; judge by images of your own \
         with `reticle eval`.\n\n\
         ## Training\n\n\
         {data}\n\n\
         {train_images} images with {objects} objects (SHA-256 `{data_sha256}`), {software}, \
         {made}. Recipe:\n\n\
         | | |\n|---|---|\n{recipe}\n\
         Post-processing, chosen on the held-out images: foreground above \
         {foreground}, seeds above {seed} (or foreground above {sure}), peaks kept apart by {merge}, \
         contact weight {contact}, \
         {smoothing} smoothing passes, at least {area} pixels.\n\n\
         Network SHA-256: `{sha256}`\n",
        diameter = network.object_diameter_px,
        split = metrics.split,
        images = metrics.images,
        ap50 = metrics.ap50,
        ap70 = metrics.ap70,
        ap90 = metrics.ap90,
        data = training.data,
        train_images = training.images,
        objects = training.objects,
        data_sha256 = training.data_sha256,
        software = training.software,
        made = training.made,
        foreground = postprocessing.foreground_threshold,
        seed = postprocessing.seed_threshold,
        sure = postprocessing.sure_threshold,
        merge = postprocessing.merge_height,
        contact = postprocessing.contact_weight,
        smoothing = postprocessing.smoothing_passes,
        area = postprocessing.min_area,
        sha256 = network.sha256,
    )
}

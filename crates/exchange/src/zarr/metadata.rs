//! The `zarr.json` documents: Zarr 3 with the attributes of OME-Zarr 0.5.
//!
//! What OME-Zarr has no word for stands beside its attributes under `reticle`.

use serde::Serialize;
use serde_json::{Value, json};

use super::shard::LEVEL;
use reticle_domain::facts::{ModelFacts, Series};

/// The group of a series' image.
pub fn image_group(name: &str, series: &Series, pixel_size_um: Option<f64>) -> Vec<u8> {
    group(&json!({
        "ome": { "version": "0.5", "multiscales": multiscales(name, pixel_size_um) },
        "reticle": { "session": series.session, "series": series.number },
    }))
}

/// The array of a series' image.
pub fn image_array(series: &Series) -> Vec<u8> {
    array(series, image_type(series))
}

/// The list of a series' label images.
pub fn labels_group(models: &[ModelFacts]) -> Vec<u8> {
    let mut keys: Vec<String> = models.iter().map(ModelFacts::key).collect();
    keys.sort();
    group(&json!({ "ome": { "version": "0.5", "labels": keys } }))
}

/// The group of one model's label image.
pub fn label_group(series: &Series, model: &ModelFacts, pixel_size_um: Option<f64>) -> Vec<u8> {
    let key = model.key();
    group(&json!({
        "ome": {
            "version": "0.5",
            "multiscales": multiscales(&key, pixel_size_um),
            "image-label": { "source": { "image": "../../" } },
        },
        "reticle": { "session": series.session, "series": series.number, "model": model.model },
    }))
}

/// The array of one model's label image.
pub fn label_array(series: &Series) -> Vec<u8> {
    array(series, "uint32")
}

/// Zarr's name for the pixels of a series.
pub(crate) fn image_type(series: &Series) -> &'static str {
    if series.bytes_per_pixel == 1 { "uint8" } else { "uint16" }
}

/// Any document: indented, for people, and with a line's end.
pub(crate) fn document(value: &impl Serialize) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec_pretty(value).expect("no map here has keys other than strings");
    bytes.push(b'\n');
    bytes
}

fn group(attributes: &Value) -> Vec<u8> {
    document(&json!({ "zarr_format": 3, "node_type": "group", "attributes": attributes }))
}

/// One resolution only: frames of a microscope camera are small enough to be shown as they are.
fn multiscales(name: &str, pixel_size_um: Option<f64>) -> Value {
    let known = pixel_size_um.filter(|um| um.is_finite() && *um > 0.0);
    let space = |name: &str| match known {
        Some(_) => json!({ "name": name, "type": "space", "unit": "micrometer" }),
        None => json!({ "name": name, "type": "space" }),
    };
    let edge = known.unwrap_or(1.0);
    // Frames are not equally far apart in time: their times are in the table of frames.
    json!([{
        "name": name,
        "axes": [{ "name": "t", "type": "time" }, space("y"), space("x")],
        "datasets": [{
            "path": "0",
            "coordinateTransformations": [{ "type": "scale", "scale": [1.0, edge, edge] }],
        }],
    }])
}

fn array(series: &Series, data_type: &str) -> Vec<u8> {
    let (height, width) = (series.height, series.width);
    // One byte has no order.
    let bytes = match data_type {
        "uint8" => json!({ "name": "bytes" }),
        _ => json!({ "name": "bytes", "configuration": { "endian": "little" } }),
    };
    document(&json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": [series.frames, height, width],
        "data_type": data_type,
        "chunk_grid": {
            "name": "regular",
            "configuration": { "chunk_shape": [series.part_frames, height, width] },
        },
        "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
        "fill_value": 0,
        "codecs": [{
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, height, width],
                "codecs": [
                    bytes,
                    { "name": "zstd", "configuration": { "level": LEVEL, "checksum": false } },
                ],
                "index_codecs": [
                    { "name": "bytes", "configuration": { "endian": "little" } },
                    { "name": "crc32c" },
                ],
                "index_location": "end",
            },
        }],
        "dimension_names": ["t", "y", "x"],
        "attributes": {},
    }))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing;
    use super::*;

    fn parsed(document: Vec<u8>) -> Value {
        serde_json::from_slice(&document).unwrap()
    }

    #[test]
    fn a_known_pixel_size_is_the_scale_in_micrometres_and_an_unknown_one_is_one_pixel() {
        let series = testing::series(3, 0);
        let known = parsed(image_group("plate", &series, Some(0.65)));
        let image = &known["attributes"]["ome"]["multiscales"][0];
        let scale = &image["datasets"][0]["coordinateTransformations"][0]["scale"];
        assert_eq!(*scale, json!([1.0, 0.65, 0.65]));
        assert_eq!(image["axes"][2]["unit"], "micrometer");
        for none in [None, Some(0.0), Some(f64::NAN)] {
            let unknown = parsed(image_group("plate", &series, none));
            let image = &unknown["attributes"]["ome"]["multiscales"][0];
            let scale = &image["datasets"][0]["coordinateTransformations"][0]["scale"];
            assert_eq!(*scale, json!([1.0, 1.0, 1.0]));
            assert_eq!(image["axes"][2]["unit"], Value::Null);
        }
    }

    #[test]
    fn the_order_of_models_changes_no_byte() {
        let (a, b) = (testing::model("a"), testing::model("b"));
        assert_eq!(labels_group(&[a.clone(), b.clone()]), labels_group(&[b, a]));
    }
}

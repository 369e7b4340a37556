//! GeoJSON as QuPath reads and writes it: one collection for each frame, one feature for each
//! object, with polygons along the edges of its pixels and its measurements.

use std::path::Path;

use geojson::{Feature, FeatureCollection, GeoJson, Geometry, GeometryValue, JsonObject, Position};
use serde_json::{Value, json};

use super::found::{Clue, Found, Shape, Shapes};
use super::outline::{self, Polygon, Ring};
use super::{ReadError, canvas, rle};
use reticle_base::foreign_file;
use reticle_base::ids::FrameId;
use reticle_domain::facts::FrameFacts;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;

/// One frame's objects. Coordinates are pixels of the image, its corner at (0, 0).
///
/// Beside what QuPath knows, each feature's properties have `label`, and the collection has
/// `frame`, `width` and `height`.
pub fn encode(frame: &FrameFacts, labels: &LabelImage, objects: &[Object]) -> Vec<u8> {
    let measured = |label: u32| objects.iter().find(|object| object.label == label);
    // Objects mostly come by label, 1 to n: then the first look finds them.
    let find = |label: u32| match objects.get(label as usize - 1) {
        Some(object) if object.label == label => Some(object),
        _ => measured(label),
    };
    let regions = rle::regions(labels);
    let traced = outline::trace(labels, &regions);
    let features = regions.iter().zip(traced).map(|(region, polygons)| {
        let mut polygons: Vec<_> = polygons.into_iter().map(closed).collect();
        let geometry = if polygons.len() == 1 {
            GeometryValue::Polygon { coordinates: polygons.swap_remove(0) }
        } else {
            GeometryValue::MultiPolygon { coordinates: polygons }
        };
        let mut properties = JsonObject::new();
        properties.insert("objectType".to_owned(), json!("detection"));
        properties.insert("label".to_owned(), json!(region.label));
        let measurements = find(region.label).map(measurements).unwrap_or_default();
        properties.insert("measurements".to_owned(), Value::Object(measurements));
        Feature {
            geometry: Some(Geometry::new(geometry)),
            properties: Some(properties),
            ..Feature::default()
        }
    });
    let mut about = JsonObject::new();
    about.insert("frame".to_owned(), json!(frame.id));
    about.insert("width".to_owned(), json!(labels.width()));
    about.insert("height".to_owned(), json!(labels.height()));
    let collection = FeatureCollection {
        bbox: None,
        features: features.collect(),
        foreign_members: Some(about),
    };
    let mut bytes = collection.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// The numbers of an object by their names; what is not a number is left out.
fn measurements(object: &Object) -> JsonObject {
    let fields = match serde_json::to_value(object) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("an object is a struct of numbers"),
    };
    fields.into_iter().filter(|(name, value)| name != "label" && value.is_number()).collect()
}

/// In GeoJSON the first corner of a ring is also its last.
fn closed(polygon: Polygon) -> Vec<Vec<Position>> {
    let ring = |ring: Ring| {
        let first = ring.first().copied();
        ring.into_iter().chain(first).map(|(x, y)| Position::from([x, y])).collect()
    };
    polygon.into_iter().map(ring).collect()
}

/// Largest document that is read, bytes: fifty thousand objects with their measurements.
const DOCUMENT_BYTES: u64 = 64 << 20;

/// Reads one frame's objects: a collection, a list of features (as QuPath writes, too), or one
/// feature. Objects without a `label` are numbered in their order.
pub(super) fn read(path: &Path) -> Result<Found, ReadError> {
    let failed = |why: String| ReadError::new(path, why);
    let bytes =
        foreign_file::read(path, DOCUMENT_BYTES).map_err(|error| ReadError::new(path, error))?;
    let not_geojson = |error: String| failed(format!("is no GeoJSON: {error}"));
    let text = String::from_utf8(bytes).map_err(|error| not_geojson(error.to_string()))?;
    let (features, about) = if text.trim_start().starts_with('[') {
        let features: Vec<Feature> =
            serde_json::from_str(&text).map_err(|error| not_geojson(error.to_string()))?;
        (features, JsonObject::new())
    } else {
        match text.parse::<GeoJson>().map_err(|error| not_geojson(error.to_string()))? {
            GeoJson::FeatureCollection(all) => {
                (all.features, all.foreign_members.unwrap_or_default())
            }
            GeoJson::Feature(feature) => (vec![feature], JsonObject::new()),
            GeoJson::Geometry(_) => {
                return Err(failed(
                    "is a bare geometry; a collection of features is needed".into(),
                ));
            }
        }
    };
    let mut objects = Vec::with_capacity(features.len());
    for (number, feature) in features.into_iter().enumerate() {
        let label = feature.property("label").and_then(Value::as_u64);
        let label = label.and_then(|label| u32::try_from(label).ok()).filter(|label| *label > 0);
        let polygons = match feature.geometry.map(|geometry| geometry.value) {
            Some(GeometryValue::Polygon { coordinates }) => vec![polygon(coordinates)],
            Some(GeometryValue::MultiPolygon { coordinates }) => {
                coordinates.into_iter().map(polygon).collect()
            }
            other => {
                let kind = other.map_or("nothing", |value| value.type_name());
                return Err(failed(format!(
                    "feature {number} is a {kind}; only polygons cover pixels: remove it"
                )));
            }
        };
        let polygons = polygons.into_iter().collect::<Result<Vec<_>, _>>();
        let polygons = polygons.map_err(|why| failed(format!("feature {number} {why}")))?;
        objects.push((label, Shape::Polygons(polygons)));
    }
    if objects.iter().any(|(label, _)| label.is_none()) {
        for (number, (label, _)) in (1..).zip(&mut objects) {
            *label = Some(number);
        }
    }
    let objects = objects.into_iter().filter_map(|(label, shape)| Some((label?, shape))).collect();
    let frame =
        about.get("frame").and_then(Value::as_str).and_then(|id| id.parse::<FrameId>().ok());
    let clue = Clue::of_file(path);
    let clue = Clue { frame: frame.or(clue.frame), ..clue };
    let length = |name: &str| about.get(name)?.as_u64()?.try_into().ok();
    let size = length("width").zip(length("height"));
    Ok(Found::new(path, "", clue, Shapes::Drawn { size, objects }))
}

fn polygon(rings: Vec<Vec<Position>>) -> Result<Polygon, String> {
    let corner = |position: &Position| match position.as_slice() {
        [x, y, ..] => canvas::corner(*x, *y),
        _ => Err("has a corner without x and y".to_owned()),
    };
    rings.iter().map(|ring| ring.iter().map(corner).collect()).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn write(text: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t1.geojson");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn round_trip(labels: &LabelImage) -> LabelImage {
        let frame = testing::frame(0);
        let (_folder, path) = write(&encode(&frame, labels, &[]));
        let found = read(&path).unwrap();
        assert_eq!(found.clue().frame, Some(frame.id));
        found.labels((labels.width(), labels.height())).unwrap()
    }

    proptest! {
        #[test]
        fn any_label_image_comes_back(labels in testing::any_labels()) {
            prop_assert_eq!(round_trip(&labels), labels);
        }
    }

    #[test]
    fn more_objects_than_16_bits_can_number_come_back() {
        let labels = testing::many_objects();
        assert_eq!(round_trip(&labels), labels);
    }

    #[test]
    fn a_feature_is_a_detection_with_measurements_and_closed_rings() {
        let labels = LabelImage::new(6, 4, {
            let mut labels = vec![0; 24];
            labels[7..9].fill(1);
            labels
        });
        let object = testing::object(1);
        let bytes = encode(&testing::frame(0), &labels.unwrap(), &[object]);
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        let feature = &json["features"][0];
        assert_eq!(feature["properties"]["objectType"], "detection");
        assert_eq!(feature["properties"]["measurements"]["area"], 101);
        assert_eq!(feature["properties"]["measurements"]["label"], Value::Null);
        assert_eq!(
            feature["geometry"]["coordinates"],
            json!([[[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0], [1.0, 1.0]]])
        );
    }

    #[test]
    fn lists_of_features_are_read_and_points_are_refused() {
        let square = json!([[[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]]);
        let feature = |kind: &str, coordinates: &Value| {
            let geometry = json!({ "type": kind, "coordinates": coordinates });
            json!({ "type": "Feature", "geometry": geometry, "properties": { "classification": {} } })
        };
        let list = json!([feature("Polygon", &square), feature("Polygon", &square)]);
        let (_folder, path) = write(list.to_string().as_bytes());
        let found = read(&path).unwrap();
        assert_eq!(found.clue().name.as_deref(), Some("t1"));
        assert_eq!(found.labels((3, 1)).unwrap().labels(), [2, 2, 0]);
        let point = json!([feature("Point", &json!([1, 2]))]);
        let (_folder, path) = write(point.to_string().as_bytes());
        let error = read(&path).err().unwrap().to_string();
        assert!(error.contains("feature 0 is a Point"), "{error}");
    }
}

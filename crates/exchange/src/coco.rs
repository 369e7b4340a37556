//! COCO: one document with all frames; each object is an annotation with its mask as runs.
//!
//! Runs give back every pixel, where polygons (which are read, too) only come near. Each
//! annotation has, beside COCO's own fields, `label`: its value in the label image.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read as _, Write};
use std::path::Path;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::found::{self, Clue, Found, Shape, Shapes};
use super::outline::Ring;
use super::output::{Output, WriteError, Written};
use super::{ReadError, canvas, ome_tiff, rle};
use reticle_base::foreign_file;
use reticle_base::ids::FrameId;
use reticle_domain::facts::{FrameFacts, ModelFacts, SessionFacts};
use reticle_domain::label_image::LabelImage;

/// The one category.
const CELL: u32 = 1;

/// A document in the making; annotations go to the file one by one.
pub struct CocoWriter {
    output: Output,
    images: Vec<Image>,
    annotations: u64,
}

#[derive(Serialize, Deserialize)]
struct Image {
    id: i64,
    width: u32,
    height: u32,
    #[serde(default)]
    file_name: String,
    /// Ours: which frame, and when it was captured.
    #[serde(default)]
    frame: Option<String>,
    #[serde(default)]
    date_captured: Option<String>,
}

#[derive(Serialize)]
struct AnnotationOut<'a> {
    id: u64,
    image_id: i64,
    category_id: u32,
    segmentation: Mask<'a>,
    area: u64,
    /// x, y, width, height.
    bbox: [u32; 4],
    iscrowd: u8,
    label: u32,
}

#[derive(Serialize)]
struct Mask<'a> {
    /// Height, width.
    size: [u32; 2],
    counts: &'a str,
}

impl CocoWriter {
    /// Begins the document of one model's results in one session.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn new(
        mut output: Output,
        session: &SessionFacts,
        model: &ModelFacts,
    ) -> Result<Self, WriteError> {
        let info = json!({
            "description": session.name,
            "version": "1.0",
            "date_created": session.started.rfc3339(),
            "contributor": concat!("reticle ", env!("CARGO_PKG_VERSION")),
            "session": session.id,
            "model": model.model,
        });
        let categories = json!([{ "id": CELL, "name": "cell", "supercategory": "" }]);
        write!(output, "{{\"info\":{info},\n\"licenses\":[],\n\"categories\":{categories},\n")
            .and_then(|()| write!(output, "\"annotations\":["))
            .map_err(|error| output.failed(error))?;
        Ok(Self { output, images: Vec::new(), annotations: 0 })
    }

    /// Adds one frame and its objects.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn add(&mut self, frame: &FrameFacts, labels: &LabelImage) -> Result<(), WriteError> {
        let image = Image {
            id: self.images.len() as i64 + 1,
            width: labels.width(),
            height: labels.height(),
            file_name: ome_tiff::frame_name(frame.id),
            frame: Some(frame.id.to_string()),
            date_captured: Some(frame.captured.rfc3339()),
        };
        for region in rle::regions(labels) {
            let counts = rle::packed(&rle::runs(labels, &region));
            let annotation = AnnotationOut {
                id: self.annotations + 1,
                image_id: image.id,
                category_id: CELL,
                segmentation: Mask { size: [image.height, image.width], counts: &counts },
                area: region.area,
                bbox: [
                    region.left,
                    region.top,
                    region.right - region.left,
                    region.bottom - region.top,
                ],
                iscrowd: 0,
                label: region.label,
            };
            let between = if self.annotations == 0 { "\n" } else { ",\n" };
            self.output
                .write_all(between.as_bytes())
                .and_then(|()| Ok(serde_json::to_writer(&mut self.output, &annotation)?))
                .map_err(|error| self.output.failed(error))?;
            self.annotations += 1;
        }
        self.images.push(image);
        Ok(())
    }

    /// Ends the document.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no document then.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.output
            .write_all(b"],\n\"images\":")
            .and_then(|()| Ok(serde_json::to_writer(&mut self.output, &self.images)?))
            .and_then(|()| self.output.write_all(b"}\n"))
            .map_err(|error| self.output.failed(error))?;
        self.output.finish()
    }
}

/// What is read of a document; all else is passed over.
#[derive(Deserialize)]
struct Document {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    segmentation: Segmentation,
    #[serde(default)]
    label: Option<u32>,
}

/// Read by hand: what serde holds of an untagged enum before it knows which it is takes 16 times
/// the memory of the document.
enum Segmentation {
    Runs {
        /// Height, width.
        size: [u32; 2],
        counts: Counts,
    },
    /// x and y in turn, each list a polygon of its own.
    Polygons(Vec<Vec<f64>>),
}

enum Counts {
    Packed(String),
    Plain(Vec<u32>),
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Segmentation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("polygons, or a mask with `size` and `counts`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Segmentation, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Segmentation::Polygons)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Segmentation, A::Error> {
                let (mut size, mut counts) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "size" => size = Some(map.next_value()?),
                        "counts" => counts = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let size = size.ok_or_else(|| A::Error::missing_field("size"))?;
                let counts = counts.ok_or_else(|| A::Error::missing_field("counts"))?;
                Ok(Segmentation::Runs { size, counts })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Counts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("runs as a text or as a list of numbers")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Counts, E> {
                Ok(Counts::Packed(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Counts, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Counts::Plain)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Largest document that is read, bytes: a million objects.
const DOCUMENT_BYTES: u64 = 256 << 20;

/// Reads the label images of a document, each handed to `each`.
///
/// Where objects overlap, the later one lies on top. Objects without a `label` are numbered in
/// their order.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Result<Found, ReadError>)) {
    let document = foreign_file::open(path, DOCUMENT_BYTES)
        .map_err(|error| ReadError::new(path, error))
        .and_then(|file| {
            serde_json::from_reader(io::BufReader::new(file.take(DOCUMENT_BYTES)))
                .map_err(|error| ReadError::new(path, format!("is no COCO document: {error}")))
        });
    let document: Document = match document {
        Ok(document) => document,
        Err(error) => return each(Err(error)),
    };
    let mut of_image: HashMap<i64, Vec<Annotation>> = HashMap::new();
    for annotation in document.annotations {
        of_image.entry(annotation.image_id).or_default().push(annotation);
    }
    for image in document.images {
        let annotations = of_image.remove(&image.id).unwrap_or_default();
        let member = format!("image {} ({})", image.id, image.file_name);
        each(found(path, &member, &image, annotations));
    }
    for image in of_image.keys() {
        let why = format!("has annotations of image {image}, which it does not list");
        each(Err(ReadError::new(path, why)));
    }
}

/// The objects of one image, which are drawn once its frame is known: an image that belongs to
/// none costs nothing, whatever size it claims.
fn found(
    path: &Path,
    member: &str,
    image: &Image,
    annotations: Vec<Annotation>,
) -> Result<Found, ReadError> {
    let failed = |why: String| ReadError::new(path, format!("{member}: {why}"));
    let size = (image.width, image.height);
    found::check_size(size).map_err(failed)?;
    let have_labels = annotations.iter().all(|annotation| annotation.label.is_some_and(|n| n > 0));
    let mut objects = Vec::with_capacity(annotations.len());
    for (number, annotation) in (1_u32..).zip(annotations) {
        let label = annotation.label.filter(|_| have_labels).unwrap_or(number);
        let shape = match annotation.segmentation {
            Segmentation::Runs { size: [height, width], .. } if (width, height) != size => {
                Err(format!("its mask is of {width}×{height} pixels, not {}×{}", size.0, size.1))
            }
            Segmentation::Runs { counts: Counts::Packed(text), .. } => {
                rle::unpacked(&text).map(Shape::Runs)
            }
            Segmentation::Runs { counts: Counts::Plain(counts), .. } => Ok(Shape::Runs(counts)),
            Segmentation::Polygons(polygons) => {
                let corners = |flat: Vec<f64>| {
                    flat.chunks_exact(2)
                        .map(|pair| canvas::corner(pair[0], pair[1]))
                        .collect::<Result<Ring, _>>()
                };
                let polygons = polygons.into_iter().map(|flat| Ok(vec![corners(flat)?]));
                polygons.collect::<Result<_, _>>().map(Shape::Polygons)
            }
        };
        objects.push((label, shape.map_err(|why| failed(format!("object {number}: {why}")))?));
    }
    let frame = image.frame.as_deref().and_then(|id| id.parse::<FrameId>().ok());
    let clue = Clue { frame, ..Clue::of_name(&image.file_name) };
    Ok(Found::new(path, member, clue, Shapes::Drawn { size: Some(size), objects }))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    fn read_all(path: &Path) -> Vec<Result<Found, ReadError>> {
        let mut all = Vec::new();
        read(path, &mut |found| all.push(found));
        all
    }

    fn round_trip(labels: &[LabelImage]) -> Vec<LabelImage> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coco.json");
        let (session, model) = (testing::session(), testing::model("nuclei"));
        let mut coco = CocoWriter::new(Output::scratch(&path).unwrap(), &session, &model).unwrap();
        for (position, labels) in (0..).zip(labels) {
            coco.add(&testing::frame(position), labels).unwrap();
        }
        coco.finish().unwrap();
        (0..)
            .zip(read_all(&path))
            .map(|(position, found)| {
                let found = found.unwrap();
                assert_eq!(found.clue().frame, Some(testing::frame(position).id));
                let size = (labels[position as usize].width(), labels[position as usize].height());
                found.labels(size).unwrap()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_label_images_come_back(
            labels in proptest::collection::vec(testing::any_labels(), 0..4),
        ) {
            prop_assert_eq!(round_trip(&labels), labels);
        }
    }

    #[test]
    fn more_objects_than_16_bits_can_number_come_back() {
        let labels = [testing::many_objects()];
        assert_eq!(round_trip(&labels), labels);
    }

    #[test]
    fn what_no_image_can_hold_is_refused_by_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        let read_one = |segmentation: &str| {
            let text = format!(
                "{{\"images\": [{{\"id\": 1, \"width\": 100, \"height\": 100}}], \
                 \"annotations\": [{{\"image_id\": 1, \"segmentation\": {segmentation}}}]}}"
            );
            std::fs::write(&path, text).unwrap();
            let found = read_all(&path).remove(0);
            found.and_then(|found| found.labels((100, 100))).map(drop).map_err(|e| e.to_string())
        };
        assert_eq!(read_one("[[0, 0, 9, 0, 9, 9]]"), Ok(()));
        assert_eq!(read_one("{\"counts\": \"141\", \"x\": [1], \"size\": [100, 100]}"), Ok(()));
        for (segmentation, expected) in [
            ("[[1e300, 0, 9, 0, 9, 9]]", "object 1: has a corner at (1"),
            ("[[1e400, 0, 9, 0, 9, 9]]", "is no COCO document: number out of range"),
            ("{\"size\": [100, 100], \"counts\": [0, 4294967295]}", "its runs are longer"),
            ("{\"size\": [100, 100]}", "missing field `counts`"),
            ("{\"size\": [65536, 65536], \"counts\": []}", "its mask is of 65536×65536"),
            ("7", "expected polygons, or a mask"),
        ] {
            let said = read_one(segmentation).unwrap_err();
            assert!(said.contains(expected), "{segmentation}: {said}");
        }
        for device in ["/dev/zero", "/dev"] {
            let said = read_all(Path::new(device)).remove(0).err().unwrap().to_string();
            assert!(said.contains("is no regular file"), "{said}");
        }
    }

    #[test]
    fn documents_of_others_are_read_and_what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        let document = json!({
            "images": [
                { "id": 4, "width": 3, "height": 2, "file_name": "plate/t1.png" },
                { "id": 5, "width": 3, "height": 2, "file_name": "t2.png" },
            ],
            "annotations": [
                { "image_id": 4, "segmentation": { "size": [2, 3], "counts": [0, 2, 4] } },
                { "image_id": 4, "segmentation": [[1, 0, 3, 0, 3, 1, 1, 1]] },
                { "image_id": 5, "segmentation": { "size": [9, 9], "counts": [81] } },
                { "image_id": 6, "segmentation": [] },
            ],
        });
        std::fs::write(&path, document.to_string().as_bytes()).unwrap();
        let mut all = read_all(&path).into_iter();
        let first = all.next().unwrap().unwrap();
        assert_eq!(first.clue().name.as_deref(), Some("t1"));
        assert_eq!(first.labels((3, 2)).unwrap().labels(), [1, 2, 2, 1, 0, 0]);
        let second = all.next().unwrap().err().unwrap().to_string();
        assert!(second.contains("image 5 (t2.png): object 1: its mask is of 9×9"), "{second}");
        let third = all.next().unwrap().err().unwrap().to_string();
        assert!(third.contains("image 6"), "{third}");
        assert!(all.next().is_none());
    }
}

//! COCO: one document with all frames; each object is an annotation with its mask as runs.
//!
//! Runs give back every pixel, where polygons (which are read, too) only come near. Each
//! annotation has, beside COCO's own fields, `label`: its value in the label image.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::import::{Clue, Found, Shapes};
use super::output::{Output, WriteError, Written};
use super::{ReadError, ome_tiff, outline, rle};
use crate::base::ids::FrameId;
use crate::domain::facts::{FrameFacts, ModelFacts, SessionFacts};
use crate::domain::label_image::LabelImage;

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

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Runs {
        size: [u32; 2],
        counts: Counts,
    },
    /// x and y in turn, each list a polygon of its own.
    Polygons(Vec<Vec<f64>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Packed(String),
    Plain(Vec<u32>),
}

/// Reads the label images of a document, each handed to `each`.
///
/// Where objects overlap, the later one lies on top. Objects without a `label` are numbered in
/// their order.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Result<Found, ReadError>)) {
    let document: Result<Document, ReadError> =
        std::fs::File::open(path).map_err(|error| ReadError::new(path, error)).and_then(|file| {
            serde_json::from_reader(io::BufReader::new(file))
                .map_err(|error| ReadError::new(path, format!("is no COCO document: {error}")))
        });
    let document = match document {
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
        each(found(path, &member, &image, &annotations));
    }
    for image in of_image.keys() {
        let why = format!("has annotations of image {image}, which it does not list");
        each(Err(ReadError::new(path, why)));
    }
}

fn found(
    path: &Path,
    member: &str,
    image: &Image,
    annotations: &[Annotation],
) -> Result<Found, ReadError> {
    let failed = |why: String| ReadError::new(path, format!("{member}: {why}"));
    let size = (image.width, image.height);
    super::import::check_size(size).map_err(failed)?;
    let mut labels = vec![0; size.0 as usize * size.1 as usize];
    let have_labels = annotations.iter().all(|annotation| annotation.label.is_some_and(|n| n > 0));
    for (number, annotation) in (1_u32..).zip(annotations) {
        let label = annotation.label.filter(|_| have_labels).unwrap_or(number);
        let drawn = match &annotation.segmentation {
            Segmentation::Runs { size: [height, width], .. } if (*width, *height) != size => {
                Err(format!("its mask is of {width}×{height} pixels, not {}×{}", size.0, size.1))
            }
            Segmentation::Runs { counts: Counts::Packed(text), .. } => {
                rle::unpacked(text).and_then(|counts| rle::draw(&counts, label, size, &mut labels))
            }
            Segmentation::Runs { counts: Counts::Plain(counts), .. } => {
                rle::draw(counts, label, size, &mut labels)
            }
            Segmentation::Polygons(polygons) => {
                let corners = |flat: &[f64]| {
                    flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()
                };
                let polygons: Vec<_> = polygons.iter().map(|flat| vec![corners(flat)]).collect();
                outline::fill(&polygons, label, size, &mut labels);
                Ok(())
            }
        };
        drawn.map_err(|why| failed(format!("object {number}: {why}")))?;
    }
    let labels = super::import::label_image(size.0, size.1, labels).map_err(failed)?;
    let frame = image.frame.as_deref().and_then(|id| id.parse::<FrameId>().ok());
    let clue = Clue { frame, ..Clue::of_name(&image.file_name) };
    Ok(Found::new(path, member, clue, Shapes::Labels(labels)))
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

//! Our own Parquet tables, read back row by row: what was written comes back as it was, number
//! by number. Columns are found by name; one that is missing, or of another type, is an error.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Float64Type, TimestampNanosecondType, UInt8Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array as _, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use uuid::Uuid;

use crate::{ReadError, guarded};
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{Dated, FrameFacts};
use reticle_domain::frame::Place;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::Timings;

/// Rows in one table at most: a part has 64 frames, and no frame has a million objects.
const MAX_ROWS: i64 = 64 << 20;

/// One row of a table of results.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRow {
    /// The frame.
    pub frame: FrameId,
    /// Number of objects.
    pub objects: u32,
    /// Focus score; not a number where it could not be told.
    pub focus: f32,
    /// How the picture was looked at; `None` in tables of before that was recorded.
    pub look: Option<Look>,
    /// Where the time went.
    pub timings: Timings,
    /// When it was committed.
    pub committed: Dated,
    /// SHA-256 of the label image.
    pub labels_sha256: [u8; 32],
}

/// The frames of a table of the archive. What only a store knows (`pk`, `has_pixels`) is empty.
///
/// # Errors
/// When the file cannot be read or is no such table.
pub fn frames(path: &Path) -> Result<Vec<FrameFacts>, ReadError> {
    let mut frames = Vec::new();
    each(path, |row| {
        frames.push(FrameFacts {
            pk: 0,
            id: row.parsed::<FrameId>("frame")?,
            session: row.parsed::<SessionId>("session")?,
            series: row.number::<UInt32Type>("series")?,
            position: row.number::<UInt64Type>("position")?,
            sequence: row.number::<UInt64Type>("sequence")?,
            captured: Dated {
                at_ns: row.number::<TimestampNanosecondType>("captured_at")?,
                recorded_ns: row.number::<TimestampNanosecondType>("captured_recorded_at")?,
                mono_ns: row.number::<UInt64Type>("mono_ns")?,
                boot: row.parsed::<Uuid>("boot")?,
            },
            exposure_us: row.optional::<UInt32Type>("exposure_us")?,
            width: row.number::<UInt32Type>("width")?,
            height: row.number::<UInt32Type>("height")?,
            bit_depth: row.number::<UInt8Type>("bit_depth")?,
            sha256: row.hash("sha256")?,
            pixel_size_um: row.optional::<Float64Type>("pixel_size_um")?,
            pixel_size_source: row
                .text_since("pixel_size_source")?
                .and_then(|word| PixelSizeSource::from_word(&word)),
            pixel_size_note: row.text_since("pixel_size_note")?,
            place: Place {
                plate: row.optional_text("plate")?,
                well: row.optional_text("well")?,
                field: row.optional::<UInt32Type>("field")?,
            },
            origin: row.optional_text("origin")?,
            segmented: row.flag("segmented")?,
            has_pixels: false,
        });
        Ok(())
    })?;
    Ok(frames)
}

/// The results of a table of the archive.
///
/// # Errors
/// When the file cannot be read or is no such table.
pub fn results(path: &Path) -> Result<Vec<ResultRow>, ReadError> {
    let mut results = Vec::new();
    each(path, |row| {
        let focus = row.optional::<Float64Type>("focus")?;
        results.push(ResultRow {
            frame: row.parsed::<FrameId>("frame")?,
            objects: row.number::<UInt32Type>("objects")?,
            // It was written from 32 bits.
            focus: focus.map_or(f32::NAN, |focus| focus as f32),
            timings: Timings {
                normalise_us: row.number::<UInt64Type>("normalise_us")?,
                network_us: row.number::<UInt64Type>("network_us")?,
                instances_us: row.number::<UInt64Type>("instances_us")?,
                measure_us: row.number::<UInt64Type>("measure_us")?,
            },
            committed: Dated {
                at_ns: row.number::<TimestampNanosecondType>("committed_at")?,
                recorded_ns: row.number::<TimestampNanosecondType>("committed_recorded_at")?,
                mono_ns: row.number::<UInt64Type>("committed_mono_ns")?,
                boot: row.parsed::<Uuid>("committed_boot")?,
            },
            labels_sha256: row.hash("labels_sha256")?,
            look: row.look()?,
        });
        Ok(())
    })?;
    Ok(results)
}

/// Hands out the objects of a table of the archive, in its order, each with its frame.
///
/// # Errors
/// When the file cannot be read or is no such table.
pub fn objects(path: &Path, mut each_object: impl FnMut(FrameId, Object)) -> Result<(), ReadError> {
    each(path, |row| {
        let object = Object {
            label: row.number::<UInt32Type>("label")?,
            area: row.number::<UInt32Type>("area")?,
            centroid_0: row.number::<Float64Type>("centroid-0")?,
            centroid_1: row.number::<Float64Type>("centroid-1")?,
            bbox_0: row.number::<UInt32Type>("bbox-0")?,
            bbox_1: row.number::<UInt32Type>("bbox-1")?,
            bbox_2: row.number::<UInt32Type>("bbox-2")?,
            bbox_3: row.number::<UInt32Type>("bbox-3")?,
            perimeter: row.number::<Float64Type>("perimeter")?,
            eccentricity: row.number::<Float64Type>("eccentricity")?,
            solidity: row.number::<Float64Type>("solidity")?,
            major_axis_length: row.number::<Float64Type>("major_axis_length")?,
            minor_axis_length: row.number::<Float64Type>("minor_axis_length")?,
            orientation: row.number::<Float64Type>("orientation")?,
            intensity_mean: row.number::<Float64Type>("intensity_mean")?,
            intensity_max: row.number::<Float64Type>("intensity_max")?,
            intensity_min: row.number::<Float64Type>("intensity_min")?,
            touches_border: row.flag("touches_border")?,
        };
        each_object(row.parsed::<FrameId>("frame")?, object);
        Ok(())
    })
}

fn each(path: &Path, take: impl FnMut(&Row<'_>) -> Result<(), String>) -> Result<(), ReadError> {
    guarded(path, || each_row(path, take))
}

fn each_row(
    path: &Path,
    mut take: impl FnMut(&Row<'_>) -> Result<(), String>,
) -> Result<(), ReadError> {
    let failed = |why: String| ReadError::new(path, why);
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| failed(error.to_string()))?;
    let rows = builder.metadata().file_metadata().num_rows();
    if rows > MAX_ROWS {
        return Err(failed(format!("says that it has {rows} rows; {MAX_ROWS} are the most")));
    }
    let batches = builder.build().map_err(|error| failed(error.to_string()))?;
    for batch in batches {
        let batch = batch.map_err(|error| failed(error.to_string()))?;
        for at in 0..batch.num_rows() {
            take(&Row { batch: &batch, at }).map_err(failed)?;
        }
    }
    Ok(())
}

struct Row<'a> {
    batch: &'a RecordBatch,
    at: usize,
}

impl Row<'_> {
    fn column(&self, name: &str) -> Result<&dyn arrow_array::Array, String> {
        let column = self.batch.column_by_name(name);
        column.map(AsRef::as_ref).ok_or_else(|| format!("has no column {name}"))
    }

    fn optional<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Option<T::Native>, String> {
        let column = self.column(name)?;
        let values = column
            .as_primitive_opt::<T>()
            .ok_or_else(|| format!("its column {name} is of another type"))?;
        Ok((!values.is_null(self.at)).then(|| values.value(self.at)))
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &str) -> Result<T::Native, String> {
        self.optional::<T>(name)?.ok_or_else(|| empty(name))
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, String> {
        let column = self.column(name)?;
        let values = column
            .as_string_opt::<i32>()
            .ok_or_else(|| format!("its column {name} is of another type"))?;
        Ok((!values.is_null(self.at)).then(|| values.value(self.at).to_owned()))
    }

    /// Of a column that tables of older versions do not have.
    fn text_since(&self, name: &str) -> Result<Option<String>, String> {
        if self.batch.column_by_name(name).is_none() {
            return Ok(None);
        }
        self.optional_text(name)
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.optional_text(name)?.ok_or_else(|| empty(name))?;
        text.parse().map_err(|_wrong| format!("\"{text}\" in its column {name} is no id"))
    }

    fn hash(&self, name: &str) -> Result<[u8; 32], String> {
        let text = self.optional_text(name)?.ok_or_else(|| empty(name))?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash)
            .map_err(|_wrong| format!("\"{text}\" in its column {name} is no SHA-256"))?;
        Ok(hash)
    }

    /// The four columns of a look, which tables of older versions do not have.
    fn look(&self) -> Result<Option<Look>, String> {
        if self.batch.column_by_name("scale_from").is_none() {
            return Ok(None);
        }
        let Some(from) = self.optional_text("scale_from")? else { return Ok(None) };
        let unlike = self.optional_text("unlike")?;
        // Both were written from 32 bits.
        let scale = self.number::<Float64Type>("scale")? as f32;
        let ratio = self.optional::<Float64Type>("size_ratio")?.map(|ratio| ratio as f32);
        Ok(Look::recorded(&from, scale, ratio, unlike.as_deref()))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        let column = self.column(name)?;
        let values = column
            .as_boolean_opt()
            .ok_or_else(|| format!("its column {name} is of another type"))?;
        if values.is_null(self.at) {
            return Err(empty(name));
        }
        Ok(values.value(self.at))
    }
}

fn empty(name: &str) -> String {
    format!("a cell of its column {name} is empty")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{
        Cell, Column, Frames, ModelKey, ObjectRow, Objects, ParquetTable, Results, Table,
    };
    use super::*;
    use crate::testing;
    use reticle_domain::facts::{BoxName, ResultFacts};
    use reticle_domain::look::{ScaleFrom, Unlike};

    fn write<T: Table>(path: &Path, rows: &[T::Row<'_>]) {
        let mut table = ParquetTable::<T>::create(path).unwrap();
        for row in rows {
            table.push(row).unwrap();
        }
        table.finish().unwrap();
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames.parquet");
        let bare = FrameFacts {
            pixel_size_um: None,
            exposure_us: None,
            origin: None,
            place: Place::default(),
            ..testing::frame(2)
        };
        let site = BoxName { site: "lab".into(), name: "box-1".into() };
        let written = [testing::frame(1), bare];
        write::<Frames>(&path, &[(Some(&site), &written[0]), (None, &written[1])]);
        let expected: Vec<FrameFacts> = written
            .into_iter()
            .map(|frame| FrameFacts { pk: 0, has_pixels: false, ..frame })
            .collect();
        assert_eq!(frames(&path).unwrap(), expected);
        assert!(results(&path).is_err(), "a table of frames is none of results");
    }

    /// The table as it was before it told who stated a pixel size.
    struct OlderFrames;

    impl Table for OlderFrames {
        type Row<'a> = <Frames as Table>::Row<'a>;

        fn columns() -> Vec<Column> {
            let is_new = |column: &Column| column.name.starts_with("pixel_size_");
            let is_size = |column: &Column| column.name == "pixel_size_um";
            Frames::columns().into_iter().filter(|c| is_size(c) || !is_new(c)).collect()
        }

        fn cells(row: &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>)) {
            let mut left = Self::columns().len();
            Frames::cells(row, &mut |cell| {
                // The new ones are the last.
                if left > 0 {
                    left -= 1;
                    put(cell);
                }
            });
        }
    }

    #[test]
    fn a_table_of_an_older_version_is_read_without_who_stated_the_pixel_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames.parquet");
        let frame = testing::frame(1);
        assert!(frame.pixel_size_source.is_some());
        write::<OlderFrames>(&path, &[(None, &frame)]);
        let found = frames(&path).unwrap().remove(0);
        assert_eq!(found.pixel_size_um, frame.pixel_size_um);
        assert_eq!((found.pixel_size_source, found.pixel_size_note), (None, None));
    }

    proptest! {
        #[test]
        fn objects_and_results_come_back_bit_by_bit(
            numbers in prop::collection::vec(any::<f64>(), 9),
            focus in any::<f32>(),
            counts in prop::collection::vec(any::<u32>(), 6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("table.parquet");
            let (frame, facts) = (testing::frame(1), testing::model("nuclei"));
            let model = ModelKey::of(&facts);
            let object = Object {
                label: counts[0], area: counts[1],
                centroid_0: numbers[0], centroid_1: numbers[1],
                bbox_0: counts[2], bbox_1: counts[3], bbox_2: counts[4], bbox_3: counts[5],
                perimeter: numbers[2], eccentricity: numbers[3], solidity: numbers[4],
                major_axis_length: numbers[5], minor_axis_length: f64::NAN,
                orientation: numbers[6], intensity_mean: numbers[7], intensity_max: numbers[8],
                intensity_min: -0.0, touches_border: true,
            };
            write::<Objects>(&path, &[ObjectRow { frame: &frame, model: &model, object: &object }]);
            let mut found = Vec::new();
            objects(&path, |of, object| found.push((of, format!("{object:?}")))).unwrap();
            prop_assert_eq!(found, [(frame.id, format!("{object:?}"))]);

            let path = folder.path().join("results.parquet");
            let result = ResultFacts {
                pk: 7,
                model: Arc::new(facts),
                objects: counts[0],
                focus,
                timings: Timings { normalise_us: 1, network_us: 2, instances_us: 3, measure_us: 4 },
                look: (counts[1] % 2 == 0).then_some(Look {
                    scale_from: ScaleFrom::ALL[counts[2] as usize % ScaleFrom::ALL.len()],
                    scale: 2.0 / 3.0,
                    size_ratio: (counts[3] % 2 == 0).then_some(0.3),
                    unlike: Unlike::ALL.get(counts[4] as usize % (1 + Unlike::ALL.len())).copied(),
                }),
                committed: frame.captured,
                labels_sha256: [9; 32],
                frame: Arc::new(frame),
            };
            write::<Results>(&path, &[(&model, &result)]);
            let read = results(&path).unwrap();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0].frame, result.frame.id);
            prop_assert_eq!((read[0].objects, read[0].timings), (result.objects, result.timings));
            prop_assert_eq!(read[0].look, result.look);
            prop_assert_eq!(read[0].committed, result.committed);
            prop_assert_eq!(read[0].labels_sha256, result.labels_sha256);
            let same = if focus.is_finite() { focus.to_bits() } else { f32::NAN.to_bits() };
            prop_assert_eq!(read[0].focus.to_bits(), same);
        }
    }
}

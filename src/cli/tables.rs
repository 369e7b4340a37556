//! Objects as tables: `objects.csv` for spreadsheets and `objects.parquet` for DuckDB, pandas
//! and Polars. One row an object, the same columns in both:
//!
//! | columns | meaning |
//! |---|---|
//! | `image`, `page` | file name, and number of the page in it from 0 |
//! | `label` … `touches_border` | the fields of [`Object`], by scikit-image's names, in pixels |
//! | `pixel_size_um` | edge of a pixel in µm; empty where not known, as all that follow |
//! | `area_um2`, `perimeter_um`, `major_axis_length_um`, `minor_axis_length_um` | in µm |
//!
//! Both writers stream: memory does not grow with the number of rows. A table has its name
//! only after `finish`; a run that is broken off leaves none.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::base::durable::Draft;
use crate::domain::object::Object;

/// Rows of a Parquet row group: about 12 MB before compression, a second of reading.
const ROW_GROUP: usize = 65_536;

/// Rows that wait to be handed to the Parquet writer.
const BATCH: usize = 8_192;

/// Why a table was not written.
#[derive(Debug, thiserror::Error)]
#[error("the table {} cannot be written ({why}); check the folder and the free space", path.display())]
pub struct TableError {
    path: PathBuf,
    why: String,
}

/// What is known about the image that objects were found in.
#[derive(Clone, Copy, Debug)]
pub struct ImageRef<'a> {
    /// File name.
    pub image: &'a str,
    /// Page in the file, from 0.
    pub page: u32,
    /// Edge of a pixel in µm, where known.
    pub pixel_size_um: Option<f64>,
}

/// How to get a column's value from an object.
#[derive(Clone, Copy)]
enum Column {
    Count(fn(&Object) -> u32),
    Number(fn(&Object) -> f64),
    Flag(fn(&Object) -> bool),
    /// From the object and the pixel size in µm.
    Micrometres(fn(&Object, f64) -> f64),
}

/// The columns after `image` and `page`, for both formats.
const COLUMNS: [(&str, Column); 23] = [
    ("label", Column::Count(|object| object.label)),
    ("area", Column::Count(|object| object.area)),
    ("centroid-0", Column::Number(|object| object.centroid_0)),
    ("centroid-1", Column::Number(|object| object.centroid_1)),
    ("bbox-0", Column::Count(|object| object.bbox_0)),
    ("bbox-1", Column::Count(|object| object.bbox_1)),
    ("bbox-2", Column::Count(|object| object.bbox_2)),
    ("bbox-3", Column::Count(|object| object.bbox_3)),
    ("perimeter", Column::Number(|object| object.perimeter)),
    ("eccentricity", Column::Number(|object| object.eccentricity)),
    ("solidity", Column::Number(|object| object.solidity)),
    ("major_axis_length", Column::Number(|object| object.major_axis_length)),
    ("minor_axis_length", Column::Number(|object| object.minor_axis_length)),
    ("orientation", Column::Number(|object| object.orientation)),
    ("intensity_mean", Column::Number(|object| object.intensity_mean)),
    ("intensity_max", Column::Number(|object| object.intensity_max)),
    ("intensity_min", Column::Number(|object| object.intensity_min)),
    ("touches_border", Column::Flag(|object| object.touches_border)),
    ("pixel_size_um", Column::Micrometres(|_, um| um)),
    ("area_um2", Column::Micrometres(|object, um| f64::from(object.area) * um * um)),
    ("perimeter_um", Column::Micrometres(|object, um| object.perimeter * um)),
    ("major_axis_length_um", Column::Micrometres(|object, um| object.major_axis_length * um)),
    ("minor_axis_length_um", Column::Micrometres(|object, um| object.minor_axis_length * um)),
];

/// `objects.csv`, row by row.
pub struct ObjectsCsv {
    path: PathBuf,
    writer: csv::Writer<Draft>,
}

impl ObjectsCsv {
    /// Begins a table that will be at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, TableError> {
        let draft = Draft::create(path).map_err(|error| failed(path, error))?;
        let mut writer = csv::Writer::from_writer(draft);
        let names = ["image", "page"].into_iter().chain(COLUMNS.iter().map(|(name, _)| *name));
        writer.write_record(names).map_err(|error| failed(path, error))?;
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Adds the objects of one image.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn append(&mut self, image: ImageRef<'_>, objects: &[Object]) -> Result<(), TableError> {
        self.rows(image, objects).map_err(|error| failed(&self.path, error))
    }

    fn rows(&mut self, image: ImageRef<'_>, objects: &[Object]) -> Result<(), csv::Error> {
        use std::io::Write as _;
        let mut text = Vec::with_capacity(24);
        for object in objects {
            self.writer.write_field(image.image)?;
            self.writer.write_field(image.page.to_string())?;
            for (_, column) in COLUMNS {
                text.clear();
                match column {
                    Column::Count(value) => write!(text, "{}", value(object))?,
                    Column::Number(value) => write!(text, "{}", value(object))?,
                    Column::Flag(value) => write!(text, "{}", value(object))?,
                    Column::Micrometres(value) => {
                        if let Some(um) = image.pixel_size_um {
                            write!(text, "{}", value(object, um))?;
                        }
                    }
                }
                self.writer.write_field(&text)?;
            }
            self.writer.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    /// Gives the table its name.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no table then.
    pub fn finish(self) -> Result<(), TableError> {
        let path = self.path;
        let draft = self.writer.into_inner().map_err(|error| failed(&path, error.error()))?;
        draft.commit().map_err(|error| failed(&path, error))
    }
}

/// `objects.parquet`, row group by row group, compressed with zstd.
pub struct ObjectsParquet {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<BufWriter<Draft>>,
    rows: Rows,
}

/// Rows that wait, by column.
struct Rows {
    images: Vec<String>,
    pages: Vec<u32>,
    columns: Vec<Values>,
}

enum Values {
    Count(Vec<u32>),
    Number(Vec<f64>),
    Flag(Vec<bool>),
    Micrometres(Vec<Option<f64>>),
}

impl Values {
    fn empty(column: Column) -> Self {
        match column {
            Column::Count(_) => Self::Count(Vec::with_capacity(BATCH)),
            Column::Number(_) => Self::Number(Vec::with_capacity(BATCH)),
            Column::Flag(_) => Self::Flag(Vec::with_capacity(BATCH)),
            Column::Micrometres(_) => Self::Micrometres(Vec::with_capacity(BATCH)),
        }
    }

    fn push(&mut self, column: Column, object: &Object, pixel_size_um: Option<f64>) {
        match (self, column) {
            (Self::Count(values), Column::Count(value)) => values.push(value(object)),
            (Self::Number(values), Column::Number(value)) => values.push(value(object)),
            (Self::Flag(values), Column::Flag(value)) => values.push(value(object)),
            (Self::Micrometres(values), Column::Micrometres(value)) => {
                values.push(pixel_size_um.map(|um| value(object, um)));
            }
            _ => unreachable!("a column's values are made from the same table"),
        }
    }

    fn take(&mut self) -> ArrayRef {
        match self {
            Self::Count(values) => Arc::new(UInt32Array::from_iter_values(values.drain(..))),
            Self::Number(values) => Arc::new(Float64Array::from_iter_values(values.drain(..))),
            Self::Flag(values) => Arc::new(BooleanArray::from(std::mem::take(values))),
            Self::Micrometres(values) => Arc::new(Float64Array::from_iter(values.drain(..))),
        }
    }
}

impl ObjectsParquet {
    /// Begins a table that will be at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, TableError> {
        let fields = COLUMNS.iter().map(|(name, column)| match column {
            Column::Count(_) => Field::new(*name, DataType::UInt32, false),
            Column::Number(_) => Field::new(*name, DataType::Float64, false),
            Column::Flag(_) => Field::new(*name, DataType::Boolean, false),
            Column::Micrometres(_) => Field::new(*name, DataType::Float64, true),
        });
        let first = [
            Field::new("image", DataType::Utf8, false),
            Field::new("page", DataType::UInt32, false),
        ];
        let schema = Arc::new(Schema::new(first.into_iter().chain(fields).collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_created_by(concat!("reticle ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let draft = Draft::create(path).map_err(|error| failed(path, error))?;
        let file = BufWriter::new(draft);
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
            .map_err(|error| failed(path, error))?;
        let columns = COLUMNS.iter().map(|(_, column)| Values::empty(*column)).collect();
        let rows = Rows { images: Vec::new(), pages: Vec::new(), columns };
        Ok(Self { path: path.to_owned(), schema, writer, rows })
    }

    /// Adds the objects of one image.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn append(&mut self, image: ImageRef<'_>, objects: &[Object]) -> Result<(), TableError> {
        for object in objects {
            self.rows.images.push(image.image.to_owned());
            self.rows.pages.push(image.page);
            for (values, (_, column)) in self.rows.columns.iter_mut().zip(COLUMNS) {
                values.push(column, object, image.pixel_size_um);
            }
            if self.rows.images.len() >= BATCH {
                self.write_batch()?;
            }
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), TableError> {
        let images = StringArray::from_iter_values(self.rows.images.drain(..));
        let pages = UInt32Array::from_iter_values(self.rows.pages.drain(..));
        let first: [ArrayRef; 2] = [Arc::new(images), Arc::new(pages)];
        let others = self.rows.columns.iter_mut().map(Values::take);
        RecordBatch::try_new(Arc::clone(&self.schema), first.into_iter().chain(others).collect())
            .map_err(io::Error::other)
            .and_then(|batch| self.writer.write(&batch).map_err(io::Error::other))
            .map_err(|error| failed(&self.path, error))
    }

    /// Gives the table its name.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no table then.
    pub fn finish(mut self) -> Result<(), TableError> {
        self.write_batch()?;
        let path = self.path;
        let file = self.writer.into_inner().map_err(|error| failed(&path, error))?;
        let draft = file.into_inner().map_err(|error| failed(&path, error.error()))?;
        draft.commit().map_err(|error| failed(&path, error))
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> TableError {
    TableError { path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, UInt32Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn object(label: u32) -> Object {
        let at = f64::from(label);
        Object {
            label,
            area: 100 + label,
            centroid_0: at + 0.1,
            centroid_1: at + 0.2,
            bbox_0: label,
            bbox_1: label + 1,
            bbox_2: label + 2,
            bbox_3: label + 3,
            perimeter: 35.5,
            eccentricity: 0.5,
            solidity: 0.96,
            major_axis_length: 12.0,
            minor_axis_length: 10.0,
            orientation: -0.25,
            intensity_mean: 1234.5,
            intensity_max: 4095.0,
            intensity_min: 7.0,
            touches_border: label.is_multiple_of(2),
        }
    }

    const KNOWN: ImageRef<'static> =
        ImageRef { image: "a, \"b\" µ.tif", page: 3, pixel_size_um: Some(0.5) };
    const UNKNOWN: ImageRef<'static> = ImageRef { image: "c.png", page: 0, pixel_size_um: None };

    #[test]
    fn the_columns_are_the_fields_of_an_object_by_their_names() {
        let json = serde_json::to_string(&object(1)).unwrap();
        let at: Vec<_> =
            COLUMNS[..18].iter().map(|(name, _)| json.find(&format!("\"{name}\":"))).collect();
        assert!(at.iter().all(Option::is_some), "{json}");
        assert!(at.is_sorted(), "{json}");
        assert_eq!(json.matches("\":").count(), 18);
    }

    #[test]
    fn csv_holds_every_object_and_quotes_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.csv");
        let mut table = ObjectsCsv::create(&path).unwrap();
        table.append(KNOWN, &[object(1), object(2)]).unwrap();
        table.append(UNKNOWN, &[object(1)]).unwrap();
        assert!(!path.exists());
        table.finish().unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let header = reader.headers().unwrap().clone();
        assert_eq!(header.len(), 25);
        let column = |name: &str| header.iter().position(|found| found == name).unwrap();
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(&rows[0][0], "a, \"b\" µ.tif");
        assert_eq!(&rows[1][column("label")], "2");
        assert_eq!(&rows[1][column("centroid-0")], "2.1");
        assert_eq!(&rows[1][column("touches_border")], "true");
        assert_eq!(&rows[0][column("area_um2")], "25.25");
        assert_eq!(&rows[0][column("perimeter_um")], "17.75");
        assert_eq!(&rows[2][column("area_um2")], "");
    }

    #[test]
    fn parquet_holds_every_object_over_many_batches_and_row_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.parquet");
        let mut table = ObjectsParquet::create(&path).unwrap();
        let most = 150_001;
        let objects: Vec<Object> = (1..=most).map(object).collect();
        for chunk in objects.chunks(997) {
            table.append(KNOWN, chunk).unwrap();
        }
        table.append(UNKNOWN, &[object(1)]).unwrap();
        assert!(!path.exists());
        table.finish().unwrap();

        let file = std::fs::File::open(&path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(builder.metadata().num_row_groups(), 3);
        let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, most as usize + 1);
        let labels = batches
            .iter()
            .flat_map(|batch| batch["label"].as_primitive::<UInt32Type>().values().to_vec());
        assert!(labels.eq((1..=most).chain([1])));
        let last = batches.last().unwrap();
        let areas = last["area_um2"].as_primitive::<Float64Type>();
        assert!(areas.is_null(last.num_rows() - 1));
        let first = batches[0]["area_um2"].as_primitive::<Float64Type>();
        assert_eq!(first.value(0), 25.25);
        assert_eq!(batches[0]["image"].as_string::<i32>().value(0), KNOWN.image);
    }

    #[test]
    fn an_empty_table_has_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.parquet");
        ObjectsParquet::create(&path).unwrap().finish().unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(builder.schema().fields().len(), 25);
        assert_eq!(builder.build().unwrap().count(), 0);
    }

    #[test]
    fn a_table_that_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = ObjectsCsv::create(&folder.path().join("objects.csv")).unwrap();
        table.append(KNOWN, &[object(1)]).unwrap();
        drop(table);
        drop(ObjectsParquet::create(&folder.path().join("objects.parquet")).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let error = ObjectsCsv::create(Path::new("/nowhere/objects.csv")).err().unwrap();
        assert!(error.to_string().starts_with("the table /nowhere/objects.csv cannot be written"));
    }
}

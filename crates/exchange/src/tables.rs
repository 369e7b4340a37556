//! Frames and objects as tables: CSV for spreadsheets, Parquet for DuckDB, pandas and Polars. The
//! columns of a [`Table`] are the same in both.
//!
//! Both writers stream: memory does not grow with the number of rows. A table has its name
//! only after `finish`; a run that is broken off leaves none. The same rows give the same bytes:
//! nothing in a file says when it was written.

mod copy;
mod frames;
mod images;
mod objects;
pub mod read;
mod results;

use std::io::Write as _;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, StringBuilder, TimestampNanosecondBuilder, UInt8Builder,
    UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

pub use copy::{CopyError, rows_by_frame};
pub use frames::Frames;
pub use images::{ImageRow, Images};
pub use objects::{ImageObjects, ImageRef, ModelKey, ObjectRow, Objects};
pub use results::Results;

use super::output::{Output, WriteError, Written};
use reticle_base::clock::rfc3339;

/// Rows of a Parquet row group: about 12 MB before compression, a second of reading.
const ROW_GROUP: usize = 65_536;

/// Rows that wait to be handed to the Parquet writer.
const BATCH: usize = 8_192;

/// `objects.csv` of `reticle segment`.
pub type ObjectsCsv = CsvTable<ImageObjects>;

/// `objects.parquet` of `reticle segment`.
pub type ObjectsParquet = ParquetTable<ImageObjects>;

/// `images.csv` of `reticle segment`.
pub type ImagesCsv = CsvTable<Images>;

/// A kind of table: which columns it has, and where their values come from.
pub trait Table {
    /// What one row is made of.
    type Row<'a>;

    /// The columns, in order.
    fn columns() -> Vec<Column>;

    /// Hands out the row's values, one for each column, in order.
    fn cells(row: &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>));
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be empty.
    pub optional: bool,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number of 8 bits.
    U8,
    /// A whole number of 32 bits.
    U32,
    /// A whole number of 64 bits.
    U64,
    /// A number.
    F64,
    /// Yes or no.
    Flag,
    /// Nanoseconds since 1970, UTC; RFC 3339 in CSV.
    Time,
}

/// A value in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Not known.
    Empty,
    /// See [`Kind::Text`].
    Text(&'a str),
    /// See [`Kind::U8`].
    U8(u8),
    /// See [`Kind::U32`].
    U32(u32),
    /// See [`Kind::U64`].
    U64(u64),
    /// See [`Kind::F64`].
    F64(f64),
    /// See [`Kind::Flag`].
    Flag(bool),
    /// See [`Kind::Time`].
    Time(i64),
}

impl Column {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, optional: false }
    }

    const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, optional: true }
    }
}

impl<'a> Cell<'a> {
    fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Empty, Self::Text)
    }

    fn number(number: Option<f64>) -> Self {
        number.map_or(Self::Empty, Self::F64)
    }

    fn count(count: Option<u32>) -> Self {
        count.map_or(Self::Empty, Self::U32)
    }
}

/// A table as CSV, row by row.
pub struct CsvTable<T: Table> {
    writer: csv::Writer<Output>,
    rows: u64,
    table: PhantomData<T>,
}

impl<T: Table> CsvTable<T> {
    /// Begins a table that will be at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        Self::new(Output::durable(path)?)
    }

    /// Begins a table in `output`.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn new(output: Output) -> Result<Self, WriteError> {
        let path = output.path().to_owned();
        let mut writer = csv::Writer::from_writer(output);
        let names = T::columns().into_iter().map(|column| column.name);
        writer.write_record(names).map_err(|error| WriteError::new(&path, error))?;
        Ok(Self { writer, rows: 0, table: PhantomData })
    }

    /// Adds one row.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn push(&mut self, row: &T::Row<'_>) -> Result<(), WriteError> {
        let mut written = Ok(());
        let mut text = Vec::with_capacity(24);
        let writer = &mut self.writer;
        T::cells(row, &mut |cell| {
            text.clear();
            let formatted = match cell {
                Cell::Empty => Ok(()),
                Cell::Text(value) => write!(text, "{}{value}", guard(value)),
                Cell::U8(value) => write!(text, "{value}"),
                Cell::U32(value) => write!(text, "{value}"),
                Cell::U64(value) => write!(text, "{value}"),
                Cell::F64(value) => write!(text, "{value}"),
                Cell::Flag(value) => write!(text, "{value}"),
                Cell::Time(value) => write!(text, "{}", rfc3339(value)),
            };
            if written.is_ok() {
                written =
                    formatted.map_err(csv::Error::from).and_then(|()| writer.write_field(&text));
            }
        });
        written
            .and_then(|()| self.writer.write_record(None::<&[u8]>))
            .map_err(|error| self.writer.get_ref().failed(error))?;
        self.rows += 1;
        Ok(())
    }

    /// Hands the rows so far to the file, from where a kill does not take them.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.writer.flush().map_err(|error| self.writer.get_ref().failed(error))
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Gives the table its name.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no table then.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.flush()?;
        let path = self.writer.get_ref().path().to_owned();
        let output =
            self.writer.into_inner().map_err(|error| WriteError::new(&path, error.error()))?;
        output.finish()
    }
}

/// What goes before a text in CSV so that a spreadsheet does not take it for a formula, which
/// could send the table elsewhere (`=HYPERLINK(…)`, `=WEBSERVICE(…)`). An apostrophe goes before
/// an apostrophe, too: a reader that takes one off gets every text back.
fn guard(text: &str) -> &'static str {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) { "'" } else { "" }
}

/// A table as Parquet, row group by row group, compressed with zstd.
pub struct ParquetTable<T: Table> {
    schema: Arc<Schema>,
    writer: ArrowWriter<Output>,
    waiting: Vec<Values>,
    rows: u64,
    table: PhantomData<T>,
}

impl<T: Table> ParquetTable<T> {
    /// Begins a table that will be at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        Self::new(Output::durable(path)?)
    }

    /// Begins a table in `output`.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn new(output: Output) -> Result<Self, WriteError> {
        let columns = T::columns();
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new(column.name, column.kind.arrow(), column.optional))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_created_by(concat!("reticle ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let path = output.path().to_owned();
        let writer = ArrowWriter::try_new(output, Arc::clone(&schema), Some(properties))
            .map_err(|error| WriteError::new(&path, error))?;
        let waiting = columns.iter().map(|column| Values::empty(column.kind)).collect();
        Ok(Self { schema, writer, waiting, rows: 0, table: PhantomData })
    }

    /// Adds one row.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn push(&mut self, row: &T::Row<'_>) -> Result<(), WriteError> {
        let mut columns = self.waiting.iter_mut();
        T::cells(row, &mut |cell| {
            columns.next().expect("a table has a column for each of its cells").push(cell);
        });
        self.rows += 1;
        if self.rows.is_multiple_of(BATCH as u64) { self.write_batch() } else { Ok(()) }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn write_batch(&mut self) -> Result<(), WriteError> {
        let columns = self.waiting.iter_mut().map(Values::take).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|error| self.writer.inner().failed(error))
            .and_then(|batch| {
                let written = self.writer.write(&batch);
                written.map_err(|error| self.writer.inner().failed(error))
            })
    }

    /// Gives the table its name.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no table then.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.write_batch()?;
        let path = self.writer.inner().path().to_owned();
        self.writer.into_inner().map_err(|error| WriteError::new(&path, error))?.finish()
    }
}

impl Kind {
    fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::U8 => DataType::UInt8,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::F64 => DataType::Float64,
            Self::Flag => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        }
    }
}

/// Values of one column that wait.
enum Values {
    Text(StringBuilder),
    U8(UInt8Builder),
    U32(UInt32Builder),
    U64(UInt64Builder),
    F64(Float64Builder),
    Flag(BooleanBuilder),
    Time(TimestampNanosecondBuilder),
}

impl Values {
    fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::U8 => Self::U8(UInt8Builder::new()),
            Kind::U32 => Self::U32(UInt32Builder::new()),
            Kind::U64 => Self::U64(UInt64Builder::new()),
            Kind::F64 => Self::F64(Float64Builder::new()),
            Kind::Flag => Self::Flag(BooleanBuilder::new()),
            Kind::Time => Self::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
        }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(values), Cell::Text(value)) => values.append_value(value),
            (Self::U8(values), Cell::U8(value)) => values.append_value(value),
            (Self::U32(values), Cell::U32(value)) => values.append_value(value),
            (Self::U64(values), Cell::U64(value)) => values.append_value(value),
            (Self::F64(values), Cell::F64(value)) => values.append_value(value),
            (Self::Flag(values), Cell::Flag(value)) => values.append_value(value),
            (Self::Time(values), Cell::Time(value)) => values.append_value(value),
            (Self::Text(values), Cell::Empty) => values.append_null(),
            (Self::U8(values), Cell::Empty) => values.append_null(),
            (Self::U32(values), Cell::Empty) => values.append_null(),
            (Self::U64(values), Cell::Empty) => values.append_null(),
            (Self::F64(values), Cell::Empty) => values.append_null(),
            (Self::Flag(values), Cell::Empty) => values.append_null(),
            (Self::Time(values), Cell::Empty) => values.append_null(),
            (_, cell) => unreachable!("a table's cells are of its columns' types, not {cell:?}"),
        }
    }

    fn take(&mut self) -> ArrayRef {
        match self {
            Self::Text(values) => Arc::new(values.finish()),
            Self::U8(values) => Arc::new(values.finish()),
            Self::U32(values) => Arc::new(values.finish()),
            Self::U64(values) => Arc::new(values.finish()),
            Self::F64(values) => Arc::new(values.finish()),
            Self::Flag(values) => Arc::new(values.finish()),
            Self::Time(values) => Arc::new(values.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, TimestampNanosecondType, UInt32Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::super::testing::{self, object};
    use super::objects::COLUMNS;
    use super::*;
    use reticle_domain::object::Object;

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
    fn no_text_in_csv_is_a_formula_and_every_text_can_be_had_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.csv");
        let names = [
            "=HYPERLINK(\"http://x\",\"y\").tif",
            "+1",
            "-2+3",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "'quoted'",
            "'=1",
            "plate-7 = a.tif",
            "",
        ];
        let mut table = ObjectsCsv::create(&path).unwrap();
        for image in names {
            let row = ImageRef { image, page: 0, pixel_size_um: None };
            // A measurement below 0 stays a number.
            table.append(row, &[Object { orientation: -0.5, ..object(1) }]).unwrap();
        }
        table.finish().unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let orientation =
            reader.headers().unwrap().iter().position(|name| name == "orientation").unwrap();
        for (row, name) in reader.records().zip(names) {
            let row = row.unwrap();
            assert!(!row[0].starts_with(['=', '+', '-', '@', '\t', '\r']), "{}", &row[0]);
            assert_eq!(row[0].strip_prefix('\'').unwrap_or(&row[0]), name);
            assert_eq!(&row[orientation], "-0.5");
        }
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
        assert!(error.to_string().starts_with("/nowhere/objects.csv cannot be written"));
    }

    fn write<T: Table>(path: &Path, rows: &[T::Row<'_>]) -> Vec<u8> {
        let mut table = ParquetTable::<T>::new(Output::scratch(path).unwrap()).unwrap();
        for row in rows {
            table.push(row).unwrap();
        }
        assert_eq!(table.rows(), rows.len() as u64);
        let written = table.finish().unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(written.bytes, bytes.len() as u64);
        bytes
    }

    fn batch(path: &Path) -> RecordBatch {
        let file = std::fs::File::open(path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        reader.build().unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn the_archive_s_tables_hold_their_rows_and_are_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let (frame, model) = (testing::frame(1), testing::model("nuclei"));
        let bare = reticle_domain::facts::FrameFacts {
            pixel_size_um: None,
            origin: None,
            place: reticle_domain::frame::Place::default(),
            ..testing::frame(2)
        };
        let site = reticle_domain::facts::BoxName { site: "lab".into(), name: "box-1".into() };
        let frames = [(Some(&site), &frame), (None, &bare)];
        let bytes = write::<Frames>(&path, &frames);
        assert_eq!(write::<Frames>(&path, &frames), bytes);
        let rows = batch(&path);
        assert_eq!(rows["frame"].as_string::<i32>().value(0), frame.id.to_string());
        let captured = rows["captured_at"].as_primitive::<TimestampNanosecondType>();
        assert_eq!(captured.value(0), frame.captured.at_ns);
        assert_eq!(rows["well"].as_string::<i32>().value(0), "C07");
        assert_eq!(rows["box"].as_string::<i32>().value(0), "box-1");
        assert!(rows["well"].is_null(1) && rows["pixel_size_um"].is_null(1));

        let model = ModelKey::of(&model);
        let found = object(1);
        let objects = [
            ObjectRow { frame: &frame, model: &model, object: &found },
            ObjectRow { frame: &bare, model: &model, object: &found },
        ];
        let bytes = write::<Objects>(&path, &objects);
        assert_eq!(write::<Objects>(&path, &objects), bytes);
        let rows = batch(&path);
        assert_eq!(rows["model"].as_string::<i32>().value(1), model.key());
        assert_eq!(rows["area"].as_primitive::<UInt32Type>().value(1), 101);
        assert!(rows["area_um2"].is_null(1) && !rows["area_um2"].is_null(0));

        let path = folder.path().join("frames.csv");
        let mut table = CsvTable::<Frames>::create(&path).unwrap();
        table.push(&(None, &bare)).unwrap();
        table.finish().unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let header = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let at = header.iter().position(|name| name == "captured_at").unwrap();
        assert_eq!(row[at], bare.captured.rfc3339());
    }
}

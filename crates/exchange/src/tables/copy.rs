//! Tables that are read again, to be added to without losing a row.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{BooleanArray, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};

use super::super::output::WriteError;
use super::super::{ReadError, guarded};
use super::{ParquetTable, Table};

/// The column that says of which frame a row is.
const FRAME: &str = "frame";

/// Rows that were not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is copied cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// How many rows a Parquet table of frames or objects has of each frame.
///
/// # Errors
/// When it cannot be read, or says nothing of frames.
pub fn rows_by_frame(path: &Path) -> Result<BTreeMap<String, u64>, ReadError> {
    guarded(path, || count_rows(path))
}

fn count_rows(path: &Path) -> Result<BTreeMap<String, u64>, ReadError> {
    let failed = |why: &dyn ToString| ReadError::new(path, why.to_string());
    let builder = open(path)?;
    let mask = frame_column(&builder);
    let batches = builder.with_projection(mask).build().map_err(|error| failed(&error))?;
    let mut rows = BTreeMap::new();
    for batch in batches {
        let batch = batch.map_err(|error| failed(&error))?;
        let frames = batch.columns().first().and_then(|column| column.as_string_opt::<i32>());
        let frames = frames.ok_or_else(|| failed(&"it has no column of frames"))?;
        for frame in frames.iter().flatten() {
            *rows.entry(frame.to_owned()).or_default() += 1;
        }
    }
    Ok(rows)
}

impl<T: Table> ParquetTable<T> {
    /// Adds the rows that another table of this kind has of one frame, as they are.
    ///
    /// # Errors
    /// When that table cannot be read or has other columns, or when the disk is full or gone.
    pub fn copy_frame(&mut self, from: &Path, frame: &str) -> Result<(), CopyError> {
        let failed = |why: &dyn ToString| ReadError::new(from, why.to_string());
        let builder = open(from)?;
        let mask = frame_column(&builder);
        let frame = frame.to_owned();
        let is_of_it = ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
            let frames = batch.column(0).as_string::<i32>();
            Ok(frames
                .iter()
                .map(|found| Some(found == Some(frame.as_str())))
                .collect::<BooleanArray>())
        });
        let builder = builder.with_row_filter(RowFilter::new(vec![Box::new(is_of_it)]));
        // Those that wait come first.
        self.write_batch()?;
        for batch in builder.build().map_err(|error| failed(&error))? {
            let batch = batch.map_err(|error| failed(&error))?;
            let columns = batch.columns().to_vec();
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)
                .map_err(|error| failed(&error))?;
            let written = self.writer.write(&batch);
            written.map_err(|error| self.writer.inner().failed(error))?;
            self.rows += batch.num_rows() as u64;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, ReadError> {
    let file = File::open(path).map_err(|error| ReadError::new(path, error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| ReadError::new(path, error))
}

fn frame_column(builder: &ParquetRecordBatchReaderBuilder<File>) -> ProjectionMask {
    ProjectionMask::columns(builder.parquet_schema(), [FRAME])
}

#[cfg(test)]
mod tests {
    use super::super::{ModelKey, ObjectRow, Objects};
    use super::*;
    use crate::testing;

    /// A table with so many objects of each of these frames.
    fn write(path: &Path, rows: &[(u64, u32)]) {
        let mut table = ParquetTable::<Objects>::create(path).unwrap();
        push(&mut table, rows);
        table.finish().unwrap();
    }

    fn push(table: &mut ParquetTable<Objects>, rows: &[(u64, u32)]) {
        let model = ModelKey::of(&testing::model("nuclei"));
        for (position, objects) in rows {
            let frame = testing::frame(*position);
            for label in 1..=*objects {
                let object = testing::object(label);
                table.push(&ObjectRow { frame: &frame, model: &model, object: &object }).unwrap();
            }
        }
    }

    #[test]
    fn a_frame_that_is_copied_has_all_its_rows_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        write(&old, &[(0, 3), (1, 20_000), (2, 4)]);
        let id = |position| testing::frame(position).id.to_string();
        let mut table = ParquetTable::<Objects>::create(&new).unwrap();
        push(&mut table, &[(0, 5)]);
        table.copy_frame(&old, &id(1)).unwrap();
        table.copy_frame(&old, &id(9)).unwrap();
        push(&mut table, &[(3, 2)]);
        assert_eq!(table.rows(), 20_007);
        table.finish().unwrap();
        let expected = [(id(0), 5), (id(1), 20_000), (id(3), 2)];
        assert_eq!(rows_by_frame(&new).unwrap(), BTreeMap::from(expected));
        std::fs::File::create(&old).unwrap();
        assert!(rows_by_frame(&old).is_err());
    }
}

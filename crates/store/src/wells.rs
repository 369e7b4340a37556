//! Wells as they stand now: sums of fields, in the words of the views (`V3__views.sql`).

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::error::StoreError;
use super::readers::{Reader, unsigned};
use reticle_domain::facts::{ResultFacts, WellFacts};

impl Reader {
    /// The wells that these results belong to, each once for each session and model, in the
    /// order of the results, with all that is committed of them by now. Results without a well
    /// are left out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn wells_of(&self, results: &[ResultFacts]) -> Result<Vec<WellFacts>, StoreError> {
        self.with("sum up wells", |db| {
            // The beginning of the table's key: a walk over the fields of one well.
            let mut statement = db.prepare_cached(
                "SELECT count(*), sum(frames), sum(objects), sum(frames_in_focus), sum(objects_in_focus),
                        1.0 * sum(area_in_focus) / nullif(sum(objects_in_focus), 0),
                        1.0 * sum(intensity_in_focus) / nullif(sum(objects_in_focus), 0),
                        1.0 * sum(area_in_focus) / nullif(sum(pixels_in_focus), 0),
                        1.0 * sum(focus) / nullif(sum(frames), 0)
                 FROM field_sum
                 WHERE session = (SELECT pk FROM session WHERE id = ?1)
                   AND model = ?2 AND plate = ?3 AND well = ?4
                 HAVING count(*) > 0",
            )?;
            let mut seen = HashSet::new();
            let mut wells = Vec::new();
            for result in results {
                let place = &result.frame.place;
                let Some(well) = place.well.as_deref().filter(|well| !well.is_empty()) else {
                    continue;
                };
                // Unknown and empty are the same in the sums.
                let plate = place.plate.as_deref().unwrap_or_default();
                if !seen.insert((result.frame.session, result.model.pk, plate, well)) {
                    continue;
                }
                let key = params![result.frame.session.as_bytes(), result.model.pk, plate, well];
                let found = statement
                    .query_row(key, |row| {
                        Ok(WellFacts {
                            session: result.frame.session,
                            model: Arc::clone(&result.model),
                            plate: Some(plate.to_owned()).filter(|plate| !plate.is_empty()),
                            well: well.to_owned(),
                            fields: unsigned(row, 0)?,
                            frames: unsigned(row, 1)?,
                            objects: unsigned(row, 2)?,
                            frames_in_focus: unsigned(row, 3)?,
                            objects_in_focus: unsigned(row, 4)?,
                            mean_area_px: row.get(5)?,
                            mean_intensity: row.get(6)?,
                            area_fraction: row.get(7)?,
                            mean_focus: row.get(8)?,
                        })
                    })
                    .optional()?;
                wells.extend(found);
            }
            Ok(wells)
        })
    }
}

//! The plate under the virtual microscope, and the stage's way over it.
//!
//! A 96-well plate, visited row by row in a serpentine as real stages do; a few frames of
//! each field, a few fields in each well, then the next round over the plate. Everything here
//! is a pure function of the frame's sequence number.

/// Rows of the plate, `A` to `H`.
pub(super) const ROWS: u32 = 8;
/// Columns of the plate, `01` to `12`.
pub(super) const COLUMNS: u32 = 12;
/// Fields in a well.
pub(super) const FIELDS: u32 = 2;
/// Frames of a field before the stage moves on: 2.4 s at the usual 5 frames a second, long
/// enough for a person to see the nuclei move.
pub(super) const FRAMES: u32 = 12;
/// Fields of the whole plate.
pub(super) const ALL_FIELDS: u32 = ROWS * COLUMNS * FIELDS;
/// Steps of the simulation that pass in a field while the stage is elsewhere, between two
/// rounds.
const STEPS_AWAY: u64 = 24;

/// Where the stage stands for one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// Rounds over the plate before this one.
    pub(super) round: u64,
    /// The well.
    pub(super) well: Well,
    /// The field within the well, from 0.
    pub(super) field: u32,
    /// The frame within this visit, from 0.
    pub(super) frame: u32,
}

/// One well of the plate, rows and columns from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Well {
    pub(super) row: u32,
    pub(super) column: u32,
}

impl Stop {
    /// Where the stage stands when frame `sequence` is taken.
    pub(super) fn at(sequence: u64) -> Self {
        let visit = sequence / u64::from(FRAMES);
        let below = |value: u64, bound: u32| {
            u32::try_from(value % u64::from(bound)).expect("a remainder is below a u32")
        };
        let nth_well = below(visit / u64::from(FIELDS), ROWS * COLUMNS);
        let row = nth_well / COLUMNS;
        let along = nth_well % COLUMNS;
        let column = if row.is_multiple_of(2) { along } else { COLUMNS - 1 - along };
        Self {
            round: visit / u64::from(ALL_FIELDS),
            well: Well { row, column },
            field: below(visit, FIELDS),
            frame: below(sequence, FRAMES),
        }
    }

    /// Number of the field on the plate, the same in every round.
    pub(super) fn field_index(&self) -> u32 {
        (self.well.row * COLUMNS + self.well.column) * FIELDS + self.field
    }

    /// Steps of the simulation that have passed in this field.
    pub(super) fn steps(&self) -> u64 {
        self.round * (u64::from(FRAMES) + STEPS_AWAY) + u64::from(self.frame)
    }
}

impl Well {
    /// As people write it: `C07`.
    pub(super) fn name(self) -> String {
        let row = char::from(b'A' + u8::try_from(self.row).expect("a plate has few rows"));
        format!("{row}{:02}", self.column + 1)
    }

    /// Nuclei per mm² at the start of the experiment. The plate is laid out as a dose series:
    /// untreated, crowded, then sparser with each column; column 12 has the controls, every
    /// second of them without cells.
    pub(super) fn nuclei_per_mm2(self) -> f64 {
        const UNTREATED: f64 = 650.0;
        const CROWDED: f64 = 1_300.0;
        const SPARSEST: f64 = 40.0;
        match self.column {
            0 => UNTREATED,
            11 if self.row.is_multiple_of(2) => 0.0,
            11 => UNTREATED,
            column => CROWDED * (SPARSEST / CROWDED).powf(f64::from(column - 1) / 9.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_round_visits_every_field_of_every_well_and_never_jumps_far() {
        let mut seen = BTreeSet::new();
        let mut before = Stop::at(0).well;
        for sequence in 0..u64::from(ALL_FIELDS * FRAMES) {
            let stop = Stop::at(sequence);
            assert_eq!(stop.round, 0);
            let moved =
                stop.well.row.abs_diff(before.row) + stop.well.column.abs_diff(before.column);
            assert!(moved <= 1, "{before:?} → {:?}", stop.well);
            before = stop.well;
            seen.insert((stop.well.name(), stop.field, stop.frame));
        }
        assert_eq!(seen.len(), (ALL_FIELDS * FRAMES) as usize);
        assert_eq!(seen.first().unwrap().0, "A01");
        assert_eq!(seen.last().unwrap().0, "H12");
    }

    #[test]
    fn time_in_a_field_only_goes_forward() {
        let round = u64::from(ALL_FIELDS * FRAMES);
        let last_of_visit = Stop::at(u64::from(FRAMES) - 1);
        let next_visit = Stop::at(round);
        assert_eq!(last_of_visit.field_index(), next_visit.field_index());
        assert_eq!(next_visit.steps(), last_of_visit.steps() + 1 + STEPS_AWAY);
    }

    #[test]
    fn the_plate_has_crowded_sparse_and_empty_wells() {
        let density = |row, column| Well { row, column }.nuclei_per_mm2();
        assert!(density(3, 1) > 20.0 * density(3, 10));
        assert!(density(0, 11).abs() < f64::EPSILON);
        assert!(density(1, 11) > 0.0);
    }
}

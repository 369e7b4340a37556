//! A check under way: what is found is gathered here.

use std::path::Path;

use rusqlite::Connection;

use crate::fsck::report::{Depth, Finding, FsckReport, Invariant};

/// Findings of one invariant that are told one by one; more are counted.
const TOLD: u64 = 100;

pub(super) struct Check<'a, P> {
    pub(super) folder: &'a Path,
    pub(super) depth: Depth,
    pub(super) db: &'a Connection,
    pub(super) in_work: bool,
    pub(super) progress: P,
    pub(super) steps: (u64, u64),
    pub(super) report: FsckReport,
}

impl<P: FnMut(u64, u64)> Check<'_, P> {
    pub(super) fn broken(
        &mut self,
        invariant: u8,
        place: impl Into<String>,
        what: impl Into<String>,
    ) {
        let invariant = Invariant(invariant);
        let count = self.report.broken_counts.entry(invariant.to_string()).or_default();
        *count += 1;
        if *count <= TOLD {
            let (place, what) = (place.into(), what.into());
            self.report.broken.push(Finding { invariant, place, what });
        }
    }

    pub(super) fn note(
        &mut self,
        invariant: u8,
        place: impl Into<String>,
        what: impl Into<String>,
    ) {
        let (place, what) = (place.into(), what.into());
        self.report.notes.push(Finding { invariant: Invariant(invariant), place, what });
    }

    pub(super) fn step(&mut self) {
        self.steps.0 += 1;
        (self.progress)(self.steps.0, self.steps.1.max(self.steps.0));
    }

    /// Every row of `sql` is a broken place: what it is and what is wrong with it.
    pub(super) fn each(&mut self, invariant: u8, sql: &str) -> rusqlite::Result<()> {
        let db = self.db;
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.broken(invariant, row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        }
        Ok(())
    }
}

//! Invariants of what leaves the box: places in series, sums, deliveries.

use crate::fsck::check::Check;
use crate::fsck::report::Depth;

/// Sums of numbers with fractions depend on their order in the last digits.
const ROUNDING: f64 = 1e-9;

impl<P: FnMut(u64, u64)> Check<'_, P> {
    /// I12 to I15.
    pub(crate) fn leaving(&mut self) -> rusqlite::Result<()> {
        self.positions()?;
        if self.depth == Depth::Full {
            self.sums("field_sum", &["session", "model", "plate", "well", "field"])?;
            self.sums("minute_sum", &["session", "model", "minute"])?;
        }
        self.deliveries()?;
        self.cursors()
    }

    /// I12.
    fn positions(&mut self) -> rusqlite::Result<()> {
        self.each(
            12,
            "SELECT 'frame ' || hex(frame.id), iif(series.pk IS NULL, 'is in no series',
                    'is in a series of another session or shape')
             FROM frame LEFT JOIN series ON series.pk = frame.series
             WHERE series.pk IS NULL OR series.session <> frame.session
                OR series.width <> frame.width OR series.height <> frame.height
                OR series.bytes_per_pixel <> (frame.bit_depth + 7) / 8",
        )?;
        self.each(
            12,
            "SELECT 'series ' || series.number || ' of session ' || hex(session.id),
                    format('counts %d frames; holds %d at positions %d to %d, and %d are lost',
                           series.frames, count(frame.pk), min(frame.position),
                           max(frame.position), coalesce(gone.positions, 0))
             FROM series JOIN session ON session.pk = series.session
             LEFT JOIN frame ON frame.series = series.pk
             LEFT JOIN (SELECT series, sum(last - first + 1) AS positions, max(last) AS last
                        FROM lost_position GROUP BY series) AS gone ON gone.series = series.pk
             GROUP BY series.pk
             HAVING series.frames <> count(frame.pk) + coalesce(gone.positions, 0)
                 OR series.frames <> max(coalesce(max(frame.position), -1),
                                         coalesce(gone.last, -1)) + 1",
        )?;
        self.each(
            12,
            "SELECT 'series ' || lost.series, format('position %d is lost, and there', position)
             FROM lost_position AS lost JOIN frame ON frame.series = lost.series
                 AND frame.position BETWEEN lost.first AND lost.last",
        )
    }

    /// I13: counted again from the results.
    fn sums(&mut self, table: &str, keys: &[&str]) -> rusqlite::Result<()> {
        let list = keys.join(", ");
        let same = keys.iter().map(|key| format!("kept.{key} IS found.{key}"));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let name = keys.iter().skip(2).map(|key| format!("coalesce(kept.{key}, found.{key})"));
        let name = name.collect::<Vec<_>>().join(" || ' ' || ");
        let off = |column: &str, sum: &str| {
            format!(
                "abs(coalesce(kept.{column}, 0) - coalesce(found.{sum}, 0))
                     > {ROUNDING} * (1 + abs(coalesce(found.{sum}, 0)))"
            )
        };
        let off = [
            "frames",
            "objects",
            "area",
            "pixels",
            "intensity",
            "focus",
            "frames_in_focus",
            "objects_in_focus",
            "area_in_focus",
            "pixels_in_focus",
            "intensity_in_focus",
        ]
        .map(|column| off(column, column))
        .join(" OR ");
        self.each(
            13,
            &format!(
                "WITH found AS (
                     SELECT {list}, count(*) AS frames, sum(objects) AS objects,
                            sum(area) AS area, sum(pixels) AS pixels,
                            total(intensity) AS intensity, total(focus) AS focus,
                            sum(in_focus) AS frames_in_focus,
                            sum(objects * in_focus) AS objects_in_focus,
                            sum(area * in_focus) AS area_in_focus,
                            sum(pixels * in_focus) AS pixels_in_focus,
                            total(intensity * in_focus) AS intensity_in_focus
                     FROM result_sum GROUP BY {list})
                 SELECT '{table} ' || {name}, format(
                        'says %d frames, %d objects, area %d; its results come to %d, %d, %d',
                        kept.frames, kept.objects, kept.area,
                        found.frames, found.objects, found.area)
                 FROM {table} AS kept FULL JOIN found ON {same} WHERE {off}"
            ),
        )
    }

    /// I14.
    fn deliveries(&mut self) -> rusqlite::Result<()> {
        // For every configured destination, what is there is requested.
        self.each(
            14,
            "WITH own AS (SELECT pk FROM session WHERE delivered_by IS NULL),
             held AS (
                 SELECT 'frames' AS kind, series, position / part_frames AS part, NULL AS model,
                        max(frame.pk) AS newest, count(*) AS rows
                 FROM frame JOIN series ON series.pk = frame.series
                 WHERE frame.session IN own GROUP BY 2, 3
                 UNION ALL
                 SELECT 'pixels', series, position / part_frames, NULL, max(frame.pk), count(*)
                 FROM frame JOIN series ON series.pk = frame.series
                 WHERE archived = 1 AND frame.session IN own GROUP BY 2, 3
                 UNION ALL
                 SELECT 'results', series, position / part_frames, segmentation.model,
                        max(segmentation.pk), count(*)
                 FROM segmentation JOIN frame ON frame.pk = segmentation.frame
                 JOIN series ON series.pk = frame.series
                 WHERE frame.session IN own GROUP BY 2, 3, 4)
             SELECT destination.name || ' ' || held.kind || ' of part ' || held.part,
                    format('there are %d up to %d; %d up to %d are requested', held.rows,
                           held.newest, coalesce(outbox.requested_rows, 0),
                           coalesce(outbox.requested, 0))
             FROM destination CROSS JOIN held
             LEFT JOIN outbox ON outbox.destination = destination.name
                 AND outbox.kind = held.kind AND outbox.series = held.series
                 AND outbox.part = held.part AND outbox.model IS held.model
             WHERE (destination.name <> 'central' OR held.kind <> 'pixels')
               AND (coalesce(outbox.requested, 0) < held.newest
                    OR (held.kind <> 'pixels' AND outbox.requested_rows <> held.rows))",
        )?;
        self.each(
            14,
            "SELECT 'delivery ' || outbox.pk, 'is delivered, but there is no receipt for it'
             FROM outbox JOIN destination ON destination.name = outbox.destination
             WHERE destination.name = 'archive' AND outbox.state = 'delivered'
               AND NOT EXISTS (SELECT 1 FROM receipt WHERE receipt.outbox = outbox.pk
                                  AND receipt.location = destination.location)",
        )?;
        self.each(
            14,
            "SELECT 'frame ' || hex(id), 'is to be archived with its pixels, which are gone'
             FROM frame WHERE archived = 1 AND file IS NULL",
        )
    }

    /// I15. Keys are compared and never counted by: they only grow, and may have holes, as those of
    /// results that were imported twice by an older version. What is there is told from its rows. A
    /// result that is missing is found by I8 and I9.
    fn cursors(&mut self) -> rusqlite::Result<()> {
        self.each(
            15,
            "WITH given AS (
                 SELECT 'events' AS stream,
                        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0) AS last
                 UNION ALL
                 SELECT 'results', coalesce(max(pk), 0) FROM segmentation)
             SELECT 'cursor of ' || stream, format('is at %d; there are keys up to %d', acknowledged, last)
             FROM publish_cursor JOIN given USING (stream) WHERE acknowledged > last",
        )
    }
}

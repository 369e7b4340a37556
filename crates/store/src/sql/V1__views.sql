-- Reticle's local store: schema 1, the views for people. The central database offers the same
-- views under the same names, with the same columns (docs/guide/database.md says what each means).
--
-- Counts, means and area fractions come from the sums that are kept ready; percentiles come from
-- the objects and are interpolated as by percentile_cont: of n values in order, percentile p is at
-- ordinal p/100 * (n - 1), and each value weighs one minus its distance from there. The views are
-- plain SQL, so that any program that reads SQLite can query them, and are exact whenever they are
-- queried. model is the row of the table model here.

-- One row an object, with what views group by.
CREATE VIEW measurement AS
SELECT session.id AS session_id, session.name AS session_name, frame.session, segmentation.model,
       model.name AS model_name, frame.plate, frame.well, frame.field,
       coalesce(frame.captured_mono_ns + boot.offset_ns, frame.captured_wall_ns) / 60000000000
           AS minute,
       frame.id AS frame_id, segmentation.focus,
       coalesce(segmentation.focus >= 0.3, 0) AS in_focus, object.*,
       coalesce(frame.pixel_size_um, session.pixel_size_um) AS pixel_size_um,
       object.area * coalesce(frame.pixel_size_um, session.pixel_size_um)
                   * coalesce(frame.pixel_size_um, session.pixel_size_um) AS area_um2
FROM frame
JOIN session ON session.pk = frame.session
JOIN boot ON boot.pk = frame.captured_boot
JOIN segmentation ON segmentation.frame = frame.pk
JOIN model ON model.pk = segmentation.model
JOIN object ON object.segmentation = segmentation.pk;

CREATE VIEW session_aggregate AS
WITH valued AS (
    SELECT session, model, focused, measure, value,
           row_number() OVER ordinal - 1 AS ordinal,
           count(*) OVER (PARTITION BY session, model, focused, measure) AS n
    FROM (SELECT session, model, 0 AS focused, 'area' AS measure, area AS value FROM measurement
          UNION ALL SELECT session, model, 1, 'area', area FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, 0, 'area_um2', area_um2 FROM measurement
          UNION ALL SELECT session, model, 1, 'area_um2', area_um2 FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, 0, 'intensity', intensity_mean FROM measurement
          UNION ALL SELECT session, model, 1, 'intensity', intensity_mean FROM measurement WHERE in_focus)
    WHERE value IS NOT NULL
    WINDOW ordinal AS (PARTITION BY session, model, focused, measure ORDER BY value)),
percentiles AS (
    SELECT session, model, focused, measure, avg(value) AS mean,
           total(value * max(0.0, 1 - abs(ordinal - 0.05 * (n - 1)))) AS p5,
           total(value * max(0.0, 1 - abs(ordinal - 0.25 * (n - 1)))) AS p25,
           total(value * max(0.0, 1 - abs(ordinal - 0.5 * (n - 1)))) AS p50,
           total(value * max(0.0, 1 - abs(ordinal - 0.75 * (n - 1)))) AS p75,
           total(value * max(0.0, 1 - abs(ordinal - 0.95 * (n - 1)))) AS p95
    FROM valued GROUP BY session, model, focused, measure),
wide AS (
    SELECT session, model,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN mean END) AS area_mean,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p5 END) AS area_p5,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p25 END) AS area_p25,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p50 END) AS area_p50,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p75 END) AS area_p75,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p95 END) AS area_p95,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN mean END) AS area_um2_mean,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN mean END) AS intensity_mean,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p5 END) AS intensity_p5,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p25 END) AS intensity_p25,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p50 END) AS intensity_p50,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p75 END) AS intensity_p75,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p95 END) AS intensity_p95,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN mean END) AS area_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p5 END) AS area_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p25 END) AS area_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p50 END) AS area_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p75 END) AS area_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p95 END) AS area_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN mean END) AS area_um2_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN mean END) AS intensity_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p5 END) AS intensity_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p25 END) AS intensity_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p50 END) AS intensity_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p75 END) AS intensity_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p95 END) AS intensity_p95_in_focus
    FROM percentiles GROUP BY session, model),
summed AS (
    SELECT session, model, sum(frames) AS frames, sum(objects) AS objects, sum(area) AS area,
           sum(pixels) AS pixels, sum(frames_in_focus) AS frames_in_focus,
           sum(objects_in_focus) AS objects_in_focus, sum(area_in_focus) AS area_in_focus,
           sum(pixels_in_focus) AS pixels_in_focus
    FROM (SELECT session, model, frames, objects, area, pixels,
                 frames_in_focus, objects_in_focus, area_in_focus, pixels_in_focus FROM field_sum)
    GROUP BY session, model)
SELECT lower(substr(hex(session.id), 1, 8) || '-' || substr(hex(session.id), 9, 4) || '-'
             || substr(hex(session.id), 13, 4) || '-' || substr(hex(session.id), 17, 4) || '-'
             || substr(hex(session.id), 21)) AS session,
       session.name AS session_name,
       model.pk AS model, model.name AS model_name,
       summed.frames, summed.objects, 1.0 * summed.objects / summed.frames AS objects_per_frame,
       wide.area_mean, wide.area_p5, wide.area_p25, wide.area_p50, wide.area_p75, wide.area_p95,
       wide.area_um2_mean, wide.area_um2_p5, wide.area_um2_p25, wide.area_um2_p50, wide.area_um2_p75, wide.area_um2_p95,
       wide.intensity_mean, wide.intensity_p5, wide.intensity_p25, wide.intensity_p50, wide.intensity_p75, wide.intensity_p95,
       1.0 * summed.area / summed.pixels AS area_fraction,
       summed.frames_in_focus, summed.objects_in_focus,
       1.0 * summed.objects_in_focus / nullif(summed.frames_in_focus, 0)
           AS objects_per_frame_in_focus,
       wide.area_mean_in_focus, wide.area_p5_in_focus, wide.area_p25_in_focus, wide.area_p50_in_focus, wide.area_p75_in_focus, wide.area_p95_in_focus,
       wide.area_um2_mean_in_focus, wide.area_um2_p5_in_focus, wide.area_um2_p25_in_focus, wide.area_um2_p50_in_focus, wide.area_um2_p75_in_focus, wide.area_um2_p95_in_focus,
       wide.intensity_mean_in_focus, wide.intensity_p5_in_focus, wide.intensity_p25_in_focus, wide.intensity_p50_in_focus, wide.intensity_p75_in_focus, wide.intensity_p95_in_focus,
       1.0 * summed.area_in_focus / nullif(summed.pixels_in_focus, 0) AS area_fraction_in_focus
FROM summed
JOIN session ON session.pk = summed.session
JOIN model ON model.pk = summed.model
LEFT JOIN wide ON wide.session IS summed.session AND wide.model IS summed.model;

CREATE VIEW plate_aggregate AS
WITH valued AS (
    SELECT session, model, plate, focused, measure, value,
           row_number() OVER ordinal - 1 AS ordinal,
           count(*) OVER (PARTITION BY session, model, plate, focused, measure) AS n
    FROM (SELECT session, model, plate, 0 AS focused, 'area' AS measure, area AS value FROM measurement
          UNION ALL SELECT session, model, plate, 1, 'area', area FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, plate, 0, 'area_um2', area_um2 FROM measurement
          UNION ALL SELECT session, model, plate, 1, 'area_um2', area_um2 FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, plate, 0, 'intensity', intensity_mean FROM measurement
          UNION ALL SELECT session, model, plate, 1, 'intensity', intensity_mean FROM measurement WHERE in_focus)
    WHERE value IS NOT NULL
    WINDOW ordinal AS (PARTITION BY session, model, plate, focused, measure ORDER BY value)),
percentiles AS (
    SELECT session, model, plate, focused, measure, avg(value) AS mean,
           total(value * max(0.0, 1 - abs(ordinal - 0.05 * (n - 1)))) AS p5,
           total(value * max(0.0, 1 - abs(ordinal - 0.25 * (n - 1)))) AS p25,
           total(value * max(0.0, 1 - abs(ordinal - 0.5 * (n - 1)))) AS p50,
           total(value * max(0.0, 1 - abs(ordinal - 0.75 * (n - 1)))) AS p75,
           total(value * max(0.0, 1 - abs(ordinal - 0.95 * (n - 1)))) AS p95
    FROM valued GROUP BY session, model, plate, focused, measure),
wide AS (
    SELECT session, model, plate,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN mean END) AS area_mean,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p5 END) AS area_p5,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p25 END) AS area_p25,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p50 END) AS area_p50,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p75 END) AS area_p75,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p95 END) AS area_p95,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN mean END) AS area_um2_mean,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN mean END) AS intensity_mean,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p5 END) AS intensity_p5,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p25 END) AS intensity_p25,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p50 END) AS intensity_p50,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p75 END) AS intensity_p75,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p95 END) AS intensity_p95,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN mean END) AS area_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p5 END) AS area_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p25 END) AS area_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p50 END) AS area_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p75 END) AS area_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p95 END) AS area_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN mean END) AS area_um2_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN mean END) AS intensity_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p5 END) AS intensity_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p25 END) AS intensity_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p50 END) AS intensity_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p75 END) AS intensity_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p95 END) AS intensity_p95_in_focus
    FROM percentiles GROUP BY session, model, plate),
summed AS (
    SELECT session, model, plate, sum(frames) AS frames, sum(objects) AS objects, sum(area) AS area,
           sum(pixels) AS pixels, sum(frames_in_focus) AS frames_in_focus,
           sum(objects_in_focus) AS objects_in_focus, sum(area_in_focus) AS area_in_focus,
           sum(pixels_in_focus) AS pixels_in_focus
    FROM (SELECT session, model, nullif(plate, '') AS plate, frames, objects, area, pixels,
                 frames_in_focus, objects_in_focus, area_in_focus, pixels_in_focus FROM field_sum)
    GROUP BY session, model, plate)
SELECT lower(substr(hex(session.id), 1, 8) || '-' || substr(hex(session.id), 9, 4) || '-'
             || substr(hex(session.id), 13, 4) || '-' || substr(hex(session.id), 17, 4) || '-'
             || substr(hex(session.id), 21)) AS session,
       session.name AS session_name, summed.plate,
       model.pk AS model, model.name AS model_name,
       summed.frames, summed.objects, 1.0 * summed.objects / summed.frames AS objects_per_frame,
       wide.area_mean, wide.area_p5, wide.area_p25, wide.area_p50, wide.area_p75, wide.area_p95,
       wide.area_um2_mean, wide.area_um2_p5, wide.area_um2_p25, wide.area_um2_p50, wide.area_um2_p75, wide.area_um2_p95,
       wide.intensity_mean, wide.intensity_p5, wide.intensity_p25, wide.intensity_p50, wide.intensity_p75, wide.intensity_p95,
       1.0 * summed.area / summed.pixels AS area_fraction,
       summed.frames_in_focus, summed.objects_in_focus,
       1.0 * summed.objects_in_focus / nullif(summed.frames_in_focus, 0)
           AS objects_per_frame_in_focus,
       wide.area_mean_in_focus, wide.area_p5_in_focus, wide.area_p25_in_focus, wide.area_p50_in_focus, wide.area_p75_in_focus, wide.area_p95_in_focus,
       wide.area_um2_mean_in_focus, wide.area_um2_p5_in_focus, wide.area_um2_p25_in_focus, wide.area_um2_p50_in_focus, wide.area_um2_p75_in_focus, wide.area_um2_p95_in_focus,
       wide.intensity_mean_in_focus, wide.intensity_p5_in_focus, wide.intensity_p25_in_focus, wide.intensity_p50_in_focus, wide.intensity_p75_in_focus, wide.intensity_p95_in_focus,
       1.0 * summed.area_in_focus / nullif(summed.pixels_in_focus, 0) AS area_fraction_in_focus
FROM summed
JOIN session ON session.pk = summed.session
JOIN model ON model.pk = summed.model
LEFT JOIN wide ON wide.session IS summed.session AND wide.model IS summed.model AND wide.plate IS summed.plate;

CREATE VIEW well_aggregate AS
WITH valued AS (
    SELECT session, model, plate, well, focused, measure, value,
           row_number() OVER ordinal - 1 AS ordinal,
           count(*) OVER (PARTITION BY session, model, plate, well, focused, measure) AS n
    FROM (SELECT session, model, plate, well, 0 AS focused, 'area' AS measure, area AS value FROM measurement
          UNION ALL SELECT session, model, plate, well, 1, 'area', area FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, plate, well, 0, 'area_um2', area_um2 FROM measurement
          UNION ALL SELECT session, model, plate, well, 1, 'area_um2', area_um2 FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, plate, well, 0, 'intensity', intensity_mean FROM measurement
          UNION ALL SELECT session, model, plate, well, 1, 'intensity', intensity_mean FROM measurement WHERE in_focus)
    WHERE value IS NOT NULL
    WINDOW ordinal AS (PARTITION BY session, model, plate, well, focused, measure ORDER BY value)),
percentiles AS (
    SELECT session, model, plate, well, focused, measure, avg(value) AS mean,
           total(value * max(0.0, 1 - abs(ordinal - 0.05 * (n - 1)))) AS p5,
           total(value * max(0.0, 1 - abs(ordinal - 0.25 * (n - 1)))) AS p25,
           total(value * max(0.0, 1 - abs(ordinal - 0.5 * (n - 1)))) AS p50,
           total(value * max(0.0, 1 - abs(ordinal - 0.75 * (n - 1)))) AS p75,
           total(value * max(0.0, 1 - abs(ordinal - 0.95 * (n - 1)))) AS p95
    FROM valued GROUP BY session, model, plate, well, focused, measure),
wide AS (
    SELECT session, model, plate, well,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN mean END) AS area_mean,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p5 END) AS area_p5,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p25 END) AS area_p25,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p50 END) AS area_p50,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p75 END) AS area_p75,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p95 END) AS area_p95,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN mean END) AS area_um2_mean,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN mean END) AS intensity_mean,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p5 END) AS intensity_p5,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p25 END) AS intensity_p25,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p50 END) AS intensity_p50,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p75 END) AS intensity_p75,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p95 END) AS intensity_p95,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN mean END) AS area_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p5 END) AS area_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p25 END) AS area_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p50 END) AS area_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p75 END) AS area_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p95 END) AS area_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN mean END) AS area_um2_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN mean END) AS intensity_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p5 END) AS intensity_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p25 END) AS intensity_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p50 END) AS intensity_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p75 END) AS intensity_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p95 END) AS intensity_p95_in_focus
    FROM percentiles GROUP BY session, model, plate, well),
summed AS (
    SELECT session, model, plate, well, sum(frames) AS frames, sum(objects) AS objects, sum(area) AS area,
           sum(pixels) AS pixels, sum(frames_in_focus) AS frames_in_focus,
           sum(objects_in_focus) AS objects_in_focus, sum(area_in_focus) AS area_in_focus,
           sum(pixels_in_focus) AS pixels_in_focus
    FROM (SELECT session, model, nullif(plate, '') AS plate, nullif(well, '') AS well, frames, objects, area, pixels,
                 frames_in_focus, objects_in_focus, area_in_focus, pixels_in_focus FROM field_sum)
    GROUP BY session, model, plate, well)
SELECT lower(substr(hex(session.id), 1, 8) || '-' || substr(hex(session.id), 9, 4) || '-'
             || substr(hex(session.id), 13, 4) || '-' || substr(hex(session.id), 17, 4) || '-'
             || substr(hex(session.id), 21)) AS session,
       session.name AS session_name, summed.plate, summed.well,
       model.pk AS model, model.name AS model_name,
       summed.frames, summed.objects, 1.0 * summed.objects / summed.frames AS objects_per_frame,
       wide.area_mean, wide.area_p5, wide.area_p25, wide.area_p50, wide.area_p75, wide.area_p95,
       wide.area_um2_mean, wide.area_um2_p5, wide.area_um2_p25, wide.area_um2_p50, wide.area_um2_p75, wide.area_um2_p95,
       wide.intensity_mean, wide.intensity_p5, wide.intensity_p25, wide.intensity_p50, wide.intensity_p75, wide.intensity_p95,
       1.0 * summed.area / summed.pixels AS area_fraction,
       summed.frames_in_focus, summed.objects_in_focus,
       1.0 * summed.objects_in_focus / nullif(summed.frames_in_focus, 0)
           AS objects_per_frame_in_focus,
       wide.area_mean_in_focus, wide.area_p5_in_focus, wide.area_p25_in_focus, wide.area_p50_in_focus, wide.area_p75_in_focus, wide.area_p95_in_focus,
       wide.area_um2_mean_in_focus, wide.area_um2_p5_in_focus, wide.area_um2_p25_in_focus, wide.area_um2_p50_in_focus, wide.area_um2_p75_in_focus, wide.area_um2_p95_in_focus,
       wide.intensity_mean_in_focus, wide.intensity_p5_in_focus, wide.intensity_p25_in_focus, wide.intensity_p50_in_focus, wide.intensity_p75_in_focus, wide.intensity_p95_in_focus,
       1.0 * summed.area_in_focus / nullif(summed.pixels_in_focus, 0) AS area_fraction_in_focus
FROM summed
JOIN session ON session.pk = summed.session
JOIN model ON model.pk = summed.model
LEFT JOIN wide ON wide.session IS summed.session AND wide.model IS summed.model AND wide.plate IS summed.plate AND wide.well IS summed.well;

CREATE VIEW field_aggregate AS
WITH valued AS (
    SELECT session, model, plate, well, field, focused, measure, value,
           row_number() OVER ordinal - 1 AS ordinal,
           count(*) OVER (PARTITION BY session, model, plate, well, field, focused, measure) AS n
    FROM (SELECT session, model, plate, well, field, 0 AS focused, 'area' AS measure, area AS value FROM measurement
          UNION ALL SELECT session, model, plate, well, field, 1, 'area', area FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, plate, well, field, 0, 'area_um2', area_um2 FROM measurement
          UNION ALL SELECT session, model, plate, well, field, 1, 'area_um2', area_um2 FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, plate, well, field, 0, 'intensity', intensity_mean FROM measurement
          UNION ALL SELECT session, model, plate, well, field, 1, 'intensity', intensity_mean FROM measurement WHERE in_focus)
    WHERE value IS NOT NULL
    WINDOW ordinal AS (PARTITION BY session, model, plate, well, field, focused, measure ORDER BY value)),
percentiles AS (
    SELECT session, model, plate, well, field, focused, measure, avg(value) AS mean,
           total(value * max(0.0, 1 - abs(ordinal - 0.05 * (n - 1)))) AS p5,
           total(value * max(0.0, 1 - abs(ordinal - 0.25 * (n - 1)))) AS p25,
           total(value * max(0.0, 1 - abs(ordinal - 0.5 * (n - 1)))) AS p50,
           total(value * max(0.0, 1 - abs(ordinal - 0.75 * (n - 1)))) AS p75,
           total(value * max(0.0, 1 - abs(ordinal - 0.95 * (n - 1)))) AS p95
    FROM valued GROUP BY session, model, plate, well, field, focused, measure),
wide AS (
    SELECT session, model, plate, well, field,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN mean END) AS area_mean,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p5 END) AS area_p5,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p25 END) AS area_p25,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p50 END) AS area_p50,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p75 END) AS area_p75,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p95 END) AS area_p95,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN mean END) AS area_um2_mean,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN mean END) AS intensity_mean,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p5 END) AS intensity_p5,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p25 END) AS intensity_p25,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p50 END) AS intensity_p50,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p75 END) AS intensity_p75,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p95 END) AS intensity_p95,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN mean END) AS area_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p5 END) AS area_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p25 END) AS area_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p50 END) AS area_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p75 END) AS area_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p95 END) AS area_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN mean END) AS area_um2_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN mean END) AS intensity_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p5 END) AS intensity_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p25 END) AS intensity_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p50 END) AS intensity_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p75 END) AS intensity_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p95 END) AS intensity_p95_in_focus
    FROM percentiles GROUP BY session, model, plate, well, field),
summed AS (
    SELECT session, model, plate, well, field, sum(frames) AS frames, sum(objects) AS objects, sum(area) AS area,
           sum(pixels) AS pixels, sum(frames_in_focus) AS frames_in_focus,
           sum(objects_in_focus) AS objects_in_focus, sum(area_in_focus) AS area_in_focus,
           sum(pixels_in_focus) AS pixels_in_focus
    FROM (SELECT session, model, nullif(plate, '') AS plate, nullif(well, '') AS well, nullif(field, 0) AS field, frames, objects, area, pixels,
                 frames_in_focus, objects_in_focus, area_in_focus, pixels_in_focus FROM field_sum)
    GROUP BY session, model, plate, well, field)
SELECT lower(substr(hex(session.id), 1, 8) || '-' || substr(hex(session.id), 9, 4) || '-'
             || substr(hex(session.id), 13, 4) || '-' || substr(hex(session.id), 17, 4) || '-'
             || substr(hex(session.id), 21)) AS session,
       session.name AS session_name, summed.plate, summed.well, summed.field,
       model.pk AS model, model.name AS model_name,
       summed.frames, summed.objects, 1.0 * summed.objects / summed.frames AS objects_per_frame,
       wide.area_mean, wide.area_p5, wide.area_p25, wide.area_p50, wide.area_p75, wide.area_p95,
       wide.area_um2_mean, wide.area_um2_p5, wide.area_um2_p25, wide.area_um2_p50, wide.area_um2_p75, wide.area_um2_p95,
       wide.intensity_mean, wide.intensity_p5, wide.intensity_p25, wide.intensity_p50, wide.intensity_p75, wide.intensity_p95,
       1.0 * summed.area / summed.pixels AS area_fraction,
       summed.frames_in_focus, summed.objects_in_focus,
       1.0 * summed.objects_in_focus / nullif(summed.frames_in_focus, 0)
           AS objects_per_frame_in_focus,
       wide.area_mean_in_focus, wide.area_p5_in_focus, wide.area_p25_in_focus, wide.area_p50_in_focus, wide.area_p75_in_focus, wide.area_p95_in_focus,
       wide.area_um2_mean_in_focus, wide.area_um2_p5_in_focus, wide.area_um2_p25_in_focus, wide.area_um2_p50_in_focus, wide.area_um2_p75_in_focus, wide.area_um2_p95_in_focus,
       wide.intensity_mean_in_focus, wide.intensity_p5_in_focus, wide.intensity_p25_in_focus, wide.intensity_p50_in_focus, wide.intensity_p75_in_focus, wide.intensity_p95_in_focus,
       1.0 * summed.area_in_focus / nullif(summed.pixels_in_focus, 0) AS area_fraction_in_focus
FROM summed
JOIN session ON session.pk = summed.session
JOIN model ON model.pk = summed.model
LEFT JOIN wide ON wide.session IS summed.session AND wide.model IS summed.model AND wide.plate IS summed.plate AND wide.well IS summed.well AND wide.field IS summed.field;

CREATE VIEW minute_aggregate AS
WITH valued AS (
    SELECT session, model, minute, focused, measure, value,
           row_number() OVER ordinal - 1 AS ordinal,
           count(*) OVER (PARTITION BY session, model, minute, focused, measure) AS n
    FROM (SELECT session, model, minute, 0 AS focused, 'area' AS measure, area AS value FROM measurement
          UNION ALL SELECT session, model, minute, 1, 'area', area FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, minute, 0, 'area_um2', area_um2 FROM measurement
          UNION ALL SELECT session, model, minute, 1, 'area_um2', area_um2 FROM measurement WHERE in_focus
          UNION ALL SELECT session, model, minute, 0, 'intensity', intensity_mean FROM measurement
          UNION ALL SELECT session, model, minute, 1, 'intensity', intensity_mean FROM measurement WHERE in_focus)
    WHERE value IS NOT NULL
    WINDOW ordinal AS (PARTITION BY session, model, minute, focused, measure ORDER BY value)),
percentiles AS (
    SELECT session, model, minute, focused, measure, avg(value) AS mean,
           total(value * max(0.0, 1 - abs(ordinal - 0.05 * (n - 1)))) AS p5,
           total(value * max(0.0, 1 - abs(ordinal - 0.25 * (n - 1)))) AS p25,
           total(value * max(0.0, 1 - abs(ordinal - 0.5 * (n - 1)))) AS p50,
           total(value * max(0.0, 1 - abs(ordinal - 0.75 * (n - 1)))) AS p75,
           total(value * max(0.0, 1 - abs(ordinal - 0.95 * (n - 1)))) AS p95
    FROM valued GROUP BY session, model, minute, focused, measure),
wide AS (
    SELECT session, model, minute,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN mean END) AS area_mean,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p5 END) AS area_p5,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p25 END) AS area_p25,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p50 END) AS area_p50,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p75 END) AS area_p75,
           max(CASE WHEN focused = 0 AND measure = 'area' THEN p95 END) AS area_p95,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN mean END) AS area_um2_mean,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75,
           max(CASE WHEN focused = 0 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN mean END) AS intensity_mean,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p5 END) AS intensity_p5,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p25 END) AS intensity_p25,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p50 END) AS intensity_p50,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p75 END) AS intensity_p75,
           max(CASE WHEN focused = 0 AND measure = 'intensity' THEN p95 END) AS intensity_p95,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN mean END) AS area_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p5 END) AS area_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p25 END) AS area_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p50 END) AS area_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p75 END) AS area_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area' THEN p95 END) AS area_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN mean END) AS area_um2_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p5 END) AS area_um2_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p25 END) AS area_um2_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p50 END) AS area_um2_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p75 END) AS area_um2_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'area_um2' THEN p95 END) AS area_um2_p95_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN mean END) AS intensity_mean_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p5 END) AS intensity_p5_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p25 END) AS intensity_p25_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p50 END) AS intensity_p50_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p75 END) AS intensity_p75_in_focus,
           max(CASE WHEN focused = 1 AND measure = 'intensity' THEN p95 END) AS intensity_p95_in_focus
    FROM percentiles GROUP BY session, model, minute),
summed AS (
    SELECT session, model, minute, sum(frames) AS frames, sum(objects) AS objects, sum(area) AS area,
           sum(pixels) AS pixels, sum(frames_in_focus) AS frames_in_focus,
           sum(objects_in_focus) AS objects_in_focus, sum(area_in_focus) AS area_in_focus,
           sum(pixels_in_focus) AS pixels_in_focus
    FROM (SELECT session, model, minute, frames, objects, area, pixels,
                 frames_in_focus, objects_in_focus, area_in_focus, pixels_in_focus FROM minute_sum)
    GROUP BY session, model, minute)
SELECT lower(substr(hex(session.id), 1, 8) || '-' || substr(hex(session.id), 9, 4) || '-'
             || substr(hex(session.id), 13, 4) || '-' || substr(hex(session.id), 17, 4) || '-'
             || substr(hex(session.id), 21)) AS session,
       session.name AS session_name, strftime('%Y-%m-%dT%H:%M:00Z', summed.minute * 60, 'unixepoch') AS minute,
       model.pk AS model, model.name AS model_name,
       summed.frames, summed.objects, 1.0 * summed.objects / summed.frames AS objects_per_frame,
       wide.area_mean, wide.area_p5, wide.area_p25, wide.area_p50, wide.area_p75, wide.area_p95,
       wide.area_um2_mean, wide.area_um2_p5, wide.area_um2_p25, wide.area_um2_p50, wide.area_um2_p75, wide.area_um2_p95,
       wide.intensity_mean, wide.intensity_p5, wide.intensity_p25, wide.intensity_p50, wide.intensity_p75, wide.intensity_p95,
       1.0 * summed.area / summed.pixels AS area_fraction,
       summed.frames_in_focus, summed.objects_in_focus,
       1.0 * summed.objects_in_focus / nullif(summed.frames_in_focus, 0)
           AS objects_per_frame_in_focus,
       wide.area_mean_in_focus, wide.area_p5_in_focus, wide.area_p25_in_focus, wide.area_p50_in_focus, wide.area_p75_in_focus, wide.area_p95_in_focus,
       wide.area_um2_mean_in_focus, wide.area_um2_p5_in_focus, wide.area_um2_p25_in_focus, wide.area_um2_p50_in_focus, wide.area_um2_p75_in_focus, wide.area_um2_p95_in_focus,
       wide.intensity_mean_in_focus, wide.intensity_p5_in_focus, wide.intensity_p25_in_focus, wide.intensity_p50_in_focus, wide.intensity_p75_in_focus, wide.intensity_p95_in_focus,
       1.0 * summed.area_in_focus / nullif(summed.pixels_in_focus, 0) AS area_fraction_in_focus
FROM summed
JOIN session ON session.pk = summed.session
JOIN model ON model.pk = summed.model
LEFT JOIN wide ON wide.session IS summed.session AND wide.model IS summed.model AND wide.minute IS summed.minute;

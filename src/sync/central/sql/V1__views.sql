-- Reticle's central database: schema 1, the views for people. docs/guide/database.md has their
-- columns; the box's own database has views of the same names.

-- Focus from which on a frame counts as in focus: below it the page says "out of focus".
CREATE FUNCTION reticle.focus_floor() RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 0.3::real;

-- Every object with all that is known of it, in pixels and in µm.
CREATE VIEW reticle.measurement AS
SELECT session.site,
       session.box,
       session.id AS session,
       session.name AS session_name,
       session.channel,
       frame.plate,
       frame.well,
       frame.field,
       frame.id AS frame,
       frame.captured_at,
       segmentation.model,
       model.name AS model_name,
       segmentation.focus,
       segmentation.focus >= reticle.focus_floor() AS in_focus,
       object.label,
       object.area,
       object.centroid_0,
       object.centroid_1,
       object.bbox_0,
       object.bbox_1,
       object.bbox_2,
       object.bbox_3,
       object.perimeter,
       object.eccentricity,
       object.solidity,
       object.major_axis_length,
       object.minor_axis_length,
       object.orientation,
       object.intensity_mean,
       object.intensity_max,
       object.intensity_min,
       object.touches_border,
       scale.pixel_size_um,
       object.area * scale.pixel_size_um * scale.pixel_size_um AS area_um2,
       object.centroid_0 * scale.pixel_size_um AS centroid_0_um,
       object.centroid_1 * scale.pixel_size_um AS centroid_1_um,
       object.perimeter * scale.pixel_size_um AS perimeter_um,
       object.major_axis_length * scale.pixel_size_um AS major_axis_length_um,
       object.minor_axis_length * scale.pixel_size_um AS minor_axis_length_um
FROM reticle.object
JOIN reticle.segmentation ON segmentation.pk = object.segmentation
JOIN reticle.model ON model.key = segmentation.model
JOIN reticle.frame ON frame.id = segmentation.frame
JOIN reticle.session ON session.id = frame.session
CROSS JOIN LATERAL (
    SELECT coalesce(frame.pixel_size_um, session.pixel_size_um) AS pixel_size_um
) AS scale;

-- What the aggregates sum up: one row for each result (pixels, no label), and one for each of
-- its objects (label, no pixels). So a result without objects counts, and a frame's pixels count
-- once. Not for people.
CREATE VIEW reticle.aggregate_input AS
SELECT session.site,
       session.box,
       session.id AS session,
       session.name AS session_name,
       frame.plate,
       frame.well,
       frame.field,
       date_trunc('minute', frame.captured_at, 'UTC') AS minute,
       segmentation.model,
       model.name AS model_name,
       coalesce(segmentation.focus >= reticle.focus_floor(), false) AS in_focus,
       frame.width::bigint * frame.height AS pixels,
       NULL::integer AS label,
       NULL::double precision AS area,
       NULL::double precision AS area_um2,
       NULL::double precision AS intensity
FROM reticle.segmentation
JOIN reticle.model ON model.key = segmentation.model
JOIN reticle.frame ON frame.id = segmentation.frame
JOIN reticle.session ON session.id = frame.session
UNION ALL
SELECT session.site,
       session.box,
       session.id,
       session.name,
       frame.plate,
       frame.well,
       frame.field,
       date_trunc('minute', frame.captured_at, 'UTC'),
       segmentation.model,
       model.name,
       coalesce(segmentation.focus >= reticle.focus_floor(), false),
       NULL::bigint,
       object.label,
       object.area::double precision,
       object.area * coalesce(frame.pixel_size_um, session.pixel_size_um) ^ 2,
       object.intensity_mean
FROM reticle.object
JOIN reticle.segmentation ON segmentation.pk = object.segmentation
JOIN reticle.model ON model.key = segmentation.model
JOIN reticle.frame ON frame.id = segmentation.frame
JOIN reticle.session ON session.id = frame.session;

-- Five views that differ in what they group by, and in nothing else: made from one text. A
-- condition on a grouping column reaches the tables, so asking for one session reads one session.
DO $make$
DECLARE
    level record;
BEGIN
    FOR level IN
        SELECT *
        FROM (VALUES ('session_aggregate', ''),
                     ('plate_aggregate', 'plate,'),
                     ('well_aggregate', 'plate, well,'),
                     ('field_aggregate', 'plate, well, field,'),
                     ('minute_aggregate', 'minute,')) AS levels (name, keys)
    LOOP
        EXECUTE format($view$
CREATE VIEW reticle.%1$I AS
SELECT site, box, session, session_name, %2$s model, model_name,
       frames,
       objects,
       objects::double precision / frames AS objects_per_frame,
       area_mean,
       area_p[1] AS area_p5,
       area_p[2] AS area_p25,
       area_p[3] AS area_p50,
       area_p[4] AS area_p75,
       area_p[5] AS area_p95,
       area_um2_mean,
       area_um2_p[1] AS area_um2_p5,
       area_um2_p[2] AS area_um2_p25,
       area_um2_p[3] AS area_um2_p50,
       area_um2_p[4] AS area_um2_p75,
       area_um2_p[5] AS area_um2_p95,
       intensity_mean,
       intensity_p[1] AS intensity_p5,
       intensity_p[2] AS intensity_p25,
       intensity_p[3] AS intensity_p50,
       intensity_p[4] AS intensity_p75,
       intensity_p[5] AS intensity_p95,
       area_fraction,
       frames_in_focus,
       objects_in_focus,
       objects_in_focus::double precision / nullif(frames_in_focus, 0)
           AS objects_per_frame_in_focus,
       area_mean_in_focus,
       area_p_in_focus[1] AS area_p5_in_focus,
       area_p_in_focus[2] AS area_p25_in_focus,
       area_p_in_focus[3] AS area_p50_in_focus,
       area_p_in_focus[4] AS area_p75_in_focus,
       area_p_in_focus[5] AS area_p95_in_focus,
       area_um2_mean_in_focus,
       area_um2_p_in_focus[1] AS area_um2_p5_in_focus,
       area_um2_p_in_focus[2] AS area_um2_p25_in_focus,
       area_um2_p_in_focus[3] AS area_um2_p50_in_focus,
       area_um2_p_in_focus[4] AS area_um2_p75_in_focus,
       area_um2_p_in_focus[5] AS area_um2_p95_in_focus,
       intensity_mean_in_focus,
       intensity_p_in_focus[1] AS intensity_p5_in_focus,
       intensity_p_in_focus[2] AS intensity_p25_in_focus,
       intensity_p_in_focus[3] AS intensity_p50_in_focus,
       intensity_p_in_focus[4] AS intensity_p75_in_focus,
       intensity_p_in_focus[5] AS intensity_p95_in_focus,
       area_fraction_in_focus
FROM (
    SELECT site, box, session, session_name, %2$s model, model_name,
           count(pixels) AS frames,
           count(label) AS objects,
           avg(area) AS area_mean,
           percentile_cont('{0.05, 0.25, 0.5, 0.75, 0.95}'::double precision[])
               WITHIN GROUP (ORDER BY area) AS area_p,
           avg(area_um2) AS area_um2_mean,
           percentile_cont('{0.05, 0.25, 0.5, 0.75, 0.95}'::double precision[])
               WITHIN GROUP (ORDER BY area_um2) AS area_um2_p,
           avg(intensity) AS intensity_mean,
           percentile_cont('{0.05, 0.25, 0.5, 0.75, 0.95}'::double precision[])
               WITHIN GROUP (ORDER BY intensity) AS intensity_p,
           coalesce(sum(area), 0) / sum(pixels)::double precision AS area_fraction,
           count(pixels) FILTER (WHERE in_focus) AS frames_in_focus,
           count(label) FILTER (WHERE in_focus) AS objects_in_focus,
           avg(area) FILTER (WHERE in_focus) AS area_mean_in_focus,
           percentile_cont('{0.05, 0.25, 0.5, 0.75, 0.95}'::double precision[])
               WITHIN GROUP (ORDER BY area) FILTER (WHERE in_focus) AS area_p_in_focus,
           avg(area_um2) FILTER (WHERE in_focus) AS area_um2_mean_in_focus,
           percentile_cont('{0.05, 0.25, 0.5, 0.75, 0.95}'::double precision[])
               WITHIN GROUP (ORDER BY area_um2) FILTER (WHERE in_focus) AS area_um2_p_in_focus,
           avg(intensity) FILTER (WHERE in_focus) AS intensity_mean_in_focus,
           percentile_cont('{0.05, 0.25, 0.5, 0.75, 0.95}'::double precision[])
               WITHIN GROUP (ORDER BY intensity) FILTER (WHERE in_focus) AS intensity_p_in_focus,
           coalesce(sum(area) FILTER (WHERE in_focus), 0)
               / (sum(pixels) FILTER (WHERE in_focus))::double precision AS area_fraction_in_focus
    FROM reticle.aggregate_input
    GROUP BY site, box, session, session_name, %2$s model, model_name
) AS figures$view$, level.name, level.keys);
    END LOOP;
END
$make$;

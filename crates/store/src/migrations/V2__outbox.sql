-- Reticle's local store: schema 2. What leaves the box, aggregates, and when it really was.
--
-- The rules of schema 1 hold for records. outbox and refused are working state: their rows change
-- with the deliveries.

-- A boot that began with a clock that could not be trusted. Once it can be, offset_ns is wall
-- time minus CLOCK_MONOTONIC, and every instant of that boot is mono_ns + offset_ns; what was
-- recorded at the time stays in the rows.
ALTER TABLE boot ADD COLUMN untrusted INTEGER NOT NULL DEFAULT 0 CHECK (untrusted IN (0, 1));
ALTER TABLE boot ADD COLUMN offset_ns INTEGER;

-- Frames of one session with the same pixel grid: one array where they leave the box.
CREATE TABLE series (
    pk              INTEGER PRIMARY KEY,
    session         INTEGER NOT NULL REFERENCES session (pk),
    number          INTEGER NOT NULL CHECK (number >= 0),
    width           INTEGER NOT NULL CHECK (width > 0),
    height          INTEGER NOT NULL CHECK (height > 0),
    bytes_per_pixel INTEGER NOT NULL CHECK (bytes_per_pixel IN (1, 2)),
    -- Frames that leave as one object: 64, fewer where these would be over 2^28 pixels.
    part_frames     INTEGER NOT NULL CHECK (part_frames > 0),
    -- Kept ready: rows of frame that belong to it.
    frames          INTEGER NOT NULL DEFAULT 0 CHECK (frames >= 0),
    UNIQUE (session, number),
    UNIQUE (session, width, height, bytes_per_pixel)
) STRICT;

ALTER TABLE frame ADD COLUMN series INTEGER REFERENCES series (pk);
ALTER TABLE frame ADD COLUMN position INTEGER;     -- in its series, from 0, without holes
-- Whether an archive is to have the pixels: 0 no, 1 yes and it has not (never evicted), 2 it has.
ALTER TABLE frame ADD COLUMN archived INTEGER NOT NULL DEFAULT 0 CHECK (archived IN (0, 1, 2));

-- The day under which its tables are archived (YYYY-MM-DD), from the first archiving on.
ALTER TABLE session ADD COLUMN archive_date TEXT;

INSERT INTO series (session, number, width, height, bytes_per_pixel, part_frames, frames)
SELECT session, row_number() OVER (PARTITION BY session ORDER BY first) - 1, width, height, bytes,
       max(1, min(64, 268435456 / (width * height))), frames
FROM (SELECT session, width, height, (bit_depth + 7) / 8 AS bytes, min(pk) AS first,
             count(*) AS frames
      FROM frame GROUP BY session, width, height, bytes);

UPDATE frame SET (series, position) = (
    SELECT placed.series, placed.position
    FROM (SELECT frame.pk, series.pk AS series,
                 row_number() OVER (PARTITION BY series.pk ORDER BY frame.pk) - 1 AS position
          FROM frame JOIN series
            ON series.session = frame.session AND series.width = frame.width
           AND series.height = frame.height
           AND series.bytes_per_pixel = (frame.bit_depth + 7) / 8) AS placed
    WHERE placed.pk = frame.pk);

CREATE UNIQUE INDEX frame_by_position ON frame (series, position);

-- The files in the order in which they are evicted: archived ones, then those that no archive
-- is to have (segmented first, then the backlog); each kind the oldest first. 9 never goes.
-- Covers the sum of bytes.
DROP INDEX frame_by_eviction;
CREATE INDEX frame_by_eviction ON frame (
    (CASE archived WHEN 2 THEN 0 WHEN 0 THEN 2 - segmented ELSE 9 END), pk, segmented, file_bytes
) WHERE file IS NOT NULL;

-- What is to be delivered. Made and changed in the transaction of what it delivers. One row
-- delivers one part of a series: 64 frames cost a few rows, however many objects they have.
--   kind      belongs to it                       key that grows
--   session   name, begin, end, array shapes      a counter
--   frames    frames of the part                  frame.pk
--   results   results of one model in the part    segmentation.pk
--   pixels    frames with archived > 0            frame.pk
CREATE TABLE outbox (
    pk              INTEGER PRIMARY KEY,
    destination     TEXT NOT NULL CHECK (destination IN ('archive', 'central')),
    kind            TEXT NOT NULL CHECK (kind IN ('session', 'frames', 'results', 'pixels')),
    session         INTEGER NOT NULL REFERENCES session (pk),
    series          INTEGER REFERENCES series (pk),
    part            INTEGER,
    model           INTEGER REFERENCES model (pk),
    -- Greatest key that belongs to it, and the greatest for which there is a receipt.
    wanted          INTEGER NOT NULL,
    done            INTEGER NOT NULL DEFAULT 0,
    -- Rows that belong to it, and those for which there is a receipt.
    wanted_rows     INTEGER NOT NULL DEFAULT 0,
    done_rows       INTEGER NOT NULL DEFAULT 0,
    state           TEXT NOT NULL DEFAULT 'waiting'
                        CHECK (state IN ('waiting', 'done', 'quarantined')),
    -- Somebody asked for it now, whether its part is full or not.
    hurry           INTEGER NOT NULL DEFAULT 0 CHECK (hurry IN (0, 1)),
    -- When the oldest row without receipt came, and the newest.
    since_mono_ns   INTEGER NOT NULL,
    since_boot      INTEGER NOT NULL REFERENCES boot (pk),
    since_wall_ns   INTEGER NOT NULL,
    changed_mono_ns INTEGER NOT NULL,
    -- Failed deliveries in a row, why the last failed, and when the next may be.
    attempts        INTEGER NOT NULL DEFAULT 0,
    reason          TEXT,
    due_mono_ns     INTEGER,
    due_boot        INTEGER REFERENCES boot (pk),
    -- Until when somebody is at it.
    lease_mono_ns   INTEGER,
    lease_boot      INTEGER REFERENCES boot (pk),
    -- An upload in parts that was begun: JSON, of the destination's making.
    progress        TEXT,
    CHECK ((kind = 'session') = (series IS NULL)),
    CHECK ((kind = 'session') = (part IS NULL)),
    CHECK ((kind = 'results') = (model IS NOT NULL)),
    CHECK ((state = 'done') <= (done >= wanted))
) STRICT;

CREATE UNIQUE INDEX outbox_by_subject ON outbox (
    destination, kind, session, coalesce(series, 0), coalesce(part, -1), coalesce(model, 0)
);
CREATE INDEX outbox_open ON outbox (destination, kind, pk) WHERE state <> 'done';
CREATE INDEX outbox_failing ON outbox (destination, attempts)
WHERE state = 'waiting' AND reason IS NOT NULL;

-- Where each destination is. Another place has nothing yet: all is wanted again.
CREATE TABLE destination (
    name  TEXT PRIMARY KEY,
    place TEXT NOT NULL                      -- as s3://lab/box-1; never with a password
) STRICT, WITHOUT ROWID;

-- What a destination has, by its own word and read back.
CREATE TABLE receipt (
    pk       INTEGER PRIMARY KEY,
    outbox   INTEGER NOT NULL REFERENCES outbox (pk),
    place    TEXT NOT NULL,
    key      TEXT NOT NULL,
    bytes    INTEGER NOT NULL,
    sha256   BLOB NOT NULL CHECK (length(sha256) = 32),
    etag     TEXT NOT NULL,
    checksum TEXT NOT NULL,                  -- what was read back and compared
    rows     INTEGER NOT NULL,
    wall_ns  INTEGER NOT NULL,
    mono_ns  INTEGER NOT NULL,
    boot     INTEGER NOT NULL REFERENCES boot (pk),
    UNIQUE (place, key)
) STRICT;

CREATE INDEX receipt_by_outbox ON receipt (outbox);

-- Single frames and results that a destination can never take. The rest of their part goes on.
CREATE TABLE refused (
    destination TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('frames', 'results', 'pixels')),
    subject     INTEGER NOT NULL,            -- frame.pk, or segmentation.pk for results
    reason      TEXT NOT NULL,
    wall_ns     INTEGER NOT NULL,
    PRIMARY KEY (destination, kind, subject)
) STRICT, WITHOUT ROWID;

-- Sums over the results of one model, kept ready: by field, and by minute of capture. In focus
-- is a focus score of at least 0.3. Areas and sums in pixels; intensity is the sum of the
-- objects' mean grey values.
CREATE TABLE field_sum (
    session            INTEGER NOT NULL REFERENCES session (pk),
    model              INTEGER NOT NULL REFERENCES model (pk),
    plate              TEXT NOT NULL,        -- '' where unknown, as well
    well               TEXT NOT NULL,
    field              INTEGER NOT NULL,     -- 0 where unknown
    frames             INTEGER NOT NULL,
    objects            INTEGER NOT NULL,
    area               INTEGER NOT NULL,
    pixels             INTEGER NOT NULL,
    intensity          REAL NOT NULL,
    focus              REAL NOT NULL,
    frames_in_focus    INTEGER NOT NULL,
    objects_in_focus   INTEGER NOT NULL,
    area_in_focus      INTEGER NOT NULL,
    pixels_in_focus    INTEGER NOT NULL,
    intensity_in_focus REAL NOT NULL,
    PRIMARY KEY (session, model, plate, well, field)
) STRICT, WITHOUT ROWID;

CREATE TABLE minute_sum (
    session            INTEGER NOT NULL REFERENCES session (pk),
    model              INTEGER NOT NULL REFERENCES model (pk),
    minute             INTEGER NOT NULL,     -- since 1970 UTC, of capture, as known now
    frames             INTEGER NOT NULL,
    objects            INTEGER NOT NULL,
    area               INTEGER NOT NULL,
    pixels             INTEGER NOT NULL,
    intensity          REAL NOT NULL,
    focus              REAL NOT NULL,
    frames_in_focus    INTEGER NOT NULL,
    objects_in_focus   INTEGER NOT NULL,
    area_in_focus      INTEGER NOT NULL,
    pixels_in_focus    INTEGER NOT NULL,
    intensity_in_focus REAL NOT NULL,
    PRIMARY KEY (session, model, minute)
) STRICT, WITHOUT ROWID;

-- One line a result: what both are summed from.
CREATE VIEW result_sum AS
SELECT segmentation.pk AS segmentation, segmentation.frame, frame.session, segmentation.model,
       coalesce(frame.plate, '') AS plate, coalesce(frame.well, '') AS well,
       coalesce(frame.field, 0) AS field, frame.captured_boot,
       coalesce(frame.captured_mono_ns + boot.offset_ns, frame.captured_wall_ns) / 60000000000
           AS minute,
       segmentation.objects,
       (SELECT coalesce(sum(object.area), 0) FROM object WHERE object.segmentation = segmentation.pk) AS area,
       frame.width * frame.height AS pixels,
       (SELECT total(object.intensity_mean) FROM object WHERE object.segmentation = segmentation.pk) AS intensity,
       coalesce(segmentation.focus, 0.0) AS focus,
       coalesce(segmentation.focus >= 0.3, 0) AS in_focus
FROM segmentation
JOIN frame ON frame.pk = segmentation.frame
JOIN boot ON boot.pk = frame.captured_boot;

INSERT INTO field_sum
SELECT session, model, plate, well, field, count(*), sum(objects), sum(area), sum(pixels),
       total(intensity), total(focus), sum(in_focus), sum(objects * in_focus),
       sum(area * in_focus), sum(pixels * in_focus), total(intensity * in_focus)
FROM result_sum GROUP BY session, model, plate, well, field;

INSERT INTO minute_sum
SELECT session, model, minute, count(*), sum(objects), sum(area), sum(pixels), total(intensity),
       total(focus), sum(in_focus), sum(objects * in_focus), sum(area * in_focus),
       sum(pixels * in_focus), total(intensity * in_focus)
FROM result_sum GROUP BY session, model, minute;

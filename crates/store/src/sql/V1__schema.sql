-- Reticle's local store: schema 1, the tables. Frozen once released.
--
-- Rules for every table
--   * Records are added, completed, or re-dated; none is ever deleted. What may go is the pixel file
--     of a frame (see frame.file), in the order that docs/design/storage.md gives. Working state is
--     outbox, refused, publish_cursor, intake, command, and event, a logbook of bounded length.
--   * pk is ours and local; id (UUIDv7, 16 bytes) is the name for ever and elsewhere.
--   * An instant is three columns: wall_ns (nanoseconds since 1970 UTC, may be wrong or jump),
--     mono_ns (CLOCK_MONOTONIC) and boot (which boot of which machine counted mono_ns). A whole
--     boot whose wall clock was wrong can be re-dated from the other two.
--   * Lengths are in pixels unless the name says um.
--   * Numbers that a table could be asked for but that are kept ready (frame.segmented, the
--     counters of session, tally) change in the transaction of what they count; fsck recounts.
--
-- Rules for later schemas, so that every update has a way back
--   * They only add: tables, indexes, views, columns that may be null or have a default. A program
--     names the columns that it writes and reads, so that it works in a schema with more of them.
--   * A schema that a program of an older one could not live with raises compatibility.oldest_reader.
--     A further word in a column whose CHECK lists the words is such a change.

-- One row. A program that knows the schema only up to a version below oldest_reader must not open
-- this database; every other one may, also where the schema has a greater version than it knows.
CREATE TABLE compatibility (
    pk            INTEGER PRIMARY KEY CHECK (pk = 1),
    oldest_reader INTEGER NOT NULL CHECK (oldest_reader > 0)
) STRICT;

INSERT INTO compatibility (pk, oldest_reader) VALUES (1, 1);

-- One row: who this store is.
--
-- Deterministic keys are safe only while what this store knows never goes backwards. A backup put
-- back, a snapshot of a virtual machine, a cloned card or a disk that lies make it go backwards.
-- epoch and the marks are how the box finds that out before it overwrites anything.
CREATE TABLE identity (
    pk    INTEGER PRIMARY KEY CHECK (pk = 1),
    -- Name of this store for ever. A copy that is to live beside the original gets a new one.
    store BLOB NOT NULL CHECK (length(store) = 16),
    -- Changes with every restore: cursors of an older epoch point to rows that may be others now.
    epoch BLOB NOT NULL CHECK (length(epoch) = 16),
    -- The greatest mark of the destinations that were left out of the configuration: one that is
    -- configured again counts on from there.
    high_water INTEGER NOT NULL DEFAULT 0 CHECK (high_water >= 0)
) STRICT;

INSERT INTO identity (pk, store, epoch) VALUES (1, randomblob(16), randomblob(16));

-- One boot of one machine: what makes mono_ns comparable.
CREATE TABLE boot (
    pk        INTEGER PRIMARY KEY,
    id        BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    -- Whether it began with a clock that could not be trusted. Once the clock can be, offset_ns is
    -- wall time minus CLOCK_MONOTONIC, and every instant of that boot is mono_ns + offset_ns; what
    -- was recorded at the time stays in the rows.
    untrusted INTEGER NOT NULL DEFAULT 0 CHECK (untrusted IN (0, 1)),
    offset_ns INTEGER
) STRICT;

-- One acquisition: a plate or slide imaged in one go.
CREATE TABLE session (
    pk              INTEGER PRIMARY KEY,
    id              BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    name            TEXT NOT NULL,
    source          TEXT NOT NULL,           -- specification, as virtual or folder:/data/drop
    channel         TEXT,
    operator        TEXT,
    pixel_size_um   REAL,
    started_wall_ns INTEGER NOT NULL,
    started_mono_ns INTEGER NOT NULL,
    started_boot    INTEGER NOT NULL REFERENCES boot (pk),
    -- All null while it is open, or when the daemon died in it.
    ended_wall_ns   INTEGER,
    ended_mono_ns   INTEGER,
    ended_boot      INTEGER REFERENCES boot (pk),
    -- The day under which its tables are archived (YYYY-MM-DD), from the first archiving on.
    archive_date    TEXT,
    -- Set where another store delivers this session: this store is a copy that got a name of its
    -- own (`reticle sync adopt --as-new-store`), and the session is the original's.
    delivered_by    BLOB CHECK (length(delivered_by) = 16),
    -- Kept ready: rows of frame, of segmentation and of object that belong to it.
    frames          INTEGER NOT NULL DEFAULT 0 CHECK (frames >= 0),
    segmentations   INTEGER NOT NULL DEFAULT 0 CHECK (segmentations >= 0),
    objects         INTEGER NOT NULL DEFAULT 0 CHECK (objects >= 0),
    CHECK ((ended_wall_ns IS NULL) = (ended_boot IS NULL)
       AND (ended_wall_ns IS NULL) = (ended_mono_ns IS NULL))
) STRICT;

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

-- Positions of a series of which nothing came back from the archive, first to last. They are
-- never given again: an array that once had them keeps its shape. No row reaches over a part.
CREATE TABLE lost_position (
    series INTEGER NOT NULL REFERENCES series (pk),
    first  INTEGER NOT NULL CHECK (first >= 0),
    last   INTEGER NOT NULL CHECK (last >= first),
    PRIMARY KEY (series, first)
) STRICT, WITHOUT ROWID;

-- One captured image, whether it was segmented or not.
CREATE TABLE frame (
    pk               INTEGER PRIMARY KEY,    -- the order in which frames were recorded
    id               BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    session          INTEGER NOT NULL REFERENCES session (pk),
    sequence         INTEGER NOT NULL,       -- as the source counted; starts again when it is reopened
    captured_wall_ns INTEGER NOT NULL,
    captured_mono_ns INTEGER NOT NULL,
    captured_boot    INTEGER NOT NULL REFERENCES boot (pk),
    exposure_us      INTEGER,
    width            INTEGER NOT NULL CHECK (width > 0),
    height           INTEGER NOT NULL CHECK (height > 0),
    bit_depth        INTEGER NOT NULL CHECK (bit_depth BETWEEN 1 AND 16),
    sha256           BLOB NOT NULL CHECK (length(sha256) = 32),  -- of the little-endian pixels
    pixel_size_um    REAL,
    -- Who stated the pixel size: a word of the program's table of sources ("configured", "ome-xml",
    -- "resolution"). Image files contradict themselves, and which statement was believed decides the
    -- scale in which objects are looked for. A newer program may add words, so no CHECK lists them.
    -- Null where no size is known.
    pixel_size_source TEXT,
    -- What a person should know: two sources disagree, or an implausible size was left.
    pixel_size_note  TEXT CHECK (length(pixel_size_note) <= 300),
    plate            TEXT,
    well             TEXT,
    field            INTEGER,
    origin           TEXT,                   -- file (and #page) it came from
    series           INTEGER NOT NULL REFERENCES series (pk),
    position         INTEGER NOT NULL,       -- in its series, from 0, without holes
    -- Pixel file, relative to the data folder, and its size; or why there is none.
    file             TEXT UNIQUE,
    file_bytes       INTEGER CHECK (file_bytes > 0),
    no_file          TEXT CHECK (no_file IN
                         ('rule', 'max_bytes', 'min_free', 'write_failed',
                          'evicted_max_bytes', 'evicted_min_free', 'not_restored')),
    segmented        INTEGER NOT NULL DEFAULT 0 CHECK (segmented IN (0, 1)),  -- by any model
    -- Whether an archive is to have the pixels: 0 no, 1 yes and it has not (never evicted), 2 it has.
    archived         INTEGER NOT NULL DEFAULT 0 CHECK (archived IN (0, 1, 2)),
    UNIQUE (series, position),
    CHECK ((file IS NULL) <> (no_file IS NULL)),
    CHECK ((file IS NULL) = (file_bytes IS NULL))
) STRICT;

-- The files in the order in which they are evicted: archived ones, then those that no archive
-- is to have (segmented first, then the backlog); each kind the oldest first. 9 never goes.
-- Covers the sum of bytes.
CREATE INDEX frame_by_eviction ON frame (
    (CASE archived WHEN 2 THEN 0 WHEN 0 THEN 2 - segmented ELSE 9 END), pk, segmented, file_bytes
) WHERE file IS NOT NULL;

-- A model with its parameters, as run by one version of the software.
CREATE TABLE model (
    pk         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    sha256     TEXT NOT NULL,                -- of the network file, hex
    parameters TEXT NOT NULL,                -- canonical JSON
    software   TEXT NOT NULL,
    UNIQUE (sha256, name, parameters, software)
) STRICT;

-- The answer of one model to one frame: the first one that was committed stays. pk is the cursor of readers: it grows with every
-- commit and is never used again.
CREATE TABLE segmentation (
    pk                INTEGER PRIMARY KEY AUTOINCREMENT,
    frame             INTEGER NOT NULL REFERENCES frame (pk),
    model             INTEGER NOT NULL REFERENCES model (pk),
    objects           INTEGER NOT NULL CHECK (objects >= 0),
    focus             REAL,                  -- 0 to 1; null where it is not a number
    normalise_us      INTEGER NOT NULL,
    network_us        INTEGER NOT NULL,
    instances_us      INTEGER NOT NULL,
    measure_us        INTEGER NOT NULL,
    committed_wall_ns INTEGER NOT NULL,
    committed_mono_ns INTEGER NOT NULL,
    committed_boot    INTEGER NOT NULL REFERENCES boot (pk),
    -- In which scale the picture was segmented; null where nobody looked at a picture (labels of
    -- another program). Words of the program's look.rs: a newer one may add some, so no CHECK lists
    -- them.
    scale_from        TEXT,                  -- who said how large objects are: stated, picture, …
    scale             REAL CHECK (scale > 0),          -- an edge was made so many times as long
    size_ratio        REAL CHECK (size_ratio > 0),     -- objects look so many times as large as stated
    unlike            TEXT,                  -- in which way the model knows no such pictures
    labels_sha256     BLOB NOT NULL CHECK (length(labels_sha256) = 32),
    labels            BLOB NOT NULL,         -- last, so that lists do not read it; see blobs.rs
    UNIQUE (frame, model)
) STRICT;

-- What was measured on each object. Columns are named as in scikit-image's
-- regionprops_table; a value that is not a number is null.
CREATE TABLE object (
    segmentation      INTEGER NOT NULL REFERENCES segmentation (pk),
    label             INTEGER NOT NULL CHECK (label > 0),
    area              INTEGER NOT NULL CHECK (area > 0),
    "centroid-0"      REAL,
    "centroid-1"      REAL,
    "bbox-0"          INTEGER NOT NULL,
    "bbox-1"          INTEGER NOT NULL,
    "bbox-2"          INTEGER NOT NULL,
    "bbox-3"          INTEGER NOT NULL,
    perimeter         REAL,
    eccentricity      REAL,
    solidity          REAL,
    major_axis_length REAL,
    minor_axis_length REAL,
    orientation       REAL,
    intensity_mean    REAL,
    intensity_max     REAL,
    intensity_min     REAL,
    touches_border    INTEGER NOT NULL CHECK (touches_border IN (0, 1)),
    PRIMARY KEY (segmentation, label)
) STRICT, WITHOUT ROWID;

-- Results that were read back from the archive, by their keys: they were committed before others
-- that have smaller keys.
CREATE TABLE adopted_result (
    first INTEGER PRIMARY KEY,
    last  INTEGER NOT NULL CHECK (last >= first)
) STRICT;

-- A stretch without frames that should have been there.
CREATE TABLE gap (
    pk           INTEGER PRIMARY KEY,
    session      INTEGER NOT NULL REFERENCES session (pk),
    from_wall_ns INTEGER NOT NULL,
    from_mono_ns INTEGER NOT NULL,
    from_boot    INTEGER NOT NULL REFERENCES boot (pk),
    to_wall_ns   INTEGER NOT NULL,
    to_mono_ns   INTEGER NOT NULL,
    to_boot      INTEGER NOT NULL REFERENCES boot (pk),
    missed       INTEGER,                    -- frames, where the source could tell
    reason       TEXT NOT NULL,              -- for machines: source_lost, sequence_jump, overrun
    detail       TEXT NOT NULL,              -- for people
    UNIQUE (session, from_boot, from_mono_ns, reason)
) STRICT;

-- How often something happened since the store was made, by reason.
CREATE TABLE tally (
    kind         TEXT NOT NULL,              -- evicted
    reason       TEXT NOT NULL,              -- as frame.no_file
    count        INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    last_wall_ns INTEGER NOT NULL,
    PRIMARY KEY (kind, reason)
) STRICT, WITHOUT ROWID;

-- Logbook of the store itself: recoveries and what they found, clocks that were corrected.
CREATE TABLE store_log (
    pk      INTEGER PRIMARY KEY,
    wall_ns INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    boot    INTEGER NOT NULL REFERENCES boot (pk),
    kind    TEXT NOT NULL,                   -- recovered
    detail  TEXT NOT NULL                    -- JSON
) STRICT;

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
    requested       INTEGER NOT NULL,
    delivered       INTEGER NOT NULL DEFAULT 0,
    -- Rows that belong to it, and those for which there is a receipt.
    requested_rows  INTEGER NOT NULL DEFAULT 0,
    delivered_rows  INTEGER NOT NULL DEFAULT 0,
    state           TEXT NOT NULL DEFAULT 'waiting'
                        CHECK (state IN ('waiting', 'delivered', 'quarantined')),
    -- Somebody asked for it now, whether its part is full or not.
    urgent          INTEGER NOT NULL DEFAULT 0 CHECK (urgent IN (0, 1)),
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
    CHECK ((state = 'delivered') <= (delivered >= requested))
) STRICT;

CREATE UNIQUE INDEX outbox_by_subject ON outbox (
    destination, kind, session, coalesce(series, 0), coalesce(part, -1), coalesce(model, 0)
);
CREATE INDEX outbox_open ON outbox (destination, kind, pk) WHERE state <> 'delivered';
CREATE INDEX outbox_failing ON outbox (destination, attempts)
WHERE state = 'waiting' AND reason IS NOT NULL;

-- Where each destination is. Another location has nothing yet: all is requested again.
CREATE TABLE destination (
    name          TEXT PRIMARY KEY,
    location      TEXT NOT NULL,             -- as s3://lab/box-1; never with a password
    -- Deliveries claimed so far. It grows in the transaction that claims one, before anything is
    -- sent, so a destination whose own mark is greater was served by somebody who knows more.
    high_water    INTEGER NOT NULL DEFAULT 0 CHECK (high_water >= 0),
    -- What was found there that this store does not know. While it is set nothing is delivered
    -- there: a person decides (`reticle sync adopt`). A new epoch clears it.
    conflict      TEXT,
    -- The mark that it had then. The next epoch counts on from above it.
    conflict_mark INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What a destination has, by its own word and read back.
CREATE TABLE receipt (
    pk       INTEGER PRIMARY KEY,
    outbox   INTEGER NOT NULL REFERENCES outbox (pk),
    location TEXT NOT NULL,
    key      TEXT NOT NULL,
    bytes    INTEGER NOT NULL,
    sha256   BLOB NOT NULL CHECK (length(sha256) = 32),
    etag     TEXT NOT NULL,
    checksum TEXT NOT NULL,                  -- what was read back and compared
    rows     INTEGER NOT NULL,
    wall_ns  INTEGER NOT NULL,
    mono_ns  INTEGER NOT NULL,
    boot     INTEGER NOT NULL REFERENCES boot (pk),
    UNIQUE (location, key)
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

-- What happened on this box. Kept: all that is not yet published, and the newest 100,000.
CREATE TABLE event (
    -- The order of commits. AUTOINCREMENT: a key is never given again after its row is gone, so
    -- that a cursor never passes over what it has not seen.
    pk      INTEGER PRIMARY KEY AUTOINCREMENT,
    id      BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    type    TEXT NOT NULL,                   -- as in body, for people who look
    session INTEGER REFERENCES session (pk), -- null where it was in none, or in an unknown one
    wall_ns INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    boot    INTEGER NOT NULL REFERENCES boot (pk),
    body    TEXT NOT NULL                    -- JSON of what happened
) STRICT;

-- How far the lab's broker has acknowledged each stream. What is committed beyond it waits to be
-- published; nothing else says so, so that no crash can come between a result and the note that it
-- is to be published. No row: nothing is published.
--   stream    what                    key that grows
--   events    rows of event           event.pk
--   results   rows of segmentation    segmentation.pk
CREATE TABLE publish_cursor (
    stream       TEXT PRIMARY KEY CHECK (stream IN ('events', 'results')),
    location     TEXT NOT NULL,              -- as mqtts://broker.lab:8883; never with a password
    acknowledged INTEGER NOT NULL CHECK (acknowledged >= 0)  -- greatest key that the broker has
) STRICT, WITHOUT ROWID;

-- Which files of a watched folder were taken: one row for each image (a content under a path). A
-- restart, a rename or a touch must not take an image twice, and an image that ends the process must
-- not end it for ever.
CREATE TABLE intake (
    pk          INTEGER PRIMARY KEY,
    folder      TEXT NOT NULL,              -- the watched folder, as an absolute path
    path        TEXT NOT NULL,              -- relative to it; where the image was seen last
    bytes       INTEGER NOT NULL CHECK (bytes >= 0),
    mtime_ns    INTEGER NOT NULL,
    -- Which file of its file system it was: number of the file system, number of the file in it, and
    -- when it was made (numbers are given again), where the file system knows. Two files of equal
    -- content are two images, unless they are one file under two names.
    device      INTEGER,
    inode       INTEGER,
    created_ns  INTEGER,
    sha256      BLOB NOT NULL CHECK (length(sha256) = 32),
    -- Id of the frame of its first page; that of page n is greater by n. So a page that is read
    -- again after a crash is the same frame again.
    first_frame BLOB NOT NULL CHECK (length(first_frame) = 16),
    -- Processes in a row that began to read it and did not come to an end.
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- The process that began it last, so that none counts twice.
    run         BLOB CHECK (length(run) = 16),
    --   begun        taken again at the next start, if no end follows
    --   taken        every page has come to its end, and is committed
    --   refused      unfit for ever
    --   too_large    above a limit that may be raised: asked again at each start
    --   quarantined  two processes ended while it was read: a person is asked
    state       TEXT NOT NULL
                    CHECK (state IN ('begun', 'taken', 'refused', 'too_large', 'quarantined')),
    reason      TEXT,
    -- Whether the path still holds it, as far as the folder was listed.
    present     INTEGER NOT NULL DEFAULT 1 CHECK (present IN (0, 1)),
    wall_ns     INTEGER NOT NULL,
    CHECK ((state IN ('refused', 'too_large', 'quarantined')) = (reason IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX intake_by_path ON intake (folder, path) WHERE present = 1;
CREATE INDEX intake_by_content ON intake (sha256, folder);

-- The pages that an image held when it was read last, as far as they became frames: a file
-- that grows by pages, or is written again, must not give a page twice.
CREATE TABLE intake_page (
    intake  INTEGER NOT NULL REFERENCES intake (pk),
    page    INTEGER NOT NULL CHECK (page >= 0),     -- its number in the file, from 0
    sha256  BLOB NOT NULL CHECK (length(sha256) = 32), -- of its size, its depth and its pixels
    frame   BLOB NOT NULL CHECK (length(frame) = 16),  -- id of the frame that it became
    -- Whether nothing more is to be done for that frame. Else it is given again, under its id,
    -- unless its result is in the store.
    done    INTEGER NOT NULL CHECK (done IN (0, 1)),
    PRIMARY KEY (intake, page)
) STRICT, WITHOUT ROWID;

-- Ids of commands, each noted before its command is done, so that none is done twice, not even
-- after a restart or kill -9. Working state: rows go once no command of their time is accepted.
CREATE TABLE command (
    operation TEXT NOT NULL,
    id        TEXT NOT NULL,
    wall_ns   INTEGER NOT NULL,              -- when it was noted
    actor     TEXT,                          -- who asked for it
    reason    TEXT,                          -- why, where the asker said so
    -- What was answered at its end (JSON). Null: being done, or the box died before it knew.
    answer    TEXT,
    PRIMARY KEY (operation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX command_by_age ON command (wall_ns);

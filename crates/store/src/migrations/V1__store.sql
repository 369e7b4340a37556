-- Reticle's local store: schema 1.
--
-- Rules for every table
--   * A row is added, completed, or re-dated; none is ever deleted. What may go is the pixel
--     file of a frame (see frame.file), in the order that docs/design/storage.md gives.
--   * pk is ours and local; id (UUIDv7, 16 bytes) is the name for ever and elsewhere.
--   * An instant is three columns: wall_ns (nanoseconds since 1970 UTC, may be wrong or jump),
--     mono_ns (CLOCK_MONOTONIC) and boot (which boot of which machine counted mono_ns). A whole
--     boot whose wall clock was wrong can be re-dated from the other two.
--   * Lengths are in pixels unless the name says um.
--   * Numbers that a table could be asked for but that are kept ready (frame.segmented, the
--     counters of session, tally) change in the transaction of what they count; fsck recounts.

-- One boot of one machine: what makes mono_ns comparable.
CREATE TABLE boot (
    pk  INTEGER PRIMARY KEY,
    id  BLOB NOT NULL UNIQUE CHECK (length(id) = 16)
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
    -- Kept ready: rows of frame, of segmentation and of object that belong to it.
    frames          INTEGER NOT NULL DEFAULT 0 CHECK (frames >= 0),
    segmentations   INTEGER NOT NULL DEFAULT 0 CHECK (segmentations >= 0),
    objects         INTEGER NOT NULL DEFAULT 0 CHECK (objects >= 0),
    CHECK ((ended_wall_ns IS NULL) = (ended_boot IS NULL)
       AND (ended_wall_ns IS NULL) = (ended_mono_ns IS NULL))
) STRICT;

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
    plate            TEXT,
    well             TEXT,
    field            INTEGER,
    origin           TEXT,                   -- file (and #page) it came from
    -- Pixel file, relative to the data folder, and its size; or why there is none.
    file             TEXT UNIQUE,
    file_bytes       INTEGER CHECK (file_bytes > 0),
    no_file          TEXT CHECK (no_file IN
                         ('rule', 'max_bytes', 'min_free', 'write_failed',
                          'evicted_max_bytes', 'evicted_min_free')),
    segmented        INTEGER NOT NULL DEFAULT 0 CHECK (segmented IN (0, 1)),  -- by any model
    CHECK ((file IS NULL) <> (no_file IS NULL)),
    CHECK ((file IS NULL) = (file_bytes IS NULL))
) STRICT;

-- The files, in the order in which they are evicted: segmented ones first, then the oldest.
-- The other end of the same index is the backlog. Covers the sum of bytes.
CREATE INDEX frame_by_eviction ON frame (segmented DESC, pk, file_bytes) WHERE file IS NOT NULL;

-- A model with its parameters, as run by one version of the software.
CREATE TABLE model (
    pk         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    sha256     TEXT NOT NULL,                -- of the network file, hex
    parameters TEXT NOT NULL,                -- canonical JSON
    software   TEXT NOT NULL,
    UNIQUE (sha256, name, parameters, software)
) STRICT;

-- The answer of one model to one frame. pk is the cursor of readers: it grows with every
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

-- Logbook of the store itself: recoveries and what they found.
CREATE TABLE event (
    pk      INTEGER PRIMARY KEY,
    wall_ns INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    boot    INTEGER NOT NULL REFERENCES boot (pk),
    kind    TEXT NOT NULL,                   -- recovered
    detail  TEXT NOT NULL                    -- JSON
) STRICT;

-- Reticle's central database: schema 1, the tables. Frozen once released.
--
-- Rules for every table
--   * Names for ever are the natural keys: UUIDv7 of sessions and frames, the key of a model,
--     (frame, model) of a result, (result, label) of an object. A delivery that comes twice meets
--     its own rows and changes nothing. segmentation.pk is this database's own and means nothing
--     elsewhere.
--   * An instant is four columns: *_at is the best that is known (it may be dated again),
--     *_recorded_at is what the box's wall clock said, *_mono_ns is CLOCK_MONOTONIC in
--     nanoseconds, and *_boot says which boot of which machine counted it. timestamptz has
--     microseconds.
--   * Lengths are in pixels unless the name says um. The views have both.
--   * Later versions only add (tables, views, columns that may be null or have a default, columns at
--     the end of a view); see compatibility.

-- One row. A program that knows this schema only up to a version below oldest_reader must not work
-- with it any more. A migration that an older box could not live with raises it; all others leave
-- it, so that boxes of one lab can be updated one by one.
CREATE TABLE reticle.compatibility (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    oldest_reader integer NOT NULL
);
INSERT INTO reticle.compatibility (oldest_reader) VALUES (1);

-- Who delivers.
CREATE TABLE reticle.box (
    site       text NOT NULL,
    name       text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (site, name)
);

-- Which store delivers, and how far it has come.
--
-- Keys are deterministic, so a box whose database went backwards (a backup put back, a snapshot,
-- a cloned card) would write over what it no longer knows. A row here changes in the transaction
-- of each delivery, under a lock: a store that finds a greater mark than its own delivers nothing.
CREATE TABLE reticle.store (
    id                  uuid PRIMARY KEY,
    epoch               uuid NOT NULL,       -- changes with every restore of the box's database
    site                text NOT NULL,
    box                 text NOT NULL,
    writer              text NOT NULL,       -- one run of the box's program
    high_water          bigint NOT NULL CHECK (high_water >= 0), -- deliveries claimed by then
    written_at          timestamptz NOT NULL,
    -- All null, unless two deliver in one name or one knows less than it did.
    disputed_writer     text,
    disputed_machine    text,
    disputed_high_water bigint,
    disputed_at         timestamptz,
    FOREIGN KEY (site, box) REFERENCES reticle.box (site, name)
);

-- One acquisition: a plate or slide imaged in one go.
CREATE TABLE reticle.session (
    id                     uuid PRIMARY KEY,
    site                   text NOT NULL,
    box                    text NOT NULL,
    name                   text NOT NULL,
    source                 text NOT NULL,      -- specification, as virtual or folder:/data/drop
    channel                text,
    operator               text,
    pixel_size_um          double precision,   -- as configured; a frame may know better
    archive_date           date NOT NULL,      -- under which its tables are archived
    started_at             timestamptz NOT NULL,
    started_recorded_at    timestamptz NOT NULL,
    started_mono_ns        bigint NOT NULL,
    started_boot           uuid NOT NULL,
    -- All null while it is open, or when the box's daemon died in it.
    ended_at               timestamptz,
    ended_recorded_at      timestamptz,
    ended_mono_ns          bigint,
    ended_boot             uuid,
    -- What the box had when it last spoke: with the rows here it tells what is still to come.
    frames_recorded        bigint NOT NULL,
    segmentations_recorded bigint NOT NULL,
    objects_recorded       bigint NOT NULL,
    FOREIGN KEY (site, box) REFERENCES reticle.box (site, name)
);
CREATE INDEX session_by_time ON reticle.session (started_at);

-- One captured image, whether it was segmented or not.
CREATE TABLE reticle.frame (
    id                   uuid PRIMARY KEY,
    session              uuid NOT NULL REFERENCES reticle.session (id),
    series               integer NOT NULL CHECK (series >= 0),  -- frames of one size, one array
    position             bigint NOT NULL CHECK (position >= 0), -- index in that array
    sequence             bigint NOT NULL,    -- as the source counted; starts again when reopened
    captured_at          timestamptz NOT NULL,
    captured_recorded_at timestamptz NOT NULL,
    captured_mono_ns     bigint NOT NULL,
    captured_boot        uuid NOT NULL,
    exposure_us          bigint,
    width                integer NOT NULL CHECK (width > 0),
    height               integer NOT NULL CHECK (height > 0),
    bit_depth            smallint NOT NULL CHECK (bit_depth BETWEEN 1 AND 16),
    sha256               bytea NOT NULL CHECK (octet_length(sha256) = 32), -- of the pixels
    pixel_size_um        double precision,
    -- Who stated the pixel size, and what a person should know of it. Null where no size is known.
    pixel_size_source    text,
    pixel_size_note      text,
    plate                text,
    well                 text,
    field                integer,
    origin               text                -- file (and #page) it came from
);
CREATE INDEX frame_by_session ON reticle.frame (session, captured_at);

-- A model with its parameters, as run by one version of the software. The key is the package's
-- name and 12 hex digits of the SHA-256 over the four parts.
CREATE TABLE reticle.model (
    key        text PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,                -- of the network file, hex
    parameters text NOT NULL,                -- canonical JSON
    software   text NOT NULL
);

-- The answer of one model to one frame.
CREATE TABLE reticle.segmentation (
    pk                    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    frame                 uuid NOT NULL REFERENCES reticle.frame (id),
    model                 text NOT NULL REFERENCES reticle.model (key),
    objects               integer NOT NULL CHECK (objects >= 0),
    focus                 real,              -- 0 to 1; null where it could not be told
    normalise_us          bigint NOT NULL,
    network_us            bigint NOT NULL,
    instances_us          bigint NOT NULL,
    measure_us            bigint NOT NULL,
    committed_at          timestamptz NOT NULL,
    committed_recorded_at timestamptz NOT NULL,
    committed_mono_ns     bigint NOT NULL,
    committed_boot        uuid NOT NULL,
    -- In which scale the picture was segmented. Null for labels that were imported.
    scale_from            text,              -- who said how large objects are
    scale                 real,              -- an edge was made so many times as long
    size_ratio            real,              -- objects look so many times as large as stated
    unlike                text,              -- in which way the model knows no such pictures
    labels_sha256         bytea NOT NULL CHECK (octet_length(labels_sha256) = 32),
    UNIQUE (frame, model)
);

-- What was measured on each object. Named as in scikit-image's regionprops_table, with an
-- underscore for its dash, which SQL would want in quotes. A value that is not a number is null.
-- No foreign key: checked row by row it took 60% of the time of a delivery (PostgreSQL 15, 18,000
-- objects: 300 ms with, 105 ms without). The merge takes the number from segmentation.pk itself,
-- in the same transaction.
CREATE TABLE reticle.object (
    segmentation      bigint NOT NULL,       -- segmentation.pk
    label             integer NOT NULL CHECK (label > 0),
    area              integer NOT NULL CHECK (area > 0),
    centroid_0        double precision,      -- row
    centroid_1        double precision,      -- column
    bbox_0            integer NOT NULL,      -- rows bbox_0 to bbox_2, half open
    bbox_1            integer NOT NULL,      -- columns bbox_1 to bbox_3
    bbox_2            integer NOT NULL,
    bbox_3            integer NOT NULL,
    perimeter         double precision,
    eccentricity      double precision,
    solidity          double precision,
    major_axis_length double precision,
    minor_axis_length double precision,
    orientation       double precision,      -- radians
    intensity_mean    double precision,      -- grey values
    intensity_max     double precision,
    intensity_min     double precision,
    touches_border    boolean NOT NULL,
    PRIMARY KEY (segmentation, label)
);

-- Reticle's local store: schema 6. Which files of a watched folder were taken.
--
-- A restart, a rename or a touch must not take an image twice, and an image that ends the process
-- must not end it for ever.

-- One row for each image (a content under a path), working state of the source.
CREATE TABLE intake (
    pk          INTEGER PRIMARY KEY,
    folder      TEXT NOT NULL,              -- the watched folder, as an absolute path
    path        TEXT NOT NULL,              -- relative to it; where the image was seen last
    bytes       INTEGER NOT NULL CHECK (bytes >= 0),
    mtime_ns    INTEGER NOT NULL,
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
    here        INTEGER NOT NULL DEFAULT 1 CHECK (here IN (0, 1)),
    wall_ns     INTEGER NOT NULL,
    CHECK ((state IN ('refused', 'too_large', 'quarantined')) = (reason IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX intake_by_path ON intake (folder, path) WHERE here = 1;
CREATE INDEX intake_by_content ON intake (sha256, folder);

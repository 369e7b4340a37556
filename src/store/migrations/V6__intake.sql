-- Reticle's local store: schema 6. Which files of a watched folder were taken.
--
-- A restart, a rename or a touch must not take an image twice, and an image that ends the process
-- must not end it for ever.

-- One row for each file (its content under a path), working state of the source.
CREATE TABLE intake (
    pk       INTEGER PRIMARY KEY,
    path     TEXT NOT NULL UNIQUE,          -- relative to the watched folder
    bytes    INTEGER NOT NULL CHECK (bytes >= 0),
    mtime_ns INTEGER NOT NULL,
    sha256   BLOB CHECK (length(sha256) = 32),
    -- Times that reading it was begun. Two without an end: the process died of it twice.
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    state    TEXT NOT NULL CHECK (state IN ('begun', 'taken', 'refused', 'quarantined')),
    reason   TEXT,
    wall_ns  INTEGER NOT NULL
) STRICT;

CREATE INDEX intake_by_content ON intake (sha256);

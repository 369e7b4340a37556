-- Reticle's local store: schema 4. What happened, and how far it was told to the lab's broker.
--
-- The rules of schema 1 hold for records. event is a logbook of bounded length: old rows that
-- were told are the only ones that go. told is working state.

-- The logbook of the store itself (recoveries, mended times). The name event is for what a lab
-- hears of.
ALTER TABLE event RENAME TO store_log;

-- What happened on this box. Kept: all that is not yet told, and the newest 100,000.
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

-- How far each stream was told. What is committed beyond done waits; nothing else says so, so
-- that no crash can come between a result and the wish to tell it. No row: nobody is told.
--   stream    what                    key that grows
--   events    rows of event           event.pk
--   results   rows of segmentation    segmentation.pk
CREATE TABLE told (
    stream TEXT PRIMARY KEY CHECK (stream IN ('events', 'results')),
    place  TEXT NOT NULL,                    -- as mqtts://broker.lab:8883; never with a password
    done   INTEGER NOT NULL CHECK (done >= 0) -- greatest key that the broker has acknowledged
) STRICT, WITHOUT ROWID;

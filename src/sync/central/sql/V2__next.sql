-- Not released: what a later Reticle may add, for the tests that show the way back from an update
-- (cargo feature next-migration, `make prove-way-back`). It only adds, and leaves
-- compatibility.oldest_reader as it is.

CREATE TABLE reticle.next_note (
    segmentation bigint PRIMARY KEY REFERENCES reticle.segmentation (pk),
    note         text NOT NULL
);

-- A column in each table that programs write: a statement that does not name its columns would stop.
ALTER TABLE reticle.compatibility ADD COLUMN next_note text;
ALTER TABLE reticle.box ADD COLUMN next_note text;
ALTER TABLE reticle.store ADD COLUMN next_note text;
ALTER TABLE reticle.session ADD COLUMN next_note text;
ALTER TABLE reticle.frame ADD COLUMN next_note text;
ALTER TABLE reticle.model ADD COLUMN next_note text;
ALTER TABLE reticle.segmentation ADD COLUMN next_note text;
ALTER TABLE reticle.object ADD COLUMN next_note text;

-- The later program fills one of them, so that an older one meets rows with a value in it.
ALTER TABLE reticle.segmentation ALTER COLUMN next_note SET DEFAULT 'of the next schema';

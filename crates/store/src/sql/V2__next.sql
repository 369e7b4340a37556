-- Not a migration of this program: what a later Reticle may add, for the tests that show the way back from an update
-- (cargo feature next-migration, `make prove-way-back`). It only adds, and leaves
-- compatibility.oldest_reader as it is. When a real V2 comes, this one takes the next number.

-- Something new that the later program writes.
CREATE TABLE next_note (
    segmentation INTEGER PRIMARY KEY REFERENCES segmentation (pk),
    note         TEXT NOT NULL
) STRICT;

-- A column in each table that programs write: a statement that does not name its columns would stop.
ALTER TABLE compatibility ADD COLUMN next_note TEXT;
ALTER TABLE identity ADD COLUMN next_note TEXT;
ALTER TABLE boot ADD COLUMN next_note TEXT;
ALTER TABLE session ADD COLUMN next_note TEXT;
ALTER TABLE series ADD COLUMN next_note TEXT;
ALTER TABLE lost_position ADD COLUMN next_note TEXT;
ALTER TABLE frame ADD COLUMN next_note TEXT;
ALTER TABLE model ADD COLUMN next_note TEXT;
ALTER TABLE segmentation ADD COLUMN next_note TEXT;
ALTER TABLE object ADD COLUMN next_note TEXT;
ALTER TABLE adopted_result ADD COLUMN next_note TEXT;
ALTER TABLE gap ADD COLUMN next_note TEXT;
ALTER TABLE tally ADD COLUMN next_note TEXT;
ALTER TABLE store_log ADD COLUMN next_note TEXT;
ALTER TABLE field_sum ADD COLUMN next_note TEXT;
ALTER TABLE minute_sum ADD COLUMN next_note TEXT;
ALTER TABLE outbox ADD COLUMN next_note TEXT;
ALTER TABLE destination ADD COLUMN next_note TEXT;
ALTER TABLE receipt ADD COLUMN next_note TEXT;
ALTER TABLE refused ADD COLUMN next_note TEXT;
ALTER TABLE event ADD COLUMN next_note TEXT;
ALTER TABLE publish_cursor ADD COLUMN next_note TEXT;
ALTER TABLE intake ADD COLUMN next_note TEXT;
ALTER TABLE intake_page ADD COLUMN next_note TEXT;
ALTER TABLE command ADD COLUMN next_note TEXT;

CREATE INDEX frame_by_origin ON frame (origin) WHERE origin IS NOT NULL;

CREATE VIEW noted_result AS
SELECT frame.id AS frame, next_note.note
FROM next_note
JOIN segmentation ON segmentation.pk = next_note.segmentation
JOIN frame ON frame.pk = segmentation.frame;

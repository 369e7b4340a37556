-- Reticle's local store: schema 10. Which pages of a file of a watched folder were taken.
--
-- A file that grows by pages, or is written again, must not give a page twice; and two files of equal
-- content are two images, unless they are one file under two names.

-- Which file of its file system it was: number of the file system, number of the file in it, and when
-- it was made (numbers are given again), where the file system knows. Null: taken by schema 9.
ALTER TABLE intake ADD COLUMN device INTEGER;
ALTER TABLE intake ADD COLUMN inode INTEGER;
ALTER TABLE intake ADD COLUMN born_ns INTEGER;

-- The pages that an image held when it was read last, as far as they became frames.
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

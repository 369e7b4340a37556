-- Reticle's local store: schema 9. How the picture of a result was looked at.
--
-- A table of its own, and no columns of segmentation: those would lie behind the labels, which a list
-- of results would then have to read through. Results from before schema 9 have no row.
CREATE TABLE look (
    segmentation INTEGER PRIMARY KEY REFERENCES segmentation (pk),
    -- Words of src/domain/look.rs. A newer program may add some, so no CHECK lists them.
    scale_from   TEXT NOT NULL,              -- who said how large objects are: stated, picture, …
    scale        REAL NOT NULL CHECK (scale > 0),      -- an edge was made so many times as long
    size_ratio   REAL CHECK (size_ratio > 0),          -- objects look so many times as large as stated
    unlike       TEXT                        -- in which way the model knows no such pictures
) STRICT;

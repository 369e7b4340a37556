-- Reticle's central database: schema 4. Who stated the pixel size of a frame, and what a person
-- should know of it. Null for frames of older programs, and where no size is known.

ALTER TABLE reticle.frame
    ADD COLUMN pixel_size_source text,
    ADD COLUMN pixel_size_note   text;

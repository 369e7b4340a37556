-- Reticle's central database: schema 5. How the picture of a result was looked at. Null for results of
-- older programs, and for labels that were imported.

ALTER TABLE reticle.segmentation
    ADD COLUMN scale_from text,
    ADD COLUMN scale      real,
    ADD COLUMN size_ratio real,
    ADD COLUMN unlike     text;

-- Reticle's local store: schema 8. Who stated the pixel size of a frame.
--
-- Image files contradict themselves, and some state sizes that no microscope has. Which statement
-- was believed decides the scale in which objects are looked for, so it is part of the record.

-- A word of the program's table of sources ("configured", "ome-xml", "resolution"). A newer program
-- may add words, so no CHECK lists them. NULL where no size is known, and for frames from before
-- schema 8.
ALTER TABLE frame ADD COLUMN pixel_size_source TEXT;
-- What a person should know: two sources disagree, or an implausible size was left.
ALTER TABLE frame ADD COLUMN pixel_size_note TEXT CHECK (length(pixel_size_note) <= 300);

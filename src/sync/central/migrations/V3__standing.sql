-- Reticle's central database: schema 3. Which store delivers, and how far it has come.
--
-- Keys are deterministic, so a box whose database went backwards (a backup put back, a snapshot,
-- a cloned card) would write over what it no longer knows. A row here changes in the transaction
-- of each delivery, under a lock: a store that finds a greater mark than its own delivers nothing.

CREATE TABLE reticle.standing (
    store               uuid PRIMARY KEY,
    epoch               uuid NOT NULL,       -- changes with every restore of the box's database
    site                text NOT NULL,
    box                 text NOT NULL,
    writer              text NOT NULL,       -- one run of the box's program
    high_water          bigint NOT NULL CHECK (high_water >= 0), -- deliveries claimed by then
    written_at          timestamptz NOT NULL,
    -- All null, unless two deliver in one name or one knows less than it did.
    disputed_writer     text,
    disputed_machine    text,
    disputed_high_water bigint,
    disputed_at         timestamptz,
    FOREIGN KEY (site, box) REFERENCES reticle.box (site, name)
);

-- Reticle's local store: schema 5. Which store this is, and how far each destination was served.
--
-- Deterministic keys are safe only while what this store knows never goes backwards. A backup put
-- back, a snapshot of a virtual machine, a cloned card or a disk that lies make it go backwards.
-- These numbers are how the box finds that out before it overwrites anything.

-- One row: who this store is.
CREATE TABLE identity (
    pk    INTEGER PRIMARY KEY CHECK (pk = 1),
    -- Name of this store for ever. A copy that is to live beside the original gets a new one.
    store BLOB NOT NULL CHECK (length(store) = 16),
    -- Changes with every restore: cursors of an older epoch point to rows that may be others now.
    epoch BLOB NOT NULL CHECK (length(epoch) = 16),
    -- The greatest mark of the destinations that were left out of the configuration: one that is
    -- configured again counts on from there.
    high_water INTEGER NOT NULL DEFAULT 0 CHECK (high_water >= 0)
) STRICT;

INSERT INTO identity (pk, store, epoch) VALUES (1, randomblob(16), randomblob(16));

-- Deliveries claimed so far. It grows in the transaction that claims one, before anything is
-- sent, so a destination whose own mark is greater was served by somebody who knows more.
ALTER TABLE destination ADD COLUMN high_water INTEGER NOT NULL DEFAULT 0 CHECK (high_water >= 0);
-- What was found there that this store does not know. While it is set nothing is delivered there:
-- a person decides (`reticle sync adopt`). A new epoch clears it.
ALTER TABLE destination ADD COLUMN conflict TEXT;
-- The mark that it had then. The next epoch counts on from above it.
ALTER TABLE destination ADD COLUMN conflict_mark INTEGER NOT NULL DEFAULT 0;

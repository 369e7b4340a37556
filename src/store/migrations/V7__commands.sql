-- Reticle's local store: schema 7. Which commands of the broker were obeyed.

-- Ids of commands, so that none is obeyed twice, not even after a restart. Rows older than the
-- time in which a command is accepted at all may go.
CREATE TABLE command (
    id      TEXT PRIMARY KEY,
    wall_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

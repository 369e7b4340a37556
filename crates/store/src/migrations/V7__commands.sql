-- Reticle's local store: schema 7. Which orders were given, by whom.

-- Ids of commands, each noted before its command is done, so that none is done twice, not even
-- after a restart or kill -9. Working state: rows go once no command of their time is accepted.
CREATE TABLE command (
    operation TEXT NOT NULL,
    id        TEXT NOT NULL,
    wall_ns   INTEGER NOT NULL,              -- when it was noted
    actor     TEXT,                          -- who gave it, as local or user:1000
    reason    TEXT,                          -- why, in the actor's words
    -- What was answered at its end (JSON). Null: being done, or the box died before it knew.
    answer    TEXT,
    PRIMARY KEY (operation, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX command_by_age ON command (wall_ns);

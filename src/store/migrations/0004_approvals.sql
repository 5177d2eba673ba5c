-- What approvals say beyond yes: that they count for further calls, and that a call runs with other arguments.

CREATE TABLE remembered (
    seq        INTEGER PRIMARY KEY,     -- the number of its `remembered` event in audit
    hold       INTEGER NOT NULL UNIQUE REFERENCES holds (seq), -- whose approval it is; it says for which calls
    same       TEXT    NOT NULL,        -- arguments, tool
    by         TEXT    NOT NULL,
    person     TEXT,
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    uses_max   INTEGER NOT NULL,
    uses       INTEGER NOT NULL DEFAULT 0,
    revoked_at INTEGER,
    revoked_by TEXT
) STRICT;

-- What may still count, and is small whatever the history is.
CREATE INDEX remembered_live ON remembered (until) WHERE revoked_at IS NULL;

CREATE TRIGGER remembered_are_not_deleted BEFORE DELETE ON remembered
BEGIN SELECT raise(ABORT, 'a recorded approval is not deleted'); END;

-- A call as the approver has written it.
CREATE TABLE edits (
    seq   INTEGER PRIMARY KEY,          -- the number of its `edited` event in audit
    hold  INTEGER NOT NULL UNIQUE REFERENCES holds (seq),
    frame BLOB    NOT NULL
) STRICT;

CREATE TRIGGER edits_are_not_changed BEFORE UPDATE ON edits
BEGIN SELECT raise(ABORT, 'a recorded frame is not changed'); END;
CREATE TRIGGER edits_are_not_deleted BEFORE DELETE ON edits
BEGIN SELECT raise(ABORT, 'a recorded frame is not deleted'); END;

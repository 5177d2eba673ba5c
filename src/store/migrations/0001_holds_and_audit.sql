-- Times are nanoseconds since 1970-01-01T00:00:00Z. Lists are JSON arrays.

CREATE TABLE holds (
    seq           INTEGER PRIMARY KEY,  -- the number of its `held` event in audit: holds sort as they came
    id            BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    owner         TEXT    NOT NULL,
    server        TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    tool          TEXT    NOT NULL,
    agent         TEXT    NOT NULL,
    principal     TEXT    NOT NULL,
    frame_sha256  BLOB    NOT NULL CHECK (length(frame_sha256) = 32),
    policy_sha256 BLOB    NOT NULL CHECK (length(policy_sha256) = 32),
    rules         TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    notes         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    votes         TEXT    NOT NULL,
    ended_at      INTEGER,
    note          TEXT
) STRICT;

-- What is asked for most often, and small whatever the history is.
CREATE INDEX holds_open ON holds (owner) WHERE state IN ('held', 'forwarding');

-- The bytes of a call, in a table of their own: changing the state of a hold rewrites its row, and a frame can have 16 MiB.
CREATE TABLE frames (
    hold  INTEGER PRIMARY KEY REFERENCES holds (seq),
    frame BLOB    NOT NULL
) STRICT;

CREATE TABLE audit (
    seq  INTEGER PRIMARY KEY,
    line TEXT    NOT NULL,
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Against mistakes, not against people: whoever can write the file can drop a trigger. The chain and checkpoints show that.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER frames_are_not_changed BEFORE UPDATE ON frames
BEGIN SELECT raise(ABORT, 'a recorded frame is not changed'); END;
CREATE TRIGGER frames_are_not_deleted BEFORE DELETE ON frames
BEGIN SELECT raise(ABORT, 'a recorded frame is not deleted'); END;
CREATE TRIGGER holds_are_not_deleted BEFORE DELETE ON holds
BEGIN SELECT raise(ABORT, 'a recorded hold is not deleted'); END;

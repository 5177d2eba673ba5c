-- A hold outlives its caller: who has the caller now, and by what the same call, made again, is recognised.

ALTER TABLE holds ADD COLUMN call_sha256 BLOB CHECK (call_sha256 IS NULL OR length(call_sha256) = 32);
ALTER TABLE holds ADD COLUMN tool_sha256 BLOB CHECK (tool_sha256 IS NULL OR length(tool_sha256) = 32);
ALTER TABLE holds ADD COLUMN terms_sha256 BLOB CHECK (terms_sha256 IS NULL OR length(terms_sha256) = 32);
ALTER TABLE holds ADD COLUMN holder TEXT;       -- the process that has the caller or has sent the call; NULL: detached
ALTER TABLE holds ADD COLUMN lapses_at INTEGER; -- when a grant, or the memory of a rejection, ends
ALTER TABLE holds ADD COLUMN awaited INTEGER NOT NULL DEFAULT 0; -- what a retry finds: 1 without, 2 with a caller, 3 sent

UPDATE holds SET holder = owner, awaited = CASE state WHEN 'held' THEN 2 ELSE 3 END WHERE state IN ('held', 'forwarding');

DROP INDEX holds_open;
CREATE INDEX holds_open ON holds (holder) WHERE state IN ('held', 'granted', 'forwarding', 'unknown');
CREATE INDEX holds_call ON holds (call_sha256, awaited) WHERE call_sha256 IS NOT NULL;

-- The bytes of a call that was made again and took the place of the first one.
CREATE TABLE retries (
    seq   INTEGER PRIMARY KEY,  -- the number of its `attached` event in audit
    hold  INTEGER NOT NULL REFERENCES holds (seq),
    frame BLOB    NOT NULL
) STRICT;

CREATE TRIGGER retries_are_not_changed BEFORE UPDATE ON retries
BEGIN SELECT raise(ABORT, 'a recorded frame is not changed'); END;
CREATE TRIGGER retries_are_not_deleted BEFORE DELETE ON retries
BEGIN SELECT raise(ABORT, 'a recorded frame is not deleted'); END;

-- The tools that servers have listed. The first definition that is seen of one counts until somebody accepts another.

CREATE TABLE tools (
    id            INTEGER PRIMARY KEY,
    server        TEXT    NOT NULL,
    tool          TEXT    NOT NULL,
    accepted      BLOB    NOT NULL CHECK (length(accepted) = 32), -- the definition that counts
    accepted_at   INTEGER NOT NULL,
    accepted_by   TEXT,                                           -- NULL: it was the first
    changed       BLOB    CHECK (changed IS NULL OR length(changed) = 32), -- the newest that nobody has accepted
    changed_at    INTEGER,
    changes       INTEGER NOT NULL,                               -- how many there were since one was accepted
    first_seen_at INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    revision      INTEGER NOT NULL,                               -- the number of its last event in audit
    UNIQUE (server, tool)
) STRICT;

-- What other processes have found out since one looked last.
CREATE INDEX tools_revision ON tools (revision);

CREATE TABLE tool_definitions (
    tool       INTEGER NOT NULL REFERENCES tools (id),
    sha256     BLOB    NOT NULL CHECK (length(sha256) = 32),
    definition TEXT,             -- NULL: too long to be kept
    bytes      INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL, -- when it was seen first
    PRIMARY KEY (tool, sha256)
) STRICT;

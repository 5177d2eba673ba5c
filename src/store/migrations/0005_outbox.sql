-- What channels are to be told and have been told: filled from the audit log, sent by whichever process claims an entry.

CREATE TABLE channels (
    name TEXT    PRIMARY KEY,
    seen INTEGER NOT NULL       -- the last line of the audit log that was looked at for it
) STRICT;

CREATE TABLE outbox (
    id            INTEGER PRIMARY KEY,
    channel       TEXT    NOT NULL REFERENCES channels (name),
    hold          BLOB    NOT NULL CHECK (length(hold) = 16),
    line          INTEGER NOT NULL,           -- the line of the audit log that it tells of
    news          TEXT    NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    due_at        INTEGER NOT NULL,
    claimed_by    TEXT,
    claimed_until INTEGER,                    -- then whoever claimed it is taken for dead
    ended_at      INTEGER,
    outcome       TEXT,                       -- sent, skipped or given_up
    note          TEXT,                       -- why it was not sent at the last attempt
    UNIQUE (channel, hold, line)
) STRICT;
CREATE INDEX outbox_open ON outbox (channel, hold, id) WHERE ended_at IS NULL;

-- The name that a service has given to the message about a hold, by which it is changed later.
CREATE TABLE messages (
    channel TEXT NOT NULL,
    hold    BLOB NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (channel, hold)
) STRICT, WITHOUT ROWID;

-- What counts once: links of mails, signed requests from outside. Kept until it would not count any more anyway.
CREATE TABLE used (
    what        BLOB    PRIMARY KEY CHECK (length(what) = 32),
    until_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

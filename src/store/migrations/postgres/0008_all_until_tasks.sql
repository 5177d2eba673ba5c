-- What the first eight migrations of SQLite make, in PostgreSQL's words. Numbers are BIGINT, times nanoseconds since
-- 1970-01-01T00:00:00Z, lists JSON arrays; texts sort by their bytes.

CREATE TABLE holds (
    seq           BIGINT PRIMARY KEY,   -- the number of its `held` event in audit: holds sort as they came
    id            BYTEA  NOT NULL UNIQUE CHECK (length(id) = 16),
    owner         TEXT   COLLATE "C" NOT NULL,
    server        TEXT   COLLATE "C" NOT NULL,
    method        TEXT   COLLATE "C" NOT NULL,
    tool          TEXT   COLLATE "C" NOT NULL,
    agent         TEXT   COLLATE "C" NOT NULL,
    principal     TEXT   COLLATE "C" NOT NULL,
    frame_sha256  BYTEA  NOT NULL CHECK (length(frame_sha256) = 32),
    policy_sha256 BYTEA  NOT NULL CHECK (length(policy_sha256) = 32),
    rules         TEXT   COLLATE "C" NOT NULL,
    reason        TEXT   COLLATE "C" NOT NULL,
    notes         TEXT   COLLATE "C" NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    state         TEXT   COLLATE "C" NOT NULL,
    votes         TEXT   COLLATE "C" NOT NULL,
    ended_at      BIGINT,
    note          TEXT   COLLATE "C",
    call_sha256   BYTEA  CHECK (call_sha256 IS NULL OR length(call_sha256) = 32),
    tool_sha256   BYTEA  CHECK (tool_sha256 IS NULL OR length(tool_sha256) = 32),
    terms_sha256  BYTEA  CHECK (terms_sha256 IS NULL OR length(terms_sha256) = 32),
    holder        TEXT   COLLATE "C",   -- the process that has the caller or has sent the call; NULL: detached
    lapses_at     BIGINT,               -- when a grant, or the memory of a rejection, ends
    awaited       BIGINT NOT NULL DEFAULT 0, -- what a retry finds: 1 without, 2 with a caller, 3 sent
    quorum        TEXT   COLLATE "C",   -- who has to say yes; NULL: one person is enough
    heard         BIGINT                -- how long after it was held people have heard of it last, in seconds
);

CREATE INDEX holds_open ON holds (holder) WHERE state IN ('held', 'granted', 'forwarding', 'unknown');
CREATE INDEX holds_call ON holds (call_sha256, awaited) WHERE call_sha256 IS NOT NULL;

CREATE TABLE frames (
    hold  BIGINT PRIMARY KEY REFERENCES holds (seq),
    frame BYTEA  NOT NULL
);

CREATE TABLE audit (
    seq  BIGINT PRIMARY KEY,
    line TEXT   COLLATE "C" NOT NULL,
    hash BYTEA  NOT NULL CHECK (length(hash) = 32)
);

-- The bytes of a call that was made again and took the place of the first one.
CREATE TABLE retries (
    seq   BIGINT PRIMARY KEY,           -- the number of its `attached` event in audit
    hold  BIGINT NOT NULL REFERENCES holds (seq),
    frame BYTEA  NOT NULL
);

-- What approvals say beyond yes: that they count for further calls, and that a call runs with other arguments.
CREATE TABLE remembered (
    seq        BIGINT PRIMARY KEY,      -- the number of its `remembered` event in audit
    hold       BIGINT NOT NULL UNIQUE REFERENCES holds (seq),
    same       TEXT   COLLATE "C" NOT NULL, -- arguments, tool
    by         TEXT   COLLATE "C" NOT NULL,
    person     TEXT   COLLATE "C",
    since      BIGINT NOT NULL,
    until      BIGINT NOT NULL,
    uses_max   BIGINT NOT NULL,
    uses       BIGINT NOT NULL DEFAULT 0,
    revoked_at BIGINT,
    revoked_by TEXT   COLLATE "C"
);
CREATE INDEX remembered_live ON remembered (until) WHERE revoked_at IS NULL;

CREATE TABLE edits (
    seq   BIGINT PRIMARY KEY,           -- the number of its `edited` event in audit
    hold  BIGINT NOT NULL UNIQUE REFERENCES holds (seq),
    frame BYTEA  NOT NULL
);

-- Against mistakes, not against people: whoever owns a table can drop a trigger. The chain and checkpoints show that.
CREATE FUNCTION holdshort_is_kept() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'what is recorded in % is neither changed nor deleted', TG_TABLE_NAME; END $$;
CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION holdshort_is_kept();
CREATE TRIGGER frames_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON frames EXECUTE FUNCTION holdshort_is_kept();
CREATE TRIGGER retries_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON retries EXECUTE FUNCTION holdshort_is_kept();
CREATE TRIGGER edits_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON edits EXECUTE FUNCTION holdshort_is_kept();
CREATE TRIGGER holds_are_kept BEFORE DELETE OR TRUNCATE ON holds EXECUTE FUNCTION holdshort_is_kept();
CREATE TRIGGER remembered_are_kept BEFORE DELETE OR TRUNCATE ON remembered EXECUTE FUNCTION holdshort_is_kept();

-- What channels are to be told and have been told: filled from the audit log, sent by whichever process claims an entry.
CREATE TABLE channels (
    name TEXT   COLLATE "C" PRIMARY KEY,
    seen BIGINT NOT NULL                -- the last line of the audit log that was looked at for it
);

CREATE TABLE outbox (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel       TEXT   COLLATE "C" NOT NULL REFERENCES channels (name),
    hold          BYTEA  NOT NULL CHECK (length(hold) = 16),
    line          BIGINT NOT NULL,      -- the line of the audit log that it tells of
    news          TEXT   COLLATE "C" NOT NULL,
    attempts      BIGINT NOT NULL DEFAULT 0,
    due_at        BIGINT NOT NULL,
    claimed_by    TEXT   COLLATE "C",
    claimed_until BIGINT,               -- then whoever claimed it is taken for dead
    ended_at      BIGINT,
    outcome       TEXT   COLLATE "C",   -- sent, skipped or given_up
    note          TEXT   COLLATE "C",   -- why it was not sent at the last attempt
    UNIQUE (channel, hold, line)
);
CREATE INDEX outbox_open ON outbox (channel, hold, id) WHERE ended_at IS NULL;

-- The name that a service has given to the message about a hold, by which it is changed later.
CREATE TABLE messages (
    channel TEXT  COLLATE "C" NOT NULL,
    hold    BYTEA NOT NULL,
    message TEXT  COLLATE "C" NOT NULL,
    PRIMARY KEY (channel, hold)
);

-- What counts once: links of mails, signed requests from outside.
CREATE TABLE used (
    what     BYTEA  PRIMARY KEY CHECK (length(what) = 32),
    until_at BIGINT NOT NULL
);

-- The tools that servers have listed. The first definition that is seen of one counts until somebody accepts another.
CREATE TABLE tools (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server        TEXT   COLLATE "C" NOT NULL,
    tool          TEXT   COLLATE "C" NOT NULL,
    accepted      BYTEA  NOT NULL CHECK (length(accepted) = 32), -- the definition that counts
    accepted_at   BIGINT NOT NULL,
    accepted_by   TEXT   COLLATE "C",   -- NULL: it was the first
    changed       BYTEA  CHECK (changed IS NULL OR length(changed) = 32), -- the newest that nobody has accepted
    changed_at    BIGINT,
    changes       BIGINT NOT NULL,      -- how many there were since one was accepted
    first_seen_at BIGINT NOT NULL,
    last_seen_at  BIGINT NOT NULL,
    revision      BIGINT NOT NULL,      -- the number of its last event in audit
    UNIQUE (server, tool)
);
CREATE INDEX tools_revision ON tools (revision);

CREATE TABLE tool_definitions (
    tool       BIGINT NOT NULL REFERENCES tools (id),
    sha256     BYTEA  NOT NULL CHECK (length(sha256) = 32),
    definition TEXT   COLLATE "C",      -- NULL: too long to be kept
    bytes      BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,         -- when it was seen first
    PRIMARY KEY (tool, sha256)
);

-- The answers to calls that ran as tasks, until nobody may ask for them any more.
CREATE TABLE answers (
    hold       BIGINT PRIMARY KEY REFERENCES holds (seq),
    is_error   BIGINT NOT NULL CHECK (is_error IN (0, 1)),
    answer     TEXT   COLLATE "C" NOT NULL,
    kept_until BIGINT NOT NULL
);
CREATE INDEX answers_kept ON answers (kept_until);

-- What one process asks another that has the caller of a hold: to decide on it. For PostgreSQL alone, whose processes do not
-- reach each other in another way. Short-lived: the record of a verdict is in audit.
CREATE TABLE questions (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    holder   TEXT   COLLATE "C" NOT NULL, -- who is asked
    asker    TEXT   COLLATE "C" NOT NULL,
    question TEXT   COLLATE "C" NOT NULL,
    asked_at BIGINT NOT NULL,
    taken_at BIGINT,                    -- from here on it is being answered
    answer   TEXT   COLLATE "C"
);
CREATE INDEX questions_open ON questions (holder) WHERE taken_at IS NULL;

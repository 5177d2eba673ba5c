-- The answers to calls that ran as tasks, until nobody may ask for them any more.
CREATE TABLE answers (
    hold       INTEGER PRIMARY KEY REFERENCES holds (seq),
    is_error   INTEGER NOT NULL CHECK (is_error IN (0, 1)),
    answer     TEXT    NOT NULL,
    kept_until INTEGER NOT NULL
) STRICT;

CREATE INDEX answers_kept ON answers (kept_until);

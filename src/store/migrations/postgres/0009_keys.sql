-- Secrets of the gates on this record: what they have sealed for their clients, another one can open.
CREATE TABLE keys (
    name TEXT  COLLATE "C" NOT NULL PRIMARY KEY,
    key  BYTEA NOT NULL CHECK (length(key) = 32)
);

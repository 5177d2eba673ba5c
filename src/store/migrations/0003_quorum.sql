-- Who has to say yes: what the rules ask for beyond one person. NULL: one person is enough.

ALTER TABLE holds ADD COLUMN quorum TEXT;

-- How long after a call was held people have heard of it last, in seconds: a reminder that one gate gives, no other gives too.

ALTER TABLE holds ADD COLUMN heard INTEGER;

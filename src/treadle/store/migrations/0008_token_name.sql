-- What a token is for, in the words of whoever made it.

ALTER TABLE token ADD COLUMN name TEXT NOT NULL DEFAULT '';

-- Whether a key followed another by authority of the agent's own, and not by a
-- join token.
ALTER TABLE keys ADD COLUMN rotated BIGINT NOT NULL DEFAULT 0;

-- A key's window. Where another key certifies it, that is its authority: one of
-- authorities, or the key of the agent's epoch before. Times of 0 are "none".
ALTER TABLE keys ADD COLUMN authority BYTEA;
ALTER TABLE keys ADD COLUMN not_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN not_after BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN retired_at BIGINT NOT NULL DEFAULT 0;
-- From then on nothing that the key signed is taken in.
ALTER TABLE keys ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 0;

-- Keys that are followed already have seven days from when that was, or from
-- their own enrolment where it is not known.
UPDATE keys SET retired_at = COALESCE(
    (SELECT MIN(l.created_at) FROM keys AS l WHERE l.tenant = keys.tenant AND l.agent = keys.agent AND l.epoch > keys.epoch),
    created_at)
WHERE status = 'retired';
UPDATE keys SET ends_at = retired_at + 604800000 WHERE status = 'retired';

-- The keys that certify agents' keys and are held elsewhere.
CREATE TABLE authorities
(
    key_id      BYTEA  NOT NULL PRIMARY KEY,
    tenant      TEXT   NOT NULL,
    agent       TEXT   NOT NULL,
    algorithm   TEXT   NOT NULL,
    -- PKIX DER
    public_key  BYTEA  NOT NULL,
    status      TEXT   NOT NULL CHECK (status IN ('active', 'revoked')),
    created_at  BIGINT NOT NULL,
    revoked_at  BIGINT NOT NULL DEFAULT 0,
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);
CREATE INDEX authorities_by_agent ON authorities (tenant, agent);

-- What happened to keys, for the transparency logs. seq is handed out by the one
-- row of key_event_counter, which is held until the event is committed, so that
-- no event becomes visible behind a later one.
CREATE TABLE key_event_counter
(
    last  BIGINT NOT NULL
);
INSERT INTO key_event_counter (last) VALUES (0);

CREATE TABLE key_events
(
    seq     BIGINT NOT NULL PRIMARY KEY,
    key_id  BYTEA  NOT NULL,
    change  TEXT   NOT NULL,
    -- the log's entry, byte for byte
    entry   BYTEA  NOT NULL,
    UNIQUE (key_id, change)
);

-- Where each event stands in each log.
CREATE TABLE key_event_entries
(
    log        TEXT   NOT NULL,
    seq        BIGINT NOT NULL REFERENCES key_events (seq),
    log_index  BIGINT NOT NULL,
    PRIMARY KEY (log, seq)
);

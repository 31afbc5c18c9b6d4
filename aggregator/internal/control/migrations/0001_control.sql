-- The control store: what needs compare-and-set. One text for SQLite and
-- PostgreSQL: TEXT, BIGINT and BYTEA mean the same to both. Times are
-- milliseconds since 1970 in UTC; digests are their 32 bytes; 0 is "not yet"
-- for times that are never null.

CREATE TABLE tenants
(
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE TABLE agents
(
    tenant      TEXT   NOT NULL REFERENCES tenants (id),
    id          TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    status      TEXT   NOT NULL CHECK (status IN ('active', 'revoked')),
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- A key belongs to one epoch of one agent, for good.
CREATE TABLE keys
(
    key_id      BYTEA  NOT NULL PRIMARY KEY,
    tenant      TEXT   NOT NULL,
    agent       TEXT   NOT NULL,
    epoch       BIGINT NOT NULL CHECK (epoch > 0),
    algorithm   TEXT   NOT NULL,
    -- PKIX DER
    public_key  BYTEA  NOT NULL,
    status      TEXT   NOT NULL CHECK (status IN ('active', 'retired', 'revoked')),
    created_at  BIGINT NOT NULL,
    revoked_at  BIGINT NOT NULL DEFAULT 0,
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id),
    UNIQUE (tenant, agent, epoch)
);

CREATE TABLE join_tokens
(
    -- SHA-256 of the secret
    hash         BYTEA  NOT NULL PRIMARY KEY,
    tenant       TEXT   NOT NULL REFERENCES tenants (id),
    -- the agent to enrol anew; null makes a new one
    agent        TEXT,
    -- what a new agent is called
    agent_name   TEXT   NOT NULL,
    created_by   TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT NOT NULL DEFAULT 0,
    used_by_key  BYTEA  REFERENCES keys (key_id),
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);
CREATE INDEX join_tokens_by_tenant ON join_tokens (tenant, created_at);

CREATE TABLE api_tokens
(
    -- SHA-256 of the secret
    hash          BYTEA  NOT NULL PRIMARY KEY,
    tenant        TEXT   NOT NULL REFERENCES tenants (id),
    name          TEXT   NOT NULL,
    -- space-separated, sorted
    scopes        TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    -- 0: never
    expires_at    BIGINT NOT NULL,
    last_used_at  BIGINT NOT NULL DEFAULT 0,
    revoked_at    BIGINT NOT NULL DEFAULT 0
);
-- A name is free again once its token is revoked.
CREATE UNIQUE INDEX one_live_token ON api_tokens (tenant, name) WHERE revoked_at = 0;

-- A browser's session stands for an API token, and ends with it.
CREATE TABLE sessions
(
    hash        BYTEA  NOT NULL PRIMARY KEY,
    token       BYTEA  NOT NULL REFERENCES api_tokens (hash) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX sessions_by_token ON sessions (token);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- Where ingest stands: every offset before next_offset is accounted for.
CREATE TABLE partitions
(
    topic        TEXT   NOT NULL,
    partition    BIGINT NOT NULL,
    next_offset  BIGINT NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (topic, partition)
);

-- The ranges [from_offset, to_offset) that ingest decided on.
CREATE TABLE plans
(
    topic         TEXT   NOT NULL,
    partition     BIGINT NOT NULL,
    from_offset   BIGINT NOT NULL,
    to_offset     BIGINT NOT NULL,
    count         BIGINT NOT NULL,
    sha256        BYTEA  NOT NULL,
    state         TEXT   NOT NULL CHECK (state IN ('open', 'committed')),
    owner         TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    committed_at  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition, from_offset),
    FOREIGN KEY (topic, partition) REFERENCES partitions (topic, partition),
    CHECK (to_offset > from_offset)
);
CREATE UNIQUE INDEX one_open_plan ON plans (topic, partition) WHERE state = 'open';

-- The chains. head_sequence is the end of the prefix without a missing link;
-- highest_sequence the greatest seen.
CREATE TABLE chains
(
    tenant            TEXT   NOT NULL,
    agent             TEXT   NOT NULL,
    epoch             BIGINT NOT NULL,
    head_sequence     BIGINT NOT NULL,
    head_digest       BYTEA  NOT NULL,
    highest_sequence  BIGINT NOT NULL,
    replays           BIGINT NOT NULL,
    forks             BIGINT NOT NULL,
    last_seen_at      BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent, epoch),
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);

-- The links that are remembered: the last ones of the prefix, the last ones of
-- all, and both sides of every gap.
CREATE TABLE chain_links
(
    tenant    TEXT   NOT NULL,
    agent     TEXT   NOT NULL,
    epoch     BIGINT NOT NULL,
    sequence  BIGINT NOT NULL,
    digest    BYTEA  NOT NULL,
    previous  BYTEA  NOT NULL,
    PRIMARY KEY (tenant, agent, epoch, sequence, digest),
    FOREIGN KEY (tenant, agent, epoch) REFERENCES chains (tenant, agent, epoch)
);

-- The sequences below the highest that were never seen, as disjoint ranges with
-- both ends included.
CREATE TABLE chain_gaps
(
    tenant          TEXT   NOT NULL,
    agent           TEXT   NOT NULL,
    epoch           BIGINT NOT NULL,
    first_sequence  BIGINT NOT NULL,
    last_sequence   BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent, epoch, first_sequence),
    FOREIGN KEY (tenant, agent, epoch) REFERENCES chains (tenant, agent, epoch),
    CHECK (last_sequence >= first_sequence)
);
CREATE INDEX chain_gaps_by_end ON chain_gaps (tenant, agent, epoch, last_sequence);

-- digest_b was flagged. digest_a is what was there at its sequence; all zero
-- where the disagreement is with the link before or after.
CREATE TABLE chain_forks
(
    tenant    TEXT   NOT NULL,
    agent     TEXT   NOT NULL,
    epoch     BIGINT NOT NULL,
    sequence  BIGINT NOT NULL,
    digest_a  BYTEA  NOT NULL,
    digest_b  BYTEA  NOT NULL,
    seen_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent, epoch, sequence, digest_b),
    FOREIGN KEY (tenant, agent, epoch) REFERENCES chains (tenant, agent, epoch)
);

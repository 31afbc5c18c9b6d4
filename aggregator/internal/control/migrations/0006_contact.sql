-- When an agent last called, and how. It is written when something has changed,
-- and otherwise every few minutes.
CREATE TABLE agent_contacts
(
    tenant      TEXT   NOT NULL,
    agent       TEXT   NOT NULL,
    version     TEXT   NOT NULL,
    -- how far the agent's clock is ahead, in milliseconds
    skew        BIGINT NOT NULL,
    -- where the call came from
    address     TEXT   NOT NULL,
    contact_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent),
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);

-- The last processes of an agent that called.
CREATE TABLE agent_instances
(
    tenant    TEXT   NOT NULL,
    agent     TEXT   NOT NULL,
    instance  TEXT   NOT NULL,
    address   TEXT   NOT NULL,
    first_at  BIGINT NOT NULL,
    last_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent, instance),
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);

-- What is odd about agents and join tokens, each thing once and counted. An
-- event of a token that made no agent yet has an empty agent.
CREATE TABLE agent_events
(
    tenant     TEXT   NOT NULL REFERENCES tenants (id),
    agent      TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    -- what makes it another event of the kind
    subject    TEXT   NOT NULL,
    -- what came, and what was known, as words for people
    presented  TEXT   NOT NULL,
    known      TEXT   NOT NULL,
    count      BIGINT NOT NULL,
    first_at   BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    PRIMARY KEY (tenant, agent, kind, subject)
);
CREATE INDEX agent_events_by_time ON agent_events (tenant, last_at);

-- How many events of a tenant were dropped for newer ones.
CREATE TABLE agent_events_dropped
(
    tenant   TEXT   NOT NULL PRIMARY KEY REFERENCES tenants (id),
    dropped  BIGINT NOT NULL
);

-- Join tokens that nobody knows belong to no tenant: they are counted.
CREATE TABLE unknown_tokens
(
    count    BIGINT NOT NULL,
    last_at  BIGINT NOT NULL
);
INSERT INTO unknown_tokens (count, last_at) VALUES (0, 0);

-- The challenges that were answered, until they end by themselves.
CREATE TABLE spent_challenges
(
    hash        BYTEA  NOT NULL PRIMARY KEY,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX spent_challenges_by_end ON spent_challenges (expires_at);

-- How agents stand, by their own last heartbeat: one row an agent, written with
-- the plan that brought it, so that a fleet can be shown without reading all
-- that it has ever said.
CREATE TABLE agent_states
(
    tenant                  TEXT   NOT NULL,
    agent                   TEXT   NOT NULL,
    epoch                   BIGINT NOT NULL,
    sequence                BIGINT NOT NULL,
    agent_version           TEXT   NOT NULL,
    ruleset_version         TEXT   NOT NULL,
    -- empty where it does not say
    privacy                 TEXT   NOT NULL,
    -- layers, with blanks between them
    sandbox                 TEXT   NOT NULL,
    -- JSON
    plugins                 TEXT   NOT NULL,
    started_at              BIGINT NOT NULL,
    last_round_at           BIGINT NOT NULL,
    last_complete_at        BIGINT NOT NULL,
    spool_statements        BIGINT NOT NULL,
    spool_bytes             BIGINT NOT NULL,
    -- 0 where it does not say
    interval_seconds        BIGINT NOT NULL,
    -- what it makes of pushed configurations; -1 where it does not say
    config_remote           BIGINT NOT NULL,
    config_version          BIGINT NOT NULL,
    config_refused_version  BIGINT NOT NULL,
    config_refused          TEXT   NOT NULL,
    PRIMARY KEY (tenant, agent),
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);

-- How many statements a chain has had, each once.
ALTER TABLE chains ADD COLUMN statements BIGINT NOT NULL DEFAULT 0;
UPDATE chains SET statements = highest_sequence + forks - COALESCE((SELECT SUM(g.last_sequence - g.first_sequence + 1) FROM chain_gaps AS g
WHERE g.tenant = chains.tenant AND g.agent = chains.agent AND g.epoch = chains.epoch), 0);

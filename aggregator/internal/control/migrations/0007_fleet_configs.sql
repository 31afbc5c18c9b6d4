-- What administrators have set on their agents, every version of it. A tenant's
-- versions are one sequence, so that what holds for an agent only ever grows.
CREATE TABLE fleet_configs
(
    tenant      TEXT   NOT NULL REFERENCES tenants (id),
    version     BIGINT NOT NULL CHECK (version > 0),
    -- the agent that it is for; empty for all that have none of their own
    agent       TEXT   NOT NULL,
    -- JSON; empty where what was set before is taken back
    settings    TEXT   NOT NULL,
    created_by  TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, version)
);
CREATE INDEX fleet_configs_by_agent ON fleet_configs (tenant, agent, version);

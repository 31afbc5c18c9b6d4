-- Who may enrol agents of a tenant by their identity at AWS.
CREATE TABLE aws_join_rules
(
    tenant      TEXT   NOT NULL REFERENCES tenants (id),
    name        TEXT   NOT NULL,
    -- an ARN, or that of all sessions of a role
    arn         TEXT   NOT NULL,
    -- what a new agent is called, with {account}, {role} and {name}
    agent_name  TEXT   NOT NULL,
    created_by  TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- A join token may be for one key alone; null is for any.
ALTER TABLE join_tokens ADD COLUMN for_key BYTEA;

-- The certificates that the aggregator's own authority gave to agents. The
-- generation is the one that a certificate is of once it is confirmed; an
-- agent's own is the highest that was confirmed.
CREATE TABLE client_certificates
(
    serial        BYTEA  NOT NULL PRIMARY KEY,
    tenant        TEXT   NOT NULL,
    agent         TEXT   NOT NULL,
    -- SHA-256 of the certified key in PKIX DER
    key_id        BYTEA  NOT NULL,
    generation    BIGINT NOT NULL CHECK (generation > 0),
    status        TEXT   NOT NULL CHECK (status IN ('candidate', 'active', 'retired', 'revoked')),
    issued_at     BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    confirmed_at  BIGINT NOT NULL DEFAULT 0,
    -- until when a retired one is taken
    taken_until   BIGINT NOT NULL DEFAULT 0,
    revoked_at    BIGINT NOT NULL DEFAULT 0,
    -- X.509
    der           BYTEA  NOT NULL,
    FOREIGN KEY (tenant, agent) REFERENCES agents (tenant, id)
);
CREATE UNIQUE INDEX one_active_client_certificate ON client_certificates (tenant, agent) WHERE status = 'active';
CREATE INDEX client_certificates_by_agent ON client_certificates (tenant, agent, generation);
CREATE INDEX client_certificates_by_key ON client_certificates (key_id);

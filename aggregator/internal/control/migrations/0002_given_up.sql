-- The plans that an operator gave up because the log did not hold any more what
-- they were made of, as they were: who, why, and up to which offset it counts as
-- lost.
CREATE TABLE given_up_plans
(
    topic        TEXT   NOT NULL,
    partition    BIGINT NOT NULL,
    from_offset  BIGINT NOT NULL,
    to_offset    BIGINT NOT NULL,
    count        BIGINT NOT NULL,
    sha256       BYTEA  NOT NULL,
    owner        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    lost_before  BIGINT NOT NULL,
    given_up_by  TEXT   NOT NULL,
    reason       TEXT   NOT NULL,
    given_up_at  BIGINT NOT NULL,
    PRIMARY KEY (topic, partition, from_offset),
    FOREIGN KEY (topic, partition) REFERENCES partitions (topic, partition),
    CHECK (lost_before > from_offset AND lost_before <= to_offset)
);

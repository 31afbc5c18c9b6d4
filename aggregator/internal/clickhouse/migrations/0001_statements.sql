-- Everything that arrived, and what the statements say. A row is keyed by the
-- statement's content, so that inserting a range again changes nothing. Tenant
-- comes first in every key that a reader uses. All tables are partitioned by
-- received_at, the time of the ingest plan: an agent chooses the other times
-- and must not choose partitions or escape retention by them. One plan is one
-- time, so one insert is one part.
--
-- {on_cluster}, {replacing} and {retention_days} are filled in when the
-- migration runs.

-- One row for every message of the topic, for a range of offsets whose batch
-- nobody could read, or for one that the log had dropped before it was read:
-- what became of it.
CREATE TABLE IF NOT EXISTS receipts{on_cluster}
(
    topic        LowCardinality(String),
    partition    Int32,
    offset       Int64,
    -- the same as offset, but for a range
    last_offset  Int64,
    -- linked, early, forked, replayed, refused, lost
    outcome      LowCardinality(String),
    -- why it was refused, from a closed vocabulary; empty otherwise
    reason       LowCardinality(String),
    -- the key's; empty when the message was refused before a key was found.
    -- With the reasons revoked_key and bad_signature it is what was claimed.
    tenant       LowCardinality(String),
    agent        String,
    epoch        UInt64,
    sequence     UInt64,
    -- the statement's digest; of the message's or batch's bytes when it was
    -- refused
    digest       FixedString(64),
    bytes        UInt64,
    received_at  DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (topic, partition, offset)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- What was refused, kept as it came, within a bound, for a person to look at.
CREATE TABLE IF NOT EXISTS quarantine{on_cluster}
(
    tenant       LowCardinality(String),
    topic        LowCardinality(String),
    partition    Int32,
    offset       Int64,
    last_offset  Int64,
    reason       LowCardinality(String),
    -- the error in words; parts of it may quote the message
    detail       String,
    digest       FixedString(64),
    bytes        UInt64,
    -- at most the first 65,536 of bytes; none of an unreadable batch
    message      String CODEC(ZSTD(3)),
    received_at  DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, topic, partition, offset)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- The statements themselves: the envelope is the evidence. Both sides of a fork
-- are kept, since the digest is part of the key.
CREATE TABLE IF NOT EXISTS statements{on_cluster}
(
    tenant       LowCardinality(String),
    agent        String,
    epoch        UInt64,
    sequence     UInt64,
    digest       FixedString(64),
    previous     FixedString(64),
    key_id       FixedString(64),
    -- scan, inventory, gap, heartbeat, epoch
    type         LowCardinality(String),
    -- linked, early, forked: the place when it arrived
    outcome      LowCardinality(String),
    signed_at    DateTime64(3, 'UTC'),
    received_at  DateTime64(3, 'UTC'),
    topic        LowCardinality(String),
    partition    Int32,
    offset       Int64,
    envelope     String CODEC(ZSTD(3)),
    -- the transparency log that has it, and its entry there; empty where none has
    log          LowCardinality(String),
    log_index    UInt64,
    INDEX by_digest digest TYPE bloom_filter GRANULARITY 1
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, agent, epoch, sequence, digest)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for every scan statement.
CREATE TABLE IF NOT EXISTS scans{on_cluster}
(
    tenant           LowCardinality(String),
    artifact         FixedString(64),
    statement        FixedString(64),
    agent            String,
    epoch            UInt64,
    sequence         UInt64,
    kind             LowCardinality(String),
    format           LowCardinality(String),
    size             UInt64,
    files            UInt64,
    verdict          LowCardinality(String),
    score            UInt8,
    complete         Bool,
    bytes_parsed     UInt64,
    bytes_inert      UInt64,
    bytes_unread     UInt64,
    findings         UInt64,
    findings_omitted UInt64,
    imports          UInt64,
    imports_omitted  UInt64,
    ruleset_version  LowCardinality(String),
    ruleset_digest   FixedString(64),
    sandbox          Array(LowCardinality(String)),
    scanned_at       DateTime64(3, 'UTC'),
    received_at      DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, artifact, statement)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for every finding of every scan statement.
CREATE TABLE IF NOT EXISTS findings{on_cluster}
(
    tenant       LowCardinality(String),
    artifact     FixedString(64),
    rule         LowCardinality(String),
    location     LowCardinality(String),
    statement    FixedString(64),
    class        LowCardinality(String),
    severity     LowCardinality(String),
    count        UInt64,
    scanned_at   DateTime64(3, 'UTC'),
    received_at  DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, artifact, rule, location, statement)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for every import of every scan statement. A keyed name is written as
-- "hmac-sha256:…".
CREATE TABLE IF NOT EXISTS imports{on_cluster}
(
    tenant       LowCardinality(String),
    artifact     FixedString(64),
    module       String,
    name         String,
    how          LowCardinality(String),
    judged       LowCardinality(String),
    statement    FixedString(64),
    scanned_at   DateTime64(3, 'UTC'),
    received_at  DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, artifact, module, name, how, judged, statement)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for every part of every inventory round.
CREATE TABLE IF NOT EXISTS inventories{on_cluster}
(
    tenant       LowCardinality(String),
    agent        String,
    epoch        UInt64,
    sequence     UInt64,
    registry     LowCardinality(String),
    root         String,
    round        String,
    part         UInt32,
    parts        UInt32,
    complete     Bool,
    references   UInt64,
    statement    FixedString(64),
    listed_at    DateTime64(3, 'UTC'),
    received_at  DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, agent, registry, root, round, part, statement)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for every reference of every inventory round. Names are written
-- plain, or as "hmac-sha256:…".
CREATE TABLE IF NOT EXISTS references{on_cluster}
(
    tenant       LowCardinality(String),
    agent        String,
    registry     LowCardinality(String),
    root         String,
    name         String,
    version      String,
    path         String,
    -- all zero when it could not be read
    artifact     FixedString(64),
    -- all zero when it is in no bundle
    bundle       FixedString(64),
    size         UInt64,
    problem      LowCardinality(String),
    round        String,
    statement    FixedString(64),
    listed_at    DateTime64(3, 'UTC'),
    received_at  DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, agent, registry, root, name, version, path, round, statement, artifact, bundle, problem)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for every heartbeat, gap and epoch statement: what an agent says of
-- itself.
CREATE TABLE IF NOT EXISTS agent_reports{on_cluster}
(
    tenant           LowCardinality(String),
    agent            String,
    epoch            UInt64,
    sequence         UInt64,
    statement        FixedString(64),
    type             LowCardinality(String),
    agent_version    LowCardinality(String),
    ruleset_version  LowCardinality(String),
    sandbox          Array(LowCardinality(String)),
    plugins          Array(Tuple(name String, version String, digest String)),
    spool_statements UInt64,
    spool_bytes      UInt64,
    -- when the agent's program started; 1970 for a gap and an epoch
    started_at       DateTime64(3, 'UTC'),
    last_round_at    Nullable(DateTime64(3, 'UTC')),
    gap_cause        LowCardinality(String),
    gap_frames       UInt64,
    gap_bytes        UInt64,
    epoch_cause      LowCardinality(String),
    signed_at        DateTime64(3, 'UTC'),
    received_at      DateTime64(3, 'UTC')
)
ENGINE = {replacing}
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, agent, epoch, sequence, statement)
TTL toDateTime(received_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1;

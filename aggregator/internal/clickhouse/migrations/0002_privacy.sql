-- What an agent lets leave: strict, names or full-local; empty where it does not
-- say, and for a gap and an epoch.
ALTER TABLE agent_reports{on_cluster} ADD COLUMN IF NOT EXISTS privacy LowCardinality(String) DEFAULT '';

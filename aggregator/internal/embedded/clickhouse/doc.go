// Package clickhouse is the aggregator's embedded ClickHouse: chDB's
// libchdb.so in a process of its own, which answers the ClickHouse HTTP
// interface on loopback, so that the code above it uses clickhouse-go as it
// does with a cluster.
//
// An Engine is the parent's side. Its Run starts the process by calling the
// same program with ChildCommand, whose code is RunChild, and starts it again
// when it crashes; its Open and Options give clickhouse-go a way in that stays
// the same meanwhile. The engine is apart because a fault of its C++ code ends
// its process, and because it is killed and started faster than it is asked
// what is wrong.
//
// # What it guarantees
//
//   - An INSERT that was acknowledged is on disk: files and folders are synced
//     before the answer, and so is what a merge replaces them with
//     (TestInsertIsSynced). Killing the engine or the aggregator at any moment
//     loses none (TestKilledEngine, TestKilledParent). Seen on two cores
//     (BenchmarkInsert): 11 ms for an insert of one row and 830,000 rows a second
//     in batches of 100,000, the same without the syncs on an idle machine; on a
//     busy one 27 ms and 500,000 with them, 24 ms and 730,000 without.
//   - The rows of a batch that fall into one partition become visible together
//     (TestInsertOfOneBodyIsOnePart).
//   - The engine ends with its parent, whichever way that ends. Two engines
//     never share a folder (TestStartErrors).
//   - The password is made anew by each Engine and reaches the child by a pipe
//     (TestSecretsAreNotVisible). Only loopback is served.
//   - Each request has a session of its own: settings, database and parameters
//     never reach another (TestSettingsStayWithTheirRequest). One statement a
//     request, as with a server.
//   - Query text, inserted bodies, results, time, memory and the number of
//     queries at a time are bounded by Config. Queries run side by side, as many
//     as Config.Queries (TestQueriesRunTogetherUpToTheLimit).
//
// A query that was running when the engine crashed gets an error and may or may
// not have taken effect: repeat it, into a table whose keys make that harmless.
//
// # What the engine can do
//
//   - ReplacingMergeTree, FINAL, AggregateFunction states by materialized views,
//     and TTL with ttl_only_drop_parts work as on a server
//     (TestReplacingAndFinal, TestRollupsOfIdempotentStates,
//     TestRetentionDropsWholeParts). FINAL over 1,000,000 rows takes 20 ms
//     (BenchmarkFinal).
//   - insert_deduplication_token works on a table that has
//     non_replicated_deduplication_window, and reaches its materialized views
//     when they have it too and the insert sets
//     deduplicate_blocks_in_dependent_materialized_views. Without the window it
//     is accepted and does nothing (TestInsertDeduplicationToken). The window
//     also drops an insert without a token whose rows equal a former one's. Use
//     none where rows must survive a crash: the engine writes the token down before
//     the part is in place, and when it is killed between the two (at the part's
//     rename) the repetition is dropped as a duplicate of rows that are not there.
//   - Parameters, {name:Type}, work with clickhouse.Named (TestParameters).
//   - There is one user. CREATE USER, CREATE ROLE and CREATE ROW POLICY fail: the
//     engine has no storage for them (TestUsersAndPoliciesHaveNoStorage). It does
//     enforce additional_table_filters, a setting of the request, which with
//     readonly=1 the query's text cannot undo (TestAdditionalTableFilters). Custom
//     settings (SQL_tenant) do not exist.
//   - Not supported, with an error that says so: async_insert, compression,
//     external tables, sessions, roles.
//
// clickhouse-go sets max_execution_time from a context's deadline and then
// overrides one that was set beside it; one in the query's own SETTINGS counts.
package clickhouse

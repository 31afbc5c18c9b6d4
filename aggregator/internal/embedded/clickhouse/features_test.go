package clickhouse

import (
	"errors"
	"strconv"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func wantCode(t *testing.T, err error, code int32) {
	t.Helper()
	var exception *clickhouse.Exception
	if !errors.As(err, &exception) || exception.Code != code {
		t.Errorf("got %v, want code %d", err, code)
	}
}

const (
	codeAccessReadonly  = 495
	codeNoAccessStorage = 514
)

// TestUsersAndPoliciesHaveNoStorage: what a server keeps of access, the engine
// does not.
func TestUsersAndPoliciesHaveNoStorage(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (tenant String, n UInt64) ENGINE = MergeTree ORDER BY (tenant, n)")
	for _, s := range []string{"CREATE USER u IDENTIFIED BY 'p'", "CREATE ROLE r", "CREATE ROW POLICY p ON t FOR SELECT USING 1 TO ALL"} {
		var exception *clickhouse.Exception
		if err := e.conn.Exec(testContext(t), s); !errors.As(err, &exception) || exception.Code != codeAccessDenied && exception.Code != codeNoAccessStorage && exception.Code != codeAccessReadonly {
			t.Errorf("%s: %v", s, err)
		}
	}
	wantCode(t, e.conn.Exec(testContext(t), "SET SQL_tenant = 'a'"), codeUnknownSetting)
}

// TestAdditionalTableFilters is the wall that needs no configuration: the
// filter is a setting of the request, which the query cannot take off.
func TestAdditionalTableFilters(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (tenant String, n UInt64) ENGINE = MergeTree ORDER BY (tenant, n)",
		"INSERT INTO t VALUES ('a', 1), ('a', 2), ('b', 3)")
	ctx := clickhouse.Context(testContext(t), clickhouse.WithSettings(clickhouse.Settings{
		"additional_table_filters": `{'default.t': 'tenant = \'a\''}`, "readonly": 1,
	}))
	var n uint64
	if err := e.conn.QueryRow(ctx, "SELECT count() FROM t WHERE n > 0 OR tenant = 'b'").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
	wantCode(t, e.conn.Exec(ctx, "SELECT count() FROM t SETTINGS additional_table_filters = {}"), codeReadonly)
}

func TestInsertDeduplicationToken(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100",
		"CREATE TABLE plain (n UInt64) ENGINE = MergeTree ORDER BY n",
		"CREATE TABLE rollup (k UInt8, rows SimpleAggregateFunction(sum, UInt64)) ENGINE = AggregatingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 100",
		"CREATE MATERIALIZED VIEW mv TO rollup AS SELECT 0 AS k, count() AS rows FROM t GROUP BY k")
	insert := func(table, token string, first uint64) {
		t.Helper()
		ctx := clickhouse.Context(testContext(t), clickhouse.WithSettings(clickhouse.Settings{
			"insert_deduplication_token": token, "deduplicate_blocks_in_dependent_materialized_views": 1,
		}))
		batch, err := e.conn.PrepareBatch(ctx, "INSERT INTO "+table)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(10) {
			if err := batch.Append(first + i); err != nil {
				t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"t", "plain"} {
		insert(table, "plan-1", 0)
		insert(table, "plan-1", 0)
		insert(table, "plan-2", 0)
	}
	for query, want := range map[string]uint64{
		"SELECT count() FROM t":          20,
		"SELECT count() FROM plain":      30,
		"SELECT sum(rows) FROM rollup":   20,
		"SELECT uniqExact(n) FROM t":     10,
		"SELECT uniqExact(n) FROM plain": 10,
	} {
		if got := value[uint64](t, e.conn, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

func TestReplacingAndFinal(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (k UInt64, version UInt64, s String) ENGINE = ReplacingMergeTree(version) ORDER BY k",
		"SYSTEM STOP MERGES t",
		"INSERT INTO t VALUES (1, 2, 'new'), (2, 1, 'only')", "INSERT INTO t VALUES (1, 1, 'old')")
	if n := value[uint64](t, e.conn, "SELECT count() FROM t"); n != 3 {
		t.Errorf("before a merge: %d rows", n)
	}
	if n := value[uint64](t, e.conn, "SELECT count() FROM t FINAL"); n != 2 {
		t.Errorf("FINAL: %d rows", n)
	}
	if s := value[string](t, e.conn, "SELECT s FROM t FINAL WHERE k = 1"); s != "new" {
		t.Errorf("FINAL kept %q", s)
	}
}

func TestRetentionDropsWholeParts(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, `CREATE TABLE t (at DateTime64(3,'UTC'), n UInt64) ENGINE = MergeTree PARTITION BY toYYYYMMDD(at) ORDER BY n
		TTL toDateTime(at) + INTERVAL 30 DAY SETTINGS ttl_only_drop_parts = 1`,
		"INSERT INTO t VALUES ('2020-01-01 00:00:00', 1), (now64(3), 2)", "OPTIMIZE TABLE t FINAL")
	if n := value[uint64](t, e.conn, "SELECT sum(n) FROM t"); n != 2 {
		t.Errorf("after the time to live: sum %d, want only the row of today", n)
	}
}

func TestRollupsOfIdempotentStates(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (tenant LowCardinality(String), n UInt64, at DateTime64(3,'UTC'), verdict String) ENGINE = MergeTree ORDER BY (tenant, n)",
		`CREATE TABLE rollup (tenant LowCardinality(String), artifacts AggregateFunction(uniqExact, UInt64),
			last AggregateFunction(argMax, String, DateTime64(3,'UTC'))) ENGINE = AggregatingMergeTree ORDER BY tenant`,
		"CREATE MATERIALIZED VIEW mv TO rollup AS SELECT tenant, uniqExactState(n) AS artifacts, argMaxState(verdict, at) AS last FROM t GROUP BY tenant")
	for range 2 {
		e.exec(t, "INSERT INTO t VALUES ('a', 1, '2026-01-01 00:00:00', 'pass'), ('a', 2, '2026-01-02 00:00:00', 'fail'), ('b', 1, '2026-01-01 00:00:00', 'warn')")
	}
	var artifacts uint64
	var last string
	if err := e.conn.QueryRow(testContext(t), "SELECT uniqExactMerge(artifacts), argMaxMerge(last) FROM rollup WHERE tenant = 'a'").Scan(&artifacts, &last); err != nil {
		t.Fatal(err)
	}
	if artifacts != 2 || last != "fail" {
		t.Errorf("rollup of the same rows twice: %d artifacts, last %q", artifacts, last)
	}
}

// TestFullDisk stands for a disk without room by asking for more free space
// than there is.
func TestFullDisk(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.FreeDiskBytes = 1 << 60
	e := startEngine(t, cfg)
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
	wantCode(t, e.conn.Exec(testContext(t), "INSERT INTO t VALUES (1)"), codeNotEnoughSpace)
}

// TestInsertOfOneBodyIsOnePart: the rows of a batch, which clickhouse-go sends
// as one block, become visible together, where they are in one partition.
func TestInsertOfOneBodyIsOnePart(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n", "SYSTEM STOP MERGES t")
	for _, tt := range []struct{ rows, parts uint64 }{{1_000_000, 1}, {3_000_000, 1}} {
		e.exec(t, "TRUNCATE TABLE t")
		batch, err := e.conn.PrepareBatch(testContext(t), "INSERT INTO t")
		if err != nil {
			t.Fatal(err)
		}
		numbers := make([]uint64, tt.rows)
		for i := range numbers {
			numbers[i] = uint64(i)
		}
		if err := batch.Column(0).Append(numbers); err != nil {
			t.Fatal(err)
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
		if n := value[uint64](t, e.conn, "SELECT count() FROM t"); n != tt.rows {
			t.Errorf("%d rows of %d", n, tt.rows)
		}
		if n := value[uint64](t, e.conn, "SELECT count() FROM system.parts WHERE table = 't' AND active"); n != tt.parts {
			t.Errorf("%s rows make %d parts", strconv.FormatUint(tt.rows, 10), n)
		}
	}
}

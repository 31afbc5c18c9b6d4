package clickhouse

import (
	"fmt"
	"testing"
	"time"
)

const benchTable = `CREATE TABLE findings (tenant LowCardinality(String), digest FixedString(32), rule LowCardinality(String),
	severity Enum8('info' = 0, 'low' = 1, 'medium' = 2, 'high' = 3, 'critical' = 4), at DateTime64(3,'UTC'), version UInt64)
	ENGINE = ReplacingMergeTree(version) ORDER BY (tenant, digest, rule)`

// insertFindings inserts rows of which a second call with the same first
// makes newer versions.
func insertFindings(tb testing.TB, e *running, first, rows, version int) {
	tb.Helper()
	batch, err := e.conn.PrepareBatch(testContext(tb), "INSERT INTO findings")
	if err != nil {
		tb.Fatal(err)
	}
	at := time.UnixMilli(1_767_225_600_000)
	for i := first; i < first+rows; i++ {
		if err := batch.Append("tenant-1", fmt.Sprintf("%032d", i), "pickle/import", "high", at, uint64(version)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkInsert measures rows a second from Append to the acknowledgement,
// with and without the syncs that make an acknowledged insert durable.
func BenchmarkInsert(b *testing.B) {
	for _, fast := range []bool{false, true} {
		for _, rows := range []int{1, 1_000, 100_000} {
			b.Run(fmt.Sprintf("rows=%d/fast=%t", rows, fast), func(b *testing.B) {
				cfg := testConfig(b, b.TempDir())
				cfg.FastUnsafe = fast
				e := startEngine(b, cfg)
				e.exec(b, benchTable)
				n := 0
				for b.Loop() {
					insertFindings(b, e, n, rows, 1)
					n += rows
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkFinal counts 1,000,000 rows of which a tenth has two versions.
func BenchmarkFinal(b *testing.B) {
	e := startEngine(b, testConfig(b, b.TempDir()))
	e.exec(b, benchTable, "SYSTEM STOP MERGES findings")
	for i := range 9 {
		insertFindings(b, e, i*100_000, 100_000, 1)
	}
	insertFindings(b, e, 0, 100_000, 2)
	for b.Loop() {
		if n := value[uint64](b, e.conn, "SELECT count() FROM findings FINAL WHERE version > 0"); n != 900_000 {
			b.Fatalf("%d rows", n)
		}
	}
}

// BenchmarkSelect measures rows a second from the engine into structs.
func BenchmarkSelect(b *testing.B) {
	e := startEngine(b, testConfig(b, b.TempDir()))
	e.exec(b, benchTable)
	const rows = 100_000
	insertFindings(b, e, 0, rows, 1)
	type finding struct {
		Tenant   string    `ch:"tenant"`
		Digest   string    `ch:"digest"`
		Rule     string    `ch:"rule"`
		Severity string    `ch:"severity"`
		At       time.Time `ch:"at"`
		Version  uint64    `ch:"version"`
	}
	for b.Loop() {
		var got []finding
		if err := e.conn.Select(testContext(b), &got, "SELECT * FROM findings"); err != nil || len(got) != rows {
			b.Fatalf("%d rows, %v", len(got), err)
		}
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkSmallestQuery is what the path costs by itself.
func BenchmarkSmallestQuery(b *testing.B) {
	e := startEngine(b, testConfig(b, b.TempDir()))
	for b.Loop() {
		value[uint8](b, e.conn, "SELECT 1")
	}
}

// BenchmarkStart is the time from Run to the first answer.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		e := startEngine(b, testConfig(b, dir))
		e.stop()
	}
}

package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
)

func newDB(t testing.TB) *DB {
	t.Helper()
	db, err := New(enginetest.Start(t), Default())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return db
}

// filled is a row with every column set to something of its own.
func filled[T any](tb testing.TB, seed int) T {
	tb.Helper()
	var out T
	at := time.Date(2026, 11, 2, 3, 4, 5, 678e6, time.UTC)
	v := reflect.ValueOf(&out).Elem()
	for i := range v.NumField() {
		n, name := seed*100+i, v.Type().Field(i).Tag.Get("ch")
		switch f := v.Field(i).Addr().Interface().(type) {
		case *string:
			*f = fmt.Sprintf("%s %d \x00\xff'\\", name, n)
			if slices.Contains([]string{"digest", "previous", "key_id", "artifact", "bundle", "statement", "ruleset_digest"}, name) {
				*f = fmt.Sprintf("%064x", n)
			}
		case *[]byte:
			*f = fmt.Appendf(nil, "\x00\xff %d", n)
		case *[]string:
			*f = []string{name, "", fmt.Sprint(n)}
		case *[]row.Plugin:
			*f = []row.Plugin{{Name: "formats", Version: "1", Digest: "d"}, {}}
		case *bool:
			*f = true
		case *uint8:
			*f = 100
		case *int32:
			*f = int32(n)
		case *uint32:
			*f = uint32(n)
		case *int64:
			*f = int64(n) << 32
		case *uint64:
			*f = uint64(n) << 40
		case *time.Time:
			*f = at.Add(time.Duration(n) * time.Hour)
		case **time.Time:
			*f = &at
		default:
			tb.Fatalf("column %s is of type %T", name, f)
		}
	}
	return out
}

func two[T any](tb testing.TB) []T { return []T{filled[T](tb, 1), filled[T](tb, 2)} }

// fullBatch has two rows in every table.
func fullBatch(tb testing.TB) *row.Batch {
	return &row.Batch{
		Receipts: two[row.Receipt](tb), Quarantine: two[row.Quarantined](tb), Statements: two[row.Statement](tb),
		Scans: two[row.Scan](tb), Findings: two[row.Finding](tb), Imports: two[row.Import](tb),
		Inventories: two[row.Inventory](tb), References: two[row.Reference](tb), AgentReports: two[row.AgentReport](tb),
	}
}

func read[T any](t *testing.T, db *DB, name string) []T {
	t.Helper()
	columns := tableOf(name, func(*row.Batch) []T { return nil }).columns
	var out []T
	query := fmt.Sprintf("SELECT `%s` FROM `%s` FINAL ORDER BY ALL", strings.Join(columns, "`, `"), name)
	if err := db.conn.Select(context.Background(), &out, query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

func readAll(t *testing.T, db *DB) *row.Batch {
	t.Helper()
	return &row.Batch{
		Receipts: read[row.Receipt](t, db, "receipts"), Quarantine: read[row.Quarantined](t, db, "quarantine"),
		Statements: read[row.Statement](t, db, "statements"), Scans: read[row.Scan](t, db, "scans"),
		Findings: read[row.Finding](t, db, "findings"), Imports: read[row.Import](t, db, "imports"),
		Inventories: read[row.Inventory](t, db, "inventories"), References: read[row.Reference](t, db, "references"),
		AgentReports: read[row.AgentReport](t, db, "agent_reports"),
	}
}

// TestInsertAgainChangesNothing: by the rows' keys alone. An engine that takes a
// token for the rows loses those of an insert that a crash cut off.
func TestInsertAgainChangesNothing(t *testing.T) {
	db := newDB(t)
	b := fullBatch(t)
	for _, token := range []string{"one", "one", "two"} {
		if err := db.Insert(context.Background(), b, token); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fullBatch(t), readAll(t, db)); diff != "" {
			t.Fatalf("after token %s (-want +got):\n%s", token, diff)
		}
	}
	var rows uint64
	if err := db.ask(context.Background(), "SELECT count() FROM receipts", &rows); err != nil || rows != 6 {
		t.Errorf("%d receipts without FINAL, %v: want those of every insert", rows, err)
	}
}

func TestLinksLeaveOutTheOpenPlan(t *testing.T) {
	db := newDB(t)
	d := func(s string) string { return strings.Repeat(s, 64) }
	b := &row.Batch{}
	for _, s := range []row.Statement{
		{Sequence: 1, Digest: d("1"), Offset: 10}, {Sequence: 2, Digest: d("2"), Offset: 11}, {Sequence: 2, Digest: d("3"), Offset: 12},
		{Sequence: 3, Digest: d("4"), Offset: 20}, {Sequence: 3, Digest: d("5"), Offset: 99, Partition: 1}, {Sequence: 2, Digest: d("6"), Offset: 1, Epoch: 1},
	} {
		s.Tenant, s.Agent, s.Epoch, s.Topic, s.Previous, s.KeyID = "one", "a", 2-s.Epoch, "t", d("0"), d("0")
		s.ReceivedAt, s.SignedAt = time.Now(), time.Now()
		b.Statements = append(b.Statements, s)
	}
	if err := db.Insert(context.Background(), b, "x"); err != nil {
		t.Fatal(err)
	}
	sequences := make([]uint64, 5000)
	for i := range sequences {
		sequences[i] = uint64(i + 2)
	}
	got, err := db.Links(context.Background(), control.ChainID{Tenant: "one", Agent: "a", Epoch: 2}, sequences, &row.Range{Topic: "t", Partition: 0, From: 20})
	if err != nil {
		t.Fatal(err)
	}
	zero := predicate.ZeroDigest
	want := []control.Link{{Sequence: 2, Digest: predicate.Digest("sha256:" + d("2")), Previous: zero}, {Sequence: 2, Digest: predicate.Digest("sha256:" + d("3")), Previous: zero},
		{Sequence: 3, Digest: predicate.Digest("sha256:" + d("5")), Previous: zero}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

func TestMigrateAgain(t *testing.T) {
	db := newDB(t)
	ctx := context.Background()
	if err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	// Another retention is no other schema, and takes effect.
	other := Default()
	other.RetentionDays = 30
	changed, err := New(db.conn, other)
	if err != nil {
		t.Fatal(err)
	}
	if err := changed.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	var days uint64
	if err := db.ask(ctx, "SELECT countIf(create_table_query LIKE '%toIntervalDay(30)%') FROM system.tables WHERE database = currentDatabase()", &days); err != nil || days != uint64(len(tables)) {
		t.Errorf("%d tables keep 30 days, %v", days, err)
	}
}

// TestTheLongestRetentionEndsBeforeTimeDoes: what is received today is kept, and
// one that would be deleted at once is refused.
func TestTheLongestRetentionEndsBeforeTimeDoes(t *testing.T) {
	cfg := Default()
	cfg.RetentionDays = MaxRetentionDays + 1
	if _, err := New(nil, cfg); err == nil || !strings.Contains(err.Error(), "10950") {
		t.Errorf("a day more: %v", err)
	}
	cfg.RetentionDays = MaxRetentionDays
	db, err := New(enginetest.Start(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	scan := filled[row.Scan](t, 1)
	scan.ReceivedAt = time.Now()
	if err := db.Insert(ctx, &row.Batch{Scans: []row.Scan{scan}}, "token"); err != nil {
		t.Fatal(err)
	}
	if err := db.conn.Exec(ctx, "OPTIMIZE TABLE scans FINAL"); err != nil {
		t.Fatal(err)
	}
	var rows uint64
	if err := db.ask(ctx, "SELECT count() FROM scans", &rows); err != nil || rows != 1 {
		t.Errorf("%d rows are left, %v", rows, err)
	}
}

func TestASchemaThatDoesNotFitIsRefused(t *testing.T) {
	db := newDB(t)
	ctx := context.Background()
	refused := func(what string, err error) {
		t.Helper()
		var schema *SchemaError
		if !errors.As(err, &schema) || Retryable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ours, err := readMigrations(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	edited := append([]migration{}, ours...)
	edited[0].sum = strings.Repeat("0", 64)
	refused("an edited migration", db.migrate(ctx, edited))
	refused("a newer database", db.migrate(ctx, nil))
	if err := db.conn.Exec(ctx, "ALTER TABLE scans DROP COLUMN findings_omitted"); err != nil {
		t.Fatal(err)
	}
	refused("a column that is missing", db.Migrate(ctx))
	if _, err := readMigrations(fstest.MapFS{"m/0002_late.sql": {}}, "m"); err == nil || !strings.Contains(err.Error(), "0001_name.sql") {
		t.Errorf("a migration without those before it: %v", err)
	}
}

func TestClusterForm(t *testing.T) {
	ours, err := readMigrations(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	cfg.Cluster = "main"
	all := ours[0].statements(cfg)
	if len(all) != len(tables) {
		t.Fatalf("%d statements for %d tables", len(all), len(tables))
	}
	for _, s := range all {
		if !strings.Contains(s, " ON CLUSTER `main`\n") || !strings.Contains(s, "ENGINE = ReplicatedReplacingMergeTree(") || strings.Contains(s, "{on_cluster}") {
			t.Errorf("not the cluster's form:\n%s", s)
		}
	}
}

func TestRetryable(t *testing.T) {
	exception := func(code int32) error {
		return fmt.Errorf("insert: %w", &driver.HTTPError{StatusCode: 500, Err: &driver.Exception{Code: code}})
	}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {context.Canceled, false}, {context.DeadlineExceeded, true}, {io.ErrUnexpectedEOF, true},
		{exception(252), true}, {exception(243), true}, {exception(159), true}, {exception(999), true}, {exception(60), false},
		{exception(516), false}, {exception(16), false}, {&SchemaError{What: "a", Problem: "b"}, false}, {fmt.Errorf("x: %w", driver.ErrBatchInvalid), false},
	} {
		if got := Retryable(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Connection{Protocol: HTTP, Addresses: []string{"db:8443"}, Database: "d", Username: "u", DialTimeout: time.Second}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Connection){
		"password in the clear": func(c *Connection) { c.Password = "p" },
		"protocol":              func(c *Connection) { c.Protocol = "grpc" },
		"addresses":             func(c *Connection) { c.Addresses = []string{"db"} },
		"database":              func(c *Connection) { c.Database = "" },
		"dial timeout":          func(c *Connection) { c.DialTimeout = 0 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), strings.Fields(name)[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := (Connection{Password: "secret-word"}).LogValue().String(); strings.Contains(s, "secret-word") {
		t.Error("the log shows the password")
	}
	for _, c := range []Config{{}, {RetentionDays: 1}, {RetentionDays: 1, InsertTimeout: 1, QueryTimeout: 1, Cluster: "a b"}} {
		if c.Validate() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

package clickhouse

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"
)

// everyType has a field for each column type that the aggregator uses.
type everyType struct {
	S    string            `ch:"s"`
	LC   string            `ch:"lc"`
	FS   string            `ch:"fs"`
	U8   uint8             `ch:"u8"`
	U32  uint32            `ch:"u32"`
	U64  uint64            `ch:"u64"`
	I64  int64             `ch:"i64"`
	At   time.Time         `ch:"at"`
	Null *string           `ch:"nu"`
	NLC  *string           `ch:"nlc"`
	Arr  []string          `ch:"arr"`
	ALC  []string          `ch:"alc"`
	Tup  [][]any           `ch:"tup"`
	B    bool              `ch:"b"`
	E    string            `ch:"e"`
	M    map[string]uint64 `ch:"m"`
	F    float64           `ch:"f"`
}

const everyTypeTable = `CREATE TABLE types (
	s String, lc LowCardinality(String), fs FixedString(32), u8 UInt8, u32 UInt32, u64 UInt64, i64 Int64,
	at DateTime64(3,'UTC'), nu Nullable(String), nlc LowCardinality(Nullable(String)), arr Array(String),
	alc Array(LowCardinality(String)), tup Array(Tuple(String, UInt64)), b Bool, e Enum8('pass' = 1, 'fail' = 2),
	m Map(String, UInt64), f Float64
) ENGINE = MergeTree ORDER BY u64`

func TestEveryTypeThereAndBack(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, everyTypeTable)
	digest := string([]byte{0, 1, 2, 3, 255, '\n', '\'', '\\', 8: 9, 31: 7})
	text, at := "it's a \\ \x00 \"тест\"\n", time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	want := []everyType{
		{S: text, LC: "low", FS: digest, U8: 255, U32: 1 << 31, U64: 1, I64: -1 << 63, At: at, Null: &text, NLC: &text,
			Arr: []string{"a", "", text}, ALC: []string{"x", "y", "x"}, Tup: [][]any{{"k", uint64(1)}, {text, uint64(1) << 63}},
			B: true, E: "fail", M: map[string]uint64{"a": 1, "b": 2}, F: 0.5},
		{FS: digest, U64: 2, At: at, Arr: []string{}, ALC: []string{}, Tup: [][]any{}, E: "pass", M: map[string]uint64{}},
	}
	batch, err := e.conn.PrepareBatch(testContext(t), "INSERT INTO types")
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if err := batch.AppendStruct(&want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	var got []everyType
	if err := e.conn.Select(testContext(t), &got, "SELECT * FROM types ORDER BY u64"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows differ (-sent +read):\n%s", diff)
	}
	got = nil
	if err := e.conn.Select(testContext(t), &got, "SELECT * FROM types WHERE u64 = 99"); err != nil || len(got) != 0 {
		t.Errorf("select of nothing: %v, %v", got, err)
	}
}

func TestResultOfManyBlocks(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	rows, err := e.conn.Query(testContext(t), "SELECT number, toString(number) FROM numbers(300000) SETTINGS max_block_size = 1000")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var n, sum uint64
	for rows.Next() {
		var number uint64
		var text string
		if err := rows.Scan(&number, &text); err != nil {
			t.Fatal(err)
		}
		n, sum = n+1, sum+number
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if n != 300_000 || sum != 299_999*300_000/2 {
		t.Errorf("got %d rows with sum %d", n, sum)
	}
}

func TestDatabaseSQL(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	db := e.OpenDB()
	defer db.Close()
	var n int
	if err := db.QueryRowContext(testContext(t), "SELECT toInt32(?) + 1", 41).Scan(&n); err != nil || n != 42 {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestParameters(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	hostile := `x' OR 1=1 -- \ "`
	got := value[string](t, e.conn, "SELECT concat({a:String}, '/', toString({n:UInt64}), '/', arrayStringConcat({l:Array(String)}, ','))",
		clickhouse.Named("a", hostile), clickhouse.Named("n", "18446744073709551615"), clickhouse.Named("l", "['p','q']"))
	if want := hostile + "/18446744073709551615/p,q"; got != want {
		t.Errorf("parameters: got %q, want %q", got, want)
	}
	if got := value[string](t, e.conn, "SELECT ?", hostile); got != hostile {
		t.Errorf("positional: got %q, want %q", got, hostile)
	}
}

func TestSettingsStayWithTheirRequest(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	ctx := clickhouse.Context(testContext(t), clickhouse.WithSettings(clickhouse.Settings{"max_threads": 1, "log_comment": "it's"}))
	var threads uint64
	var comment string
	const query = "SELECT toUInt64(getSetting('max_threads')), toString(getSetting('log_comment'))"
	if err := e.conn.QueryRow(ctx, query).Scan(&threads, &comment); err != nil || threads != 1 || comment != "it's" {
		t.Errorf("with settings: %d, %q, %v", threads, comment, err)
	}
	if err := e.conn.QueryRow(testContext(t), query).Scan(&threads, &comment); err != nil || comment != "" {
		t.Errorf("without settings: %d, %q, %v", threads, comment, err)
	}
}

// TestErrors shows that errors keep ClickHouse's code through clickhouse-go.
func TestErrors(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.ResultBytes, cfg.QueryBytes, cfg.BodyBytes = 1<<20, 1<<16, 1<<16
	e := startEngine(t, cfg)
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
	with := func(name string, value any) clickhouse.Settings { return clickhouse.Settings{name: value} }
	for _, tt := range []struct {
		name, query string
		settings    clickhouse.Settings
		code        int32
	}{
		{"syntax", "SELEC 1", nil, codeSyntaxError},
		{"unknown table", "SELECT * FROM nowhere", nil, codeUnknownTable},
		{"unknown setting", "SELECT 1", with("no_such", 1), codeUnknownSetting},
		{"setting that is SQL", "SELECT 1", with("a = 1; DROP TABLE t; SET b", 1), codeUnknownSetting},
		{"second statement", "SELECT 1; DROP TABLE t", nil, codeSyntaxError},
		{"readonly", "INSERT INTO t VALUES (1)", with("readonly", 1), codeReadonly},
		{"readonly file", "SELECT * FROM file('/etc/passwd', 'LineAsString')", with("readonly", 1), codeReadonly},
		// In the query, since clickhouse-go derives the request's setting from
		// the context's deadline.
		{"too slow", "SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1, max_execution_time = 0.5", nil, codeTimeout},
		{"result too large", "SELECT number FROM numbers(1000000)", nil, codeTooManyBytes},
		{"async insert", "INSERT INTO t VALUES (1)", with("async_insert", 1), codeNotImplemented},
		{"query too large", "SELECT '" + string(make([]byte, 1<<16)) + "'", nil, codeQueryTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := clickhouse.Context(testContext(t), clickhouse.WithSettings(tt.settings))
			err := e.conn.Exec(ctx, tt.query)
			var exception *clickhouse.Exception
			if !errors.As(err, &exception) || exception.Code != tt.code {
				t.Errorf("got %v, want code %d", err, tt.code)
			}
		})
	}
	t.Run("body too large", func(t *testing.T) {
		batch, err := e.conn.PrepareBatch(testContext(t), "INSERT INTO t")
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(10_000) {
			if err := batch.Append(n); err != nil {
				t.Fatal(err)
			}
		}
		err = batch.Send()
		var exception *clickhouse.Exception
		if !errors.As(err, &exception) || exception.Code != codeQueryTooLarge {
			t.Errorf("got %v", err)
		}
	})
	if n := value[uint64](t, e.conn, "SELECT count() FROM t"); n != 0 {
		t.Errorf("refused statements left %d rows", n)
	}
}

func TestQueriesRunTogetherUpToTheLimit(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Queries, cfg.QueueWait = 2, 100*time.Millisecond
	e := startEngine(t, cfg)
	options := e.Options()
	options.MaxOpenConns = 4
	conn, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	errs := make(chan error)
	started := time.Now()
	for range 3 {
		go func() { errs <- conn.Exec(context.Background(), "SELECT sleep(1)") }()
	}
	refused := 0
	for range 3 {
		err := <-errs
		var exception *clickhouse.Exception
		switch {
		case errors.As(err, &exception) && exception.Code == codeTooManyQueries:
			refused++
		case err != nil:
			t.Error(err)
		}
	}
	if took := time.Since(started); refused != 1 || took > 1900*time.Millisecond {
		t.Errorf("two of three one-second queries: %d refused, %s", refused, took)
	}
}

// TestStartedInAFolderThatIsGone: an aggregator outlives the folder that its
// shell was in.
func TestStartedInAFolderThatIsGone(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	gone := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	e := startEngine(t, cfg)
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
	batch, err := e.conn.PrepareBatch(testContext(t), "INSERT INTO t")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(batch.Append(uint64(7)), batch.Send()); err != nil {
		t.Fatal(err)
	}
	if n := value[uint64](t, e.conn, "SELECT sum(n) FROM t"); n != 7 {
		t.Errorf("sum %d, want 7", n)
	}
}

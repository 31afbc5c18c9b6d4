package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"
)

// TestMain gives the test binary the roles that the aggregator's command line
// has: a test's engine is this program, started again.
func TestMain(m *testing.M) {
	roles := map[string]func() error{
		ChildCommand:   func() error { return RunChild(context.Background()) },
		roleParent:     runParent,
		roleNilPointer: runNilPointer,
	}
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			if err := role(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// libraryPath finds the engine's library, or fails: these tests are about the
// real one.
func libraryPath(tb testing.TB) string {
	tb.Helper()
	path, err := findLibrary()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func findLibrary() (string, error) {
	if path := os.Getenv("CAVRA_ENGINE_LIBRARY"); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "libchdb.so")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("the engine library is missing: run `make engine`, or set CAVRA_ENGINE_LIBRARY to a libchdb.so")
}

// testConfig is an engine over dir that logs to the test.
func testConfig(tb testing.TB, dir string) Config {
	return Config{Dir: dir, Library: libraryPath(tb), Log: slog.New(slog.NewTextHandler(tb.Output(), nil))}
}

// running is an engine with a client, stopped at the test's end.
type running struct {
	*Engine
	conn driver.Conn
	stop func()
}

func startEngine(tb testing.TB, cfg Config) *running {
	tb.Helper()
	engine, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(ctx) })
	conn, err := engine.Open()
	if err != nil {
		tb.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		if err := conn.Close(); err != nil {
			tb.Errorf("close client: %v", err)
		}
		cancel()
		if err := group.Wait(); err != nil {
			tb.Errorf("run engine: %v", err)
		}
	}
	tb.Cleanup(stop)
	if _, err := engine.Addr(testContext(tb)); err != nil {
		tb.Fatal(err)
	}
	return &running{Engine: engine, conn: conn, stop: stop}
}

func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

func (r *running) exec(tb testing.TB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if err := r.conn.Exec(testContext(tb), s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}

// value scans a query's single value.
func value[T any](tb testing.TB, conn driver.Conn, query string, args ...any) T {
	tb.Helper()
	var v T
	if err := conn.QueryRow(testContext(tb), query, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return v
}

const (
	roleParent     = "test-parent"
	roleNilPointer = "test-nil-pointer"
)

// runParent is a process with an engine over the folder it is told, for a
// test to kill. It inserts what it was asked to and then prints a line.
func runParent() error {
	ctx := context.Background()
	library, err := findLibrary()
	if err != nil {
		return err
	}
	engine, err := New(Config{Dir: os.Args[2], Library: library, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(ctx) })
	group.Go(func() error {
		conn, err := engine.Open()
		if err != nil {
			return err
		}
		for _, s := range []string{
			"CREATE DATABASE d", "CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n",
			"INSERT INTO d.t SELECT number FROM numbers(1000)",
		} {
			if err := conn.Exec(ctx, s); err != nil {
				return err
			}
		}
		var pid uint32
		if err := conn.QueryRow(ctx, "SELECT toUInt32(splitByChar(' ', line)[1]) FROM file('/proc/self/stat', 'LineAsString')").Scan(&pid); err != nil {
			return err
		}
		_, err = fmt.Println(pid)
		return err
	})
	return group.Wait()
}

// runNilPointer recovers from a nil dereference with the engine loaded, which
// works only when Go has its signal handlers.
func runNilPointer() (err error) {
	path, err := findLibrary()
	if err != nil {
		return err
	}
	lib, err := openLibrary(path)
	if err != nil {
		return err
	}
	conn, err := lib.boot("clickhouse", "--path="+os.Args[2])
	if err != nil {
		return err
	}
	defer conn.close()
	defer func() {
		if r := recover(); r != nil {
			fmt.Println(r)
		}
	}()
	var nothing *int
	fmt.Println(*nothing)
	return nil
}

// Package enginetest gives tests the real embedded engine: the test binary
// starts itself again as the engine's process.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse"
)

// Main runs the tests, or the engine's process when this is one. Call it from
// TestMain and exit with what it returns.
func Main(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == clickhouse.ChildCommand {
		if err := clickhouse.RunChild(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	return m.Run()
}

// Library finds the engine's library: CAVRA_ENGINE_LIBRARY, or bin/libchdb.so
// in a folder above. A missing one is a failure and not a skip.
func Library(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("CAVRA_ENGINE_LIBRARY"); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "libchdb.so")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	tb.Fatal("the engine library is missing: run `make engine`, or set CAVRA_ENGINE_LIBRARY to a libchdb.so")
	return ""
}

// Start runs an engine over a folder of its own until the test ends.
func Start(tb testing.TB) driver.Conn {
	tb.Helper()
	engine, err := clickhouse.New(clickhouse.Config{Dir: tb.TempDir(), Library: Library(tb), Log: slog.New(slog.NewTextHandler(tb.Output(), nil))})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(ctx) })
	conn, err := engine.Open()
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		err := conn.Close()
		cancel()
		if stopped := group.Wait(); stopped != nil && !errors.Is(stopped, context.Canceled) {
			err = errors.Join(err, stopped)
		}
		if err != nil {
			tb.Error(err)
		}
	})
	return conn
}

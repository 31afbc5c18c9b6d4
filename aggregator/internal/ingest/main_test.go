package ingest

import (
	"fmt"
	"os"
	"testing"

	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
)

// TestMain gives the test binary its roles: the embedded engine's process, an
// aggregator's ingest that can be killed, and the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == roleIngest {
		if err := runIngest(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(enginetest.Main(m))
}

package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	engine "github.com/cavra/cavra/aggregator/internal/embedded/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/embedded/clickhouse/enginetest"
)

const roleIngest = "test-ingest"

// runIngest is an aggregator's ingest in a process of its own, which ends when
// it has taken in all there is.
func runIngest(argument string) error {
	var p place
	if err := json.Unmarshal([]byte(argument), &p); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	a, err := openAggregator(ctx, p, log)
	for errors.Is(err, engine.ErrInUse) && ctx.Err() == nil {
		// The engine of the one that was killed is about to notice.
		a, err = openAggregator(ctx, p, log)
	}
	if err != nil {
		return err
	}
	return errors.Join(a.run(ctx, p.Ends), a.close())
}

// marks are the places where ingest must survive a crash.
var marks = []string{"plan-recorded", "admitted", "inserted", "committed", "offset-committed"}

// armedBinary builds this test with its marks armed.
func armedBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ingest.test")
	build := exec.Command("go", "test", "-c", "-tags", "faultpoint", "-o", path, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the armed test: %v\n%s", err, out)
	}
	return path
}

// killed reports whether a process died of SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// TestKilledAnywhereNothingIsLostOrDoubled kills the aggregator at every mark,
// at the first passing and at later ones, and then at random, while it takes in
// 2,000 messages.
func TestKilledAnywhereNothingIsLostOrDoubled(t *testing.T) {
	binary := armedBinary(t)
	w := newWorld(t, enginetest.Library(t), 3)
	w.place.MaxMessages = 25
	fleet(w, 2, 1999)
	start := func(point string) *exec.Cmd {
		t.Helper()
		c := exec.Command(binary, roleIngest, mustJSON(t, w.place))
		c.Env = append(os.Environ(), "CAVRA_FAULTPOINT="+point)
		c.Stdout, c.Stderr = t.Output(), t.Output()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	deaths, began := 0, time.Now()
	for _, n := range []int{1, 3, 4} {
		for _, mark := range marks {
			err := start(fmt.Sprintf("%s:%d", mark, n)).Wait()
			if !killed(err) {
				t.Fatalf("armed at %s, passing %d: ended with %v", mark, n, err)
			}
			deaths++
			t.Logf("%6.2fs: died at %s, passing %d", time.Since(began).Seconds(), mark, n)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	for try := 0; ; try++ {
		c := start("")
		// Later with each try, so that the end is reached.
		timer := time.AfterFunc(time.Duration(500+250*try+rnd.IntN(500))*time.Millisecond, func() { _ = c.Process.Kill() })
		err := c.Wait()
		timer.Stop()
		if err == nil {
			break
		}
		if !killed(err) {
			t.Fatalf("random kill %d: ended with %v", try, err)
		}
		deaths++
	}
	t.Logf("killed %d times", deaths)
	w.judge(w.open())
}

package pluginhost

import (
	"context"
	"io/fs"
	"testing"
	"time"

	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/plugin"
)

// named opens what is named by its own content.
type named struct{}

func (named) Open(_ context.Context, _, key string) (artifact.Reader, error) {
	if key == "" {
		return nil, fs.ErrNotExist
	}
	return content(key), nil
}

// TestExhaustionIsAFinding has confined workers spin, and allocate without end, over an
// artifact: each is ended, which is a finding of that artifact and a gap in what was
// read of it, and the next artifact is scanned.
func TestExhaustionIsAFinding(t *testing.T) {
	p := pool(t, Config{Workers: 1, Sandbox: plugin.SandboxRequire})
	inspector, err := inspect.New(inspect.Config{Source: named{}, Scanners: []inspect.Scanner{p}, Jobs: 1, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		content, rule string
		gap           predicate.Reason
	}{
		{"spin", "scanner.timeout", predicate.LimitTime}, {"fine", "", ""},
		{"allocate", "scanner.failed", predicate.ScannerFailed}, {"fine", "", ""},
	} {
		var worker *plugin.Process
		if w := <-p.slots; w != nil {
			worker = w.process
			p.slots <- w
		} else {
			p.slots <- nil
		}
		var result inspect.Result
		work := func(yield func(inspect.Work, error) bool) {
			yield(inspect.Work{Item: artifact.Item{Key: tt.content, Path: "f", Size: int64(len(tt.content))}}, nil)
		}
		err := inspector.Run(t.Context(), work, func(r inspect.Result) error { result = r; return nil })
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(result.Findings) > 0 {
			got = result.Findings[0].Rule
		}
		total := coverage.Sum(result.Coverage)
		if got != tt.rule || total.Complete != (tt.rule == "") || tt.gap != "" && (len(result.Coverage) == 0 || result.Coverage[0].Reason != tt.gap) {
			t.Errorf("%s: %q, %+v, %s", tt.content, got, result.Coverage, result.Message)
		}
		if tt.rule == "" || worker == nil {
			continue
		}
		select {
		case <-worker.Exited():
		default:
			t.Errorf("%s: the worker runs on", tt.content)
		}
	}
}

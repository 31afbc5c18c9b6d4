package plugin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func launch(t testing.TB, args ...string) *Process {
	t.Helper()
	p, err := Launch(t.Context(), Config{Path: self(t), args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func launchScanner(t testing.TB, role string) *Scanner {
	t.Helper()
	s, err := launch(t, role).Scanner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func file(t testing.TB, b []byte) *safeio.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := safeio.NewFile(f, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestBytesReachTheScanner(t *testing.T) { bytesReach(t, launchScanner(t, "scanner")) }

func bytesReach(t *testing.T, s *Scanner) {
	small, large := blob(1000), blob(5<<20+13)
	tests := map[string]struct {
		content artifact.Reader
		want    []byte
		via     string
	}{
		"empty":      {memory(nil), nil, "*plugin.inline"},
		"inline":     {memory(small), small, "*plugin.inline"},
		"edge":       {memory(large[:InlineMax]), large[:InlineMax], "*plugin.inline"},
		"ranges":     {memory(large), large, "*plugin.ranges"},
		"descriptor": {file(t, large), large, "*safeio.File"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := s.Scan(t.Context(), scanner.Target{Path: "any", Content: tt.content})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Imports) != 1 || got.Imports[0].Name != string(predicate.DigestOf(tt.want)) || got.Children[0].Member != tt.via {
				t.Errorf("%+v", got)
			}
			if got.Format != "blob" || got.Coverage[0].End != int64(len(tt.want)) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestFileThatGrewSinceItWasOpened(t *testing.T) {
	s := launchScanner(t, "scanner")
	content := file(t, blob(InlineMax+1))
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(content.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	_, err = s.Scan(t.Context(), scanner.Target{Path: "any", Content: content})
	var failed *FailedError
	if !errors.As(err, &failed) || !strings.Contains(failed.Words, "changed while it was read") {
		t.Errorf("error %v", err)
	}
	if err := content.Unchanged(); !errors.Is(err, safeio.ErrChanged) {
		t.Error(err)
	}
}

func TestSiblings(t *testing.T) {
	s := launchScanner(t, "scanner")
	small, large := blob(10), blob(1<<20)
	target := scanner.Target{Path: "sibling", Content: memory(nil), Siblings: func(_ context.Context, p string) (artifact.Reader, error) {
		switch p {
		case "a.bin":
			return memory(large), nil
		case "dir/b.bin":
			return memory(small), nil
		case "gone":
			return nil, fs.ErrNotExist
		}
		t.Errorf("asked for %s", p)
		return nil, errors.New("no")
	}}
	r, err := s.Scan(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range r.Imports {
		got = append(got, i.Name)
	}
	want := []string{
		"*plugin.ranges " + string(predicate.DigestOf(large)), "*plugin.inline " + string(predicate.DigestOf(small)),
		"open sibling: file does not exist", "open sibling: file does not exist",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSeveralScansAtOnce(t *testing.T) {
	s := launchScanner(t, "scanner")
	large := blob(3 << 20)
	shared := file(t, large)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			content := artifact.Reader(shared)
			if i%2 == 0 {
				content = memory(large)
			}
			got, err := s.Scan(t.Context(), scanner.Target{Path: "any", Content: content})
			if err != nil || got.Imports[0].Name != string(predicate.DigestOf(large)) {
				t.Errorf("%v, %+v", err, got)
			}
		})
	}
	wg.Wait()
}

func TestFaultsOfAProcess(t *testing.T) {
	for _, tt := range []struct {
		path string
		want CrashError
	}{{"crash", CrashError{ExitCode: 3}}, {"kill", CrashError{ExitCode: -1, Signal: "SIGKILL"}}} {
		t.Run(tt.path, func(t *testing.T) {
			s := launchScanner(t, "scanner")
			_, err := s.Scan(t.Context(), scanner.Target{Path: tt.path, Content: memory(nil)})
			var crash *CrashError
			if !errors.As(err, &crash) || *crash != tt.want {
				t.Fatalf("error %v", err)
			}
			<-s.Process().Exited()
			if _, err := s.Scan(t.Context(), scanner.Target{Path: "any", Content: memory(nil)}); !errors.As(err, &crash) {
				t.Errorf("a scan after the crash: %v", err)
			}
		})
	}
}

func TestFaultsOfOneScan(t *testing.T) {
	s := launchScanner(t, "scanner")
	for _, tt := range []struct{ path, words string }{
		{"panic", `"scanner panicked: on purpose"`}, {"fail", `"gave up \x1b[31m"`},
	} {
		r, err := s.Scan(t.Context(), scanner.Target{Path: tt.path, Content: memory(nil)})
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Words != tt.words {
			t.Errorf("%s: %v", tt.path, err)
		}
		if tt.path == "fail" && len(r.Findings) != 1 {
			t.Errorf("what was found before is lost: %+v", r)
		}
	}
	for _, path := range []string{"rule", "past"} {
		_, err := s.Scan(t.Context(), scanner.Target{Path: path, Content: memory(nil)})
		var broke *ContractError
		if !errors.As(err, &broke) {
			t.Errorf("%s: %v", path, err)
		}
	}
	// The process has survived all of it.
	if _, err := s.Scan(t.Context(), scanner.Target{Path: "any", Content: memory(nil)}); err != nil {
		t.Error(err)
	}
}

func TestWhatIsSaidIsBounded(t *testing.T) {
	s := launchScanner(t, "raw")
	for _, path := range []string{"huge", "endless", "ranges", "early", "format", "negative", "beyond", "overflow", "empty", "class", "judged", "child"} {
		t.Run(path, func(t *testing.T) {
			r, err := s.Scan(t.Context(), scanner.Target{Path: path, Content: memory(blob(InlineMax + 1))})
			var broke *ContractError
			if !errors.As(err, &broke) {
				t.Errorf("error %v, %d imports", err, len(r.Imports))
			}
		})
	}
}

func TestReportIsCutAndCounted(t *testing.T) {
	s := launchScanner(t, "scanner")
	r, err := s.Scan(t.Context(), scanner.Target{Path: "many", Content: memory(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Imports) != scanner.MaxImports || r.ImportsOmitted != 5 || r.Imports[0].Module != `m\xff` {
		t.Errorf("%d imports, %d omitted, %q", len(r.Imports), r.ImportsOmitted, r.Imports[0].Module)
	}
}

func TestCancelEndsAScanAtOnce(t *testing.T) {
	s := launchScanner(t, "scanner")
	for _, path := range []string{"hang", "deaf"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		opened := make(chan struct{})
		content := &watched{Reader: memory(blob(10)), read: opened}
		go func() {
			<-opened
			cancel(why)
		}()
		if _, err := s.Scan(ctx, scanner.Target{Path: path, Content: content}); !errors.Is(err, why) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

type watched struct {
	artifact.Reader
	once sync.Once
	read chan struct{}
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.once.Do(func() { close(w.read) })
	return w.Reader.ReadAt(p, off)
}

func TestReadErrorReachesTheScanner(t *testing.T) {
	s := launchScanner(t, "scanner")
	content := faulty{memory(blob(2 << 20))}
	_, err := s.Scan(t.Context(), scanner.Target{Path: "any", Content: content})
	var failed *FailedError
	if !errors.As(err, &failed) || !strings.Contains(failed.Words, "disk on fire") {
		t.Errorf("error %v", err)
	}
}

type faulty struct{ artifact.Reader }

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	if off >= 1<<20 {
		return 0, errors.New("disk on fire")
	}
	return f.Reader.ReadAt(p, off)
}

func TestChatterDoesNotBlock(t *testing.T) {
	s := launchScanner(t, "scanner")
	if _, err := s.Scan(t.Context(), scanner.Target{Path: "chatter", Content: memory(nil)}); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Process().Stderr()); n > stderrTail {
		t.Errorf("%d bytes of standard error are kept", n)
	}
}

func TestEnvironmentIsEmptyButForTheHandshake(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s := launchScanner(t, "scanner")
	r, err := s.Scan(t.Context(), scanner.Target{Path: "env", Content: memory(nil)})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range r.Imports {
		if i.Name != handshake.MagicCookieKey && !strings.HasPrefix(i.Name, "PLUGIN_") {
			t.Errorf("the plugin has %s", i.Name)
		}
	}
	want := []predicate.Layer{predicate.LayerEmptyEnv, predicate.LayerNoNewPrivs, predicate.LayerProcess}
	if got := s.Process().Layers(); !slices.Equal(got, want) {
		t.Errorf("layers %v", got)
	}
}

package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk opens files by their path under the root.
type disk struct{}

func (disk) Open(_ context.Context, root, key string) (artifact.Reader, error) {
	f, err := os.Open(filepath.Join(root, key))
	if err != nil {
		return nil, err
	}
	r, err := safeio.NewFile(f, key)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// remote has no descriptors.
type remote map[string][]byte

func (m remote) Open(_ context.Context, _, key string) (artifact.Reader, error) {
	b, ok := m[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return memory{bytes.NewReader(b)}, nil
}

// probe is a scanner in this process.
type probe struct {
	name string
	scan func(ctx context.Context, t scanner.Target) (scanner.Report, error)
}

func (p probe) Program() predicate.Scanner {
	return predicate.Scanner{Name: p.name, Version: "1", Digest: predicate.ZeroDigest}
}

func (p probe) Layers() []predicate.Layer { return []predicate.Layer{predicate.LayerProcess} }

func (p probe) Scan(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	return p.scan(ctx, t)
}

func parsed(t scanner.Target) scanner.Report {
	return scanner.Report{Format: "text", Coverage: []coverage.Range{{Kind: predicate.Parsed, End: t.Content.Size()}}}
}

func reads(_ context.Context, t scanner.Target) (scanner.Report, error) {
	_, err := io.Copy(io.Discard, io.NewSectionReader(t.Content, 0, t.Content.Size()))
	return parsed(t), err
}

func inspector(t *testing.T, cfg Config, scans ...func(context.Context, scanner.Target) (scanner.Report, error)) *Inspector {
	t.Helper()
	for i, s := range scans {
		cfg.Scanners = append(cfg.Scanners, probe{fmt.Sprintf("probe%d", i), s})
	}
	if cfg.Jobs == 0 {
		cfg.Jobs = 2
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func item(t *testing.T, n *Inspector, w Work) Result {
	t.Helper()
	r, err := n.Item(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rules(r Result) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, f.Rule)
	}
	return out
}

// TestDigest: the digest is that of the bytes, however they come.
func TestDigest(t *testing.T) {
	for _, size := range []int{0, 1, MaxInMemory, MaxInMemory + 1, 3<<20 + 7} {
		content := bytes.Repeat([]byte("cavra"), size/5+1)[:size]
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "f"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		for name, source := range map[string]Source{"disk": disk{}, "remote": remote{"f": content}} {
			var hashed atomic.Int64
			n := inspector(t, Config{Source: source, Progress: func(b int64) { hashed.Add(b) }}, reads)
			r := item(t, n, Work{Scope: Scope{Root: root}, Item: artifact.Item{Key: "f", Path: "f"}})
			if r.Digest != predicate.DigestOf(content) || r.Problem != "" || r.Size != int64(size) || !coverage.Sum(r.Coverage).Complete {
				t.Errorf("%s, %d bytes: %+v", name, size, r)
			}
			if hashed.Load() != int64(size) {
				t.Errorf("%s, %d bytes: progress of %d", name, size, hashed.Load())
			}
		}
	}
}

func TestProblems(t *testing.T) {
	root := t.TempDir()
	big := filepath.Join(root, "big")
	if err := os.WriteFile(big, make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(root, "small")
	if err := os.WriteFile(small, make([]byte, 100), 0o644); err != nil {
		t.Fatal(err)
	}
	edit := func(name string, change func(f *os.File) error) func(context.Context, scanner.Target) (scanner.Report, error) {
		return func(_ context.Context, tg scanner.Target) (scanner.Report, error) {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				return scanner.Report{}, err
			}
			return parsed(tg), errors.Join(change(f), f.Close())
		}
	}
	grow := func(f *os.File) error {
		_, err := f.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = f.WriteString("x")
		}
		return err
	}
	confused := func(scan func(context.Context, scanner.Target) (scanner.Report, error)) func(context.Context, scanner.Target) (scanner.Report, error) {
		return func(ctx context.Context, tg scanner.Target) (scanner.Report, error) {
			r, err := scan(ctx, tg)
			return r, errors.Join(err, &plugin.ContractError{Err: errors.New("another size")})
		}
	}
	for name, tt := range map[string]struct {
		item   artifact.Item
		source Source
		scan   func(context.Context, scanner.Target) (scanner.Report, error)
		want   predicate.Reason
	}{
		"listed as unreadable": {artifact.Item{Key: "x", Path: "x", Size: 5, Problem: predicate.PermissionDenied}, disk{}, reads, predicate.PermissionDenied},
		"a device":             {artifact.Item{Key: "x", Path: "x", Problem: predicate.NotRegular}, disk{}, reads, predicate.NotRegular},
		"gone":                 {artifact.Item{Key: "gone", Path: "gone"}, disk{}, reads, predicate.NotFound},
		"grows":                {artifact.Item{Key: "big", Path: "big"}, disk{}, edit(big, grow), predicate.Changed},
		"is cut":               {artifact.Item{Key: "big", Path: "big"}, disk{}, edit(big, func(f *os.File) error { return f.Truncate(1 << 20) }), predicate.Changed},
		"grows, and confuses":  {artifact.Item{Key: "big", Path: "big"}, disk{}, confused(edit(big, grow)), predicate.Changed},
		"small, written to":    {artifact.Item{Key: "small", Path: "small"}, disk{}, edit(small, func(f *os.File) error { _, err := f.WriteAt([]byte("y"), 0); return errors.Join(err, f.Truncate(99)) }), predicate.Changed},
		"remote, too large":    {artifact.Item{Key: "r", Path: "r"}, remote{"r": make([]byte, 1<<20)}, reads, predicate.LimitBytes},
	} {
		t.Run(name, func(t *testing.T) {
			n := inspector(t, Config{Source: tt.source, MaxRemote: 1 << 19}, tt.scan)
			r := item(t, n, Work{Scope: Scope{Root: root}, Item: tt.item})
			if r.Problem != tt.want || r.Digest != "" || r.Message == "" || coverage.Sum(r.Coverage).Complete || len(r.Findings) > 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestFailures: what a scanner does wrong is a finding and a gap.
func TestFailures(t *testing.T) {
	said := func(tg scanner.Target) scanner.Report {
		r := scanner.Report{Format: "pickle", Coverage: []coverage.Range{{Kind: predicate.Parsed, End: 50}}}
		r.AddFinding(finding.Finding{Rule: "pickle.malformed", Location: finding.Location{Class: "pickle"}})
		return r
	}
	with := func(err error) func(context.Context, scanner.Target) (scanner.Report, error) {
		return func(_ context.Context, tg scanner.Target) (scanner.Report, error) { return said(tg), err }
	}
	half := []coverage.Range{{Kind: predicate.Parsed, End: 50}, {Kind: predicate.Unread, Start: 50, End: 100, Reason: predicate.ScannerFailed}}
	none := func(why predicate.Reason) []coverage.Range {
		return []coverage.Range{{Kind: predicate.Unread, End: 100, Reason: why}}
	}
	for name, tt := range map[string]struct {
		scan  func(context.Context, scanner.Target) (scanner.Report, error)
		rules []string
		cover []coverage.Range
	}{
		"gives up": {with(&plugin.FailedError{Words: "no"}), []string{"pickle.malformed", "scanner.failed"}, half},
		"crashes":  {with(fmt.Errorf("scan: %w", &plugin.CrashError{ExitCode: 2})), []string{"pickle.malformed", "scanner.failed"}, none(predicate.ScannerFailed)},
		"lies":     {with(&plugin.ContractError{Err: errors.New("bad")}), []string{"pickle.malformed", "scanner.contract"}, none(predicate.ScannerFailed)},
		"hangs": {func(ctx context.Context, tg scanner.Target) (scanner.Report, error) {
			<-ctx.Done()
			return said(tg), context.Cause(ctx)
		}, []string{"pickle.malformed", "scanner.timeout"}, none(predicate.LimitTime)},
		"claims what is not there": {func(_ context.Context, tg scanner.Target) (scanner.Report, error) {
			return scanner.Report{Coverage: []coverage.Range{{Kind: predicate.Parsed, End: 101}}}, nil
		}, []string{"scanner.contract"}, none(predicate.ScannerFailed)},
	} {
		t.Run(name, func(t *testing.T) {
			source := remote{"f": make([]byte, 100)}
			n := inspector(t, Config{Source: source, Timeout: 20 * time.Millisecond}, tt.scan)
			r := item(t, n, Work{Item: artifact.Item{Key: "f", Path: "f"}})
			if diff := cmp.Diff(tt.rules, rules(r)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.cover, r.Coverage); diff != "" {
				t.Error(diff)
			}
			if r.Digest != predicate.DigestOf(source["f"]) {
				t.Errorf("digest %s", r.Digest)
			}
			// Another scanner's success does not make it complete.
			two := inspector(t, Config{Source: source, Timeout: 20 * time.Millisecond}, tt.scan, reads)
			if r := item(t, two, Work{Item: artifact.Item{Key: "f", Path: "f"}}); coverage.Sum(r.Coverage).Complete || len(r.Scanners) != 2 {
				t.Errorf("complete, by %d scanners", len(r.Scanners))
			}
		})
	}
}

func TestMerge(t *testing.T) {
	one := func(_ context.Context, tg scanner.Target) (scanner.Report, error) {
		return scanner.Report{Format: scanner.Unknown, Imports: []finding.Import{{Module: "b", Name: "c", How: predicate.ByGlobal, Judged: "unknown"}}}, nil
	}
	two := func(_ context.Context, tg scanner.Target) (scanner.Report, error) {
		r := parsed(tg)
		for i := range 3 {
			r.AddImport(finding.Import{Module: "b", Name: "c", How: predicate.ByGlobal, Judged: "unknown", Location: finding.Location{Offset: int64(i)}})
		}
		r.AddImport(finding.Import{Module: "a", Name: "c", How: predicate.ByGlobal, Judged: "unknown"})
		return r, nil
	}
	n := inspector(t, Config{Source: remote{"f": []byte("hello")}}, one, two)
	r := item(t, n, Work{Item: artifact.Item{Key: "f", Path: "f"}})
	if r.Format != "text" || len(r.Imports) != 2 || r.Imports[0].Module != "a" || !coverage.Sum(r.Coverage).Complete {
		t.Errorf("%+v", r)
	}
}

func TestSiblings(t *testing.T) {
	source := remote{"k1": []byte("one"), "k2": []byte("two")}
	var got []string
	n := inspector(t, Config{Source: source}, func(ctx context.Context, tg scanner.Target) (scanner.Report, error) {
		for _, p := range []string{"b", "nothing", "../n"} {
			r, err := tg.Sibling(ctx, p)
			if err != nil {
				got = append(got, fmt.Sprint(errors.Is(err, fs.ErrNotExist)))
				continue
			}
			b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
			got = append(got, string(b))
			if err := errors.Join(err, r.Close()); err != nil {
				return scanner.Report{}, err
			}
		}
		return parsed(tg), nil
	})
	keys := map[string]string{"m/a": "k1", "m/b": "k2"}
	locate := func(p string) (string, bool) { k, ok := keys[p]; return k, ok }
	item(t, n, Work{Scope: Scope{Locate: locate}, Item: artifact.Item{Key: "k1", Path: "m/a", Bundle: "m"}})
	item(t, n, Work{Scope: Scope{Locate: locate}, Item: artifact.Item{Key: "k1", Path: "m/a"}})
	if diff := cmp.Diff([]string{"two", "true", "true", "true", "true", "true"}, got); diff != "" {
		t.Error(diff)
	}
}

func works(count int) iter.Seq2[Work, error] {
	return func(yield func(Work, error) bool) {
		for i := range count {
			if !yield(Work{Item: artifact.Item{Key: "f", Path: fmt.Sprintf("%03d", i)}}, nil) {
				return
			}
		}
	}
}

// TestRun: every item has one result, no more than Jobs at a time.
func TestRun(t *testing.T) {
	var now, most atomic.Int64
	var mu sync.Mutex
	n := inspector(t, Config{Source: remote{"f": []byte("x")}, Jobs: 3}, func(_ context.Context, tg scanner.Target) (scanner.Report, error) {
		at := now.Add(1)
		defer now.Add(-1)
		mu.Lock()
		most.Store(max(most.Load(), at))
		mu.Unlock()
		if strings.HasSuffix(tg.Path, "7") {
			return scanner.Report{}, &plugin.CrashError{Signal: "killed"}
		}
		return parsed(tg), nil
	})
	var seen []string
	err := n.Run(t.Context(), works(200), func(r Result) error {
		seen = append(seen, r.Item.Path)
		return nil
	})
	slices.Sort(seen)
	if err != nil || len(slices.Compact(seen)) != 200 || most.Load() > 3 {
		t.Errorf("%d results, %d at a time, %v", len(seen), most.Load(), err)
	}
}

func TestRunEnds(t *testing.T) {
	broken := errors.New("broken")
	hang := func(ctx context.Context, tg scanner.Target) (scanner.Report, error) {
		<-ctx.Done()
		return scanner.Report{}, context.Cause(ctx)
	}
	t.Run("emit fails", func(t *testing.T) {
		n := inspector(t, Config{Source: remote{"f": nil}}, reads)
		if err := n.Run(t.Context(), works(50), func(Result) error { return broken }); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
	t.Run("the list fails", func(t *testing.T) {
		n := inspector(t, Config{Source: remote{"f": nil}}, reads)
		list := func(yield func(Work, error) bool) { yield(Work{}, broken) }
		if err := n.Run(t.Context(), list, func(Result) error { return nil }); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := inspector(t, Config{Source: remote{"f": nil}}, func(c context.Context, tg scanner.Target) (scanner.Report, error) {
			cancel()
			return hang(c, tg)
		})
		err := n.Run(ctx, works(50), func(r Result) error { t.Errorf("a result after the end: %v", r); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := Config{Source: disk{}, Scanners: []Scanner{probe{}}, Jobs: 1}
	for name, edit := range map[string]func(*Config){
		"no source":        func(c *Config) { c.Source = nil },
		"no scanner":       func(c *Config) { c.Scanners = nil },
		"no jobs":          func(c *Config) { c.Jobs = 0 },
		"too many jobs":    func(c *Config) { c.Jobs = maxJobs + 1 },
		"negative timeout": func(c *Config) { c.Timeout = -1 },
	} {
		c := good
		edit(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

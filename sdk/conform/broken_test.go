package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// recorder is a TB that remembers which checks failed.
type recorder struct {
	ctx    context.Context
	mu     sync.Mutex
	checks map[string]string
}

func record(t *testing.T) *recorder {
	return &recorder{ctx: t.Context(), checks: map[string]string{}}
}

func (*recorder) Helper() {}

func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	r.checks[strings.SplitN(text, ": ", 3)[1]] = text
}

func (r *recorder) failed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.checks))
}

// framed is a good scanner of a small format: "CAV", a length byte, and as many
// bytes; a byte 'X' among them is a finding.
type framed struct{}

func (framed) Describe() scanner.Description {
	return scanner.Description{Name: "framed", Version: "1.0.0", RulesetVersion: "1", Rules: []string{"pickle.import.dangerous"}}
}

func (framed) Scan(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	r := scanner.Report{Format: scanner.Unknown}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	size := t.Content.Size()
	if size < 4 {
		return r, nil
	}
	data := make([]byte, size)
	if err := safeio.ReadFull(t.Content, data[:4], 0, t.Path); err != nil {
		return r, err
	}
	if string(data[:3]) != "CAV" {
		return r, nil
	}
	r.Format = "framed"
	end := min(size, 4+int64(data[3]))
	for off := int64(4); off < end; off += 8 {
		if err := safeio.ReadFull(t.Content, data[off:min(off+8, end)], off, t.Path); err != nil {
			return r, err
		}
	}
	r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Parsed, End: end})
	if end < 4+int64(data[3]) {
		r.Coverage = append(r.Coverage, coverage.Range{Kind: predicate.Unread, Start: end, End: end, Reason: predicate.Truncated})
	}
	for i, b := range data[4:end] {
		if b == 'X' {
			r.AddFinding(finding.Finding{Rule: "pickle.import.dangerous", Location: finding.Location{Class: "framed", Offset: int64(i)}})
		}
	}
	return r, nil
}

// bent is framed with one thing wrong.
type bent struct {
	framed
	describe func(scanner.Description) scanner.Description
	before   func(context.Context, scanner.Target) (context.Context, scanner.Target)
	after    func(context.Context, scanner.Target, scanner.Report, error) (scanner.Report, error)
}

func (b bent) Describe() scanner.Description {
	d := b.framed.Describe()
	if b.describe != nil {
		d = b.describe(d)
	}
	return d
}

func (b bent) Scan(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	if b.before != nil {
		ctx, t = b.before(ctx, t)
	}
	r, err := b.framed.Scan(ctx, t)
	if b.after != nil {
		r, err = b.after(ctx, t, r, err)
	}
	return r, err
}

func samples() []Sample {
	return []Sample{
		{Name: "good", Data: []byte("CAV\x20" + strings.Repeat("abcd", 8)), Framed: true},
		{Name: "evil", Data: []byte("CAV\x04abXd"), Framed: true},
		{Name: "other", Data: []byte("something else")},
	}
}

func TestScannerKit(t *testing.T) {
	whole := func(r scanner.Report, t scanner.Target, kind predicate.RangeKind) scanner.Report {
		r.Coverage = []coverage.Range{{Kind: kind, End: t.Content.Size()}}
		return r
	}
	var calls atomic.Int64
	stop := make(chan struct{})
	var mu sync.Mutex
	var kept artifact.Reader
	tests := map[string]struct {
		scanner scanner.Scanner
		want    []string
	}{
		"good":                         {framed{}, nil},
		"a name that is no identifier": {bent{describe: func(d scanner.Description) scanner.Description { d.Name = "A b"; return d }}, []string{"description"}},
		"a rule of no catalogue": {bent{describe: func(d scanner.Description) scanner.Description {
			d.Rules = append(d.Rules, "no.such.rule")
			return d
		}}, []string{"description"}},
		"a rule that it did not describe": {bent{describe: func(d scanner.Description) scanner.Description { d.Rules = nil; return d }}, []string{"report"}},
		"an error for a malformed artifact": {bent{after: func(_ context.Context, t scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			if err == nil && r.Format == scanner.Unknown {
				err = errors.New("not mine")
			}
			return r, err
		}}, []string{"cuts", "report"}},
		"a claim past the end": {bent{after: func(_ context.Context, _ scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			for i := range r.Coverage {
				r.Coverage[i].End += 1000
			}
			return r, err
		}}, []string{"report"}},
		"parsed, and never read": {bent{after: func(_ context.Context, t scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			if r.Format == scanner.Unknown && err == nil {
				r = whole(r, t, predicate.Parsed)
			}
			return r, err
		}}, []string{"parsed"}},
		"read errors that are swallowed": {bent{after: func(ctx context.Context, t scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			if err != nil && ctx.Err() == nil {
				return whole(r, t, predicate.Inert), nil
			}
			return r, err
		}}, []string{"faults"}},
		"a counter in the report": {bent{after: func(_ context.Context, _ scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			r.FindingsOmitted = uint64(calls.Add(1))
			return r, err
		}}, []string{"concurrent", "deterministic"}},
		"the extension decides": {bent{after: func(_ context.Context, t scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			if strings.HasSuffix(t.Path, ".txt") {
				r = scanner.Report{Format: "text"}
			}
			return r, err
		}}, []string{"path"}},
		"the end is not missed": {bent{after: func(_ context.Context, _ scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			r.Coverage = slices.DeleteFunc(r.Coverage, func(c coverage.Range) bool { return c.Kind == predicate.Unread })
			return r, err
		}}, []string{"cuts"}},
		"deaf to its context": {bent{before: func(_ context.Context, t scanner.Target) (context.Context, scanner.Target) {
			return context.Background(), t
		}}, []string{"cancel"}},
		"a goroutine is left": {bent{before: func(ctx context.Context, t scanner.Target) (context.Context, scanner.Target) {
			go func() { <-stop }()
			return ctx, t
		}}, []string{"goroutines"}},
		"names that are not UTF-8": {bent{after: func(_ context.Context, _ scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			r.Children = []scanner.Child{{Member: "\xff", Format: "x"}}
			return r, err
		}}, []string{"report"}},
		"reads of the last scan's content": {bent{after: func(_ context.Context, t scanner.Target, r scanner.Report, err error) (scanner.Report, error) {
			mu.Lock()
			defer mu.Unlock()
			if kept != nil {
				_, _ = kept.ReadAt(make([]byte, 1), 0)
			}
			kept = t.Content
			return r, err
		}}, []string{"late"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := record(t)
			Scanner(r, func() scanner.Scanner { return tt.scanner }, samples()...)
			if diff := cmp.Diff(tt.want, r.failed()); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, r.checks)
			}
		})
	}
	close(stop)
}

// shelf is a good connector over bytes in memory.
type shelf struct{ files map[string]string }

func (shelf) Describe() connector.Description {
	return connector.Description{Name: "shelf", Version: "1"}
}

func (s shelf) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	return func(yield func(artifact.Item, error) bool) {
		if root != "root" {
			yield(artifact.Item{}, fmt.Errorf("list: %w", errNotThere))
			return
		}
		for _, p := range slices.Sorted(maps.Keys(s.files)) {
			if err := ctx.Err(); err != nil {
				yield(artifact.Item{}, err)
				return
			}
			item := artifact.Item{Key: "key-" + p, Path: p, Size: int64(len(s.files[p]))}
			if s.files[p] == "locked" {
				item.Problem = predicate.PermissionDenied
			}
			if !yield(item, nil) {
				return
			}
		}
	}
}

func (s shelf) Open(_ context.Context, _, key string) (artifact.Reader, error) {
	b, ok := s.files[strings.TrimPrefix(key, "key-")]
	switch {
	case !ok || !strings.HasPrefix(key, "key-"):
		return nil, fmt.Errorf("open: %w", errNotThere)
	case b == "locked":
		return nil, &connector.Problem{Reason: predicate.PermissionDenied, Err: errors.New("locked")}
	}
	return &book{b: b}, nil
}

var errNotThere = &connector.Problem{Reason: predicate.NotFound, Err: errors.New("not there")}

type book struct {
	b      string
	closed atomic.Bool
}

func (b *book) Size() int64 { return int64(len(b.b)) }

func (b *book) Close() error { b.closed.Store(true); return nil }

func (b *book) ReadAt(p []byte, off int64) (int, error) {
	if b.closed.Load() {
		return 0, errors.New("closed")
	}
	return strings.NewReader(b.b).ReadAt(p, off)
}

// warped is shelf with one thing wrong.
type warped struct {
	shelf
	list func(yield func(artifact.Item, error) bool) func(artifact.Item, error) bool
	open func(artifact.Reader, error) (artifact.Reader, error)
	ctx  context.Context
}

func (w warped) List(ctx context.Context, root string) iter.Seq2[artifact.Item, error] {
	if w.ctx != nil {
		ctx = w.ctx
	}
	return func(yield func(artifact.Item, error) bool) {
		if w.list != nil {
			yield = w.list(yield)
		}
		w.shelf.List(ctx, root)(yield)
	}
}

func (w warped) Open(ctx context.Context, root, key string) (artifact.Reader, error) {
	r, err := w.shelf.Open(ctx, root, key)
	if w.open != nil {
		r, err = w.open(r, err)
	}
	return r, err
}

type eofless struct{ artifact.Reader }

func (e eofless) ReadAt(p []byte, off int64) (int, error) {
	n, err := e.Reader.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

type everOpen struct{ artifact.Reader }

func (everOpen) Close() error { return nil }

func TestConnectorKit(t *testing.T) {
	files := map[string]string{"a": "first", "b/c": "second, and longer", "d": "", "e": "locked"}
	good := shelf{files}
	each := func(edit func(*artifact.Item)) func(func(artifact.Item, error) bool) func(artifact.Item, error) bool {
		return func(yield func(artifact.Item, error) bool) func(artifact.Item, error) bool {
			return func(i artifact.Item, err error) bool {
				if err == nil {
					edit(&i)
				}
				return yield(i, err)
			}
		}
	}
	var calls atomic.Int64
	tests := map[string]struct {
		connector connector.Connector
		want      []string
	}{
		"good":                   {good, nil},
		"a path that escapes":    {warped{shelf: good, list: each(func(i *artifact.Item) { i.Path = "../" + i.Path })}, []string{"listing"}},
		"one key for all":        {warped{shelf: good, list: each(func(i *artifact.Item) { i.Key = "key-a" })}, []string{"listing"}},
		"out of order":           {warped{shelf: good, list: each(func(i *artifact.Item) { i.Path = string('z' - i.Path[0] + 'a') })}, []string{"listing"}},
		"never the same":         {warped{shelf: good, list: each(func(i *artifact.Item) { i.Revision = fmt.Sprint(calls.Add(1)) })}, []string{"listing"}},
		"another size":           {warped{shelf: good, list: each(func(i *artifact.Item) { i.Size++ })}, []string{"concurrent", "read"}},
		"a problem that is none": {warped{shelf: good, list: each(func(i *artifact.Item) { i.Problem = predicate.NotFound })}, []string{"listing", "open"}},
		"an ended context":       {warped{shelf: good, ctx: context.Background()}, []string{"cancel"}},
		"never stops": {warped{shelf: good, list: func(yield func(artifact.Item, error) bool) func(artifact.Item, error) bool {
			return func(i artifact.Item, err error) bool { yield(i, err); return true }
		}}, []string{"stop"}},
		"no end":           {warped{shelf: good, open: func(r artifact.Reader, err error) (artifact.Reader, error) { return eofless{r}, err }}, []string{"read"}},
		"open after close": {warped{shelf: good, open: func(r artifact.Reader, err error) (artifact.Reader, error) { return everOpen{r}, err }}, []string{"open"}},
		"errors without a reason": {warped{shelf: good, open: func(r artifact.Reader, err error) (artifact.Reader, error) {
			if err != nil {
				err = errors.New("no")
			}
			return r, err
		}}, []string{"missing"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := record(t)
			want := map[string][]byte{"a": []byte("first"), "d": nil}
			Connector(r, func() connector.Connector { return tt.connector }, Scope{Root: "root", Missing: "nowhere", Want: want})
			if diff := cmp.Diff(tt.want, r.failed()); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, r.checks)
			}
		})
	}
}

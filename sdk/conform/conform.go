// Package conform holds the kits that every scanner and connector runs in its
// own tests. Each check states a law of the contract that is true of all
// implementations; a failure begins with the check's name.
//
// The kits count goroutines and descriptors, so a test that runs one must not
// be parallel with others.
package conform

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"

	"go.uber.org/goleak"

	"github.com/cavra/cavra/sdk/artifact"
)

// TB is what the kits need of a *testing.T.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Context() context.Context
}

// reporter puts the check's name and the sample's before each failure.
type reporter struct {
	t     TB
	check string
	about string
}

func (r reporter) errorf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("conform: %s: %s: "+format, append([]any{r.check, r.about}, args...)...)
}

// leaks runs the kit and reports the goroutines that are left after it.
func leaks(t TB, kit func()) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	kit()
	if err := goleak.Find(before); err != nil {
		reporter{t, "goroutines", "after all"}.errorf("%v", err)
	}
}

// span is [start, end) in bytes.
type span struct{ start, end int64 }

// content is an artifact.Reader over a sample. It records what was read, can
// fail, and notices a read that comes after the scan.
type content struct {
	data []byte
	// size is what Size says, usually that of data.
	size int64
	// failAt is the first read that fails, from 1, as do all that follow; 0 for
	// none. It fails with err after half of what was asked for.
	failAt int
	err    error
	// eager gives io.EOF together with the last bytes.
	eager bool
	// wait, when not nil, blocks every read until it is closed.
	wait <-chan struct{}

	mu     sync.Mutex
	reads  int
	failed bool
	late   bool
	over   bool
	spans  []span
}

func newContent(data []byte) *content { return &content{data: data, size: int64(len(data))} }

func (c *content) Size() int64 { return c.size }

func (c *content) Close() error { return nil }

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if c.wait != nil {
		<-c.wait
		return 0, context.Canceled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	c.late = c.late || c.over
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= int64(len(c.data)) {
		return 0, io.EOF
	}
	n, err := copy(p, c.data[off:]), error(nil)
	if n < len(p) || c.eager && off+int64(n) == int64(len(c.data)) {
		err = io.EOF
	}
	if c.failAt > 0 && c.reads >= c.failAt && n > 0 {
		c.failed = true
		n, err = n/2, c.err
	}
	c.spans = append(c.spans, span{off, off + int64(n)})
	return n, err
}

// end marks the scan as over, and reports what was read as disjoint spans.
func (c *content) end() []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	spans := slices.Clone(c.spans)
	slices.SortFunc(spans, func(a, b span) int { return int(min(1, max(-1, a.start-b.start))) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
			continue
		}
		out = append(out, s)
	}
	return out
}

func (c *content) readLate() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.late
}

// covers reports whether [start, end) lies within one of the disjoint spans.
func covers(spans []span, start, end int64) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.start <= start && end <= s.end })
}

// siblingsOf opens the files of a map; nil for a sample without siblings.
func siblingsOf(files map[string][]byte) func(context.Context, string) (artifact.Reader, error) {
	if files == nil {
		return nil
	}
	return func(_ context.Context, path string) (artifact.Reader, error) {
		b, ok := files[path]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return newContent(b), nil
	}
}

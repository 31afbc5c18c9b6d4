package safeio

import "sync"

// Tail is a writer that keeps the last bytes written to it and counts the rest.
// It may be used from several goroutines at once.
type Tail struct {
	mu      sync.Mutex
	buf     []byte
	limit   int
	dropped uint64
}

// NewTail keeps limit bytes.
func NewTail(limit int) *Tail { return &Tail{limit: limit} }

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if over := len(t.buf) + len(p) - t.limit; over > 0 {
		t.dropped += uint64(over)
		cut := min(over, len(t.buf))
		t.buf = append(t.buf[:0], t.buf[cut:]...)
		p = p[over-cut:]
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// Snapshot returns what is kept, and how many bytes before it are not.
func (t *Tail) Snapshot() (tail string, dropped uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf), t.dropped
}

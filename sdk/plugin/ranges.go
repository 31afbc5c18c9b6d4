package plugin

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
)

// call is one question on its way, and then its answer.
type call struct {
	done chan struct{}
	// want is how many bytes a range has to have, and -1 for a sibling.
	want    int
	data    []byte
	content *pb.Content
	err     error
}

func newCall(want int) *call { return &call{done: make(chan struct{}), want: want} }

func (c *call) fail(err error) *call {
	c.err = err
	close(c.done)
	return c
}

// ranges is an artifact.Reader over a connection that gives chunks. It keeps a
// few chunks, and fetches ahead of a reader that goes straight on.
type ranges struct {
	name  string
	size  int64
	begin func(off int64, n int) *call
	end   func() error

	mu     sync.Mutex
	chunks map[int64]*call
	recent []int64
	next   int64
	streak int
	closed bool
}

func newRanges(name string, size int64, begin func(int64, int) *call, end func() error) *ranges {
	return &ranges{name: name, size: size, begin: begin, end: end, chunks: map[int64]*call{}}
}

func (r *ranges) Size() int64 { return r.size }

func (r *ranges) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	clear(r.chunks)
	r.recent = nil
	return r.end()
}

func (r *ranges) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: offset %d", r.name, off)
	}
	done := 0
	for done < len(p) && off < r.size {
		index := off / chunk
		c, err := r.chunk(index)
		if err != nil {
			return done, err
		}
		<-c.done
		if c.err != nil {
			r.forget(index, c)
			return done, fmt.Errorf("read %s at %d: %w", r.name, off, c.err)
		}
		n := copy(p[done:], c.data[off-index*chunk:])
		done += n
		off += int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// chunk returns the chunk, begun if it was not, and begins what a reader that
// goes straight on needs next.
func (r *ranges) chunk(index int64) (*call, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("read %s: %w", r.name, fs.ErrClosed)
	}
	switch index {
	case r.next:
		r.streak++
	case r.next - 1:
	default:
		r.streak = 0
	}
	r.next = index + 1
	c := r.get(index)
	if r.streak > 1 {
		for ahead := index + 1; ahead <= index+aheadChunks && ahead*chunk < r.size; ahead++ {
			r.get(ahead)
		}
	}
	return c, nil
}

func (r *ranges) get(index int64) *call {
	if i := slices.Index(r.recent, index); i >= 0 {
		r.recent = append(slices.Delete(r.recent, i, i+1), index)
		return r.chunks[index]
	}
	if len(r.recent) >= cacheChunks {
		delete(r.chunks, r.recent[0])
		r.recent = slices.Delete(r.recent, 0, 1)
	}
	off := index * chunk
	c := r.begin(off, int(min(chunk, r.size-off)))
	r.chunks[index] = c
	r.recent = append(r.recent, index)
	return c
}

// forget drops a chunk that failed, so that it is asked for again.
func (r *ranges) forget(index int64, c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chunks[index] == c {
		delete(r.chunks, index)
		r.recent = slices.DeleteFunc(r.recent, func(i int64) bool { return i == index })
	}
}

// inline is an artifact.Reader over bytes that came with the request.
type inline struct {
	data   []byte
	mu     sync.RWMutex
	closed bool
}

var errOffset = errors.New("negative offset")

func (r *inline) Size() int64 { return int64(len(r.data)) }

func (r *inline) ReadAt(p []byte, off int64) (int, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return 0, fs.ErrClosed
	}
	if off < 0 {
		return 0, errOffset
	}
	if off >= int64(len(r.data)) {
		return 0, io.EOF
	}
	n := copy(p, r.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *inline) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

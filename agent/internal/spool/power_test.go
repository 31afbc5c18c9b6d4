package spool

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

// errPower is what every operation says once the power is cut.
var errPower = errors.New("the power is cut")

// machine is a file system over a real folder whose power can be cut. What was
// not synced then is lost in part: of a file any of its sectors, of a folder
// all changes from some point on.
type machine struct {
	rnd  *rand.Rand
	left int // operations until the power is cut
	// durable is the folder as it was synced, and changes what came after.
	durable map[string]*inode
	changes []func(map[string]*inode)
	now     map[string]*inode
}

type inode struct{ synced, now []byte }

func (m *machine) step() error {
	m.left--
	if m.left < 0 {
		return errPower
	}
	return nil
}

func (m *machine) change(f func(map[string]*inode)) {
	f(m.now)
	m.changes = append(m.changes, f)
}

func (m *machine) OpenFile(name string, flag int, perm fs.FileMode) (diskio.File, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	node := m.now[name]
	if node == nil {
		node = &inode{}
		m.change(func(dir map[string]*inode) { dir[name] = node })
	}
	if flag&os.O_TRUNC != 0 {
		node.now = nil
	}
	return &poweredFile{File: f, m: m, node: node}, nil
}

func (m *machine) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.change(func(dir map[string]*inode) { dir[to] = dir[from]; delete(dir, from) })
	return os.Rename(from, to)
}

func (m *machine) Remove(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.change(func(dir map[string]*inode) { delete(dir, name) })
	return os.Remove(name)
}

func (m *machine) SyncDir(string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.settle(len(m.changes))
	return nil
}

// settle makes the first n changes of the folder durable.
func (m *machine) settle(n int) {
	for _, c := range m.changes[:n] {
		c(m.durable)
	}
	m.changes = m.changes[n:]
}

type poweredFile struct {
	*os.File
	m    *machine
	node *inode
}

func (f *poweredFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.m.step()
	if err != nil {
		p = p[:f.m.rnd.IntN(len(p)+1)]
	}
	if grow := int(off) + len(p) - len(f.node.now); grow > 0 {
		f.node.now = append(f.node.now, make([]byte, grow)...)
	}
	copy(f.node.now[off:], p)
	n, werr := f.File.WriteAt(p, off)
	return n, errors.Join(err, werr)
}

func (f *poweredFile) Sync() error {
	if err := f.m.step(); err != nil {
		return err
	}
	f.node.synced = append([]byte(nil), f.node.now...)
	return nil
}

func (f *poweredFile) Truncate(size int64) error {
	if err := f.m.step(); err != nil {
		return err
	}
	f.node.now = append([]byte(nil), f.node.now[:size]...)
	return f.File.Truncate(size)
}

// cut rebuilds the folder as the machine finds it after the power is back.
func (m *machine) cut(t *testing.T, dir string) {
	t.Helper()
	m.settle(m.rnd.IntN(len(m.changes) + 1))
	m.changes = nil
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m.now = map[string]*inode{}
	for name, node := range m.durable {
		b := m.remains(node)
		fresh := &inode{synced: b, now: append([]byte(nil), b...)}
		m.durable[name], m.now[name] = fresh, fresh
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// remains is what is left of a file: any of the sectors that were not synced.
func (m *machine) remains(node *inode) []byte {
	const sector = 512
	out := append([]byte(nil), node.synced...)
	size := len(out)
	if d := len(node.now) - size; d != 0 && m.rnd.IntN(2) == 0 {
		size += d
		if d > 0 {
			size -= m.rnd.IntN(d + 1)
		}
	}
	out = append(out, make([]byte, max(0, size-len(out)))...)[:size]
	for at := 0; at < min(size, len(node.now)); at += sector {
		if m.rnd.IntN(2) == 0 {
			copy(out[at:min(at+sector, size)], node.now[at:])
		}
	}
	return out
}

// TestPowerCutsLoseNothingThatWasConfirmed cuts the power at random operations,
// also while the spool recovers from the cut before.
func TestPowerCutsLoseNothingThatWasConfirmed(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		dir := filepath.Join(t.TempDir(), "spool")
		m := &machine{rnd: rnd, durable: map[string]*inode{}, now: map[string]*inode{}}
		cfg := config(t, dir)
		cfg.FS, cfg.SegmentBytes = m, 5000
		public := map[uint64]sent{}
		var confirmed []uint64
		id := uint64(0)
		for range 40 {
			m.left = rnd.IntN(60)
			s, err := Open(cfg, len(public) == 0)
			if err == nil {
				err = work(t, s, rnd, public, &confirmed, &id)
				if cerr := s.Close(); cerr != nil {
					t.Fatal(cerr)
				}
			}
			if !errors.Is(err, errPower) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			// Now and then only the process dies, and the next one reads what no
			// disk has confirmed.
			if rnd.IntN(3) > 0 {
				m.cut(t, dir)
			}
		}
		m.left = 1 << 30
		s := mustOpen(t, cfg, len(public) == 0)
		if n := len(mustLosses(t, s)); n != 0 {
			t.Fatalf("seed %d: %d losses", seed, n)
		}
		for _, e := range drain(t, s, 10) {
			take(t, public, e)
		}
		mustClose(t, s)
		holds(t, seed, public, confirmed)
	}
}

func mustLosses(t *testing.T, s *Spool) []loss {
	t.Helper()
	all, err := s.losses()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// work appends and publishes until the power is cut.
func work(t *testing.T, s *Spool, rnd *rand.Rand, public map[uint64]sent, confirmed *[]uint64, id *uint64) error {
	for {
		if rnd.IntN(3) > 0 || s.Stats().Statements == 0 {
			from, n := *id+1, 1+rnd.Uint64N(4)
			*id += n
			if _, err := s.Append(t.Context(), beats(from, *id)...); err != nil {
				return err
			}
			*confirmed = append(*confirmed, numbers(from, *id)...)
			continue
		}
		entries, err := s.Next(t.Context(), 1+rnd.IntN(10), 1<<20)
		if err != nil {
			return err
		}
		for _, e := range entries {
			take(t, public, open(t, e, key(t, 1)))
		}
		if err := s.Ack(entries[rnd.IntN(len(entries))].Place); err != nil {
			return err
		}
	}
}

func take(t *testing.T, public map[uint64]sent, m sent) {
	t.Helper()
	if was, ok := public[m.Sequence]; ok && was.digest != m.digest {
		t.Fatalf("%d is public twice: %s and %s", m.Sequence, was.digest, m.digest)
	}
	public[m.Sequence] = m
}

// holds checks that what is public is one whole chain with all that was
// confirmed.
func holds(t *testing.T, seed uint64, public map[uint64]sent, confirmed []uint64) {
	t.Helper()
	var all []sent
	for n := uint64(1); n <= uint64(len(public)); n++ {
		m, ok := public[n]
		if !ok {
			t.Fatalf("seed %d: %d of %d is missing", seed, n, len(public))
		}
		all = append(all, m)
	}
	unbroken(t, all)
	have := map[uint64]bool{}
	for _, m := range all {
		have[m.p.(*predicate.Heartbeat).SpoolBytes] = true
	}
	for _, id := range confirmed {
		if !have[id] {
			t.Fatalf("seed %d: %d was confirmed and is gone", seed, id)
		}
	}
	if len(confirmed) < 50 {
		t.Errorf("seed %d: only %d statements were confirmed", seed, len(confirmed))
	}
}

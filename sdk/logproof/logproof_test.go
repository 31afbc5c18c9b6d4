package logproof

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cavra/cavra/schemas/predicate"
)

// tree is a log in memory.
type tree struct {
	tb     testing.TB
	hashes []tlog.Hash
	signer note.Signer
	key    string
	size   int64
}

func newTree(tb testing.TB, origin string) *tree {
	tb.Helper()
	private, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		tb.Fatal(err)
	}
	return &tree{tb: tb, signer: signer, key: public}
}

func (r *tree) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, r.hashes[i])
	}
	return out, nil
}

func (r *tree) add(d predicate.Digest) { r.addEntry(Entry(d)) }

func (r *tree) addEntry(entry []byte) {
	r.tb.Helper()
	hashes, err := tlog.StoredHashes(r.size, entry, r)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.hashes = append(r.hashes, hashes...)
	r.size++
}

func (r *tree) checkpoint() []byte {
	r.tb.Helper()
	root, err := tlog.TreeHash(r.size, r)
	if err != nil {
		r.tb.Fatal(err)
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", r.signer.Name(), r.size, base64.StdEncoding.EncodeToString(root[:]))
	b, err := note.Sign(&note.Note{Text: text}, r.signer)
	if err != nil {
		r.tb.Fatal(err)
	}
	return b
}

func (r *tree) open() Checkpoint {
	r.tb.Helper()
	c, err := Open(r.checkpoint(), r.key)
	if err != nil {
		r.tb.Fatal(err)
	}
	return c
}

func (r *tree) prove(index int64) [][]byte {
	r.tb.Helper()
	p, err := tlog.ProveRecord(r.size, index, r)
	if err != nil {
		r.tb.Fatal(err)
	}
	return bytesOf(p)
}

func bytesOf[T ~[]tlog.Hash](proof T) (out [][]byte) {
	for _, h := range proof {
		out = append(out, bytes.Clone(h[:]))
	}
	return out
}

func statement(n int64) predicate.Digest { return predicate.DigestOf(fmt.Appendf(nil, "%d", n)) }

func TestProofs(t *testing.T) {
	r := newTree(t, "log.test/a")
	trees := []Checkpoint{r.open()}
	for n := range int64(40) {
		r.add(statement(n))
		c := r.open()
		trees = append(trees, c)
		for i := range r.size {
			p, err := tlog.ProveRecord(r.size, i, r)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Includes(statement(i), uint64(i), bytesOf(p)); err != nil {
				t.Fatal(err)
			}
			for what, err := range map[string]error{
				"another statement": c.Includes(statement(i+1000), uint64(i), bytesOf(p)),
				"another place":     c.Includes(statement(i), uint64(i+1), bytesOf(p)),
				"past the end":      c.Includes(statement(i), uint64(1)<<60, bytesOf(p)),
				"a hash more":       c.Includes(statement(i), uint64(i), append(bytesOf(p), make([]byte, 32))),
				"a short hash":      c.Includes(statement(i), uint64(i), append(bytesOf(p), []byte("x"))),
			} {
				if !errors.Is(err, ErrProof) {
					t.Fatalf("%s, entry %d of %d: %v", what, i, r.size, err)
				}
			}
		}
	}
	last := trees[len(trees)-1]
	for _, old := range trees[1:] {
		p, err := tlog.ProveTree(int64(last.Size), int64(old.Size), r)
		if err != nil {
			t.Fatal(err)
		}
		if err := last.Extends(old, bytesOf(p)); err != nil {
			t.Error(err)
		}
		if forged := (Checkpoint{old.Origin, old.Size, tlog.Hash{1}}); !errors.Is(last.Extends(forged, bytesOf(p)), ErrProof) {
			t.Errorf("a tree of %d that never was is extended", old.Size)
		}
		if old.Size < last.Size && !errors.Is(old.Extends(last, bytesOf(p)), ErrProof) {
			t.Errorf("a log of %d entries has grown from %d", old.Size, last.Size)
		}
	}
	other := trees[3]
	other.Origin = "log.test/b"
	if !errors.Is(last.Extends(other, nil), ErrProof) {
		t.Error("a log extends another")
	}
}

func TestCheckpointsThatAreNotTheLogs(t *testing.T) {
	r, other := newTree(t, "log.test/a"), newTree(t, "log.test/a")
	r.add(statement(1))
	good := r.checkpoint()
	signed := func(text string) []byte {
		b, err := note.Sign(&note.Note{Text: text}, r.signer)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for what, b := range map[string][]byte{
		"nothing": nil, "another size": bytes.Replace(good, []byte("\n1\n"), []byte("\n2\n"), 1), "another key": other.checkpoint(),
		"another name": signed("log.test/b\n1\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"),
		"no root":      signed("log.test/a\n1\n"), "a short root": signed("log.test/a\n1\nAAAA\n"),
		"a signed size": signed("log.test/a\n+1\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"),
		"too large":     append(bytes.Clone(good), make([]byte, maxCheckpoint)...),
	} {
		if c, err := Open(b, r.key); err == nil {
			t.Errorf("%s: opened as %+v", what, c)
		}
	}
	if _, err := Open(good, "not a key"); err == nil {
		t.Error("opened by what is no key")
	}
}

func FuzzOpen(f *testing.F) {
	r := newTree(f, "log.test/a")
	r.add(statement(1))
	want := r.open()
	f.Add(r.checkpoint(), []byte("0123456789abcdef0123456789abcdef"), uint64(0))
	f.Fuzz(func(t *testing.T, checkpoint, proof []byte, index uint64) {
		c, err := Open(checkpoint, r.key)
		if err != nil {
			return
		}
		if c != want {
			t.Fatalf("a checkpoint that the log did not sign: %+v", c)
		}
		var hashes [][]byte
		for len(proof) > 0 {
			n := min(len(proof), tlog.HashSize)
			hashes, proof = append(hashes, proof[:n]), proof[n:]
		}
		if c.Includes(statement(2), index, hashes) == nil {
			t.Fatal("a statement that is not there was proven")
		}
	})
}

package witness

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cavra/cavra/sdk/logproof"
)

// tree is a log in memory.
type tree struct {
	tb     testing.TB
	hashes []tlog.Hash
	signer note.Signer
	key    string
	size   int64
}

func newTree(tb testing.TB) *tree {
	tb.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "log.test/a")
	must(tb, err)
	signer, err := note.NewSigner(private)
	must(tb, err)
	return &tree{tb: tb, signer: signer, key: public}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (r *tree) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, r.hashes[i])
	}
	return out, nil
}

// grow adds entries that the salt stands for.
func (r *tree) grow(n int, salt string) {
	r.tb.Helper()
	for range n {
		hashes, err := tlog.StoredHashes(r.size, fmt.Appendf(nil, "%s %d", salt, r.size), r)
		must(r.tb, err)
		r.hashes = append(r.hashes, hashes...)
		r.size++
	}
}

// request asks for the tree's checkpoint to be signed, as grown from a size.
func (r *tree) request(old int64) string {
	r.tb.Helper()
	root, err := tlog.TreeHash(r.size, r)
	must(r.tb, err)
	checkpoint, err := note.Sign(&note.Note{Text: fmt.Sprintf("log.test/a\n%d\n%s\n", r.size, base64.StdEncoding.EncodeToString(root[:]))}, r.signer)
	must(r.tb, err)
	body := fmt.Sprintf("old %d\n", old)
	if old > 0 && old < r.size {
		proof, err := tlog.ProveTree(r.size, old, r)
		must(r.tb, err)
		for _, h := range proof {
			body += base64.StdEncoding.EncodeToString(h[:]) + "\n"
		}
	}
	return body + "\n" + string(checkpoint)
}

func start(t *testing.T, dir string, r *tree) (url string, stop func()) {
	t.Helper()
	cosigner, err := logproof.NewCosigner("audit.test", bytes.Repeat([]byte{7}, 32), time.Now)
	must(t, err)
	w, err := Open(Config{Dir: dir, Cosigner: cosigner, Logs: map[string]string{"log.test/a": r.key}, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	s := httptest.NewServer(w.Handler())
	return s.URL + Path, func() { s.Close(); must(t, w.Close()) }
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	answer, err := http.Post(url, "text/plain", bytes.NewReader([]byte(body)))
	must(t, err)
	defer answer.Body.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	must(t, err)
	return answer.StatusCode, string(b)
}

// TestOneHistory: a witness signs a log as it grows, over its own restart, and
// nothing that does not extend what it signed.
func TestOneHistory(t *testing.T) {
	dir, r := t.TempDir(), newTree(t)
	url, stop := start(t, dir, r)
	other := newTree(t)
	other.grow(3, "other")
	fork := *r
	sign := func(r *tree, old int64, want int) string {
		t.Helper()
		code, body := post(t, url, r.request(old))
		if code != want {
			t.Fatalf("size %d after %d: %d %s, want %d", r.size, old, code, body, want)
		}
		return body
	}
	sign(r, 0, http.StatusOK)
	r.grow(4, "honest")
	fork.grow(4, "forked")
	sign(r, 0, http.StatusOK)
	if size := sign(r, 3, http.StatusConflict); size != "4\n" {
		t.Errorf("the size that was signed is told as %q", size)
	}
	sign(&fork, 4, http.StatusConflict)
	fork.grow(5, "forked")
	sign(&fork, 4, http.StatusUnprocessableEntity)
	sign(r, 9, http.StatusBadRequest)
	sign(other, 4, http.StatusForbidden)
	stop()
	url, stop = start(t, dir, r)
	defer stop()
	sign(&fork, 0, http.StatusConflict)
	sign(&fork, 4, http.StatusUnprocessableEntity)
	r.grow(3, "honest")
	body := sign(r, 4, http.StatusOK)
	cosigner, err := logproof.NewCosigner("audit.test", bytes.Repeat([]byte{7}, 32), time.Now)
	must(t, err)
	_, checkpoint, _ := bytes.Cut([]byte(r.request(4)), []byte("\n\n"))
	if names, err := logproof.Witnessed(append(checkpoint, body...), []logproof.Witness{cosigner.Witness}, 1); err != nil || len(names) != 1 {
		t.Errorf("its word: %q, %v", names, err)
	}
	if code, _ := post(t, url, "old 7\n\nlog.test/b\n7\nAAAA\n\n"); code != http.StatusNotFound {
		t.Errorf("another log: %d", code)
	}
	if code, _ := post(t, url, "x"); code != http.StatusBadRequest {
		t.Errorf("garbage: %d", code)
	}
	if _, err := Open(Config{Dir: dir, Cosigner: cosigner, Logs: map[string]string{"log.test/a": r.key}, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("two witnesses run over one folder")
	}
}

func FuzzRequest(f *testing.F) {
	r := newTree(f)
	r.grow(5, "x")
	f.Add([]byte(r.request(3)))
	f.Add([]byte("old 0\n\n"))
	last := logproof.Checkpoint{Origin: "log.test/a", Size: 3}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parse(b)
		if err != nil {
			return
		}
		now := logproof.Checkpoint{Origin: "log.test/a", Size: 5, Root: tlog.Hash{1}}
		if judge(last, now, q) == nil {
			t.Error("a proof of a tree that never was")
		}
	})
}

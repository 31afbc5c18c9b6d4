// Package witness is a witness of transparency logs: it signs a log's checkpoint
// if that extends the last one that it signed, and so lets the log have one
// history (c2sp.org/tlog-witness).
//
// It guarantees that what it has signed is on the disk before the signature is
// given out, so that no crash lets it sign two histories, and that it signs for no
// log but those whose keys it was given.
package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/logproof"
)

const (
	// Path is where a log sends its checkpoints.
	Path = "/add-checkpoint"

	maxRequest    = 64 << 10
	maxCheckpoint = 64 << 10
	// maxProof is how many hashes a proof of growth can have.
	maxProof = 63
	sizeType = "text/x.tlog.size"
)

// Config is what a Witness is made of.
type Config struct {
	// Dir holds the last checkpoint that was signed of each log. It belongs to one
	// process at a time.
	Dir      string
	Cosigner *logproof.Cosigner
	// Logs are the logs' public keys, by their origins.
	Logs map[string]string
	Log  *slog.Logger
}

// Witness signs for some logs.
type Witness struct {
	cfg    Config
	unlock func() error
	// mu lets one checkpoint be judged at a time.
	mu sync.Mutex
}

// Open takes the folder. Close the Witness.
func Open(cfg Config) (*Witness, error) {
	if cfg.Dir == "" || cfg.Cosigner == nil || len(cfg.Logs) == 0 || cfg.Log == nil {
		return nil, errors.New("open witness: folder, key, logs and logger are all needed")
	}
	if err := diskio.MakeDir(diskio.OS{}, cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open witness: %w", err)
	}
	unlock, err := diskio.Lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open witness: %w: is another one running on this folder?", err)
	}
	return &Witness{cfg: cfg, unlock: unlock}, nil
}

// Close lets go of the folder.
func (w *Witness) Close() error { return w.unlock() }

// Handler serves the logs.
func (w *Witness) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, w.serve)
	return mux
}

// refusal is why a checkpoint is not signed.
type refusal struct {
	code int
	why  string
	// size is what the witness has signed, where the log has to know it.
	size *uint64
}

func (r *refusal) Error() string { return r.why }

func (w *Witness) serve(out http.ResponseWriter, r *http.Request) {
	line, err := w.answer(r)
	var no *refusal
	switch {
	case err == nil:
		_, err = out.Write(line)
	case errors.As(err, &no) && no.size != nil:
		out.Header().Set("Content-Type", sizeType)
		out.WriteHeader(no.code)
		_, err = fmt.Fprintf(out, "%d\n", *no.size)
	case errors.As(err, &no):
		w.cfg.Log.WarnContext(r.Context(), "checkpoint not signed", slog.String("why", no.why))
		http.Error(out, no.why, no.code)
		return
	default:
		w.cfg.Log.ErrorContext(r.Context(), "checkpoint not signed", slog.Any("error", err))
		http.Error(out, "the witness's disk fails", http.StatusInternalServerError)
		return
	}
	if err != nil {
		w.cfg.Log.DebugContext(r.Context(), "answer not sent", slog.Any("error", err))
	}
}

func (w *Witness) answer(r *http.Request) ([]byte, error) {
	var body bytes.Buffer
	if _, err := body.ReadFrom(http.MaxBytesReader(nil, r.Body, maxRequest)); err != nil {
		return nil, &refusal{code: http.StatusBadRequest, why: "the request cannot be read, or is too long"}
	}
	q, err := parse(body.Bytes())
	if err != nil {
		return nil, &refusal{code: http.StatusBadRequest, why: err.Error()}
	}
	return w.Add(r.Context(), q)
}

// Request is a checkpoint, with the proof that its log has grown from a size.
type Request struct {
	Old        uint64
	Proof      [][]byte
	Checkpoint []byte
}

// parse reads a request: "old SIZE", the proof's hashes, an empty line, the
// checkpoint.
func parse(b []byte) (Request, error) {
	head, checkpoint, ok := bytes.Cut(b, []byte("\n\n"))
	lines := bytes.Split(head, []byte("\n"))
	size, isOld := bytes.CutPrefix(lines[0], []byte("old "))
	if !ok || !isOld || len(lines) > maxProof+1 {
		return Request{}, errors.New("want a line with the old size, the hashes of a proof, an empty line and a checkpoint")
	}
	q := Request{Checkpoint: checkpoint}
	var err error
	if q.Old, err = strconv.ParseUint(string(size), 10, 62); err != nil || strconv.FormatUint(q.Old, 10) != string(size) {
		return Request{}, errors.New("the old size is no number")
	}
	for _, line := range lines[1:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(string(line))
		if err != nil {
			return Request{}, errors.New("the proof's hashes are not in base64")
		}
		q.Proof = append(q.Proof, hash)
	}
	return q, nil
}

// Add signs a checkpoint, or says why not.
func (w *Witness) Add(ctx context.Context, q Request) ([]byte, error) {
	origin, _, _ := bytes.Cut(q.Checkpoint, []byte("\n"))
	key, ok := w.cfg.Logs[string(origin)]
	if !ok {
		return nil, &refusal{code: http.StatusNotFound, why: "the log is not one that this witness looks after"}
	}
	now, err := logproof.Open(q.Checkpoint, key)
	if err != nil {
		return nil, &refusal{code: http.StatusForbidden, why: "the checkpoint is not signed by its log"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last, err := w.last(now.Origin, key)
	if err != nil {
		return nil, err
	}
	if no := judge(last, now, q); no != nil {
		if no.size == nil {
			w.cfg.Log.ErrorContext(ctx, "a log does not extend what was signed of it", slog.String("log", now.Origin),
				slog.Uint64("signed", last.Size), slog.Uint64("asked", now.Size), slog.String("why", no.why))
		}
		return nil, no
	}
	line, err := w.cfg.Cosigner.Cosign(q.Checkpoint, key)
	if err != nil {
		return nil, err
	}
	if err := diskio.WriteFile(diskio.OS{}, w.path(now.Origin), q.Checkpoint, 0o600); err != nil {
		return nil, fmt.Errorf("keep checkpoint: %w", err)
	}
	faultpoint.Hit("witness-kept")
	return line, nil
}

// judge compares a checkpoint with the last that was signed.
func judge(last, now logproof.Checkpoint, q Request) *refusal {
	switch {
	case q.Old > now.Size:
		return &refusal{code: http.StatusBadRequest, why: "the old size is beyond the checkpoint's"}
	case q.Old != last.Size:
		return &refusal{code: http.StatusConflict, why: "another size was signed last", size: &last.Size}
	case q.Old == now.Size && q.Old > 0 && last.Root != now.Root:
		return &refusal{code: http.StatusConflict, why: "another tree of this size was signed"}
	case (q.Old == 0 || q.Old == now.Size) && len(q.Proof) > 0:
		return &refusal{code: http.StatusUnprocessableEntity, why: "there is nothing to be proven"}
	case q.Old > 0 && now.Extends(last, q.Proof) != nil:
		return &refusal{code: http.StatusUnprocessableEntity, why: "the proof does not show that the log extends what was signed"}
	}
	return nil
}

// last is the checkpoint that was signed last; one of size 0 where there is none.
func (w *Witness) last(origin, key string) (logproof.Checkpoint, error) {
	b, err := diskio.ReadFile(w.path(origin), maxCheckpoint)
	if errors.Is(err, os.ErrNotExist) {
		return logproof.Checkpoint{Origin: origin}, nil
	}
	if err != nil {
		return logproof.Checkpoint{}, fmt.Errorf("read last checkpoint: %w", err)
	}
	c, err := logproof.Open(b, key)
	if err != nil {
		return logproof.Checkpoint{}, fmt.Errorf("read last checkpoint of %s: %w", origin, err)
	}
	return c, nil
}

func (w *Witness) path(origin string) string {
	return filepath.Join(w.cfg.Dir, predicate.DigestOf([]byte(origin)).Hex()[:32]+".checkpoint")
}

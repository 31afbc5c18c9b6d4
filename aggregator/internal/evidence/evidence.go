// Package evidence keeps the transparency log: an append-only Merkle tree
// (RFC 6962, as tiles of c2sp.org/tlog-tiles) of the digest of every statement
// that was accepted, and of what happened to the keys. Its checkpoints are signed, so that who keeps one can show
// later that nothing before it was changed, moved or taken out.
//
// It guarantees that Append returns once a published checkpoint commits to the
// entries. A statement that was appended by a run that then crashed may stand in
// the log twice; each of the two is in the tree for good.
package evidence

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/logproof"
)

const (
	keyFile  = "log.key"
	tilesDir = "log"

	// batch and batchAge bound what is put into the tree at a time.
	batch    = 1024
	batchAge = 20 * time.Millisecond
	// publishEvery is the least time between two checkpoints, and poll how often a
	// new one is looked for.
	publishEvery = 100 * time.Millisecond
	poll         = 20 * time.Millisecond
	maxKey       = 4 << 10
	// witnessTimeout bounds the wait for witnesses, and maxAnswer what one says, in
	// bytes: a cut one is no signature.
	witnessTimeout = 10 * time.Second
	maxAnswer      = 16 << 10
)

// Config says where a log is.
type Config struct {
	// Dir is the log's folder. It belongs to one process at a time.
	Dir string
	// Origin names the log in its checkpoints, as a URL without a scheme: letters,
	// digits, dots and slashes. It is fixed with the first start.
	Origin string
	// Witnesses have to sign a checkpoint before it is published: Required of them,
	// all where that is 0. What is not published is not acknowledged, so that
	// nothing is taken in without them.
	Witnesses []Witness
	Required  int
	Log       *slog.Logger
}

// Witness follows the log from elsewhere (c2sp.org/tlog-witness).
type Witness struct {
	// Key is its public key, and URL where checkpoints are sent.
	Key, URL string
}

// Log is an open log.
type Log struct {
	key, id  string
	appender *tessera.Appender
	reader   tessera.LogReader
	await    *tessera.PublicationAwaiter
	stop     func() error

	mu sync.Mutex
	// unpublished are the entries that were put into the log and that no checkpoint
	// is known to commit to. Asked for again, they are not put there again: a
	// witness may be away for long.
	unpublished map[[sha256.Size]byte]tessera.IndexFuture
}

// Open opens a log, and makes it and its key where there is none.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l, err := openLog(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the transparency log: %w", err)
	}
	return l, nil
}

func openLog(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Dir == "" || cfg.Origin == "" || cfg.Log == nil {
		return nil, errors.New("folder, origin and logger are all needed")
	}
	if err := diskio.MakeDir(diskio.OS{}, cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	signer, key, err := loadKey(cfg)
	if err != nil {
		return nil, err
	}
	klog.SetSlogLogger(cfg.Log.With(slog.String("part", "transparency log")))
	client := &http.Client{Transport: bounded{http.DefaultTransport}, Timeout: witnessTimeout}
	driver, err := posix.New(ctx, posix.Config{Path: filepath.Join(cfg.Dir, tilesDir), HTTPClient: client})
	if err != nil {
		return nil, err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(batch, batchAge).
		WithCheckpointInterval(publishEvery).WithCheckpointRepublishInterval(0)
	if len(cfg.Witnesses) > 0 {
		group, err := cfg.group()
		if err != nil {
			return nil, err
		}
		options = options.WithWitnesses(group, &tessera.WitnessOptions{Timeout: witnessTimeout})
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	appender, shutdown, reader, err := tessera.NewAppender(background, driver, options)
	if err != nil {
		cancel()
		return nil, err
	}
	id := fmt.Sprintf("%s+%08x", signer.Name(), signer.KeyHash())
	l := &Log{key: key, id: id, appender: appender, reader: reader, unpublished: map[[sha256.Size]byte]tessera.IndexFuture{}}
	l.await = tessera.NewPublicationAwaiter(background, reader.ReadCheckpoint, poll)
	l.stop = func() error {
		defer cancel()
		return shutdown(background)
	}
	return l, nil
}

// group is the policy of the witnesses, by way of its text: Tessera makes a group
// of a list in no other.
func (c Config) group() (tessera.WitnessGroup, error) {
	need := c.Required
	if need == 0 {
		need = len(c.Witnesses)
	}
	var text, names strings.Builder
	for i, w := range c.Witnesses {
		fmt.Fprintf(&text, "witness w%d %s %s\n", i, w.Key, w.URL)
		fmt.Fprintf(&names, " w%d", i)
	}
	fmt.Fprintf(&text, "group required %d%s\nquorum required\n", need, names.String())
	g, err := tessera.NewWitnessGroupFromPolicy([]byte(text.String()))
	if err != nil {
		return g, fmt.Errorf("witnesses: %w", err)
	}
	return g, nil
}

// bounded cuts what a witness answers.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// loadKey reads the log's key, and makes one for a new log.
func loadKey(cfg Config) (note.Signer, string, error) {
	name := filepath.Join(cfg.Dir, keyFile)
	b, err := diskio.ReadFile(name, maxKey)
	if errors.Is(err, os.ErrNotExist) {
		private, public, err := note.GenerateKey(rand.Reader, cfg.Origin)
		if err != nil {
			return nil, "", fmt.Errorf("make the log's key: %w", err)
		}
		b = []byte(private + "\n" + public + "\n")
		if err := diskio.WriteFile(diskio.OS{}, name, b, 0o600); err != nil {
			return nil, "", err
		}
	} else if err != nil {
		return nil, "", err
	}
	private, public, ok := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if !ok {
		return nil, "", fmt.Errorf("read %s: want a private and a public key, a line each", name)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	if v, err := note.NewVerifier(public); err != nil || v.Name() != signer.Name() || v.KeyHash() != signer.KeyHash() {
		return nil, "", fmt.Errorf("read %s: the two keys are not a pair", name)
	}
	return signer, public, nil
}

// Key is the log's public key, as logproof.Open takes it.
func (l *Log) Key() string { return l.key }

// ID is the log's name with its key's hash: no other log has it.
func (l *Log) ID() string { return l.id }

// Append puts statements into the log and returns their indexes, once a published
// checkpoint commits to all of them.
func (l *Log) Append(ctx context.Context, statements []predicate.Digest) ([]uint64, error) {
	entries := make([][]byte, len(statements))
	for i, d := range statements {
		entries[i] = logproof.Entry(d)
	}
	return l.append(ctx, entries)
}

func (l *Log) append(ctx context.Context, entries [][]byte) ([]uint64, error) {
	futures, sums := make([]tessera.IndexFuture, len(entries)), make([][sha256.Size]byte, len(entries))
	for i, e := range entries {
		sums[i] = sha256.Sum256(e)
		futures[i] = l.add(ctx, sums[i], e)
	}
	out := make([]uint64, len(entries))
	for i, f := range futures {
		index, _, err := l.await.Await(ctx, f)
		if err != nil {
			l.forgetFailed(futures, sums)
			return nil, fmt.Errorf("append to the transparency log: %w", err)
		}
		out[i] = index.Index
	}
	l.forget(sums)
	return out, nil
}

// add puts an entry into the log, unless it is there and not published.
func (l *Log) add(ctx context.Context, sum [sha256.Size]byte, entry []byte) tessera.IndexFuture {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.unpublished[sum]; ok {
		return f
	}
	f := l.appender.Add(context.WithoutCancel(ctx), tessera.NewEntry(entry))
	l.unpublished[sum] = f
	return f
}

// forgetFailed lets all entries that were not put into the log be put there by the
// next try. Those of one batch fail together.
func (l *Log) forgetFailed(futures []tessera.IndexFuture, sums [][sha256.Size]byte) {
	for i, f := range futures {
		if _, err := f(); err != nil {
			l.forget(sums[i : i+1])
		}
	}
}

func (l *Log) forget(sums [][sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range sums {
		delete(l.unpublished, s)
	}
}

// ErrRange says that a tree is asked for that the log has not grown to.
var ErrRange = errors.New("the transparency log is not as long")

// Checkpoint is the latest one, as signed.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	b, err := l.reader.ReadCheckpoint(ctx)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return b, nil
}

// Proofs prove entries against one checkpoint.
type Proofs struct {
	Checkpoint []byte
	// Hashes are each entry's inclusion proof.
	Hashes [][][]byte
}

// Include proves that the entries at some indexes are in the latest tree.
func (l *Log) Include(ctx context.Context, indexes []uint64) (Proofs, error) {
	b, c, err := l.latest(ctx)
	if err != nil {
		return Proofs{}, err
	}
	builder, err := client.NewProofBuilder(ctx, c.Size, l.reader.ReadTile)
	if err != nil {
		return Proofs{}, fmt.Errorf("prove inclusion: %w", err)
	}
	out := Proofs{Checkpoint: b, Hashes: make([][][]byte, len(indexes))}
	for i, n := range indexes {
		if n >= c.Size {
			return Proofs{}, fmt.Errorf("prove entry %d of %d: %w", n, c.Size, ErrRange)
		}
		if out.Hashes[i], err = builder.InclusionProof(ctx, n); err != nil {
			return Proofs{}, fmt.Errorf("prove inclusion: %w", err)
		}
	}
	return out, nil
}

// Extend proves that the tree of an earlier size is the beginning of the latest
// one.
func (l *Log) Extend(ctx context.Context, from uint64) (checkpoint []byte, hashes [][]byte, err error) {
	b, c, err := l.latest(ctx)
	if err != nil {
		return nil, nil, err
	}
	if from > c.Size {
		return nil, nil, fmt.Errorf("prove growth from %d to %d entries: %w", from, c.Size, ErrRange)
	}
	if from == 0 || from == c.Size {
		return b, [][]byte{}, nil
	}
	builder, err := client.NewProofBuilder(ctx, c.Size, l.reader.ReadTile)
	if err == nil {
		hashes, err = builder.ConsistencyProof(ctx, from, c.Size)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("prove consistency: %w", err)
	}
	return b, hashes, nil
}

func (l *Log) latest(ctx context.Context) ([]byte, logproof.Checkpoint, error) {
	b, err := l.Checkpoint(ctx)
	if err != nil {
		return nil, logproof.Checkpoint{}, err
	}
	c, err := logproof.Open(b, l.key)
	return b, c, err
}

// Close ends the log's work; what Append returned for stays.
func (l *Log) Close() error {
	if err := l.stop(); err != nil {
		return fmt.Errorf("close the transparency log: %w", err)
	}
	return nil
}

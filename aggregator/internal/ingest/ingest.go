// Package ingest takes what the log holds into the database, once in effect.
//
// A partition advances plan by plan. A plan is a range of offsets with its count
// and digest, recorded in the control store before anything is done for it: it
// fixes what one insert holds, so that after a crash exactly that range is read
// again, compared, decided on as of the plan's time, and inserted again with the
// same result. Chains change only in the transaction that commits the plan, so
// that a plan which runs again meets the chains as they were. The offset that
// Kafka is told trails all this and decides nothing.
//
// A log that was made anew under the same name would have other messages at
// offsets that were passed: so what was taken in last is read again whenever a
// partition is taken up, and a log that has something else there stops it.
//
// It guarantees that an offset is passed only when its receipt is durable, that a
// plan has the same rows whoever runs it and however often (but for the entries of
// the transparency log, of which a second run makes others), that what passes is
// tried again and what does not stops its partition and no other, and that both
// can be seen in Health. Two aggregators that believe they have the same
// partition do each other no harm: only one can record a plan, and either may
// finish it.
package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
)

// Reader reads one partition; *kafka.Partition is one.
type Reader interface {
	ReadBatch(ctx context.Context, from int64, limit, maxBytes int, maxWait time.Duration) (kafka.Range, error)
	ReadExactly(ctx context.Context, from, to int64) (kafka.Range, error)
	Close() error
}

// Plans is the control store's memory of what was decided to take in.
type Plans interface {
	OpenPlan(ctx context.Context, topic string, partition int) (open *control.Plan, next int64, err error)
	LastPlan(ctx context.Context, topic string, partition int) (*control.Plan, error)
	RecordPlan(ctx context.Context, p *control.Plan) error
	CommitPlan(ctx context.Context, p *control.Plan, heads []control.ChainUpdate) error
	GiveUpPlan(ctx context.Context, p *control.Plan, lostBefore int64, sum [sha256.Size]byte, by, reason string) error
}

// Admitter decides on every message of a range.
type Admitter interface {
	Admit(ctx context.Context, r *row.Range) (*row.Batch, []control.ChainUpdate, error)
}

// Rows keeps rows. Inserting a batch again changes nothing.
type Rows interface {
	Insert(ctx context.Context, b *row.Batch, token string) error
}

// Log is the transparency log. It returns once the entries can be proven.
type Log interface {
	// ID tells it from every other log.
	ID() string
	Append(ctx context.Context, statements []predicate.Digest) ([]uint64, error)
}

// Offsets is told how far a partition was taken in, for operators' tools.
type Offsets interface {
	Commit(ctx context.Context, partition int, next int64) error
}

// Config says what to take in, with whose help. Start from Default; what it
// leaves empty is required.
type Config struct {
	Topic string
	// Owner names this aggregator in its plans.
	Owner    string
	Plans    Plans
	Admitter Admitter
	Rows     Rows
	Offsets  Offsets
	// Evidence gets the digest of every statement that is accepted, before its
	// rows are written; nil where there is no transparency log.
	Evidence Log
	// Retryable reports whether an error of Rows, or of the archive that the
	// Admitter asks, may pass.
	Retryable func(error) bool
	Log       *slog.Logger

	// MaxMessages, MaxBytes and MaxWait end a plan: whichever comes first.
	MaxMessages int
	MaxBytes    int
	MaxWait     time.Duration
	// StepTimeout bounds one question to the control store and one admission.
	// Reading and inserting have bounds of their own.
	StepTimeout time.Duration
	// StallAfter is how long a partition may have something to do and commit
	// nothing before Health says that it is stalled.
	StallAfter time.Duration
	// FirstPause and LastPause bound the pauses between tries, which double.
	FirstPause, LastPause time.Duration
	// Now is the clock of Health.
	Now func() time.Time
}

// Default returns the settings that do not depend on the installation. A plan
// waits a second for company: ClickHouse likes few and large inserts.
func Default() Config {
	return Config{
		MaxMessages: 10_000, MaxBytes: 8 << 20, MaxWait: time.Second,
		StepTimeout: time.Minute, StallAfter: 2 * time.Minute,
		FirstPause: 100 * time.Millisecond, LastPause: 30 * time.Second,
		Now: time.Now,
	}
}

// Validate reports what is missing or cannot work.
func (c Config) Validate() error {
	switch {
	case c.Topic == "" || c.Owner == "":
		return errors.New("configure ingest: topic and owner are both needed")
	case c.Plans == nil || c.Admitter == nil || c.Rows == nil || c.Offsets == nil || c.Retryable == nil || c.Log == nil || c.Now == nil:
		return errors.New("configure ingest: a collaborator is missing")
	case c.MaxMessages <= 0 || c.MaxBytes <= 0:
		return errors.New("configure ingest: a plan needs at least a message and a byte")
	case min(c.MaxWait, c.StepTimeout, c.StallAfter, c.FirstPause) <= 0 || c.LastPause < c.FirstPause:
		return errors.New("configure ingest: times must be positive, and the last pause no shorter than the first")
	}
	return nil
}

// Ingest takes in partitions. It is safe for concurrent use.
type Ingest struct {
	cfg Config

	mu         sync.Mutex
	partitions map[int]*Health
	outcomes   map[Outcome]uint64
	// resume is closed when a person has decided what became of the plan that
	// a partition stopped at.
	resume map[int]chan struct{}
}

// New checks cfg.
func New(cfg Config) (*Ingest, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Ingest{cfg: cfg, partitions: map[int]*Health{}, outcomes: map[Outcome]uint64{}, resume: map[int]chan struct{}{}}, nil
}

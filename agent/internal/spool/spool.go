// Package spool keeps what an agent has signed until the broker has
// acknowledged it. The spool is the agent's chain: each frame on disk is a
// signed statement, and the head (sequence and digest, of which the next link
// is made) derives from the frames.
//
// It guarantees, through kill -9 at any instant: what Append returned for is
// there; nothing is handed out before it is durable, so that no sequence number
// is ever public with two contents; the frames of an epoch form one unbroken
// chain, or the break is reported by a gap statement; and the folder stays
// within its bound, by making Append wait and never by dropping.
package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/chain"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/identity"
)

// The bounds of a spool.
const (
	// DefaultMaxBytes bounds the folder.
	DefaultMaxBytes = 1 << 30
	// MinMaxBytes is the least bound that leaves room for two segments.
	MinMaxBytes = 16 << 20
	// DefaultSegmentBytes is the size at which a new segment begins.
	DefaultSegmentBytes = 16 << 20
	// groupBytes and groupFrames bound what is made durable by one fsync.
	groupBytes  = 4 << 20
	groupFrames = 1024
	// asideShare is the part of the bound that may be taken by what was put
	// aside: a quarter.
	asideShare = 4
)

// ErrHeadLost says that nobody can tell any more which statements of the epoch
// are public. Going on would sign a sequence number a second time, so only a
// new epoch may follow.
var ErrHeadLost = errors.New("the head of the chain is lost: enrol again (cavra agent enroll --reenroll), which opens a new epoch")

// ErrDamaged says that what was whole when the spool was opened is not any more:
// opening it again puts it aside.
var ErrDamaged = errors.New("the spool was damaged while it was open")

// ErrNotBegun says that the spool has no frame of the epoch yet.
var ErrNotBegun = errors.New("the epoch has not begun")

// Gate is what every payload has to pass on its way in.
type Gate interface {
	// Check returns an error that says why the payload may not leave.
	Check(payload []byte) error
}

// Chain names the chain that the spool continues.
type Chain struct {
	Tenant, Agent string
	Epoch         uint64
}

// Config is what a Spool needs.
type Config struct {
	// Dir is the folder. It belongs to one process at a time.
	Dir    string
	Chain  Chain
	Signer attest.Signer
	// Opener is the key that signs the epoch's first statement, where that is not
	// Signer's: see Begin. Nil otherwise.
	Opener *identity.PublicKey
	Gate   Gate
	// MaxBytes bounds the folder; DefaultMaxBytes when 0.
	MaxBytes int64
	// SegmentBytes is the size of a segment; DefaultSegmentBytes, or an eighth
	// of MaxBytes if that is less, when 0.
	SegmentBytes int64
	// SentBytes bounds the copy of what was sent; 0 keeps none. It is beside
	// MaxBytes, since nothing waits for it.
	SentBytes int64
	// Keep says that the statements stay: nobody takes them, Next is not to be
	// called, and Append makes room by letting the oldest segments go.
	Keep bool
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// FS is the file system; the machine's when nil.
	FS diskio.FS
	// Retry is the wait after a write that found the disk full; a second when 0.
	Retry time.Duration
	Log   *slog.Logger
}

func (c *Config) complete() error {
	switch {
	case c.Dir == "":
		return errors.New("no folder")
	case c.Signer == nil || c.Gate == nil:
		return errors.New("want a signer and an egress gate")
	case c.Keep && c.SentBytes != 0:
		return errors.New("what is kept is never sent, so there is no copy of it")
	case c.SentBytes < 0:
		return fmt.Errorf("copy of what was sent of %d bytes", c.SentBytes)
	case c.MaxBytes < 0 || c.MaxBytes > 0 && c.MaxBytes < MinMaxBytes:
		return fmt.Errorf("bound of %d bytes, want %d at least", c.MaxBytes, MinMaxBytes)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = min(DefaultSegmentBytes, c.MaxBytes/8)
	}
	// When all is acknowledged the active segment is still there, and what was put
	// aside; one more group must have room beside them.
	if c.SegmentBytes < 1 || c.SegmentBytes > c.MaxBytes/8 {
		return fmt.Errorf("segments of %d bytes, want an eighth of %d at most", c.SegmentBytes, c.MaxBytes)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.FS == nil {
		c.FS = diskio.OS{}
	}
	if c.Retry == 0 {
		c.Retry = time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Spool is an open spool. Append and Next may be called at the same time.
type Spool struct {
	cfg    Config
	unlock func() error

	// writing is held by the one Append that is at work. The disk may keep it
	// waiting, so what others read meanwhile is under mu.
	writing chan struct{}
	active  *diskio.Log

	// cursing is held by whoever writes the cursor.
	cursing sync.Mutex
	cursor  *cursorFile

	mu       sync.Mutex
	segments []*segment // ascending; the last is active
	head     chain.Head
	acked    Place
	exposed  mark
	aside    int64 // bytes of files that were put aside
	full     time.Time
	err      error // why nothing more can be appended
	trouble  error // why nothing is appended now
	// changed is closed and replaced whenever the state above moves.
	changed chan struct{}

	reader reader
}

// Place is a statement's position: the epoch first, then the sequence.
type Place struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

// Before reports whether p is before q.
func (p Place) Before(q Place) bool {
	return p.Epoch < q.Epoch || p.Epoch == q.Epoch && p.Sequence < q.Sequence
}

// Stats is how a spool stands.
type Stats struct {
	Head  chain.Head
	Epoch uint64
	// Acked is up to where the broker has acknowledged.
	Acked Place
	// Statements and Bytes are what is signed and not acknowledged.
	Statements, Bytes uint64
	// Disk is what the folder takes of the bound, in bytes.
	Disk, MaxBytes int64
	// FullSince is when Append began to wait for room; zero when it does not.
	FullSince time.Time
	// Trouble is what the disk answers; nil while it takes what is written.
	Trouble error
	// Damaged segments were found by Look; an open spool has none.
	Damaged int
}

// Stats tells how the spool stands.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{Head: s.head, Epoch: s.cfg.Chain.Epoch, Acked: s.acked, Disk: s.disk(), MaxBytes: s.cfg.MaxBytes, FullSince: s.full, Trouble: s.trouble}
	for _, g := range s.segments {
		n, b := g.after(s.acked)
		out.Statements += n
		out.Bytes += b
	}
	return out
}

// disk is what the folder takes. Of what was put aside no more than its share
// counts, so that it never starves what is to be sent. The caller holds mu.
func (s *Spool) disk() int64 {
	total := min(s.aside, s.cfg.MaxBytes/asideShare) + cursorBytes
	for _, g := range s.segments {
		total += g.size
	}
	return total
}

// Begun reports whether the epoch has its first statement.
func (s *Spool) Begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head.Sequence > 0
}

// notify wakes all who wait. The caller holds mu.
func (s *Spool) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until ready says so.
func (s *Spool) await(ctx context.Context, ready func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := ready(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Drained waits until everything that was appended before is acknowledged.
func (s *Spool) Drained(ctx context.Context) error {
	s.mu.Lock()
	until := Place{s.cfg.Chain.Epoch, s.head.Sequence}
	s.mu.Unlock()
	return s.await(ctx, func() bool { return !s.acked.Before(until) })
}

// Close lets go of the folder. Append and Next must have returned.
func (s *Spool) Close() error {
	return errors.Join(s.active.Close(), s.cursor.Close(), s.reader.close(), s.unlock())
}

func (s *Spool) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

// link is the next place of the chain behind head.
func (s *Spool) link(head chain.Head) predicate.Link {
	sequence, previous := head.Next()
	return predicate.Link{
		Tenant: s.cfg.Chain.Tenant, Agent: s.cfg.Chain.Agent, KeyID: s.cfg.Signer.Public().ID(),
		Epoch: s.cfg.Chain.Epoch, Sequence: sequence, Previous: previous, SignedAt: predicate.At(s.cfg.Now()),
	}
}

// Package admit decides what is believed of what arrived. A message becomes a
// statement only after its size, its envelope, its key, its signature, its
// spelling and its claim of tenant, agent and epoch have been checked, in that
// order; then it gets its place in its agent's chain.
//
// It guarantees that nothing of a payload is parsed before its signature has been
// verified, that every message ends in exactly one receipt, that no message has
// an effect on what is decided of those of other chains, and that the same range
// against the same keys and chains gives the same decision, however often and by
// whomever it is made. Decisions are as of the range's PlannedAt: a key counts as
// revoked when it was revoked at that moment or before, so a revocation between a
// crash and the plan's second run changes nothing of it. A key that is retired
// (its agent has a newer epoch) still verifies what it signed.
package admit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/row"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
)

// Reason says why a message was refused.
type Reason string

// The reasons, a closed vocabulary.
const (
	MalformedEnvelope  Reason = "malformed_envelope"
	TooLarge           Reason = "too_large"
	UnknownKey         Reason = "unknown_key"
	RevokedKey         Reason = "revoked_key"
	BadSignature       Reason = "bad_signature"
	MalformedStatement Reason = "malformed_statement"
	WrongTenant        Reason = "wrong_tenant"
	WrongAgent         Reason = "wrong_agent"
	WrongEpoch         Reason = "wrong_epoch"
)

// Refused is the outcome of a message that has no place in a chain; the others
// are sdk/chain's.
const Refused = "refused"

// Lost is the outcome of a range that the log dropped before it was read.
const Lost = "lost"

// Keys finds enrolled keys, whatever their status. One that is not enrolled is
// control.ErrNotFound.
type Keys interface {
	KeyByID(ctx context.Context, id predicate.Digest) (control.Key, error)
}

// Chains recalls what was committed of chains.
type Chains interface {
	LoadChains(ctx context.Context, wanted map[control.ChainID]control.Span) (map[control.ChainID]*control.Chain, error)
}

// Archive keeps every accepted statement.
type Archive interface {
	// Links returns what was kept of a chain at the sequences, but for what came
	// from the partition of r at r.From or later, which no plan has committed.
	Links(ctx context.Context, c control.ChainID, sequences []uint64, r *row.Range) ([]control.Link, error)
}

// Config says what to decide with. All of it is required.
type Config struct {
	Keys    Keys
	Chains  Chains
	Archive Archive
}

// Admitter decides. It keeps nothing between calls and is safe for concurrent
// use.
type Admitter struct{ cfg Config }

// New checks cfg.
func New(cfg Config) (*Admitter, error) {
	if cfg.Keys == nil || cfg.Chains == nil || cfg.Archive == nil {
		return nil, errors.New("configure admission: keys, chains and archive are all needed")
	}
	return &Admitter{cfg: cfg}, nil
}

// Admit decides on every message of a range: the rows to keep, and what the
// range says of each chain, replays included. An error is one of the keys', the
// chains' or the archive's, never a message's.
func (a *Admitter) Admit(ctx context.Context, r *row.Range) (*row.Batch, []control.ChainUpdate, error) {
	found := make([]finding, len(r.Messages))
	if err := inParallel(ctx, found, func(i int) { found[i].open(r.Messages[i].Value) }); err != nil {
		return nil, nil, err
	}
	keys, err := a.keys(ctx, found)
	if err != nil {
		return nil, nil, err
	}
	if err := inParallel(ctx, found, func(i int) { found[i].verify(keys, r.PlannedAt) }); err != nil {
		return nil, nil, err
	}
	chains, err := a.recall(ctx, r, found)
	if err != nil {
		return nil, nil, err
	}
	return decide(r, found, chains)
}

// keys finds the keys that the range's envelopes claim.
func (a *Admitter) keys(ctx context.Context, found []finding) (map[predicate.Digest]*control.Key, error) {
	out := map[predicate.Digest]*control.Key{}
	for i := range found {
		id := found[i].envelope.KeyID()
		if _, asked := out[id]; asked || !found[i].opened {
			continue
		}
		key, err := a.cfg.Keys.KeyByID(ctx, id)
		switch {
		case errors.Is(err, control.ErrNotFound):
			out[id] = nil
		case err != nil:
			return nil, fmt.Errorf("find key: %w", err)
		default:
			out[id] = &key
		}
	}
	return out, nil
}

// inParallel calls f for every index, on as many CPUs as there are.
func inParallel(ctx context.Context, found []finding, f func(i int)) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), len(found)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(found) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("admit: %w", context.Cause(ctx))
				}
				f(i)
			}
		})
	}
	return group.Wait()
}

// finding is what has been found out about a message.
type finding struct {
	envelope attest.Envelope
	opened   bool
	key      *control.Key
	// refused is empty for a verified statement.
	refused Reason
	detail  string
	// digest is the statement's, once the envelope is open.
	digest    predicate.Digest
	statement predicate.Predicate
}

func (f *finding) refuse(why Reason, detail string) {
	f.refused, f.detail, f.statement = why, detail, nil
}

// open checks what can be checked without knowing anybody.
func (f *finding) open(value []byte) {
	if len(value) > attest.MaxEnvelope {
		f.refuse(TooLarge, fmt.Sprintf("%d bytes, at most %d", len(value), attest.MaxEnvelope))
		return
	}
	envelope, err := attest.Open(value)
	if err != nil {
		f.refuse(MalformedEnvelope, err.Error())
		return
	}
	f.envelope, f.opened = envelope, true
}

// verify believes a message or refuses it.
func (f *finding) verify(keys map[predicate.Digest]*control.Key, at time.Time) {
	if !f.opened {
		return
	}
	key := keys[f.envelope.KeyID()]
	if key == nil {
		f.refuse(UnknownKey, "key "+string(f.envelope.KeyID())+" is not enrolled")
		return
	}
	f.key = key
	if key.Status == control.Revoked && !key.RevokedAt.After(at) {
		f.refuse(RevokedKey, "key "+string(f.envelope.KeyID())+" was revoked at "+key.RevokedAt.UTC().Format(time.RFC3339))
		return
	}
	payload, err := f.envelope.Verify(key.Public)
	if err != nil {
		f.refuse(BadSignature, err.Error())
		return
	}
	statement, err := predicate.Parse(payload)
	if err != nil {
		f.refuse(MalformedStatement, err.Error())
		return
	}
	if why, detail := claims(statement, key); why != "" {
		f.refuse(why, detail)
		return
	}
	f.digest, f.statement = attest.Digest(payload), statement
}

// claims compares what a statement says of itself with what its key may say.
func claims(p predicate.Predicate, key *control.Key) (Reason, string) {
	l := p.Place()
	switch epoch, opens := p.(*predicate.Epoch); {
	case l.Tenant != key.Tenant:
		return WrongTenant, "the statement says tenant " + l.Tenant
	case l.Agent != key.Agent:
		return WrongAgent, "the statement says agent " + l.Agent
	case l.Epoch != key.Epoch:
		return WrongEpoch, fmt.Sprintf("the statement says epoch %d, the key is of epoch %d", l.Epoch, key.Epoch)
	case l.KeyID != key.Public.ID():
		return MalformedStatement, "the statement says that it is signed by key " + string(l.KeyID)
	case l.Sequence == 1 && !opens:
		return MalformedStatement, "an epoch opens with an epoch statement and not with a " + predicate.Short(p.PredicateType())
	case opens && epoch.Algorithm != key.Public.Algorithm:
		return MalformedStatement, "the statement says algorithm " + string(epoch.Algorithm) + ", the key is of " + string(key.Public.Algorithm)
	}
	return "", ""
}

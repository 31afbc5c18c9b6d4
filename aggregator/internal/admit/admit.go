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
// (its agent has a newer epoch) still verifies what it signed, until it has ended.
//
// The first statement of an epoch whose key is certified is that of the authority,
// carries the certificate that was registered, and stands in the chain of the key
// that it certifies.
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
	// EndedKey: another key has followed and its overlap is over, or the time that
	// the key was certified for.
	EndedKey Reason = "ended_key"
	// OutsideKeyTime: signed before or after the time that the key was certified
	// for, by the statement's own word.
	OutsideKeyTime Reason = "outside_key_time"
	// WrongAuthority: the first statement of an epoch is not that of the key which
	// may open it, or certifies a key that was not registered so.
	WrongAuthority Reason = "wrong_authority"
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
	if err := a.certified(ctx, found, r.PlannedAt); err != nil {
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
		key, err := a.key(ctx, id)
		if err != nil {
			return nil, err
		}
		out[id] = key
	}
	return out, nil
}

// key finds a key; nil for one that nobody knows.
func (a *Admitter) key(ctx context.Context, id predicate.Digest) (*control.Key, error) {
	key, err := a.cfg.Keys.KeyByID(ctx, id)
	switch {
	case errors.Is(err, control.ErrNotFound):
		return nil, nil //nolint:nilnil // nobody's key is no error
	case err != nil:
		return nil, fmt.Errorf("find key: %w", err)
	}
	return &key, nil
}

// certified judges the first statements of epochs by the keys that they carry.
func (a *Admitter) certified(ctx context.Context, found []finding, at time.Time) error {
	for i := range found {
		f := &found[i]
		epoch, ok := f.statement.(*predicate.Epoch)
		if !ok || epoch.Key == nil {
			continue
		}
		key, err := a.key(ctx, epoch.Key.KeyID)
		if err != nil {
			return err
		}
		f.opens(epoch, key, at)
	}
	return nil
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
	f.believe(key, payload, at)
}

// believe judges a payload whose signature has been verified.
func (f *finding) believe(key *control.Key, payload []byte, at time.Time) {
	statement, err := predicate.Parse(payload)
	if err != nil {
		f.refuse(MalformedStatement, err.Error())
		return
	}
	var why Reason
	var detail string
	if epoch, ok := statement.(*predicate.Epoch); ok && epoch.Key != nil {
		// Whether the epoch is the key's to open depends on the key that it carries.
		why, detail = openerClaims(epoch, key)
	} else if why, detail = claims(statement, key); why == "" {
		why, detail = inTime(statement, key, at)
	}
	if why != "" {
		f.refuse(why, detail)
		return
	}
	f.digest, f.statement = attest.Digest(payload), statement
}

// opens judges the first statement of an epoch by the key that it certifies,
// which has to have been registered as it says. From here on it is a statement of
// that key's chain.
func (f *finding) opens(e *predicate.Epoch, key *control.Key, at time.Time) {
	opener := f.key
	switch {
	case key == nil || key.Authority != opener.ID || key.Tenant != opener.Tenant || key.Agent != opener.Agent || key.Epoch != e.Epoch:
		f.refuse(WrongAuthority, fmt.Sprintf("key %s was not registered as certified by %s for epoch %d", e.Key.KeyID, opener.ID, e.Epoch))
		return
	case !key.NotBefore.Equal(e.Key.NotBefore.Time()), key.NotAfter.IsZero() != (e.Key.NotAfter == nil),
		e.Key.NotAfter != nil && !key.NotAfter.Equal(e.Key.NotAfter.Time()):
		f.refuse(WrongAuthority, "the statement certifies the key for another time than was registered")
		return
	}
	f.key = key
	switch {
	case key.Status == control.Revoked && !key.RevokedAt.After(at):
		f.refuse(RevokedKey, "key "+string(key.ID)+" was revoked at "+key.RevokedAt.UTC().Format(time.RFC3339))
	case key.Ended(at):
		f.refuse(EndedKey, "key "+string(key.ID)+" ended at "+key.EndsAt.UTC().Format(time.RFC3339))
	}
}

// inTime compares a statement with the time of its key.
func inTime(p predicate.Predicate, key *control.Key, at time.Time) (Reason, string) {
	signed := p.Place().SignedAt.Time()
	switch {
	case key.Ended(at):
		return EndedKey, "key " + string(key.ID) + " ended at " + key.EndsAt.UTC().Format(time.RFC3339)
	case !key.NotBefore.IsZero() && signed.Before(key.NotBefore), !key.NotAfter.IsZero() && signed.After(key.NotAfter):
		return OutsideKeyTime, fmt.Sprintf("the statement says that it was signed at %s; the key is certified from %s to %s", p.Place().SignedAt,
			key.NotBefore.UTC().Format(time.RFC3339), key.NotAfter.UTC().Format(time.RFC3339))
	}
	return "", ""
}

// openerClaims compares what the first statement of an epoch says of itself with
// what the key that signed it may say.
func openerClaims(e *predicate.Epoch, key *control.Key) (Reason, string) {
	switch {
	case e.Tenant != key.Tenant:
		return WrongTenant, "the statement says tenant " + e.Tenant
	case e.Agent != key.Agent:
		return WrongAgent, "the statement says agent " + e.Agent
	case e.KeyID != key.ID:
		return MalformedStatement, "the statement says that it is signed by key " + string(e.KeyID)
	case e.Algorithm != key.Public.Algorithm:
		return MalformedStatement, "the statement says algorithm " + string(e.Algorithm) + ", the key is of " + string(key.Public.Algorithm)
	}
	return "", ""
}

// claims compares what a statement says of itself with what its key may say.
func claims(p predicate.Predicate, key *control.Key) (Reason, string) {
	l := p.Place()
	switch epoch, opens := p.(*predicate.Epoch); {
	case l.Tenant != key.Tenant:
		return WrongTenant, "the statement says tenant " + l.Tenant
	case l.Agent != key.Agent:
		return WrongAgent, "the statement says agent " + l.Agent
	case key.Certifies:
		return WrongAuthority, "the key certifies others, and signs nothing but the first statement of an epoch"
	case l.Epoch != key.Epoch:
		return WrongEpoch, fmt.Sprintf("the statement says epoch %d, the key is of epoch %d", l.Epoch, key.Epoch)
	case l.KeyID != key.Public.ID():
		return MalformedStatement, "the statement says that it is signed by key " + string(l.KeyID)
	case l.Sequence == 1 && key.Authority != "":
		return WrongAuthority, "the epoch is opened by key " + string(key.Authority)
	case l.Sequence == 1 && !opens:
		return MalformedStatement, "an epoch opens with an epoch statement and not with a " + predicate.Short(p.PredicateType())
	case opens && epoch.Algorithm != key.Public.Algorithm:
		return MalformedStatement, "the statement says algorithm " + string(epoch.Algorithm) + ", the key is of " + string(key.Public.Algorithm)
	}
	return "", ""
}

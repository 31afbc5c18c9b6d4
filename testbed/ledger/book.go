package ledger

import (
	"fmt"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// ChainID names a chain.
type ChainID struct {
	Tenant, Agent string
	Epoch         uint64
}

// Entry is a statement that is believed.
type Entry struct {
	Digest    predicate.Digest
	Statement predicate.Predicate
	Envelope  []byte
}

// Key is an enrolled key and the chain that it may sign.
type Key struct {
	Public identity.PublicKey
	Chain  ChainID
}

// Chain is what is believed of a chain.
type Chain struct {
	// At are the statements at each sequence; more than one is a fork.
	At map[uint64][]Entry
	// Forks and Replays count the messages with that outcome.
	Forks, Replays uint64
}

// Book is what a topic's messages imply.
type Book struct {
	Chains map[ChainID]*Chain
	// Outcomes counts messages by what has to become of them.
	Outcomes map[string]uint64
	// Refused counts refusals by reason.
	Refused map[string]uint64
}

// Read judges messages, in the order of their partition, by the keys that were
// enrolled. The reasons are those that a test provokes; what is none of them is
// counted under the reason it would have.
func Read(messages []Message, keys []Key) *Book {
	b := &Book{Chains: map[ChainID]*Chain{}, Outcomes: map[string]uint64{}, Refused: map[string]uint64{}}
	byID := map[predicate.Digest]Key{}
	for _, k := range keys {
		byID[k.Public.ID()] = k
	}
	for _, m := range messages {
		outcome := b.read(m.Value, byID)
		b.Outcomes[outcome]++
	}
	return b
}

func (b *Book) refuse(reason string) string {
	b.Refused[reason]++
	return "refused"
}

func (b *Book) read(value []byte, keys map[predicate.Digest]Key) string {
	envelope, err := attest.Open(value)
	if err != nil {
		return b.refuse("malformed_envelope")
	}
	key, ok := keys[envelope.KeyID()]
	if !ok {
		return b.refuse("unknown_key")
	}
	payload, err := envelope.Verify(key.Public)
	if err != nil {
		return b.refuse("bad_signature")
	}
	p, err := predicate.Parse(payload)
	if err != nil {
		return b.refuse("malformed_statement")
	}
	switch l := p.Place(); {
	case l.Tenant != key.Chain.Tenant:
		return b.refuse("wrong_tenant")
	case l.Agent != key.Chain.Agent:
		return b.refuse("wrong_agent")
	case l.Epoch != key.Chain.Epoch:
		return b.refuse("wrong_epoch")
	case l.KeyID != key.Public.ID(), (l.Sequence == 1) != (p.PredicateType() == predicate.EpochType):
		return b.refuse("malformed_statement")
	}
	return b.place(key.Chain, Entry{attest.Digest(payload), p, value})
}

func (b *Book) place(id ChainID, e Entry) string {
	c := b.Chains[id]
	if c == nil {
		c = &Chain{At: map[uint64][]Entry{}}
		b.Chains[id] = c
	}
	l := e.Statement.Place()
	here, before, after := c.At[l.Sequence], c.At[l.Sequence-1], c.At[l.Sequence+1]
	is := func(d predicate.Digest) func(Entry) bool { return func(x Entry) bool { return x.Digest == d } }
	if slices.ContainsFunc(here, is(e.Digest)) {
		c.Replays++
		return "replayed"
	}
	c.At[l.Sequence] = append(here, e)
	switch {
	case len(here) > 0,
		l.Sequence > 1 && len(before) > 0 && !slices.ContainsFunc(before, is(l.Previous)),
		len(after) > 0 && !slices.ContainsFunc(after, func(x Entry) bool { return x.Statement.Place().Previous == e.Digest }):
		c.Forks++
		return "forked"
	case l.Sequence > 1 && len(before) == 0:
		return "early"
	}
	return "linked"
}

// Digests are those of all statements of a chain.
func (c *Chain) Digests() []predicate.Digest {
	var out []predicate.Digest
	for _, es := range c.At {
		for _, e := range es {
			out = append(out, e.Digest)
		}
	}
	slices.Sort(out)
	return out
}

// Unbroken checks that a chain runs from 1 to a head without a gap or a fork,
// each statement naming the one before.
func (c *Chain) Unbroken(sequence uint64, head predicate.Digest) error {
	previous := predicate.ZeroDigest
	for n := uint64(1); n <= sequence; n++ {
		if len(c.At[n]) != 1 {
			return fmt.Errorf("%d statements at sequence %d, want one", len(c.At[n]), n)
		}
		e := c.At[n][0]
		if got := e.Statement.Place().Previous; got != previous {
			return fmt.Errorf("sequence %d names %s as the one before, which is %s", n, got, previous)
		}
		previous = e.Digest
	}
	if previous != head || uint64(len(c.At)) != sequence {
		return fmt.Errorf("the chain ends with %s after %d statements, the agent with %s after %d", previous, len(c.At), head, sequence)
	}
	return nil
}

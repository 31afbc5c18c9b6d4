package control

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/chain"
)

// What is remembered of a chain.
const (
	// Window is how many sequences are remembered before the head, and before
	// the highest one seen.
	Window = 1024
	// siblings is how many statements are remembered at one sequence. A fork
	// beyond them is still flagged, and flagged again when it is replayed.
	siblings = 16
	// maxForks is how many forks of a chain are kept with their digests;
	// beyond them they are counted.
	maxForks = 1000
)

// ChainID names a chain: one epoch of one agent.
type ChainID struct {
	Tenant, Agent string
	Epoch         uint64
}

// String is "tenant/agent/epoch".
func (id ChainID) String() string { return fmt.Sprintf("%s/%s/%d", id.Tenant, id.Agent, id.Epoch) }

func (id ChainID) compare(o ChainID) int {
	return cmp.Or(cmp.Compare(id.Tenant, o.Tenant), cmp.Compare(id.Agent, o.Agent), cmp.Compare(id.Epoch, o.Epoch))
}

// Span is a range of sequences, both ends included.
type Span struct{ First, Last uint64 }

// Link is a statement's place: its sequence, its digest, and what it names as
// the one before.
type Link struct {
	Sequence         uint64
	Digest, Previous predicate.Digest
}

// Placed is a verified statement with the verdict on its place.
type Placed struct {
	Link
	Outcome chain.Outcome
	// Other is, for a fork, what was at the sequence before, where the caller
	// knows it and the store may have forgotten; it may be empty.
	Other predicate.Digest
}

// ChainUpdate is what one plan says of one chain.
type ChainUpdate struct {
	ID ChainID
	// Statements are those that were verified, in the order in which they
	// were placed, replayed ones too; those are only counted.
	Statements []Placed
	// SeenAt is when the last of them was received.
	SeenAt time.Time
	// Heartbeat is the one with the highest sequence among them, if there is one
	// that is not replayed.
	Heartbeat *predicate.Heartbeat
}

// Chain is what the store remembers of a chain within a span. It implements
// chain.Known for sequences of that span, and takes on what is placed, so that
// a batch is judged statement by statement. It is a copy: only CommitPlan
// changes the store.
type Chain struct {
	ID ChainID
	// Head ends the prefix in which no sequence is missing; the zero Head when
	// sequence 1 is missing.
	Head chain.Head
	// Highest is the greatest sequence seen, 0 for a chain nobody has seen.
	Highest uint64

	span  Span
	links map[uint64][]Link
	gaps  []Span // those that touch the span widened by one on both sides
}

// At returns the digests seen at a sequence. It is ErrForgotten where a
// statement was seen whose digest is not remembered.
func (c *Chain) At(sequence uint64) ([]predicate.Digest, error) {
	links, err := c.at(sequence)
	out := make([]predicate.Digest, len(links))
	for i, l := range links {
		out[i] = l.Digest
	}
	return out, err
}

// Before returns what the statements seen at a sequence name as the one before,
// and ErrForgotten as At does.
func (c *Chain) Before(sequence uint64) ([]predicate.Digest, error) {
	links, err := c.at(sequence)
	out := make([]predicate.Digest, len(links))
	for i, l := range links {
		out[i] = l.Previous
	}
	return out, err
}

func (c *Chain) at(sequence uint64) ([]Link, error) {
	if sequence+1 < c.span.First || sequence > c.span.Last+1 {
		return nil, fmt.Errorf("look up link %d of chain %s: only %d to %d was loaded", sequence, c.ID, c.span.First, c.span.Last)
	}
	if links := c.links[sequence]; len(links) > 0 {
		return links, nil
	}
	if sequence == 0 || sequence > c.Highest || c.missing(sequence) {
		return nil, nil
	}
	return nil, fmt.Errorf("link %d of chain %s: %w", sequence, c.ID, ErrForgotten)
}

func (c *Chain) missing(sequence uint64) bool {
	return slices.ContainsFunc(c.gaps, func(g Span) bool { return g.First <= sequence && sequence <= g.Last })
}

// Add takes on a link of the span, which may be there already.
func (c *Chain) Add(l Link) {
	for _, have := range c.links[l.Sequence] {
		if have.Digest == l.Digest {
			return
		}
	}
	c.links[l.Sequence] = append(c.links[l.Sequence], l)
	if l.Sequence > c.Highest {
		if l.Sequence > c.Highest+1 {
			c.gaps = append(c.gaps, Span{c.Highest + 1, l.Sequence - 1})
		}
		c.Highest = l.Sequence
		return
	}
	for i, g := range c.gaps {
		if l.Sequence < g.First || l.Sequence > g.Last {
			continue
		}
		var left []Span
		if g.First < l.Sequence {
			left = append(left, Span{g.First, l.Sequence - 1})
		}
		if l.Sequence < g.Last {
			left = append(left, Span{l.Sequence + 1, g.Last})
		}
		c.gaps = slices.Replace(c.gaps, i, i+1, left...)
		return
	}
}

// Fork is a statement that was flagged.
type Fork struct {
	Sequence uint64
	// First is what was at its sequence before; ZeroDigest where the
	// disagreement is with the statement before or after.
	First predicate.Digest
	// Second is the statement that was flagged.
	Second predicate.Digest
	SeenAt time.Time
}

// ChainStatus is how a chain stands.
type ChainStatus struct {
	ID ChainID
	// Head ends the prefix in which no sequence is missing.
	Head       chain.Head
	Highest    uint64
	LastSeenAt time.Time
	// Statements counts those that were accepted, each once, Replays those that
	// arrived again, and Forks those that were flagged.
	Statements, Replays, Forks uint64
	// GapCount is the number of ranges that are missing. Gaps are the first
	// of them, at most MaxListed, and Forked the first of the forks.
	GapCount uint64
	Gaps     []Span
	Forked   []Fork
}

// MaxListed bounds the gaps and the forks that are listed of one chain.
const MaxListed = 100

// Package chain orders an agent's statements: each names the digest of the one
// before. It has both sides, the link that a signer makes next and the verdict
// that a verifier gives on a statement that arrives, in any order.
package chain

import (
	"github.com/cavra/cavra/schemas/predicate"
)

// Head is the last link of a chain; the zero Head stands before the first.
type Head struct {
	Sequence uint64
	Digest   predicate.Digest
}

// Next is the place of the statement after h.
func (h Head) Next() (sequence uint64, previous predicate.Digest) {
	if h.Sequence == 0 {
		return 1, predicate.ZeroDigest
	}
	return h.Sequence + 1, h.Digest
}

// Outcome is the fixed verdict on a verified statement's place in its chain.
type Outcome string

// The outcomes. Linked: it extends the chain. Replayed: the same statement was
// there before; ignored and counted. Early: one or more before it are missing;
// accepted, and the gap is flagged until it is filled. Forked: another
// statement is there at its sequence, or its predecessor is not the one that is
// there; both are kept and flagged.
const (
	Linked   Outcome = "linked"
	Replayed Outcome = "replayed"
	Early    Outcome = "early"
	Forked   Outcome = "forked"
)

// Known tells what a verifier has seen of one chain.
type Known interface {
	// At returns the digests seen at a sequence, none when there are none.
	At(sequence uint64) ([]predicate.Digest, error)
	// Before returns what the statements seen at a sequence name as their
	// predecessor, none when there are none.
	Before(sequence uint64) ([]predicate.Digest, error)
}

// Place judges a statement with the digest d at l. It does not change what is
// known.
func Place(k Known, l *predicate.Link, d predicate.Digest) (Outcome, error) {
	there, err := k.At(l.Sequence)
	if err != nil {
		return "", err
	}
	if contains(there, d) {
		return Replayed, nil
	}
	if len(there) > 0 {
		return Forked, nil
	}
	successor, err := k.Before(l.Sequence + 1)
	if err != nil {
		return "", err
	}
	if len(successor) > 0 && !contains(successor, d) {
		return Forked, nil
	}
	if l.Sequence == 1 {
		return Linked, nil
	}
	before, err := k.At(l.Sequence - 1)
	if err != nil {
		return "", err
	}
	switch {
	case len(before) == 0:
		return Early, nil
	case !contains(before, l.Previous):
		return Forked, nil
	}
	return Linked, nil
}

func contains(ds []predicate.Digest, d predicate.Digest) bool {
	for _, x := range ds {
		if x == d {
			return true
		}
	}
	return false
}

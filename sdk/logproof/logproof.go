// Package logproof checks what a transparency log says of itself: that a signed
// checkpoint (c2sp.org/tlog-checkpoint) is the log's, that a statement stands in
// the tree that it commits to, and that one tree is the beginning of another
// (RFC 6962, section 2.1). It needs no server.
package logproof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cavra/cavra/schemas/predicate"
)

// The bounds of what is read.
const (
	maxCheckpoint = 64 << 10
	maxHashes     = 64
)

// Entry is what a log holds of a statement: its digest, and nothing else.
func Entry(statement predicate.Digest) []byte { return []byte("cavra-statement " + string(statement)) }

// Checkpoint is a log's size and root at a time, signed by the log.
type Checkpoint struct {
	// Origin names the log.
	Origin string
	// Size is the number of entries.
	Size uint64
	Root tlog.Hash
}

// Open verifies a checkpoint by the log's public key, in the form of a note's
// verifier key ("name+hash+base64").
func Open(checkpoint []byte, key string) (Checkpoint, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: the log's key: %w", err)
	}
	if len(checkpoint) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %d bytes, at most %d", len(checkpoint), maxCheckpoint)
	}
	n, err := note.Open(checkpoint, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	lines := bytes.SplitN([]byte(n.Text), []byte("\n"), 4)
	if len(lines) < 4 || string(lines[0]) != v.Name() {
		return Checkpoint{}, errors.New("open checkpoint: want the log's name, a size and a root")
	}
	out := Checkpoint{Origin: string(lines[0])}
	if out.Size, err = strconv.ParseUint(string(lines[1]), 10, 62); err != nil || strconv.FormatUint(out.Size, 10) != string(lines[1]) {
		return Checkpoint{}, fmt.Errorf("open checkpoint: size %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("open checkpoint: root %q", lines[2])
	}
	copy(out.Root[:], root)
	return out, nil
}

// Origin is the name of the log whose public key this is.
func Origin(key string) (string, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return "", fmt.Errorf("read the log's key: %w", err)
	}
	return v.Name(), nil
}

// ErrProof says that a proof does not show what it should.
var ErrProof = errors.New("the proof does not hold")

// Includes checks that the tree has a statement at an index.
func (c Checkpoint) Includes(statement predicate.Digest, index uint64, proof [][]byte) error {
	if err := c.includes(Entry(statement), index, proof); err != nil {
		return fmt.Errorf("statement %s at %d of %d entries of log %s: %w", statement, index, c.Size, c.Origin, err)
	}
	return nil
}

// IncludesKeyEvent checks that the tree has a key event at an index, and reads
// it.
func (c Checkpoint) IncludesKeyEvent(entry []byte, index uint64, proof [][]byte) (KeyEvent, error) {
	e, err := ParseKeyEvent(entry)
	if err == nil {
		err = c.includes(entry, index, proof)
	}
	if err != nil {
		return KeyEvent{}, fmt.Errorf("key event at %d of %d entries of log %s: %w", index, c.Size, c.Origin, err)
	}
	return e, nil
}

func (c Checkpoint) includes(entry []byte, index uint64, proof [][]byte) error {
	hashes, err := hashesOf(proof)
	if err != nil {
		return err
	}
	if index >= c.Size || tlog.CheckRecord(hashes, int64(c.Size), c.Root, int64(index), tlog.RecordHash(entry)) != nil {
		return ErrProof
	}
	return nil
}

// Extends checks that an older tree is the beginning of this one: that nothing
// in it was changed, moved or taken out.
func (c Checkpoint) Extends(older Checkpoint, proof [][]byte) error {
	hashes, err := hashesOf(proof)
	if err != nil {
		return fmt.Errorf("log %s: %w", c.Origin, err)
	}
	switch {
	case c.Origin != older.Origin:
		return fmt.Errorf("log %s does not extend log %s: %w", c.Origin, older.Origin, ErrProof)
	case older.Size > c.Size:
		return fmt.Errorf("log %s has shrunk from %d entries to %d: %w", c.Origin, older.Size, c.Size, ErrProof)
	case older.Size == 0:
		return nil
	case older.Size == c.Size && older.Root == c.Root:
		return nil
	}
	if older.Size == c.Size || tlog.CheckTree(hashes, int64(c.Size), c.Root, int64(older.Size), older.Root) != nil {
		return fmt.Errorf("log %s with %d entries does not extend the one with %d: %w", c.Origin, c.Size, older.Size, ErrProof)
	}
	return nil
}

func hashesOf(proof [][]byte) ([]tlog.Hash, error) {
	if len(proof) > maxHashes {
		return nil, fmt.Errorf("%d hashes, at most %d: %w", len(proof), maxHashes, ErrProof)
	}
	out := make([]tlog.Hash, len(proof))
	for i, h := range proof {
		if len(h) != tlog.HashSize {
			return nil, fmt.Errorf("hash %d has %d bytes: %w", i, len(h), ErrProof)
		}
		copy(out[i][:], h)
	}
	return out, nil
}

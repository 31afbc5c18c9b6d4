// Package seen remembers what was scanned, so that a round scans what is new or
// changed and nothing else. It is a hint: without it everything is scanned
// again, which costs time and changes nothing.
package seen

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
)

// maxLine bounds a line of the file, in bytes.
const maxLine = 1 << 20

// Mark is what a scan of an item came to.
type Mark struct {
	// Revision is the connector's, at the time of the scan.
	Revision string            `json:"revision"`
	Digest   predicate.Digest  `json:"digest,omitempty"`
	Problem  predicate.Reason  `json:"problem,omitempty"`
	Size     int64             `json:"size"`
	Verdict  predicate.Verdict `json:"verdict"`
	Score    int               `json:"score"`
	// Parsed, Inert and Unread are the bytes of its coverage.
	Parsed int64 `json:"parsed"`
	Inert  int64 `json:"inert"`
	Unread int64 `json:"unread"`
	// Complete says that nothing was unread, not even a place without bytes.
	Complete bool `json:"complete"`
}

// Scope is what was scanned of one scope.
type Scope struct {
	// Marks are by the item's key.
	Marks map[string]Mark
	// Inventory is the digest of the last inventory that was told.
	Inventory predicate.Digest
	// ToldAt is when, in milliseconds since 1970.
	ToldAt int64
}

type headLine struct {
	Version   int              `json:"version"`
	Basis     predicate.Digest `json:"basis"`
	Inventory predicate.Digest `json:"inventory,omitempty"`
	ToldAt    int64            `json:"told_at,omitempty"`
}

type markLine struct {
	Key []byte `json:"key"`
	Mark
}

const version = 2

// Load reads what was seen on a basis, which stands for the rules and all else
// that decides what is told: on another one, nothing was. A file that cannot be
// read is an error, and the caller may go on without it.
func Load(name string, basis predicate.Digest) (Scope, error) {
	s := Scope{Marks: map[string]Mark{}}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read what was seen: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var head headLine
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Version != version {
		return s, fmt.Errorf("read what was seen: %s is not of this version", name)
	}
	if head.Basis != basis {
		return s, nil
	}
	for lines.Scan() {
		var m markLine
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return Scope{Marks: map[string]Mark{}}, fmt.Errorf("read what was seen: %s: %w", name, err)
		}
		s.Marks[string(m.Key)] = m.Mark
	}
	if err := lines.Err(); err != nil {
		return Scope{Marks: map[string]Mark{}}, fmt.Errorf("read what was seen: %s: %w", name, err)
	}
	s.Inventory, s.ToldAt = head.Inventory, head.ToldAt
	return s, nil
}

// Save writes what was seen, durably. Call it only after what it says has been
// appended to the spool.
func (s Scope) Save(name string, basis predicate.Digest) error {
	err := diskio.Replace(diskio.OS{}, name, 0o600, func(w io.Writer) error {
		buf := bufio.NewWriter(w)
		enc := json.NewEncoder(buf)
		if err := enc.Encode(headLine{version, basis, s.Inventory, s.ToldAt}); err != nil {
			return err
		}
		for key, m := range s.Marks {
			if err := enc.Encode(markLine{[]byte(key), m}); err != nil {
				return err
			}
		}
		return buf.Flush()
	})
	if err != nil {
		return fmt.Errorf("remember what was seen: %w", err)
	}
	return nil
}

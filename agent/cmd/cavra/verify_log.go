package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/logproof"
)

// exportedLog is what an export says of a transparency log: the proofs of its
// statements, against one checkpoint.
type exportedLog struct {
	Key        string          `json:"key"`
	Checkpoint string          `json:"checkpoint"`
	Entries    []exportedEntry `json:"entries"`
}

type exportedEntry struct {
	Statement predicate.Digest `json:"statement"`
	Index     uint64           `json:"index"`
	Proof     [][]byte         `json:"proof"`
}

// maxLogKey bounds a file with a log's key, in bytes.
const maxLogKey = 4 << 10

// logKey reads a log's public key: the key itself, or a file that holds it.
func logKey(given string) (string, error) {
	if given == "" || strings.Count(given, "+") >= 2 {
		return given, nil
	}
	b, err := diskio.ReadFile(given, maxLogKey)
	if err != nil {
		return "", fmt.Errorf("--log-key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// logged proves statements by the logs of an export, and returns in what words
// they are known to be there. key is the log's; when it is empty, that of the
// export itself.
func logged(e *export, key string, links []verified) (words string, bad int) {
	required := key != ""
	if len(e.logs) == 0 && !required {
		return "", 0
	}
	proven := map[predicate.Digest]bool{}
	var problems []string
	var largest logproof.Checkpoint
	for _, l := range e.logs {
		by := key
		if by == "" {
			by = l.Key
		}
		tree, err := logproof.Open([]byte(l.Checkpoint), by)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		if tree.Size > largest.Size {
			largest = tree
		}
		for _, entry := range l.Entries {
			if err := tree.Includes(entry.Statement, entry.Index, entry.Proof); err != nil {
				problems = append(problems, err.Error())
				continue
			}
			proven[entry.Statement] = true
		}
	}
	missing, there := 0, 0
	for _, l := range links {
		switch {
		case l.err != nil:
		case proven[l.digest]:
			there++
		default:
			missing++
		}
	}
	if required {
		bad += missing
	}
	words = fmt.Sprintf("; %d are in the transparency log %s of %d entries", there, largest.Origin, largest.Size)
	if largest.Size == 0 {
		words = "; none is in a transparency log"
	}
	if missing > 0 && largest.Size > 0 {
		words += fmt.Sprintf(", %d are not", missing)
	}
	for _, p := range problems {
		words += "; BAD: " + p
	}
	return words, bad + len(problems)
}

// errNoLog says that a log was asked for and the file has none.
var errNoLog = errors.New("--log-key is given, and the file has no proof of a transparency log: export it again from an aggregator that keeps one")

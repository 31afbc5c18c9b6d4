package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
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
	// KeyEvents say what happened to the keys.
	KeyEvents []exportedKeyEvent `json:"key_events,omitempty"`
}

type exportedKeyEvent struct {
	Entry string   `json:"entry"`
	Index uint64   `json:"index"`
	Proof [][]byte `json:"proof"`
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

// entered is what a log has of a key.
type entered struct {
	logproof.KeyEvent
	index uint64
}

// proven is what the logs of an export prove.
type proven struct {
	// statements are where each stands, by its digest, and keys what happened to
	// each, in order. They are of one log: of several, the one with the most entries.
	statements map[predicate.Digest]uint64
	keys       map[predicate.Digest][]entered
	tree       logproof.Checkpoint
	problems   []string
}

// prove opens the logs of an export by the key that is given; when it is empty, by
// their own.
func prove(e *export, key string) proven {
	out := proven{statements: map[predicate.Digest]uint64{}, keys: map[predicate.Digest][]entered{}}
	seen := map[string]bool{}
	for _, l := range e.logs {
		by := key
		if by == "" {
			by = l.Key
		}
		tree, err := logproof.Open([]byte(l.Checkpoint), by)
		if err != nil {
			out.problems = append(out.problems, err.Error())
			continue
		}
		if tree.Size > out.tree.Size {
			out.tree = tree
		}
		for _, entry := range l.Entries {
			if err := tree.Includes(entry.Statement, entry.Index, entry.Proof); err != nil {
				out.problems = append(out.problems, err.Error())
				continue
			}
			out.statements[entry.Statement] = entry.Index
		}
		for _, k := range l.KeyEvents {
			event, err := tree.IncludesKeyEvent([]byte(k.Entry), k.Index, k.Proof)
			if err != nil {
				out.problems = append(out.problems, err.Error())
				continue
			}
			if id := fmt.Sprintf("%s/%d", tree.Origin, k.Index); !seen[id] {
				seen[id] = true
				out.keys[event.KeyID] = append(out.keys[event.KeyID], entered{event, k.Index})
			}
		}
	}
	for _, events := range out.keys {
		slices.SortFunc(events, func(a, b entered) int { return cmp.Compare(a.index, b.index) })
	}
	return out
}

// judge holds a verified statement against what the log has of its key. What
// counts is which stands before the other, and nobody's clock.
func (p proven) judge(v *verified) error {
	index, ok := p.statements[v.digest]
	if !ok {
		return errors.New("it is not in the transparency log")
	}
	key := v.keyID
	if v.opens {
		key = v.certifies
	}
	taken := false
	for _, e := range p.keys[key] {
		if e.Tenant != v.link.Tenant || e.Agent != v.link.Agent || e.Epoch != v.link.Epoch {
			return fmt.Errorf("in the log its key is that of epoch %d of agent %s of tenant %s", e.Epoch, e.Agent, e.Tenant)
		}
		switch {
		case e.Change == logproof.KeyEnrolled && v.opens, e.Change == logproof.KeyCertified && v.opens && e.Authority != v.keyID:
			return errors.New("in the log the key that it certifies was enrolled otherwise")
		case e.Change == logproof.KeyEnrolled, e.Change == logproof.KeyCertified:
			taken = true
		case e.Change.Ends() && index > e.index:
			return fmt.Errorf("it stands in the log at %d, and its key was %s at %d", index, e.Change, e.index)
		}
	}
	if !taken {
		return errors.New("the log says nothing of its key's enrolment")
	}
	return nil
}

// status says in words what the log has of a key.
func (p proven) status(key predicate.Digest) string {
	var words []string
	for _, e := range p.keys[key] {
		words = append(words, fmt.Sprintf("%s at %d", e.Change, e.index))
	}
	if len(words) == 0 {
		return ""
	}
	return "  in the log: " + strings.Join(words, ", ")
}

// logged says in what words statements are known to be in the log. required says
// that all of them have to be.
func (p proven) logged(e *export, required bool, links []verified) (words string, bad int) {
	if len(e.logs) == 0 && !required {
		return "", 0
	}
	missing, there := 0, 0
	for i := range links {
		v := &links[i]
		if v.err != nil {
			continue
		}
		if _, ok := p.statements[v.digest]; ok {
			there++
		} else {
			missing++
		}
		if !required {
			continue
		}
		if v.err = p.judge(v); v.err != nil {
			bad++
		}
	}
	words = fmt.Sprintf("; %d are in the transparency log %s of %d entries", there, p.tree.Origin, p.tree.Size)
	if p.tree.Size == 0 {
		words = "; none is in a transparency log"
	}
	if missing > 0 && p.tree.Size > 0 {
		words += fmt.Sprintf(", %d are not", missing)
	}
	for _, problem := range p.problems {
		words += "; BAD: " + problem
	}
	return words, bad + len(p.problems)
}

// witnessed holds the checkpoints of an export against the witnesses that are
// given, and returns what is wrong.
func (o verifyOptions) witnessed(e *export) (problems []string, err error) {
	if len(o.witnessKeys) == 0 {
		if o.witnesses > 0 {
			return nil, errors.New("--witnesses: name their keys with --witness-key")
		}
		return nil, nil
	}
	if o.logKey == "" {
		return nil, errors.New("--witness-key: name the log's key with --log-key as well")
	}
	witnesses, err := witnessKeys(o.witnessKeys)
	if err != nil {
		return nil, err
	}
	need := len(witnesses)
	if o.witnesses > 0 {
		need = o.witnesses
	}
	if need > len(witnesses) {
		return nil, fmt.Errorf("--witnesses %d: only %d keys are given", need, len(witnesses))
	}
	for _, l := range e.logs {
		if _, err := logproof.Witnessed([]byte(l.Checkpoint), witnesses, need); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems, nil
}

// errNoLog says that a log was asked for and the file has none.
var errNoLog = errors.New("--log-key is given, and the file has no proof of a transparency log: export it again from an aggregator that keeps one")

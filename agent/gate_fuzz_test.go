package agent

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/agent/internal/sign"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
)

// closed are the classes that a string which leaves at the level strict may be
// of; the identifiers are the agent's own.
type closed struct {
	words   map[string]bool
	modules egress.Vocabulary
}

func newClosed(rules *finding.Catalogue) closed {
	c := closed{words: map[string]bool{}, modules: egress.Shipped()}
	add := func(words ...string) {
		for _, w := range words {
			c.words[w] = true
		}
	}
	add(predicate.StatementType, predicate.ScanType, predicate.InventoryType, "artifact", "agent-key", "file", "bundle", "strict")
	add("pass", "warn", "fail", "error", "info", "low", "medium", "high", "critical", "parsed", "inert", "unread", "harmless", "unknown", "dangerous")
	add("t", "a", "fs", "r-1", "1", "cavra-formats", "other", rules.Version())
	for _, r := range predicate.Reasons() {
		add(string(r))
	}
	for _, h := range predicate.Hows() {
		add(string(h))
	}
	for _, r := range rules.Rules() {
		add(r.ID, r.Class)
	}
	for k := range finding.ShippedKinds() {
		add(k)
	}
	return c
}

var opaqueString = regexp.MustCompile(`^((hmac-)?sha256:)?[0-9a-f]{64}$|^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// numbered is a plugin's version.
var numbered = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3}){0,2}$`)

// outside lists the strings of a payload that are of no class.
func (c closed) outside(payload []byte) (out []string) {
	var v any
	if err := json.Unmarshal(payload, &v); err != nil {
		return []string{err.Error()}
	}
	var walk func(member string, v any)
	walk = func(member string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, item := range v {
				walk(name, item)
			}
		case []any:
			for _, item := range v {
				walk(member, item)
			}
		case string:
			ours := opaqueString.MatchString(v) || c.words[v]
			if !ours && (member != "plain" || !c.modules.Has(v)) && (member != "version" || !numbered.MatchString(v)) {
				out = append(out, member+": "+v)
			}
		}
	}
	walk("", v)
	return out
}

// FuzzNothingElseLeaves makes what scanners and connectors could say of any
// bytes, and holds every string that leaves to the closed classes.
func FuzzNothingElseLeaves(f *testing.F) {
	rules, err := finding.Shipped()
	if err != nil {
		f.Fatal(err)
	}
	j, err := judge.New(rules)
	if err != nil {
		f.Fatal(err)
	}
	key := make([]byte, 32)
	reducer, err := egress.NewReducer(key, 4096)
	if err != nil {
		f.Fatal(err)
	}
	gate, err := egress.NewGate(egress.GateConfig{Privacy: predicate.Strict, Vocabulary: egress.Shipped(), Rules: rules, Reducer: reducer})
	if err != nil {
		f.Fatal(err)
	}
	maker := sign.Maker{
		Names: egress.Namer{Privacy: predicate.Strict, Key: key, Vocabulary: egress.Shipped()}, Privacy: predicate.Strict,
		Ruleset: sign.Ruleset{Version: rules.Version(), Digest: rules.Digest()},
	}
	classes := newClosed(rules)
	f.Add("merger-target\nacme_internal\nsecretplan\npickle.import.dangerous", int64(5000), uint8(7))
	f.Add("os\nsystem\npickle\nzip\n../../etc\n\x1b[2J\n\xff\xfe", int64(0), uint8(255))
	f.Add("secretplan", int64(1<<40), uint8(0))
	f.Fuzz(func(t *testing.T, text string, size int64, bits uint8) {
		words := strings.Split(text, "\n")
		word := func(i int) string { return words[i%len(words)] }
		size = max(0, size&(1<<52-1))
		judged := sign.Judged{
			Artifact: predicate.Artifact{Kind: predicate.File, Digest: predicate.DigestOf([]byte(text)), Size: uint64(size), Format: word(0), Files: 1},
			Account:  []coverage.Range{{Kind: predicate.Unread, End: size / 3, Reason: predicate.Reasons()[int(bits)%18], Member: word(2)}, {Kind: predicate.Parsed, Start: size / 3, End: size}},
			Scanners: []predicate.Scanner{{Name: "cavra-formats", Version: word(4), Digest: rules.Digest()}},
			Started:  time.Unix(int64(bits), size&(1<<29-1)), Finished: time.Unix(int64(bits)+size&1023, 0), ImportsOmitted: uint64(size), FindingsOmitted: uint64(bits),
		}
		if size == 0 {
			judged.Account = []coverage.Range{}
		}
		var found []finding.Finding
		for i := range words {
			found = append(found, finding.Finding{
				Rule: word(i), Location: finding.Location{Class: word(i + 1), Member: word(i + 2), Offset: size}, Evidence: []string{word(i + 3)},
			}, finding.Finding{Rule: "pickle.import.dangerous", Location: finding.Location{Class: word(i)}})
			judged.Imports = append(judged.Imports, finding.Import{
				Module: word(i), Name: word(i + 1), How: predicate.Hows()[i%5], Judged: predicate.JudgedUnknown, Location: finding.Location{Class: word(i)},
			})
		}
		verdict := j.Artifact(found, 0, judged.Account)
		judged.Verdict, judged.Score = verdict.Verdict, verdict.Score
		for _, v := range verdict.Findings {
			judged.Findings = append(judged.Findings, sign.Finding{Finding: v.Finding, Rule: v.By})
		}
		refs := []sign.Reference{
			{Item: artifact.Item{Key: word(0), Path: word(1), Name: word(2), Version: word(3)}, Digest: predicate.DigestOf([]byte(text)), Bundle: rules.Digest(), Size: size},
			{Item: artifact.Item{Path: word(4)}, Problem: predicate.Reasons()[int(bits)%18], Size: size},
		}
		statements := append(maker.Inventory("fs", word(0), "r-1", time.Unix(1, 0), bits&1 == 1, refs), maker.Inventory("fs", word(0), "r-1", time.Unix(1, 0), bits&1 == 1, refs[:1])...)
		for _, p := range append(statements, maker.Scan(judged)) {
			*p.Place() = predicate.Link{Tenant: "t", Agent: "a", KeyID: rules.Digest(), Epoch: 1, Sequence: 2, Previous: rules.Digest(), SignedAt: predicate.At(time.Unix(1, 0))}
			reducer.Reduce(p)
			payload, err := predicate.Marshal(p)
			if err == nil {
				err = gate.Check(payload)
			}
			if err != nil {
				t.Fatalf("what was brought down may not leave: %v", err)
			}
			if out := classes.outside(payload); len(out) > 0 {
				slices.Sort(out)
				t.Errorf("left in a %s: %q", predicate.Short(p.PredicateType()), out)
			}
		}
	})
}

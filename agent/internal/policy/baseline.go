package policy

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
)

// maxBaselineBytes bounds a baseline's file.
const maxBaselineBytes = 1 << 30

// key is a finding's identity: the bytes, the rule, and the kind of place.
type key struct {
	digest predicate.Digest
	rule   string
	class  string
}

// Baseline are the findings of an earlier scan. A nil one has none.
type Baseline struct{ known map[key]bool }

// ReadBaseline reads an earlier scan's JSON report.
func ReadBaseline(name string) (*Baseline, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read baseline: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	// A longer file ends within its JSON, which is an error.
	b, err := baseline(io.LimitReader(f, maxBaselineBytes))
	if err != nil {
		return nil, fmt.Errorf("read baseline %s: %w: it is made by cavra scan --format json --output FILE", name, err)
	}
	return b, nil
}

func baseline(r io.Reader) (*Baseline, error) {
	var doc schema.Report
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, fmt.Errorf("not the JSON of a scan: %w", err)
	}
	if doc.SchemaVersion != schema.Version {
		return nil, fmt.Errorf("not the JSON of a scan: schema_version %q, want %q", doc.SchemaVersion, schema.Version)
	}
	b := &Baseline{known: make(map[key]bool)}
	know := func(d predicate.Digest, findings []schema.Finding) {
		if d == "" {
			return // nothing says that it is the same
		}
		for _, f := range findings {
			b.known[key{d, f.Rule, f.Location.Class}] = true
		}
	}
	for _, a := range doc.Artifacts {
		know(a.Digest, a.Findings)
	}
	for _, u := range doc.Bundles {
		know(u.Digest, u.Findings)
	}
	return b, nil
}

func (b *Baseline) has(k key) bool { return b != nil && b.known[k] }

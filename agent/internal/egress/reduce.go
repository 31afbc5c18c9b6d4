package egress

import (
	"cmp"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
)

// The bounds of what a scan statement says where it leaves the machine. They are
// narrower than the schema's, since whatever a scanner can choose is a channel
// for it: see Capacity.
const (
	// MaxFindings and MaxImports are how many are told, the worst ones.
	MaxFindings = 16
	MaxImports  = 16
	// coverageSteps is how finely the parts of the bytes are told.
	coverageSteps = 16
	// sizeStep is what the size of what has a keyed digest is rounded up to, in
	// bytes, and sizeShare the share of it for larger ones.
	sizeStep  = 4 << 10
	sizeShare = 16
	// maxDuration is the longest duration that is told, in seconds.
	maxDuration = 1 << 9
)

// countSteps are the numbers that a count is rounded down to.
var countSteps = []uint64{0, 1, 10, 100, 1000}

// Reducer brings statements that say all that is known down to what may leave:
// digests that confirm no guess, and numbers and lists so coarse that little can
// be hidden in them.
type Reducer struct {
	kinds finding.Kinds
	key   []byte
	below uint64
	// Remember is told what each keyed digest hides; nil forgets.
	Remember func(keyed, plain string)
}

// NewReducer returns a reducer whose keyed digests are made with a key of its own
// that derives from the key of names. Files of less than keyedBelow bytes have
// them, and bundles, since a small file can be what is unknown in one; with 0,
// nothing has.
func NewReducer(nameKey []byte, keyedBelow int64) (*Reducer, error) {
	// The salt is the key of the HMAC here and the name key its message, so that no
	// name that is hashed with the name key can come out as this key.
	key, err := hkdf.Key(sha256.New, nameKey, []byte("cavra artifact v1"), "", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("egress: derive key of digests: %w", err)
	}
	return &Reducer{kinds: finding.ShippedKinds(), key: key, below: uint64(max(0, keyedBelow))}, nil
}

// Reduce changes a statement in place.
func (r *Reducer) Reduce(p predicate.Predicate) {
	switch p := p.(type) {
	case *predicate.Heartbeat:
		versions(p.Plugins)
	case *predicate.Scan:
		size := p.Artifact.Size
		p.Artifact.Digest, p.Artifact.Size = r.artifact(p.Artifact.Kind, p.Artifact.Digest, size)
		coverageOf(&p.Coverage, p.Artifact.Size)
		p.Artifact.Format = r.kinds.Outbound(p.Artifact.Format)
		r.findings(p)
		imports(p)
		versions(p.Scanners)
		times(p)
	case *predicate.Inventory:
		for i := range p.References {
			r.reference(&p.References[i])
		}
	}
}

// Digest is how an artifact of so many bytes is named outside.
func (r *Reducer) Digest(kind predicate.ArtifactKind, d predicate.Digest, size uint64) predicate.Digest {
	d, _ = r.artifact(kind, d, size)
	return d
}

func (r *Reducer) artifact(kind predicate.ArtifactKind, d predicate.Digest, size uint64) (predicate.Digest, uint64) {
	switch {
	case d.Keyed():
		return d, roundSize(size)
	case r.below == 0 || kind == predicate.File && size >= r.below:
		return d, size
	}
	keyed := predicate.KeyedDigest(r.key, d)
	if r.Remember != nil {
		r.Remember(string(keyed), string(d))
	}
	return keyed, roundSize(size)
}

// roundSize rounds up to a step that is the larger the larger the size is.
func roundSize(size uint64) uint64 {
	step := uint64(sizeStep)
	if n := bits.Len64(size); n > 0 {
		step = max(step, 1<<(n-1)/sizeShare)
	}
	return max(size+step-1, step) / step * step
}

func (r *Reducer) reference(ref *predicate.Reference) {
	switch {
	case ref.Problem != "":
		ref.Size = 0 // it is the listing's word alone
	default:
		ref.Digest, ref.Size = r.artifact(predicate.File, ref.Digest, ref.Size)
	}
	if ref.Bundle != "" {
		ref.Bundle, _ = r.artifact(predicate.Bundle, ref.Bundle, 0)
	}
}

// coverageOf tells the parts in steps of a size that may be another: unread
// rounded up, inert down. Of the ranges the reasons are left.
func coverageOf(c *predicate.Coverage, size uint64) {
	at := func(steps uint64) uint64 { return size * steps / coverageSteps }
	var unread, inert uint64
	if old := c.BytesTotal; old > 0 {
		unread = (c.BytesUnread*coverageSteps + old - 1) / old
		// The largest step that is not above it.
		inert = min(coverageSteps-unread, ((c.BytesInert+1)*coverageSteps-1)/old)
	}
	c.BytesTotal, c.BytesUnread, c.BytesInert = size, at(unread), at(inert)
	c.BytesParsed = size - c.BytesUnread - c.BytesInert
	var reasons []predicate.Reason
	for _, p := range c.Ranges {
		if p.Kind == predicate.Unread {
			reasons = append(reasons, p.Reason)
		}
	}
	slices.Sort(reasons)
	c.Ranges, c.RangesOmitted = []predicate.Range{}, 0
	for _, why := range slices.Compact(reasons) {
		c.Ranges = append(c.Ranges, predicate.Range{Kind: predicate.Unread, Reason: why})
	}
}

// findings keeps the worst, and tells in steps how many there are of each.
func (r *Reducer) findings(p *predicate.Scan) {
	byPlace := func(a, b predicate.Finding) int {
		return cmp.Or(strings.Compare(a.Rule, b.Rule), strings.Compare(a.Location, b.Location))
	}
	all := slices.Clone(p.Findings)
	for i := range all {
		all[i].Location = r.kinds.Outbound(all[i].Location)
	}
	slices.SortStableFunc(all, byPlace)
	out := []predicate.Finding{}
	for _, f := range all {
		if n := len(out); n > 0 && byPlace(out[n-1], f) == 0 {
			out[n-1].Count += f.Count
			continue
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b predicate.Finding) int { return cmp.Compare(b.Severity.Rank(), a.Severity.Rank()) })
	for _, f := range out[min(len(out), MaxFindings):] {
		p.FindingsOmitted += f.Count
	}
	out = out[:min(len(out), MaxFindings)]
	for i := range out {
		out[i].Count = stepOf(out[i].Count)
	}
	slices.SortFunc(out, byPlace)
	p.Findings, p.FindingsOmitted = out, stepOf(p.FindingsOmitted)
}

var judgements = []string{predicate.JudgedDangerous, predicate.JudgedUnknown, predicate.JudgedHarmless}

// imports keeps the first, which are the worst, in an order that says nothing of
// what a keyed name hides.
func imports(p *predicate.Scan) {
	kept := slices.Clone(p.Imports[:min(len(p.Imports), MaxImports)])
	p.ImportsOmitted = stepOf(p.ImportsOmitted + uint64(len(p.Imports)-len(kept)))
	slices.SortFunc(kept, func(a, b predicate.Import) int {
		return cmp.Or(cmp.Compare(slices.Index(judgements, a.Judged), slices.Index(judgements, b.Judged)),
			compareNames(a.Module, b.Module), compareNames(a.Name, b.Name), strings.Compare(string(a.How), string(b.How)))
	})
	p.Imports = slices.Compact(kept)
}

func compareNames(a, b predicate.Name) int {
	return cmp.Or(strings.Compare(a.Plain, b.Plain), strings.Compare(a.Keyed, b.Keyed))
}

// numbered is a version that is numbers alone. What else a plugin says of its
// version stays here; its digest tells which one it is.
var numbered = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3}){0,2}$`)

func versions(plugins []predicate.Scanner) {
	for i := range plugins {
		if !numbered.MatchString(plugins[i].Version) {
			plugins[i].Version = finding.OtherKind
		}
	}
}

// stepOf rounds a count down.
func stepOf(n uint64) uint64 {
	at, found := slices.BinarySearch(countSteps, n)
	if found {
		return n
	}
	return countSteps[at-1]
}

// times tells when it began to the second, and how long it took in powers of two.
func times(p *predicate.Scan) {
	took := uint64(p.FinishedAt.Time().Sub(p.StartedAt.Time()) / time.Second)
	if took > 0 {
		took = min(maxDuration, uint64(1)<<(bits.Len64(took)-1))
	}
	began := p.StartedAt.Time().Truncate(time.Second)
	p.StartedAt, p.FinishedAt = predicate.At(began), predicate.At(began.Add(time.Duration(took)*time.Second))
}

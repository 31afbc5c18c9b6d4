package servetest

import (
	"slices"
	"testing"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// rulesVersion is the ruleset that the fleet scans with.
const rulesVersion = "1.0.0"

// agent signs statements, each the next of its chain.
type agent struct {
	tb             testing.TB
	tenant, name   string
	id             string
	key            *identity.Key
	epoch, counter uint64
	previous       predicate.Digest
	// at is when it signs next.
	at time.Time
}

func newAgent(f *Fleet, tenant, name string, at time.Time) *agent {
	f.tb.Helper()
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		f.tb.Fatal(err)
	}
	a := &agent{tb: f.tb, tenant: tenant, name: name, key: key, previous: predicate.ZeroDigest, at: at}
	f.enrol(a, "")
	return a
}

// sign puts a statement into its place of the chain, and wraps it up.
func (a *agent) sign(p predicate.Predicate) []byte {
	a.tb.Helper()
	a.counter++
	*p.Place() = predicate.Link{
		Tenant: a.tenant, Agent: a.id, KeyID: a.key.Public().ID(), Epoch: a.epoch, Sequence: a.counter,
		Previous: a.previous, SignedAt: predicate.At(a.at),
	}
	a.at = a.at.Add(time.Second)
	payload, err := predicate.Marshal(p)
	if err != nil {
		a.tb.Fatal(err)
	}
	a.previous = attest.Digest(payload)
	envelope, err := attest.Sign(payload, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return envelope
}

func (a *agent) open() []byte {
	cause := predicate.Enrolled
	if a.epoch > 1 {
		cause = predicate.Reenrolled
	}
	return a.sign(&predicate.Epoch{Cause: cause, Algorithm: predicate.Ed25519})
}

func (a *agent) heartbeat(spool uint64, layers ...predicate.Layer) []byte {
	round := predicate.At(a.at.Add(-time.Minute))
	slices.Sort(layers)
	return a.sign(&predicate.Heartbeat{
		AgentVersion: "0.1.0", RulesetVersion: rulesVersion, Plugins: scanners(), Sandbox: append([]predicate.Layer{}, layers...),
		StartedAt: predicate.At(a.at.Add(-time.Hour)), LastRoundAt: &round, LastCompleteAt: &round, SpoolStatements: spool, SpoolBytes: spool * 2000,
		IntervalSeconds: 300, Privacy: predicate.Strict, Configuration: &predicate.Configuration{Remote: true},
	})
}

func scanners() []predicate.Scanner {
	return []predicate.Scanner{{Name: "cavra-formats", Version: "0.1.0", Digest: predicate.DigestOf([]byte("cavra-formats"))}}
}

// scanned is what a scan says, in short.
type scanned struct {
	name, format   string
	size           uint64
	inert, unread  uint64
	reason         predicate.Reason
	verdict        predicate.Verdict
	score          int
	findings       []predicate.Finding
	imports        []predicate.Import
	kind           predicate.ArtifactKind
	files, omitted uint64
}

func (a *agent) scan(s scanned) []byte {
	parsed := s.size - s.inert - s.unread
	c := predicate.Coverage{
		Complete: s.reason == "", BytesTotal: s.size, BytesParsed: parsed, BytesInert: s.inert, BytesUnread: s.unread, Ranges: []predicate.Range{},
	}
	if s.kind == "" {
		s.kind, s.files = predicate.File, 1
		add := func(kind predicate.RangeKind, from, n uint64, why predicate.Reason) {
			if n > 0 || why != "" {
				c.Ranges = append(c.Ranges, predicate.Range{Kind: kind, Start: from, End: from + n, Reason: why})
			}
		}
		add(predicate.Parsed, 0, parsed, "")
		add(predicate.Inert, parsed, s.inert, "")
		add(predicate.Unread, parsed+s.inert, s.unread, s.reason)
	}
	return a.sign(&predicate.Scan{
		Artifact: predicate.Artifact{Kind: s.kind, Digest: predicate.DigestOf([]byte(s.name)), Size: s.size, Format: s.format, Files: s.files},
		Verdict:  s.verdict, Score: s.score, Coverage: c,
		Findings: append([]predicate.Finding{}, s.findings...), FindingsOmitted: s.omitted, Imports: append([]predicate.Import{}, s.imports...),
		Scanners: scanners(), RulesetVersion: rulesVersion, RulesetDigest: predicate.DigestOf([]byte("rules")), Privacy: predicate.Strict,
		Sandbox:   []predicate.Layer{predicate.LayerProcess, predicate.LayerSeccomp},
		StartedAt: predicate.At(a.at), FinishedAt: predicate.At(a.at.Add(20 * time.Millisecond)),
	})
}

// listed is one reference of an inventory.
type listed struct {
	path     predicate.Name
	artifact string
	bundle   string
	size     uint64
	problem  predicate.Reason
}

func (a *agent) inventory(root predicate.Name, complete bool, refs ...listed) []byte {
	v := &predicate.Inventory{
		Scope: predicate.Scope{Registry: "fs", Root: root}, Round: "round-" + a.id, Part: 1, Parts: 1,
		Complete: complete, Privacy: predicate.Strict, ListedAt: predicate.At(a.at), References: []predicate.Reference{},
	}
	for _, r := range refs {
		ref := predicate.Reference{Path: r.path, Size: r.size, Problem: r.problem}
		if r.artifact != "" {
			ref.Digest = predicate.DigestOf([]byte(r.artifact))
		}
		if r.bundle != "" {
			ref.Bundle = predicate.DigestOf([]byte(r.bundle))
		}
		v.References = append(v.References, ref)
	}
	return a.sign(v)
}

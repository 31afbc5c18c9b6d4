package ingest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// expected is what has to become of a message.
type expected struct {
	Outcome, Reason, Digest string
}

// entry is a statement that the ledger believes.
type entry struct {
	digest, previous predicate.Digest
	statement        predicate.Predicate
}

// ledger says, by rules of its own and outside of the product, what has to
// become of every message.
type ledger struct {
	chains   map[control.ChainID]map[uint64][]entry
	messages [][]expected // by partition and offset
	replays  map[control.ChainID]uint64
	forks    map[control.ChainID]uint64
}

func newLedger(partitions int) *ledger {
	return &ledger{
		chains: map[control.ChainID]map[uint64][]entry{}, messages: make([][]expected, partitions),
		replays: map[control.ChainID]uint64{}, forks: map[control.ChainID]uint64{},
	}
}

func (l *ledger) refused(partition int, value []byte, reason string) {
	l.messages[partition] = append(l.messages[partition], expected{"refused", reason, predicate.DigestOf(value).Hex()})
}

// verified enters a statement that is what it says.
func (l *ledger) verified(partition int, id control.ChainID, e entry) {
	c := l.chains[id]
	if c == nil {
		c = map[uint64][]entry{}
		l.chains[id] = c
	}
	n := e.statement.Place().Sequence
	is := func(d predicate.Digest) func(entry) bool { return func(x entry) bool { return x.digest == d } }
	outcome := "linked"
	switch here, before, after := c[n], c[n-1], c[n+1]; {
	case slices.ContainsFunc(here, is(e.digest)):
		outcome = "replayed"
	case len(here) > 0, n > 1 && len(before) > 0 && !slices.ContainsFunc(before, is(e.previous)),
		len(after) > 0 && !slices.ContainsFunc(after, func(x entry) bool { return x.previous == e.digest }):
		outcome = "forked"
	case n > 1 && len(before) == 0:
		outcome = "early"
	}
	switch outcome {
	case "replayed":
		l.replays[id]++
	case "forked":
		l.forks[id]++
	}
	if outcome != "replayed" {
		c[n] = append(c[n], e)
	}
	l.messages[partition] = append(l.messages[partition], expected{outcome, "", e.digest.Hex()})
}

// accepted lists every statement that has to be kept.
func (l *ledger) accepted() (out []entry) {
	for _, c := range l.chains {
		for _, es := range c {
			out = append(out, es...)
		}
	}
	return out
}

// gaps are the missing ranges below the highest sequence of a chain.
func (l *ledger) gaps(id control.ChainID) (head, highest uint64, out []control.Span) {
	for n := range l.chains[id] {
		highest = max(highest, n)
	}
	head = highest
	for n := uint64(1); n <= highest; n++ {
		if len(l.chains[id][n]) > 0 {
			continue
		}
		head = min(head, n-1)
		if k := len(out) - 1; k >= 0 && out[k].Last == n-1 {
			out[k].Last = n
		} else {
			out = append(out, control.Span{First: n, Last: n})
		}
	}
	return head, highest, out
}

// agent signs statements as one epoch of an agent would.
type agent struct {
	tb       testing.TB
	id       control.ChainID
	key      *identity.Key
	sequence uint64
	previous predicate.Digest
	sent     []signed
	held     []signed
}

// signed is an envelope with what is in it.
type signed struct {
	value []byte
	entry entry
}

func newAgent(tb testing.TB, tenant, name string) *agent {
	tb.Helper()
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		tb.Fatal(err)
	}
	return &agent{tb: tb, id: control.ChainID{Tenant: tenant, Agent: name, Epoch: 1}, key: key, previous: predicate.ZeroDigest}
}

func (a *agent) link(sequence uint64, previous predicate.Digest) predicate.Link {
	return predicate.Link{
		Tenant: a.id.Tenant, Agent: a.id.Agent, KeyID: a.key.Public().ID(), Epoch: a.id.Epoch, Sequence: sequence,
		Previous: previous, SignedAt: predicate.At(time.Date(2026, 5, 1, 0, 0, int(sequence), 0, time.UTC)),
	}
}

func (a *agent) sign(p predicate.Predicate) signed {
	a.tb.Helper()
	payload, err := predicate.Marshal(p)
	if err != nil {
		a.tb.Fatal(err)
	}
	value, err := attest.Sign(payload, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return signed{value, entry{attest.Digest(payload), p.Place().Previous, p}}
}

// next signs the next statement of the chain.
func (a *agent) next() signed {
	a.tb.Helper()
	a.sequence++
	s := a.sign(a.statement(a.link(a.sequence, a.previous), ""))
	a.previous = s.entry.digest
	return s
}

// statement is an epoch, then scans with now and then something else.
func (a *agent) statement(l predicate.Link, salt string) predicate.Predicate {
	at := l.SignedAt
	artifact := predicate.DigestOf(fmt.Appendf(nil, "%s %d%s", a.id, l.Sequence, salt))
	tool := predicate.Scanner{Name: "formats", Version: "1.0.0", Digest: predicate.DigestOf([]byte("formats"))}
	switch {
	case l.Sequence == 1:
		return &predicate.Epoch{Link: l, Cause: predicate.Enrolled, Algorithm: predicate.Ed25519}
	case l.Sequence%17 == 0:
		return &predicate.Gap{Link: l, Cause: predicate.SpoolCorrupt, Frames: 1, Bytes: 10}
	case l.Sequence%11 == 0:
		return &predicate.Heartbeat{Link: l, AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []predicate.Scanner{tool},
			Sandbox: []predicate.Layer{predicate.LayerProcess}, StartedAt: at, LastRoundAt: &at}
	case l.Sequence%7 == 0:
		return &predicate.Inventory{Link: l, Scope: predicate.Scope{Registry: "fs", Root: predicate.Name{Plain: "/models"}},
			Round: fmt.Sprintf("r-%d", l.Sequence), Part: 1, Parts: 1, Complete: true, Privacy: predicate.Names, ListedAt: at,
			References: []predicate.Reference{{Path: predicate.Name{Plain: "a.pkl"}, Digest: artifact, Size: 40},
				{Path: predicate.KeyedName([]byte("k"), "b"), Problem: predicate.PermissionDenied}}}
	}
	scan := &predicate.Scan{Link: l, Artifact: predicate.Artifact{Kind: predicate.File, Digest: artifact, Size: 40, Format: "pickle", Files: 1},
		Verdict: predicate.Pass, Coverage: predicate.Coverage{Complete: true, BytesTotal: 40, BytesParsed: 40, Ranges: []predicate.Range{{Kind: predicate.Parsed, Start: 0, End: 40}}},
		Findings: []predicate.Finding{}, Imports: []predicate.Import{}, Scanners: []predicate.Scanner{tool},
		RulesetVersion: "1.0.0", RulesetDigest: predicate.DigestOf([]byte("rules")), Privacy: predicate.Strict,
		Sandbox: []predicate.Layer{predicate.LayerProcess}, StartedAt: at, FinishedAt: at}
	if l.Sequence%3 == 0 {
		scan.Verdict, scan.Score = predicate.Fail, 100
		scan.Findings = []predicate.Finding{{Rule: "pickle.import.dangerous", Class: "code_execution_on_load", Location: "pickle", Severity: predicate.Critical, Count: 1}}
		scan.Imports = []predicate.Import{{Module: predicate.Name{Plain: "posix"}, Name: predicate.Name{Plain: "system"}, How: predicate.ByStackGlobal, Judged: predicate.JudgedDangerous},
			{Module: predicate.KeyedName([]byte("k"), "m"), Name: predicate.KeyedName([]byte("k"), "n"), How: predicate.ByGlobal, Judged: predicate.JudgedUnknown}}
	}
	return scan
}

// publish makes n messages of the agent as an unruly network and a hostile
// neighbour would deliver them, and enters them in the ledger.
func (a *agent) publish(l *ledger, partition int, rnd *rand.Rand, n int) (values [][]byte) {
	a.tb.Helper()
	send := func(s signed) {
		values = append(values, s.value)
		l.verified(partition, a.id, s.entry)
		a.sent = append(a.sent, s)
	}
	for len(values) < n {
		switch k := rnd.IntN(100); {
		case k < 4 && len(a.sent) > 0: // what was sent already
			send(a.sent[rnd.IntN(len(a.sent))])
		case k < 7: // what the next ones overtake
			a.held = append(a.held, a.next())
		case k < 11 && len(a.held) > 0:
			send(a.held[0])
			a.held = a.held[1:]
		case k < 13 && len(a.sent) > 0: // a restored spool signs anew
			old := a.sent[rnd.IntN(len(a.sent))].entry
			if place := old.statement.Place(); place.Sequence > 1 {
				send(a.sign(a.statement(a.link(place.Sequence, place.Previous), fmt.Sprint(" again ", len(values)))))
			}
		case k < 15 && len(a.sent) > 0: // a flipped bit in the payload
			value := bytes.Clone(a.sent[rnd.IntN(len(a.sent))].value)
			at := bytes.Index(value, []byte(`"payload":"`)) + 40
			value[at] = map[bool]byte{true: 'B', false: 'A'}[value[at] == 'A']
			values = append(values, value)
			l.refused(partition, value, "bad_signature")
		case k < 17:
			value := fmt.Appendf(nil, "\x80\x04garbage %d", rnd.Uint64())
			values = append(values, value)
			l.refused(partition, value, "malformed_envelope")
		case k < 18:
			stranger := newAgent(a.tb, a.id.Tenant, a.id.Agent)
			s := stranger.next()
			values = append(values, s.value)
			l.refused(partition, s.value, "unknown_key")
		default:
			send(a.next())
		}
	}
	return values
}

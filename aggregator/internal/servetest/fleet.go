package servetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

func plain(s string) predicate.Name { return predicate.Name{Plain: s} }

func keyed(s string) predicate.Name { return predicate.KeyedName([]byte("the customer's key"), s) }

func found(rule, class string, severity predicate.Severity, n uint64) predicate.Finding {
	return predicate.Finding{Rule: rule, Class: class, Location: "pickle", Severity: severity, Count: n}
}

func imported(module, name predicate.Name, judged string) predicate.Import {
	return predicate.Import{Module: module, Name: name, How: predicate.ByStackGlobal, Judged: judged}
}

const execution = "code_execution_on_load"

// samples are the artifacts of the fleet by name.
func samples() []scanned {
	return []scanned{
		{name: "reverse-shell", format: "pickle", size: 421, verdict: predicate.Fail, score: 100,
			findings: []predicate.Finding{
				found("pickle.call.unresolved", execution, predicate.High, 2),
				found("pickle.import.dangerous", execution, predicate.Critical, 3),
				found("pickle.trailing.data", execution, predicate.Low, 1),
			},
			imports: []predicate.Import{
				imported(plain("builtins"), plain("getattr"), predicate.JudgedDangerous),
				imported(plain("posix"), plain("system"), predicate.JudgedDangerous),
				imported(keyed("internal.loader"), keyed("boot"), predicate.JudgedUnknown),
				imported(plain("collections"), plain("OrderedDict"), predicate.JudgedHarmless),
			}},
		{name: "odd-archive", format: "torch.zip", size: 48 << 20, inert: 47 << 20, verdict: predicate.Fail, score: 80,
			findings: []predicate.Finding{found("archive.entry.duplicate", execution, predicate.High, 1)}},
		{name: "own-classes", format: "pickle", size: 9_500, verdict: predicate.Warn, score: 50,
			findings: []predicate.Finding{found("pickle.import.unknown", execution, predicate.Medium, 4)},
			imports:  []predicate.Import{imported(keyed("acme.models"), keyed("Ranker"), predicate.JudgedUnknown)}},
		{name: "strange", format: "unknown", size: 3 << 20, unread: 3 << 20, reason: predicate.UnknownFormat, verdict: predicate.Error},
		{name: "cut-short", format: "torch.zip", size: 700 << 20, inert: 500 << 20, unread: 198 << 20, reason: predicate.Truncated, verdict: predicate.Error, score: 20,
			findings: []predicate.Finding{found("archive.entry.checksum", execution, predicate.Low, 1)}},
		{name: "weights", format: "torch.zip", size: 2 << 30, inert: 2<<30 - 80_000, verdict: predicate.Pass, score: 0},
		{name: "array", format: "npy", size: 4 << 20, inert: 4<<20 - 128, verdict: predicate.Pass},
		{name: "readme", format: "text", size: 2_311, verdict: predicate.Pass},
		{name: "empty", format: "empty", verdict: predicate.Pass},
		{name: "repository", kind: predicate.Bundle, format: "bundle", files: 3, size: 2<<30 + 2_732, inert: 2<<30 - 80_000, verdict: predicate.Fail, score: 100,
			findings: []predicate.Finding{found("pickle.import.dangerous", execution, predicate.Critical, 3)}},
	}
}

// Start is a fleet in which everything has happened that can.
//
//   - "gpu-node-7" scans all the samples and lists them, one of them unscanned
//     and one unreadable; one of its statements arrives twice.
//   - "notebook" has a gap, and a fork.
//   - "ci-runner" was enrolled anew, and has been silent for hours.
//   - "new-here" has said nothing; "lost-laptop" is revoked.
//   - A bit was flipped in one envelope; an unknown key signed another.
//   - The other tenant has one agent, with an artifact of its own.
//   - Of the agents that call, the first one's clock is off and the notebook was
//     cloned; a join token came again, and one came that nobody knows.
//   - The log dropped three messages before they were read. Of its partitions one
//     runs, one lags behind, and one has stopped at a plan that cannot be read.
func Start(tb testing.TB) *Fleet {
	f := Empty(tb)
	f.gpuNode()
	f.notebook()
	f.ciRunner()
	newAgent(f, access.DefaultTenant, "new-here", f.Now)
	lost := newAgent(f, access.DefaultTenant, "lost-laptop", f.Now)
	f.feed(f.Now.Add(-80*time.Hour), lost.open())
	if err := f.Store.RevokeAgent(tb.Context(), access.DefaultTenant, lost.id); err != nil {
		tb.Fatal(err)
	}
	f.feed(f.Now.Add(-time.Minute), lost.heartbeat(0))
	f.stranger()
	f.otherTenant()
	f.odd()
	f.LoseRange(f.Now.Add(-2*time.Hour), 3)
	seen := f.Now.Add(-3 * time.Minute)
	f.Partitions = []serve.IngestPartition{
		{Partition: 0, State: "running", Next: f.next, LogEnd: f.next, LastCommitAt: &seen},
		{Partition: 1, State: "stalled", Next: 7, LogEnd: 1207, Lag: 1200, LastError: "insert into scans: no room on the disk", LastErrorAt: &seen},
		{Partition: 2, State: "stopped", Next: 40, LogEnd: 60, Lag: 20, LastError: "read plan again: other messages than there were", LastErrorAt: &seen,
			Unreadable: &serve.UnreadablePlan{From: 40, Next: 60, Messages: 20, LostBefore: 60, PlannedAt: seen}},
	}
	return f
}

// odd has some agents call, and what is odd about them recorded.
func (f *Fleet) odd() {
	f.tb.Helper()
	ctx := f.tb.Context()
	for name, skew := range map[string]time.Duration{"gpu-node-7": -2*time.Hour - 3*time.Minute, "notebook": 0} {
		_, err := f.Store.RecordContact(ctx, control.Contact{
			Tenant: access.DefaultTenant, Agent: f.Agents[name], Instance: "k7m2q4x8" + name[:1], Address: "10.0.3.17", Version: "0.1.0", Skew: skew,
		})
		if err != nil {
			f.tb.Fatal(err)
		}
		serial := []byte(name)
		_, err = f.Store.AddFirstCertificate(ctx, control.ClientCertificate{
			Serial: serial, Tenant: access.DefaultTenant, Agent: f.Agents[name], KeyID: predicate.DigestOf(serial),
			ExpiresAt: f.Now.Add(11 * time.Hour), DER: serial,
		})
		if err != nil {
			f.tb.Fatal(err)
		}
	}
	for _, e := range []control.AgentEvent{
		{Tenant: access.DefaultTenant, Agent: f.Agents["gpu-node-7"], Kind: control.ClockSkew, Presented: "the agent's clock is 2h3m0s behind", Known: "within 2m0s is tolerated"},
		{Tenant: access.DefaultTenant, Agent: f.Agents["notebook"], Kind: control.Cloned, Subject: "a b",
			Presented: "process x3v9w2t1 at 10.0.9.4, which had called before", Known: "process k7m2q4x8 at 10.0.3.17, first seen 2026-11-30T09:00:00Z, last 2026-11-30T11:58:00Z"},
		{Tenant: access.DefaultTenant, Kind: control.TokenReused, Subject: "token 01020304",
			Presented: "key 5f1c0a9be2d3…, from <b>10.0.9.4</b>", Known: `a join token for "new-here", used at 2026-11-30T08:00:00Z with key 77aa01c2d3e4…`},
		{Tenant: OtherTenant, Agent: "theirs", Kind: control.Restored, Subject: "generation 2", Presented: "their own", Known: "their own"},
	} {
		if err := f.Store.RecordAgentEvent(ctx, e); err != nil {
			f.tb.Fatal(err)
		}
	}
	if err := f.Store.CountUnknownToken(ctx); err != nil {
		f.tb.Fatal(err)
	}
}

// keep remembers a statement by name.
func (f *Fleet) keep(name string, envelope []byte) []byte {
	f.tb.Helper()
	e, err := attest.Open(envelope)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.Statements[name], f.Envelopes[name] = e.Digest(), envelope
	return envelope
}

func (f *Fleet) gpuNode() {
	a := newAgent(f, access.DefaultTenant, "gpu-node-7", f.Now.Add(-5*time.Minute))
	messages := [][]byte{a.open()}
	refs := []listed{
		{path: keyed("models/ranker/never-seen.bin"), artifact: "unscanned", size: 77},
		{path: keyed("models/ranker/secret.bin"), problem: predicate.PermissionDenied},
	}
	f.Artifacts["unscanned"] = predicate.DigestOf([]byte("unscanned"))
	for _, s := range samples() {
		f.Artifacts[s.name] = predicate.DigestOf([]byte(s.name))
		messages = append(messages, f.keep(s.name, a.scan(s)))
		if s.kind == predicate.Bundle {
			continue
		}
		ref := listed{path: keyed("models/ranker/" + s.name), artifact: s.name, size: s.size}
		if s.name == "reverse-shell" || s.name == "weights" || s.name == "readme" {
			ref.bundle, ref.path = "repository", plain("hub/acme/ranker/"+s.name)
		}
		refs = append(refs, ref)
	}
	refs = append(refs, listed{path: plain("<script>alert(1)</script>/../'\" onload=x.pkl"), artifact: "reverse-shell", size: 421})
	messages = append(messages, f.keep("inventory", a.inventory(keyed("/srv/models"), true, refs...)))
	messages = append(messages, a.heartbeat(3, predicate.LayerProcess, predicate.LayerEmptyEnv, predicate.LayerRlimits, predicate.LayerNetwork, predicate.LayerSeccomp, predicate.LayerLandlock))
	messages = append(messages, messages[2]) // a replay
	f.feed(f.Now.Add(-2*time.Minute), messages...)
}

func (f *Fleet) notebook() {
	a := newAgent(f, access.DefaultTenant, "notebook", f.Now.Add(-40*time.Minute))
	first := a.open()
	before := *a
	here := f.keep("fork-a", a.heartbeat(0, predicate.LayerProcess))
	twin := before
	twin.at = twin.at.Add(time.Minute)
	there := f.keep("fork-b", twin.heartbeat(9, predicate.LayerProcess))
	a.heartbeat(0) // never sent
	a.heartbeat(0) // never sent
	early := f.keep("early", a.inventory(plain("/home/ada"), true,
		listed{path: plain("notes/модель-最終版.pkl"), artifact: "own-classes", size: 9_500},
		listed{path: plain("x/" + string(bytes.Repeat([]byte("very-long-name-"), 14)) + ".bin"), artifact: "readme", size: 2_311}))
	f.feed(f.Now.Add(-4*time.Minute), first, here, there, early)
}

func (f *Fleet) ciRunner() {
	a := newAgent(f, access.DefaultTenant, "ci-runner", f.Now.Add(-30*time.Hour))
	f.feed(f.Now.Add(-30*time.Hour), a.open(), a.heartbeat(0, predicate.LayerProcess))
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		f.tb.Fatal(err)
	}
	a.key, a.counter, a.previous, a.at = key, 0, predicate.ZeroDigest, f.Now.Add(-9*time.Hour)
	f.enrol(a, a.id)
	good := a.open()
	bad := bytes.Clone(a.heartbeat(0))
	at := bytes.Index(bad, []byte(`"payload":"`)) + 200
	bad[at] = 'A' + (bad[at]-'A'+1)%26
	f.feed(f.Now.Add(-9*time.Hour), good, bad)
}

// stranger sends what names no key of ours.
func (f *Fleet) stranger() {
	key, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		f.tb.Fatal(err)
	}
	a := &agent{tb: f.tb, tenant: access.DefaultTenant, id: "stranger", key: key, epoch: 1, previous: predicate.ZeroDigest, at: f.Now}
	f.feed(f.Now.Add(-time.Hour), a.open(), []byte("\x00\x1b[31mnot an envelope"))
}

func (f *Fleet) otherTenant() {
	a := newAgent(f, OtherTenant, "elsewhere", f.Now.Add(-time.Minute))
	f.Artifacts["theirs"] = predicate.DigestOf([]byte("theirs"))
	s := scanned{name: "theirs", format: "pickle", size: 20, verdict: predicate.Pass}
	f.feed(f.Now.Add(-time.Minute), a.open(), f.keep("theirs", a.scan(s)),
		a.inventory(plain("/opt"), true, listed{path: plain("theirs.pkl"), artifact: "theirs", size: 20}))
}

package predicate

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden payloads anew")

const vectorDir = "../vectors/payload"

func moment(s int) Time {
	return At(time.Date(2026, 1, 2, 3, 4, s, 5_000_000, time.UTC))
}

func link(sequence uint64) Link {
	previous := ZeroDigest
	if sequence > 1 {
		previous = DigestOf([]byte("the statement before"))
	}
	return Link{Tenant: "default", Agent: "a-1", KeyID: DigestOf([]byte("key")), Epoch: 2, Sequence: sequence, Previous: previous, SignedAt: moment(9)}
}

func samples() map[string]Predicate {
	keyed := KeyedName([]byte("customer"), "secret/model.pkl")
	at, end := moment(8), moment(59)
	tool := Scanner{Name: "formats", Version: "1.0.0", Digest: DigestOf([]byte("formats"))}
	return map[string]Predicate{
		"scan-malicious-pickle": &Scan{
			Link: link(2), Artifact: Artifact{Kind: File, Digest: DigestOf([]byte("x")), Size: 40, Format: "pickle", Files: 1},
			Verdict: Fail, Score: 100,
			Coverage: Coverage{BytesTotal: 40, BytesParsed: 30, BytesInert: 6, BytesUnread: 4, Ranges: []Range{
				{Kind: Parsed, Start: 0, End: 30}, {Kind: Inert, Start: 30, End: 36}, {Kind: Unread, Start: 36, End: 40, Reason: Unclaimed}}},
			Findings: []Finding{{Rule: "pickle.import.dangerous", Class: "code_execution_on_load", Location: "pickle", Severity: Critical, Count: 1}},
			Imports:  []Import{{Module: Name{Plain: "posix"}, Name: Name{Plain: "system"}, How: ByStackGlobal, Judged: JudgedDangerous}, {Module: keyed, Name: keyed, How: ByGlobal, Judged: JudgedUnknown}},
			Scanners: []Scanner{tool}, RulesetVersion: "1.0.0", RulesetDigest: DigestOf([]byte("rules")), Privacy: Strict,
			Sandbox: []Layer{LayerEmptyEnv, LayerProcess}, StartedAt: moment(1), FinishedAt: moment(2),
		},
		"scan-clean-bundle": &Scan{
			Link: link(3), Artifact: Artifact{Kind: Bundle, Digest: DigestOf([]byte("b")), Size: 7, Format: "bundle", Files: 2},
			Verdict: Pass, Coverage: Coverage{Complete: true, BytesTotal: 7, BytesParsed: 7, Ranges: []Range{}},
			Findings: []Finding{}, Imports: []Import{}, Scanners: []Scanner{tool}, RulesetVersion: "1.0.0", RulesetDigest: DigestOf([]byte("rules")),
			Privacy: Names, Sandbox: []Layer{}, StartedAt: moment(1), FinishedAt: moment(1),
		},
		"scan-keyed": &Scan{
			Link: link(9), Artifact: Artifact{Kind: File, Digest: KeyedDigest([]byte("customer"), DigestOf([]byte("s"))), Size: 4096, Format: "json", Files: 1},
			Verdict: Pass, Coverage: Coverage{Complete: true, BytesTotal: 4096, BytesParsed: 4096, Ranges: []Range{}},
			Findings: []Finding{}, Imports: []Import{}, Scanners: []Scanner{tool}, RulesetVersion: "1.0.0", RulesetDigest: DigestOf([]byte("rules")),
			Privacy: Strict, Sandbox: []Layer{}, StartedAt: moment(1), FinishedAt: moment(1),
		},
		"inventory": &Inventory{
			Link: link(4), Scope: Scope{Registry: "fs", Root: Name{Plain: "/models"}}, Round: "r-1", Part: 1, Parts: 2, Complete: true, Privacy: Names, ListedAt: moment(3),
			References: []Reference{
				{Path: Name{Plain: "a/<b>.pkl"}, Digest: DigestOf([]byte("x")), Bundle: DigestOf([]byte("b")), Size: 40},
				{Path: keyed, Digest: KeyedDigest([]byte("customer"), DigestOf([]byte("s"))), Bundle: KeyedDigest([]byte("customer"), DigestOf([]byte("b"))), Size: 4096},
				{Name: &keyed, Version: &Name{Plain: "1"}, Path: keyed, Size: 0, Problem: PermissionDenied}},
		},
		"gap":       &Gap{Link: link(5), Cause: SpoolCorrupt, Frames: 3, Bytes: 900},
		"heartbeat": &Heartbeat{Link: link(6), AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []Scanner{tool}, Sandbox: []Layer{LayerProcess}, StartedAt: moment(0), LastRoundAt: &at, SpoolStatements: 1, SpoolBytes: 2},
		"heartbeat-configured": &Heartbeat{Link: link(8), AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []Scanner{tool}, Sandbox: []Layer{LayerProcess}, StartedAt: moment(0), LastRoundAt: &at, LastCompleteAt: &at,
			IntervalSeconds: 300, Privacy: Strict, Configuration: &Configuration{Remote: true, Version: 3, Refused: &RefusedConfiguration{Version: 4, Reason: ConfigurationLocal}}},
		"heartbeat-first": &Heartbeat{Link: link(7), AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []Scanner{}, Sandbox: []Layer{}, StartedAt: moment(0)},
		"heartbeat-kept":  &Heartbeat{Link: link(8), AgentVersion: "0.1.0", RulesetVersion: "1.0.0", Plugins: []Scanner{}, Sandbox: []Layer{}, StartedAt: moment(0), Privacy: FullLocal, Kept: &ChainHead{Epoch: 1, Sequence: 9, Digest: DigestOf([]byte("kept"))}},
		"epoch":           &Epoch{Link: link(1), Cause: Reenrolled, Algorithm: Ed25519, Last: &ChainHead{Epoch: 1, Sequence: 17, Digest: DigestOf([]byte("head"))}},
		"epoch-first":     &Epoch{Link: func() Link { l := link(1); l.Epoch = 1; return l }(), Cause: Enrolled, Algorithm: ECDSAP256},
		"epoch-certified": &Epoch{Link: link(1), Cause: Enrolled, Algorithm: ECDSAP256, Key: signingKey(&end)},
		"epoch-rotated":   &Epoch{Link: link(1), Cause: Rotated, Algorithm: Ed25519, Key: signingKey(nil), Last: &ChainHead{Epoch: 1, Sequence: 17, Digest: DigestOf([]byte("head"))}},
	}
}

// signingKey is a key whose bytes are no real one's: a statement is judged
// without them.
func signingKey(end *Time) *SigningKey {
	public := []byte("a public key in PKIX DER")
	return &SigningKey{KeyID: DigestOf(public), Algorithm: Ed25519, PublicKey: public, NotBefore: moment(0), NotAfter: end}
}

func mustMarshal(t *testing.T, p Predicate) []byte {
	t.Helper()
	b, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refusals are edits of accepted payloads after which they must be refused.
// All but those in schemaBlind are refused by the JSON Schemas too.
func refusals(t *testing.T) map[string][]byte {
	all := map[string][]byte{}
	text := map[string]string{}
	for name, p := range samples() {
		text[name] = string(mustMarshal(t, p))
	}
	edit := func(name, from, old, new string) {
		if strings.Count(text[from], old) == 0 {
			t.Fatalf("%s: %q is not in %s", name, old, from)
		}
		all[name] = []byte(strings.Replace(text[from], old, new, 1))
	}
	const scan, inv = "scan-malicious-pickle", "inventory"
	edit("unknown-member", scan, `"verdict":`, `"file_contents":"aGk=","verdict":`)
	edit("unknown-verdict", scan, `"verdict":"fail"`, `"verdict":"clean"`)
	edit("pass-with-unread-bytes", scan, `"verdict":"fail"`, `"verdict":"pass"`)
	edit("coverage-does-not-add-up", scan, `"bytes_parsed":30`, `"bytes_parsed":31`)
	edit("ranges-overlap", scan, `"start":30,"end":36`, `"start":29,"end":36`)
	edit("unread-without-reason", scan, `,"reason":"unclaimed"`, ``)
	edit("reason-in-free-words", scan, `"reason":"unclaimed"`, `"reason":"too secret"`)
	edit("digest-upper-case", scan, `"digest":"sha256:2d`, `"digest":"sha256:2D`)
	edit("digest-of-another-algorithm", scan, `"artifact":{"kind":"file","digest":"sha256:`, `"artifact":{"kind":"file","digest":"sha512:`)
	edit("subject-is-another", scan, `"subject":[{"name":"artifact","digest":{"sha256":"2d`, `"subject":[{"name":"artifact","digest":{"sha256":"3d`)
	edit("subject-with-free-name", scan, `"name":"artifact"`, `"name":"model.pkl"`)
	edit("rule-with-space", scan, `"rule":"pickle.import.dangerous"`, `"rule":"pickle import"`)
	edit("severity-unknown", scan, `"severity":"critical"`, `"severity":"severe"`)
	edit("name-plain-and-keyed", scan, `{"plain":"posix"}`, `{"plain":"posix","keyed":"hmac-sha256:`+strings.Repeat("0", 64)+`"}`)
	edit("name-with-newline", scan, `{"plain":"posix"}`, `{"plain":"posix\n"}`)
	edit("name-empty", scan, `{"plain":"posix"}`, `{}`)
	edit("score-over-100", scan, `"score":100`, `"score":101`)
	edit("count-is-a-fraction", scan, `"count":1`, `"count":1.5`)
	edit("number-in-other-spelling", scan, `"size":40`, `"size":4e1`)
	edit("repeated-member", scan, `"score":100`, `"score":0,"score":100`)
	edit("member-in-other-case", scan, `"verdict":"fail"`, `"Verdict":"fail"`)
	edit("white-space", scan, `"verdict":"fail"`, `"verdict": "fail"`)
	edit("escaped-slash", inv, `"/models"`, `"\/models"`)
	edit("null-list", scan, `"sandbox":["empty_environment","process"]`, `"sandbox":null`)
	edit("sandbox-out-of-order", scan, `["empty_environment","process"]`, `["process","empty_environment"]`)
	edit("time-with-offset", scan, `"started_at":"2026-01-02T03:04:01.005Z"`, `"started_at":"2026-01-02T03:04:01.005+00:00"`)
	edit("finished-before-started", scan, `"finished_at":"2026-01-02T03:04:02.005Z"`, `"finished_at":"2026-01-02T03:04:00.005Z"`)
	edit("another-predicate-type", scan, `/scan/v1"`, `/scan/v9"`)
	edit("another-statement-type", scan, `in-toto.io/Statement/v1`, `in-toto.io/Statement/v0.1`)
	edit("predicate-of-another-type", "gap", `/gap/v1"`, `/epoch/v1"`)
	edit("digest-and-problem", inv, `"size":0,"problem"`, `"digest":"`+string(DigestOf(nil))+`","size":0,"problem"`)
	edit("part-past-parts", inv, `"part":1,"parts":2`, `"part":3,"parts":2`)
	edit("part-zero", inv, `"part":1`, `"part":0`)
	edit("sequence-zero", "gap", `"sequence":5`, `"sequence":0`)
	edit("sequence-past-2-53", "gap", `"sequence":5`, `"sequence":9007199254740992`)
	edit("first-with-a-predecessor", "epoch", string(ZeroDigest), string(DigestOf([]byte("x"))))
	edit("epoch-not-first", "epoch", `"sequence":1`, `"sequence":2`)
	edit("rotated-without-a-key", "epoch", `"cause":"reenrolled"`, `"cause":"rotated"`)
	edit("key-of-other-bytes", "epoch-certified", `"public_key":"YSBw`, `"public_key":"YSBx`)
	edit("key-that-never-ends", "epoch-certified", `"not_after":"2026-0`, `"not_after":"2027-0`)
	edit("key-that-ends-before", "epoch-certified", `"not_after":"2026-0`, `"not_after":"2025-0`)
	edit("key-without-a-beginning", "epoch-rotated", `,"not_before":"`+moment(0).String()+`"`, ``)
	edit("tenant-with-slash", "gap", `"tenant":"default"`, `"tenant":"default/other"`)
	edit("cause-in-free-words", "gap", `"cause":"spool_corrupt"`, `"cause":"disk died"`)
	edit("subject-of-another-algorithm", "scan-keyed", `{"hmac-sha256":"`, `{"sha256":"`)
	edit("key-id-is-keyed", "scan-keyed", `"key_id":"sha256:`, `"key_id":"hmac-sha256:`)
	edit("kept-by-another-level", "heartbeat-kept", `"privacy":"full-local"`, `"privacy":"strict"`)
	edit("privacy-unknown", "heartbeat-kept", `"privacy":"full-local"`, `"privacy":"open"`)
	const conf = "heartbeat-configured"
	edit("configuration-refused-in-free-words", conf, `"reason":"local_setting"`, `"reason":"scopes: /srv/secret"`)
	edit("configuration-without-version", conf, `"remote":true,"version":3,`, `"remote":true,`)
	edit("configuration-with-a-setting", conf, `"remote":true,`, `"remote":true,"interval":"5m",`)
	edit("configuration-although-it-takes-none", conf, `"remote":true`, `"remote":false`)
	edit("interval-negative", conf, `"interval_seconds":300`, `"interval_seconds":-1`)
	edit("last-complete-round-in-free-words", conf, `"last_complete_at":"`, `"last_complete_at":"yesterday `)
	all["trailing-bytes"] = []byte(text["gap"] + "\n")
	all["cut-short"] = []byte(text["gap"][:len(text["gap"])-1])
	all["empty"] = []byte{}
	all["not-json"] = []byte("\x80\x04N.")
	all["deep-nesting"] = []byte(strings.Repeat("[", 5000))
	return all
}

// schemaBlind are refusals that JSON Schema cannot express.
var schemaBlind = map[string]bool{
	"pass-with-unread-bytes": true, "coverage-does-not-add-up": true, "ranges-overlap": true, "subject-is-another": true,
	"name-with-newline": true, "number-in-other-spelling": true, "repeated-member": true, "white-space": true, "escaped-slash": true,
	"sandbox-out-of-order": true, "finished-before-started": true, "part-past-parts": true, "first-with-a-predecessor": true,
	"epoch-not-first": true, "kept-by-another-level": true, "subject-of-another-algorithm": true, "trailing-bytes": true,
	"key-of-other-bytes": true, "key-that-never-ends": true, "key-that-ends-before": true,
	"configuration-although-it-takes-none": true,
}

func compileSchemas(t *testing.T) func(predicateType string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	entries, err := Schemas.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := Schemas.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", e.Name(), err)
		}
		if err := c.AddResource(typePrefix+e.Name(), doc); err != nil {
			t.Fatal(err)
		}
	}
	return func(predicateType string) *jsonschema.Schema {
		s, err := c.Compile(typePrefix + Short(predicateType) + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestGoldenPayloads(t *testing.T) {
	accept := map[string][]byte{}
	for name, p := range samples() {
		accept[name] = mustMarshal(t, p)
	}
	golden(t, filepath.Join(vectorDir, "accept"), accept)
	golden(t, filepath.Join(vectorDir, "refuse"), refusals(t))
}

func golden(t *testing.T, dir string, want map[string][]byte) {
	t.Helper()
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range want {
			if err := os.WriteFile(filepath.Join(dir, name+".json"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("%s: %d files, want %d; run go test with -update and review the change", dir, len(entries), len(want))
	}
	for name, b := range want {
		got, err := os.ReadFile(filepath.Join(dir, name+".json"))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s/%s.json differs (%v); run go test with -update and review the change", dir, name, err)
		}
	}
}

func TestParseAccepts(t *testing.T) {
	schema := compileSchemas(t)
	for name, p := range samples() {
		t.Run(name, func(t *testing.T) {
			b := mustMarshal(t, p)
			got, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p, got, cmp.AllowUnexported(Time{})); diff != "" {
				t.Errorf("parse differs from what was marshalled (-want +got):\n%s", diff)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema(p.PredicateType()).Validate(doc); err != nil {
				t.Errorf("the JSON Schema refuses it: %v", err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	schema := compileSchemas(t)
	for name, b := range refusals(t) {
		t.Run(name, func(t *testing.T) {
			if p, err := Parse(b); err == nil {
				t.Fatalf("parsed as %T", p)
			}
			var outer struct {
				PredicateType string `json:"predicateType"`
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
			if err != nil || json.Unmarshal(b, &outer) != nil || Short(outer.PredicateType) == "statement" {
				return
			}
			if err := schema(outer.PredicateType).Validate(doc); (err == nil) != schemaBlind[name] {
				t.Errorf("the JSON Schema says %v; schemaBlind says %v", err, schemaBlind[name])
			}
		})
	}
}

func TestTheLargestStatementsFit(t *testing.T) {
	s := samples()["scan-malicious-pickle"].(*Scan)
	s.Imports = nil
	for range MaxImports {
		s.Imports = append(s.Imports, Import{Module: Name{Plain: strings.Repeat("m", MaxPlainName)}, Name: Name{Plain: strings.Repeat("\"", MaxPlainName)}, How: ByGlobal, Judged: JudgedUnknown})
	}
	if _, err := Marshal(s); err != nil {
		t.Fatalf("the largest scan must fit: %v", err)
	}
	v := samples()["inventory"].(*Inventory)
	v.References = nil
	worst := Name{Plain: strings.Repeat("\"", MaxPlainName)}
	for range MaxReferences {
		v.References = append(v.References, Reference{Name: &worst, Version: &worst, Path: worst, Digest: DigestOf(nil), Size: 1})
	}
	if _, err := Marshal(v); err != nil {
		t.Fatalf("the largest inventory must fit: %v", err)
	}
}

func TestParseBoundsItsInput(t *testing.T) {
	var large *TooLargeError
	if _, err := Parse(make([]byte, MaxStatement+1)); !errors.As(err, &large) {
		t.Fatalf("got %v, want a TooLargeError", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range samples() {
		b, err := Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Marshal(p)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted bytes are not what Marshal writes (%v):\n%q\n%q", err, b, again)
		}
	})
}

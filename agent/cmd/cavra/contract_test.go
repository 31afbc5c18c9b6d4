package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

// sarifSchema is OASIS's, which is not ours to ship: it lies beside a checkout.
const sarifSchema = "../../../../shared/schemas/sarif-schema-2.1.0.json"

// valid json|sarif FILE checks a file against its schema.
func valid(ts *testscript.TestScript, _ bool, args []string) {
	source := schema.Schema()
	if args[0] == "sarif" {
		b, err := os.ReadFile(sarifSchema)
		if errors.Is(err, fs.ErrNotExist) {
			ts.Logf("not checked: %s is not there", sarifSchema)
			return
		}
		ts.Check(err)
		source = b
	}
	ts.Check(validate(source, []byte(ts.ReadFile(args[1]))))
}

func validate(source, document []byte) error {
	s, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", s); err != nil {
		return err
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		return err
	}
	d, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return err
	}
	return compiled.Validate(d)
}

// evidence DIR writes a chain of three statements in several forms: whole.json,
// gap.json (without the second), page.json (the first two), fork.json, flipped.json, one.json (an
// envelope), indented.json, keys.json, key.pem and other.pem.
func evidence(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	key, err := identity.FromSeed([ed25519.SeedSize]byte{1})
	ts.Check(err)
	other, err := identity.FromSeed([ed25519.SeedSize]byte{2})
	ts.Check(err)
	a1, d1 := heartbeat(ts, key, 1, predicate.ZeroDigest, 0)
	a2, d2 := heartbeat(ts, key, 2, d1, 0)
	a3, _ := heartbeat(ts, key, 3, d2, 0)
	fork, _ := heartbeat(ts, key, 3, d2, 1)
	flipped := bytes.Replace(bytes.Clone(a2), []byte(`"payload":"ey`), []byte(`"payload":"fy`), 1)
	der, err := key.Public().DER()
	ts.Check(err)
	keys := []exportedKey{{KeyID: key.Public().ID(), Algorithm: predicate.Ed25519, PublicKey: base64.StdEncoding.EncodeToString(der)}}
	put := func(name string, v any) {
		b, err := json.Marshal(v)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	put("whole.json", exportJSON{Envelopes: []json.RawMessage{a3, a1, a2}, Keys: keys})
	put("gap.json", exportJSON{Envelopes: []json.RawMessage{a1, a3}, Keys: keys})
	put("fork.json", exportJSON{Envelopes: []json.RawMessage{a1, a2, a3, fork}, Keys: keys})
	put("flipped.json", exportJSON{Envelopes: []json.RawMessage{a1, flipped, a3}, Keys: keys})
	put("one.json", json.RawMessage(a2))
	put("page.json", exportJSON{[]json.RawMessage{a1, a2}, keys, nil, "1-2-" + d2.Hex()})
	put("keys.json", exportJSON{Envelopes: []json.RawMessage{}, Keys: keys})
	b, err := json.MarshalIndent(exportJSON{Envelopes: []json.RawMessage{a1, a2, a3}, Keys: keys}, "", "  ")
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "indented.json"), b, 0o644))
	for name, k := range map[string]*identity.Key{"key.pem": key, "other.pem": other} {
		der, err := k.Public().DER()
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644))
	}
}

func heartbeat(ts *testscript.TestScript, key *identity.Key, sequence uint64, previous predicate.Digest, spooled uint64) ([]byte, predicate.Digest) {
	at := predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	payload, err := predicate.Marshal(&predicate.Heartbeat{
		Link:         predicate.Link{Tenant: "acme", Agent: "a1", KeyID: key.Public().ID(), Epoch: 1, Sequence: sequence, Previous: previous, SignedAt: at},
		AgentVersion: "1", RulesetVersion: "1", Plugins: []predicate.Scanner{}, Sandbox: []predicate.Layer{}, StartedAt: at, SpoolStatements: spooled,
	})
	ts.Check(err)
	env, err := attest.Sign(payload, key)
	ts.Check(err)
	return env, attest.Digest(payload)
}

// TestSARIFSchemaIsThere says when the check above could not be made.
func TestSARIFSchemaIsThere(t *testing.T) {
	if _, err := os.Stat(sarifSchema); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SARIF is not validated: %s is not there", sarifSchema)
	}
}

func FuzzParseExport(f *testing.F) {
	f.Add([]byte(`{"envelopes":[{"payloadType":"x"}],"keys":[]}`))
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"","signatures":[]}`))
	f.Add([]byte(`{"envelopes":null,"keys":[{"key_id":"","algorithm":"ed25519","public_key":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseExport(b)
		if err != nil {
			return
		}
		// Nothing that a fuzzer can make is signed by a key that is trusted.
		links, _, bad := open(e.envelopes, nil)
		if bad != len(links) {
			t.Errorf("%d of %d envelopes believed", len(links)-bad, len(links))
		}
	})
}

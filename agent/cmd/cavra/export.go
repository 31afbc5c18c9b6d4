package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/identity"
)

// maxExport bounds a file of evidence or keys, in bytes.
const maxExport = 512 << 20

// export is evidence and the keys that it carries, none of it believed.
type export struct {
	envelopes [][]byte
	keys      []identity.PublicKey
	logs      []exportedLog
	// partial says that it is a page, and that more follows it.
	partial bool
}

// exportJSON is the export's form: envelopes as they were sent, and the keys
// that signed them.
type exportJSON struct {
	Envelopes []json.RawMessage `json:"envelopes"`
	Keys      []exportedKey     `json:"keys"`
	Logs      []exportedLog     `json:"logs,omitempty"`
	// Next is the aggregator's cursor of the page after this one.
	Next string `json:"next,omitempty"`
}

type exportedKey struct {
	KeyID     predicate.Digest    `json:"key_id"`
	Algorithm predicate.Algorithm `json:"algorithm"`
	// PublicKey is PKIX DER in base64.
	PublicKey string `json:"public_key"`
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w: check the path", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxExport+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxExport {
		return nil, fmt.Errorf("read %s: more than %d bytes: export fewer statements at a time", path, maxExport)
	}
	return b, nil
}

// readExport reads an export, or a single envelope.
func readExport(path string) (*export, error) {
	b, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	e, err := parseExport(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return e, nil
}

func parseExport(b []byte) (*export, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(b, &top); err != nil {
		return nil, fmt.Errorf("want an envelope or an export in JSON: %w", err)
	}
	if _, single := top["payloadType"]; single {
		env, err := compact(b)
		return &export{envelopes: [][]byte{env}}, err
	}
	if top["envelopes"] == nil && top["keys"] == nil {
		return nil, errors.New(`neither a DSSE envelope nor an export: want "payloadType", or "envelopes" and "keys"`)
	}
	var j exportJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	out := &export{logs: j.Logs, partial: j.Next != ""}
	for i, raw := range j.Envelopes {
		env, err := compact(raw)
		if err != nil {
			return nil, fmt.Errorf("envelope %d: %w", i+1, err)
		}
		out.envelopes = append(out.envelopes, env)
	}
	for i, k := range j.Keys {
		key, err := k.parse()
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		out.keys = append(out.keys, key)
	}
	return out, nil
}

// compact takes out the white space that a tool put between members; the signed
// payload is a string and has none that it could touch.
func compact(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (k exportedKey) parse() (identity.PublicKey, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(k.PublicKey)
	if err != nil {
		return identity.PublicKey{}, fmt.Errorf("public_key: %w", err)
	}
	key, err := identity.ParsePublicKey(k.Algorithm, der)
	if err != nil {
		return identity.PublicKey{}, err
	}
	if key.ID() != k.KeyID {
		return identity.PublicKey{}, fmt.Errorf("key_id %s is not that of the key, %s", k.KeyID, key.ID())
	}
	return key, nil
}

// readKeys reads the public keys in a file: PEM, or an export.
func readKeys(path string) ([]identity.PublicKey, error) {
	b, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil {
		e, err := parseExport(b)
		if err != nil || len(e.keys) == 0 {
			return nil, fmt.Errorf("read key %s: want a PEM PUBLIC KEY, or an export with keys", path)
		}
		return e.keys, nil
	}
	var keys []identity.PublicKey
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("read key %s: a PEM block of type %q, want PUBLIC KEY", path, block.Type)
		}
		key, err := parsePKIX(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read key %s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// parsePKIX reads a key whose algorithm is that of its own type.
func parsePKIX(der []byte) (identity.PublicKey, error) {
	const most = 1 << 10
	if len(der) > most {
		return identity.PublicKey{}, fmt.Errorf("parse public key: %d bytes, at most %d", len(der), most)
	}
	if _, err := x509.ParsePKIXPublicKey(der); err != nil {
		return identity.PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	key, err := identity.ParsePublicKey(predicate.Ed25519, der)
	if err == nil {
		return key, nil
	}
	return identity.ParsePublicKey(predicate.ECDSAP256, der)
}

package scenario

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
	sigstore "github.com/sigstore/sigstore/pkg/signature/dsse"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cavra/cavra/schemas/vectors"
	"github.com/cavra/cavra/sdk/identity"
)

// theirVerifier gives the reference library of DSSE a key of ours: it is told the
// key's bytes and nothing of our code.
type theirVerifier struct {
	id  string
	key signature.Verifier
}

func (v theirVerifier) Verify(_ context.Context, message, sig []byte) error {
	return v.key.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message))
}
func (v theirVerifier) KeyID() (string, error)   { return v.id, nil }
func (v theirVerifier) Public() crypto.PublicKey { k, _ := v.key.PublicKey(); return k }

func theirKey(t *testing.T, key identity.PublicKey) signature.Verifier {
	t.Helper()
	der, err := key.DER()
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	v, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// theirs verifies an envelope by others' libraries alone.
func theirs(envelope []byte, key signature.Verifier, id string) error {
	var e dsse.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return err
	}
	// The reference library of DSSE.
	reference, err := dsse.NewEnvelopeVerifier(theirVerifier{id, key})
	if err != nil {
		return err
	}
	if accepted, err := reference.Verify(context.Background(), &e); err != nil || len(accepted) != 1 {
		return errors.Join(errors.New("go-securesystemslib"), err)
	}
	// The library that cosign verifies attestations with. It makes an identifier of
	// a key by itself and passes over a signature that hints at another; ours hint by
	// the digest of the whole key, so the hint, which nothing signs, is taken off.
	for i := range e.Signatures {
		e.Signatures[i].KeyID = ""
	}
	bare, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := sigstore.WrapVerifier(key).VerifySignature(bytes.NewReader(bare), nil); err != nil {
		return errors.Join(errors.New("sigstore"), err)
	}
	// in-toto's own.
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return err
	}
	var s intoto.Statement
	if err := protojson.Unmarshal(payload, &s); err != nil {
		return errors.Join(errors.New("in-toto"), err)
	}
	return s.Validate()
}

// TestStandards: our envelopes are DSSE and our statements are in-toto to the
// libraries of others, the golden ones and those that an agent has just made, and
// what we refuse for its signature they refuse as well.
func TestStandards(t *testing.T) {
	key, err := identity.FromSeed(vectors.Seed)
	if err != nil {
		t.Fatal(err)
	}
	golden, err := vectors.AcceptedEnvelopes()
	if err != nil || len(golden) == 0 {
		t.Fatalf("%d golden envelopes, %v", len(golden), err)
	}
	their := theirKey(t, key.Public())
	for _, v := range golden {
		if err := theirs(v.Data, their, string(key.Public().ID())); err != nil {
			t.Errorf("golden %s: %v", v.Name, err)
		}
	}
	refused, err := vectors.RefusedEnvelopes()
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for _, v := range refused {
		if strings.HasPrefix(v.Name, "flipped-") || v.Name == "another-key" || v.Name == "claims-this-key" {
			bad++
			if err := theirs(v.Data, their, string(key.Public().ID())); err == nil {
				t.Errorf("%s: others believe it", v.Name)
			}
		}
	}
	if bad != 4 {
		t.Errorf("%d envelopes with a bad signature, want 4", bad)
	}
	dir := folder(t)
	w := embedded(t, dir, programs(t))
	a := w.enrol("agent")
	w.feed(5)
	w.must(a.RunOnce(w.ctx))
	b, err := os.ReadFile(w.export(a))
	w.must(err)
	var export struct {
		Envelopes []json.RawMessage `json:"envelopes"`
	}
	w.must(json.Unmarshal(b, &export))
	author := w.author(a)
	for i, e := range export.Envelopes {
		if err := theirs(e, theirKey(t, author.Key.Public()), string(author.Key.Public().ID())); err != nil {
			t.Errorf("statement %d of an agent: %v", i+1, err)
		}
	}
	t.Logf("%d golden envelopes and %d of an agent verify by others' libraries", len(golden), len(export.Envelopes))
}

package attest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/vectors"
	"github.com/cavra/cavra/sdk/identity"
)

var update = flag.Bool("update", false, "write the golden envelopes anew")

const vectorDir = "../../schemas/vectors/envelope"

func testKey(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.FromSeed(vectors.Seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t testing.TB) map[string][]byte {
	t.Helper()
	payloads, err := vectors.AcceptedPayloads()
	if err != nil || len(payloads) == 0 {
		t.Fatalf("%d payloads, %v", len(payloads), err)
	}
	out := map[string][]byte{}
	for _, v := range payloads {
		b, err := Sign(v.Data, testKey(t))
		if err != nil {
			t.Fatal(err)
		}
		out[v.Name] = b
	}
	return out
}

// refused are edits of a good envelope.
func refused(t testing.TB) map[string][]byte {
	good := string(signed(t)["gap"])
	other, err := identity.FromSeed([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := vectors.AcceptedPayloads()
	if err != nil {
		t.Fatal(err)
	}
	byOther, err := Sign(payload[0].Data, other)
	if err != nil {
		t.Fatal(err)
	}
	sigAt := strings.Index(good, `"sig":"`) + len(`"sig":"`)
	flip := func(i int) []byte {
		b := []byte(good)
		if b[i] == 'A' {
			b[i] = 'B'
		} else {
			b[i] = 'A'
		}
		return b
	}
	edit := func(old, new string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the envelope", old)
		}
		return []byte(strings.Replace(good, old, new, 1))
	}
	id := string(testKey(t).Public().ID())
	return map[string][]byte{
		"flipped-payload":        flip(strings.Index(good, `"payload":"`) + 40),
		"flipped-signature":      flip(sigAt + 10),
		"another-key":            byOther,
		"claims-this-key":        bytes.Replace(byOther, []byte(other.Public().ID()), []byte(id), 1),
		"no-signature":           []byte(good[:strings.Index(good, `{"keyid"`)] + `]}`),
		"two-signatures":         edit(`"signatures":[`, `"signatures":[{"keyid":"`+id+`","sig":"AA=="},`),
		"empty-signature":        []byte(good[:sigAt] + `"}]}`),
		"another-payload-type":   edit(`application/vnd.in-toto+json`, `application/json`),
		"unknown-member":         edit(`{"payloadType"`, `{"alg":"none","payloadType"`),
		"repeated-payload":       edit(`"payload":"`, `"payload":"","payload":"`),
		"white-space":            edit(`"signatures":[`, `"signatures": [`),
		"url-safe-base64":        edit(`"sig":"`, `"sig":"-_`),
		"key-id-of-another-form": edit(id, strings.TrimPrefix(id, "sha256:")),
		"trailing-bytes":         []byte(good + "\n"),
		"cut-short":              []byte(good[:len(good)-1]),
		"empty":                  {},
	}
}

func TestGoldenEnvelopes(t *testing.T) {
	for dir, want := range map[string]map[string][]byte{"accept": signed(t), "refuse": refused(t)} {
		dir = filepath.Join(vectorDir, dir)
		if *update {
			writeGolden(t, dir, want)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(want) {
			t.Errorf("%s: %d files, want %d (%v); run go test with -update and review the change", dir, len(entries), len(want), err)
		}
		for name, b := range want {
			got, err := os.ReadFile(filepath.Join(dir, name+".json"))
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s/%s.json differs (%v); run go test with -update and review the change", dir, name, err)
			}
		}
	}
}

func writeGolden(t *testing.T, dir string, want map[string][]byte) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, b := range want {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func open(b []byte, key identity.PublicKey) ([]byte, error) {
	e, err := Open(b)
	if err != nil {
		return nil, err
	}
	return e.Verify(key)
}

func TestAcceptedEnvelopes(t *testing.T) {
	payloads, err := vectors.AcceptedPayloads()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range payloads {
		got, err := open(signed(t)[v.Name], testKey(t).Public())
		if err != nil || !bytes.Equal(got, v.Data) {
			t.Errorf("%s: %v, same payload %t", v.Name, err, bytes.Equal(got, v.Data))
		}
	}
}

func TestRefusedEnvelopes(t *testing.T) {
	for name, b := range refused(t) {
		if p, err := open(b, testKey(t).Public()); err == nil {
			t.Errorf("%s: opened as %q", name, p)
		}
	}
}

func TestBothAlgorithms(t *testing.T) {
	for _, alg := range []predicate.Algorithm{predicate.Ed25519, predicate.ECDSAP256} {
		k, err := identity.Generate(alg)
		if err != nil {
			t.Fatal(err)
		}
		pemBytes, err := k.MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := identity.ParsePEM(pemBytes)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Sign([]byte("payload"), again)
		if err != nil {
			t.Fatal(err)
		}
		der, err := k.Public().DER()
		if err != nil {
			t.Fatal(err)
		}
		pub, err := identity.ParsePublicKey(alg, der)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := open(b, pub); err != nil || string(got) != "payload" {
			t.Errorf("%s: %q, %v", alg, got, err)
		}
		wrong := predicate.Ed25519
		if alg == wrong {
			wrong = predicate.ECDSAP256
		}
		if _, err := identity.ParsePublicKey(wrong, der); err == nil {
			t.Errorf("a key of %s was taken for one of %s", alg, wrong)
		}
	}
}

// The example of the DSSE specification, section "Pre-Authentication Encoding",
// fixes the form; the payload type is in-toto's here.
func TestPAE(t *testing.T) {
	if got, want := string(PAE([]byte("hello"))), "DSSEv1 28 application/vnd.in-toto+json 5 hello"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDigestIgnoresTheSignature(t *testing.T) {
	k, err := identity.Generate(predicate.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	var digests []predicate.Digest
	for range 2 {
		b, err := Sign([]byte("payload"), k)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Open(b)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, e.Digest())
	}
	if digests[0] != digests[1] {
		t.Error("two signatures of one payload have two digests")
	}
}

func FuzzOpen(f *testing.F) {
	for _, b := range signed(f) {
		f.Add(b)
	}
	for _, b := range refused(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Open(b)
		if err != nil {
			return
		}
		if again := marshal(predicate.PayloadType, e.payload, e.keyID, e.sig); !bytes.Equal(again, b) {
			t.Fatalf("opened bytes are not what Sign writes: %s", base64.StdEncoding.EncodeToString(b))
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	env := signed(b)["scan-malicious-pickle"]
	pub := testKey(b).Public()
	for b.Loop() {
		if _, err := open(env, pub); err != nil {
			b.Fatal(err)
		}
	}
}

package remoteconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/identity"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func key(tb testing.TB) *identity.Key {
	tb.Helper()
	k, err := identity.Generate(predicate.Ed25519)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func document() Document {
	return Document{
		Tenant: "acme", Agent: "a1", Version: 7, IssuedAt: predicate.At(now), NotAfter: predicate.At(now.Add(time.Hour)),
		Settings: Settings{Interval: Span(10 * time.Minute), Heartbeat: Span(30 * time.Second), Jobs: 2, SpoolMaxBytes: 1 << 28},
	}
}

func sign(tb testing.TB, payload []byte, k *identity.Key) []byte {
	tb.Helper()
	b, err := attest.SignKind(PayloadType, payload, k)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestOpen(t *testing.T) {
	k := key(t)
	holder := Holder{Tenant: "acme", Agent: "a1", Key: k.Public(), Version: 7}
	good, err := Sign(document(), k)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(good, holder, now)
	if diff := cmp.Diff(document(), got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	payload, err := json.Marshal(document())
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) []byte {
		t.Helper()
		if !bytes.Contains(payload, []byte(old)) {
			t.Fatalf("%q is not in %s", old, payload)
		}
		return sign(t, bytes.Replace(payload, []byte(old), []byte(new), 1), k)
	}
	statement, err := attest.Sign(payload, k)
	if err != nil {
		t.Fatal(err)
	}
	theirs := sign(t, payload, key(t))
	forged := bytes.Replace(theirs, []byte(mustOpen(t, theirs).KeyID()), []byte(k.Public().ID()), 1)
	flipped := bytes.Clone(good)
	at := bytes.Index(good, []byte(`"payload":"`)) + 30
	flipped[at] = 'A' + (flipped[at]-'A'+1)%26
	for name, tt := range map[string]struct {
		envelope []byte
		want     predicate.ConfigurationRefusal
		version  uint64
	}{
		"nothing":                      {nil, predicate.ConfigurationMalformed, 0},
		"too large":                    {bytes.Repeat([]byte("a"), MaxEnvelope+1), predicate.ConfigurationTooLarge, 0},
		"a statement's envelope":       {statement, predicate.ConfigurationMalformed, 0},
		"of another aggregator":        {sign(t, payload, key(t)), predicate.ConfigurationBadSignature, 0},
		"one bit other":                {flipped, predicate.ConfigurationBadSignature, 0},
		"forged, with our key's name":  {forged, predicate.ConfigurationBadSignature, 0},
		"another tenant's":             {edit(`"acme"`, `"rival"`), predicate.ConfigurationWrongTenant, 7},
		"another agent's":              {edit(`"a1"`, `"a2"`), predicate.ConfigurationWrongAgent, 7},
		"rolled back":                  {edit(`"version":7`, `"version":6`), predicate.ConfigurationRolledBack, 6},
		"version zero":                 {edit(`"version":7`, `"version":0`), predicate.ConfigurationMalformed, 0},
		"expired":                      {edit(document().NotAfter.String(), predicate.At(now).String()), predicate.ConfigurationExpired, 7},
		"without an end":               {edit(`"not_after":"`+document().NotAfter.String()+`",`, ``), predicate.ConfigurationExpired, 7},
		"a setting nobody knows":       {edit(`"jobs":2`, `"jobs":2,"verbose":true`), predicate.ConfigurationUnknown, 7},
		"a setting in another case":    {edit(`"jobs":2`, `"Jobs":2`), predicate.ConfigurationUnknown, 7},
		"scopes":                       {edit(`"jobs":2`, `"jobs":2,"scopes":[]`), predicate.ConfigurationLocal, 7},
		"privacy":                      {edit(`"jobs":2`, `"privacy":"names"`), predicate.ConfigurationLocal, 7},
		"sandbox":                      {edit(`"jobs":2`, `"sandbox":"off-unsafe"`), predicate.ConfigurationLocal, 7},
		"egress":                       {edit(`"jobs":2`, `"egress":["*"]`), predicate.ConfigurationLocal, 7},
		"too short":                    {edit(`"30s"`, `"1s"`), predicate.ConfigurationOutOfBounds, 7},
		"too long":                     {edit(`"10m0s"`, `"1000h0m0s"`), predicate.ConfigurationOutOfBounds, 7},
		"no time span":                 {edit(`"30s"`, `"-30s"`), predicate.ConfigurationOutOfBounds, 7},
		"no number":                    {edit(`"jobs":2`, `"jobs":"two"`), predicate.ConfigurationOutOfBounds, 7},
		"a member nobody knows":        {edit(`"version":7`, `"version":7,"run":"id"`), predicate.ConfigurationMalformed, 0},
		"a setting twice":              {edit(`"jobs":2`, `"jobs":1,"jobs":2`), predicate.ConfigurationMalformed, 7},
		"another spelling":             {edit(`"10m0s"`, `"10m"`), predicate.ConfigurationMalformed, 7},
		"white space":                  {edit(`"jobs":2`, `"jobs": 2`), predicate.ConfigurationMalformed, 7},
		"settings that are no object":  {edit(string(payload[bytes.Index(payload, []byte(`"settings":`)):]), `"settings":null}`), predicate.ConfigurationMalformed, 7},
		"something behind it":          {sign(t, append(bytes.Clone(payload), " {}"...), k), predicate.ConfigurationMalformed, 7},
		"in-toto's type, our settings": {[]byte(strings.Replace(string(good), PayloadType, predicate.PayloadType, 1)), predicate.ConfigurationMalformed, 0},
	} {
		_, err := Open(tt.envelope, holder, now)
		var why *Refusal
		if !errors.As(err, &why) || why.Reason != tt.want || why.Version != tt.version {
			t.Errorf("%s: %v, want %s of version %d", name, err, tt.want, tt.version)
		}
	}
}

func mustOpen(t *testing.T, b []byte) attest.Envelope {
	t.Helper()
	e, err := attest.OpenKind(PayloadType, b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSignRefuses(t *testing.T) {
	for name, change := range map[string]func(*Document){
		"no tenant": func(d *Document) { d.Tenant = "" },
		"no agent":  func(d *Document) { d.Agent = "" },
		"too often": func(d *Document) { d.Settings.Heartbeat = Span(time.Second) },
		"jobs":      func(d *Document) { d.Settings.Jobs = 1000 },
		"a spool":   func(d *Document) { d.Settings.SpoolMaxBytes = 1 },
	} {
		d := document()
		change(&d)
		if _, err := Sign(d, key(t)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// FuzzRead takes payloads apart as if their signature were good: what is taken is
// within the bounds and has one spelling.
func FuzzRead(f *testing.F) {
	payload, err := json.Marshal(document())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{"tenant":"acme","agent":"a1","version":9,"issued_at":"2026-01-02T03:04:05.000Z","not_after":"2027-01-02T03:04:05.000Z","settings":{}}`))
	h := Holder{Tenant: "acme", Agent: "a1", Version: 3}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := read(b, h, now)
		var why *Refusal
		if err != nil {
			if !errors.As(err, &why) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		again, err := json.Marshal(d)
		if err != nil || !bytes.Equal(again, b) || d.Settings.Validate() != nil || d.Version < h.Version {
			t.Fatalf("%v: taken: %s", err, b)
		}
	})
}

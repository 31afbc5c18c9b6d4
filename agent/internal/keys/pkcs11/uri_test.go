package pkcs11

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseURI(t *testing.T) {
	got, err := ParseURI("pkcs11:token=My%20token;object=cavra;id=%01%ff;type=private?module-path=/usr/lib/hsm.so&pin-source=file:/etc/cavra/pin")
	if err != nil {
		t.Fatal(err)
	}
	want := URI{Token: "My token", Object: "cavra", ID: "\x01\xff", Module: "/usr/lib/hsm.so", PINFile: "/etc/cavra/pin"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for uri, problem := range map[string]string{
		"kms:x":           "want pkcs11:",
		"pkcs11:token=a":  "name the key",
		"pkcs11:object=a": "module-path",
		"pkcs11:object=a?module-path=relative.so":                        "absolute",
		"pkcs11:object=a?module-path=/x.so&pin-value=1234":               "pin-source",
		"pkcs11:object=a;object=b?module-path=/x.so":                     "twice",
		"pkcs11:object=a;library-version=3?module-path=/x.so":            "not known",
		"pkcs11:object=%zz?module-path=/x.so":                            "percent-encoded",
		"pkcs11:object=a?module-path=/x.so&pin-source=%7Csecret-program": "absolute path",
	} {
		if _, err := ParseURI(uri); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("ParseURI(%q): %v, want %q", uri, err, problem)
		}
	}
}

// FuzzURI holds that what was read is spelled in a way that reads the same.
func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=a;object=b?module-path=/x.so")
	f.Add("pkcs11:id=%00%3b;serial=7?module-path=/%25.so&pin-source=/pin")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		u.PINFile = ""
		again, err := ParseURI(u.String())
		if err != nil {
			t.Fatalf("%q: %v", u.String(), err)
		}
		if d := cmp.Diff(u, again); d != "" {
			t.Error(d)
		}
	})
}

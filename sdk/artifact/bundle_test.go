package artifact

import (
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

func TestBundleDigestIgnoresOrder(t *testing.T) {
	a := File{Path: "config.json", Digest: predicate.DigestOf([]byte("a")), Size: 1}
	b := File{Path: "weights/0.bin", Digest: predicate.DigestOf([]byte("b")), Size: 1}
	one, err := BundleDigest([]File{a, b})
	if err != nil {
		t.Fatal(err)
	}
	two, err := BundleDigest([]File{b, a})
	if err != nil || one != two {
		t.Errorf("%s and %s (%v)", one, two, err)
	}
	// The identity is a contract: a change of this value is a change of what a
	// bundle is.
	const golden = "sha256:fdc2600ac3776c457c2b5e2b906eff935c7cc3ac3eb60cf8e30bd75ab40cb6e4"
	if one != golden {
		t.Errorf("digest %s, want %s", one, golden)
	}
	b.Path = "weights/1.bin"
	if three, err := BundleDigest([]File{a, b}); err != nil || three == one {
		t.Errorf("another path, the same digest (%v)", err)
	}
}

func TestBundleDigestRefuses(t *testing.T) {
	d := predicate.DigestOf(nil)
	for name, files := range map[string][]File{
		"nothing":       nil,
		"absolute":      {{Path: "/etc/passwd", Digest: d}},
		"climbs out":    {{Path: "../x", Digest: d}},
		"unclean":       {{Path: "a//b", Digest: d}},
		"the root":      {{Path: ".", Digest: d}},
		"twice":         {{Path: "a", Digest: d}, {Path: "a", Digest: d}},
		"without bytes": {{Path: "a"}},
	} {
		if got, err := BundleDigest(files); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestManifestIsReadBack(t *testing.T) {
	files := []File{{Path: "a \"b\"/ü.py", Digest: predicate.DigestOf([]byte("a")), Size: 1}, {Path: "config.json", Digest: predicate.DigestOf(nil)}}
	m, err := Manifest(files)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(m)
	if err != nil || len(got) != 2 || got[0] != files[0] || got[1] != files[1] {
		t.Errorf("read back %v (%v)", got, err)
	}
	for _, bad := range []string{"", ManifestHeader, string(m) + "x", string(m[:len(m)-1]), string(m) + string(m[len(ManifestHeader):])} {
		if got, err := ParseManifest([]byte(bad)); err == nil {
			t.Errorf("%q: read as %v", bad, got)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(ManifestHeader + "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 \"a\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := ParseManifest(b)
		if err != nil {
			return
		}
		if again, err := Manifest(files); err != nil || string(again) != string(b) {
			t.Errorf("%q is read as %v", b, files)
		}
	})
}

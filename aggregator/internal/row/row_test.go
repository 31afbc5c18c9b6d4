package row

import (
	"strings"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

// TestArtifactColumn: both kinds of digests come back as they were, and never as
// the other.
func TestArtifactColumn(t *testing.T) {
	plain := predicate.DigestOf([]byte("x"))
	keyed := predicate.KeyedDigest([]byte("k"), plain)
	alike := predicate.Digest("hmac-sha256:" + plain.Hex())
	seen := map[string]predicate.Digest{}
	for _, d := range []predicate.Digest{"", plain, keyed, alike} {
		column := Artifact(d)
		if len(column) != len(ZeroDigest) || ArtifactDigest(column) != d {
			t.Errorf("%q is written %q and read %q", d, column, ArtifactDigest(column))
		}
		if other, twice := seen[column]; twice {
			t.Errorf("%s and %s are both %s", other, d, column)
		}
		seen[column] = d
	}
	for _, bad := range []string{"", "g", strings.Repeat("g", 63) + "0", strings.Repeat("0", 63) + "g", strings.Repeat("x", 64), Artifact(plain) + "0"} {
		if d := ArtifactDigest(bad); d != "" {
			t.Errorf("%q reads as %s", bad, d)
		}
	}
}

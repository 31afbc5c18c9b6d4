package main

import (
	"slices"
	"testing"
)

func TestHashesThatAreAskedFor(t *testing.T) {
	got, err := hashes([]string{"hmac-sha256:0123456789abcdef", "keyed:01234567…", "89abcdef"})
	if want := []string{"0123456789abcdef", "01234567", "89abcdef"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "keyed:0123", "sha256:0123456789abcdef", "model.pkl", "keyed:0123456X"} {
		if got, err := hashes([]string{bad}); err == nil {
			t.Errorf("%q reads as %v", bad, got)
		}
	}
}

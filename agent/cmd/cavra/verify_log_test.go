package main

import (
	"strings"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/logproof"
)

// TestKeysEndInTheLog: what counts is where a statement stands in the log, before
// the end of its key or behind it, whatever time it says.
func TestKeysEndInTheLog(t *testing.T) {
	digest := func(s string) predicate.Digest { return predicate.DigestOf([]byte(s)) }
	event := func(change logproof.KeyChange, key string, epoch, index uint64) entered {
		e := logproof.KeyEvent{Change: change, Tenant: "acme", Agent: "a", Epoch: epoch, KeyID: digest(key)}
		if change == logproof.KeyCertified {
			e.Authority = digest("K")
		}
		return entered{e, index}
	}
	link := func(epoch uint64) *predicate.Link {
		return &predicate.Link{Tenant: "acme", Agent: "a", Epoch: epoch, Sequence: 2}
	}
	log := proven{
		statements: map[predicate.Digest]uint64{digest("4"): 4, digest("9"): 9, digest("3"): 3},
		keys: map[predicate.Digest][]entered{
			digest("old"): {event(logproof.KeyEnrolled, "old", 1, 1), event(logproof.KeyRetired, "old", 1, 2), event(logproof.KeyEnded, "old", 1, 5)},
			digest("bad"): {event(logproof.KeyEnrolled, "bad", 1, 1), event(logproof.KeyRevoked, "bad", 1, 8)},
			digest("new"): {event(logproof.KeyCertified, "new", 2, 2)},
		},
	}
	for name, tt := range map[string]struct {
		v    verified
		want string
	}{
		"in the overlap":            {verified{keyID: digest("old"), digest: digest("4"), link: link(1)}, ""},
		"after it":                  {verified{keyID: digest("old"), digest: digest("9"), link: link(1)}, "ended at 5"},
		"before the revocation":     {verified{keyID: digest("bad"), digest: digest("4"), link: link(1)}, ""},
		"after the revocation":      {verified{keyID: digest("bad"), digest: digest("9"), link: link(1)}, "revoked at 8"},
		"not in the log":            {verified{keyID: digest("old"), digest: digest("1"), link: link(1)}, "not in the transparency log"},
		"another epoch's key":       {verified{keyID: digest("old"), digest: digest("4"), link: link(2)}, "that of epoch 1"},
		"a key that nobody named":   {verified{keyID: digest("x"), digest: digest("4"), link: link(1)}, "nothing of its key's enrolment"},
		"an opening":                {verified{keyID: digest("K"), digest: digest("3"), link: link(2), opens: true, certifies: digest("new")}, ""},
		"an opening by another":     {verified{keyID: digest("old"), digest: digest("3"), link: link(2), opens: true, certifies: digest("new")}, "enrolled otherwise"},
		"an opening for a lone key": {verified{keyID: digest("K"), digest: digest("3"), link: link(1), opens: true, certifies: digest("old")}, "enrolled otherwise"},
	} {
		err := log.judge(&tt.v)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

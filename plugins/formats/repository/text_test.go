package repository

import (
	"strings"
	"testing"
	"time"
)

// TestScalarsInLinearTime goes through texts on which a careless reader takes the
// square of their length.
func TestScalarsInLinearTime(t *testing.T) {
	const n = 1 << 19
	for _, piece := range []string{"!,", "! ", "!!python/", "!<", "%TAG !a! b\n", "&a *a ", "? ", "? |\n", "'", "\"", "\"\\", "'a", "{a: ", "- ", "a: &b\n", "*a : ", "%", "_target_: "} {
		started := time.Now()
		s := newScalars(strings.Repeat(piece, n/len(piece)))
		for s.next() {
			if s.isKey {
				s.value()
			}
		}
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("%q: %s", piece, took)
		}
	}
}

// FuzzScalars holds that the reader goes on to the end, whatever it reads.
func FuzzScalars(f *testing.F) {
	f.Add("%TAG !p! tag:yaml.org,2002:pyth\n---\na: !p!on/object/apply:os.system [x, {b: 'c'}]\n? |-\n  _target_\n: &d \"\\x6f\\\n  s\"\n*d : e # f\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := newScalars(text)
		for last := -1; s.next(); last = s.pos {
			if s.pos <= last && s.pos < len(text) {
				t.Fatalf("%q: stays at %d", text, last)
			}
			if s.isKey {
				at := s.pos
				if s.value(); s.pos != at {
					t.Fatalf("%q: a value moves the reader", text)
				}
			}
			if s.pos >= len(text) && s.tag == "" {
				break
			}
		}
	})
}

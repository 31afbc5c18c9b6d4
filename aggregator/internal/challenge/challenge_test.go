package challenge

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cavra/cavra/aggregator/internal/control"
)

type spent map[control.Hash]bool

func (s spent) SpendChallenge(_ context.Context, h control.Hash, _ time.Time) error {
	if s[h] {
		return control.ErrExists
	}
	s[h] = true
	return nil
}

func TestChallenge(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	used := spent{}
	m, err := New(make([]byte, 32), used, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(append(make([]byte, 31), 1), used, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Make("return")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Check("return", c), m.Check("return", c)); err != nil {
		t.Errorf("checked: %v", err)
	}
	if !errors.Is(other.Check("return", c), ErrNotGood) || !errors.Is(m.Check("retur", "n"+c), ErrNotGood) || !errors.Is(m.Check("aws-sts", c), ErrNotGood) {
		t.Error("it is good elsewhere")
	}
	if err := m.Spend(t.Context(), "return", c); err != nil {
		t.Error(err)
	}
	if err := m.Spend(t.Context(), "return", c); !errors.Is(err, ErrNotGood) {
		t.Errorf("spent twice: %v", err)
	}
	next, err := m.Make("return")
	if err != nil || next == c {
		t.Errorf("another one is the same, %v", err)
	}
	now = now.Add(Life)
	if err := m.Spend(t.Context(), "return", next); !errors.Is(err, ErrNotGood) {
		t.Errorf("spent after its end: %v", err)
	}
	if len(used) != 1 {
		t.Errorf("%d are remembered", len(used))
	}
}

// FuzzChallenge: what is none of ours is refused, whatever it is.
func FuzzChallenge(f *testing.F) {
	m, err := New(make([]byte, 32), spent{}, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	c, err := m.Make("other purpose")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", c, c[1:], c + "A", c + "=", c[:Len-1] + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := m.Check("return", s); !errors.Is(err, ErrNotGood) {
			t.Errorf("%q: %v", s, err)
		}
	})
}

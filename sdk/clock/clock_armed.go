//go:build faultpoint

// Package clock is the wall clock by which statements and decisions are dated.
// This is the armed build, for tests only.
package clock

import (
	"os"
	"strings"
	"time"
)

// Variable names the file that says by how much the clock is off, as 90s or -24h.
const Variable = "CAVRA_CLOCK"

// Now is the time as a clock shows it that was set by somebody: it has no reading
// of the one that only runs.
func Now() time.Time {
	now := time.Now().Round(0)
	b, err := os.ReadFile(os.Getenv(Variable))
	if err != nil {
		return now
	}
	off, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return now
	}
	return now.Add(off)
}

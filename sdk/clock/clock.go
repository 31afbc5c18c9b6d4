//go:build !faultpoint

// Package clock is the wall clock by which statements and decisions are dated.
// Built with the tag faultpoint, the file that CAVRA_CLOCK names moves it, as
// somebody who sets the machine's clock does; a release build has no such thing.
package clock

import "time"

// Now is the time.
func Now() time.Time { return time.Now() }

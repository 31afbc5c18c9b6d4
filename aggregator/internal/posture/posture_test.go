package posture

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func score(f float64) *float64 { return &f }

func TestOf(t *testing.T) {
	tests := map[string]struct {
		rows Rows
		want Posture
	}{
		"an empty fleet has no score": {Rows{}, Posture{}},
		"unassessed does not pass": {
			Rows{Verdicts: map[string]uint64{"pass": 1, "unassessed": 1}},
			Posture{Score: score(50), Artifacts: Artifacts{Total: 2, Pass: 1, Unassessed: 1}},
		},
		"a verdict of another version does not pass": {
			Rows{Verdicts: map[string]uint64{"pass": 1, "splendid": 2}},
			Posture{Score: score(33.3), Artifacts: Artifacts{Total: 3, Pass: 1, Unassessed: 2}},
		},
		"nearly all is not all": {
			Rows{Verdicts: map[string]uint64{"pass": 9999, "fail": 1}},
			Posture{Score: score(99.9), Artifacts: Artifacts{Total: 10000, Pass: 9999, Fail: 1}},
		},
		"counts": {
			Rows{
				Verdicts:   map[string]uint64{"warn": 1, "fail": 2, "error": 3},
				Problems:   map[string]uint64{"": 5, "permission_denied": 1},
				Severities: map[string]uint64{"critical": 1, "high": 2, "medium": 3, "low": 4, "info": 5},
				Agents:     []Status{Online, Stale, Never, Online, Revoked, Silent},
			},
			Posture{
				Score:      score(0),
				Artifacts:  Artifacts{Total: 6, Warn: 1, Fail: 2, Error: 3},
				References: References{Total: 6, Unreadable: 1},
				Exposures:  Exposures{Total: 15, Critical: 1, High: 2, Medium: 3, Low: 4, Info: 5},
				Agents:     Agents{Total: 6, Online: 2, Stale: 1, Silent: 1, Never: 1, Revoked: 1},
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Of(tt.rows)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusAt(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		last     time.Time
		interval time.Duration
		want     Status
	}{
		{time.Time{}, 0, Never}, {time.Unix(0, 0), time.Minute, Never}, {now.Add(time.Hour), 0, Online},
		{now.Add(-StaleAfter), 0, Online}, {now.Add(-StaleAfter - 1), 0, Stale},
		{now.Add(-3 * time.Hour), time.Hour, Online}, {now.Add(-3*time.Hour - 1), time.Hour, Stale},
		// What arrives takes a while, whatever the agent promises.
		{now.Add(-time.Minute), time.Second, Online}, {now.Add(-time.Minute - 1), time.Second, Stale},
		{now.Add(-SilentAfter), time.Minute, Stale}, {now.Add(-SilentAfter - 1), time.Minute, Silent},
		// An agent cannot say that nobody should miss it.
		{now.Add(-SilentAfter - 1), 1 << 62, Silent},
	} {
		if got := StatusAt(now, tt.last, tt.interval); got != tt.want {
			t.Errorf("last %v, every %s: %s, want %s", tt.last, tt.interval, got, tt.want)
		}
	}
}

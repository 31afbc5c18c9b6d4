// Package posture turns rows into what a person answers for: how much of the
// fleet's models has been looked at, and how much of that is sound. It is pure:
// the same rows and the same moment give the same posture.
package posture

import (
	"math"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// Definition says what Score is, in the words that the API gives with it.
const Definition = "Share of the current artifacts whose latest scan passed with complete coverage, in percent. " +
	"An artifact that was not scanned, or not wholly, does not count as passing. Without artifacts there is no score."

// Posture is one tenant's posture at a moment.
type Posture struct {
	// Score is 0 to 100, and nil when there is nothing to judge: an empty fleet
	// is not a sound one.
	Score      *float64
	Artifacts  Artifacts
	References References
	Exposures  Exposures
	Agents     Agents
}

// Artifacts counts the current artifacts by the verdict of their latest scan.
type Artifacts struct {
	Total, Pass, Warn, Fail, Error, Unassessed uint64
}

// References counts the current references.
type References struct {
	Total, Unreadable uint64
}

// Exposures counts the open exposures by severity.
type Exposures struct {
	Total, Critical, High, Medium, Low, Info uint64
}

// Agents counts the agents by how recently they spoke. What revoked agents say is
// not believed, so they are counted apart.
type Agents struct {
	Total, Online, Stale, Silent, Never, Revoked uint64
}

// Rows are what a posture is made of: counts by word.
type Rows struct {
	// Verdicts has "unassessed" for artifacts without a scan.
	Verdicts map[string]uint64
	// Problems has the empty word for references that could be read.
	Problems map[string]uint64
	// Severities counts open exposures.
	Severities map[string]uint64
	Agents     []Status
}

// Of makes the posture.
func Of(r Rows) Posture {
	a := Artifacts{
		Pass: r.Verdicts[string(predicate.Pass)], Warn: r.Verdicts[string(predicate.Warn)],
		Fail: r.Verdicts[string(predicate.Fail)], Error: r.Verdicts[string(predicate.Error)],
	}
	a.Total = total(r.Verdicts)
	// A verdict that this version does not know is not assessed, never passed.
	a.Unassessed = a.Total - a.Pass - a.Warn - a.Fail - a.Error
	p := Posture{Artifacts: a}
	p.References.Total = total(r.Problems)
	p.References.Unreadable = p.References.Total - r.Problems[""]
	p.Exposures = Exposures{
		Total: total(r.Severities), Critical: r.Severities[string(predicate.Critical)], High: r.Severities[string(predicate.High)],
		Medium: r.Severities[string(predicate.Medium)], Low: r.Severities[string(predicate.Low)], Info: r.Severities[string(predicate.Info)],
	}
	for _, s := range r.Agents {
		p.Agents.Total++
		switch s {
		case Online:
			p.Agents.Online++
		case Stale:
			p.Agents.Stale++
		case Silent:
			p.Agents.Silent++
		case Revoked:
			p.Agents.Revoked++
		default:
			p.Agents.Never++
		}
	}
	if a.Total > 0 {
		score := math.Floor(1000*float64(a.Pass)/float64(a.Total)) / 10
		p.Score = &score
	}
	return p
}

func total(counts map[string]uint64) uint64 {
	var n uint64
	for _, c := range counts {
		n += c
	}
	return n
}

// Status is how recently an agent spoke.
type Status string

// The statuses: an agent is stale when nothing has come from it for three of its
// heartbeats, silent when nothing has come for SilentAfter, and never when nothing
// has come at all. A revoked one's keys were ended, however recently it spoke.
const (
	Online  Status = "online"
	Stale   Status = "stale"
	Silent  Status = "silent"
	Never   Status = "never"
	Revoked Status = "revoked"
)

// Statuses lists them.
func Statuses() []Status { return []Status{Online, Stale, Silent, Never, Revoked} }

// The bounds of what an agent may leave unsaid.
const (
	// StaleAfter is how long an agent may be silent that does not say how often
	// it sends heartbeats.
	StaleAfter = 15 * time.Minute
	// SilentAfter is how long any agent may be.
	SilentAfter = 24 * time.Hour
	// missedBeats is how many heartbeats may be missed, and leastPatience what
	// the way to here may take.
	missedBeats   = 3
	leastPatience = time.Minute
)

// StatusAt is the status at now of an agent last heard of at last, the zero time
// for never, whose heartbeats are an interval apart; 0 where it does not say.
func StatusAt(now, last time.Time, interval time.Duration) Status {
	patience := StaleAfter
	if interval > 0 {
		patience = max(missedBeats*min(interval, SilentAfter), leastPatience)
	}
	switch silence := now.Sub(last); {
	case last.IsZero() || last.Unix() <= 0:
		return Never
	case silence > SilentAfter:
		return Silent
	case silence > patience:
		return Stale
	}
	return Online
}

package posture

import (
	"cmp"
	"slices"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// FullSandbox are the layers that an agent is expected to have around its
// plugins: those that `sandbox: require` asks for.
func FullSandbox() []predicate.Layer {
	return []predicate.Layer{
		predicate.LayerEmptyEnv, predicate.LayerLandlock, predicate.LayerNetwork, predicate.LayerNoNewPrivs,
		predicate.LayerProcess, predicate.LayerRlimits, predicate.LayerSeccomp,
	}
}

// MissingLayers are those of FullSandbox that are not among the given ones.
func MissingLayers(have []predicate.Layer) []predicate.Layer {
	return slices.DeleteFunc(FullSandbox(), func(l predicate.Layer) bool { return slices.Contains(have, l) })
}

// Trouble is what is wrong with an agent, a closed vocabulary.
type Trouble string

// The troubles.
const (
	Forked         Trouble = "forked"
	Gap            Trouble = "gap"
	LessIsolated   Trouble = "less_isolated"
	IsSilent       Trouble = "silent"
	ConfigRefused  Trouble = "configuration_refused"
	NeverSeen      Trouble = "never_seen"
	IsStale        Trouble = "stale"
	NoRound        Trouble = "no_complete_round"
	Backlog        Trouble = "backlog"
	ProgramsDiffer Trouble = "programs_differ"
	ConfigDrift    Trouble = "configuration_drift"
	VersionDiffers Trouble = "version_differs"
	KeyReplaced    Trouble = "key_replaced"
	Cloned         Trouble = "cloned"
	Restored       Trouble = "restored"
	ClockOff       Trouble = "clock_off"
)

// troubles are all of them, the worst first, with what each weighs.
var troubles = []struct {
	kind     Trouble
	severity predicate.Severity
	text     string
}{
	{Forked, predicate.Critical, "Two statements stand at one place of its chain: its key is used twice, as by a cloned machine or by whoever has stolen it."},
	{Cloned, predicate.Critical, "Two processes call with its identity: its folder was copied. Revoke it, and enrol what is to stay."},
	{Gap, predicate.High, "Statements of its chain are missing."},
	{LessIsolated, predicate.High, "Layers of the sandbox are not in force around its plugins."},
	{IsSilent, predicate.High, "Nothing has come from it for a day."},
	{ConfigRefused, predicate.High, "It has refused the configuration that was pushed to it."},
	{Restored, predicate.Medium, "It came back with what was its own some time ago, as from a snapshot or a backup."},
	{ClockOff, predicate.Medium, "Its clock is off by more than two minutes: so are the times that it signs."},
	{NeverSeen, predicate.Medium, "It was enrolled and has never said anything."},
	{IsStale, predicate.Medium, "Nothing has come from it for three of its heartbeats."},
	{NoRound, predicate.Medium, "It has not listed all of its scopes for a day."},
	{Backlog, predicate.Medium, "Statements wait in its spool: it can sign, and cannot deliver."},
	{ProgramsDiffer, predicate.Medium, "Its plugins are not those that most of the fleet runs."},
	{ConfigDrift, predicate.Low, "It does not run with the configuration that it should."},
	{VersionDiffers, predicate.Low, "Its version is not the one that most of the fleet runs."},
	{KeyReplaced, predicate.Info, "It was enrolled more than once."},
}

// Troubles lists the vocabulary, the worst first.
func Troubles() []Trouble {
	out := make([]Trouble, len(troubles))
	for i, t := range troubles {
		out[i] = t.kind
	}
	return out
}

// Severity is how bad a trouble is, and Text what it means, for people.
func (t Trouble) Severity() predicate.Severity { return troubles[t.rank()].severity }

// Text says what a trouble means.
func (t Trouble) Text() string { return troubles[t.rank()].text }

// rank is the trouble's place among all; the worst is 0.
func (t Trouble) rank() int {
	for i := range troubles {
		if troubles[i].kind == t {
			return i
		}
	}
	return len(troubles) - 1
}

// The bounds that make a trouble.
const (
	// RoundEvery is how long an agent may be without a complete round.
	RoundEvery = 24 * time.Hour
	// BacklogFrom is how many statements may wait in a spool.
	BacklogFrom = 1000
)

// Facts are what is known of an agent.
type Facts struct {
	Status     Status
	EnrolledAt time.Time
	// Reported is false where no heartbeat has come: what is below is not
	// known then.
	Reported bool
	// Version, and Programs, which stands for the names and digests of all plugins.
	Version, Programs string
	Sandbox           []predicate.Layer
	// RoundsKnown says that the agent tells of its complete rounds.
	RoundsKnown     bool
	LastComplete    time.Time
	SpoolStatements uint64
	Gaps, Forks     uint64
	Enrolments      uint64
	// Cloned and Restored are what was seen of its calls lately, and ClockOff what
	// the last one said.
	Cloned, Restored, ClockOff bool
	// Wanted is the version of the configuration that it should run with, 0 for
	// none, and Config how it stands to that.
	Wanted uint64
	Config *predicate.Configuration
}

// Norm is what most of a fleet runs.
type Norm struct{ Version, Programs string }

// NormOf is what most of the agents run that are heard of; of two that are as
// common, the greater one.
func NormOf(fleet []Facts) Norm {
	versions, programs := map[string]int{}, map[string]int{}
	for i := range fleet {
		if f := &fleet[i]; f.Reported && (f.Status == Online || f.Status == Stale) {
			versions[f.Version]++
			programs[f.Programs]++
		}
	}
	return Norm{most(versions), most(programs)}
}

func most(counts map[string]int) string {
	var best string
	for word, n := range counts {
		if n > counts[best] || n == counts[best] && word > best {
			best = word
		}
	}
	return best
}

// Judge lists what is wrong with an agent, the worst first. With a revoked agent
// nothing is: it is not believed.
func Judge(f *Facts, norm Norm, now time.Time) []Trouble {
	if f.Status == Revoked {
		return nil
	}
	var out []Trouble
	add := func(is bool, t Trouble) {
		if is {
			out = append(out, t)
		}
	}
	add(f.Forks > 0, Forked)
	add(f.Gaps > 0, Gap)
	add(f.Status == Silent, IsSilent)
	add(f.Status == Stale, IsStale)
	add(f.Status == Never && now.Sub(f.EnrolledAt) > StaleAfter, NeverSeen)
	add(f.Enrolments > 1, KeyReplaced)
	add(f.Cloned, Cloned)
	add(f.Restored, Restored)
	add(f.ClockOff, ClockOff)
	if !f.Reported {
		return sorted(out)
	}
	add(len(MissingLayers(f.Sandbox)) > 0, LessIsolated)
	add(f.RoundsKnown && f.Status != Silent && now.Sub(later(f.LastComplete, f.EnrolledAt)) > RoundEvery, NoRound)
	add(f.SpoolStatements >= BacklogFrom, Backlog)
	add(f.Programs != norm.Programs && norm.Programs != "", ProgramsDiffer)
	add(f.Version != norm.Version && norm.Version != "", VersionDiffers)
	// An installation that takes none has decided so.
	behind := f.Wanted > 0 && f.Config != nil && f.Config.Remote && f.Config.Version != f.Wanted
	add(behind && f.Config.Refused != nil, ConfigRefused)
	add(behind && f.Config.Refused == nil, ConfigDrift)
	return sorted(out)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sorted(ts []Trouble) []Trouble {
	slices.SortFunc(ts, func(a, b Trouble) int { return cmp.Compare(a.rank(), b.rank()) })
	return ts
}

// Worse orders agents by their troubles, the worst first: by the worst one, then
// by how many there are.
func Worse(a, b []Trouble) int {
	rank := func(ts []Trouble) int {
		if len(ts) == 0 {
			return len(troubles)
		}
		return ts[0].rank()
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b), len(a)))
}

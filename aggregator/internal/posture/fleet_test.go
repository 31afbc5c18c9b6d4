package posture

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// sound is an agent with which nothing is wrong.
func sound() Facts {
	return Facts{
		Status: Online, EnrolledAt: now.Add(-100 * time.Hour), Reported: true, Version: "0.1.0", Programs: "formats a", Sandbox: FullSandbox(),
		RoundsKnown: true, LastComplete: now.Add(-time.Hour), Enrolments: 1, Config: &predicate.Configuration{Remote: true},
	}
}

func TestJudge(t *testing.T) {
	norm := Norm{"0.1.0", "formats a"}
	refused := &predicate.RefusedConfiguration{Version: 4, Reason: predicate.ConfigurationLocal}
	for name, tt := range map[string]struct {
		change func(*Facts)
		want   []Trouble
	}{
		"nothing":                     {func(*Facts) {}, nil},
		"a fork":                      {func(f *Facts) { f.Forks = 1 }, []Trouble{Forked}},
		"a gap":                       {func(f *Facts) { f.Gaps = 2 }, []Trouble{Gap}},
		"a layer missing":             {func(f *Facts) { f.Sandbox = f.Sandbox[1:] }, []Trouble{LessIsolated}},
		"no layer":                    {func(f *Facts) { f.Sandbox = nil }, []Trouble{LessIsolated}},
		"a layer more":                {func(f *Facts) { f.Sandbox = append(f.Sandbox, predicate.LayerUID) }, nil},
		"stale":                       {func(f *Facts) { f.Status = Stale }, []Trouble{IsStale}},
		"silent, so without rounds":   {func(f *Facts) { f.Status, f.LastComplete = Silent, now.Add(-48*time.Hour) }, []Trouble{IsSilent}},
		"never, just enrolled":        {func(f *Facts) { *f = Facts{Status: Never, EnrolledAt: now.Add(-time.Minute), Enrolments: 1} }, nil},
		"never":                       {func(f *Facts) { *f = Facts{Status: Never, EnrolledAt: now.Add(-time.Hour), Enrolments: 1} }, []Trouble{NeverSeen}},
		"no round":                    {func(f *Facts) { f.LastComplete = time.Time{} }, []Trouble{NoRound}},
		"no round, just enrolled":     {func(f *Facts) { f.LastComplete, f.EnrolledAt = time.Time{}, now.Add(-time.Hour) }, nil},
		"no round, by an older agent": {func(f *Facts) { f.LastComplete, f.RoundsKnown = time.Time{}, false }, nil},
		"a backlog":                   {func(f *Facts) { f.SpoolStatements = BacklogFrom }, []Trouble{Backlog}},
		"other programs":              {func(f *Facts) { f.Programs = "formats b" }, []Trouble{ProgramsDiffer}},
		"another version":             {func(f *Facts) { f.Version = "0.0.9" }, []Trouble{VersionDiffers}},
		"another key":                 {func(f *Facts) { f.Enrolments = 3 }, []Trouble{KeyReplaced}},
		"not configured yet":          {func(f *Facts) { f.Wanted = 4 }, []Trouble{ConfigDrift}},
		"of an older configuration":   {func(f *Facts) { f.Wanted, f.Config.Version = 4, 3 }, []Trouble{ConfigDrift}},
		"configured":                  {func(f *Facts) { f.Wanted, f.Config.Version = 4, 4 }, nil},
		"does not say":                {func(f *Facts) { f.Wanted, f.Config = 4, nil }, nil},
		"takes none":                  {func(f *Facts) { f.Wanted, f.Config.Remote = 4, false }, nil},
		"refused":                     {func(f *Facts) { f.Wanted, f.Config.Refused = 4, refused }, []Trouble{ConfigRefused}},
		"refused, and nothing wanted": {func(f *Facts) { f.Config.Refused = refused }, nil},
		"the worst first":             {func(f *Facts) { f.Enrolments, f.Status, f.Gaps, f.Forks = 2, Stale, 1, 1 }, []Trouble{Forked, Gap, IsStale, KeyReplaced}},
		"revoked":                     {func(f *Facts) { f.Status, f.Forks, f.Sandbox = Revoked, 1, nil }, nil},
	} {
		f := sound()
		tt.change(&f)
		if diff := cmp.Diff(tt.want, Judge(&f, norm, now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestNorm(t *testing.T) {
	old, revoked := sound(), sound()
	old.Version, old.Programs = "0.0.9", "formats b"
	revoked.Status, revoked.Version = Revoked, "0.0.9"
	if got, want := NormOf([]Facts{old, sound(), revoked, sound(), revoked}), (Norm{"0.1.0", "formats a"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for range 10 {
		if got := NormOf([]Facts{old, sound()}); got.Version != "0.1.0" || got.Programs != "formats b" {
			t.Errorf("of two that are as common: %+v", got)
		}
	}
	if got := NormOf(nil); got != (Norm{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// Every trouble has a severity that is known and a text, from the worst to the
// least.
func TestTroubles(t *testing.T) {
	order := []predicate.Severity{predicate.Critical, predicate.High, predicate.Medium, predicate.Low, predicate.Info}
	last := 0
	for _, trouble := range Troubles() {
		at := slices.Index(order, trouble.Severity())
		if at < last || len(trouble.Text()) < 20 {
			t.Errorf("%s: severity %s after %s, text %q", trouble, trouble.Severity(), order[last], trouble.Text())
		}
		last = at
	}
	worst, one, none := []Trouble{Gap, IsStale}, []Trouble{Gap}, []Trouble(nil)
	if Worse(worst, one) >= 0 || Worse(one, none) >= 0 || Worse(one, one) != 0 || Worse([]Trouble{IsStale, NoRound, Backlog}, one) <= 0 {
		t.Error("the order of agents")
	}
}

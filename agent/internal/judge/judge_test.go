package judge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
)

func shipped(t *testing.T) *Judge {
	t.Helper()
	c, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	j, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func of(rules ...string) []finding.Finding {
	var out []finding.Finding
	for i, r := range rules {
		out = append(out, finding.Finding{Rule: r, Location: finding.Location{Class: "pickle", Offset: int64(i)}})
	}
	return out
}

func TestVerdict(t *testing.T) {
	all := []coverage.Range{{Kind: predicate.Parsed, End: 10}}
	part := []coverage.Range{{Kind: predicate.Parsed, End: 5}, {Kind: predicate.Unread, Start: 5, End: 10, Reason: predicate.Truncated}}
	place := []coverage.Range{{Kind: predicate.Parsed, End: 10}, {Kind: predicate.Unread, Start: 10, End: 10, Reason: predicate.Truncated}}
	const critical, high, medium, low = "pickle.import.dangerous", "pickle.call.unresolved", "pickle.import.unknown", "numpy.object.array"
	for name, tt := range map[string]struct {
		findings []finding.Finding
		dropped  uint64
		account  []coverage.Range
		want     predicate.Verdict
		score    int
	}{
		"clean":                             {nil, 0, all, predicate.Pass, 0},
		"empty":                             {nil, 0, nil, predicate.Pass, 0},
		"low":                               {of(low), 0, all, predicate.Pass, 20},
		"medium":                            {of(low, medium), 0, all, predicate.Warn, 50},
		"high":                              {of(medium, high), 0, all, predicate.Fail, 80},
		"critical":                          {of(critical), 0, all, predicate.Fail, 100},
		"not all looked at":                 {nil, 0, part, predicate.Error, 0},
		"a place without bytes":             {nil, 0, place, predicate.Error, 0},
		"low, not all looked at":            {of(low), 0, part, predicate.Error, 20},
		"medium, not all":                   {of(medium), 0, part, predicate.Warn, 50},
		"high, not all":                     {of(high), 0, part, predicate.Fail, 80},
		"findings were dropped":             {of(low), 1, all, predicate.Error, 20},
		"a rule that the host did not ship": {of("no.such.rule"), 0, all, predicate.Warn, 50},
	} {
		t.Run(name, func(t *testing.T) {
			j := shipped(t)
			got := j.Artifact(tt.findings, tt.dropped, tt.account)
			if got.Verdict != tt.want || got.Score != tt.score {
				t.Errorf("%s, %d; want %s, %d", got.Verdict, got.Score, tt.want, tt.score)
			}
			if d := j.Distrusts(tt.findings); d != (tt.want == predicate.Fail) {
				t.Errorf("distrusts: %t", d)
			}
		})
	}
}

func TestCapKeepsTheVerdict(t *testing.T) {
	var flood []finding.Finding
	for i := range int64(10 * MaxPerRule) {
		flood = append(flood, finding.Finding{Rule: "numpy.object.array", Location: finding.Location{Class: "zip", Offset: i}})
	}
	flood = append(flood, of("pickle.import.dangerous")...)
	got := shipped(t).Artifact(flood, 3, nil)
	if got.Verdict != predicate.Fail || len(got.Findings) != MaxPerRule+1 || got.Omitted != 9*MaxPerRule+3 {
		t.Errorf("%s, %d findings, %d omitted", got.Verdict, len(got.Findings), got.Omitted)
	}
	if diff := cmp.Diff(map[string]uint64{"numpy.object.array": 10 * MaxPerRule, "pickle.import.dangerous": 1}, got.Counts); diff != "" {
		t.Error(diff)
	}
}

func TestBundle(t *testing.T) {
	file := func(path string, v predicate.Verdict, digest bool) BundleFile {
		f := BundleFile{Verdict: v, Complete: v == predicate.Pass, Score: len(path)}
		f.Path, f.Size = path, 10
		if digest {
			f.Digest = predicate.DigestOf([]byte(path))
		}
		return f
	}
	for name, tt := range map[string]struct {
		files  []BundleFile
		want   predicate.Verdict
		digest bool
	}{
		"passes":         {[]BundleFile{file("a", predicate.Pass, true), file("b", predicate.Pass, true)}, predicate.Pass, true},
		"error":          {[]BundleFile{file("a", predicate.Pass, true), file("b", predicate.Error, true)}, predicate.Error, true},
		"warn goes over": {[]BundleFile{file("a", predicate.Warn, true), file("b", predicate.Error, true)}, predicate.Warn, true},
		"fail goes over": {[]BundleFile{file("a", predicate.Fail, true), file("b", predicate.Warn, true)}, predicate.Fail, true},
		"unreadable":     {[]BundleFile{file("a", predicate.Pass, true), file("b", predicate.Pass, false)}, predicate.Error, false},
	} {
		t.Run(name, func(t *testing.T) {
			var all Bundles
			for _, f := range tt.files {
				all.Add("m", f)
			}
			got, err := all.Judge()
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			b := got[0]
			if b.Verdict != tt.want || (b.Digest != "") != tt.digest || b.Files != 2 || b.Size != 20 {
				t.Errorf("%+v", b)
			}
			if !tt.digest {
				return
			}
			want, err := artifact.BundleDigest([]artifact.File{tt.files[1].File, tt.files[0].File})
			if err != nil || b.Digest != want {
				t.Errorf("digest %s, want %s (%v)", b.Digest, want, err)
			}
		})
	}
	if _, err := Bundle("m", []BundleFile{file("a", predicate.Pass, true), file("a", predicate.Pass, true)}); err == nil {
		t.Error("a bundle with a path twice has an identity")
	}
}

func TestNewWantsItsRules(t *testing.T) {
	c, err := finding.ParseCatalogue([]byte(`{"version":"1","rules":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(c); err == nil {
		t.Error("a catalogue without scanner.contract was taken")
	}
}

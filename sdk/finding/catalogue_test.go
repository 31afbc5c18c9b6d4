package finding

import (
	"slices"
	"testing"
)

func TestShippedCatalogue(t *testing.T) {
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"scanner.failed", "scanner.timeout", "scanner.contract", "pickle.import.dangerous"} {
		if _, ok := c.Rule(id); !ok {
			t.Errorf("rule %s is missing", id)
		}
	}
	rules := c.Rules()
	if !slices.IsSortedFunc(rules, func(a, b Rule) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) }) {
		t.Error("rules are not sorted")
	}
	// A severity and a score that disagree would rank one artifact two ways.
	floor := map[Severity]int{"info": 0, "low": 10, "medium": 40, "high": 70, "critical": 90}
	for _, r := range rules {
		if r.Score < floor[r.Severity] || r.Severity != "critical" && r.Score >= floor[next(r.Severity)] {
			t.Errorf("%s: score %d does not fit severity %s", r.ID, r.Score, r.Severity)
		}
	}
}

func next(s Severity) Severity {
	order := []Severity{"info", "low", "medium", "high", "critical"}
	return order[s.Rank()+1]
}

func TestParseCatalogueRefuses(t *testing.T) {
	const rule = `{"id":"a.b","class":"c","severity":"low","score":10,"title":"t","description":"d","fix":"f"}`
	for name, text := range map[string]string{
		"twice":          `{"version":"1","rules":[` + rule + `,` + rule + `]}`,
		"unknown member": `{"version":"1","rules":[],"x":1}`,
		"no version":     `{"rules":[]}`,
		"no fix":         `{"version":"1","rules":[{"id":"a","class":"c","severity":"low","score":1,"title":"t","description":"d"}]}`,
		"bad severity":   `{"version":"1","rules":[{"id":"a","class":"c","severity":"bad","score":1,"title":"t","description":"d","fix":"f"}]}`,
	} {
		if c, err := ParseCatalogue([]byte(text)); err == nil {
			t.Errorf("%s: parsed as version %s", name, c.Version())
		}
	}
}

func TestFindingBounds(t *testing.T) {
	good := Finding{Rule: "a.b", Location: Location{Class: "pickle", Member: "m", Offset: 3}, Evidence: []string{"x"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Finding){
		"rule":     func(f *Finding) { f.Rule = "A b" },
		"class":    func(f *Finding) { f.Location.Class = "" },
		"offset":   func(f *Finding) { f.Location.Offset = -1 },
		"member":   func(f *Finding) { f.Location.Member = string(make([]byte, MaxMemberBytes+1)) },
		"evidence": func(f *Finding) { f.Evidence = make([]string, MaxEvidence+1) },
	} {
		f := good
		edit(&f)
		if f.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

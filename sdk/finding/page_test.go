package finding

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEveryRuleHasAPage holds each rule to what a person needs to act on it.
func TestEveryRuleHasAPage(t *testing.T) {
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := c.Pages()
	if err != nil {
		t.Fatal(err)
	}
	cwe, cve := regexp.MustCompile(`^CWE-[1-9][0-9]{0,3}$`), regexp.MustCompile(`^CVE-(19|20)[0-9]{2}-[0-9]{4,7}$`)
	classes := map[string]bool{}
	for _, r := range c.Rules() {
		p, err := pages.Page(r.ID)
		if err != nil {
			t.Error(err)
			continue
		}
		classes[r.Class] = true
		for what, text := range map[string]string{"title": p.Title, "description": p.Description, "why": p.Why, "fix": p.Fix, "class": p.ClassTitle} {
			if len(text) < 10 || text != strings.TrimSpace(text) {
				t.Errorf("%s: %s is %q", r.ID, what, text)
			}
		}
		for what, text := range map[string]string{"description": p.Description, "why": p.Why, "fix": p.Fix} {
			if !strings.HasSuffix(text, ".") {
				t.Errorf("%s: %s is no sentence: %q", r.ID, what, text)
			}
		}
		if len(p.CWE) == 0 || len(p.ATLAS) == 0 {
			t.Errorf("%s: CWE %v, ATLAS %v: want one of each at least", r.ID, p.CWE, p.ATLAS)
		}
		for _, id := range p.CWE {
			if !cwe.MatchString(id) {
				t.Errorf("%s: %q is no id of CWE", r.ID, id)
			}
		}
		for _, id := range p.CVE {
			if !cve.MatchString(id) {
				t.Errorf("%s: %q is no id of CVE", r.ID, id)
			}
		}
	}
	for id, k := range pages.classes {
		for _, a := range k.ATLAS {
			if pages.techniques[a] == "" {
				t.Errorf("class %s: %s is not in ATLAS", id, a)
			}
		}
	}
}

func TestPage(t *testing.T) {
	rule := func(class, references string) string {
		return `{"version":"1","rules":[{"id":"a.b","class":"` + class + `","severity":"low","score":10,"title":"t","description":"d","fix":"f","references":[` + references + `]}]}`
	}
	pages := func(text string) *Pages {
		c, err := ParseCatalogue([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Pages()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	got, err := pages(rule("unsafe_serialization_format", `"CVE-2019-6446","AML.T0076"`)).Page("a.b")
	if err != nil {
		t.Fatal(err)
	}
	want := []Technique{{"AML.T0076", "Corrupt AI Model"}, {"AML.T0011.000", "User Execution: Unsafe AI Artifacts"}}
	if diff := cmp.Diff(want, got.ATLAS); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"CWE-502", "CVE-2019-6446"}, append(got.CWE, got.CVE...)); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{
		"class": rule("no_such", ""), "technique": rule("unsafe_serialization_format", `"AML.T9999"`), "reference": rule("unsafe_serialization_format", `"ABC-1"`),
	} {
		if p, err := pages(text).Page("a.b"); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

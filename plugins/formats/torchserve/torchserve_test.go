package torchserve

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/document"
)

// check gives the rules that a manifest's model meets.
func check(t testing.TB, text string) []string {
	t.Helper()
	var report scanner.Report
	v, err := content.NewVisit(strings.NewReader(text), int64(len(text)), &report, content.NewBudget(content.DefaultLimits()), nil)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := document.Read([]byte(text), func(string, int) {})
	if err != nil {
		return nil
	}
	bad := func(module, name string) bool { return module == "subprocess" && name == "call" }
	var got []string
	for _, r := range roots {
		Check(v, r, bad, func(at int) int64 { return int64(at) })
	}
	for _, f := range report.Findings {
		if err := f.Validate(); err != nil {
			t.Error(err)
		}
		got = append(got, f.Rule)
	}
	return got
}

func TestCheck(t *testing.T) {
	for model, want := range map[string][]string{
		`{"handler":"image_classifier"}`:                        nil,
		`{"handler":"h.py:go"}`:                                 {ruleHandler},
		`{"handler":"subprocess:call"}`:                         {ruleDangerous},
		`{"handler":"x/subprocess.py:call"}`:                    {ruleDangerous},
		`{"handler":["a"]}`:                                     {ruleDangerous},
		`{"handler":"../h.py"}`:                                 {ruleHandler, rulePath},
		`{"serializedFile":"/m.pt","requirementsFile":"r.txt"}`: {rulePath, ruleRequirements},
		`{"handler":"text_classifier","handler":"h.py:go"}`:     {ruleHandler},
	} {
		if diff := cmp.Diff(want, check(t, `{"archiverVersion":"0.9.0","model":`+model+`}`)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", model, diff)
		}
	}
	if got := check(t, `{"model":{"handler":"subprocess:call"}}`); got != nil {
		t.Errorf("what is no manifest: %v", got)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(`{"archiverVersion":"0.9.0","model":{"handler":"h.py:go","serializedFile":"../m.pt"}}`)
	f.Fuzz(func(t *testing.T, text string) { check(t, text) })
}

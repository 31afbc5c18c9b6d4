package corpus_test

import (
	"os"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/testbed/corpus"
)

func TestFormatsSeesWhatSettingsLeadTo(t *testing.T) {
	for area, set := range map[string][]corpus.Setting{
		"template": corpus.Templates(), "keras": corpus.KerasConfigs(), "repository": corpus.RepositorySettings(), "python": corpus.PythonPrograms(),
	} {
		seen := make(map[string]bool)
		for _, c := range set {
			if seen[c.Name] {
				t.Errorf("%s: two cases are called %q", area, c.Name)
			}
			seen[c.Name] = true
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), c.Content, 0o600); err != nil {
				t.Fatal(err)
			}
			e := scan(t, dir, "file")
			got := corpus.Setting{Name: c.Name, Content: c.Content, Format: e.Format, Verdict: e.Verdict, Complete: e.Complete, Rules: e.Rules}
			if c.Rules == nil {
				c.Rules = []string{}
			}
			if d := gocmp.Diff(c, got); d != "" {
				t.Errorf("%s, %s (-want +got):\n%s", area, c.Name, d)
			}
		}
	}
}

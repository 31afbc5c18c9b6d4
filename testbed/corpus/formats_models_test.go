package corpus_test

import (
	"os"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/testbed/corpus"
)

func TestFormatsReadsModelFiles(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range corpus.ModelFiles() {
		if seen[c.Name] {
			t.Errorf("two cases are called %q", c.Name)
		}
		seen[c.Name] = true
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), c.Content, 0o600); err != nil {
			t.Fatal(err)
		}
		e := scan(t, dir, "file")
		got := corpus.ModelFile{Name: c.Name, Content: c.Content, Format: e.Format, Verdict: e.Verdict, Complete: e.Complete, Rules: e.Rules}
		if c.Rules == nil {
			c.Rules = []string{}
		}
		if d := gocmp.Diff(c, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, d)
		}
	}
	t.Logf("%d files", len(seen))
}

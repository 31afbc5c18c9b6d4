package corpus_test

import (
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

// TestRealModels scans a folder of models that real frameworks have written (see
// pickle_models.py), and
// prints what is said of them: every verdict other than pass is a false alarm.
func TestRealModels(t *testing.T) {
	dir := os.Getenv("CAVRA_REAL_MODELS")
	if dir == "" {
		t.Skip("CAVRA_REAL_MODELS names no folder of models")
	}
	verdicts := make(map[predicate.Verdict]int)
	because := make(map[string]int)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r, got := judged(t, b)
		verdicts[got]++
		if got == predicate.Pass {
			return nil
		}
		t.Logf("%s: %s %s", filepath.Base(path), r.Format, got)
		for _, f := range r.Findings {
			what := f.Rule
			if len(f.Evidence) > 0 {
				what += " " + f.Evidence[0]
			}
			if f.Rule == "pickle.use.unusual" {
				what += " " + f.Evidence[1]
			}
			because[what]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("verdicts: %v", verdicts)
	for _, what := range slices.SortedFunc(maps.Keys(because), func(a, b string) int { return cmp.Or(-cmp.Compare(because[a], because[b]), cmp.Compare(a, b)) }) {
		t.Logf("%5d %s", because[what], what)
	}
}

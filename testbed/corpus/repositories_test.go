package corpus_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/testbed/corpus"
)

// TestFormatsJudgesRepositories hands the program each repository as the agent
// does: its manifest, with the files to open.
func TestFormatsJudgesRepositories(t *testing.T) {
	for _, repo := range corpus.Repositories() {
		manifest, err := artifact.Manifest(repo.List())
		if err != nil {
			t.Fatal(err)
		}
		open := func(_ context.Context, path string) (artifact.Reader, error) {
			b, ok := repo.Files[path]
			if !ok {
				return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
			}
			return file{bytes.NewReader([]byte(b))}, nil
		}
		r, verdict := judgedIn(t, manifest, open)
		var rules []string
		for _, f := range r.Findings {
			rules = append(rules, f.Rule)
		}
		slices.Sort(rules)
		got := corpus.Repository{Name: repo.Name, Files: repo.Files, Verdict: verdict, Rules: slices.Compact(rules)}
		if diff := cmp.Diff(repo, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", repo.Name, diff)
		}
		if !coverage.Sum(r.Coverage).Complete {
			t.Errorf("%s: incomplete: %+v", repo.Name, r.Coverage)
		}
	}
}

// TestAChangedRepositoryIsAGap opens a file that is not the one of the manifest.
func TestAChangedRepositoryIsAGap(t *testing.T) {
	files := []artifact.File{{Path: "config.json", Digest: predicate.DigestOf([]byte("{}")), Size: 2}, {Path: "handler.py", Digest: predicate.DigestOf([]byte("x=1\n")), Size: 4}}
	manifest, err := artifact.Manifest(files)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{"changed": "x=2\n", "shorter": "x", "longer": "x=1\ny=2\n"} {
		open := func(context.Context, string) (artifact.Reader, error) { return file{bytes.NewReader([]byte(b))}, nil }
		r, _ := judgedIn(t, manifest, open)
		if coverage.Sum(r.Coverage).Complete {
			t.Errorf("%s: complete", name)
		}
	}
}

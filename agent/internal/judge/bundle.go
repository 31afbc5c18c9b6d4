package judge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
)

// BundleFile is one judged file of a bundle.
type BundleFile struct {
	// File has an empty digest when the file could not be read.
	artifact.File
	Verdict  predicate.Verdict
	Score    int
	Complete bool
}

// BundleJudgement is what a bundle is worth: its worst file.
type BundleJudgement struct {
	Path string
	// Digest is empty when a file of the bundle has none.
	Digest   predicate.Digest
	Files    int
	Size     int64
	Verdict  predicate.Verdict
	Score    int
	Complete bool
	// Members are its files, in ascending order of path.
	Members []BundleFile
	// Findings are those that only the bundle as a whole has; Omitted counts
	// what was cut of them.
	Findings []Finding
	Omitted  uint64
}

// With adds what a scan of the bundle as a whole says: its verdict can only get
// worse by it.
func (b BundleJudgement) With(j Judgement, complete bool) BundleJudgement {
	b.Findings, b.Omitted = j.Findings, j.Omitted
	b.Verdict, b.Score = Worse(b.Verdict, j.Verdict), max(b.Score, j.Score)
	b.Complete = b.Complete && complete
	return b
}

// Manifest are the files that give the bundle its identity; none when a file has
// no digest.
func (b BundleJudgement) Manifest() []artifact.File {
	if b.Digest == "" {
		return nil
	}
	files := make([]artifact.File, len(b.Members))
	for i, m := range b.Members {
		files[i] = m.File
	}
	return files
}

// Bundles gathers judged files by the bundle that they are of. The zero value
// is ready.
type Bundles struct {
	files map[string][]BundleFile
}

// Add notes a file of the bundle at path. File.Path is relative to it.
func (b *Bundles) Add(path string, f BundleFile) {
	if b.files == nil {
		b.files = make(map[string][]BundleFile)
	}
	b.files[path] = append(b.files[path], f)
}

// Judge judges every bundle, in ascending order of path. A file path that is
// unclean or there twice is an error, since the bundle then has no identity.
func (b *Bundles) Judge() ([]BundleJudgement, error) {
	out := make([]BundleJudgement, 0, len(b.files))
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		j, err := Bundle(path, b.files[path])
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, nil
}

// Bundle judges the bundle at path by its files, one at least.
func Bundle(path string, files []BundleFile) (BundleJudgement, error) {
	out := BundleJudgement{Path: path, Files: len(files), Verdict: predicate.Pass, Complete: true}
	out.Members = slices.SortedFunc(slices.Values(files), func(a, b BundleFile) int { return strings.Compare(a.Path, b.Path) })
	known := make([]artifact.File, 0, len(files))
	for _, f := range files {
		out.Size += f.Size
		out.Score = max(out.Score, f.Score)
		out.Verdict = Worse(out.Verdict, f.Verdict)
		out.Complete = out.Complete && f.Complete
		if f.Digest != "" {
			known = append(known, f.File)
		}
	}
	if len(known) < len(files) {
		out.Verdict = Worse(out.Verdict, predicate.Error)
		out.Complete = false
		return out, nil
	}
	d, err := artifact.BundleDigest(known)
	if err != nil {
		return BundleJudgement{}, fmt.Errorf("judge bundle %s: %w", path, err)
	}
	out.Digest = d
	return out, nil
}

// Package corpus generates model trees to scan, and says of every file in them
// what a scan must find. The expectations come from how each file is built; no
// scanner has a part in them. Nothing here is ever executed, and the arguments
// of what would be called are harmless words. The same call always writes the
// same bytes.
package corpus

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/cavra/cavra/schemas/predicate"
)

// Import is a module and a name that loading a file could resolve.
type Import struct {
	Module string        `json:"module"`
	Name   string        `json:"name"`
	How    predicate.How `json:"how"`
}

// Expectation is what a scan of one file must say.
type Expectation struct {
	// Path from the tree's root, with slashes.
	Path     string            `json:"path"`
	Digest   predicate.Digest  `json:"digest"`
	Size     int64             `json:"size"`
	Format   string            `json:"format"`
	Verdict  predicate.Verdict `json:"verdict"`
	Complete bool              `json:"complete"`
	// Rules are the ids of the rules that the file meets, ascending, each once.
	Rules []string `json:"rules"`
	// Imports are ascending by module, name and how, each once.
	Imports []Import `json:"imports"`
}

// Manifest lists the files of a tree, ascending by path.
type Manifest struct {
	Files []Expectation `json:"files"`
}

// Verdicts counts the files by the verdict that they must get.
func (m Manifest) Verdicts() map[predicate.Verdict]int {
	n := make(map[predicate.Verdict]int)
	for _, f := range m.Files {
		n[f.Verdict]++
	}
	return n
}

// WriteJSON writes the manifest for programs that are not written in Go.
func (m Manifest) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// sample is a file to write and what it is.
type sample struct {
	path     string
	content  []byte
	format   string
	verdict  predicate.Verdict
	complete bool
	rules    []string
	imports  []Import
}

// Write makes the small tree under dir, which it creates: benign, malicious and
// incomplete files of every kind.
func Write(dir string) (Manifest, error) {
	return write(dir, slices.Concat(benign(), malicious(), suspicious(), incomplete()))
}

// WriteMany makes n small files of mixed kinds, all different, in folders of
// 256: one in eight is malicious, one suspicious and one unknown. The seed
// decides their content.
func WriteMany(dir string, n int, seed uint64) (Manifest, error) {
	return writeMany(dir, n, seed, slices.Concat(harmlessKinds, otherKinds))
}

// WriteManyHarmless is WriteMany with files that must pass.
func WriteManyHarmless(dir string, n int, seed uint64) (Manifest, error) {
	return writeMany(dir, n, seed, harmlessKinds)
}

func writeMany(dir string, n int, seed uint64, kinds []kind) (Manifest, error) {
	var whole Manifest
	rng := rand.New(rand.NewPCG(seed, 0xca57))
	for from := 0; from < n; from += 256 {
		var batch []sample
		for i := from; i < min(n, from+256); i++ {
			s := kinds[rng.IntN(len(kinds))](i, rng)
			s.path = fmt.Sprintf("%04d/%s", i/256, s.path)
			batch = append(batch, s)
		}
		m, err := write(dir, batch)
		if err != nil {
			return Manifest{}, err
		}
		whole.Files = append(whole.Files, m.Files...)
	}
	whole.sort()
	return whole, nil
}

func write(dir string, samples []sample) (Manifest, error) {
	var m Manifest
	for _, s := range samples {
		to := filepath.Join(dir, filepath.FromSlash(s.path))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return Manifest{}, fmt.Errorf("write corpus: %w", err)
		}
		if err := os.WriteFile(to, s.content, 0o644); err != nil {
			return Manifest{}, fmt.Errorf("write corpus: %w", err)
		}
		m.Files = append(m.Files, s.expectation())
	}
	m.sort()
	return m, nil
}

func (m *Manifest) sort() {
	slices.SortFunc(m.Files, func(a, b Expectation) int { return cmp.Compare(a.Path, b.Path) })
}

func (s sample) expectation() Expectation {
	e := Expectation{
		Path: s.path, Digest: predicate.DigestOf(s.content), Size: int64(len(s.content)), Format: s.format,
		Verdict: s.verdict, Complete: s.complete, Rules: slices.Clone(s.rules), Imports: slices.Clone(s.imports),
	}
	slices.Sort(e.Rules)
	e.Rules = slices.Compact(e.Rules)
	slices.SortFunc(e.Imports, func(a, b Import) int {
		return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Name, b.Name), cmp.Compare(a.How, b.How))
	})
	e.Imports = slices.Compact(e.Imports)
	if e.Rules == nil {
		e.Rules = []string{}
	}
	if e.Imports == nil {
		e.Imports = []Import{}
	}
	return e
}

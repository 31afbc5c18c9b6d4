package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/testbed/corpus"
	"github.com/cavra/cavra/testbed/stack"
)

// peers has every peer's pinned packages, and the program that asks it.
//
//go:embed peers
var peersFS embed.FS

// peerNames are the open scanners of models that are compared with.
var peerNames = []string{"picklescan", "modelscan", "fickling", "modelaudit"}

// peerEnv keeps peers from calling home.
var peerEnv = []string{"PROMPTFOO_DISABLE_TELEMETRY=1", "DO_NOT_TRACK=1"}

// The outcomes of a scan of one file, in the order in which they are printed.
// Silent means that nothing at all was said against it.
var outcomes = []string{"silent", "warned", "failed", "error"}

// benignFiles is of how many harmless files those are taken that every peer
// reads: pickles and torch's archives of them.
const benignFiles = 1000

// comparePeers has CAVRA and each peer judge the same files: the hostile ones of
// the corpus, of which none should be passed in silence, and harmless ones; pickles
// with what holds them, and the other formats of models.
// Only counts are printed: which file passes whom is nobody's recipe.
func (b *bench) comparePeers(ctx context.Context) error {
	hostile, benign := filepath.Join(b.dir, "hostile"), filepath.Join(b.dir, "benign")
	n, err := writeHostile(hostile)
	if err != nil {
		return err
	}
	harmless, err := writeHarmless(benign)
	if err != nil {
		return err
	}
	bad, good := filepath.Join(b.dir, "bad"), filepath.Join(b.dir, "good")
	failing, err := writeModels(bad, predicate.Fail)
	if err != nil {
		return err
	}
	passing, err := writeModels(good, predicate.Pass)
	if err != nil {
		return err
	}
	for _, set := range []struct {
		what, dir string
		files     int
	}{{"hostile", hostile, n}, {"hostile models", bad, failing}, {"harmless", benign, harmless}, {"harmless models", good, passing}} {
		ours, c, err := b.ourOutcomes(ctx, set.dir)
		if err != nil {
			return err
		}
		if err := b.peerRow(set.what, "CAVRA", set.files, ours, c); err != nil {
			return err
		}
		for _, name := range peerNames {
			theirs, c, err := b.peerOutcomes(ctx, name, set.dir)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := b.peerRow(set.what, name, set.files, theirs, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeHostile writes what must not pass, and counts the files.
func writeHostile(dir string) (int, error) {
	n := 0
	put := func(class, extension string, content []byte) error {
		n++
		folder := filepath.Join(dir, class)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, fmt.Sprintf("%04d%s", n, extension)), content, 0o644)
	}
	// Peers go by the extension; these are ones that they all know.
	for _, a := range corpus.PickleAttacks() {
		if err := put(a.Class, ".pkl", a.Content); err != nil {
			return 0, err
		}
	}
	for _, c := range corpus.Containers() {
		if c.Verdict != predicate.Fail {
			continue // a peer may be right to say nothing
		}
		if err := put("container", containerExtension(c.Format), c.Content); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func containerExtension(format string) string {
	switch format {
	case "zip", "torch-zip", "torchscript":
		return ".pt"
	case "tar", "torch-tar":
		return ".tar"
	case "pickle":
		return ".pkl"
	case "gzip":
		return ".gz"
	case "bzip2":
		return ".bz2"
	case "7z", "xz", "lz4", "zlib":
		return "." + format
	}
	return ".bin"
}

// extensions are those by which peers know a format; where there is none, it is the
// format's own id.
var extensions = map[string]string{
	"hdf5": ".h5", "torch-zip": ".pt", "torchscript": ".pt", "torch-package": ".pt", "torch-export": ".pt2", "tf-saved-model": ".pb", "tf-graph": ".pb",
	"rdata": ".rds", "matlab": ".mat", "coreml": ".mlmodel", "executorch": ".pte", "paddle": ".pdmodel", "paddle-params": ".pdiparams", "mxnet": ".params",
	"pickle": ".pkl", "openvino": ".xml", "xgboost-json": ".json", "xgboost-ubjson": ".ubj", "lightgbm": ".txt", "catboost": ".cbm", "msgpack": ".msgpack",
	"elf": ".so", "pe": ".dll", "macho": ".dylib", "ape": ".llamafile", "gzip": ".gz", "script": ".sh",
}

// writeModels writes the corpus' files in formats of models other than pickle that
// a scan must judge so, and counts them.
func writeModels(dir string, verdict predicate.Verdict) (int, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	n := 0
	for _, f := range corpus.ModelFiles() {
		if f.Verdict != verdict {
			continue
		}
		extension, ok := extensions[f.Format]
		if !ok {
			extension = "." + f.Format
		}
		n++
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d%s", n, extension)), f.Content, 0o644); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func writeHarmless(dir string) (int, error) {
	m, err := corpus.WriteManyHarmless(dir, benignFiles, 1)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range m.Files {
		if f.Format == "pickle" || f.Format == "torch-zip" {
			n++
		} else if err := os.Remove(filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (b *bench) peerRow(set, name string, files int, got map[string]int, c cost) error {
	total := 0
	words := ""
	for _, o := range outcomes {
		total += got[o]
		words += fmt.Sprintf("%d %s, ", got[o], o)
	}
	if total != files {
		return fmt.Errorf("%s said of %d files what it thinks, and there are %d", name, total, files)
	}
	b.peers = append(b.peers, [4]string{fmt.Sprintf("%d %s files", files, set), name, words[:len(words)-2],
		fmt.Sprintf("%s, %d MiB", c.wall.Round(10*time.Millisecond), c.memory/mib)})
	return nil
}

func (b *bench) ourOutcomes(ctx context.Context, dir string) (map[string]int, cost, error) {
	c, err := measure(ctx, []int{0}, nil, b.programs.Cavra(), "scan", "--quiet", "--format", "json", "--fail-on", "never", "--allow-incomplete", dir)
	if err != nil {
		return nil, cost{}, err
	}
	var r report.Report
	if err := json.Unmarshal(c.stdout, &r); err != nil {
		return nil, cost{}, fmt.Errorf("read report: %w", err)
	}
	word := map[predicate.Verdict]string{predicate.Pass: "silent", predicate.Warn: "warned", predicate.Fail: "failed", predicate.Error: "error"}
	got := make(map[string]int)
	for _, a := range r.Artifacts {
		got[word[a.Verdict]]++
	}
	return got, c, nil
}

func (b *bench) peerOutcomes(ctx context.Context, name, dir string) (map[string]int, cost, error) {
	venv, err := b.installPeer(ctx, name)
	if err != nil {
		return nil, cost{}, err
	}
	judge := filepath.Join(b.dir, "judge.py")
	source, err := peersFS.ReadFile("peers/judge.py")
	if err == nil {
		err = os.WriteFile(judge, source, 0o644)
	}
	if err != nil {
		return nil, cost{}, err
	}
	// A scan is nobody's business but ours: no usage statistics are sent.
	c, err := measure(ctx, []int{0}, peerEnv, filepath.Join(venv, "bin", "python"), judge, name, dir)
	if err != nil {
		return nil, cost{}, err
	}
	got := make(map[string]int)
	lines := bufio.NewScanner(bytes.NewReader(c.stdout))
	for lines.Scan() {
		var line struct{ Outcome string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, cost{}, fmt.Errorf("read outcome: %w", err)
		}
		got[line.Outcome]++
	}
	return got, c, lines.Err()
}

// installPeer makes a virtual environment of pinned packages, once.
func (b *bench) installPeer(ctx context.Context, name string) (string, error) {
	pinned, err := peersFS.ReadFile("peers/" + name + ".txt")
	if err != nil {
		return "", err
	}
	return stack.Venv(ctx, b.cache, name, pinned)
}

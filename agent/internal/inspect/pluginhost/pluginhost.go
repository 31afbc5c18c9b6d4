// Package pluginhost finds plugin programs, starts them when they are first
// needed, and keeps scanners in pools. A worker serves one artifact at a time,
// so that a crash has one suspect; it is replaced after an artifact that fails,
// after any error, and within a budget of artifacts and bytes. The program that
// a pool starts first is the one that it starts ever after, by its digest.
package pluginhost

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
)

// The names of programs that are plugins.
const (
	connectorPrefix = "cavra-connector-"
	scannerPrefix   = "cavra-scanner-"
	// formats is the first-party scanner.
	formats = "cavra-formats"
)

// Kind tells what a program is.
type Kind string

// The kinds.
const (
	KindConnector Kind = "connector"
	KindScanner   Kind = "scanner"
)

// Program is a plugin program on disk.
type Program struct {
	Kind Kind
	// Name is the file's name, such as "cavra-formats".
	Name string
	Path string
}

// ErrNoPlugin says that a program that is needed is not there.
var ErrNoPlugin = errors.New("plugin not found")

// Find lists the plugin programs in dir, in ascending order of name:
// cavra-connector-*, cavra-formats and cavra-scanner-*.
func Find(dir string) ([]Program, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("find plugins: %w", err)
	}
	var out []Program
	for _, e := range entries {
		kind := kindOf(e.Name())
		if kind == "" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("find plugins: %w", err)
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			out = append(out, Program{Kind: kind, Name: e.Name(), Path: path})
		}
	}
	slices.SortFunc(out, func(a, b Program) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func kindOf(name string) Kind {
	switch {
	case strings.HasPrefix(name, connectorPrefix):
		return KindConnector
	case name == formats || strings.HasPrefix(name, scannerPrefix):
		return KindScanner
	}
	return ""
}

// BesideExecutable is the folder of the program that runs, symbolic links
// resolved.
func BesideExecutable() (string, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	return filepath.Dir(exe), nil
}

// Budget bounds what one worker does before it is replaced.
type Budget struct {
	Items int
	Bytes int64
}

// DefaultBudget makes the cost of a start (some 20 ms) small and keeps what a
// worker could carry from one artifact to others bounded.
var DefaultBudget = Budget{Items: 1000, Bytes: 8 << 30}

// Config is what a Host needs.
type Config struct {
	// Dir is where the programs are.
	Dir string
	// Catalogue is the closed set of rules.
	Catalogue *finding.Catalogue
	// Workers is how many processes one scanner has at most, one at least.
	Workers int
	Budget  Budget
	// Distrust reports whether what was found in an artifact is a reason to
	// replace the worker that read it.
	Distrust func([]finding.Finding) bool
	// Logger gets what plugins write, at Debug level; nil logs nothing.
	Logger *slog.Logger
	// Sandbox is what is put on around scanners and connectors.
	Sandbox plugin.Sandbox
}

// Host starts the plugins in one folder.
type Host struct{ cfg Config }

// New returns a Host. It starts nothing.
func New(cfg Config) (*Host, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("new plugin host: no folder")
	case cfg.Catalogue == nil || cfg.Distrust == nil:
		return nil, errors.New("new plugin host: want a rule catalogue and a judgement of what to distrust")
	case cfg.Workers < 1:
		return nil, fmt.Errorf("new plugin host: %d workers, want one at least", cfg.Workers)
	}
	if err := cfg.Sandbox.Validate(); err != nil {
		return nil, fmt.Errorf("new plugin host: %w", err)
	}
	if cfg.Budget == (Budget{}) {
		cfg.Budget = DefaultBudget
	}
	if cfg.Budget.Items < 1 || cfg.Budget.Bytes < 1 {
		return nil, fmt.Errorf("new plugin host: a budget of %d items and %d bytes", cfg.Budget.Items, cfg.Budget.Bytes)
	}
	return &Host{cfg: cfg}, nil
}

// programs finds those of a kind, one at least.
func (h *Host) programs(kind Kind, want string) ([]Program, error) {
	all, err := Find(h.cfg.Dir)
	if err != nil {
		return nil, err
	}
	of := slices.DeleteFunc(all, func(p Program) bool { return p.Kind != kind || want != "" && p.Name != want })
	if len(of) > 0 {
		return of, nil
	}
	if want == "" {
		want = formats
	}
	return nil, fmt.Errorf("%w: no program %s in %s", ErrNoPlugin, want, h.cfg.Dir)
}

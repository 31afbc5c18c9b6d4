// Command realmodels has real frameworks save models in the ways that people
// save them, scans them, and prints what was said of each framework's: every
// verdict other than pass is a false alarm, or a way of saving that deserves its
// warning. The frameworks are pinned and live in environments of their own.
package main

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/testbed/stack"
)

//go:embed python
var python embed.FS

// sets are programs that save models, each with its pinned packages.
var sets = []string{"classic", "deep"}

type options struct {
	bin, cache, keep string
	small            bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.StringVar(&o.cache, "cache", ".cache/realmodels", "folder for the frameworks' virtual environments")
	flag.StringVar(&o.keep, "keep", "", "leave the models in this folder")
	flag.BoolVar(&o.small, "small", false, "only scikit-learn, pandas, scipy and numpy, and fail when too much of it is not passed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "realmodels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	for _, path := range []*string{&o.bin, &o.cache} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	programs := stack.Programs(o.bin)
	if err := programs.Check(); err != nil {
		return err
	}
	models := o.keep
	if models == "" {
		if models, err = os.MkdirTemp("", "cavra-models-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(models)) }()
	}
	which := sets
	if o.small {
		which = []string{"small"}
	}
	for _, set := range which {
		if err := save(ctx, o.cache, set, filepath.Join(models, set)); err != nil {
			return err
		}
	}
	scanned, err := stack.Command(ctx, nil, programs.Cavra(), "scan", "--quiet", "--format", "json", "--fail-on", "never", "--allow-incomplete", models)
	if err != nil {
		return err
	}
	if scanned.Code != 0 {
		return fmt.Errorf("scan %s: exit code %d: %s", models, scanned.Code, scanned.Stderr)
	}
	var r report.Report
	if err := json.Unmarshal(scanned.Stdout, &r); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	return show(out, &r, o.small)
}

// save has a set's frameworks save their models in a folder.
func save(ctx context.Context, cache, set, models string) error {
	pinned, err := python.ReadFile("python/" + set + ".txt")
	if err != nil {
		return err
	}
	venv, err := stack.Venv(ctx, cache, set, pinned)
	if err != nil {
		return err
	}
	program := "classic"
	if set == "deep" {
		program = "deep"
	}
	source, err := python.ReadFile("python/" + program + ".py")
	if err != nil {
		return err
	}
	script := filepath.Join(cache, program+".py")
	if err := os.WriteFile(script, source, 0o644); err != nil {
		return err
	}
	// No framework has to ask anybody for anything.
	env := []string{"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "YOLO_OFFLINE=1", "DO_NOT_TRACK=1"}
	out, err := stack.Command(ctx, env, filepath.Join(venv, "bin", "python"), script, models)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", out.Code, out.Stderr)
	}
	if err != nil {
		return fmt.Errorf("save models of %s: %w", set, err)
	}
	return nil
}

// mostAlarms is how many in a hundred of the small set may be not passed.
const mostAlarms = 2

// show prints a row for each framework, and below it why a file was not passed.
func show(out io.Writer, r *report.Report, bounded bool) error {
	counts := map[string]map[predicate.Verdict]int{}
	because := map[string]map[string]int{}
	alarms := 0
	saved := subjects(r)
	for _, one := range saved {
		framework := one.framework
		if counts[framework] == nil {
			counts[framework], because[framework] = map[predicate.Verdict]int{}, map[string]int{}
		}
		counts[framework][one.verdict]++
		if one.verdict == predicate.Pass {
			continue
		}
		alarms++
		for _, why := range one.why {
			because[framework][why]++
		}
	}
	t := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "framework\tfiles\tpass\twarn\tfail\tunread") // Flush gives the error
	for _, f := range slices.Sorted(maps.Keys(counts)) {
		c := counts[f]
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\n", f, c[predicate.Pass]+c[predicate.Warn]+c[predicate.Fail]+c[predicate.Error],
			c[predicate.Pass], c[predicate.Warn], c[predicate.Fail], c[predicate.Error])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range slices.Sorted(maps.Keys(because)) {
		for _, why := range slices.SortedFunc(maps.Keys(because[f]), func(a, b string) int {
			return cmp.Or(-cmp.Compare(because[f][a], because[f][b]), cmp.Compare(a, b))
		}) {
			if _, err := fmt.Fprintf(out, "%s, %d files: %s\n", f, because[f][why], why); err != nil {
				return err
			}
		}
	}
	if bounded && alarms*100 > mostAlarms*len(saved) {
		return fmt.Errorf("%d of %d files are not passed, more than %d %%", alarms, len(saved), mostAlarms)
	}
	return nil
}

// subject is what was saved at once: a file, or a folder that is a bundle.
type subject struct {
	framework string
	verdict   predicate.Verdict
	// why it was not passed.
	why []string
}

// subjects are the files that are of no bundle, and the bundles with what their
// files and they as wholes have.
func subjects(r *report.Report) []subject {
	var out []subject
	why := map[string][]string{}
	for i := range r.Artifacts {
		a := &r.Artifacts[i]
		framework, _, _ := strings.Cut(filepath.Base(a.Path), "_")
		in := slices.IndexFunc(r.Bundles, func(b report.Bundle) bool { return strings.HasPrefix(a.Path, b.Path+"/") })
		if in < 0 {
			out = append(out, subject{framework, a.Verdict, reasons(a)})
			continue
		}
		why[r.Bundles[in].Path] = append(why[r.Bundles[in].Path], reasons(a)...)
	}
	for _, b := range r.Bundles {
		framework, _, _ := strings.Cut(filepath.Base(b.Path), "_")
		whole := append(why[b.Path], reasons(&report.Artifact{Findings: b.Findings, Coverage: report.Coverage{Gaps: b.Gaps}})...)
		slices.Sort(whole)
		out = append(out, subject{framework + " (folders)", b.Verdict, slices.Compact(whole)})
	}
	return out
}

// reasons are the rules above information, each with the imports that were not
// harmless, and the gaps.
func reasons(a *report.Artifact) []string {
	once := map[string]bool{}
	for _, f := range a.Findings {
		if f.Severity != predicate.Info {
			once[f.Rule] = true
		}
	}
	for _, i := range a.Imports {
		if i.Judged != predicate.JudgedHarmless {
			once[i.Judged+" import "+i.Module+" "+i.Name] = true
		}
	}
	for _, g := range a.Coverage.Gaps {
		once["unread: "+string(g.Reason)] = true
	}
	return slices.Sorted(maps.Keys(once))
}

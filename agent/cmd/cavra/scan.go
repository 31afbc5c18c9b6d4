package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/agent/internal/policy"
	"github.com/cavra/cavra/agent/internal/report"
	"github.com/cavra/cavra/schemas/predicate"
	schema "github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
)

type scanOptions struct {
	format, output, failOn, pluginDir string
	policy, baseline, sandbox         string
	allowIncomplete, quiet            bool
	jobs, memory                      int
	timeout                           time.Duration
}

func newScan() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "scan PATH…",
		Short: "Scan files and folders on this machine",
		Long: `Scan files and folders. A folder is walked whole: hidden files too, and whatever
the extension, since content decides what a file is. Nothing leaves the machine.

Exit codes, the first that applies:
    2  wrong usage or configuration
    1  something is at or above --fail-on, and neither the policy nor the baseline accepts it
    3  something could not be fully scanned (--allow-incomplete turns this off)
    0  otherwise
  130  interrupted; nothing was written`,
		Example: `  cavra scan ~/models                      a table, the worst first
  cavra scan --format json model.pt        the contract for other programs
  cavra scan --format sarif --output cavra.sarif .
  cavra scan --format html --output report.html ~/models   a page that stands alone
  cavra scan --fail-on fail --allow-incomplete .   in a build that only blocks what is certain
  cavra scan --baseline report.json .      only what that report does not have fails
  cavra scan --policy cavra-policy.yaml .  thresholds, and findings accepted with a reason and an end`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("scan what? Give one PATH at least (see: cavra scan --help)")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			d, err := o.decisions(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return scan(cmd, o, d, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "table", "table, json, sarif, cyclonedx or html")
	f.StringVarP(&o.output, "output", "o", "", "write to this `FILE`, which is replaced as a whole")
	f.StringVar(&o.failOn, "fail-on", "warn", "exit with 1 on this verdict or a worse one: warn, fail or never")
	f.BoolVar(&o.allowIncomplete, "allow-incomplete", false, "do not exit with 3 when something could not be fully scanned")
	f.StringVar(&o.policy, "policy", "", "thresholds and suppressions, a YAML `FILE`; --fail-on and --allow-incomplete go before it")
	f.StringVar(&o.baseline, "baseline", "", "accept the findings that this `FILE` has, an earlier --format json")
	f.IntVarP(&o.jobs, "jobs", "j", runtime.NumCPU(), "how many files are scanned at a time")
	f.IntVar(&o.memory, "memory", 0, fmt.Sprintf("scan fewer files at a time, so that the scanners stay within so many `MIB` together; %d are reckoned for each (0: no bound)", workerMemory))
	f.DurationVar(&o.timeout, "timeout", inspect.DefaultTimeout, "what one file may take")
	f.StringVar(&o.pluginDir, "plugin-dir", "", "where the plugin programs are (default: beside this program)")
	f.StringVar(&o.sandbox, "sandbox", string(plugin.SandboxBestEffort), "isolation of the scanners: require, best-effort or off-unsafe")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress and no summary on standard error")
	return cmd
}

// workerMemory is reckoned for one scanner, in MiB, whatever the size of the
// artifact: the corpus' costly cases stay below it.
const workerMemory = 256

// atOnce is how many files are scanned at a time within the memory that is given.
func (o scanOptions) atOnce() int {
	if o.memory == 0 {
		return o.jobs
	}
	return max(1, min(o.jobs, o.memory/workerMemory))
}

func (o scanOptions) validate() error {
	if writers[o.format] == nil {
		return fmt.Errorf("--format %q: want table, json, sarif, cyclonedx or html", o.format)
	}
	if err := plugin.Sandbox(o.sandbox).Validate(); err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	const most = 256
	if o.jobs < 1 || o.jobs > most {
		return fmt.Errorf("--jobs %d: want 1 to %d", o.jobs, most)
	}
	if o.memory != 0 && o.memory < workerMemory {
		return fmt.Errorf("--memory %d: want %d at least, which are reckoned for one scanner", o.memory, workerMemory)
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %s: want more than nothing", o.timeout)
	}
	if o.output == "" {
		return nil
	}
	if info, err := os.Stat(o.output); err == nil && info.IsDir() {
		return fmt.Errorf("--output %s: is a folder: name a file", o.output)
	}
	if info, err := os.Stat(filepath.Dir(o.output)); err != nil || !info.IsDir() {
		return fmt.Errorf("--output %s: its folder does not exist: make it first", o.output)
	}
	return nil
}

// decisions are what the user has decided of results beforehand.
type decisions struct {
	policy   policy.Policy
	baseline *policy.Baseline
}

// decisions reads the policy and the baseline. What the command line says itself
// goes before the file.
func (o scanOptions) decisions(said func(flag string) bool) (decisions, error) {
	d := decisions{policy: policy.Default()}
	var err error
	if o.policy != "" {
		if d.policy, err = policy.Load(o.policy); err != nil {
			return d, err
		}
	}
	if o.policy == "" || said("fail-on") {
		d.policy.FailOn = o.failOn
	}
	if o.policy == "" || said("allow-incomplete") {
		d.policy.AllowIncomplete = o.allowIncomplete
	}
	if err := d.policy.Validate(); err != nil {
		return d, fmt.Errorf("--fail-on: %w", err)
	}
	if o.baseline != "" {
		d.baseline, err = policy.ReadBaseline(o.baseline)
	}
	return d, err
}

// target is a PATH of the command line.
type target struct {
	// shown is as the user wrote it, cleaned; root is absolute.
	shown, root string
	folder      bool
}

// targets resolves the PATHs; each is scanned once.
func targets(paths []string) ([]target, error) {
	var out []target
	for _, p := range paths {
		if p == "" || !utf8.ValidString(p) {
			return nil, fmt.Errorf("path %q: is empty or not UTF-8: name the folder above it", p)
		}
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("path %s: nothing is there: check the spelling, or that the disk is mounted", report.Printable(p))
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("path %s: a folder above it may not be entered: run as a user who may", report.Printable(p))
		case err != nil:
			return nil, fmt.Errorf("path %s: %w", report.Printable(p), err)
		}
		root, err := filepath.Abs(p)
		if err != nil {
			return nil, fmt.Errorf("path %s: %w", report.Printable(p), err)
		}
		t := target{shown: filepath.Clean(p), root: root, folder: info.IsDir()}
		if !slices.ContainsFunc(out, func(u target) bool { return u.root == t.root }) {
			out = append(out, t)
		}
	}
	return out, nil
}

func scan(cmd *cobra.Command, o scanOptions, d decisions, paths []string) error {
	ctx := cmd.Context()
	roots, err := targets(paths)
	if err != nil {
		return err
	}
	catalogue, err := finding.Shipped()
	if err != nil {
		return err
	}
	p, err := openPipeline(ctx, o, catalogue, newProgress(cmd.ErrOrStderr(), o.quiet))
	if err != nil {
		return interruptedOr(ctx, err, "before anything was scanned")
	}
	result, err := p.run(ctx, roots)
	p.progress.finish()
	err = errors.Join(err, p.close())
	if err != nil {
		return interruptedOr(ctx, err, p.soFar())
	}
	now := time.Now()
	d.policy.Accept(result, d.baseline, now)
	if err := write(cmd, o, result, catalogue); err != nil {
		return err
	}
	for _, words := range d.policy.Expired(now) {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", o.policy, words); err != nil {
			return err
		}
	}
	return outcome(cmd, o, d.policy, result)
}

// interruptedOr tells a Ctrl-C from a failure.
func interruptedOr(ctx context.Context, err error, soFar string) error {
	if ctx.Err() != nil {
		return &exitError{exitInterrupted, fmt.Errorf("interrupted %s: the scan is not complete, and no report was written", soFar)}
	}
	return err
}

// writers are the forms of a report.
var writers = map[string]func(io.Writer, *schema.Report, report.Catalogue) error{
	"table": func(w io.Writer, r *schema.Report, rules report.Catalogue) error {
		return report.WriteTable(w, r, rules, tableOptions(w))
	},
	"json":  func(w io.Writer, r *schema.Report, _ report.Catalogue) error { return report.WriteJSON(w, r) },
	"sarif": report.WriteSARIF, "cyclonedx": report.WriteCycloneDX, "html": report.WriteHTML,
}

func write(cmd *cobra.Command, o scanOptions, r *schema.Report, rules report.Catalogue) error {
	render := func(w io.Writer) error { return writers[o.format](w, r, rules) }
	if o.output == "" {
		return render(cmd.OutOrStdout())
	}
	return report.WriteFile(o.output, render)
}

// tableOptions fits the table to the terminal, if it is one.
func tableOptions(w io.Writer) report.TableOptions {
	const plain = 120
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return report.TableOptions{Width: plain}
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = plain
	}
	return report.TableOptions{Width: width, Color: os.Getenv("NO_COLOR") == ""}
}

// outcome is the exit code of a finished scan.
func outcome(cmd *cobra.Command, o scanOptions, p policy.Policy, r *schema.Report) error {
	s, decided := r.Summary, p.Decide(r)
	if o.output != "" && !o.quiet {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "%d files: %d fail, %d warn, %d error, %d pass; written to %s\n",
			s.Artifacts, s.Fail, s.Warn, s.Error, s.Pass, o.output); err != nil {
			return err
		}
	}
	if decided.Accepted > 0 && !o.quiet {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "accepted by the policy or the baseline: %d\n", decided.Accepted); err != nil {
			return err
		}
	}
	switch {
	case decided.Failed > 0:
		return &exitError{code: exitFindings}
	case !s.Complete && !p.AllowIncomplete:
		var err error
		if !o.quiet {
			err = incomplete(r)
		}
		return &exitError{exitIncomplete, err}
	}
	return nil
}

// incomplete names the first files and bundles that were not fully looked at.
func incomplete(r *schema.Report) error {
	const most = 3
	var names []string
	count := 0
	for _, a := range r.Artifacts {
		if a.Coverage.Complete && a.Verdict != predicate.Error {
			continue
		}
		if count++; count <= most {
			names = append(names, report.Printable(a.Path)+" ("+reason(a)+")")
		}
	}
	for _, b := range r.Bundles {
		if len(b.Gaps) == 0 {
			continue
		}
		if count++; count <= most {
			names = append(names, report.Printable(b.Path)+" as a whole ("+strings.ReplaceAll(string(b.Gaps[0].Reason), "_", " ")+")")
		}
	}
	words := strings.Join(names, ", ")
	if count > most {
		words += fmt.Sprintf(" and %d more", count-most)
	}
	for _, p := range r.Problems {
		words = strings.TrimPrefix(words+"; "+report.Printable(p), "; ")
	}
	return fmt.Errorf("not fully scanned: %s; --allow-incomplete accepts that", words)
}

func reason(a schema.Artifact) string {
	if a.Message != "" {
		return report.Printable(a.Message)
	}
	if len(a.Coverage.Gaps) > 0 {
		return strings.ReplaceAll(string(a.Coverage.Gaps[0].Reason), "_", " ")
	}
	return "findings were left out"
}

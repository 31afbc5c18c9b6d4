package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/agent/internal/discover"
	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/agent/internal/inspect/pluginhost"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
)

// level is how a check went.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
)

// check is one line of the doctor's.
type check struct {
	level level
	what  string
	// advice says what to do, unless all is well.
	advice string
}

func newDoctor() *cobra.Command {
	var dir, folder string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what works on this machine, and what to do about what does not", Args: cobra.NoArgs,
		Long: `Check the plugin programs, one scan from end to end, the layers of isolation and
the disk. Exit codes: 0 nothing failed; 1 something did.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return doctor(cmd, dir, folder) },
	}
	cmd.Flags().StringVar(&dir, "plugin-dir", "", "where the plugin programs are (default: beside this program)")
	cmd.Flags().StringVar(&folder, "dir", "", "an agent's folder: check its key, and what certifies it, as well")
	return cmd
}

func doctor(cmd *cobra.Command, dir, folder string) error {
	ctx := cmd.Context()
	checks := []check{{levelOK, fmt.Sprintf("cavra %s, %s/%s, %s", version, runtime.GOOS, runtime.GOARCH, kernel()), ""}}
	checks = append(checks, checkPlugins(ctx, dir)...)
	checks = append(checks, checkScan(ctx, dir)...)
	checks = append(checks, checkKernel()...)
	checks = append(checks, checkDisk(os.TempDir()), check{levelOK, "config: cavra scan needs none", ""})
	if folder != "" {
		checks = append(checks, checkKey(ctx, folder)...)
	}
	failed := 0
	for _, c := range checks {
		if c.level == levelFail {
			failed++
		}
	}
	if err := printChecks(cmd.OutOrStdout(), checks); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return interruptedOr(ctx, ctx.Err(), "while checking")
	}
	if failed > 0 {
		return &exitError{code: exitFindings}
	}
	return nil
}

func printChecks(w io.Writer, checks []check) error {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%-4s  %s\n", c.level, c.what)
		if c.advice != "" {
			fmt.Fprintf(&b, "      → %s\n", c.advice)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// checkPlugins starts every plugin program once.
func checkPlugins(ctx context.Context, dir string) []check {
	if dir == "" {
		beside, err := pluginhost.BesideExecutable()
		if err != nil {
			return []check{{levelFail, err.Error(), "name the plugins' folder with --plugin-dir"}}
		}
		dir = beside
	}
	programs, err := pluginhost.Find(dir)
	if err != nil {
		return []check{{levelFail, err.Error(), "name the plugins' folder with --plugin-dir"}}
	}
	var out []check
	for _, want := range []string{"cavra-connector-fs", "cavra-formats"} {
		if !slices.ContainsFunc(programs, func(p pluginhost.Program) bool { return p.Name == want }) {
			out = append(out, check{levelFail, fmt.Sprintf("plugin %s is not in %s", want, dir), "install the archive's programs together, or name their folder with --plugin-dir"})
		}
	}
	catalogue, err := finding.Shipped()
	if err != nil {
		return append(out, check{levelFail, err.Error(), "install the program anew"})
	}
	for _, p := range programs {
		out = append(out, checkProgram(ctx, p, catalogue))
	}
	return append(out, checkFolder(dir))
}

func checkProgram(ctx context.Context, p pluginhost.Program, catalogue *finding.Catalogue) check {
	const advice = "run a program of the same version as cavra; its own words are above"
	begin := time.Now()
	process, err := plugin.Launch(ctx, plugin.Config{Path: p.Path, Catalogue: catalogue, Sandbox: plugin.SandboxBestEffort})
	if err != nil {
		return check{levelFail, fmt.Sprintf("%s %s: %v", p.Kind, p.Name, err), advice}
	}
	var name, ver string
	if p.Kind == pluginhost.KindConnector {
		var c *plugin.Connector
		if c, err = process.Connector(ctx); err == nil {
			name, ver = c.Describe().Name, c.Describe().Version
		}
	} else {
		var s *plugin.Scanner
		if s, err = process.Scanner(ctx); err == nil {
			d := s.Describe()
			name, ver = d.Name, fmt.Sprintf("%s, ruleset %s, %d rules", d.Version, d.RulesetVersion, len(d.Rules))
		}
	}
	digest, took := process.Digest(), time.Since(begin).Round(time.Millisecond)
	if err = errors.Join(err, process.Close()); err != nil {
		return check{levelFail, fmt.Sprintf("%s %s: %v", p.Kind, p.Name, err), advice}
	}
	return check{levelOK, fmt.Sprintf("%s %s: %s %s, %s, started in %s", p.Kind, p.Name, name, ver, digest, took), ""}
}

// checkFolder warns when others may put programs where cavra starts them from.
func checkFolder(dir string) check {
	info, err := os.Stat(dir)
	if err != nil {
		return check{levelFail, err.Error(), "name the plugins' folder with --plugin-dir"}
	}
	if info.Mode().Perm()&0o002 != 0 {
		return check{levelWarn, fmt.Sprintf("any user may write to %s, where plugins are started from", dir), "chmod o-w " + dir}
	}
	return check{levelOK, "plugins are in " + dir, ""}
}

// checkScan scans one harmless file from end to end.
func checkScan(ctx context.Context, dir string) []check {
	layers, err := scanProbe(ctx, dir)
	if err != nil {
		return []check{{levelFail, "a scan of one small file: " + err.Error(), "see what failed above first"}}
	}
	out := []check{{levelOK, "a scan of one small file: listed, opened, hashed, scanned and passed", ""}}
	names := func(ls []predicate.Layer) string {
		words := make([]string, len(ls))
		for i, l := range ls {
			words[i] = string(l)
		}
		return strings.Join(words, ", ")
	}
	all := []predicate.Layer{
		predicate.LayerProcess, predicate.LayerEmptyEnv, predicate.LayerNoNewPrivs, predicate.LayerRlimits,
		predicate.LayerNetwork, predicate.LayerSeccomp, predicate.LayerLandlock,
	}
	missing := slices.DeleteFunc(all, func(l predicate.Layer) bool { return slices.Contains(layers, l) })
	out = append(out, check{levelOK, "isolation in force around scanners: " + names(layers), ""})
	if len(missing) > 0 {
		out = append(out, check{levelWarn, "isolation not in force: " + names(missing),
			"an agent with sandbox: require does not start here; see what the kernel lacks below, or let the container make user namespaces"})
	}
	return out
}

// scanProbe runs the stages over a folder with one empty pickle in it.
func scanProbe(ctx context.Context, dir string) (layers []predicate.Layer, err error) {
	root, err := os.MkdirTemp("", "cavra-doctor-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	// The pickle of None: protocol 2, NONE, STOP.
	content := []byte("\x80\x02N.")
	if err := os.WriteFile(filepath.Join(root, "probe.pkl"), content, 0o600); err != nil {
		return nil, err
	}
	catalogue, err := finding.Shipped()
	if err != nil {
		return nil, err
	}
	p, err := openPipeline(ctx, scanOptions{jobs: 1, timeout: inspect.DefaultTimeout, pluginDir: dir, sandbox: string(plugin.SandboxBestEffort)}, catalogue, newProgress(io.Discard, true))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	listing := discover.All(ctx, p.connector, root, 0)
	if listing.Err != nil || len(listing.Items) != 1 {
		return nil, errors.Join(fmt.Errorf("%d items listed, want 1", len(listing.Items)), listing.Err)
	}
	r, err := p.inspector.Item(ctx, inspect.Work{Scope: inspect.Scope{Root: root}, Item: listing.Items[0]})
	if err != nil {
		return nil, err
	}
	if r.Digest != predicate.DigestOf(content) {
		return nil, fmt.Errorf("digest %s, want %s (%s)", r.Digest, predicate.DigestOf(content), r.Message)
	}
	return r.Sandbox, verdictOf(p.judge, r)
}

func verdictOf(j *judge.Judge, r inspect.Result) error {
	if v := j.Artifact(r.Findings, r.FindingsOmitted, r.Coverage).Verdict; v != predicate.Pass {
		return fmt.Errorf("verdict %s, want pass (%s)", v, r.Message)
	}
	return nil
}

// checkKernel says which layers this kernel could give.
func checkKernel() []check {
	var out []check
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		out = append(out, check{levelWarn, "kernel: no Landlock (" + errno.Error() + ")", "use Linux 5.13 or later with lsm=landlock"})
	} else {
		out = append(out, check{levelOK, fmt.Sprintf("kernel: Landlock, ABI %d", abi), ""})
	}
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil {
		out = append(out, check{levelWarn, "kernel: no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER"})
	} else {
		out = append(out, check{levelOK, "kernel: seccomp filters", ""})
	}
	if os.Geteuid() != 0 {
		b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
		if err != nil || strings.TrimSpace(string(b)) == "0" {
			return append(out, check{levelWarn, "kernel: no user namespaces for this user", "set the sysctl user.max_user_namespaces above 0"})
		}
	}
	return append(out, check{levelOK, "kernel: namespaces", ""})
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "kernel unknown: " + err.Error()
	}
	return "kernel " + unix.ByteSliceToString(u.Release[:])
}

// checkDisk looks at the room for temporary files.
func checkDisk(dir string) check {
	const low = 64 << 20
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return check{levelFail, fmt.Sprintf("disk: %s: %v", dir, err), "set TMPDIR to a folder that is there"}
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < low {
		return check{levelFail, fmt.Sprintf("disk: %d MiB free in %s", free>>20, dir), "make room, or set TMPDIR to another folder"}
	}
	return check{levelOK, fmt.Sprintf("disk: %d MiB free in %s", free>>20, dir), ""}
}

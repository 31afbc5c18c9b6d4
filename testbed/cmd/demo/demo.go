package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/report"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/testbed/corpus"
	"github.com/cavra/cavra/testbed/ledger"
	"github.com/cavra/cavra/testbed/stack"
)

type options struct {
	bin, models, dir string
	once             bool
}

// The bounds on the steps that wait.
const (
	roundTimeout  = 30 * time.Minute
	arriveTimeout = 2 * time.Minute
)

// demo is one showing.
type demo struct {
	options
	out        io.Writer
	programs   stack.Programs
	aggregator *stack.Aggregator
	agent      *stack.Agent
	// files are what the posture has to come to; nil when nobody knows.
	files []ledger.File
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	d := &demo{options: o, out: out}
	remove, err := d.prepare()
	if err != nil {
		return err
	}
	defer func() { err = d.end(err, remove) }()
	for _, step := range []struct {
		doing string
		do    func(context.Context) (string, error)
	}{
		{"model files", d.writeTree},
		{"aggregator", d.startAggregator},
		{"agent", d.enrol},
		{"scan", d.scan},
		{"arrival", d.arrive},
	} {
		began := time.Now()
		said, err := step.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.doing, err)
		}
		d.say("  %-11s %s (%s)", step.doing, said, time.Since(began).Round(10*time.Millisecond))
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	if d.once {
		return d.compare(ctx)
	}
	return d.stay(ctx)
}

func (d *demo) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format+"\n", args...) // a closed terminal ends nothing
}

// prepare checks what is needed and makes the folder. remove says that the
// folder is ours to delete.
func (d *demo) prepare() (remove bool, err error) {
	bin, err := filepath.Abs(d.bin)
	if err != nil {
		return false, err
	}
	d.programs = stack.Programs(bin)
	if err := d.programs.Check(); err != nil {
		return false, err
	}
	if d.models != "" {
		if d.models, err = filepath.Abs(d.models); err != nil {
			return false, err
		}
		if info, err := os.Stat(d.models); err != nil || !info.IsDir() {
			return false, fmt.Errorf("-models %s is not a folder: name the folder that your models are in", d.models)
		}
	}
	remove = d.dir == ""
	if remove {
		d.dir, err = os.MkdirTemp("", "cavra-demo-")
	} else if d.dir, err = filepath.Abs(d.dir); err == nil {
		if _, err := os.Stat(filepath.Join(d.dir, "agent")); err == nil {
			return false, fmt.Errorf("-dir %s holds an earlier demo: name another folder, or delete that one", d.dir)
		}
		err = os.MkdirAll(d.dir, 0o700)
	}
	if err != nil {
		return false, fmt.Errorf("make folder: %w", err)
	}
	if d.aggregator, err = stack.NewAggregator(stack.AggregatorConfig{Programs: d.programs, Dir: filepath.Join(d.dir, "data")}); err != nil {
		return remove, err
	}
	d.agent, err = stack.NewAgent(d.programs, filepath.Join(d.dir, "agent"))
	return remove, err
}

// end stops what runs. The logs stay when something went wrong.
func (d *demo) end(err error, remove bool) error {
	stopped := errors.Join(d.agent.Stop(), d.aggregator.Stop())
	d.agent.Close()
	d.aggregator.Close()
	err = errors.Join(err, stopped)
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		d.say("\nThe logs and everything else of this run are in %s.", d.dir)
	case remove:
		return errors.Join(err, os.RemoveAll(d.dir))
	}
	return err
}

func (d *demo) writeTree(context.Context) (string, error) {
	if d.models != "" {
		return d.models, nil
	}
	d.models = filepath.Join(d.dir, "models")
	manifest, err := corpus.Write(d.models)
	if err != nil {
		return "", err
	}
	rules, err := finding.Shipped()
	if err != nil {
		return "", err
	}
	if d.files, err = ledger.FromManifest(manifest, rules); err != nil {
		return "", err
	}
	n := manifest.Verdicts()
	return fmt.Sprintf("%d generated, %d of them malicious with inert payloads: %s", len(manifest.Files), n[predicate.Fail], d.models), nil
}

func (d *demo) startAggregator(ctx context.Context) (string, error) {
	if err := d.aggregator.Start(ctx); err != nil {
		return "", err
	}
	return "Kafka, ClickHouse and the control store in one folder, serving at " + d.aggregator.URL(), nil
}

func (d *demo) enrol(ctx context.Context) (string, error) {
	token := filepath.Join(d.dir, "join.token")
	if err := d.aggregator.JoinToken(ctx, token, "--name", "demo"); err != nil {
		return "", err
	}
	// By default names leave the agent only as keyed hashes. A demo is for eyes, and
	// for containers that cannot make namespaces.
	if err := d.agent.Enrol(ctx, d.aggregator.URL(), token, "--scan", d.models, "--privacy", "names", "--keyed-below", "0", "--sandbox", "best-effort"); err != nil {
		return "", err
	}
	id, err := d.agent.Identity()
	if err != nil {
		return "", err
	}
	return "enrolled as " + id.Agent + ", with --privacy names and --keyed-below 0, so that the page shows paths and digests; without them they travel as keyed hashes", nil
}

func (d *demo) scan(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	if err := d.agent.RunOnce(ctx); err != nil {
		return "", err
	}
	head, err := d.agent.Status(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("one round: %d statements signed, chained, published and acknowledged", head.Sequence), nil
}

// arrive waits until the aggregator's chain ends where the agent's does.
func (d *demo) arrive(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, arriveTimeout)
	defer cancel()
	head, err := d.agent.Status(ctx)
	if err != nil {
		return "", err
	}
	id, err := d.agent.Identity()
	if err != nil {
		return "", err
	}
	if err := d.aggregator.AwaitHead(ctx, id.Agent, head); err != nil {
		return "", fmt.Errorf("%w (the aggregator's log: %s)", err, d.aggregator.Log())
	}
	return fmt.Sprintf("the aggregator has verified the chain up to %d, %s…", head.Sequence, head.Digest[:19]), nil
}

func (d *demo) show(ctx context.Context) error {
	table, err := d.aggregator.CLI(ctx, "posture")
	if err != nil {
		return err
	}
	if table.Code != 0 {
		return fmt.Errorf("cavra-aggregator posture: exit code %d: %s", table.Code, table.Stderr)
	}
	d.say("\n%s", table.Stdout)
	d.say("Page:   %s", d.aggregator.URL())
	d.say("Login:  the token in %s", d.aggregator.TokenFile())
	d.say("Click:  the worst artifact, then its finding, then its statement: the signed envelope is the evidence")
	return nil
}

// compare holds every figure against what the files imply.
func (d *demo) compare(ctx context.Context) error {
	by := "the generated tree implies"
	if d.files == nil {
		by = "`cavra scan` of the same folder implies"
		var err error
		if d.files, err = d.standalone(ctx); err != nil {
			return err
		}
	}
	posture, err := d.aggregator.Posture(ctx)
	if err != nil {
		return err
	}
	artifacts, err := d.aggregator.Artifacts(ctx)
	if err != nil {
		return err
	}
	exposures, err := d.aggregator.Exposures(ctx, "open")
	if err != nil {
		return err
	}
	head, err := d.agent.Status(ctx)
	if err != nil {
		return err
	}
	figures := ledger.Of(d.files)
	wrong := append(figures.Differences(posture), ledger.Differing(d.files, artifacts, exposures)...)
	for word, want := range map[string]uint64{"linked": head.Sequence, "early": 0, "forked": 0, "refused": 0} {
		if got := posture.Statements[word]; got != want {
			wrong = append(wrong, fmt.Sprintf("statements %s: the agent's chain implies %d, the posture says %d", word, want, got))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the posture is not what %s:\n  %s", by, strings.Join(wrong, "\n  "))
	}
	d.say("Every figure is what %s: %d artifacts, %d references, %d open exposures, %d statements.",
		by, figures.Artifacts["total"], figures.References["total"], figures.Exposures["total"], head.Sequence)
	return nil
}

// standalone asks `cavra scan` about the folder.
func (d *demo) standalone(ctx context.Context) ([]ledger.File, error) {
	file := filepath.Join(d.dir, "report.json")
	out, err := stack.Command(ctx, nil, d.programs.Cavra(), "scan", "--quiet", "--fail-on", "never", "--allow-incomplete", "--format", "json", "--output", file, d.models)
	if err != nil {
		return nil, err
	}
	if out.Code != 0 {
		return nil, fmt.Errorf("cavra scan %s: exit code %d: %s", d.models, out.Code, out.Stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	return ledger.FromReport(r, d.models), nil
}

// stay leaves both programs running, so that a change of the files shows.
func (d *demo) stay(ctx context.Context) error {
	if err := d.agent.Launch(nil); err != nil {
		return err
	}
	d.say("\nThe agent looks again every few minutes. Everything stays up until you press Ctrl-C.")
	select {
	case <-ctx.Done():
		d.say("\nStopping.")
		return nil
	case <-d.aggregator.Ended():
		return fmt.Errorf("the aggregator ended: see %s", d.aggregator.Log())
	case <-d.agent.Ended():
		return fmt.Errorf("the agent ended: see %s", d.agent.Log())
	}
}

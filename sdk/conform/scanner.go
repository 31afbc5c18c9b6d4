package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/scanner"
)

const (
	// scanTime is how long one scan of a sample may take.
	scanTime = 30 * time.Second
	// maxFaults and maxCuts bound how many reads of a sample are made to fail,
	// and at how many places it is cut.
	maxFaults = 48
	maxCuts   = 24
	workers   = 4
)

// Sample is an artifact for the kit. Hostile ones are the best.
type Sample struct {
	Name     string
	Data     []byte
	Siblings map[string][]byte
	// Framed says that the format marks its own end, so that a sample which is
	// cut short must be noticed.
	Framed bool
}

// Scanner checks that an implementation keeps the scanner contract. Beside the
// given samples it scans an empty one.
func Scanner(t TB, make func() scanner.Scanner, samples ...Sample) {
	t.Helper()
	leaks(t, func() {
		s := make()
		k := &scannerKit{t: t, scanner: s, rules: map[string]bool{}}
		if !k.description() {
			return
		}
		for _, sample := range append([]Sample{{Name: "empty"}}, samples...) {
			if !k.plain(sample) {
				continue
			}
			k.repeatable(sample)
			k.faults(sample)
			k.cuts(sample)
			k.cancelled(sample)
		}
		k.concurrent(samples)
	})
}

type scannerKit struct {
	t       TB
	scanner scanner.Scanner
	rules   map[string]bool
}

func (k *scannerKit) description() bool {
	k.t.Helper()
	r := reporter{k.t, "description", "Describe"}
	d := k.scanner.Describe()
	if err := plugin.ValidateDescription(d); err != nil {
		r.errorf("%v", err)
		return false
	}
	if !reflect.DeepEqual(d, k.scanner.Describe()) {
		r.errorf("two calls give two descriptions")
		return false
	}
	c, err := finding.Shipped()
	if err != nil {
		r.errorf("%v", err)
		return false
	}
	for _, id := range d.Rules {
		k.rules[id] = true
		if _, ok := c.Rule(id); !ok {
			r.errorf("rule %s is not in the catalogue", id)
		}
	}
	return true
}

// result is a scan that has ended.
type result struct {
	report scanner.Report
	err    error
	read   []span
}

// scan scans within scanTime. ok is false when it did not end, which it
// reports.
func (k *scannerKit) scan(ctx context.Context, r reporter, c *content, path string, s Sample) (result, bool) {
	k.t.Helper()
	done := make(chan result, 1)
	go func() {
		report, err := k.scanner.Scan(ctx, scanner.Target{Path: path, Content: c, Siblings: siblingsOf(s.Siblings)})
		done <- result{report, err, c.end()}
	}()
	limit := time.NewTimer(scanTime)
	defer limit.Stop()
	select {
	case out := <-done:
		return out, true
	case <-limit.C:
		r.errorf("the scan has not ended after %s", scanTime)
		return result{}, false
	}
}

// plain is a scan in which nothing goes wrong.
func (k *scannerKit) plain(s Sample) bool {
	k.t.Helper()
	r := reporter{k.t, "report", s.Name}
	c := newContent(s.Data)
	out, ok := k.scan(k.t.Context(), r, c, "sample", s)
	if !ok {
		return false
	}
	if out.err != nil {
		r.errorf("an error, though every read succeeded: a malformed artifact is a finding and a gap: %v", out.err)
	}
	return k.valid(r, out, c) && out.err == nil
}

// valid checks a report against the bounds of the contract, and its claims
// against what was read.
func (k *scannerKit) valid(r reporter, out result, c *content) bool {
	k.t.Helper()
	if err := k.check(out.report, c.size); err != nil {
		r.errorf("%v", err)
		return false
	}
	account, err := coverage.Account(out.report.Coverage, c.size)
	if err != nil {
		r.errorf("%v", err)
		return false
	}
	for _, a := range account {
		if a.Kind == predicate.Parsed && !covers(out.read, a.Start, a.End) {
			r.check = "parsed"
			r.errorf("[%d, %d) is claimed as parsed, and was not read: read was %v", a.Start, a.End, clip(out.read))
			return false
		}
	}
	return true
}

func (k *scannerKit) check(r scanner.Report, size int64) error {
	if err := predicate.ValidateID(r.Format); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	if len(r.Findings) > scanner.MaxFindings || len(r.Imports) > scanner.MaxImports || len(r.Coverage) > scanner.MaxRanges || len(r.Children) > scanner.MaxChildren {
		return fmt.Errorf("%d findings, %d imports, %d ranges, %d children: more than a report may hold", len(r.Findings), len(r.Imports), len(r.Coverage), len(r.Children))
	}
	words := []string{}
	for _, f := range r.Findings {
		words = append(append(words, f.Location.Member), f.Evidence...)
		if err := f.Validate(); err != nil {
			return fmt.Errorf("finding: %w", err)
		}
		if !k.rules[f.Rule] {
			return fmt.Errorf("finding: rule %s is not among those that Describe lists", f.Rule)
		}
	}
	for _, i := range r.Imports {
		words = append(words, i.Module, i.Name, i.Location.Member)
		if err := plugin.ValidateImport(i); err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	for _, c := range r.Coverage {
		words = append(words, c.Member)
		if err := plugin.ValidateRange(c, size); err != nil {
			return fmt.Errorf("coverage: %w", err)
		}
	}
	for _, c := range r.Children {
		words = append(words, c.Member)
		if err := plugin.ValidateChild(c, size); err != nil {
			return fmt.Errorf("child: %w", err)
		}
	}
	for _, w := range words {
		if !utf8.ValidString(w) {
			return fmt.Errorf("%q is not UTF-8", w)
		}
	}
	return nil
}

func clip(spans []span) []span { return spans[:min(len(spans), 8)] }

// complete reports whether the report claims that nothing is unread.
func complete(r scanner.Report, size int64) bool {
	account, err := coverage.Account(r.Coverage, size)
	return err == nil && coverage.Sum(account).Complete
}

// repeatable: the same bytes give the same report, whatever they are called and
// however the reader says that they end.
func (k *scannerKit) repeatable(s Sample) {
	k.t.Helper()
	first := newContent(s.Data)
	want, ok := k.scan(k.t.Context(), reporter{k.t, "deterministic", s.Name}, first, "sample", s)
	if !ok {
		return
	}
	for _, v := range []struct {
		check, path string
		eager       bool
	}{{"deterministic", "sample", false}, {"deterministic", "sample", true}, {"path", "x.txt", false}, {"path", "weights.bin", false}} {
		if v.check == "path" && s.Siblings != nil {
			continue
		}
		r := reporter{k.t, v.check, s.Name}
		c := newContent(s.Data)
		c.eager = v.eager
		got, ok := k.scan(k.t.Context(), r, c, v.path, s)
		if ok && (!reflect.DeepEqual(got.report, want.report) || (got.err == nil) != (want.err == nil)) {
			r.errorf("another report (path %q, io.EOF with the last bytes: %t):\n%+v\n%+v", v.path, v.eager, want.report, got.report)
			return
		}
	}
	if first.readLate() {
		reporter{k.t, "late", s.Name}.errorf("the content was read after Scan had returned")
	}
}

// faults: a scan in which a read failed or fell short never says that it saw
// everything.
func (k *scannerKit) faults(s Sample) {
	k.t.Helper()
	r := reporter{k.t, "faults", s.Name}
	c := newContent(s.Data)
	if _, ok := k.scan(k.t.Context(), r, c, "sample", s); !ok {
		return
	}
	total := c.reads
	for _, err := range []error{errors.New("injected"), io.EOF, io.ErrUnexpectedEOF} {
		for at := 1; at <= total; at += max(1, total/maxFaults) {
			c := newContent(s.Data)
			c.failAt, c.err = at, err
			out, ok := k.scan(k.t.Context(), r, c, "sample", s)
			if !ok || !k.valid(r, out, c) {
				return
			}
			if c.failed && out.err == nil && complete(out.report, c.size) {
				r.errorf("read %d of %d failed (%v), and the scan claims complete coverage without an error", at, total, err)
				return
			}
		}
	}
}

// cuts: a sample that ends early is scanned without an error and within bounds,
// and noticed where the format marks its end.
func (k *scannerKit) cuts(s Sample) {
	k.t.Helper()
	r := reporter{k.t, "cuts", s.Name}
	step := max(1, len(s.Data)/maxCuts)
	for n := 1; n < len(s.Data); n += step {
		k.cut(r, s, n)
	}
	if len(s.Data) > 1 {
		k.cut(r, s, len(s.Data)-1)
	}
}

func (k *scannerKit) cut(r reporter, s Sample, n int) {
	k.t.Helper()
	r.about = fmt.Sprintf("%s cut at %d", s.Name, n)
	c := newContent(s.Data[:n])
	out, ok := k.scan(k.t.Context(), r, c, "sample", s)
	if !ok || !k.valid(r, out, c) {
		return
	}
	if out.err != nil {
		r.errorf("an error, though every read succeeded: %v", out.err)
	}
	if s.Framed && len(out.report.Findings) == 0 && complete(out.report, c.size) {
		r.errorf("complete coverage and no finding, though the end is missing")
	}
}

// cancelled: a scan ends with its context, and says so.
func (k *scannerKit) cancelled(s Sample) {
	k.t.Helper()
	r := reporter{k.t, "cancel", s.Name}
	ctx, cancel := context.WithCancel(k.t.Context())
	if len(s.Data) > 0 {
		// A read that ends with the context, as one of a host's does.
		c := newContent(s.Data)
		c.wait = ctx.Done()
		time.AfterFunc(time.Millisecond, cancel)
		out, ok := k.scan(ctx, r, c, "sample", s)
		if ok && out.err == nil && complete(out.report, c.size) {
			r.errorf("complete coverage without an error, though no read succeeded")
		}
	}
	cancel()
	if out, ok := k.scan(ctx, r, newContent(s.Data), "sample", s); ok && out.err == nil {
		r.errorf("no error under a context that had ended before")
	}
}

// concurrent: several scans at once give what each gives alone.
func (k *scannerKit) concurrent(samples []Sample) {
	k.t.Helper()
	r := reporter{k.t, "concurrent", "all samples"}
	want := make([]scanner.Report, len(samples))
	for i, s := range samples {
		out, ok := k.scan(k.t.Context(), r, newContent(s.Data), "sample", s)
		if !ok {
			return
		}
		want[i] = out.report
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range samples {
				i = (i + w) % len(samples)
				out, ok := k.scan(k.t.Context(), r, newContent(samples[i].Data), "sample", samples[i])
				if ok && !reflect.DeepEqual(out.report, want[i]) {
					r.errorf("%s: another report than alone:\n%+v\n%+v", samples[i].Name, want[i], out.report)
				}
			}
		})
	}
	wg.Wait()
}

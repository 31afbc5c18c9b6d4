package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/discover"
	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/agent/internal/seen"
	"github.com/cavra/cavra/agent/internal/sign"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/clock"
	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/diskio"
)

// The bounds of what is gathered before it goes to the disk.
const (
	batchStatements = 64
	batchWait       = 100 * time.Millisecond
	saveEvery       = 2 * time.Second
)

// round is one look through one scope.
type round struct {
	agent    *Agent
	scope    config.Scope
	seenFile string
	// marking guards seen.Marks and marks: items are gone through while results
	// of others come in.
	marking sync.Mutex
	seen    seen.Scope
	// marks are of the items that stand in this round.
	marks map[string]seen.Mark
	// told are the digests that a statement under this ruleset speaks of.
	told map[predicate.Digest]bool

	waiting   []waiting
	flushedAt time.Time
	savedAt   time.Time
}

// waiting is a result that is not on the disk yet.
type waiting struct {
	statement predicate.Predicate
	key       string
	mark      seen.Mark
	// keep is false for what has to be looked at again.
	keep bool
}

func (a *Agent) openRound(s config.Scope) (*round, error) {
	id := predicate.DigestOf([]byte(s.Connector + "\n" + s.Root)).Hex()[:16]
	r := &round{agent: a, scope: s, seenFile: filepath.Join(a.cfg.Dir, "seen-"+id+".jsonl"), marks: map[string]seen.Mark{}, told: map[predicate.Digest]bool{}}
	known, err := seen.Load(r.seenFile, a.basis)
	if err != nil {
		// A hint that is lost costs a scan of everything.
		a.cfg.Log.Warn("what was scanned before is not known: everything is scanned again", slog.Any("error", err))
	}
	r.seen = known
	for _, m := range known.Marks {
		r.told[m.Digest] = true
	}
	return r, nil
}

// run reports whether everything could be listed.
func (r *round) run(ctx context.Context) (complete bool, err error) {
	started, at := time.Now(), clock.Now()
	r.flushedAt, r.savedAt = started, started
	listing := discover.All(ctx, r.agent.connector[connectorOf(r.scope)], r.scope.Root, 0)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if !listing.Complete() {
		r.agent.cfg.Log.ErrorContext(ctx, "the listing is not complete: nothing is closed by this round", slog.Any("error", listing.Err),
			slog.Int("unreadable", len(listing.Hidden)), slog.String("first", first(listing.Hidden)))
	}
	inspector, err := r.agent.inspector(r.scope)
	if err != nil {
		return false, err
	}
	if err := inspector.Run(ctx, r.work(listing), func(res inspect.Result) error { return r.take(ctx, res) }); err != nil {
		return false, err
	}
	if err := r.flush(ctx); err != nil {
		return false, err
	}
	if err := r.tell(ctx, listing, at); err != nil {
		return false, err
	}
	for key, m := range r.seen.Marks {
		if _, listed := r.marks[key]; !listed && listing.MayHold(key) {
			r.marks[key] = m // it need not be scanned again
		}
	}
	r.seen.Marks = r.marks
	return listing.Complete(), r.save(ctx)
}

func first(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	return paths[0]
}

// work yields the items that are new or changed; the others keep their mark.
func (r *round) work(l *discover.Listing) func(yield func(inspect.Work, error) bool) {
	scope := inspect.Scope{Root: l.Root, Locate: l.Locate}
	return func(yield func(inspect.Work, error) bool) {
		for _, item := range l.Items {
			if r.stands(item) {
				continue
			}
			if !yield(inspect.Work{Scope: scope, Item: item}, nil) {
				return
			}
		}
	}
}

// stands reports whether an item is as it was scanned, and then keeps its mark.
func (r *round) stands(item artifact.Item) bool {
	r.marking.Lock()
	defer r.marking.Unlock()
	m, ok := r.seen.Marks[item.Key]
	if !ok || item.Problem != "" || m.Problem != "" || m.Revision != item.Revision {
		return false
	}
	r.marks[item.Key] = m
	return true
}

// take judges a result and queues its statement, unless the same bytes were
// told of under these rules already.
func (r *round) take(ctx context.Context, res inspect.Result) error {
	j := r.agent.judge.Artifact(res.Findings, res.FindingsOmitted, res.Coverage)
	total := coverage.Sum(res.Coverage)
	w := waiting{key: res.Item.Key, keep: res.Problem == "", mark: seen.Mark{
		Revision: res.Item.Revision, Digest: res.Digest, Problem: res.Problem, Size: res.Size, Verdict: j.Verdict, Score: j.Score,
		Parsed: total.Parsed, Inert: total.Inert, Unread: total.Unread, Complete: total.Complete,
	}}
	if res.Digest != "" && !r.told[res.Digest] {
		r.told[res.Digest] = true
		w.statement = r.agent.maker.Scan(judgedOf(res, j))
	}
	r.waiting = append(r.waiting, w)
	if len(r.waiting) < batchStatements && time.Since(r.flushedAt) < batchWait {
		return nil
	}
	return r.flush(ctx)
}

func judgedOf(res inspect.Result, j judge.Judgement) sign.Judged {
	out := sign.Judged{
		Artifact: predicate.Artifact{Kind: predicate.File, Digest: res.Digest, Size: uint64(res.Size), Format: res.Format, Files: 1},
		Verdict:  j.Verdict, Score: j.Score, Account: res.Coverage, FindingsOmitted: j.Omitted,
		Imports: res.Imports, ImportsOmitted: res.ImportsOmitted, Scanners: res.Scanners, Sandbox: res.Sandbox,
		Started: res.Started, Finished: res.Finished,
	}
	if out.Account == nil {
		out.Account = []coverage.Range{}
	}
	for _, f := range j.Findings {
		out.Findings = append(out.Findings, sign.Finding{Finding: f.Finding, Rule: f.By})
	}
	return out
}

// flush puts what waits into the spool, and only then counts it as seen.
func (r *round) flush(ctx context.Context) error {
	var statements []predicate.Predicate
	for _, w := range r.waiting {
		if w.statement != nil {
			statements = append(statements, w.statement)
		}
	}
	if len(statements) > 0 {
		if err := r.agent.report(ctx, statements...); err != nil {
			return err
		}
	}
	r.note()
	r.waiting, r.flushedAt = r.waiting[:0], time.Now()
	if time.Since(r.savedAt) < saveEvery {
		return nil
	}
	r.savedAt = time.Now()
	return r.save(ctx)
}

// note counts what waits as seen.
func (r *round) note() {
	r.marking.Lock()
	defer r.marking.Unlock()
	for _, w := range r.waiting {
		r.marks[w.key] = w.mark
		if w.keep {
			r.seen.Marks[w.key] = w.mark
		}
	}
}

// save remembers what was seen. It is a hint, for which nothing has to wait: on a
// full disk the next round scans more than it need.
func (r *round) save(ctx context.Context) error {
	err := r.seen.Save(r.seenFile, r.agent.basis)
	if diskio.IsFull(err) {
		r.agent.cfg.Log.WarnContext(ctx, "what was scanned cannot be remembered and is scanned again", slog.Any("error", err))
		return nil
	}
	return err
}

// tell appends the inventory and the bundles, when they changed or it is time.
func (r *round) tell(ctx context.Context, l *discover.Listing, listed time.Time) error {
	judged, totals, err := r.bundles(l)
	if err != nil {
		return err
	}
	digests := map[string]predicate.Digest{}
	for _, b := range judged {
		digests[b.Path] = b.Digest
	}
	refs := make([]sign.Reference, 0, len(l.Items))
	for _, item := range l.Items {
		m, ok := r.marks[item.Key]
		if !ok {
			return fmt.Errorf("item %q was listed and has no result", item.Path)
		}
		refs = append(refs, sign.Reference{Item: item, Digest: m.Digest, Problem: m.Problem, Bundle: digests[item.Bundle], Size: m.Size})
	}
	state, err := json.Marshal(struct {
		Complete bool
		Refs     []sign.Reference
	}{l.Complete(), refs})
	if err != nil {
		return fmt.Errorf("compare inventory: %w", err)
	}
	digest := predicate.DigestOf(state)
	due := time.Duration(r.agent.settings().Inventory)
	// What was told in the future was told before the clock was set back.
	since := listed.Sub(time.UnixMilli(r.seen.ToldAt))
	if digest == r.seen.Inventory && since >= 0 && since < due {
		return nil
	}
	id, err := roundID(listed)
	if err != nil {
		return err
	}
	bundles, err := r.bundleStatements(ctx, l, judged, totals)
	if err != nil {
		return err
	}
	statements := append(bundles, r.agent.maker.Inventory(r.scope.Connector, l.Root, id, listed, l.Complete(), refs)...)
	if err := r.agent.report(ctx, statements...); err != nil {
		return err
	}
	r.seen.Inventory, r.seen.ToldAt = digest, listed.UnixMilli()
	return nil
}

func roundID(at time.Time) (string, error) {
	random := make([]byte, 6)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("name round: %w", err)
	}
	return fmt.Sprintf("r-%d-%s", at.UnixMilli(), hex.EncodeToString(random)), nil
}

// bundles judges the bundles of a scope by their files, and adds up what was
// covered of each.
func (r *round) bundles(l *discover.Listing) ([]judge.BundleJudgement, map[string]coverage.Total, error) {
	var all judge.Bundles
	totals := map[string]coverage.Total{}
	for _, item := range l.Items {
		if item.Bundle == "" {
			continue
		}
		m, ok := r.marks[item.Key]
		if !ok {
			return nil, nil, fmt.Errorf("item %q was listed and has no result", item.Path)
		}
		inside := item.Path
		if item.Bundle != "." {
			inside = strings.TrimPrefix(item.Path, item.Bundle+"/")
		}
		all.Add(item.Bundle, judge.BundleFile{
			File: artifact.File{Path: inside, Digest: m.Digest, Size: m.Size}, Verdict: m.Verdict, Score: m.Score, Complete: m.Complete,
		})
		t := totals[item.Bundle]
		t.Bytes, t.Parsed, t.Inert, t.Unread = t.Bytes+m.Size, t.Parsed+m.Parsed, t.Inert+m.Inert, t.Unread+m.Unread
		totals[item.Bundle] = t
	}
	judged, err := all.Judge()
	return judged, totals, err
}

// bundleStatements has the bundles looked at as wholes and makes their statements.
func (r *round) bundleStatements(ctx context.Context, l *discover.Listing, judged []judge.BundleJudgement, totals map[string]coverage.Total) ([]predicate.Predicate, error) {
	inspector, err := r.agent.inspector(r.scope)
	if err != nil {
		return nil, err
	}
	var statements []predicate.Predicate
	for _, b := range judged {
		files := b.Manifest()
		if files == nil {
			continue
		}
		res, err := inspector.Bundle(ctx, inspect.Scope{Root: l.Root, Locate: l.Locate}, b.Path, files)
		if err != nil {
			return nil, err
		}
		b = b.With(r.agent.judge.Artifact(res.Findings, res.FindingsOmitted, res.Coverage), coverage.Sum(res.Coverage).Complete)
		t := totals[b.Path]
		t.Complete = b.Complete
		out := sign.Judged{
			Artifact: predicate.Artifact{Kind: predicate.Bundle, Digest: b.Digest, Size: uint64(b.Size), Format: "bundle", Files: uint64(b.Files)},
			Verdict:  b.Verdict, Score: b.Score, Total: t, FindingsOmitted: b.Omitted, Scanners: r.agent.programs(), Sandbox: r.agent.layers(),
			Started: res.Started, Finished: res.Finished,
		}
		for _, f := range b.Findings {
			out.Findings = append(out.Findings, sign.Finding{Finding: f.Finding, Rule: f.By})
		}
		statements = append(statements, r.agent.maker.Scan(out))
	}
	return statements, nil
}

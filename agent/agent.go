// Package agent is the long-running agent. It reads top-down as the way of an
// artifact through it: discover, inspect, judge, sign, spool, publish.
//
// It guarantees that what it says was signed by its key in an unbroken chain,
// that what it has signed is published or waits in its spool, and that it tells
// of every item of its scopes, the ones that could not be read too.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/agent/internal/config"
	"github.com/cavra/cavra/agent/internal/contact"
	"github.com/cavra/cavra/agent/internal/egress"
	"github.com/cavra/cavra/agent/internal/enrol"
	"github.com/cavra/cavra/agent/internal/hidden"
	"github.com/cavra/cavra/agent/internal/inspect"
	"github.com/cavra/cavra/agent/internal/inspect/pluginhost"
	"github.com/cavra/cavra/agent/internal/judge"
	"github.com/cavra/cavra/agent/internal/publish"
	"github.com/cavra/cavra/agent/internal/remote"
	"github.com/cavra/cavra/agent/internal/sign"
	"github.com/cavra/cavra/agent/internal/spool"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/clock"
	"github.com/cavra/cavra/sdk/diskio"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/reach"
)

const (
	// SpoolDir is the spool's folder in an agent's folder.
	SpoolDir = "spool"
	// hiddenFile is where the agent writes down what keyed hashes hide.
	hiddenFile = "hidden.jsonl"
)

// Config is what an Agent runs with.
type Config struct {
	// Dir is the agent's folder, enrolled before.
	Dir      string
	Settings config.Config
	Version  string
	Log      *slog.Logger
}

// Agent is an agent with its identity, its plugins and its spool.
type Agent struct {
	cfg      Config
	identity enrol.Loaded
	// signs is the identity whose epoch the spool is in: its key may change while
	// the agent runs.
	signs     atomic.Pointer[enrol.Loaded]
	judge     *judge.Judge
	pools     []*pluginhost.Pool
	connector map[string]*pluginhost.Connector
	maker     sign.Maker
	reducer   *egress.Reducer
	// hidden is what stands behind the keyed hashes.
	hidden *hidden.Book
	spool  *spool.Spool
	// kept is the chain of what stays at the level full-local, and nil at others;
	// reports is the one of the two that rounds report to.
	kept, reports *spool.Spool
	// basis stands for all that decides what is told of an artifact: what was
	// told on another one is told again.
	basis     predicate.Digest
	publisher *publish.Publisher
	contact   *contact.Contact
	// remote is what the aggregator has set; its Settings are those that hold.
	remote  *remote.Remote
	started time.Time
	// owner is what this run calls itself in the spool's lock.
	owner string
	// lastRound is when the last round ended, lastComplete when the last one did
	// that could list everything, and lastAck when the brokers last acknowledged
	// something, in milliseconds since 1970; 0 for never.
	lastRound, lastComplete, lastAck atomic.Int64
}

// Open loads the identity, opens the spool and starts the plugins. Close the
// Agent.
func Open(ctx context.Context, cfg Config) (*Agent, error) {
	a := &Agent{cfg: cfg, connector: map[string]*pluginhost.Connector{}, started: clock.Now()}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) open(ctx context.Context) error {
	var err error
	if err = a.takeSpool(ctx); err != nil {
		return err
	}
	a.signs.Store(&a.identity)
	if err = a.openKept(ctx); err != nil {
		return err
	}
	a.publisher, err = publish.New(publish.Config{
		Source: source{a.spool, &a.lastAck}, Tenant: a.identity.Tenant, Agent: a.identity.Agent,
		Access: publish.Access(a.identity.Kafka), Log: a.cfg.Log,
	})
	if err != nil {
		return err
	}
	if a.remote, err = openRemote(ctx, a.cfg, a.identity); err != nil {
		return err
	}
	if a.contact, err = newContact(a.cfg, a.identity, false, a.remote); err != nil {
		return err
	}
	if err := a.recall(); err != nil {
		return err
	}
	// Measuring and starting the plugins takes a while, and somebody may ask.
	a.say(ctx, a.standing())
	return a.openPlugins(ctx)
}

// takePatience is how long another process may have the folder in use: one that
// only asks how the agent stands is done long before.
const takePatience = 3 * time.Second

// takeSpool loads the identity and opens its spool.
func (a *Agent) takeSpool(ctx context.Context) error {
	limit, tick := time.NewTimer(takePatience), time.NewTicker(takePatience/30)
	defer limit.Stop()
	defer tick.Stop()
	for {
		var err error
		if a.identity, err = settleKey(ctx, a.cfg); err == nil {
			a.spool, err = openSpool(ctx, a.cfg, a.identity)
		}
		if !errors.Is(err, diskio.ErrLocked) {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return inUse(a.cfg.Dir)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Agent) openPlugins(ctx context.Context) error {
	catalogue, err := finding.Shipped()
	if err != nil {
		return err
	}
	if a.judge, err = judge.New(catalogue); err != nil {
		return err
	}
	dir := a.cfg.Settings.PluginDir
	if dir == "" {
		if dir, err = pluginhost.BesideExecutable(); err != nil {
			return err
		}
	}
	host, err := pluginhost.New(pluginhost.Config{
		Dir: dir, Catalogue: catalogue, Workers: a.cfg.Settings.Jobs, Distrust: a.judge.Distrusts, Logger: a.cfg.Log,
		Sandbox: a.cfg.Settings.Sandbox,
	})
	if err != nil {
		return err
	}
	for _, s := range a.cfg.Settings.Scopes {
		key := connectorOf(s)
		if a.connector[key] != nil {
			continue
		}
		reach, err := a.reach(s)
		if err != nil {
			return err
		}
		c, err := host.Connector(ctx, s.Connector, reach)
		if err != nil {
			return unstarted("connector "+s.Connector, err)
		}
		a.connector[key] = c
	}
	if a.pools, err = host.Scanners(ctx); err != nil {
		return unstarted("scanners", err)
	}
	if a.hidden, err = hidden.Open(filepath.Join(a.cfg.Dir, hiddenFile)); err != nil {
		return err
	}
	a.maker = sign.Maker{
		Names: egress.Namer{
			Privacy: a.cfg.Settings.Privacy, Key: a.identity.NameKey, Vocabulary: egress.Shipped(), Remember: a.hidden.Remember,
		},
		Privacy: a.cfg.Settings.Privacy,
		Ruleset: a.ruleset(catalogue),
	}
	a.basis = predicate.DigestOf(fmt.Appendf([]byte("cavra-basis-v1\n"), "%s\n%s\n%d\n%x",
		a.maker.Ruleset.Digest, a.maker.Privacy, a.cfg.Settings.KeyedBelow, a.identity.NameKey))
	if a.reducer, err = egress.NewReducer(a.identity.NameKey, a.cfg.Settings.KeyedBelow); err != nil {
		return err
	}
	a.reducer.Remember = a.hidden.Remember
	return nil
}

// byDigest puts scans in the order of the digests that leave, before what else
// there is. As they were done they would tell how long each took, and much of the
// order of their paths.
func byDigest(statements []predicate.Predicate) {
	key := func(p predicate.Predicate) (rank int, digest string) {
		if s, ok := p.(*predicate.Scan); ok {
			return 0, string(s.Artifact.Digest)
		}
		return 1, ""
	}
	slices.SortStableFunc(statements, func(a, b predicate.Predicate) int {
		rankA, digestA := key(a)
		rankB, digestB := key(b)
		return cmp.Or(cmp.Compare(rankA, rankB), strings.Compare(digestA, digestB))
	})
}

// report appends statements to the chain that rounds report to, brought down to
// what may leave where that is the published one.
func (a *Agent) report(ctx context.Context, statements ...predicate.Predicate) error {
	if a.reports == a.spool {
		for _, p := range statements {
			a.reducer.Reduce(p)
		}
		byDigest(statements)
	}
	full := a.hidden.Save()
	if full != nil && !diskio.IsFull(full) {
		return full
	}
	if _, err := a.reports.Append(ctx, statements...); err != nil || full == nil {
		return err
	}
	// The spool has waited until there was room.
	if full = a.hidden.Save(); diskio.IsFull(full) {
		a.cfg.Log.WarnContext(ctx, "cavra resolve does not know yet what the last names hide", slog.Any("error", full))
		return nil
	}
	return full
}

// unstarted says what to do about plugins that do not start.
func unstarted(what string, err error) error {
	advice := "cavra doctor says what is wrong here"
	if errors.Is(err, plugin.ErrSandbox) {
		advice = "cavra doctor says what is missing; sandbox: best-effort in the agent's configuration goes on with the rest"
	}
	return fmt.Errorf("start %s: %w (%s)", what, err, advice)
}

// connectorOf names the process that looks after a scope: one for all scopes of a
// kind, but one for each that reaches the network or is handed something.
func connectorOf(s config.Scope) string {
	if s.Remote() {
		return s.Connector + "\n" + s.Root
	}
	return s.Connector
}

// reach is what a scope's connector gets at: the one of files the roots of all its
// scopes, others what their own scope says.
func (a *Agent) reach(s config.Scope) (pluginhost.Reach, error) {
	out := pluginhost.Reach{Credentials: s.Credentials, Authority: s.Authority}
	for _, other := range a.cfg.Settings.Scopes {
		if s.Connector == pluginhost.Files && other.Connector == s.Connector {
			out.Roots = append(out.Roots, other.Root)
		}
	}
	var err error
	if out.Allow, err = reach.Parse(s.Egress); err != nil {
		return out, fmt.Errorf("egress of connector %s: %w", s.Connector, err)
	}
	return out, nil
}

// ruleset stands for everything that a verdict rests on: the catalogue and the
// scanners' programs, which hold their tables.
func (a *Agent) ruleset(c *finding.Catalogue) sign.Ruleset {
	text := string(c.Digest())
	for _, p := range a.programs() {
		text += "\n" + p.Name + " " + string(p.Digest)
	}
	return sign.Ruleset{Version: c.Version(), Digest: predicate.DigestOf([]byte(text))}
}

func (a *Agent) programs() []predicate.Scanner {
	out := []predicate.Scanner{}
	for _, p := range a.pools {
		out = append(out, p.Program())
	}
	return out
}

// layers are those that are in force around every plugin.
func (a *Agent) layers() []predicate.Layer {
	var each [][]predicate.Layer
	for _, p := range a.pools {
		each = append(each, p.Layers())
	}
	for _, c := range a.connector {
		each = append(each, c.Layers())
	}
	if len(each) == 0 {
		return nil
	}
	out := slices.DeleteFunc(slices.Clone(each[0]), func(l predicate.Layer) bool {
		return slices.ContainsFunc(each, func(of []predicate.Layer) bool { return !slices.Contains(of, l) })
	})
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

// Close ends the plugins and gives the spool back.
func (a *Agent) Close() error {
	var errs []error
	for _, p := range a.pools {
		errs = append(errs, p.Close())
	}
	for _, c := range a.connector {
		errs = append(errs, c.Close())
	}
	if a.publisher != nil {
		errs = append(errs, a.publisher.Close())
	}
	if a.hidden != nil {
		errs = append(errs, a.hidden.Close())
	}
	for _, s := range []*spool.Spool{a.spool, a.kept} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Run goes round after round until ctx ends, and returns nil then.
func (a *Agent) Run(ctx context.Context) error {
	defer func() { a.say(ctx, a.standing()) }()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.publisher.Run(ctx) })
	group.Go(func() error { return a.rounds(ctx) })
	group.Go(func() error { return a.heartbeats(ctx) })
	group.Go(func() error { return a.watchClock(ctx) })
	group.Go(func() error { return a.contact.Run(ctx) })
	group.Go(func() error { return a.stands(ctx) })
	group.Go(func() error { return a.rotations(ctx) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// errDone ends a run that has done its one round.
var errDone = errors.New("the round is done")

// RunOnce does one round, publishes everything, and returns once the broker has
// acknowledged it, or once the brokers refuse what only a person can mend. For
// brokers that are away, or a disk that is full, it waits so long after there is
// nothing else to do, and then says which of the two it was.
func (a *Agent) RunOnce(ctx context.Context, patience time.Duration) error {
	defer func() { a.say(ctx, a.standing()) }()
	group, ctx := errgroup.WithContext(ctx)
	var scanned atomic.Bool
	group.Go(func() error { return a.publisher.RunUntilRefused(ctx) })
	group.Go(func() error { return a.stands(ctx) })
	group.Go(func() error { return a.losePatience(ctx, patience, &scanned) })
	called := make(chan struct{})
	group.Go(func() error {
		defer close(called)
		// Its standing says why it has failed: the round counts without.
		_ = a.contact.Once(ctx)
		return nil
	})
	group.Go(func() error {
		if err := a.round(ctx); err != nil {
			return err
		}
		if err := a.beat(ctx); err != nil {
			return err
		}
		<-called
		scanned.Store(true)
		if err := a.spool.Drained(ctx); err != nil {
			return err
		}
		if a.rotationDue() {
			if err := a.answer(ctx, false, a.rotate(ctx, true)); err != nil {
				return err
			}
			if err := a.spool.Drained(ctx); err != nil {
				return err
			}
		}
		return errDone
	})
	if err := group.Wait(); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// ErrAway says that the brokers were away for as long as a single round waits.
var ErrAway = errors.New("the brokers are away")

// losePatience returns an error once nothing has gone on for so long: all is
// scanned, or scanning waits for room, and the brokers are away or the disk is
// full.
func (a *Agent) losePatience(ctx context.Context, patience time.Duration, scanned *atomic.Bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	for {
		stats, trouble := a.spool.Stats(), a.publisher.Trouble()
		switch stuck := scanned.Load() || !stats.FullSince.IsZero(); {
		case !stuck || stats.Trouble == nil && trouble == nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) < patience:
		case stats.Trouble != nil:
			return fmt.Errorf("gave up after %s: %w", patience, stats.Trouble)
		default:
			return fmt.Errorf("gave up after %s: %w: %d statements are signed and wait in the spool, and the next run sends them: %w",
				patience, ErrAway, stats.Statements, trouble.Err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openRemote recalls what the aggregator has set.
func openRemote(ctx context.Context, cfg Config, id enrol.Loaded) (*remote.Remote, error) {
	return remote.Open(ctx, remote.Config{
		Dir: cfg.Dir, Tenant: id.Tenant, Agent: id.Agent, Key: id.ConfigurationKey, Local: cfg.Settings, Log: cfg.Log,
	})
}

// settings are those that hold now.
func (a *Agent) settings() config.Config {
	s, _ := a.remote.Settings()
	return s
}

func (a *Agent) rounds(ctx context.Context) error {
	for {
		began := time.Now()
		if err := a.round(ctx); err != nil {
			return err
		}
		if err := a.untilRound(ctx, began); err != nil {
			return err
		}
	}
}

// untilRound waits until it is time for the round after one that began at a
// moment, by the settings that hold meanwhile.
func (a *Agent) untilRound(ctx context.Context, began time.Time) error {
	for {
		s, changed := a.remote.Settings()
		timer := time.NewTimer(time.Until(began.Add(time.Duration(s.Interval))))
		select {
		case <-timer.C:
			return nil
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// round looks through every scope once.
func (a *Agent) round(ctx context.Context) error {
	complete := true
	for _, s := range a.cfg.Settings.Scopes {
		r, err := a.openRound(s)
		if err != nil {
			return err
		}
		listed, err := r.run(ctx)
		if err != nil {
			return fmt.Errorf("round over %s: %w", s.Connector, err)
		}
		complete = complete && listed
	}
	now := clock.Now().UnixMilli()
	a.lastRound.Store(now)
	if complete {
		a.lastComplete.Store(now)
	}
	return nil
}

// heartbeats tells how the agent stands, and at once where the aggregator has set
// something or was refused.
func (a *Agent) heartbeats(ctx context.Context) error {
	for {
		s, changed := a.remote.Settings()
		if err := a.beat(ctx); err != nil {
			return err
		}
		timer := time.NewTimer(time.Duration(s.Heartbeat))
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (a *Agent) beat(ctx context.Context) error {
	set := a.settings()
	a.spool.SetMaxBytes(set.Spool.MaxBytes)
	stats := a.spool.Stats()
	h := &predicate.Heartbeat{
		AgentVersion: a.cfg.Version, RulesetVersion: a.maker.Ruleset.Version, Plugins: a.programs(), Sandbox: a.layers(),
		StartedAt: predicate.At(a.started), SpoolStatements: stats.Statements, SpoolBytes: stats.Bytes,
		IntervalSeconds: uint64(time.Duration(set.Heartbeat) / time.Second), Privacy: a.cfg.Settings.Privacy, Kept: a.keptHead(),
		Configuration: a.remote.Standing(),
	}
	h.LastRoundAt, h.LastCompleteAt = milli(a.lastRound.Load()), milli(a.lastComplete.Load())
	a.reducer.Reduce(h)
	_, err := a.spool.Append(ctx, h)
	return err
}

// inspector reads a scope's artifacts by its connector.
func (a *Agent) inspector(scope config.Scope) (*inspect.Inspector, error) {
	scanners := make([]inspect.Scanner, len(a.pools))
	for i, p := range a.pools {
		scanners[i] = p
	}
	return inspect.New(inspect.Config{Source: a.connector[connectorOf(scope)], Scanners: scanners, Jobs: a.settings().Jobs})
}

// source hands the spool's statements to the publisher.
type source struct {
	spool *spool.Spool
	// acked gets the time of each acknowledgement.
	acked *atomic.Int64
}

func (s source) Next(ctx context.Context, most, mostBytes int) (publish.Batch, error) {
	entries, err := s.spool.Next(ctx, most, mostBytes)
	if err != nil {
		return publish.Batch{}, err
	}
	batch := publish.Batch{Done: func() error {
		faultpoint.Hit("broker-acked")
		s.acked.Store(time.Now().UnixMilli())
		return s.spool.Ack(entries[len(entries)-1].Place)
	}}
	for _, e := range entries {
		batch.Envelopes = append(batch.Envelopes, e.Envelope)
	}
	return batch, nil
}

// Package fleet simulates many agents against one real aggregator: each has a
// key, an enrolment, a login, connections and a chain of its own, and signs,
// publishes and retries as an agent does; it only scans nothing and keeps its
// spool in memory.
//
// It guarantees that a run ends by itself, that it speaks to 127.0.0.1 alone,
// and that every statement which was signed is accounted for at its end: a run
// in which one is missing, doubled or refused is an error.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/testbed/stack"
)

// Config is how large a run is.
type Config struct {
	Programs stack.Programs
	// Dir is a folder for the aggregator.
	Dir    string
	Agents int
	// Heartbeat is the time between an agent's signs of life, CheckIn between its
	// calls, and Steady how long the fleet does nothing else.
	Heartbeat, CheckIn, Steady time.Duration
	// Load is how many agents report at a time under load, each report by
	// itself, for LoadTime; Backlog is how many reports every agent has waiting
	// when the brokers come back.
	Load     int
	LoadTime time.Duration
	Backlog  int
	// Limit bounds the whole run.
	Limit time.Duration
	// Progress, if not nil, hears what goes on.
	Progress func(format string, args ...any)
}

// enrolling bounds the enrolments, and starting the agents that make their
// first connections, at a time.
const (
	enrolling = 256
	starting  = 256
)

// run is a run under way.
type run struct {
	Config
	aggregator *stack.Aggregator
	agents     []*agent
	// failed are the writes, and failedCalls the calls, that came to nothing.
	failed, failedCalls atomic.Int64
	result              *Result
}

// Run simulates a fleet and measures.
func Run(ctx context.Context, cfg Config) (result *Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Limit, fmt.Errorf("the run took longer than %s", cfg.Limit))
	defer cancel()
	if cfg.Progress == nil {
		cfg.Progress = func(string, ...any) {}
	}
	r := &run{Config: cfg, result: &Result{Agents: cfg.Agents}}
	if r.aggregator, err = aggregatorOver(cfg); err != nil {
		return nil, err
	}
	defer r.aggregator.Close()
	if err := r.aggregator.Start(ctx); err != nil {
		return nil, err
	}
	life, end := context.WithCancel(ctx)
	defer end()
	defer func() {
		for _, a := range r.agents {
			_ = a.close() // nothing is under way any more
		}
	}()
	for _, phase := range []struct {
		name string
		do   func(context.Context, context.Context) error
	}{
		{"enrol", r.enrolAll}, {"first connections", r.start}, {"heartbeats", r.steady},
		{"reports, one by one", r.load}, {"reports, all at once", r.backlog}, {"account", r.account},
	} {
		began := time.Now()
		if err := phase.do(ctx, life); err != nil {
			return nil, fmt.Errorf("%s: %w", phase.name, errors.Join(err, context.Cause(ctx)))
		}
		cfg.Progress("%s: %s", phase.name, time.Since(began).Round(time.Millisecond))
	}
	r.result.Retries = int(r.failed.Load())
	return r.result, r.aggregator.Stop()
}

// aggregatorOver is an aggregator whose agents speak TLS alone.
func aggregatorOver(cfg Config) (*stack.Aggregator, error) {
	data := filepath.Join(cfg.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make the aggregator's folder: %w", err)
	}
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = stack.FreePort(); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(cfg.Dir, "aggregator.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:%d\nembedded: {dir: %q, kafka_port: %d, tls: true}\nagents: {listen: \"127.0.0.1:%d\"}\n", ports[0], data, ports[1], ports[2])
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configure the aggregator: %w", err)
	}
	return stack.NewAggregator(stack.AggregatorConfig{Programs: cfg.Programs, Dir: data, Config: file})
}

// each calls f for every agent, a bounded number at a time.
func (r *run) each(ctx context.Context, atOnce int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range r.Agents {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

func (r *run) enrolAll(ctx, _ context.Context) error {
	tokens := make([]string, r.Agents)
	r.agents = make([]*agent, r.Agents)
	err := r.each(ctx, 16, func(ctx context.Context, i int) (err error) {
		if r.agents[i], err = newAgent(fmt.Sprintf("node-%05d", i), r.Heartbeat); err != nil {
			return err
		}
		tokens[i], err = r.aggregator.MakeJoinToken(ctx, r.agents[i].name)
		return err
	})
	if err != nil {
		return err
	}
	r.Progress("%d join tokens are made", r.Agents)
	before, began := r.usage(), time.Now()
	r.result.Idle = before
	if err := r.each(ctx, enrolling, func(ctx context.Context, i int) error {
		failed, err := r.agents[i].enrol(ctx, r.aggregator.URL(), tokens[i])
		r.failed.Add(int64(failed))
		return err
	}); err != nil {
		return err
	}
	r.result.Enrol = r.figure("enrolments", r.Agents, began, before)
	return nil
}

// figure is what was done since a moment, and what it cost the aggregator.
func (r *run) figure(what string, n int, began time.Time, before Usage) Figure {
	took := time.Since(began)
	after := r.usage()
	return Figure{What: what, Count: n, Took: took, CPU: after.CPU - before.CPU, After: after}
}

// start has every agent open its chain and say that it lives, and waits until
// the API has heard of all of them.
func (r *run) start(ctx, life context.Context) error {
	before, began := r.usage(), time.Now()
	err := r.each(ctx, starting, func(ctx context.Context, i int) error {
		a := r.agents[i]
		if err := a.connect(life); err != nil {
			return err
		}
		return r.tell(ctx, a, a.epoch, a.heartbeat)
	})
	if err != nil {
		return err
	}
	r.Progress("all have published after %s", time.Since(began).Round(time.Millisecond))
	// The first may be stale before the last has come.
	err = stack.Poll(ctx, "all agents to be heard of", func(ctx context.Context) (bool, string, error) {
		p, err := r.aggregator.Posture(ctx)
		return err == nil && p.Agents["online"]+p.Agents["stale"] == uint64(r.Agents), fmt.Sprint(p.Agents), err
	})
	if err != nil {
		return err
	}
	r.result.Online = r.figure("agents heard of", r.Agents, began, before)
	return nil
}

func (r *run) tell(ctx context.Context, a *agent, of ...func(predicate.Link) predicate.Predicate) error {
	_, failed, err := a.tell(ctx, of...)
	r.failed.Add(int64(failed))
	return err
}

// steady is a fleet at rest: heartbeats and nothing else.
func (r *run) steady(ctx, _ context.Context) error {
	before, began := r.usage(), time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.Steady)
	defer cancel()
	var beats, calls atomic.Int64
	var peak Usage
	group, groupCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	for _, a := range r.agents {
		group.Go(func() error {
			pause := time.NewTimer(rand.N(r.Heartbeat))
			defer pause.Stop()
			for {
				select {
				case <-pause.C:
				case <-ctx.Done():
					return nil
				}
				// A heartbeat that has begun is sent to its end.
				if err := r.tell(groupCtx, a, a.heartbeat); err != nil {
					return err
				}
				beats.Add(1)
				pause.Reset(r.Heartbeat)
			}
		})
	}
	for _, a := range r.agents {
		group.Go(func() error {
			pause := time.NewTimer(rand.N(r.CheckIn))
			defer pause.Stop()
			for {
				select {
				case <-pause.C:
				case <-ctx.Done():
					return nil
				}
				// One that fails is made again at its time, as an agent's.
				if err := a.checkIn(groupCtx); err != nil {
					r.failedCalls.Add(1)
				} else {
					calls.Add(1)
				}
				pause.Reset(r.CheckIn)
			}
		})
	}
	group.Go(func() error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = peak.max(r.usage())
			case <-ctx.Done():
				return nil
			}
		}
	})
	if err := group.Wait(); err != nil {
		return err
	}
	r.result.Steady = r.figure("heartbeats", int(beats.Load()), began, before)
	r.result.Calls, r.result.FailedCalls = int(calls.Load()), int(r.failedCalls.Load())
	r.result.Peak = peak
	return nil
}

// load has some agents report, each report by itself, and asks for some of
// them until the API has them.
func (r *run) load(ctx, _ context.Context) error {
	before, began := r.usage(), time.Now()
	timed, cancel := context.WithTimeout(ctx, r.LoadTime)
	defer cancel()
	probes := make(chan signed)
	group, groupCtx := errgroup.WithContext(ctx)
	var reports atomic.Int64
	var authors sync.WaitGroup
	for i := range min(r.Load, r.Agents) {
		authors.Add(1)
		group.Go(func() error {
			defer authors.Done()
			a := r.agents[i]
			for timed.Err() == nil {
				told, failed, err := a.tell(groupCtx, a.scan)
				r.failed.Add(int64(failed))
				if err != nil {
					return err
				}
				reports.Add(1)
				select {
				case probes <- told[0]:
				default:
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		authors.Wait()
		close(probes)
		return nil
	})
	group.Go(func() error { return r.probe(groupCtx, probes) })
	if err := group.Wait(); err != nil {
		return err
	}
	r.result.Load = r.figure("reports, one by one", int(reports.Load()), began, before)
	return nil
}

// probe asks for one report after another until the API has it, and notes how
// long that took from its signing.
const (
	probers    = 8
	probeEvery = 50 * time.Millisecond
	probePause = time.Second
)

func (r *run) probe(ctx context.Context, probes <-chan signed) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for range probers {
		group.Go(func() error {
			for s := range probes {
				if err := r.aggregator.AwaitStatement(ctx, s.digest, probeEvery); err != nil {
					return err
				}
				took := time.Since(s.at)
				mu.Lock()
				r.result.Latencies = append(r.result.Latencies, took)
				mu.Unlock()
				select {
				case <-time.After(probePause):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// backlog has every agent publish what has gathered, as after an outage, and
// waits until all of it is there.
func (r *run) backlog(ctx, _ context.Context) error {
	before, began := r.usage(), time.Now()
	err := r.each(ctx, starting, func(ctx context.Context, i int) error {
		a := r.agents[i]
		of := make([]func(predicate.Link) predicate.Predicate, r.Backlog)
		for n := range of {
			of[n] = a.scan
		}
		return r.tell(ctx, a, of...)
	})
	if err != nil {
		return err
	}
	published := time.Since(began)
	var want uint64
	for _, a := range r.agents {
		want += a.acked
	}
	err = stack.Poll(ctx, "all reports to be there", func(ctx context.Context) (bool, string, error) {
		p, err := r.aggregator.Posture(ctx)
		return err == nil && p.Statements["linked"] >= want, fmt.Sprintf("%d of %d", p.Statements["linked"], want), err
	})
	if err != nil {
		return err
	}
	r.result.Backlog = r.figure("reports, all at once", r.Agents*r.Backlog, began, before)
	r.result.Published = published
	return nil
}

// account compares what every agent has signed with what the aggregator has.
func (r *run) account(ctx, _ context.Context) error {
	states, err := r.aggregator.Agents(ctx)
	if err != nil {
		return err
	}
	of := make(map[string]stack.AgentState, len(states))
	for _, s := range states {
		of[s.ID] = s
	}
	var faults []error
	for _, a := range r.agents {
		s := of[a.access.GetAgent()]
		r.result.Signed += a.head.Sequence
		r.result.Present += s.Statements
		r.result.Replayed += s.Replayed
		switch {
		case len(s.Chains) != 1:
			err = fmt.Errorf("%d chains", len(s.Chains))
		case s.Chains[0].HeadSequence != a.head.Sequence || s.Chains[0].HeadDigest != a.head.Digest:
			err = fmt.Errorf("the chain ends at %d, the agent's at %d", s.Chains[0].HeadSequence, a.head.Sequence)
		case s.Chains[0].GapCount != 0 || s.Chains[0].ForkCount != 0:
			err = fmt.Errorf("%d gaps, %d forks", s.Chains[0].GapCount, s.Chains[0].ForkCount)
		case s.Statements != a.head.Sequence:
			err = fmt.Errorf("%d statements of %d", s.Statements, a.head.Sequence)
		default:
			continue
		}
		if len(faults) < 10 {
			faults = append(faults, fmt.Errorf("%s: %w", a.name, err))
		}
	}
	refused, err := r.aggregator.Quarantine(ctx, false)
	if err != nil {
		return err
	}
	r.result.Refused = len(refused)
	if len(faults) > 0 || r.result.Refused > 0 {
		return fmt.Errorf("%d statements of %d, %d refused: %w", r.result.Present, r.result.Signed, r.result.Refused, errors.Join(faults...))
	}
	return nil
}

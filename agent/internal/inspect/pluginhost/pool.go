package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/scanner"
)

// Pool is one scanner program and its workers. It may be used from several
// goroutines at once.
type Pool struct {
	host    *Host
	program Program
	// measured is the program as it was when the pool began: what every worker runs.
	measured    *plugin.Program
	layers      []predicate.Layer
	description scanner.Description
	// slots holds every worker that is not at work; nil stands for one that is
	// yet to be started.
	slots chan *worker
}

type worker struct {
	process *plugin.Process
	scanner *plugin.Scanner
	items   int
	bytes   int64
}

// Scanners starts one worker of every scanner program, one program at least, so
// that a program that cannot work is known before anything is scanned. The
// caller closes the pools.
func (h *Host) Scanners(ctx context.Context) ([]*Pool, error) {
	if err := plugin.Sweep(); err != nil && h.cfg.Logger != nil {
		h.cfg.Logger.WarnContext(ctx, "what killed agents have left in the temporary folder stays", slog.Any("error", err))
	}
	programs, err := h.programs(KindScanner, "")
	if err != nil {
		return nil, err
	}
	var pools []*Pool
	for _, program := range programs {
		p, err := h.pool(ctx, program)
		if err != nil {
			for _, open := range pools {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		pools = append(pools, p)
	}
	return pools, nil
}

func (h *Host) pool(ctx context.Context, program Program) (*Pool, error) {
	if err := predicate.ValidateID(program.Name); err != nil {
		return nil, fmt.Errorf("start scanner %s: the program's name goes into reports: %w", program.Name, err)
	}
	measured, err := plugin.Load(program.Path, "")
	if err != nil {
		return nil, fmt.Errorf("start scanner %s: %w", program.Name, err)
	}
	p := &Pool{host: h, program: program, measured: measured, slots: make(chan *worker, h.cfg.Workers)}
	w, err := p.start(ctx)
	if err != nil {
		return nil, errors.Join(err, measured.Close())
	}
	p.layers, p.description = w.process.Layers(), w.scanner.Describe()
	p.slots <- w
	for range h.cfg.Workers - 1 {
		p.slots <- nil
	}
	return p, nil
}

func (p *Pool) start(ctx context.Context) (*worker, error) {
	process, err := plugin.Launch(ctx, plugin.Config{
		Program: p.measured, Logger: p.host.cfg.Logger, Catalogue: p.host.cfg.Catalogue, Sandbox: p.host.cfg.Sandbox,
	})
	if err != nil {
		return nil, fmt.Errorf("start scanner %s: %w", p.program.Name, err)
	}
	s, err := process.Scanner(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start scanner %s: %w", p.program.Name, err), process.Close())
	}
	return &worker{process: process, scanner: s}, nil
}

// Program names the program that scans, by its file's name and its own digest: a
// name that it gives itself could say anything.
func (p *Pool) Program() predicate.Scanner {
	return predicate.Scanner{Name: p.program.Name, Version: p.description.Version, Digest: p.measured.Digest()}
}

// Describe is what the scanner said of itself.
func (p *Pool) Describe() scanner.Description { return p.description }

// Layers are the layers of isolation in force around the workers.
func (p *Pool) Layers() []predicate.Layer { return p.layers }

// Scan scans one artifact on a worker that does nothing else meanwhile. It
// waits for one until ctx ends.
func (p *Pool) Scan(ctx context.Context, target scanner.Target) (scanner.Report, error) {
	var w *worker
	select {
	case w = <-p.slots:
	case <-ctx.Done():
		return scanner.Report{Format: scanner.Unknown}, context.Cause(ctx)
	}
	if w == nil || w.gone() {
		if w != nil {
			// It ended on its own since its last scan: nothing is lost with it.
			if err := w.process.Close(); err != nil {
				p.slots <- nil
				return scanner.Report{Format: scanner.Unknown}, err
			}
		}
		fresh, err := p.start(ctx)
		if err != nil {
			p.slots <- nil
			return scanner.Report{Format: scanner.Unknown}, err
		}
		w = fresh
	}
	report, err := w.scanner.Scan(ctx, target)
	w.items++
	w.bytes += target.Content.Size()
	if err == nil && !p.host.cfg.Distrust(report.Findings) && w.items < p.host.cfg.Budget.Items && w.bytes < p.host.cfg.Budget.Bytes {
		p.slots <- w
		return report, nil
	}
	closed := w.process.Close()
	p.slots <- nil
	if closed != nil {
		err = errors.Join(err, closed)
	}
	return report, err
}

func (w *worker) gone() bool {
	select {
	case <-w.process.Exited():
		return true
	default:
		return false
	}
}

// Close ends every worker, once those at work are done.
func (p *Pool) Close() error {
	var err error
	for range cap(p.slots) {
		if w := <-p.slots; w != nil {
			err = errors.Join(err, w.process.Close())
		}
	}
	return errors.Join(err, p.measured.Close())
}

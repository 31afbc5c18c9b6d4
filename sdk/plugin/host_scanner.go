package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"google.golang.org/grpc"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// Scanner is a scanner in a process of its own. It may be used from several
// goroutines at once.
type Scanner struct {
	process     *Process
	rpc         pb.ScannerClient
	description scanner.Description
	rules       map[string]bool
}

// Scanner asks the plugin to describe itself as a scanner. A plugin that is
// none breaks the contract.
func (p *Process) Scanner(ctx context.Context) (*Scanner, error) {
	s := &Scanner{process: p, rpc: pb.NewScannerClient(p.conn)}
	d, err := s.rpc.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return nil, fmt.Errorf("describe scanner: %w", p.fault(ctx, err))
	}
	s.description = scanner.Description{Name: d.GetName(), Version: d.GetVersion(), RulesetVersion: d.GetRulesetVersion(), Rules: d.GetRules()}
	if err := ValidateDescription(s.description); err != nil {
		return nil, fmt.Errorf("describe scanner: %w", &ContractError{Err: err})
	}
	s.rules = make(map[string]bool, len(d.GetRules()))
	for _, r := range d.GetRules() {
		if p.cfg.Catalogue != nil {
			if _, ok := p.cfg.Catalogue.Rule(r); !ok {
				return nil, fmt.Errorf("describe scanner: %w", contractf("rule %s is not in the catalogue", r))
			}
		}
		s.rules[r] = true
	}
	return s, nil
}

// Describe returns what the scanner said of itself when it was asked first.
func (s *Scanner) Describe() scanner.Description { return s.description }

// Process is the process that the scanner runs in.
func (s *Scanner) Process() *Process { return s.process }

// Scan is the scanner contract's, and returns at once when ctx ends. With an
// error, the report holds what was reported and checked before it; only with a
// *FailedError does the plugin stand by it.
func (s *Scanner) Scan(ctx context.Context, target scanner.Target) (scanner.Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.rpc.Scan(ctx)
	if err != nil {
		return scanner.Report{Format: scanner.Unknown}, fmt.Errorf("scan: %w", s.process.fault(ctx, err))
	}
	h := &hosted{
		process: s.process, target: target, stream: stream,
		collect: collector{rules: s.rules, size: target.Content.Size(), report: scanner.Report{Format: scanner.Unknown}},
		readers: map[uint64]artifact.Reader{},
	}
	err = errors.Join(h.run(ctx), h.closeSiblings())
	if err != nil {
		err = fmt.Errorf("scan: %w", err)
	}
	return h.collect.report, err
}

// hosted is one scan on the host's side. It does one thing at a time: what a
// plugin asks is answered before the next question is heard.
type hosted struct {
	process *Process
	target  scanner.Target
	stream  grpc.BidiStreamingClient[pb.ScanInput, pb.ScanOutput]
	collect collector
	// readers are what the plugin may fetch ranges of.
	readers  map[uint64]artifact.Reader
	siblings []artifact.Reader
	opened   int
}

func (h *hosted) run(ctx context.Context) error {
	content, pass, err := h.offer(h.target.Content)
	if err != nil {
		return err
	}
	if err := h.send(ctx, &pb.ScanInput{Input: &pb.ScanInput_Begin{Begin: &pb.Begin{Path: text(h.target.Path, maxPathBytes), Content: content}}}); err != nil {
		return err
	}
	if err := pass(ctx); err != nil {
		return err
	}
	for {
		out, err := h.stream.Recv()
		if errors.Is(err, io.EOF) {
			return contractf("the scan ended without Done")
		}
		if err != nil {
			return h.process.fault(ctx, err)
		}
		if done := out.GetDone(); done != nil {
			return h.done(done)
		}
		if err := h.handle(ctx, out); err != nil {
			return err
		}
	}
}

func (h *hosted) handle(ctx context.Context, out *pb.ScanOutput) error {
	switch {
	case out.GetReport() != nil:
		return h.collect.add(out.GetReport())
	case out.GetFetch() != nil:
		return h.fetch(ctx, out.GetFetch())
	case out.GetSibling() != nil:
		return h.sibling(ctx, out.GetSibling().GetPath())
	}
	return contractf("a message of no known kind")
}

func (h *hosted) done(d *pb.Done) error {
	if err := predicate.ValidateID(d.GetFormat()); err != nil {
		return contractf("format: %w", err)
	}
	h.collect.report.Format = d.GetFormat()
	h.collect.report.FindingsOmitted = d.GetFindingsOmitted()
	h.collect.report.ImportsOmitted = d.GetImportsOmitted()
	if d.GetError() != "" {
		return &FailedError{Words: words(d.GetError())}
	}
	return nil
}

func (h *hosted) send(ctx context.Context, in *pb.ScanInput) error {
	err := h.stream.Send(in)
	if errors.Is(err, io.EOF) {
		// The stream has ended; why is what Recv says.
		for err == nil || errors.Is(err, io.EOF) {
			if _, err = h.stream.Recv(); errors.Is(err, io.EOF) {
				return contractf("the scan ended without Done")
			}
		}
	}
	if err != nil {
		return h.process.fault(ctx, err)
	}
	return nil
}

// offer decides how the bytes travel. What is to be passed beside the message
// goes after it, so that it never arrives at a plugin that did not hear of it.
func (h *hosted) offer(r artifact.Reader) (*pb.Content, func(context.Context) error, error) {
	c := &pb.Content{Handle: h.process.handles.Add(1), Size: r.Size()}
	none := func(context.Context) error { return nil }
	if c.Size <= InlineMax {
		c.Via, c.Inline = pb.Content_VIA_INLINE, make([]byte, c.Size)
		if err := safeio.ReadFull(r, c.Inline, 0, h.target.Path); err != nil {
			return nil, nil, err
		}
		return c, none, nil
	}
	if d, ok := r.(artifact.Descriptor); ok {
		c.Via = pb.Content_VIA_DESCRIPTOR
		return c, func(ctx context.Context) error {
			defer runtime.KeepAlive(r)
			if err := pass(ctx, h.process.fds, c.GetHandle(), d); err != nil {
				return h.passed(ctx, err)
			}
			return nil
		}, nil
	}
	c.Via = pb.Content_VIA_RANGES
	h.readers[c.GetHandle()] = r
	return c, none, nil
}

// passed says why a descriptor could not be passed: a process that ended, as a
// rule.
func (h *hosted) passed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, h.process.broken(ctx))
}

func (h *hosted) fetch(ctx context.Context, f *pb.Fetch) error {
	r := h.readers[f.GetHandle()]
	off, n := f.GetOffset(), int64(f.GetLength())
	if r == nil || off < 0 || n < 1 || n > chunk || off > r.Size()-n {
		return contractf("fetch of %d bytes at %d of handle %d", n, off, f.GetHandle())
	}
	out := &pb.Fetched{Data: make([]byte, n)}
	if err := safeio.ReadFull(r, out.GetData(), off, h.target.Path); err != nil {
		out = &pb.Fetched{Error: text(err.Error(), maxErrorBytes)}
	}
	return h.send(ctx, &pb.ScanInput{Input: &pb.ScanInput_Fetched{Fetched: out}})
}

func (h *hosted) sibling(ctx context.Context, path string) error {
	if h.opened++; h.opened > maxSiblings {
		return contractf("more than %d siblings opened", maxSiblings)
	}
	answer := &pb.SiblingOpened{}
	pass := func(context.Context) error { return nil }
	r, err := h.openSibling(ctx, path)
	if err == nil {
		answer.Content, pass, err = h.offer(r)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		answer.Error = string(predicate.NotFound)
	case err != nil:
		answer = &pb.SiblingOpened{Error: text(err.Error(), maxErrorBytes)}
	}
	if err := h.send(ctx, &pb.ScanInput{Input: &pb.ScanInput_Sibling{Sibling: answer}}); err != nil {
		return err
	}
	if answer.GetError() != "" {
		return nil
	}
	if err := pass(ctx); err != nil {
		return err
	}
	if answer.GetContent().GetVia() != pb.Content_VIA_RANGES {
		// The plugin has the bytes, or a descriptor of its own.
		h.siblings = h.siblings[:len(h.siblings)-1]
		return r.Close()
	}
	return nil
}

// openSibling opens what an artifact names, so the path is hostile: outside the
// bundle there is nothing.
func (h *hosted) openSibling(ctx context.Context, path string) (artifact.Reader, error) {
	if path == "." || !fs.ValidPath(path) || len(path) > maxPathBytes {
		return nil, fs.ErrNotExist
	}
	if len(h.siblings) >= maxRangeSiblings {
		return nil, fmt.Errorf("%d siblings are open", len(h.siblings))
	}
	r, err := h.target.Sibling(ctx, path)
	if err != nil {
		return nil, err
	}
	h.siblings = append(h.siblings, r)
	return r, nil
}

func (h *hosted) closeSiblings() error {
	var err error
	for _, r := range h.siblings {
		err = errors.Join(err, r.Close())
	}
	return err
}

package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/cavra/cavra/schemas/gen/cavra/plugin/v1"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// scannerServer is the plugin's side of the scanner service.
type scannerServer struct {
	pb.UnimplementedScannerServer
	scanner scanner.Scanner
	fds     *descriptors
}

func (s *scannerServer) Describe(context.Context, *pb.DescribeRequest) (*pb.ScannerDescription, error) {
	d := s.scanner.Describe()
	return &pb.ScannerDescription{Name: d.Name, Version: d.Version, RulesetVersion: d.RulesetVersion, Rules: d.Rules}, nil
}

func (s *scannerServer) Scan(stream grpc.BidiStreamingServer[pb.ScanInput, pb.ScanOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	begin := first.GetBegin()
	if begin == nil {
		return status.Error(codes.InvalidArgument, "the first message is not Begin")
	}
	ss := &session{stream: stream, fds: s.fds}
	content, err := ss.open(stream.Context(), begin.GetPath(), begin.GetContent())
	if err != nil {
		// A file that changed under the host, as a rule: no fault of this side.
		return ss.finish(scanner.Report{Format: scanner.Unknown}, err)
	}
	// It ends with the stream, which ends when this method returns.
	go ss.receive()
	defer ss.stop(errors.New("the scan is over"))
	target := scanner.Target{Path: begin.GetPath(), Content: content, Siblings: ss.sibling}
	report, err := s.scan(stream.Context(), target)
	return errors.Join(ss.finish(report, err), content.Close())
}

// scan turns a panic into a failure of this one scan: a hostile artifact must
// not take the scans beside it down.
func (s *scannerServer) scan(ctx context.Context, target scanner.Target) (report scanner.Report, err error) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(os.Stderr, "scanner panicked: %v\n%s", r, debug.Stack())
			report, err = scanner.Report{Format: scanner.Unknown}, fmt.Errorf("scanner panicked: %v", r)
		}
	}()
	report, err = s.scanner.Scan(ctx, target)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err() // what ended the scan may have been the time, and the report a part
	}
	return report, err
}

// session is one scan on the plugin's side. The host answers questions in the
// order in which they were asked.
type session struct {
	stream grpc.BidiStreamingServer[pb.ScanInput, pb.ScanOutput]
	fds    *descriptors

	// sending makes the order of the questions that of their calls.
	sending sync.Mutex
	mu      sync.Mutex
	asked   []*call
	err     error
}

func (s *session) ask(out *pb.ScanOutput, want int) *call {
	c := newCall(want)
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	if s.err != nil {
		err := s.err
		s.mu.Unlock()
		return c.fail(err)
	}
	s.asked = append(s.asked, c)
	s.mu.Unlock()
	if err := s.stream.Send(out); err != nil {
		// The stream is broken, so that receive fails what was asked.
		return c
	}
	return c
}

func (s *session) receive() {
	for {
		in, err := s.stream.Recv()
		if err == nil {
			err = s.answer(in)
		}
		if err != nil {
			s.stop(err)
			return
		}
	}
}

// answer gives the oldest question its answer, or says how the host erred.
func (s *session) answer(in *pb.ScanInput) error {
	s.mu.Lock()
	if len(s.asked) == 0 {
		s.mu.Unlock()
		return errors.New("the host answered what was not asked")
	}
	c := s.asked[0]
	s.asked = s.asked[1:]
	s.mu.Unlock()
	switch {
	case in.GetFetched() != nil && c.want >= 0:
		f := in.GetFetched()
		c.data = f.GetData()
		if f.GetError() != "" {
			c.err = errors.New(f.GetError())
		} else if len(c.data) != c.want {
			c.err = fmt.Errorf("the host sent %d bytes for %d: %w", len(c.data), c.want, io.ErrUnexpectedEOF)
		}
	case in.GetSibling() != nil && c.want < 0:
		sib := in.GetSibling()
		switch c.content = sib.GetContent(); {
		case sib.GetError() == string(predicate.NotFound):
			c.err = fs.ErrNotExist
		case sib.GetError() != "":
			c.err = errors.New(sib.GetError())
		}
	default:
		err := errors.New("the host answered another question")
		c.fail(err)
		return err
	}
	close(c.done)
	return nil
}

func (s *session) stop(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("ask the host: %w", err)
	}
	for _, c := range s.asked {
		c.fail(s.err)
	}
	s.asked = nil
}

func (s *session) sibling(ctx context.Context, path string) (artifact.Reader, error) {
	c := s.ask(&pb.ScanOutput{Output: &pb.ScanOutput_Sibling{Sibling: &pb.Sibling{Path: text(path, maxPathBytes)}}}, -1)
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.err != nil {
		return nil, fmt.Errorf("open sibling: %w", c.err)
	}
	return s.open(ctx, path, c.content)
}

// open makes a reader of what the host offers.
func (s *session) open(ctx context.Context, name string, c *pb.Content) (artifact.Reader, error) {
	switch size := c.GetSize(); {
	case size < 0:
		return nil, fmt.Errorf("open %s: size %d", words(name), size)
	case c.GetVia() == pb.Content_VIA_INLINE && int64(len(c.GetInline())) == size:
		return &inline{data: c.GetInline()}, nil
	case c.GetVia() == pb.Content_VIA_DESCRIPTOR && s.fds != nil:
		f, err := s.fds.claim(ctx, c.GetHandle())
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", words(name), err)
		}
		return sized(f, name, size)
	case c.GetVia() == pb.Content_VIA_RANGES:
		begin := func(off int64, n int) *call {
			return s.ask(&pb.ScanOutput{Output: &pb.ScanOutput_Fetch{Fetch: &pb.Fetch{Handle: c.GetHandle(), Offset: off, Length: int32(n)}}}, n)
		}
		return newRanges(name, size, begin, func() error { return nil }), nil
	}
	return nil, fmt.Errorf("open %s: content by way %d cannot be opened here", words(name), c.GetVia())
}

// sized takes f over and refuses it when it is not of the size that was said.
func sized(f *os.File, name string, size int64) (*safeio.File, error) {
	file, err := safeio.NewFile(f, name)
	if err != nil {
		return nil, err
	}
	if file.Size() != size {
		return nil, errors.Join(fmt.Errorf("open %s: %d bytes, %d were said: %w", words(name), file.Size(), size, safeio.ErrChanged), file.Close())
	}
	return file, nil
}

// finish sends the report in parts, and then how the scan ended.
func (s *session) finish(r scanner.Report, scanErr error) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	p := &parts{send: func(r *pb.Report) error {
		return s.stream.Send(&pb.ScanOutput{Output: &pb.ScanOutput_Report{Report: r}})
	}}
	done := &pb.Done{Format: text(r.Format, predicate.MaxID), FindingsOmitted: r.FindingsOmitted, ImportsOmitted: r.ImportsOmitted}
	if done.Format == "" {
		done.Format = scanner.Unknown
	}
	if err := p.all(r, done); err != nil {
		return err
	}
	if scanErr != nil {
		done.Error = text(scanErr.Error(), maxErrorBytes)
		if done.Error == "" {
			done.Error = "no words"
		}
	}
	return s.stream.Send(&pb.ScanOutput{Output: &pb.ScanOutput_Done{Done: done}})
}

package clickhouse

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// maxReport bounds what is read of the child's report, in bytes.
const maxReport = 64 << 10

// runOnce runs one engine process from start to end.
func (e *Engine) runOnce(ctx context.Context) error {
	// The kernel ties the child's death to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	p, err := e.start(ctx)
	if err != nil {
		return err
	}
	answer, err := p.readReport(ctx, e.cfg.StartWait)
	if ctx.Err() != nil {
		return p.kill()
	}
	if err != nil {
		return errors.Join(err, p.kill())
	}
	if answer.Error != "" {
		return errors.Join(answer.err(), ignoreExit(p.wait()))
	}
	e.setAddr(answer.Addr, answer.Version)
	e.cfg.Log.InfoContext(ctx, "engine started", slog.String("version", answer.Version), slog.Int("pid", p.cmd.Process.Pid))
	defer e.setAddr("", "")
	return p.follow(ctx, e.cfg.StopWait+2*time.Second)
}

// process is a running child.
type process struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	report *os.File
	output sync.WaitGroup // ends with the child's output
}

func (e *Engine) start(ctx context.Context) (_ *process, err error) {
	command := e.cfg.Command
	if len(command) == 0 {
		// Not os.Executable, whose path may hold another program after an
		// upgrade in place.
		command = []string{"/proc/self/exe", ChildCommand}
	}
	p := &process{cmd: exec.Command(command[0], command[1:]...)}
	// Nothing of ours: the engine reads HOME for configuration.
	p.cmd.Env = []string{"HOME=/nonexistent", "TZ=UTC"}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start engine process: %w", err)
	}
	p.report = reader
	p.cmd.ExtraFiles = []*os.File{writer}
	defer func() {
		err = errors.Join(err, writer.Close())
		if err != nil {
			err = errors.Join(err, reader.Close())
		}
	}()
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start engine process: %w", err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start engine process: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start engine process: %w", err)
	}
	p.output.Go(func() { e.logOutput(ctx, stderr) })
	if err := json.NewEncoder(p.input).Encode(e.order()); err != nil {
		return nil, errors.Join(fmt.Errorf("send engine order: %w", err), p.kill())
	}
	return p, nil
}

func (e *Engine) order() order {
	c := e.cfg
	return order{
		Dir: c.Dir, Library: c.Library, User: User, Password: e.password,
		FastUnsafe: c.FastUnsafe,
		Limits: limits{
			QueryBytes: c.QueryBytes, BodyBytes: c.BodyBytes, ResultBytes: c.ResultBytes,
			MemoryBytes: c.MemoryBytes, FreeDiskBytes: c.FreeDiskBytes, Queries: c.Queries,
			QueryTime: c.QueryTime, QueueWait: c.QueueWait, StopWait: c.StopWait,
		},
	}
}

// readReport waits for the child to say that it serves, or why it cannot.
func (p *process) readReport(ctx context.Context, wait time.Duration) (report, error) {
	defer func() { _ = p.report.Close() }()
	if err := p.report.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return report{}, fmt.Errorf("read engine report: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.report.SetReadDeadline(time.Now()) })
	defer stop()
	var r report
	if err := json.NewDecoder(io.LimitReader(p.report, maxReport)).Decode(&r); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return report{}, fmt.Errorf("start engine: no answer within %s: the disk may be slow, see the log", wait)
		}
		return report{}, fmt.Errorf("start engine: its process ended before it served, see the log: %w", err)
	}
	return r, nil
}

// reported is the child's error in this process, where errors.Is still finds
// the condition that it wrapped there.
type reported struct {
	message string
	kind    error
}

func (r *reported) Error() string { return r.message }
func (r *reported) Unwrap() error { return r.kind }

func (r report) err() error {
	out := &reported{message: r.Error}
	switch r.Kind {
	case kindLibrary:
		out.kind = ErrLibrary
	case kindInUse:
		out.kind = ErrInUse
	}
	return out
}

// follow waits for the process. When ctx ends it closes the child's input,
// which asks it to stop, and kills it when it has not within wait.
func (p *process) follow(ctx context.Context, wait time.Duration) error {
	ended := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		// An error means that the child is gone, and the wait below ends.
		_ = p.input.Close()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
			_ = p.cmd.Process.Kill()
		}
	})
	err := p.wait()
	close(ended)
	group.Wait()
	if ctx.Err() != nil {
		return ignoreExit(err)
	}
	return fmt.Errorf("run engine process: ended by itself: %w", errors.Join(err, io.ErrUnexpectedEOF))
}

// wait reads the child's output to its end and reaps it.
func (p *process) wait() error {
	p.output.Wait()
	return p.cmd.Wait()
}

func (p *process) kill() error {
	return errors.Join(p.cmd.Process.Kill(), ignoreExit(p.wait()))
}

// ignoreExit drops a status of a process whose end was wanted or explained.
func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// maxLine bounds a line of the child's standard error in the log, in bytes.
const maxLine = 4 << 10

// logOutput copies the engine's standard error to the log; what a line has
// beyond maxLine is shown as further lines.
func (e *Engine) logOutput(ctx context.Context, r io.Reader) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			e.cfg.Log.WarnContext(ctx, "engine output", slog.String("line", string(line)))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

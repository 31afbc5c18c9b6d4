package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a program that runs in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended and its output is written
	err  error         // how it ended, set before done is closed
}

// start runs a program in the background, its output appended to the file log.
func start(log string, env []string, name string, args ...string) (*process, error) {
	return startThrough((*exec.Cmd).Start, log, env, name, args...)
}

func startThrough(through func(*exec.Cmd) error, log string, env []string, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	// The group, so that what it started ends with it; the death signal, so that
	// it ends with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := through(cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), out.Close())
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() { // ends with the process
		p.err = cmd.Wait()
		_ = out.Close() // nothing is written to it here
		close(p.done)
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait waits for the end, and gives how it ended.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", p.cmd.Path, context.Cause(ctx))
	}
}

// kill ends the whole group with SIGKILL and waits for it.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
	<-p.done
}

// stopTimeout is how long an orderly end may take.
const stopTimeout = 20 * time.Second

// stop ends the program in good order, and by force after stopTimeout.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.cmd.Path, err)
	}
	limit := time.NewTimer(stopTimeout)
	defer limit.Stop()
	select {
	case <-p.done:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what it left behind
		return nil
	case <-limit.C:
		p.kill()
		return fmt.Errorf("stop %s: it did not end within %s of SIGTERM: see %s", p.cmd.Path, stopTimeout, p.log)
	}
}

// killed reports whether it died of SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// maxOutput bounds what is kept of a command's output.
const maxOutput = 64 << 20

// Output is what a command said, and how it ended.
type Output struct {
	Stdout, Stderr []byte
	// Code is the exit code, and -1 when a signal ended it.
	Code int
}

// Command runs a program to its end. An exit code is no error; a program that
// does not start, outlives ctx or says too much is.
func Command(ctx context.Context, env []string, name string, args ...string) (Output, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	stdout, stderr := bounded{left: maxOutput}, bounded{left: maxOutput}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := Output{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return out, fmt.Errorf("run %s: %w\n%s", name, context.Cause(ctx), out.Stderr)
	}
	if err != nil && !errors.As(err, &exit) {
		return out, fmt.Errorf("run %s: %w", name, err)
	}
	return out, nil
}

type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, io.ErrShortWrite
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

// Poll asks again and again until done says yes, fails for good, or ctx ends;
// then the error says what was last heard.
func Poll(ctx context.Context, what string, done func(context.Context) (bool, string, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last string
	for {
		ok, heard, err := done(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		if heard != "" && ctx.Err() == nil {
			last = heard
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %s", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

const pollEvery = 50 * time.Millisecond

// tail is the end of a log, for an error.
func tail(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // it was only read
	const most = 4 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// killAlone ends the program itself with SIGKILL and waits for it.
func (p *process) killAlone() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

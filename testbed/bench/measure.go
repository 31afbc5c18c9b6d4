package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cost is what a command took.
type cost struct {
	wall time.Duration
	// memory is the highest sum, over the processes that lived at a moment, of
	// the most that each had resident so far, in bytes: an upper bound of what
	// they had together.
	memory int64
	stdout []byte
}

// sampleEvery is how often the processes are looked at. What a process had at
// most is kept by the system, so only one that lives shorter is missed.
const sampleEvery = 5 * time.Millisecond

// measure runs a command with env besides our own; an exit code that is not
// among codes is an error.
func measure(ctx context.Context, codes []int, env []string, name string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return cost{}, fmt.Errorf("start %s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	var memory int64
	for {
		select {
		case err := <-ended:
			c := cost{wall: time.Since(began), stdout: stdout.Bytes(), memory: memory}
			return c, judge(ctx, err, cmd, codes, stderr.Bytes())
		case <-tick.C:
			memory = max(memory, resident(cmd.Process.Pid))
		}
	}
}

func judge(ctx context.Context, err error, cmd *exec.Cmd, codes []int, stderr []byte) error {
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	for _, c := range codes {
		if cmd.ProcessState.ExitCode() == c {
			return nil
		}
	}
	return fmt.Errorf("run %s: %s: %s", cmd.Path, cmd.ProcessState, stderr)
}

// resident sums the peaks of a process and its descendants, as far as they live.
func resident(pid int) int64 {
	sum, ok := peakOf(pid)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || !ok {
		return sum // it has just ended
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // it has just ended
		}
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				sum += resident(child)
			}
		}
	}
	return sum
}

func peakOf(pid int) (int64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, after, ok := strings.Cut(string(b), "VmHWM:")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return n * kib, err == nil
}

// warm reads every file of a folder once, so that all measure the same cache.
func warm(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		_, err = os.ReadFile(path)
		return err
	})
}

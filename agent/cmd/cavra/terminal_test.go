package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal.
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}

// below are the processes that a process has started, and those below them.
func below(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has just ended
		}
		for _, word := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, child), below(t, child)...)
		}
	}
	return all
}

// TestInterrupt sees the progress bar on a terminal, and what Ctrl-C does to a
// scan that would never end.
func TestInterrupt(t *testing.T) {
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	plugins := filepath.Join(dir, "plugins")
	if err := linkHostile(plugins); err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(dir, "models")
	if err := os.Mkdir(models, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(models, strconv.Itoa(i)), []byte("HANG...."), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs := terminal(t)
	cmd := exec.Command(filepath.Join(bin, "cavra"), "scan", "--plugin-dir", plugins, "--format", "json", models)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	_ = theirs.Close()
	var seen strings.Builder
	buf := make([]byte, 4096)
	var signalled time.Time
	var scanners []int
	for {
		n, err := ours.Read(buf)
		seen.Write(buf[:n])
		if signalled.IsZero() && strings.Contains(seen.String(), "0/3 files") {
			// The first scanner has the file once it runs.
			for len(scanners) == 0 && time.Since(started) < 10*time.Second {
				scanners = below(t, cmd.Process.Pid)
			}
			signalled = time.Now()
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != exitInterrupted {
		t.Errorf("exit code %d, want %d", got, exitInterrupted)
	}
	if want := "interrupted after 0 of 3 files"; !strings.Contains(seen.String(), want) {
		t.Errorf("no %q in %q", want, seen.String())
	}
	if stdout.Len() != 0 {
		t.Errorf("a part of a report was written: %s", stdout.String())
	}
	took := time.Since(signalled)
	t.Logf("Ctrl-C took %s with %d processes below", took, len(scanners))
	if took > 3*time.Second {
		t.Errorf("Ctrl-C took %s", took)
	}
	if len(scanners) == 0 {
		t.Error("no scanner ran when Ctrl-C came")
	}
	for _, pid := range scanners {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
			t.Errorf("a scanner outlives Ctrl-C: %s", stat)
		}
	}
}

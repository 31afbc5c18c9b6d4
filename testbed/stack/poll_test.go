package stack

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPollSaysWhatWasLastHeard(t *testing.T) {
	cause := errors.New("not in time")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 120*time.Millisecond, cause)
	defer cancel()
	err := Poll(ctx, "the moon", func(context.Context) (bool, string, error) { return false, "a crescent", nil })
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "the moon") || !strings.Contains(err.Error(), "a crescent") {
		t.Errorf("error %q: want the cause, what was waited for, and what was heard", err)
	}
	broken := errors.New("broken")
	if err := Poll(t.Context(), "the moon", func(context.Context) (bool, string, error) { return false, "", broken }); !errors.Is(err, broken) {
		t.Errorf("error %q: want the one that ended it", err)
	}
	if err := Poll(t.Context(), "the moon", func(context.Context) (bool, string, error) { return true, "full", nil }); err != nil {
		t.Error(err)
	}
}

func TestCommand(t *testing.T) {
	out, err := Command(t.Context(), []string{"WORD=seen"}, "sh", "-c", `echo "$WORD"; echo no >&2; exit 7`)
	if err != nil || string(out.Stdout) != "seen\n" || string(out.Stderr) != "no\n" || out.Code != 7 {
		t.Errorf("got %q, %q, %d, %v", out.Stdout, out.Stderr, out.Code, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Command(ctx, nil, "sh", "-c", "sleep 60 & wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v: want that it took too long", err)
	}
}

func TestKilledTakesTheGroupAlong(t *testing.T) {
	dir := t.TempDir()
	p, err := start(dir+"/log", nil, "sh", "-c", "sleep 60 & echo $!; wait")
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	if !killed(p.err) || p.running() {
		t.Errorf("ended with %v", p.err)
	}
	if err := p.wait(t.Context()); !killed(err) {
		t.Errorf("waited for %v", err)
	}
}

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cavra/cavra/agent/internal/publish"
	"github.com/cavra/cavra/schemas/predicate"
)

// files are a folder's, by their path below it.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(50*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer limit.Stop()
	for !yes() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// TestStatusWhileAnAgentRuns asks while an agent runs and its broker is away,
// then there, and after it has ended; and says who is in the way of another.
func TestStatusWhileAnAgentRuns(t *testing.T) {
	w := newWorld(t)
	w.looksAfter(t.TempDir())
	fresh := w.status()
	want := Standing{KeyID: w.id.KeyID, Privacy: predicate.Strict, Epoch: 1, MaxBytes: w.cfg.Settings.Spool.MaxBytes}
	if diff := cmp.Diff(want, fresh.Standing, cmpopts.IgnoreFields(Standing{}, "AsOf")); diff != "" {
		t.Errorf("before the first run (-want +got):\n%s", diff)
	}
	a, err := Open(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s := w.status(); s.Running != os.Getpid() || s.Sequence != 1 || s.LastRound != nil {
		t.Errorf("while it starts: %+v", s)
	}
	if _, err := Open(t.Context(), w.cfg); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second agent: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	eventually(t, "the trouble of a running agent", func() bool {
		s := w.status()
		return s.Running == os.Getpid() && s.LastRound != nil && s.LastAck == nil && s.Waiting > 0 && s.Waiting == s.Sequence &&
			s.Trouble != nil && strings.HasPrefix(s.Trouble.Error, publish.ErrAway.Error())
	})
	w.startBroker()
	eventually(t, "everything acknowledged", func() bool {
		s := w.status()
		return s.Trouble == nil && s.Waiting == 0 && s.LastAck != nil && s.Acknowledged.Sequence == s.Sequence && s.Sequence > 1 && s.Brokers == BrokersReady
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	running := a.standing()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	before := files(t, w.cfg.Dir)
	after := w.status().Standing
	if diff := cmp.Diff(running, after, cmpopts.IgnoreFields(Standing{}, "AsOf", "Running", "Owner")); diff != "" || after.Running != 0 {
		t.Errorf("after its end (-while +after), process %d:\n%s", after.Running, diff)
	}
	if diff := cmp.Diff(before, files(t, w.cfg.Dir)); diff != "" {
		t.Errorf("asking has changed the folder:\n%s", diff)
	}
}

// TestNoWordOfAnotherRun has a status file of a run that was killed, and a
// process that holds the folder and has said nothing yet.
func TestNoWordOfAnotherRun(t *testing.T) {
	w := newWorld(t)
	w.save()
	old := Standing{Running: os.Getpid(), Owner: "of a run before", Epoch: 1, Sequence: 999, Privacy: predicate.Strict, KeyID: w.id.KeyID}
	ago := predicate.At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	old.LastRound, old.AsOf = &ago, ago
	(&Agent{cfg: w.cfg}).say(t.Context(), old)
	if s := w.status(); s.Running != 0 || s.Sequence != 0 || s.LastRound == nil || !s.LastRound.Equal(ago) {
		t.Errorf("%+v", s)
	}
	s, err := openSpool(t.Context(), w.cfg, w.id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if s, err := StatusOf(t.Context(), w.cfg); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("%+v, %v", s, err)
	}
}

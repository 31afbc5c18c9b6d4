package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cavra/cavra/sdk/chain"
)

// crashVariable makes the test program a writer on the store of that path.
const crashVariable = "CAVRA_CONTROL_CRASH_STORE"

func TestMain(m *testing.M) {
	path := os.Getenv(crashVariable)
	if path == "" {
		m.Run() // its result is the program's when TestMain returns
		return
	}
	if err := writeForever(path); err != nil {
		fmt.Fprintln(os.Stderr, err) // which fails the test that started this
	}
}

// writeForever takes in a chain whose statement i is at offset i-1, and prints
// the offset after each commit, until it is killed.
func writeForever(path string) error {
	ctx := context.Background()
	s, err := Open(ctx, Config{Path: path})
	if err != nil {
		return err
	}
	agents, err := s.Fleet(ctx, "acme")
	if err != nil || len(agents) != 1 {
		return errors.Join(fmt.Errorf("%d agents", len(agents)), err)
	}
	id := ChainID{"acme", agents[0].ID, 1}
	for {
		p, next, err := s.OpenPlan(ctx, "statements", 3)
		if err != nil {
			return err
		}
		if p == nil {
			p = plan("a", next, next+1+next%7)
			if err := s.RecordPlan(ctx, p); err != nil {
				return err
			}
		}
		u := ChainUpdate{ID: id}
		for o := p.From; o < p.Next; o++ {
			u.Statements = append(u.Statements, Placed{Link: link(uint64(o) + 1), Outcome: chain.Linked})
		}
		if err := s.CommitPlan(ctx, p, []ChainUpdate{u}); err != nil {
			return err
		}
		if _, err := fmt.Println(p.Next); err != nil {
			return err
		}
	}
}

// Kill -9 at any moment: what was said to be committed is there, the offset and
// the chain agree, and the next process goes on.
func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.db")
	s, err := Open(t.Context(), Config{Path: path})
	must(t, err)
	must(t, s.CreateTenant(t.Context(), "acme", "Acme"))
	id := enrol(t, s, "acme")
	must(t, s.Close())
	said := int64(0)
	for range 12 {
		said = max(said, killWriter(t, path))
		s, err := Open(t.Context(), Config{Path: path})
		must(t, err)
		open, next, err := s.OpenPlan(t.Context(), "statements", 3)
		must(t, err)
		chains, err := s.Chains(t.Context(), "acme")
		must(t, err)
		if next < said {
			t.Errorf("committed up to %d, but it was said to be %d", next, said)
		}
		if open != nil && open.From != next {
			t.Errorf("the open plan begins at %d, want %d", open.From, next)
		}
		want := chain.Head{Sequence: uint64(next), Digest: digest(strconv.FormatInt(next, 10))}
		if next > 0 && (len(chains) != 1 || chains[0].ID != id || chains[0].Head != want || chains[0].Highest != uint64(next) || chains[0].Forks+chains[0].Replays+chains[0].GapCount != 0) {
			t.Errorf("chains %+v, want the head %+v", chains, want)
		}
		must(t, s.Close())
	}
	if said == 0 {
		t.Error("nothing was ever committed, so that nothing was tested")
	}
}

// killWriter runs a writer, kills it after a random time, and returns the last
// offset that it said was committed.
func killWriter(t *testing.T, path string) int64 {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond+rand.N(200*time.Millisecond))
	defer cancel()
	cmd := exec.CommandContext(ctx, self) // its end is SIGKILL
	cmd.Env = append(os.Environ(), crashVariable+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	text, err := io.ReadAll(io.LimitReader(stdout, 1<<20))
	must(t, err)
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("the writer ended by itself: %v %s", err, stderr.String())
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 2 {
		return 0
	}
	// After the last line break there is at most half a number.
	n, err := strconv.ParseInt(lines[len(lines)-2], 10, 64)
	must(t, err)
	return n
}

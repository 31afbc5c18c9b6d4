package spool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/attest"
	"github.com/cavra/cavra/sdk/faultpoint"
	"github.com/cavra/cavra/sdk/identity"
)

// crashRole is the first argument of the process that is killed.
const crashRole = "crash-child"

// crashChild appends statements for good and publishes them to a file, until it
// is killed. What Append returned for goes to a ledger outside the spool.
func crashChild(args []string) error {
	dir, run := args[0], args[1]
	from, err := strconv.ParseUint(run, 10, 64)
	if err != nil {
		return err
	}
	return appendAndPublish(dir, from, true)
}

// appendAndPublish appends for good; the broker may be away.
func appendAndPublish(dir string, from uint64, broker bool) (err error) {
	k, err := identity.FromSeed([32]byte{1})
	if err != nil {
		return err
	}
	s, err := Open(Config{
		Dir: filepath.Join(dir, "spool"), Chain: Chain{Tenant: "default", Agent: "a-1", Epoch: 1}, Signer: k,
		Gate: gateFunc(parses), MaxBytes: MinMaxBytes, SegmentBytes: 60_000,
	}, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ledger, err := os.OpenFile(filepath.Join(dir, "ledger"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer ledger.Close() //nolint:errcheck // each line is judged by itself
	published, err := os.OpenFile(filepath.Join(dir, "broker"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer published.Close() //nolint:errcheck // each line is judged by itself
	group, ctx := errgroup.WithContext(context.Background())
	group.Go(func() error {
		if _, err := s.ReportLoss(ctx); err != nil && !errors.Is(err, ErrNotBegun) {
			return err
		}
		for id := from; ; {
			size := 1 + id%40
			if _, err := s.Append(ctx, beats(id, id+size-1)...); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(ledger, "\n%d-%d.", id, id+size-1); err != nil {
				return err
			}
			id += size
		}
	})
	group.Go(func() error {
		for broker {
			entries, err := s.Next(ctx, 30, 1<<20)
			if err != nil {
				return err
			}
			var b bytes.Buffer
			for _, e := range entries {
				fmt.Fprintf(&b, "\n%s.", base64.StdEncoding.EncodeToString(e.Envelope))
			}
			if _, err := published.Write(b.Bytes()); err != nil {
				return err
			}
			faultpoint.Hit("broker-acked")
			if err := s.Ack(entries[len(entries)-1].Place); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// lines reads what the child wrote; a line that a kill cut short does not count.
func lines(t *testing.T, name string) (out []string) {
	t.Helper()
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	r := bufio.NewScanner(f)
	r.Buffer(nil, 4<<20)
	for r.Scan() {
		if line, whole := strings.CutSuffix(r.Text(), "."); whole {
			out = append(out, line)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// judge holds what the broker got, and what is still in the spool, against the
// ledger.
func judge(t *testing.T, dir string) (statements int) {
	t.Helper()
	k := key(t, 1)
	at := map[uint64]sent{}
	var last uint64
	take := func(m sent) {
		if was, ok := at[m.Sequence]; ok && was.digest != m.digest {
			t.Fatalf("sequence %d is public twice: %s and %s", m.Sequence, was.digest, m.digest)
		}
		at[m.Sequence] = m
		last = max(last, m.Sequence)
	}
	for _, line := range lines(t, filepath.Join(dir, "broker")) {
		envelope, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		e, err := attest.Open(envelope)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := e.Verify(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		p, err := predicate.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		take(sent{Place{p.Place().Epoch, p.Place().Sequence}, e.Digest(), p, envelope})
	}
	broker, err := os.OpenFile(filepath.Join(dir, "broker"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, filepath.Join(dir, "spool"))
	cfg.MaxBytes, cfg.SegmentBytes = MinMaxBytes, 60_000
	s := mustOpen(t, cfg, false)
	for _, m := range drain(t, s, 100) {
		take(m)
		publish(t, broker, m.envelope)
	}
	mustClose(t, s)
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	all := make([]sent, 0, last)
	for n := uint64(1); n <= last; n++ {
		m, ok := at[n]
		if !ok {
			t.Fatalf("sequence %d of %d is missing", n, last)
		}
		all = append(all, m)
	}
	unbroken(t, all)
	have := map[uint64]bool{}
	for _, m := range all {
		if g, ok := m.p.(*predicate.Gap); ok {
			t.Errorf("a crash is no loss, but a gap statement says %+v", g)
		}
	}
	for _, id := range ids(all) {
		have[id] = true
	}
	for _, line := range lines(t, filepath.Join(dir, "ledger")) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%d-%d", &from, &to); err != nil {
			t.Fatal(err)
		}
		for id := from; id <= to; id++ {
			if !have[id] {
				t.Fatalf("statement %d was appended and is gone", id)
			}
		}
	}
	return len(all)
}

func publish(t *testing.T, broker *os.File, envelope []byte) {
	t.Helper()
	if _, err := fmt.Fprintf(broker, "\n%s.", base64.StdEncoding.EncodeToString(envelope)); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, binary, dir string, run int, point string) *exec.Cmd {
	t.Helper()
	c := exec.Command(binary, crashRole, dir, strconv.Itoa(run*1_000_000))
	c.Env = append(os.Environ(), "CAVRA_FAULTPOINT="+point)
	c.Stdout, c.Stderr = t.Output(), t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// TestKilledAtEveryMark dies at each place where a crash must lose nothing, at
// several passings, over one spool.
func TestKilledAtEveryMark(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "spool.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "faultpoint", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the armed test: %v\n%s", err, out)
	}
	dir := t.TempDir()
	run, before := 1, 0
	for _, n := range []int{1, 2, 17} {
		for _, mark := range []string{"sequence-allocated", "signed", "spool-written", "spool-synced", "broker-acked", "cursor-synced"} {
			if err := start(t, binary, dir, run, fmt.Sprintf("%s:%d", mark, n)).Wait(); !killed(err) {
				t.Fatalf("armed at %s, passing %d: ended with %v", mark, n, err)
			}
			run++
		}
		now := judge(t, dir)
		if now <= before {
			t.Errorf("%d statements after %d", now, before)
		}
		before = now
	}
	t.Logf("%d kills, %d statements", run-1, before)
}

// TestKilledAtRandom kills the process at any time, sometimes while it recovers.
func TestKilledAtRandom(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(7, 7))
	kills, statements := long(t, 40, 1000), 0
	for run := 1; run <= kills; run++ {
		c := start(t, exe, dir, run, "")
		timer := time.AfterFunc(time.Duration(5+rnd.IntN(120))*time.Millisecond, func() { _ = c.Process.Kill() })
		err := c.Wait()
		timer.Stop()
		if !killed(err) {
			t.Fatalf("run %d ended with %v", run, err)
		}
		if run%10 == 0 {
			statements = judge(t, dir)
		}
	}
	t.Logf("%d kills, %d statements", kills, statements)
	if statements < 200 {
		t.Errorf("only %d statements were made", statements)
	}
}

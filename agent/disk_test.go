package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/plugin"
)

func TestOnlyTheFoldersOwnDiskCounts(t *testing.T) {
	at := func(name string, errno unix.Errno) error { return &fs.PathError{Op: "sync", Path: name, Err: errno} }
	for _, c := range []struct {
		err  error
		want string // how the words begin; none for another matter
	}{
		{fmt.Errorf("append: %w", at("/agent/spool/1.seg", unix.EIO)), "the disk of /agent/ fails: "},
		{errors.Join(errors.New("the round ended"), fmt.Errorf("lock: %w", at("/agent/spool/lock", unix.EROFS))), "the disk of /agent/ is read-only: "},
		{&os.LinkError{Op: "rename", Old: "/agent/x.tmp", New: "/agent/x", Err: unix.ENOSPC}, "the disk of /agent/ is full: "},
		{at("/agent/spool", unix.EDQUOT), "the disk of /agent/ has no quota left: "},
		{at("/models/a.pkl", unix.EIO), ""},
		{at("/agents/spool", unix.EIO), ""},
		{at("/agent/identity.json", unix.ENOENT), ""},
		{fmt.Errorf("start scanners: %w", unix.ENOSPC), ""}, // as the kernel says when there are too many namespaces
		{plugin.ErrSandbox, ""},
		{nil, ""},
	} {
		got := ""
		if e := diskError("/agent/", c.err); e != nil {
			got = e.Error()
		}
		if !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}

// TestOnceGivesUp: one round with brokers that are away ends in time, says so, and
// keeps what it has signed; the next one sends it.
func TestOnceGivesUp(t *testing.T) {
	w := newWorld(t)
	w.looksAfter(t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := Once(ctx, w.cfg, time.Second)
	if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "gave up after 1s") || !strings.Contains(err.Error(), "statements are signed and wait in the spool") {
		t.Fatal(err)
	}
	if s := w.status(); s.Waiting == 0 || s.Waiting != s.Sequence {
		t.Errorf("%d of %d statements wait", s.Waiting, s.Sequence)
	}
	w.startBroker()
	if err := Once(ctx, w.cfg, time.Second); err != nil {
		t.Fatal(err)
	}
	if s := w.status(); s.Waiting != 0 {
		t.Errorf("%d statements wait", s.Waiting)
	}
}

// TestKeepPutsAsideWhatIsDamaged: bytes that turn bad under a running agent are put
// aside and told of, and it goes on without anybody.
func TestKeepPutsAsideWhatIsDamaged(t *testing.T) {
	w := newWorld(t)
	w.looksAfter(t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Keep(ctx, w.cfg) }()
	eventually(t, "statements wait", func() bool { s := w.status(); return s.Running > 0 && s.Sequence > 2 })
	segments, err := filepath.Glob(filepath.Join(w.cfg.Dir, SpoolDir, "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	// The publisher has the first statement in its hands; the last one is damaged.
	info, err := os.Stat(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := w.status().Sequence
	f, err := os.OpenFile(segments[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("bad"), info.Size()-50); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.startBroker()
	eventually(t, "the rest is published", func() bool {
		s := w.status()
		return s.Running > 0 && s.Waiting == 0 && s.Acknowledged.Sequence == s.Sequence && s.Sequence > 0
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if slices.Contains(w.sequences(), bad) {
		t.Error("what was damaged was published")
	}
	told, err := filepath.Glob(filepath.Join(w.cfg.Dir, SpoolDir, "*.corrupt.told"))
	if err != nil || len(told) == 0 {
		t.Errorf("told losses: %v, %v", told, err)
	}
}

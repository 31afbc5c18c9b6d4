package clickhouse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// enginePID is the engine's process, by its own word.
func enginePID(tb testing.TB, e *running) int {
	return int(value[uint32](tb, e.conn, "SELECT toUInt32(splitByChar(' ', line)[1]) FROM file('/proc/self/stat', 'LineAsString')"))
}

// waitGone waits until a process that is not our child has ended.
func waitGone(tb testing.TB, pid int) {
	tb.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			tb.Fatalf("process %d still lives: %v", pid, err)
		}
		return
	}
}

// TestKilledEngine kills the engine at random points of a stream of inserts.
// Every acknowledged row is there afterwards, and none twice in effect.
func TestKilledEngine(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = ReplacingMergeTree ORDER BY n")
	const kills, rowsPerInsert = 5, 1000
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var acknowledged atomic.Uint64
	group, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	group.Go(func() error {
		for n := uint64(0); ; n++ {
			select {
			case <-done:
				return nil
			default:
			}
			// As ingest does: the same rows until the insert is acknowledged.
			insert := fmt.Sprintf("INSERT INTO t SELECT %d + number FROM numbers(%d)", n*rowsPerInsert, rowsPerInsert)
			for e.conn.Exec(ctx, insert) != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			acknowledged.Add(rowsPerInsert)
		}
	})
	group.Go(func() error {
		defer close(done)
		for range kills {
			pid := enginePID(t, e)
			before := acknowledged.Load()
			for acknowledged.Load() < before+10*rowsPerInsert {
				if _, err := e.Addr(ctx); err != nil {
					return err
				}
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return err
			}
			waitGone(t, pid)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	got := value[uint64](t, e.conn, "SELECT count() FROM t FINAL")
	distinct := value[uint64](t, e.conn, "SELECT uniqExact(n) FROM t")
	if want := acknowledged.Load(); got != want || distinct != want {
		t.Errorf("%d rows acknowledged, %d there, %d of them distinct", want, got, distinct)
	}
}

// TestKilledParent shows that the engine ends with its parent, that what it
// acknowledged is there, and that what was being inserted leaves no litter.
func TestKilledParent(t *testing.T) {
	dir := t.TempDir()
	parent := exec.Command("/proc/self/exe", roleParent, dir)
	parent.Stderr = t.Output()
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(io.LimitReader(output, 100)).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, child)
	if err := parent.Wait(); err == nil {
		t.Error("parent ended before it was killed")
	}
	litter := filepath.Join(dir, "incoming", "insert-1")
	if err := os.WriteFile(litter, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := startEngine(t, testConfig(t, dir))
	if n := value[uint64](t, e.conn, "SELECT count() FROM d.t"); n != 1000 {
		t.Errorf("1000 rows acknowledged, %d there", n)
	}
	if _, err := os.Stat(litter); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the body of a killed insert is still there: %v", err)
	}
}

func TestStopAndStartAgain(t *testing.T) {
	dir := t.TempDir()
	e := startEngine(t, testConfig(t, dir))
	e.exec(t, "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n", "INSERT INTO t VALUES (1)")
	e.stop()
	if _, err := e.Addr(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("address of a stopped engine: %v", err)
	}
	e = startEngine(t, testConfig(t, dir))
	if n := value[uint64](t, e.conn, "SELECT count() FROM t"); n != 1 {
		t.Errorf("got %d rows", n)
	}
}

// TestInsertIsSynced asks the engine's own counters: an acknowledged insert
// has synced its files and its folders, and FastUnsafe has not.
func TestInsertIsSynced(t *testing.T) {
	for _, fast := range []bool{false, true} {
		t.Run(fmt.Sprintf("fast=%t", fast), func(t *testing.T) {
			cfg := testConfig(t, t.TempDir())
			cfg.FastUnsafe = fast
			e := startEngine(t, cfg)
			e.exec(t, "CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
			synced := func(what string) uint64 {
				return value[uint64](t, e.conn, "SELECT sum(value) FROM system.events WHERE event = ?", what)
			}
			files, folders := synced("FileSync"), synced("DirectorySync")
			e.exec(t, "INSERT INTO t VALUES (1, 'a')")
			files, folders = synced("FileSync")-files, synced("DirectorySync")-folders
			if got := files > 0 && folders > 0; got == fast {
				t.Errorf("an insert synced %d files and %d folders", files, folders)
			}
		})
	}
}

func TestSecretsAreNotVisible(t *testing.T) {
	e := startEngine(t, testConfig(t, t.TempDir()))
	_, password := e.Credentials()
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", enginePID(t, e), name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(password)) {
			t.Errorf("the password is in the child's %s", name)
		}
	}
}

func TestGoKeepsItsSignalHandlers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/proc/self/exe", roleNilPointer, t.TempDir()).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("nil pointer dereference")) {
		t.Errorf("a nil dereference beside the engine: %v\n%s", err, out)
	}
}

func TestStartErrors(t *testing.T) {
	library := libraryPath(t)
	inUse := t.TempDir()
	startEngine(t, testConfig(t, inUse))
	write := func(content []byte) string {
		path := filepath.Join(t.TempDir(), "libchdb.so")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// An ELF header for 64-bit ARM, by the System V ABI.
	arm := make([]byte, 64)
	copy(arm, "\x7fELF\x02\x01\x01")
	arm[16], arm[18], arm[20], arm[52] = 3, 183, 1, 64
	file := write(nil)
	for _, tt := range []struct {
		name, dir, library string
		is                 error
		says               string
	}{
		{"missing library", t.TempDir(), "/nonexistent/libchdb.so", ErrLibrary, "run `make engine`"},
		{"not a library", t.TempDir(), write([]byte("text")), ErrLibrary, "not a shared library"},
		{"wrong architecture", t.TempDir(), write(arm), ErrLibrary, "built for aarch64"},
		{"another library", t.TempDir(), "/proc/self/exe", ErrLibrary, ""},
		{"folder in use", inUse, library, ErrInUse, "another aggregator runs on " + inUse},
		{"folder is a file", file, library, nil, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t, tt.dir)
			cfg.Library = tt.library
			e, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = e.Run(ctx)
			if tt.is != nil && !errors.Is(err, tt.is) || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
			if _, err := e.Addr(ctx); !errors.Is(err, ErrStopped) {
				t.Errorf("address after that: %v", err)
			}
		})
	}
}

func TestRunChildByHand(t *testing.T) {
	out, err := exec.Command("/proc/self/exe", ChildCommand).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("is started by the aggregator")) {
		t.Errorf("got %v\n%s", err, out)
	}
}

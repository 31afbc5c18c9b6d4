package plugin

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/finding"
	"github.com/cavra/cavra/sdk/scanner"
)

func TestStartsThatFail(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		is   error
		says string
	}{
		"exits":          {[]string{"exit"}, nil, "shake hands"},
		"hangs":          {[]string{"hang"}, context.DeadlineExceeded, "no connection within"},
		"talks nonsense": {[]string{"garbage"}, nil, `garbage garbage`},
		"points away":    {[]string{"elsewhere"}, nil, "not in the plugin's folder"},
		"never accepts":  {[]string{"silent", base64.RawStdEncoding.EncodeToString(der)}, context.DeadlineExceeded, "no connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Launch(t.Context(), Config{Path: self(t), StartTimeout: time.Second, args: tt.args})
			if err == nil {
				t.Fatal("started", p.Close())
			}
			if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 2048 {
				t.Errorf("error %.2048v", err)
			}
		})
	}
}

func TestStartIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	cancel(why)
	if p, err := Launch(ctx, Config{Path: self(t), args: []string{"hang"}}); !errors.Is(err, why) {
		t.Fatal(p, err)
	}
}

func TestProgramIsTheOneThatWasMeasured(t *testing.T) {
	b, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
	digest := predicate.DigestOf(b)
	loaded, err := Load(path, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	p, err := Launch(t.Context(), Config{Path: path, Digest: digest, args: []string{"scanner"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Digest() != digest {
		t.Errorf("digest %s, want %s", p.Digest(), digest)
	}
	// What the file becomes does not matter to the process, and does to the next.
	if err := os.WriteFile(path, append(b, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Scanner(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = Launch(t.Context(), Config{Path: path, Digest: digest, args: []string{"scanner"}})
	var wrong *DigestError
	if !errors.As(err, &wrong) || wrong.Want != string(digest) {
		t.Errorf("the changed program: %v", err)
	}
	for range 2 {
		again, err := Launch(t.Context(), Config{Program: loaded, args: []string{"scanner"}})
		if err != nil || again.Digest() != digest {
			t.Fatal("the program that was loaded before: ", err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, content := range map[string]string{"script": "#!/bin/sh\n", "empty": ""} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Launch(t.Context(), Config{Path: path}); err == nil || !strings.Contains(err.Error(), "not an ELF program") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Launch(t.Context(), Config{Path: t.TempDir()}); err == nil {
		t.Error("a folder was started")
	}
}

func TestSealedProgramCannotBeChanged(t *testing.T) {
	mem, _, err := seal(self(t), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if _, err := mem.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
}

func TestKindsAreTold(t *testing.T) {
	var broke *ContractError
	if _, err := launch(t, "connector").Scanner(t.Context()); !errors.As(err, &broke) {
		t.Errorf("a connector as a scanner: %v", err)
	}
	if _, err := launch(t, "scanner").Connector(t.Context()); !errors.As(err, &broke) {
		t.Errorf("a scanner as a connector: %v", err)
	}
}

func TestRulesMustBeInTheCatalogue(t *testing.T) {
	c, err := finding.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Launch(t.Context(), Config{Path: self(t), Catalogue: c, args: []string{"badrules"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var broke *ContractError
	if _, err := p.Scanner(t.Context()); !errors.As(err, &broke) {
		t.Errorf("error %v", err)
	}
}

func TestCloseEndsTheGroup(t *testing.T) {
	p := launch(t, "grandchild")
	if _, err := p.Scanner(t.Context()); err != nil {
		t.Fatal(err)
	}
	var grandchild int
	if _, err := fmt.Sscanf(p.Stderr(), "grandchild %d", &grandchild); err != nil {
		t.Fatal(p.Stderr(), err)
	}
	began := time.Now()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("closing took %s", d)
	}
	gone(t, grandchild)
	if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder is left: %v", err)
	}
	s := &Scanner{process: p}
	if err := s.process.fault(t.Context(), errors.New("any")); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
}

// gone waits until a process is dead: reaped, or a zombie that waits for init.
func gone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is alive", pid)
}

// TestKilledHostLeavesNoOrphan starts itself as a host and kills that.
func TestKilledHostLeavesNoOrphan(t *testing.T) {
	if os.Getenv("PLUGIN_TEST_HOST") != "" {
		p, err := Launch(t.Context(), Config{Path: self(t), args: []string{"scanner"}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("plugin", p.child.ID())
		forever()
	}
	cmd := exec.Command(self(t), "-test.run=^TestKilledHostLeavesNoOrphan$", "-test.v")
	cmd.Env = []string{"PLUGIN_TEST_HOST=1"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(io.LimitReader(out, 1<<16)); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "plugin %d", &pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if pid == 0 {
		t.Fatal("the host started no plugin")
	}
	gone(t, pid)
}

func TestStartedByHand(t *testing.T) {
	if err := ServeScanner(testScanner{}); !errors.Is(err, ErrNotLaunched) {
		t.Errorf("error %v", err)
	}
}

// TestUndumpableHost makes sure that a host which nobody may trace can still
// execute what it sealed.
func TestUndumpableHost(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	s := launchScanner(t, "scanner")
	if _, err := s.Scan(t.Context(), scanner.Target{Path: "any", Content: file(t, blob(1<<20))}); err != nil {
		t.Error(err)
	}
}

// TestStartWithProgramAboveAll starts a program whose descriptor has the number to
// which a process's own are moved before it is executed.
func TestStartWithProgramAboveAll(t *testing.T) {
	loaded, err := Load(self(t), "")
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	const high = 400
	at := func(f *os.File, n int) *os.File {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, n)
		if err != nil || fd != n {
			t.Fatalf("descriptor %d, want %d: %v", fd, n, err)
		}
		return os.NewFile(uintptr(fd), f.Name())
	}
	socket, program := at(theirs, high), at(loaded.sealed, high+1)
	defer socket.Close()
	defer program.Close()
	c, err := newChild(launcher{program: program, sockets: []*os.File{socket}, args: []string{"scanner"}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	<-c.exited
}

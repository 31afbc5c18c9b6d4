package plugin

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/scanner"
)

// settledAttempts are what a plugin may do no more when its host has connected, even
// without its host's sandbox.
var settledAttempts = []attempt{
	{"a socket", unix.EPERM, func(int, string) error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
	{"a socket of the Internet", unix.EPERM, func(int, string) error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err }},
	{"a pair of sockets", unix.EPERM, func(int, string) error {
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return err
	}},
	{"to connect one", unix.EPERM, func(int, string) error { return trap(unix.SYS_CONNECT, 3, 0, 0) }},
	{"to bind one", unix.EPERM, func(int, string) error { return trap(unix.SYS_BIND, 3, 0, 0) }},
	{"to listen", unix.EPERM, func(int, string) error { return unix.Listen(3, 1) }},
	{"to accept", unix.EAGAIN, func(int, string) error { return trap(unix.SYS_ACCEPT4, 3, 0, 0, 0) }},
	{"another program", unix.EPERM, func(int, string) error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
	{"a process", unix.EPERM, func(int, string) error { return trap(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) }},
	{"a process as os/exec makes one", unix.EPERM, func(int, string) error {
		return trap(unix.SYS_CLONE, uintptr(unix.CLONE_VFORK|unix.CLONE_VM|int(unix.SIGCHLD)))
	}},
	{"leaving the group", unix.EPERM, func(int, string) error { return unix.Setpgid(0, 0) }},
	{"another filter", unix.EPERM, func(int, string) error {
		return trap(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, 0)
	}},
}

// trySettled tries from a thread that the filter did not begin on.
func trySettled() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, a := range settledAttempts {
			errno, _ := a.try(0, "").(unix.Errno)
			fmt.Fprintf(os.Stderr, "%s=%d\n", a.name, int(errno))
		}
	}()
	<-done
}

// TestServeGivesUpWhatItNoLongerNeeds has a plugin try, while it serves, what only its
// start needed; and has it serve on, although somebody else knocks.
func TestServeGivesUpWhatItNoLongerNeeds(t *testing.T) {
	for _, mode := range []Sandbox{SandboxOff, SandboxRequire} {
		t.Run(string(mode), func(t *testing.T) {
			var p *Process
			var err error
			if mode == SandboxRequire {
				p, err = launchSandboxed(t, "scanner")
			} else {
				p = launch(t, "scanner")
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.Scanner(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Scan(t.Context(), scanner.Target{Path: "settled", Content: memory(nil)}); err != nil {
				t.Fatal(err)
			}
			rows := []row{}
			heard := hear(t, p, "another filter=")
			for _, a := range settledAttempts {
				if !strings.Contains(heard, fmt.Sprintf("%s=%d\n", a.name, int(a.want))) {
					t.Errorf("%s: want %v of\n%s", a.name, a.want, heard)
				}
				rows = append(rows, row{a.name, a.want.Error(), "Serve's own filter"})
			}
			table(t, rows)
			knock(t, p)
			for range 3 {
				bytesReach(t, s)
			}
		})
	}
}

// hear waits for words on a plugin's standard error, which come on their own way, and
// returns all of it.
func hear(t *testing.T, p *Process, words string) string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(10 * time.Second); !strings.Contains(p.Stderr(), words); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("want %q of\n%s", words, p.Stderr())
		}
	}
	return p.Stderr()
}

// knock connects to the plugin's socket, which is never answered.
func knock(t *testing.T, p *Process) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(p.dir, "*"))
	if err != nil || len(sockets) != 1 {
		t.Fatal(sockets, err)
	}
	c, err := net.Dial("unix", sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("somebody else is served: %d bytes", n)
	}
}

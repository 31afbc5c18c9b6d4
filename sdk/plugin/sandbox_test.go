package plugin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
)

// attempt is what a plugin tries before it serves, and what stops it.
type attempt struct {
	name string
	want unix.Errno
	try  func(host int, dir string) error
}

func trap(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func socket(domain, kind int) func(int, string) error {
	return func(int, string) error {
		_, err := unix.Socket(domain, kind, 0)
		return err
	}
}

func open(name func(host int, dir string) string, flags int) func(int, string) error {
	return func(host int, dir string) error {
		_, err := unix.Open(name(host, dir), flags, 0o600)
		return err
	}
}

// attempts are routes out of the process, to others and to the machine. None does
// harm where it succeeds.
var attempts = []attempt{
	{"a socket of the Internet", unix.EPERM, socket(unix.AF_INET, unix.SOCK_STREAM)},
	{"a socket of datagrams", unix.EPERM, socket(unix.AF_INET6, unix.SOCK_DGRAM)},
	{"a raw socket", unix.EPERM, socket(unix.AF_PACKET, unix.SOCK_RAW)},
	{"a socket of the kernel", unix.EPERM, socket(unix.AF_NETLINK, unix.SOCK_RAW)},
	{"a socket of the hypervisor", unix.EPERM, socket(unix.AF_VSOCK, unix.SOCK_STREAM)},
	{"a message to the machine's log", unix.EPERM, socket(unix.AF_UNIX, unix.SOCK_DGRAM)},
	{"another program's socket", unix.EPERM, func(_ int, dir string) error { return dial(dir + "/socket") }},
	{"another program's abstract socket", unix.EPERM, func(_ int, dir string) error { return dial("@" + dir) }},
	{"a ring of calls", unix.EPERM, func(int, string) error { return trap(unix.SYS_IO_URING_SETUP, 1, 0) }},
	{"a file of the host's", unix.EACCES, open(func(_ int, dir string) string { return dir + "/key" }, unix.O_RDONLY)},
	{"a file to write", unix.EACCES, open(func(_ int, dir string) string { return dir + "/left" }, unix.O_WRONLY|unix.O_CREAT)},
	{"an open file once more", unix.EACCES, open(func(int, string) string { return "/proc/self/fd/0" }, unix.O_RDWR)},
	{"the host's environment", unix.EACCES, open(func(host int, _ string) string { return "/proc/" + strconv.Itoa(host) + "/environ" }, unix.O_RDONLY)},
	{"the host's memory by a file", unix.EACCES, open(func(host int, _ string) string { return "/proc/" + strconv.Itoa(host) + "/mem" }, unix.O_RDWR)},
	{"the host's memory by a call", unix.EPERM, func(host int, _ string) error { return trap(unix.SYS_PROCESS_VM_READV, uintptr(host)) }},
	{"tracing the host", unix.EPERM, func(host int, _ string) error { return unix.PtraceAttach(host) }},
	{"a signal to the host", unix.EPERM, func(host int, _ string) error { return unix.Kill(host, 0) }},
	{"a signal to a thread of the host", unix.EPERM, func(host int, _ string) error { return unix.Tgkill(host, host, unix.SIGTERM) }},
	{"a signal to the host by a descriptor", unix.EPERM, func(host int, _ string) error {
		_, err := unix.FcntlInt(0, unix.F_SETOWN, host)
		return err
	}},
	{"the host's limits", unix.EPERM, func(host int, _ string) error {
		return unix.Prlimit(host, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}, nil)
	}},
	{"a handle of the host", unix.EPERM, func(host int, _ string) error { return trap(unix.SYS_PIDFD_OPEN, uintptr(host), 0) }},
	{"another program", unix.EACCES, func(int, string) error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
	{"a program made in memory", unix.EPERM, func(int, string) error { _, err := unix.MemfdCreate("x", 0); return err }},
	{"a process of its own", unix.EPERM, func(int, string) error { return trap(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) }},
	{"leaving the group", unix.EPERM, func(int, string) error { _, err := unix.Setsid(); return err }},
	{"a namespace", unix.EPERM, func(int, string) error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"a mount", unix.EPERM, func(int, string) error { return unix.Mount("none", "/", "tmpfs", 0, "") }},
	{"a program in the kernel", unix.EPERM, func(int, string) error { return trap(unix.SYS_BPF, 0) }},
	{"the machine's counters", unix.EPERM, func(int, string) error { return trap(unix.SYS_PERF_EVENT_OPEN) }},
	{"the keyring", unix.EPERM, func(int, string) error { return trap(unix.SYS_ADD_KEY) }},
	{"faults handled by itself", unix.EPERM, func(int, string) error { return trap(unix.SYS_USERFAULTFD) }},
	{"more memory than is given", unix.ENOMEM, func(int, string) error {
		_, err := unix.Mmap(-1, 0, 9<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	}},
	{"more files than are given", unix.EMFILE, func(int, string) error {
		var opened []int
		defer func() {
			for _, fd := range opened {
				_ = unix.Close(fd)
			}
		}()
		for range 2 * folderFiles {
			fd, err := unix.Dup(0)
			if err != nil {
				return err
			}
			opened = append(opened, fd)
		}
		return nil
	}},
}

// readerAttempts are those of a plugin that may read a folder: dir's "models".
var readerAttempts = []attempt{
	{"a file that it may read", 0, open(func(_ int, dir string) string { return dir + "/models/a" }, unix.O_RDONLY)},
	{"the same through /proc", 0, func(_ int, dir string) error {
		fd, err := unix.Open(dir+"/models/a", unix.O_PATH, 0)
		if err != nil {
			return err
		}
		_, err = unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY, 0)
		return err
	}},
	{"a file that it may read, to write", unix.EACCES, open(func(_ int, dir string) string { return dir + "/models/a" }, unix.O_RDWR)},
	{"a file beside it, to write", unix.EACCES, open(func(_ int, dir string) string { return dir + "/models/b" }, unix.O_WRONLY|unix.O_CREAT)},
	{"a link out of the folder", unix.EACCES, open(func(_ int, dir string) string { return dir + "/models/link" }, unix.O_RDONLY)},
	{"removing a file", unix.EACCES, func(_ int, dir string) error { return unix.Unlink(dir + "/models/a") }},
	{"a file by its handle", unix.EPERM, func(int, string) error { return trap(unix.SYS_OPEN_BY_HANDLE_AT) }},
	{"another root", unix.EPERM, func(int, string) error { return unix.Chroot("/") }},
	{"another user", unix.EPERM, func(int, string) error { return trap(unix.SYS_SETUID, 1) }},
	{"privileges", unix.EPERM, func(int, string) error { return trap(unix.SYS_CAPSET) }},
}

func dial(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("no socket: %w", err)
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// hostile tries everything, says to the host's ear what came of it, and serves.
func hostile(host, dir string) error {
	pid, err := strconv.Atoi(host)
	if err != nil {
		return err
	}
	for _, a := range append(attempts, readerAttempts...) {
		err := a.try(pid, dir)
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s=%d\n", a.name, int(errno))
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "PLUGIN_") && name != handshake.MagicCookieKey {
			fmt.Fprintf(os.Stderr, "environment: %s\n", name)
		}
	}
	fmt.Fprintln(os.Stderr, "all was tried")
	return ServeScanner(testScanner{})
}

// otherMachine makes a call by the numbers of x32.
func otherMachine() { _ = trap(0x40000000|uintptr(unix.SYS_GETPID), uintptr(unsafe.Pointer(nil))) }

// launchSandboxed launches a role under a sandbox that is required, or skips where
// this machine has none.
func launchSandboxed(t *testing.T, args ...string) (*Process, error) {
	t.Helper()
	return launchReader(t, nil, args...)
}

// launchReader is launchSandboxed for a plugin that may read something.
func launchReader(t *testing.T, reads []string, args ...string) (*Process, error) {
	t.Helper()
	p, err := Launch(t.Context(), Config{Path: self(t), Sandbox: SandboxRequire, Reads: reads, args: args})
	if errors.Is(err, ErrSandbox) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if p != nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, err
}

// TestSandbox has a plugin try every route before it serves: none leads anywhere,
// and it serves all the same.
func TestSandbox(t *testing.T) {
	dir := hostileFolder(t)
	stopped(t, tryAll(t, dir, nil), attempts)
}

// TestSandboxOfReader has a plugin that may read a folder try the same, and to
// read, write and reach what is beside it.
func TestSandboxOfReader(t *testing.T) {
	dir := hostileFolder(t)
	heard := tryAll(t, dir, []string{filepath.Join(dir, "models"), filepath.Join(dir, "absent")})
	stopped(t, heard, append(attempts, readerAttempts...))
}

// TestSandboxWithoutNamespaces has a plugin try the same where no namespaces can be
// made: the other layers stop it.
func TestSandboxWithoutNamespaces(t *testing.T) {
	dir := hostileFolder(t)
	p, err := Launch(t.Context(), Config{
		Path: self(t), Sandbox: SandboxBestEffort, without: []predicate.Layer{predicate.LayerNetwork}, args: []string{"hostile", strconv.Itoa(os.Getpid()), dir},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	want := []predicate.Layer{predicate.LayerEmptyEnv, predicate.LayerLandlock, predicate.LayerNoNewPrivs, predicate.LayerProcess, predicate.LayerRlimits, predicate.LayerSeccomp}
	if got := p.Layers(); !slices.Equal(got, want) {
		if os.Getenv("CI") == "" {
			t.Skipf("layers %v", got)
		}
		t.Errorf("layers %v, want %v", got, want)
	}
	stopped(t, hear(t, p, "all was tried"), attempts)
}

// hostileFolder has what an agent has: a key, and models beside it.
func hostileFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"key", "models/a"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil { //nolint:gosec // to be read by anybody
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o644); err != nil { //nolint:gosec // to be read by anybody
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../key", filepath.Join(dir, "models", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// stopped holds attempts to what should come of them.
func stopped(t *testing.T, heard string, attempts []attempt) {
	t.Helper()
	rows := []row{}
	for _, a := range attempts {
		outcome := "allowed"
		if a.want != 0 {
			outcome = a.want.Error()
		}
		if !strings.Contains(heard, fmt.Sprintf("%s=%d\n", a.name, int(a.want))) {
			t.Errorf("%s: want %s of:\n%s", a.name, outcome, heard)
		}
		by := map[unix.Errno]string{0: "(may)", unix.EPERM: "seccomp", unix.EACCES: "landlock", unix.ENOMEM: "rlimits", unix.EMFILE: "rlimits"}[a.want]
		rows = append(rows, row{a.name, outcome, by})
	}
	table(t, rows)
}

// tryAll launches the hostile plugin, and returns what it says came of its attempts.
func tryAll(t *testing.T, dir string, reads []string) string {
	t.Helper()
	t.Setenv("A_SECRET_OF_THE_HOST", "secret")
	for _, name := range []string{dir + "/socket", "@" + dir} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	p, err := launchReader(t, reads, "hostile", strconv.Itoa(os.Getpid()), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []predicate.Layer{predicate.LayerEmptyEnv, predicate.LayerLandlock, predicate.LayerNetwork, predicate.LayerNoNewPrivs, predicate.LayerProcess, predicate.LayerRlimits, predicate.LayerSeccomp}
	if got := p.Layers(); !slices.Equal(got, want) {
		t.Errorf("layers %v, want %v", got, want)
	}
	s, err := p.Scanner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Describe(); d.Name != "test" {
		t.Errorf("it describes itself as %+v", d)
	}
	status, err := os.ReadFile("/proc/" + p.child.ID() + "/status")
	if err != nil {
		t.Fatal(err)
	}
	privileges := uint64(0) // none in a user namespace of its own
	if reads != nil && os.Geteuid() == 0 {
		privileges = 1 << unix.CAP_DAC_READ_SEARCH
	}
	if want := fmt.Sprintf("CapEff:\t%016x\n", privileges); !strings.Contains(string(status), want) {
		t.Errorf("want %q of\n%s", want, status)
	}
	heard := hear(t, p, "all was tried")
	if strings.Contains(heard, "environment:") {
		t.Errorf("it says:\n%s", heard)
	}
	return heard
}

// TestSandboxKillsForeignCalls has a plugin call by another machine's numbers.
func TestSandboxKillsForeignCalls(t *testing.T) {
	if machine != unix.AUDIT_ARCH_X86_64 {
		t.Skip("x32 is of another machine")
	}
	_, err := launchSandboxed(t, "foreign")
	var crash *CrashError
	if err == nil || !errors.As(err, &crash) || crash.Signal != unix.SignalName(syscall.SIGSYS) {
		t.Errorf("it ended as %v", err)
	}
}

// TestSandboxedWorks passes a scanner what it needs: an artifact, and messages.
func TestSandboxedWorks(t *testing.T) {
	p, err := launchSandboxed(t, "scanner")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Scanner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bytesReach(t, s)
}

func BenchmarkSandbox(b *testing.B) {
	for _, mode := range []Sandbox{SandboxOff, SandboxRequire} {
		b.Run(string(mode), func(b *testing.B) {
			program, err := Load(self(b), "")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = program.Close() }()
			for b.Loop() {
				p, err := Launch(b.Context(), Config{Program: program, Sandbox: mode, args: []string{"scanner"}})
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

//go:build hostile

package plugin

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
)

// foreign is an attempt of a program in C or assembly, and what stops it.
type foreign struct {
	name, what string
	// want is how it ends: "allowed", an error's name, or what ended the process.
	want string
	// by are the layers that stop it, the first before the others: without them, the
	// attempt ends otherwise.
	by []predicate.Layer
	// free is how it ends without a sandbox; empty where that is not tried, since it
	// would do harm, or since it says nothing.
	free string
	// assembly is a program without a C library.
	assembly bool
}

const killed = "SIGSYS"

var (
	filters = []predicate.Layer{predicate.LayerSeccomp}
	lock    = []predicate.Layer{predicate.LayerLandlock}
	limited = []predicate.Layer{predicate.LayerRlimits}
	// Without privileges in a namespace of its own, the kernel refuses it as well.
	filtersThenSpaces = []predicate.Layer{predicate.LayerSeccomp, predicate.LayerNetwork}
	spacesThenFilters = []predicate.Layer{predicate.LayerNetwork, predicate.LayerSeccomp}
	lockThenSpaces    = []predicate.Layer{predicate.LayerLandlock, predicate.LayerNetwork}
)

var foreigners = []foreign{
	{"int 0x80, in assembly", "i", killed, filters, "allowed", true},
	{"int 0x80 from 32-bit code, in assembly", "c", killed, filters, "allowed", true},
	{"a call by x32's number, in assembly", "x", killed, filters, "allowed", true},
	{"io_uring_setup, in assembly", "r", "EPERM", filters, "allowed", true},
	{"a TCP socket, in assembly", "s", "EPERM", filters, "allowed", true},
	{"fork, in assembly", "f", "EPERM", filters, "allowed", true},
	{"a call that no kernel has, in assembly", "n", "EPERM", filters, "ENOSYS", true},

	{"a TCP socket", "tcp", "EPERM", filters, "allowed", false},
	{"an MPTCP socket", "mptcp", "EPERM", filters, "", false},
	{"a UDP socket", "udp", "EPERM", filters, "allowed", false},
	{"a UDP socket of IPv6", "udp6", "EPERM", filters, "", false},
	{"a raw socket", "raw", "EPERM", filtersThenSpaces, "", false},
	{"a packet socket", "packet", "EPERM", filtersThenSpaces, "", false},
	{"a netlink socket", "netlink", "EPERM", filters, "allowed", false},
	{"a vsock socket", "vsock", "EPERM", filters, "", false},
	{"a socket of the kernel's crypto", "crypto", "EPERM", filters, "", false},
	{"a datagram socket of this machine", "datagram", "EPERM", filters, "allowed", false},
	{"a docker.sock", "docker", "EPERM", filters, "allowed", false},
	{"an abstract socket of others", "abstract", "EPERM", filters, "allowed", false},
	{"io_uring", "iouring", "EPERM", filters, "", false},

	{"PTRACE_ATTACH to the host", "attach", "EPERM", filters, "", false},
	{"PTRACE_SEIZE of the host", "seize", "EPERM", filters, "", false},
	{"process_vm_readv of the host", "readv", "EPERM", filters, "", false},
	{"process_vm_writev of the host", "writev", "EPERM", filters, "", false},
	{"pidfd_open of the host", "tracefd", "EPERM", filters, "allowed", false},
	{"pidfd_getfd", "getfd", "EPERM", filters, "", false},
	{"/proc/HOST/mem", "mem", "EACCES", lockThenSpaces, "allowed", false},
	{"/proc/HOST/maps", "maps", "EACCES", lockThenSpaces, "allowed", false},
	{"/proc/HOST/root", "root", "EACCES", lockThenSpaces, "allowed", false},
	{"/proc/HOST/fd/1", "hostfd", "EACCES", lockThenSpaces, "", false},
	{"/proc/HOST/ns/net", "netns", "EACCES", lockThenSpaces, "allowed", false},
	{"/proc/self/fd/0, to write", "selffd", "EACCES", lock, "allowed", false},
	{"the agent's key", "key", "EACCES", lock, "allowed", false},
	{"the mode of the agent's key", "chmod", "EPERM", filters, "allowed", false},
	{"a signal to the host", "kill", "EPERM", filters, "allowed", false},
	{"a signal to everybody", "killall", "EPERM", filters, "allowed", false},
	{"a signal to a thread of the host", "tgkill", "EPERM", filters, "allowed", false},
	{"a signal with a value to the host", "queue", "EPERM", filters, "", false},
	{"a signal to the host by a descriptor", "owner", "EPERM", filters, "", false},
	{"the host's limits", "limits", "EPERM", filters, "allowed", false},

	{"fork, twice, and setsid", "fork", "EPERM", filters, "allowed", false},
	{"a process as a start without namespaces is", "exec-away", "EPERM", filters, "", false},
	{"a process in namespaces, as its own start was", "nested", "EPERM", spacesThenFilters, "allowed", false},
	{"vfork", "vfork", "EPERM", filters, "", false},
	{"clone with the memory shared", "clone", "EPERM", filters, "allowed", false},
	{"2,000 processes", "forkbomb", "EPERM", filters, "", false},
	{"a shell", "shell", "EACCES", lock, "allowed", false},
	{"memfd_create", "memfd", "EPERM", filters, "allowed", false},
	{"execveat", "execveat", "EPERM", filters, "", false},
	{"the keyring", "keyctl", "EPERM", filters, "", false},
	{"a key in the keyring", "addkey", "EPERM", filters, "", false},
	{"a user namespace", "unshare", "EPERM", filtersThenSpaces, "allowed", false},
	{"another's namespace", "setns", "EPERM", filters, "EINVAL", false},
	{"a mount", "mount", "EPERM", filters, "", false},
	{"another root", "chroot", "EPERM", filtersThenSpaces, "", false},
	{"bpf", "bpf", "EPERM", filters, "", false},
	{"perf events", "perf", "EPERM", filters, "", false},
	{"userfaultfd", "faults", "EPERM", filters, "allowed", false},
	{"a file by its handle", "handle", "EPERM", filters, "", false},
	{"TIOCSTI", "tiocsti", "EPERM", filters, "ENOTTY", false},
	{"PR_SET_DUMPABLE", "dumpable", "EPERM", filters, "allowed", false},
	{"PR_SET_PTRACER", "tracer", "EPERM", filters, "", false},
	{"PR_SET_CHILD_SUBREAPER", "reaper", "EPERM", filters, "allowed", false},
	{"personality", "personality", "EPERM", filters, "allowed", false},
	{"the machine's clock", "clock", "EPERM", filters, "EINVAL", false},
	{"the kernel's log", "log", "EPERM", filtersThenSpaces, "", false},
	{"memory of System V", "sysv", "EPERM", filters, "allowed", false},

	{"64 GiB of memory", "memory", "ENOMEM", limited, "allowed", false},
	{"64 GiB of shared memory", "shared", "EPERM", filters, "allowed", false},
	{"64 GiB of stacks", "stacks", "EPERM", filters, "allowed", false},
	{"300 descriptors", "fds", "EMFILE", limited, "allowed", false},
	{"a byte in a file", "file", "EFBIG", limited, "allowed", false},
	{"a byte to its input", "write-input", "EBADF", nil, "EBADF", false},
	{"other descriptors of the host (their number)", "others", "allowed", nil, "allowed", false},
	{"code that it has written itself", "code", "allowed", nil, "allowed", false},
}

// compiled makes the two programs, once.
func compiled(t *testing.T) (c, assembly string) {
	t.Helper()
	dir := t.TempDir()
	c, assembly = filepath.Join(dir, "hostile"), filepath.Join(dir, "raw")
	for _, args := range [][]string{
		{"-static", "-O1", "-Wall", "-Werror", "-o", c, "testdata/hostile/hostile.c"},
		{"-static", "-nostdlib", "-no-pie", "-o", assembly, "testdata/hostile/raw.S"},
	} {
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
			t.Fatalf("cc %v: %v\n%s", args, err, out)
		}
	}
	return c, assembly
}

// ended says how the start of a plugin ended that does not shake hands.
func ended(err error) string {
	var crash *CrashError
	switch {
	case err == nil:
		return "it serves"
	case errors.Is(err, ErrSandbox):
		return err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case !errors.As(err, &crash):
		return err.Error()
	case crash.Signal != "":
		return crash.Signal
	case crash.ExitCode == 0:
		return "allowed"
	}
	if name := unix.ErrnoName(unix.Errno(crash.ExitCode)); name != "" {
		return name
	}
	return fmt.Sprintf("exit %d", crash.ExitCode)
}

// TestHostilePrograms has programs that do not know the sdk make their attempts: each
// in a process of its own under the sandbox, under all of it but the layer that is
// said to stop it, and without any.
func TestHostilePrograms(t *testing.T) {
	if machine != unix.AUDIT_ARCH_X86_64 {
		t.Skip("the assembly is of another machine")
	}
	inC, inAssembly := compiled(t)
	dir := hostileFolder(t)
	for _, name := range []string{dir + "/docker.sock", "@" + dir} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	token := fmt.Sprintf("token-%d", os.Getpid())
	run := func(a foreign, mode Sandbox, without []predicate.Layer) string {
		t.Helper()
		path := inC
		if a.assembly {
			path = inAssembly
		}
		p, err := Launch(t.Context(), Config{Path: path, Sandbox: mode, without: without, args: []string{a.what, strconv.Itoa(os.Getpid()), dir, token}})
		if err == nil {
			err = p.Close()
		}
		return ended(err)
	}
	defer func() { alive(t, token) }() // what forks without a sandbox
	var b strings.Builder
	const line = "%-46s  %-10s  %-10s  %-32s  %s\n"
	fmt.Fprintf(&b, line, "attempt", "unconfined", "outcome", "stopped by", "and without")
	for _, a := range foreigners {
		free, without, by := "-", "-", "(harmless)"
		got := run(a, SandboxRequire, nil)
		if strings.HasPrefix(got, "sandbox:") && os.Getenv("CI") == "" {
			t.Skip(got)
		}
		if got != a.want {
			t.Errorf("%s: %s, want %s", a.name, got, a.want)
		}
		if a.free != "" {
			if free = run(a, SandboxOff, nil); free != a.free {
				t.Errorf("%s: without a sandbox it ends with %s, want %s", a.name, free, a.free)
			}
		}
		switch {
		case len(a.by) == 0 && a.want != "allowed":
			by = "host: open to read"
		case len(a.by) > 0:
			by = strings.ReplaceAll(strings.Trim(fmt.Sprint(a.by), "[]"), " ", ", then ")
			if a.what == "forkbomb" {
				break // the processes would be there; TestNothingGetsAway ends them
			}
			if len(a.by) > 1 && os.Geteuid() != 0 {
				break // the user's own lack of privileges stops it, too
			}
			if without = run(a, SandboxBestEffort, a.by); without == got {
				t.Errorf("%s: %s is not what stops it: without, it ends with %s too", a.name, by, got)
			}
		}
		fmt.Fprintf(&b, line, a.name, free, got, by, without)
	}
	t.Logf("%d attempts in C and assembly\n%s", len(foreigners), b.String())
}

// TestHostileHandshakes has a program in C lie to its host before it serves, flood it,
// or leave processes behind: the host's own checks end each, in time and in bounds.
func TestHostileHandshakes(t *testing.T) {
	inC, _ := compiled(t)
	dir := hostileFolder(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	docker, err := net.Listen("unix", dir+"/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := base64.RawStdEncoding.EncodeToString(der)
	const late = "no connection within"
	rows := []row{}
	for _, a := range []struct{ name, what, line, want, by string }{
		{"an address of the network", "shake", "1|1|tcp|" + l.Addr().String() + "|grpc|" + certificate, "not in the plugin's folder", "host: address"},
		{"another program's socket", "shake", "1|1|unix|" + dir + "/docker.sock|grpc|" + certificate, "not in the plugin's folder", "host: address"},
		{"an abstract address", "shake", "1|1|unix|@x|grpc|" + certificate, "not in the plugin's folder", "host: address"},
		{"a socket that is not there", "shake", "1|1|unix|%s-|grpc|" + certificate, "no such file", "host: address"},
		{"another version of the protocol", "shake", "1|99|unix|%s|grpc|" + certificate, "incompatible API version", "host: version"},
		{"another version of go-plugin's", "shake", "2|1|unix|%s|grpc|" + certificate, "incompatible core API version", "host: version"},
		{"another protocol", "shake", "1|1|unix|%s|netrpc|" + certificate, "nsupported plugin protocol", "host: protocol"},
		{"no certificate", "shake", "1|1|unix|%s|grpc", "no certificate", "host: certificate"},
		{"a certificate that is none", "shake", "1|1|unix|%s|grpc|AAAA", "certificate", "host: certificate"},
		{"nonsense instead of TLS, without end", "shake", "1|1|unix|%s|grpc|" + certificate, "", "TLS"},
		{"an empty line", "empty", "", "Unrecognized", "host: handshake"},
		{"no line", "silent", "", late, "timeout"},
		{"a line of 100 MB", "line", "", "Failed to read any lines", "host: length of a line"},
		{"errors without end", "stderr", "", late, "timeout; the end is kept"},
		{"turning round and round", "spin", "", late, "timeout"},
		{"20,000 descriptors", "flood", "", late, "host: pending descriptors"},
		{"messages that are none", "bogus", "", "EPIPE", "host: socket ended"},
	} {
		before, most := openDescriptors(t), 0
		watched := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		go func() {
			defer close(watched)
			for ctx.Err() == nil {
				most = max(most, openDescriptors(t))
				runtime.Gosched()
			}
		}()
		limit := 20 * time.Second
		if a.want == late {
			limit = 2 * time.Second
		}
		began := time.Now()
		p, err := Launch(ctx, Config{
			Path: inC, Sandbox: SandboxRequire, StartTimeout: limit, args: []string{a.what, strconv.Itoa(os.Getpid()), dir, a.line},
		})
		if err == nil { // it has yet to speak
			_, err = p.Scanner(ctx)
			if cerr := p.Close(); err == nil || cerr != nil {
				t.Errorf("%s: it serves: %v", a.name, cerr)
				err = errors.Join(err, cerr)
			}
		}
		cancel()
		<-watched
		if errors.Is(err, ErrSandbox) && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		how := err.Error()
		if ended(err) == a.want {
			how = a.want
		}
		if !strings.Contains(how, a.want) || len(how) > 4096 {
			t.Errorf("%s: %.4096s", a.name, how)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: the host was held for %s", a.name, took)
		}
		if most > before+pendingDescriptors+64 {
			t.Errorf("%s: the host had %d descriptors open, %d before", a.name, most, before)
		}
		if after := openDescriptors(t); after > before+4 {
			t.Errorf("%s: %d descriptors are left, %d were open before", a.name, after, before)
		}
		outcome := "refused"
		if strings.Contains(a.want, "within") {
			outcome = "ended in time"
		}
		rows = append(rows, row{a.name, outcome, a.by})
	}
	table(t, rows)
	for _, l := range []net.Listener{l, docker} {
		if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(time.Now())
		}
		if c, err := l.Accept(); err == nil {
			t.Errorf("the host has connected to %s for a plugin, %v", l.Addr(), c.Close())
		}
	}
}

func openDescriptors(t *testing.T) int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	return len(names)
}

// TestNothingGetsAway has a program start itself once more by the one way that the
// filter leaves to a start, out of the process group: nothing of it outlives its host's
// Close, with a namespace of processes and without.
func TestNothingGetsAway(t *testing.T) {
	inC, _ := compiled(t)
	dir := hostileFolder(t)
	rows := []row{}
	for _, a := range []struct {
		name, what string
		mode       Sandbox
		without    []predicate.Layer
		by         string
	}{
		{"a process that leaves its group", "exec-away", SandboxRequire, nil, "seccomp"},
		{"the same without the filter", "exec-away", SandboxBestEffort, filters, "namespace of processes"},
		{"the same without namespaces", "exec-away", SandboxBestEffort, []predicate.Layer{predicate.LayerNetwork}, "host: descendants"},
		{"2,000 processes without the filter", "forkbomb", SandboxBestEffort, filters, "namespace of processes"},
		{"fork, twice, and setsid, without the filter", "fork", SandboxBestEffort, filters, "namespace of processes"},
	} {
		token := fmt.Sprintf("token-%d-%s", os.Getpid(), strings.ReplaceAll(a.name, " ", "-"))
		p, err := Launch(t.Context(), Config{Path: inC, Sandbox: a.mode, without: a.without, StartTimeout: 5 * time.Second, args: []string{a.what, "0", dir, token}})
		if err == nil {
			err = p.Close()
		}
		if left := alive(t, token); len(left) > 0 {
			t.Errorf("%s (%s): processes %v are left", a.name, ended(err), left)
		}
		rows = append(rows, row{a.name, "ended with its plugin", a.by})
	}
	table(t, rows)
}

// alive lists the processes that bear a token, and still do after a while.
func alive(t *testing.T, token string) []int {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var left []int
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); <-tick.C {
		left = left[:0]
		names, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && slices.Contains(strings.Split(string(b), "\x00"), token) {
				pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return nil
		}
	}
	for _, pid := range left {
		_ = unix.Kill(pid, unix.SIGKILL) // the test's own
	}
	return left
}

package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/agent/internal/config"
)

// installed is the folder of the plugins, with the program cavra built into it as well.
func installed(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(binVar); dir != "" {
		return dir
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", bin+"/", "./cmd/cavra").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// configured is the folder of an agent that looks after one file, with a sandbox.
func configured(t *testing.T, sandbox string) string {
	t.Helper()
	w := newWorld(t)
	models := t.TempDir()
	w.looksAfter(models)
	settings := fmt.Sprintf("scopes: [{connector: fs, root: %s}]\nsandbox: %s\n", models, sandbox)
	for name, text := range map[string]string{filepath.Join(models, "a.txt"): "a text\n", filepath.Join(w.cfg.Dir, config.File): settings} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w.cfg.Dir
}

// TestNobodyTracesTheAgent has another process of the agent's user, a privileged one
// excepted, try to trace an agent that runs and to look into its memory; the same is
// allowed with any other program.
func TestNobodyTracesTheAgent(t *testing.T) {
	dir := installed(t)
	if asNobody(t) {
		return
	}
	agent := exec.Command(filepath.Join(dir, "cavra"), "agent", "run", "--dir", configured(t, "best-effort"))
	said, err := agent.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Wait() }()
	defer func() { _ = agent.Process.Signal(unix.SIGTERM) }()
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), "agent started") {
		t.Log(lines.Text())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	other := exec.Command("/bin/sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Wait() }()
	defer func() { _ = other.Process.Kill() }()

	for what, try := range map[string]func(pid int) error{
		"memory by a file":   func(pid int) error { return look(pid, "mem") },
		"memory's map":       func(pid int) error { return look(pid, "maps") },
		"environment":        func(pid int) error { return look(pid, "environ") },
		"open files":         func(pid int) error { _, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); return err },
		"memory by a call":   readMemory,
		"tracing":            trace,
		"a descriptor of it": descriptorOf,
	} {
		err := try(agent.Process.Pid)
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v", what, err)
		}
		t.Logf("%-20s %v", what, err)
		// The word of a kernel that lets nobody trace is no word about the agent.
		if err := try(other.Process.Pid); err != nil && !errors.Is(err, unix.EFAULT) {
			t.Errorf("%s of another program: %v", what, err)
		}
	}
}

func look(pid int, file string) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return err
	}
	return f.Close()
}

func readMemory(pid int) error {
	var b [1]byte
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b)), Len: 1}}, 0)
	return err
}

func descriptorOf(pid int) error {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(p) }()
	fd, err := unix.PidfdGetfd(p, 0, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func trace(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		return err
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		return err
	}
	return unix.PtraceDetach(pid)
}

// TestWithoutUserNamespaces runs the programs as a user who may make none, as in many a
// container: where the sandbox is required nothing is scanned, and the layer is named;
// otherwise the rest is in force, and every statement says which.
func TestWithoutUserNamespaces(t *testing.T) {
	cavra := filepath.Join(installed(t), "cavra")
	run := func(args ...string) (string, error) {
		t.Helper()
		cmd := exec.Command("/bin/sh", append([]string{"-c", `echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"`, "sh", cavra}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getegid(), Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_SYS_RESOURCE}, // to set the limit
		}
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) && os.Getenv("CI") == "" {
			t.Skip("no user namespace to be without one in: ", err)
		}
		return string(out), err
	}
	required, weaker := configured(t, "require"), configured(t, "best-effort")
	scanned := filepath.Join(t.TempDir(), "b.txt")
	if err := os.WriteFile(scanned, []byte("b text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"agent", "run", "--once", "--dir", required},
		{"agent", "preview", "--dir", required},
		{"scan", "--sandbox", "require", scanned},
	} {
		out, err := run(args...)
		t.Logf("%s, require: %v: %s", strings.Join(args[:2], " "), err, out)
		if err == nil || !strings.Contains(out, "network_namespace cannot be put on here") || !strings.Contains(out, "best-effort") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		if strings.Contains(out, "a.txt") || strings.Contains(out, "in-toto.io/Statement") {
			t.Errorf("%v: it has scanned all the same:\n%s", args, out)
		}
	}
	for _, args := range [][]string{
		{"agent", "preview", "--dir", weaker},
		{"scan", "--sandbox", "best-effort", "--format", "json", scanned},
		{"doctor"},
	} {
		out, err := run(args...)
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		in, missing, _ := strings.Cut(out, "isolation not in force: ")
		for _, layer := range []string{"landlock", "seccomp", "rlimits", "no_new_privs"} {
			if !strings.Contains(in, layer) {
				t.Errorf("%v: %s is not in force:\n%s", args, layer, out)
			}
		}
		if strings.Contains(in, "network_namespace") || slices.Equal(args, []string{"doctor"}) != strings.HasPrefix(missing, "network_namespace") {
			t.Errorf("%v: it says that namespaces are in force:\n%s", args, out)
		}
	}
}

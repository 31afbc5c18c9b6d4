package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/safeio"
	"github.com/cavra/cavra/sdk/scanner"
)

// bin is where build puts the programs under test.
var bin string

// TestMain makes room for the programs. The test program is itself a scanner plugin
// when a host starts it: one that does what a bad one might.
func TestMain(m *testing.M) {
	if plugin.Launched() {
		if err := plugin.ServeScanner(hostile{}); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	code, err := tested(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func tested(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "cavra-test-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Other users run the programs too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	bin = filepath.Join(dir, "bin")
	return m.Run(), nil
}

// build makes the programs, once, for the tests that run them: a worker of a
// fuzz target needs none.
var build = sync.OnceValue(func() error {
	for _, b := range [][]string{
		{"build", "-o", bin + "/", "."},
		{"build", "-C", "../../../plugins", "-o", bin + "/", "./cmd/cavra-formats", "./cmd/cavra-connector-fs"},
	} {
		if out, err := exec.Command("go", b...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %v: %w\n%s", b, err, out)
		}
	}
	return nil
})

// hostile crashes, hangs or lies, as the content says.
type hostile struct{}

func (hostile) Describe() scanner.Description {
	return scanner.Description{Name: "hostile", Version: "1", RulesetVersion: "1", Rules: []string{"pickle.malformed"}}
}

func (hostile) Scan(ctx context.Context, t scanner.Target) (scanner.Report, error) {
	head := make([]byte, min(t.Content.Size(), 8))
	if err := safeio.ReadFull(t.Content, head, 0, t.Path); err != nil {
		return scanner.Report{}, err
	}
	switch string(head) {
	case "CRASH...":
		os.Exit(7)
	case "HANG....":
		<-ctx.Done()
	case "GIVEUP..":
		return scanner.Report{Format: scanner.Unknown}, errors.New("no idea")
	}
	return scanner.Report{Format: scanner.Unknown}, nil
}

func TestScripts(t *testing.T) {
	if err := build(); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+e.Getenv("PATH"))
			e.Setenv("BIN", bin)
			// Other users run the programs too.
			return errors.Join(os.Chmod(e.WorkDir, 0o755), os.Chmod(filepath.Dir(e.WorkDir), 0o755))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "code-as-nobody": codeAsNobody, "bytes": writeBytes, "churn": churn, "hostile": hostileDir,
			"valid": valid, "evidence": evidence, "mkfifo": mkfifo,
		},
	})
}

// code N PROGRAM… runs a program and wants it to exit with N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program args…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// code-as-nobody is code as a user for whom permissions hold.
func codeAsNobody(ts *testscript.TestScript, _ bool, args []string) {
	if os.Getuid() != 0 {
		code(ts, false, args)
		return
	}
	path, err := exec.LookPath(filepath.Join(bin, args[1]))
	ts.Check(err)
	const nobody = 65534
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err = cmd.Run()
	if cmd.ProcessState == nil || strconv.Itoa(cmd.ProcessState.ExitCode()) != args[0] {
		ts.Fatalf("%v, want exit code %s", err, args[0])
	}
}

// bytes FILE GO-STRING [REPEAT] writes a file.
func writeBytes(ts *testscript.TestScript, _ bool, args []string) {
	s, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	n := 1
	if len(args) > 2 {
		n, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	name, err := strconv.Unquote(`"` + args[0] + `"`)
	ts.Check(err)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(name)), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(name), []byte(strings.Repeat(s, n)), 0o644))
}

func mkfifo(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o644))
}

// churn FILE appends to a file until the script ends.
func churn(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := f.WriteString("x"); err != nil {
					return
				}
			}
		}
	}()
	ts.Defer(func() {
		close(stop)
		<-stopped
		_ = f.Close()
	})
}

// hostile DIR makes a plugin folder that has the hostile scanner too.
func hostileDir(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(linkHostile(ts.MkAbs(args[0])))
}

func linkHostile(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.Symlink(filepath.Join(bin, "cavra-connector-fs"), filepath.Join(dir, "cavra-connector-fs")),
		os.Symlink(filepath.Join(bin, "cavra-formats"), filepath.Join(dir, "cavra-formats")),
		os.Symlink(self, filepath.Join(dir, "cavra-scanner-hostile")),
	)
}

package scenario

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cavra/cavra/testbed/stack"
)

// block is a fenced block of a document whose language is sh: it is a promise
// that it works as it stands. One that says "sh background" runs until the
// document ends, and the next begins when it has told an address.
type block struct {
	file       string
	line       int
	text       string
	background bool
}

// languages are what a fence may say. A block of sh is run; the others are not
// commands of a reader's shell, and a fence that says nothing is an error, so
// that none is passed over by accident.
var languages = []string{"sh", "text", "json", "yaml", "go", "proto", "sql", "http", "hcl", "dockerfile"}

func blocks(name string, b []byte) ([]block, error) {
	var out []block
	var open *block
	inside := false
	var errs []error
	scanner := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; scanner.Scan(); n++ {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(scanner.Text()), "```")
		switch {
		case isFence && inside:
			if open != nil {
				out = append(out, *open)
			}
			open, inside = nil, false
		case isFence:
			inside = true
			switch language := strings.TrimSpace(fence); {
			case language == "sh", language == "sh background":
				open = &block{file: name, line: n, background: language != "sh"}
			case !slices.Contains(languages, language) && !isDrawing(name, language):
				errs = append(errs, fmt.Errorf("%s:%d: the fence says %q: say sh for commands that are run, text for what is not, or one of %v", name, n, language, languages))
			}
		case open != nil:
			open.text += scanner.Text() + "\n"
		}
	}
	if inside {
		errs = append(errs, fmt.Errorf("%s: a fence is not closed", name))
	}
	return out, errors.Join(append(errs, scanner.Err())...)
}

// isDrawing allows a bare fence in the one document that draws the flow.
func isDrawing(name, language string) bool {
	return name == "ARCHITECTURE.md" && language == ""
}

// documents are the README, its siblings, and everything under docs.
func documents(t *testing.T, root string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".md") {
			out = append(out, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("no documents under %s", root)
	}
	// The README's commands come first, since others build on them.
	slices.SortFunc(out, func(a, b string) int {
		if first := strings.HasSuffix(a, "README.md"); first != strings.HasSuffix(b, "README.md") {
			return map[bool]int{true: -1, false: 1}[first]
		}
		return strings.Compare(a, b)
	})
	return out
}

// ourselves are lines that run the very tests which run them: they are checked
// for their make target and not run again.
var ourselves = []string{"make test"}

// TestCommandsOfTheDocuments runs every sh block of every document, in order, in
// a copy of the source tree for each document.
func TestCommandsOfTheDocuments(t *testing.T) {
	p := programs(t)
	root := filepath.Dir(string(p))
	ran := 0
	for _, name := range documents(t, root) {
		rel, err := filepath.Rel(root, name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found, err := blocks(rel, b)
		if err != nil {
			t.Error(err)
		}
		scratch := checkout(t, root)
		for _, block := range found {
			ran++
			if block.background {
				stop := serve(t, scratch, block)
				defer stop()
				continue
			}
			t.Run(fmt.Sprintf("%s:%d", block.file, block.line), func(t *testing.T) { run(t, scratch, block.text) })
		}
	}
	if ran == 0 {
		t.Error("no document has a command to run")
	}
}

// checkout is a copy of the source tree with its programs, so that what a
// command writes stays out of the tree. The engine's library, which is large, is
// linked.
func checkout(t *testing.T, root string) string {
	t.Helper()
	dir := folder(t)
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "bin" {
			continue
		}
		copied(t, filepath.Join(root, e.Name()), filepath.Join(dir, e.Name()))
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cavra", "cavra-aggregator", "cavra-connector-fs", "cavra-formats", "libchdb.so.pin"} {
		copied(t, filepath.Join(root, "bin", name), filepath.Join(dir, "bin", name))
	}
	library, err := filepath.EvalSymlinks(filepath.Join(root, "bin", "libchdb.so"))
	if err == nil {
		err = os.Symlink(library, filepath.Join(dir, "bin", "libchdb.so"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func copied(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil && info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else if err == nil {
		var b []byte
		if b, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, b, info.Mode())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a block as a reader's shell would, and stops at the first command
// that fails.
func run(t *testing.T, dir, text string) {
	t.Helper()
	var kept []string
	for line := range strings.Lines(text) {
		if slices.Contains(ourselves, strings.TrimSpace(line)) {
			target := strings.Fields(line)[1]
			t.Logf("checked, not run again: %s", strings.TrimSpace(line))
			line = "make --dry-run " + target + " >/dev/null\n"
		}
		kept = append(kept, line)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("it took longer than 5 minutes"))
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", strings.Join(kept, ""))
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, text, out)
	}
}

// serve runs a block in the background.
func serve(t *testing.T, dir string, b block) (stop func()) {
	t.Helper()
	log := filepath.Join(dir, fmt.Sprintf("block-%d.log", b.line))
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-c", "exec "+strings.TrimSpace(b.text))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = stack.Poll(ctx, "an address of "+b.text, func(context.Context) (bool, string, error) {
		said, err := os.ReadFile(log)
		return bytes.Contains(said, []byte("http://")), string(said), err
	})
	if err != nil {
		t.Error(err)
	}
	return func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait(), out.Close()); err != nil {
			t.Errorf("%s:%d: %v", b.file, b.line, err)
		}
	}
}

func TestBlocks(t *testing.T) {
	got, err := blocks("x.md", []byte("a\n```sh\none\ntwo\n```\n```text\nnot\n```\n```json\n{}\n```\n"))
	if err != nil || len(got) != 1 || got[0] != (block{file: "x.md", line: 2, text: "one\ntwo\n"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"```\nbare\n```\n", "```bash\nx\n```\n", "```sh\nopen\n"} {
		if _, err := blocks("x.md", []byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

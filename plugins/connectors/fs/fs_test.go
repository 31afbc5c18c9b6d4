package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/artifact"
	"github.com/cavra/cavra/sdk/connector"
	"github.com/cavra/cavra/sdk/plugin"
)

// The test program is the connector's own plugin when a host starts it.
func TestMain(m *testing.M) {
	if plugin.Launched() {
		if err := plugin.ServeConnector(New()); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tree makes files: a path that ends with "/" is a folder, and "a -> b" a link.
func tree(t testing.TB, paths ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, p := range paths {
		name, target, isLink := strings.Cut(p, " -> ")
		full := root + "/" + name
		err := os.MkdirAll(filepath.Dir(strings.TrimSuffix(full, "/")), 0o755)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(strings.ReplaceAll(target, "ROOT", root), full)
		case strings.HasSuffix(p, "/"):
			err = os.MkdirAll(full, 0o755)
		case strings.HasSuffix(p, "|"):
			err = syscall.Mkfifo(full, 0o644)
		default:
			err = os.WriteFile(full, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func list(t testing.TB, c connector.Connector, root string) []artifact.Item {
	t.Helper()
	var items []artifact.Item
	for item, err := range c.List(t.Context(), root) {
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
	return items
}

var shape = cmpopts.IgnoreFields(artifact.Item{}, "Key", "Size", "Revision")

func TestList(t *testing.T) {
	outside := tree(t, "elsewhere/x", "y")
	tests := map[string]struct {
		tree []string
		want []artifact.Item
	}{
		"empty": {nil, nil},
		"hidden, any extension, by path": {
			[]string{"a/x", "a-b", "a.txt", "a0", ".hidden", ".dir/.f"},
			[]artifact.Item{{Path: ".dir/.f"}, {Path: ".hidden"}, {Path: "a-b"}, {Path: "a.txt"}, {Path: "a/x"}, {Path: "a0"}},
		},
		"names": {
			[]string{"bad\xff", "100%", "a%41", "é", "new\nline"},
			[]artifact.Item{{Path: "100%"}, {Path: "a%2541"}, {Path: "bad%FF"}, {Path: "new\nline"}, {Path: "é"}},
		},
		"links": {
			[]string{"blobs/1", "snap/m.bin -> ../blobs/1", "dangling -> nowhere", "loop -> loop", "in -> blobs", "self -> .", "out -> " + outside + "/elsewhere", "file -> " + outside + "/y", "dev -> /dev/null"},
			[]artifact.Item{
				{Path: "blobs/1"}, {Path: "dangling", Problem: predicate.NotFound}, {Path: "dev", Problem: predicate.NotRegular},
				{Path: "file"}, {Path: "loop", Problem: predicate.NotRegular}, {Path: "out", Problem: predicate.NotRegular}, {Path: "snap/m.bin"},
			},
		},
		"a fifo": {[]string{"pipe|"}, []artifact.Item{{Path: "pipe|", Problem: predicate.NotRegular}}},
		"bundles": {
			[]string{"m/config.json", "m/w/1.bin", "m/sub/config.json", "other/x", "n/config.json/x", "n/y", "l/MLmodel -> ../m/config.json", "l/z"},
			[]artifact.Item{
				{Path: "l/MLmodel", Bundle: "l"}, {Path: "l/z", Bundle: "l"},
				{Path: "m/config.json", Bundle: "m"}, {Path: "m/sub/config.json", Bundle: "m"}, {Path: "m/w/1.bin", Bundle: "m"},
				{Path: "n/config.json/x"}, {Path: "n/y"}, {Path: "other/x"},
			},
		},
		"the root is a bundle": {
			[]string{"model.safetensors.index.json", "a/config.json"},
			[]artifact.Item{{Path: "a/config.json", Bundle: "."}, {Path: "model.safetensors.index.json", Bundle: "."}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := tree(t, tt.tree...)
			got := list(t, New(), root)
			if diff := cmp.Diff(tt.want, got, shape); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, item := range got {
				if item.Problem == "" && item.Revision == "" {
					t.Errorf("%s has no revision", item.Path)
				}
			}
		})
	}
}

func TestRoots(t *testing.T) {
	root := tree(t, "dir/f", "link -> dir/f", "dirlink -> dir", "pipe|")
	for name, want := range map[string][]artifact.Item{
		"dir/f":   {{Path: "f", Size: 5}},
		"link":    {{Path: "link", Size: 5}},
		"dirlink": {{Path: "f", Size: 5}},
		"pipe|":   {{Path: "pipe|", Problem: predicate.NotRegular}},
	} {
		got := list(t, New(), root+"/"+name)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(artifact.Item{}, "Key", "Revision")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got[0].Problem == "" {
			r, err := New().Open(t.Context(), root+"/"+name, got[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size())); err != nil || string(b) != "dir/f" {
				t.Errorf("%q, %v", b, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, bad := range []string{root + "/gone", "relative", ""} {
		for item, err := range New().List(t.Context(), bad) {
			if err == nil {
				t.Errorf("%q: listed %v", bad, item)
			}
			if strings.HasSuffix(bad, "gone") && !errors.Is(err, iofs.ErrNotExist) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
}

func TestOpenEveryListedItem(t *testing.T) {
	root := tree(t, "bad\xff", "a%41", "dir\xfe/f", "snap/m -> ../a%41")
	for _, item := range list(t, New(), root) {
		r, err := New().Open(t.Context(), root, item.Key)
		if err != nil {
			t.Errorf("%s: %v", item.Path, err)
			continue
		}
		if r.Size() != item.Size {
			t.Errorf("%s: %d bytes, listed %d", item.Path, r.Size(), item.Size)
		}
		_ = r.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	outside := tree(t, "secret")
	root := tree(t, "f", "dir/f", "pipe|", "link -> "+outside, "dev -> /dev/null")
	for key, want := range map[string]artifact.Reason{
		"gone":        predicate.NotFound,
		"..":          predicate.NotFound,
		"../x":        predicate.NotFound,
		"dir/../f":    predicate.NotFound,
		"":            predicate.NotFound,
		"%2E%2E/x":    predicate.NotFound,
		"dir%2Ff":     predicate.NotFound,
		"link/secret": predicate.Changed,
		"pipe|":       predicate.NotRegular,
		"dir":         predicate.NotRegular,
		"dev":         predicate.NotRegular,
		"/etc/passwd": predicate.NotFound,
		"f/x":         predicate.Changed,
	} {
		r, err := New().Open(t.Context(), root, key)
		if err == nil {
			t.Errorf("%q: opened", key)
			_ = r.Close()
			continue
		}
		if got := connector.ReasonOf(err); got != want {
			t.Errorf("%q: %s, want %s (%v)", key, got, want, err)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	root := tree(t, strings.Repeat("d/", maxDepth+3)+"f", "z")
	got := list(t, New(), root)
	want := []artifact.Item{{Path: strings.TrimSuffix(strings.Repeat("d/", maxDepth+1), "/"), Problem: predicate.LimitDepth}, {Path: "z"}}
	if diff := cmp.Diff(want, got, shape); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCancel(t *testing.T) {
	root := tree(t, "a", "b", "c")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range New().List(ctx, root) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("a cancelled listing ended with %v: it looks whole", last)
	}
}

// TestUnreadable runs itself as another user, for whom permissions hold.
func TestUnreadable(t *testing.T) {
	if root := os.Getenv("UNREADABLE_ROOT"); root != "" {
		unreadable(t, root)
		return
	}
	root := tree(t, "locked/x", "closed", "open", "locked-b", "blind/x")
	for name, mode := range map[string]os.FileMode{"locked": 0o000, "closed": 0o000, "blind": 0o444, "": 0o755} {
		if err := os.Chmod(filepath.Join(root, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() != 0 {
		unreadable(t, root)
		return
	}
	for dir := root; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err != nil || st.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, st.Mode().Perm()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "..", "program")
	if b, err := os.ReadFile(self); err != nil || os.WriteFile(program, b, 0o755) != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestUnreadable$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{"UNREADABLE_ROOT=" + root}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestUnreadable") {
		t.Errorf("%v\n%s", err, out)
	}
}

func unreadable(t *testing.T, root string) {
	got := list(t, New(), root)
	denied := predicate.PermissionDenied
	want := []artifact.Item{{Path: "blind/x", Problem: denied}, {Path: "closed", Problem: denied}, {Path: "locked", Problem: denied}, {Path: "locked-b"}, {Path: "open"}}
	if diff := cmp.Diff(want, got, shape); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err := New().Open(t.Context(), root, "closed")
	if got := connector.ReasonOf(err); got != denied {
		t.Errorf("opening it: %s (%v)", got, err)
	}
}

func TestOverTheWire(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := plugin.Launch(t.Context(), plugin.Config{Path: self})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := p.Connector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root := tree(t, "bad\xff", "dir/f", "dangling -> x", "config.json")
	want := list(t, New(), root)
	var got []artifact.Item
	for item, err := range c.List(t.Context(), root) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, item)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r, err := c.Open(t.Context(), root, "dir/f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, ok := r.(artifact.Descriptor); !ok {
		t.Errorf("a local file came as %T", r)
	}
	if b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size())); err != nil || string(b) != "dir/f" {
		t.Errorf("%q, %v", b, err)
	}
	_, err = c.Open(t.Context(), root, "gone")
	if !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("opening what is not there: %v", err)
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"a", "100%", "%41", "\xff", "%\xff", "%4\xff", "%2F", "..", "é\xe9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := decode(s); err == nil && (encode(name) != s || strings.Contains(name, "/")) {
			t.Errorf("%q decodes to %q", s, name)
		}
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
			return
		}
		e := encode(s)
		if back, err := decode(e); err != nil || back != s || !iofs.ValidPath(e) {
			t.Errorf("%q becomes %q and then %q (%v)", s, e, back, err)
		}
	})
}

func FuzzOpenStaysInside(f *testing.F) {
	outside := tree(f, "secret")
	root := tree(f, "d/f", "link -> "+outside)
	for _, s := range []string{"d/f", "../secret", "link/secret", "/etc/passwd", "d/%2E%2E/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		r, err := New().Open(t.Context(), root, key)
		if err != nil {
			return
		}
		defer r.Close()
		if key != "d/f" {
			t.Errorf("%q opened %d bytes", key, r.Size())
		}
	})
}

func TestRevisionChanges(t *testing.T) {
	root := tree(t, "f")
	one := list(t, New(), root)
	if err := os.WriteFile(root+"/f", []byte("longer than it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	two := list(t, New(), root)
	if slices.Equal(one, two) || one[0].Revision == two[0].Revision {
		t.Errorf("%v, then %v", one, two)
	}
}

package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSweepTakesOnlyWhatIsLeft has a folder of a host that lives, one of a host that
// was killed, a fresh one, one that is a link, and one of somebody else's program.
func TestSweepTakesOnlyWhatIsLeft(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	at := func(name string) string { return filepath.Join(temp, name) }
	for _, dir := range []string{"plugin-dir1/deep", "plugin-dir2", "plugin-dir3", "plugin-dir4", "elsewhere"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(at("elsewhere"), at("plugin-dir5")); err != nil {
		t.Fatal(err)
	}
	release, err := holdFolder(at("plugin-dir2"))
	if err != nil {
		t.Fatal(err)
	}
	ago := time.Now().Add(-time.Hour)
	for _, name := range []string{"plugin-dir1", "plugin-dir2", "plugin-dir3", "plugin-dir5"} {
		lock := at(name) + folderLock
		f, err := os.OpenFile(lock, os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if name == "plugin-dir3" {
			continue
		}
		if err := os.Chtimes(lock, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{"plugin-dir1": false, "plugin-dir2": true, "plugin-dir3": true, "plugin-dir4": true, "plugin-dir5": true, "elsewhere": true} {
		if _, err := os.Lstat(at(name)); (err == nil) != stays {
			t.Errorf("%s: %v, stays %t", name, err, stays)
		}
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(at("plugin-dir2*")); err != nil || len(left) > 0 {
		t.Errorf("of a folder that was given back %v is there, %v", left, err)
	}
}

// TestTemporaryFolderWithALongName launches a plugin whose socket's path is nearly as
// long as the kernel takes.
func TestTemporaryFolderWithALongName(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	temp := base + "/" + strings.Repeat("x", 60-len(base))
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	if _, err := launch(t, "scanner").Scanner(t.Context()); err != nil {
		t.Error(err)
	}
}

package plugin

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSweepTakesOnlyWhatIsLeft has a folder of a host that lives, one of a host
// that was killed, a link with the name of one, and a folder that others may read.
func TestSweepTakesOnlyWhatIsLeft(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	mine, remove, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(temp, "cavra-plugin-left")
	elsewhere := filepath.Join(temp, "elsewhere")
	link, open := filepath.Join(temp, "cavra-plugin-link"), filepath.Join(temp, "cavra-plugin-open")
	for _, dir := range []string{filepath.Join(left, "plugin-dir1"), elsewhere} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(temp, "cavra-plugin-fresh")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	ago := time.Now().Add(-time.Hour)
	for _, dir := range []string{mine, left, open} {
		if err := os.Chtimes(dir, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{mine: true, left: false, elsewhere: true, link: true, open: true, fresh: true} {
		if _, err := os.Lstat(name); (err == nil) != stays {
			t.Errorf("%s: %v, stays %t", name, err, stays)
		}
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !os.IsNotExist(err) {
		t.Errorf("a folder that was given back is there: %v", err)
	}
}

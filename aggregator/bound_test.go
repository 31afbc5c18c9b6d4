package aggregator

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAFullFolderTakesNothingInAndSaysSo(t *testing.T) {
	var b bound
	b.full.Store(true)
	if err := b.Insert(t.Context(), nil, "token"); !errors.Is(err, errFull) || !retryable(err) {
		t.Errorf("got %v, want an error that passes", err)
	}
}

func TestFolderSize(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"x": 10, "a/y": 20, "a/b/z": 30} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := folderSize(dir); err != nil || got != 60 {
		t.Errorf("%d, %v, want 60", got, err)
	}
}

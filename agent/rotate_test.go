package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestANewKeyIsAskedForOnce(t *testing.T) {
	a := &Agent{cfg: Config{Dir: t.TempDir()}}
	for _, want := range []bool{false, true, false} {
		if want {
			if err := os.WriteFile(filepath.Join(a.cfg.Dir, rotateRequest), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := a.asked(); got != want || err != nil {
			t.Errorf("asked: %t, %v; want %t", got, err, want)
		}
	}
}

package wire

import (
	"errors"
	"syscall"
	"testing"
)

// Rerun runs the calling test again in a namespace of its own, and fails as that
// does. It skips where the machine lets nobody make one.
func Rerun(t *testing.T) {
	t.Helper()
	cmd := Isolated("-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60m")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	err := cmd.Run()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no network namespace can be made here (run as root, or allow user namespaces): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

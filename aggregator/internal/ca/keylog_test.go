//go:build !keylog

package ca

import (
	"testing"
	"time"
)

// TestNoSecretIsWrittenDown by a program that is built as those that are shipped,
// whatever its environment says.
func TestNoSecretIsWrittenDown(t *testing.T) {
	t.Setenv("CAVRA_TLS_KEYLOG", t.TempDir()+"/keylog")
	a := open(t, t.TempDir(), time.Now)
	if a.ServerTLS().KeyLogWriter != nil || a.BrokerTLS().KeyLogWriter != nil {
		t.Error("the secrets of connections are written down")
	}
}

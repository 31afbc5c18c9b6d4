//go:build keylog

package ca

import (
	"io"
	"os"
)

// KeyLogVariable names the file that secrets of TLS connections are appended to.
const KeyLogVariable = "CAVRA_TLS_KEYLOG"

// keyLog is where the secrets of TLS connections go, so that a test can read what
// it has captured. This is the armed build, for tests only.
func keyLog() io.Writer {
	f, err := os.OpenFile(os.Getenv(KeyLogVariable), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil
	}
	return f
}

//go:build !keylog

package ca

import "io"

// keyLog is where the secrets of TLS connections go, so that a test can read what
// it has captured: nowhere, but in a program that is built with the tag keylog.
func keyLog() io.Writer { return nil }

// Package plugin runs scanners and connectors as processes of their own, over
// hashicorp/go-plugin with gRPC and mutual TLS.
//
// An author's main calls ServeScanner or ServeConnector. A host calls Launch,
// and gets the same contracts back as structs. The host believes nothing that a
// plugin says until it is checked and bounded: what breaks the contract is a
// *ContractError, a process that ends is a *CrashError, and what the plugin
// itself reports as its failure is a *FailedError. The program that was
// measured is the program that runs, it inherits no environment, no input and
// no descriptor but one socket, and it ends with its host.
package plugin

import (
	"errors"
	"fmt"
	"os"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
)

// protocol is the version of the services in cavra.plugin.v1. A host offers all
// it knows, and the newest that both know is spoken.
const protocol = 1

// handshake tells a start by a host from one by hand. It is no secret.
var handshake = goplugin.HandshakeConfig{
	MagicCookieKey:   "CAVRA_PLUGIN",
	MagicCookieValue: "a7c1d4a1-cavra-plugin",
}

// The bounds of the wire. Those of a report are scanner.Max*.
const (
	// MaxMessage is the default bound of one message, in bytes.
	MaxMessage = 8 << 20
	// InlineMax is the largest content, in bytes, that travels in the request.
	InlineMax = 256 << 10
	// chunk is the size of a range that is fetched, in bytes.
	chunk = 1 << 20
	// cacheChunks and aheadChunks bound a range reader's memory.
	cacheChunks = 8
	aheadChunks = 3
	// maxReportBytes bounds the strings of one report together, in bytes.
	maxReportBytes = 64 << 20
	// partBytes is about how much of a report goes into one message.
	partBytes = 512 << 10
	maxRules  = 4096
	// maxSiblings bounds the files of a bundle that one scan opens, and
	// maxRangeSiblings those that the host holds open for it.
	maxSiblings      = 65_536
	maxRangeSiblings = 256
	maxPathBytes     = 32 << 10
	maxItemText      = 1024
	maxItemsPart     = 4096
	maxErrorBytes    = 512
	maxProgramBytes  = 512 << 20
	stderrTail       = 16 << 10
	maxHeaderBytes   = 64 << 10
	// pendingDescriptors is how many passed descriptors wait to be claimed; the
	// oldest is closed beyond it.
	pendingDescriptors = 256
	maxConcurrent      = 256
	// maxHandles bounds what a host may hold open in a connector.
	maxHandles   = 4096
	startTimeout = 10 * time.Second
	// exitGrace is how long a process may outlive its connection.
	exitGrace = time.Second
	// closeTimeout bounds telling a connector that a handle is done with.
	closeTimeout = 5 * time.Second
)

// socketFd is the number under which a plugin inherits its end of the socket
// that descriptors are passed over.
const socketFd = 3

// errors of a host.
var (
	// ErrClosed says that the process was closed by its host.
	ErrClosed = errors.New("plugin is closed")
	// ErrNotLaunched says that a plugin was started by hand.
	ErrNotLaunched = errors.New("this program is a plugin of CAVRA and is started by it: put it beside the program cavra, and run that")
)

// Launched reports whether a host has started this process.
func Launched() bool { return os.Getenv(handshake.MagicCookieKey) == handshake.MagicCookieValue }

// ContractError says that a plugin broke its contract. Its words may hold a
// plugin's own, quoted and cut.
type ContractError struct{ Err error }

func (e *ContractError) Error() string { return "plugin broke the contract: " + e.Err.Error() }

func (e *ContractError) Unwrap() error { return e.Err }

func contractf(format string, args ...any) *ContractError {
	return &ContractError{Err: fmt.Errorf(format, args...)}
}

// CrashError says that the plugin's process ended, or had to be ended, during a
// call.
type CrashError struct {
	// ExitCode is -1 when Signal ended the process.
	ExitCode int
	// Signal is its name, and empty when the process exited by itself.
	Signal string
}

func (e *CrashError) Error() string {
	if e.Signal != "" {
		return "plugin crashed: " + e.Signal
	}
	return fmt.Sprintf("plugin crashed: exit code %d", e.ExitCode)
}

// FailedError is a failure that the plugin reported of itself, in its own
// words, quoted and cut. They are for the person at this machine.
type FailedError struct {
	Words string
	// Err classifies the failure, where the plugin said how: fs.ErrNotExist,
	// fs.ErrPermission or a *connector.Problem.
	Err error
}

func (e *FailedError) Error() string { return "plugin failed: " + e.Words }

func (e *FailedError) Unwrap() error { return e.Err }

// DigestError says that a program is not the one that was expected.
type DigestError struct{ Path, Want, Got string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("program %s has digest %s, want %s", e.Path, e.Got, e.Want)
}

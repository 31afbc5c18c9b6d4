//go:build faultpoint

// Package faultpoint marks the places where a crash must lose nothing. This is
// the armed build, for crash tests only.
package faultpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Variable names the mark to die at, and at which passing: "name:n". With
// "name:n:stop" the process is stopped there, until somebody lets it go on.
const Variable = "CAVRA_FAULTPOINT"

var passed atomic.Int64

// Hit marks a place, and kills the process when it is the armed one.
func Hit(name string) {
	armed, nth, ok := strings.Cut(os.Getenv(Variable), ":")
	if !ok || armed != name {
		return
	}
	nth, then, _ := strings.Cut(nth, ":")
	n, err := strconv.ParseInt(nth, 10, 64)
	if err == nil && passed.Add(1) == n {
		if then == "stop" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			return
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

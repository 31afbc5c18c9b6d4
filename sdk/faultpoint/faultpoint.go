//go:build !faultpoint

// Package faultpoint marks the places where a crash must lose nothing. In a
// release build a mark is an empty function; built with the tag faultpoint, the
// environment variable CAVRA_FAULTPOINT=name:n kills the process with SIGKILL
// when it passes the named mark for the n-th time, or stops it (name:n:stop).
package faultpoint

// Hit marks a place.
func Hit(string) {}

// Package stack starts, kills and stops CAVRA's programs as a user would: by
// their command lines, their files and their API. It shares no code with them,
// so that what a test says of them is said from outside.
//
// A program runs in a process group of its own, dies with the test, and writes
// a log that is named in every error.
package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Programs is the folder of the built programs.
type Programs string

// FindPrograms finds bin in a folder at or above dir.
func FindPrograms(dir string) (Programs, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find programs: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		p := Programs(filepath.Join(at, "bin"))
		if err := p.Check(); err == nil {
			return p, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find programs: no bin with %s and %s at or above %s: run `make build engine`", agentProgram, aggregatorProgram, dir)
		}
	}
}

const (
	agentProgram      = "cavra"
	aggregatorProgram = "cavra-aggregator"
	library           = "libchdb.so"
)

// Check reports which of the programs are missing.
func (p Programs) Check() error {
	for _, name := range []string{agentProgram, aggregatorProgram, "cavra-connector-fs", "cavra-formats"} {
		if _, err := os.Stat(filepath.Join(string(p), name)); err != nil {
			return fmt.Errorf("program %s is missing in %s: run `make build`", name, p)
		}
	}
	if _, err := os.Stat(p.Library()); err != nil {
		return fmt.Errorf("the ClickHouse engine library is missing in %s: run `make engine`", p)
	}
	return nil
}

// Cavra is the path of the agent's program.
func (p Programs) Cavra() string { return filepath.Join(string(p), agentProgram) }

// Aggregator is the path of the aggregator's program.
func (p Programs) Aggregator() string { return filepath.Join(string(p), aggregatorProgram) }

// Library is the path of the engine's library.
func (p Programs) Library() string { return filepath.Join(string(p), library) }

// FreePort finds a port of 127.0.0.1 that is free now, below those that the system
// gives to connections: one of them would be somebody's by the time it is used.
func FreePort() (int, error) {
	const first, last, tries = 10_000, 30_000, 100
	var err error
	for range tries {
		port := first + rand.IntN(last-first)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find free port: %w", err)
}

// logFile names the log of a program in the folder that it works in.
func logFile(dir, name string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	return filepath.Join(dir, name+".log"), nil
}

var errNotRunning = errors.New("it is not running")

//go:build linux && !amd64 && !arm64

package plugin

// There is no filter for this machine.
const (
	machine      = 0
	otherNumbers = 0xffffffff
)

var (
	machineCalls     []uintptr
	machineProcesses []uint32
)

package plugin

import "golang.org/x/sys/unix"

const (
	// machine is the kernel's number of this one (include/uapi/linux/audit.h).
	machine = unix.AUDIT_ARCH_AARCH64
	// otherNumbers are none here.
	otherNumbers = 0xffffffff
)

// machineProcesses are none: there is clone alone.
var machineProcesses []uint32

var machineCalls = []uintptr{unix.SYS_FSTATAT, unix.SYS_GETRLIMIT}

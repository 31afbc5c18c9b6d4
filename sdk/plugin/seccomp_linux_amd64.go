package plugin

import "golang.org/x/sys/unix"

const (
	// machine is the kernel's number of this one (include/uapi/linux/audit.h).
	machine = unix.AUDIT_ARCH_X86_64
	// otherNumbers begin those of x32, by which the same calls could be made.
	otherNumbers = 0x40000000
)

// machineProcesses are the calls by which only this machine starts processes.
var machineProcesses = []uint32{unix.SYS_FORK, unix.SYS_VFORK}

var machineCalls = []uintptr{
	unix.SYS_ARCH_PRCTL, unix.SYS_EPOLL_WAIT, unix.SYS_NEWFSTATAT, unix.SYS_READLINK, unix.SYS_ACCESS, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_OPEN,
	unix.SYS_DUP2, unix.SYS_POLL, unix.SYS_UNLINK, unix.SYS_GETRLIMIT, unix.SYS_TIME,
}

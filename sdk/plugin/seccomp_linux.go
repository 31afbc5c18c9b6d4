package plugin

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of the kernel's struct seccomp_data that a filter looks at.
const (
	dataCall     = 0
	dataMachine  = 4
	dataArgument = 16
)

// The answers of a filter.
const (
	answerKill  = 0x80000000
	answerErrno = 0x00050000
	answerAllow = 0x7fff0000
)

// filter is a seccomp program while it is put together: a call that is on the list
// is allowed, any other one is refused with EPERM, and one by another machine's
// numbers ends the process.
type filter []unix.SockFilter

func (f *filter) add(code uint16, k uint32, yes, no uint8) {
	*f = append(*f, unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no})
}

func (f *filter) load(at uint32) { f.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, at, 0, 0) }

func (f *filter) answer(a uint32) { f.add(unix.BPF_RET|unix.BPF_K, a, 0, 0) }

// allow allows a call whatever its arguments.
func (f *filter) allow(call uint32) {
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, call, 0, 1)
	f.answer(answerAllow)
}

// when allows a call where all of the tests hold, and refuses it otherwise. A test
// is of the low half of an argument.
func (f *filter) when(call uint32, tests ...test) {
	long := 1 // the refusal
	for _, t := range tests {
		long += len(t.steps)
	}
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, call, 0, uint8(long+1)) //nolint:gosec // a few instructions
	left := long - 1
	for _, t := range tests {
		left -= len(t.steps)
		for i, s := range t.steps {
			if i == len(t.steps)-1 { // a test ends with a comparison: what fails it goes to the refusal
				s.Jf = uint8(left + 1) //nolint:gosec // a few instructions
			}
			*f = append(*f, s)
		}
	}
	f.answer(answerAllow)
	f.answer(answerErrno | uint32(unix.EPERM))
}

// test is instructions of which the last compares.
type test struct{ steps filter }

func argument(i, equals uint32) test { return masked(i, 0xffffffff, equals) }

func masked(i, mask, equals uint32) test {
	var f filter
	f.load(dataArgument + 8*i)
	f.add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, mask, 0, 0)
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, equals, 0, 0)
	return test{f}
}

// high tests the high half of an argument.
func high(i, equals uint32) test {
	var f filter
	f.load(dataArgument + 8*i + 4)
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, equals, 0, 0)
	return test{f}
}

// hasAny tests that an argument has one of some bits.
func hasAny(i, bits uint32) test {
	var f filter
	f.load(dataArgument + 8*i)
	f.add(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, bits, 0, 0)
	return test{f}
}

// begin is how every filter begins: a call by another machine's numbers ends the
// process, and the number of any other one is loaded.
func begin() filter {
	var f filter
	f.load(dataMachine)
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, machine, 1, 0)
	f.answer(answerKill)
	f.load(dataCall)
	f.add(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, otherNumbers, 0, 1)
	f.answer(answerKill)
	return f
}

// program is the filter of this machine, for a process that is made by some flags.
func program(flags uint32) filter {
	f := begin()
	for _, c := range append(plainCalls, machineCalls...) {
		f.allow(uint32(c)) //nolint:gosec // a call's number
	}
	// A program of C that asks for the new call takes the old one.
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, unix.SYS_CLONE3, 0, 1)
	f.answer(answerErrno | uint32(unix.ENOSYS))
	// Sockets of streams on this machine: to be connected to, not to connect.
	f.when(unix.SYS_SOCKET, argument(0, unix.AF_UNIX), masked(1, 0xf, unix.SOCK_STREAM))
	f.reload()
	// What starts the plugin itself, and threads.
	f.option(unix.SYS_CLONE, 0, flags|uint32(unix.SIGCHLD))
	f.option(unix.SYS_CLONE, 0, flags|uint32(unix.SIGCHLD)|unix.CLONE_PIDFD)
	f.reload()
	// os/exec takes a parent outside of the namespace for one that is dead, and ends
	// the first process of it, which the kernel does not do.
	f.when(unix.SYS_KILL, argument(0, 1), argument(1, uint32(unix.SIGKILL)))
	f.reload()
	f.when(unix.SYS_CLONE, hasAny(0, unix.CLONE_THREAD))
	f.reload()
	// The runtime's own signal between threads.
	f.when(unix.SYS_TGKILL, argument(2, uint32(unix.SIGURG)))
	f.reload()
	// Its own limits, to read: by one of them its host knows what it has started.
	f.when(unix.SYS_PRLIMIT64, argument(0, 0), argument(2, 0), high(2, 0))
	f.reload()
	// One more filter, for all threads: it can only refuse more.
	f.when(unix.SYS_SECCOMP, argument(0, unix.SECCOMP_SET_MODE_FILTER), argument(1, unix.SECCOMP_FILTER_FLAG_TSYNC))
	f.reload()
	// Memory of its own, and files; memory that is shared, or grows as a stack, counts for no limit.
	f.choice(unix.SYS_MMAP, 3, unix.MAP_ANON, 0)
	f.choice(unix.SYS_MMAP, 3, unix.MAP_TYPE|unix.MAP_GROWSDOWN, unix.MAP_PRIVATE)
	for _, op := range []uint32{unix.PTRACE_TRACEME, unix.PTRACE_DETACH} {
		f.option(unix.SYS_PTRACE, 0, op)
	}
	for _, op := range []uint32{unix.PR_SET_PDEATHSIG, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA} {
		f.option(unix.SYS_PRCTL, 0, op)
	}
	// No owner and no signal of a descriptor: by them the kernel signals others.
	for _, op := range []uint32{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL} {
		f.option(unix.SYS_FCNTL, 1, op)
	}
	f.answer(answerErrno | uint32(unix.EPERM))
	return f
}

// reload puts the call's number back for the next instruction.
func (f *filter) reload() { f.load(dataCall) }

// option allows a call with one value of an argument, and goes on otherwise.
func (f *filter) option(call, i, value uint32) { f.choice(call, i, 0xffffffff, value) }

// choice is option for some bits of an argument.
func (f *filter) choice(call, i, mask, value uint32) {
	f.load(dataCall)
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, call, 0, 4)
	f.load(dataArgument + 8*i)
	f.add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, mask, 0, 0)
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, value, 0, 1)
	f.answer(answerAllow)
}

// seccomp puts the filter on this thread and what it starts.
func seccomp(flags uint32) error {
	if machine == 0 {
		return unix.ENOSYS
	}
	return install(program(flags), 0)
}

// install puts a filter on this thread and what it starts, or on all threads.
func install(f filter, flags uintptr) error {
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}                                                           //nolint:gosec // some hundreds
	odd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog))) //nolint:gosec // the kernel's own structure
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	if odd != 0 {
		return fmt.Errorf("thread %d has another filter", odd)
	}
	return nil
}

// plainCalls are those that a scanner or a connector of files needs, of a program in Go that serves over a
// socket: memory, its own threads, files that it has open, waiting and clocks. Not
// among them: connect, ptrace of others, mounts, namespaces, memory files, keys,
// io_uring, bpf, perf events, other processes' memory.
var plainCalls = []uintptr{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READV, unix.SYS_WRITEV,
	unix.SYS_PREADV, unix.SYS_PREADV2, unix.SYS_OPENAT, unix.SYS_UNLINKAT, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_STATX,
	unix.SYS_GETDENTS64, unix.SYS_GETCWD, unix.SYS_CHDIR, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_PIPE2, unix.SYS_CLOSE_RANGE,
	unix.SYS_MPROTECT, unix.SYS_MUNMAP, unix.SYS_BRK, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_MINCORE, unix.SYS_MEMBARRIER,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_RSEQ, unix.SYS_GETTID,
	unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_UNAME, unix.SYS_GETRANDOM,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_GETTIMEOFDAY, unix.SYS_TIMER_CREATE,
	unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER, unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
	unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT4, unix.SYS_ACCEPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
	unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SHUTDOWN,
	unix.SYS_GETRUSAGE, unix.SYS_EXECVE, unix.SYS_SETPGID, unix.SYS_WAIT4, unix.SYS_WAITID,
}

package plugin

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// needless are the calls that a plugin has made for the last time when its host has
// connected: whatever takes it over afterwards makes no socket and starts nothing.
var needless = []uint32{
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_IO_URING_SETUP,
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_SETPGID, unix.SYS_SETSID, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SECCOMP,
}

// settled is the filter that Serve puts on over its host's once the host has
// connected. What had to stay: go-plugin asks for the next connection without end,
// and ends when it is refused, so that accept is told that there is none by now. A
// listener that hears nothing new does not ask again.
func settled() filter {
	f := begin()
	for _, call := range append(needless, machineProcesses...) {
		f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, call, 0, 1)
		f.answer(answerErrno | uint32(unix.EPERM))
	}
	for _, call := range []uint32{unix.SYS_ACCEPT, unix.SYS_ACCEPT4} {
		f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, call, 0, 1)
		f.answer(answerErrno | uint32(unix.EAGAIN))
	}
	f.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, unix.SYS_CLONE3, 0, 1)
	f.answer(answerErrno | uint32(unix.ENOSYS))
	f.when(unix.SYS_CLONE, hasAny(0, unix.CLONE_THREAD))
	f.answer(answerAllow)
	return f
}

// settling puts the filter on before the first call is answered. Where it cannot be
// put on, which a host that requires its own filter never sees, it says so.
func settling() []grpc.ServerOption {
	settle := sync.OnceFunc(func() {
		if machine == 0 {
			return
		}
		if err := install(settled(), unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
			fmt.Fprintln(os.Stderr, "plugin keeps what it no longer needs:", err)
		}
	})
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			settle()
			return next(ctx, in)
		}),
		grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			settle()
			return next(srv, s)
		}),
	}
}

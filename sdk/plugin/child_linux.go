package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
)

// launcher is the one place that says what is executed, and how: it makes the
// command anew for every try.
type launcher struct {
	program *os.File
	// sockets are inherited, from socketFd on.
	sockets     []*os.File
	args, env   []string
	confinement confinement
}

// command is a try; isolated puts the process into namespaces of its own.
func (l launcher) command(isolated bool, input *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/fd/" + strconv.Itoa(int(l.program.Fd())))
	cmd.Args = append([]string{"plugin"}, l.args...)
	cmd.Env = l.env
	cmd.Dir = "/"
	// The host's own input is none of the plugin's business.
	cmd.Stdin = input
	cmd.ExtraFiles = l.sockets
	cmd.SysProcAttr = l.confinement.attributes(isolated)
	return cmd
}

// child is the plugin's process. It is go-plugin's runner, so that go-plugin
// neither chooses what is inherited nor where the plugin may be reached.
type child struct {
	launcher       launcher
	cmd            *exec.Cmd
	dir            string
	stdout, stderr *os.File
	// theirs are the process's own input, output, errors and socket.
	theirs []*os.File
	// layers are those in force, once it has started.
	layers []predicate.Layer

	mu      sync.Mutex
	pid     int
	running bool
	// doomed is set when the process is killed before it has started.
	doomed  bool
	exited  chan struct{}
	exit    *CrashError
	waitErr error
	// refused is why it was not started.
	refused error
}

func newChild(l launcher, dir string) (*child, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), outR.Close(), outW.Close())
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open input: %w", err), outR.Close(), outW.Close(), errR.Close(), errW.Close())
	}
	theirs := []*os.File{nothing, outW, errW}
	l.sockets = slices.Clone(l.sockets)
	for i, f := range l.sockets {
		if l.sockets[i], err = above(l.program, f); err != nil {
			for _, f := range theirs {
				err = errors.Join(err, f.Close())
			}
			return nil, errors.Join(err, outR.Close(), errR.Close())
		}
		theirs = append(theirs, l.sockets[i])
	}
	return &child{launcher: l, dir: dir, stdout: outR, stderr: errR, theirs: theirs, exited: make(chan struct{})}, nil
}

// above duplicates f to a number higher than the program's. Between fork and exec,
// what is inherited is moved out of the way to the numbers after its highest, over
// whatever is there: without one above it, that may be the program.
func above(program, f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, int(program.Fd())+1)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Start starts the process and its supervisor: in namespaces of its own, or without
// where those cannot be made and are not required.
func (c *child) Start(context.Context) error {
	var err error
	for _, isolated := range c.launcher.confinement.tries() {
		started := make(chan error, 1)
		go c.supervise(isolated, started)
		if err = <-started; err == nil {
			break
		}
	}
	for _, f := range c.theirs {
		_ = f.Close()
	}
	if err == nil {
		return nil
	}
	c.refused = fmt.Errorf("start process: %w", err)
	c.waitErr = c.refused
	c.exit = &CrashError{ExitCode: -1, Signal: "not started"}
	close(c.exited)
	return errors.Join(c.waitErr, c.stdout.Close(), c.stderr.Close())
}

// supervise keeps one thread for the process's whole life: the signal at the
// parent's death is tied to the thread that forked, and what confines the child is
// put on this thread, for the child to inherit, and must not stay on one that others
// use. The thread ends with this goroutine, since it is never unlocked.
func (c *child) supervise(isolated bool, started chan<- error) {
	runtime.LockOSThread()
	if err := c.begin(isolated); err != nil {
		started <- err
		return
	}
	c.mu.Lock()
	c.pid, c.running = c.cmd.Process.Pid, true
	doomed := c.doomed
	c.mu.Unlock()
	started <- nil
	go func() { // this thread may do no more than its child
		if doomed {
			_ = unix.Kill(-c.pid, unix.SIGKILL)
		}
		c.reap()
		close(c.exited)
	}()
	<-c.exited
}

// begin confines this thread and starts the process on it.
func (c *child) begin(isolated bool) error {
	limits := c.launcher.confinement
	layers, err := limits.thread(isolated)
	if err != nil {
		return err
	}
	c.cmd = c.launcher.command(isolated, c.theirs[0])
	c.cmd.Stdout, c.cmd.Stderr = c.theirs[1], c.theirs[2]
	if err := c.cmd.Start(); err != nil {
		if limits.mode == SandboxRequire {
			return fmt.Errorf("%w: %s cannot be put on here, a process with namespaces of its own: %w", ErrSandbox, predicate.LayerNetwork, err)
		}
		return err
	}
	if isolated {
		layers = append(layers, predicate.LayerNetwork)
	}
	if !limits.off() {
		if err := limits.stopped(c.cmd.Process.Pid); err != nil {
			_ = c.cmd.Process.Kill()
			return errors.Join(err, c.cmd.Wait())
		}
		layers = append(layers, predicate.LayerRlimits)
	}
	slices.Sort(layers)
	c.layers = layers
	if err := limits.missing(layers); err != nil {
		_ = c.cmd.Process.Kill()
		return errors.Join(err, c.cmd.Wait())
	}
	return nil
}

// reap waits for the end without reaping, ends the rest of the group while its
// number cannot be anybody else's, and then reaps.
func (c *child) reap() {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.mu.Lock()
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	c.running = false
	var left error
	if l := c.launcher.confinement; !l.off() && !slices.Contains(c.layers, predicate.LayerNetwork) {
		left = l.sweep()
	}
	c.waitErr = errors.Join(c.cmd.Wait(), left)
	c.mu.Unlock()
	c.exit = exitOf(c.cmd.ProcessState)
	// A process that left the group may still hold the pipes. What is in them
	// can be read; nobody waits for more.
	soon := time.Now().Add(100 * time.Millisecond)
	_ = c.stdout.SetReadDeadline(soon)
	_ = c.stderr.SetReadDeadline(soon)
}

func exitOf(s *os.ProcessState) *CrashError {
	if s == nil {
		return &CrashError{ExitCode: -1, Signal: "unknown"}
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &CrashError{ExitCode: -1, Signal: unix.SignalName(ws.Signal())}
	}
	return &CrashError{ExitCode: s.ExitCode()}
}

// Kill ends the whole process group.
func (c *child) Kill(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		c.doomed = true
		return nil
	}
	if err := unix.Kill(-c.pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill plugin: %w", err)
	}
	return nil
}

// Wait waits until the process has ended.
func (c *child) Wait(context.Context) error {
	<-c.exited
	return c.waitErr
}

// Stdout carries go-plugin's handshake.
func (c *child) Stdout() io.ReadCloser { return c.stdout }

// Stderr carries what the plugin says to nobody in particular.
func (c *child) Stderr() io.ReadCloser { return c.stderr }

// Name is for go-plugin's own log, which is off.
func (c *child) Name() string { return "plugin" }

// ID is the process id.
func (c *child) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid == 0 {
		return ""
	}
	return strconv.Itoa(c.pid)
}

// Diagnose adds nothing.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost lets the host connect to a socket in the folder that it made for
// this plugin, and nowhere else: the address is the plugin's word.
func (c *child) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(addr) != c.dir {
		return "", "", contractf("address %s %s is not in the plugin's folder", words(network), words(addr))
	}
	st, err := os.Lstat(addr)
	if err != nil {
		return "", "", contractf("address: %w", err)
	}
	if st.Mode()&os.ModeSocket == 0 {
		return "", "", contractf("address: %w", &net.AddrError{Err: "not a socket", Addr: addr})
	}
	return network, addr, nil
}

// HostToPlugin changes nothing: both see the same folder.
func (c *child) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

package plugin

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/schemas/predicate"
)

// Sandbox says how much is put on around a plugin before its first instruction.
type Sandbox string

const (
	// SandboxOff gives a plugin an empty environment and no new privileges only.
	SandboxOff Sandbox = "off-unsafe"
	// SandboxBestEffort puts on what works here; Layers says what that is.
	SandboxBestEffort Sandbox = "best-effort"
	// SandboxRequire does not start a plugin without every layer.
	SandboxRequire Sandbox = "require"
)

// Validate reports whether s is one of them.
func (s Sandbox) Validate() error {
	if s == SandboxOff || s == SandboxBestEffort || s == SandboxRequire {
		return nil
	}
	return fmt.Errorf("sandbox %q: want %s, %s or %s", string(s), SandboxRequire, SandboxBestEffort, SandboxOff)
}

// ErrSandbox says that a layer of the sandbox that is required cannot be put on.
var ErrSandbox = errors.New("sandbox")

// namespaces keep a plugin from the network, from other processes and from
// whatever a user's privileges reach: it has none in its own user namespace.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// limits bound what one process uses: memory and time far beyond what an honest
// artifact takes, no files, no dumps.
var limits = map[int]uint64{
	unix.RLIMIT_DATA: 8 << 30, unix.RLIMIT_CPU: 4 * 3600, unix.RLIMIT_NOFILE: 256, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0, unix.RLIMIT_NPROC: 512,
}

// confinement is what a start of a plugin puts on.
type confinement struct {
	mode Sandbox
	// dir is where the plugin's socket is made, and the only place that it writes.
	dir string
	// dynamic programs need their libraries.
	dynamic bool
	// reads are what it may read besides.
	reads []string
	// mark is a limit without effect by which what the plugin starts is known: it is
	// inherited, and cannot be changed under the filter.
	mark uint64
	// without are layers that a test leaves out, to see what it is that stops.
	without []predicate.Layer
}

func newConfinement(cfg Config, program *os.File, dir string) (confinement, error) {
	c := confinement{mode: cfg.Sandbox, dir: dir, reads: cfg.Reads, mark: 1 + rand.Uint64N(math.MaxInt64), without: cfg.without}
	f, err := elf.NewFile(program)
	if err != nil {
		return c, fmt.Errorf("read program: %w", err)
	}
	c.dynamic = slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	return c, nil
}

func (c confinement) off() bool { return c.mode == "" || c.mode == SandboxOff }

// readsAsRoot reports whether a plugin is to read files as root does. It stays root
// then, of whose privileges it keeps this one: in a user namespace of its own it
// could not read what belongs to others.
func (c confinement) readsAsRoot() bool { return len(c.reads) > 0 && os.Geteuid() == 0 }

// namespaces are those that the plugin is started in.
func (c confinement) namespaces() uintptr {
	if c.readsAsRoot() {
		return namespaces &^ unix.CLONE_NEWUSER
	}
	return namespaces
}

// tries says whether the plugin is started in namespaces of its own, one try after the
// other.
func (c confinement) tries() []bool {
	switch {
	case c.off() || slices.Contains(c.without, predicate.LayerNetwork):
		return []bool{false}
	case c.mode == SandboxRequire:
		return []bool{true}
	}
	return []bool{true, false}
}

// startFlags are those by which os/exec makes the process. The filter allows no others:
// in namespaces of its own, where the plugin has no privilege, it makes no process by
// them again.
func (c confinement) startFlags(isolated bool) uint32 {
	const plain = unix.CLONE_VFORK | unix.CLONE_VM
	switch {
	case !isolated:
		return plain
	case c.readsAsRoot():
		return uint32(c.namespaces()) | plain
	}
	return uint32(c.namespaces())
}

// dropPrivileges leaves to what this thread executes no capability but to read
// files, and none at all to what is no root.
func dropPrivileges() error {
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if c == unix.CAP_DAC_READ_SEARCH {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// thread puts the layers on this thread that a child inherits, and names them.
// The thread must not be used for anything else afterwards.
func (c confinement) thread(isolated bool) ([]predicate.Layer, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	layers := []predicate.Layer{predicate.LayerEmptyEnv, predicate.LayerNoNewPrivs, predicate.LayerProcess}
	if c.off() {
		return layers, nil
	}
	if c.readsAsRoot() {
		if err := dropPrivileges(); err != nil && c.mode == SandboxRequire {
			return nil, fmt.Errorf("%w: privileges cannot be dropped here: %w", ErrSandbox, err)
		}
	}
	for _, l := range []struct {
		layer predicate.Layer
		put   func() error
	}{{predicate.LayerLandlock, c.landlock}, {predicate.LayerSeccomp, func() error { return seccomp(c.startFlags(isolated)) }}} {
		if slices.Contains(c.without, l.layer) {
			continue
		}
		switch err := l.put(); {
		case err == nil:
			layers = append(layers, l.layer)
		case c.mode == SandboxRequire:
			return nil, fmt.Errorf("%w: %s cannot be put on here: %w", ErrSandbox, l.layer, err)
		}
	}
	return layers, nil
}

// attributes are those of the process: its namespaces, and a stop before its first
// instruction, in which limits are set.
func (c confinement) attributes(isolated bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if !c.off() {
		a.Ptrace = true
		if isolated {
			a.Cloneflags = c.namespaces()
		}
	}
	return a
}

// stopped sets the limits of a process that waits before its first instruction,
// and lets it go. It is called on the thread that started the process.
func (c confinement) stopped(pid int) error {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the program: %w", err)
		}
	}
	if !ws.Stopped() {
		return errors.New("the program ended before it began")
	}
	limited := make(chan error)
	go func() { limited <- c.limit(pid) }() // this thread may do no more than its child
	if err := <-limited; err != nil {
		return err
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return fmt.Errorf("let the program go: %w", err)
	}
	return nil
}

// folderFiles is how many files one may have open that goes through folders: one
// for each above another, and what it has handed out.
const folderFiles = 4096

// limit sets the limits of another process.
func (c confinement) limit(pid int) error {
	if slices.Contains(c.without, predicate.LayerRlimits) {
		return nil
	}
	// Where this limit is set already, only a namespace ends what a plugin leaves.
	_ = unix.Prlimit(pid, unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: c.mark, Max: c.mark}, nil)
	for resource, most := range limits {
		if resource == unix.RLIMIT_NOFILE && len(c.reads) > 0 {
			most = folderFiles
		}
		l := unix.Rlimit{Cur: most, Max: most}
		var old unix.Rlimit
		if err := unix.Prlimit(pid, resource, nil, &old); err == nil {
			l.Cur, l.Max = min(l.Cur, old.Max), min(l.Max, old.Max)
		}
		if err := unix.Prlimit(pid, resource, &l, nil); err != nil {
			return fmt.Errorf("limit resource %d: %w", resource, err)
		}
	}
	return nil
}

// sweepPasses bounds how often sweep looks for more.
const sweepPasses = 200

// sweep ends the processes that bear the mark: what a plugin has started and what has
// left its group, where no namespace of processes ends them. They are stopped first,
// so that none starts another meanwhile.
func (c confinement) sweep() error {
	for range sweepPasses {
		found, err := c.marked()
		if err != nil {
			return err
		}
		fresh := false
		for _, p := range found {
			fresh = fresh || !p.stopped
			_ = unix.Kill(p.pid, unix.SIGSTOP)
		}
		if fresh {
			continue
		}
		for _, p := range found {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		if len(found) == 0 {
			return nil
		}
	}
	return errors.New("processes that the plugin has started are left")
}

// marked is a process that bears the mark.
type marked struct {
	pid     int
	stopped bool
}

func (c confinement) marked() ([]marked, error) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find processes: %w", err)
	}
	var out []marked
	for _, name := range names {
		pid, err := strconv.Atoi(name.Name())
		if err != nil {
			continue // what is no process
		}
		var l unix.Rlimit
		if unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &l) != nil || l.Max != c.mark {
			continue // ended, or another's
		}
		state := stateOf(pid)
		if state == 'Z' || state == 0 {
			continue
		}
		out = append(out, marked{pid, state == 'T' || state == 't'})
	}
	return out, nil
}

// stateOf is the letter for what a process does; 0 for one that is not there.
func stateOf(pid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	if after == "" {
		return 0
	}
	return after[0]
}

// The rights of Landlock (include/uapi/linux/landlock.h) that a plugin may have.
const (
	landlockExecute   = 1 << 0
	landlockWrite     = 1 << 1
	landlockReadFile  = 1 << 2
	landlockReadDir   = 1 << 3
	landlockRemove    = 1 << 5
	landlockMakeFile  = 1 << 8
	landlockMakeSock  = 1 << 9
	landlockScopeUnix = 1 << 0
)

// landlockRights are those that each version of Landlock knows, from the first on.
var landlockRights = []uint64{1<<13 - 1, 1<<14 - 1, 1<<15 - 1, 1<<15 - 1, 1<<16 - 1}

// landlock keeps this thread, and what it starts, from every file but the folder of
// the plugin's socket: nothing is opened by a path, nor again through /proc.
func (c confinement) landlock() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return errno
	}
	attr := struct{ fs, net, scoped uint64 }{fs: landlockRights[min(int(version), len(landlockRights))-1]}
	size := unsafe.Sizeof(attr.fs)
	if version >= 4 {
		attr.net, size = 3, size+unsafe.Sizeof(attr.net)
	}
	if version >= 6 {
		attr.scoped, size = landlockScopeUnix, unsafe.Sizeof(attr)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0) //nolint:gosec // the kernel's own structure
	if errno != 0 {
		return errno
	}
	ruleset := int(fd)
	defer closeFd(ruleset)
	// go-plugin finds a free name by an empty file; no byte can be written to one.
	if err := allow(ruleset, c.dir, landlockMakeSock|landlockMakeFile|landlockReadFile|landlockWrite|landlockRemove|landlockReadDir); err != nil {
		return err
	}
	for _, path := range c.reads {
		rights := uint64(landlockReadFile | landlockReadDir)
		if st, err := os.Stat(path); err == nil && !st.IsDir() {
			rights = landlockReadFile
		}
		if err := allow(ruleset, path, rights); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
	if c.dynamic {
		for _, dir := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
			if err := allow(ruleset, dir, landlockReadFile|landlockReadDir|landlockExecute); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// allow gives a ruleset rights to what is below a folder.
func allow(ruleset int, dir string, rights uint64) error {
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer closeFd(parent)
	rule := struct { // packed by the kernel: twelve bytes
		rights uint64
		parent int32
	}{rights, int32(parent)} //nolint:gosec // a descriptor's number
	const belowPath = 1
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), belowPath, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 { //nolint:gosec // the kernel's own structure
		return fmt.Errorf("allow %s: %w", dir, errno)
	}
	return nil
}

// missing names the layers that are required and not in force.
func (c confinement) missing(layers []predicate.Layer) error {
	if c.mode != SandboxRequire {
		return nil
	}
	var lack []string
	for _, want := range []predicate.Layer{predicate.LayerLandlock, predicate.LayerNetwork, predicate.LayerRlimits, predicate.LayerSeccomp} {
		if !slices.Contains(layers, want) {
			lack = append(lack, string(want))
		}
	}
	if len(lack) == 0 {
		return nil
	}
	return fmt.Errorf("%w: cannot be put on here: %s", ErrSandbox, strings.Join(lack, ", "))
}
